//! An allowance as a set of CPUs (koordlet's adjustByCPUSet): never CPUs that others own, a fair part of those that
//! LSR cgroups own, hardware threads of a core together, spread over NUMA nodes.

use super::targets::Why;
use crate::knob::Setting;
use crate::policy::cpus::scatter;
use crate::policy::cpuset::Owned;
use crate::policy::model::{CgroupModel, Model};
use crate::policy::plan::Want;
use crate::snapshot::CpuList;

/// The set for each target, and for what is below it and has a set of its own that goes beyond.
///
/// # Errors
/// Why there is none: no CPU is left, or the cpuset controller is not there.
pub(super) fn wants(
    model: &Model,
    targets: &[&CgroupModel],
    budget_milli: u64,
    owned: &Owned,
    why: &Why,
) -> Result<Vec<Want>, String> {
    let chosen = choose(model, budget_milli, owned).ok_or("every CPU is owned or reserved")?;
    let mut wants = Vec::new();
    for target in targets {
        let original = target.cpus.as_ref().ok_or_else(|| format!("the cpuset of {} was not read", target.path))?;
        let allowed =
            model.ancestors(&target.path).filter_map(|above| above.cpus.as_ref()).find(|cpus| !cpus.is_empty());
        let chosen = narrowed(&chosen, allowed.unwrap_or(&chosen))
            .ok_or_else(|| format!("none of the CPUs {chosen} is among those that {} may use", target.path))?;
        let set = narrowed(&chosen, original).unwrap_or(chosen);
        wants.extend(model.below(&target.path).filter_map(|below| {
            let own = below.cpus.as_ref().filter(|own| !own.is_empty() && own.iter().any(|cpu| !set.contains(cpu)))?;
            Some(why.want(below, Setting::Cpus(narrowed(&set, own).unwrap_or_else(|| set.clone()))))
        }));
        wants.push(why.want(target, Setting::Cpus(set)));
    }
    Ok(wants)
}

/// The CPUs for best-effort work; `None` when nobody may give any.
fn choose(model: &Model, budget_milli: u64, owned: &Owned) -> Option<CpuList> {
    let free = |cpu: &u32| !model.reserved.contains(*cpu) && !owned.exclusive.contains(*cpu);
    let (lsr, ls): (Vec<u32>, Vec<u32>) = model.online.iter().filter(free).partition(|cpu| owned.shared.contains(*cpu));
    let all = lsr.len() + ls.len();
    if all == 0 {
        return None;
    }
    let wanted = usize::try_from(budget_milli.div_ceil(1000)).unwrap_or(all).clamp(1, all);
    let of_lsr = (wanted * lsr.len() / all).min(lsr.len());
    // What the others cannot give comes from LSR's after all.
    let of_ls = (wanted - of_lsr).min(ls.len());
    let of_lsr = (wanted - of_ls).min(lsr.len());
    Some(scatter(of_lsr, &lsr, &model.places).into_iter().chain(scatter(of_ls, &ls, &model.places)).collect())
}

/// What both have; `None` for nothing. An empty set stands for that of the parent, thus for no bound.
fn narrowed(set: &CpuList, by: &CpuList) -> Option<CpuList> {
    if by.is_empty() {
        return Some(set.clone());
    }
    let both: CpuList = set.iter().filter(|cpu| by.contains(*cpu)).collect();
    (!both.is_empty()).then_some(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_chosen_as_koordinator_does_without_its_defects() {
        let list = |text: &str| text.parse::<CpuList>().unwrap();
        let model = |reserved: &str| Model { online: list("0-7"), reserved: list(reserved), ..Model::default() };
        for (name, budget, exclusive, shared, reserved, chosen) in [
            ("rounded up", 2100, "", "", "", Some("0-2")),
            ("not those of an LSE or PLC", 2000, "0-1", "", "", Some("2-3")),
            ("not those of the system", 2000, "", "", "0", Some("1-2")),
            ("LSR's in proportion: 4 of 8", 4000, "", "4-7", "", Some("0-1,4-5")),
            ("LSR's in proportion: 3 x 4 / 8 = 1", 3000, "", "4-7", "", Some("0-1,4")),
            ("more than there are: Koordinator keeps the old set, on LSE's CPUs", 8000, "0-5", "", "", Some("6-7")),
            ("more than there are, all LSR's", 8000, "0-3", "4-7", "", Some("4-7")),
            ("none at all: Koordinator divides by zero", 2000, "0-6", "", "7", None),
        ] {
            let owned = Owned { exclusive: list(exclusive), shared: list(shared) };
            assert_eq!(choose(&model(reserved), budget, &owned), chosen.map(list), "{name}");
        }
    }
}
