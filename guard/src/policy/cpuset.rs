//! Gives CPUs to those that need them alone: exclusive ones to PLC and LSE cgroups, reserved ones to LSR cgroups (which
//! best-effort work may share), and moves LS and best-effort work off them. A cgroup that has a set of CPUs of its own
//! already keeps it: its CPUs are its own from then on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::{self, Invalid};
use super::cpus::{Ask, gather};
use super::model::{CgroupModel, Model};
use super::plan::{Direction, Origin, Want};
use crate::knob::Setting;
use crate::snapshot::{Class, CpuList};

/// Why no CPUs are given on old kernels (8f9ea86fdf99, Linux 6.2).
pub(super) const FORGETS: &str =
    "this kernel makes every thread forget the affinity that it asked for when the CPUs of its cgroup change";

/// The section `[cpuset]` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpusetSettings {
    /// Whether LSE and PLC cgroups get CPUs of their own and LSR cgroups reserved ones. Off by default: it moves work.
    pub enabled: bool,
    /// Whether a cgroup with CPUs of its own gets whole cores, so that nobody else runs on a hardware thread beside it.
    pub whole_cores: bool,
    /// At least this many CPUs stay with everybody else.
    pub min_shared_cpus: u64,
    /// CPUs are given back when their cgroup was not seen for this long, s.
    pub hold_s: f64,
    /// Before Linux 6.2 a change of a cgroup's CPUs makes every thread in it forget the affinity that it had asked for, and
    /// nobody can put that back. Whether to move work all the same.
    pub forget_affinity: bool,
}

impl Default for CpusetSettings {
    fn default() -> Self {
        Self { enabled: false, whole_cores: true, min_shared_cpus: 1, hold_s: 30.0, forget_affinity: false }
    }
}

impl CpusetSettings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::within("cpuset.min_shared_cpus", self.min_shared_cpus, 1..=8192)?;
        check::seconds("cpuset.hold_s", self.hold_s)
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct CpusetState {
    /// CPUs that were given, by cgroup id.
    given: BTreeMap<u64, Given>,
}

#[derive(Clone, Debug)]
struct Given {
    path: String,
    exclusive: bool,
    cpus: CpuList,
    /// How many were asked for.
    count: usize,
    /// Until they are taken back if their cgroup is not seen, s.
    left_s: f64,
}

/// Whose CPUs are whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    /// CPUs of PLC and LSE cgroups: nobody else's.
    pub exclusive: CpuList,
    /// CPUs of LSR cgroups: best-effort work may use them, LS may not.
    pub shared: CpuList,
}

/// Who owns CPUs, by what was given and by the sets that cgroups had of themselves.
pub(super) fn owned(model: &Model, state: &CpusetState) -> Owned {
    let mut exclusive: BTreeSet<u32> = BTreeSet::new();
    let mut shared: BTreeSet<u32> = BTreeSet::new();
    let given = state.given.values().map(|given| (given.exclusive, &given.cpus));
    let units = units(model);
    let own = units.iter().filter_map(|unit| Some((is_exclusive(model, unit), own_set(model, unit)?)));
    for (is_exclusive, cpus) in given.chain(own) {
        if is_exclusive { exclusive.extend(cpus.iter()) } else { shared.extend(cpus.iter()) }
    }
    shared.retain(|cpu| !exclusive.contains(cpu));
    Owned { exclusive: exclusive.into_iter().collect(), shared: shared.into_iter().collect() }
}

/// The set of CPUs that somebody else gave to the cgroup itself: not all, and not merely that of a cgroup around it.
fn own_set<'a>(model: &'a Model, node: &'a CgroupModel) -> Option<&'a CpuList> {
    let cpus = node.cpus.as_ref().filter(|cpus| !cpus.is_empty())?;
    let all = model.online.iter().all(|cpu| cpus.contains(cpu));
    let around = |above: &CgroupModel| above.container.is_none() || above.container != node.container;
    let inherited = model.ancestors(&node.path).any(|above| above.cpus.as_ref() == Some(cpus) && around(above));
    (!all && !inherited).then_some(cpus)
}

/// Which CPUs should be whose after an interval.
pub(super) fn decide(
    model: &Model,
    settings: &CpusetSettings,
    state: &mut CpusetState,
    notes: &mut Vec<String>,
) -> Vec<Want> {
    if !settings.enabled {
        state.given.clear();
        notes.push("cpuset: not enabled".into());
        return Vec::new();
    }
    if model.forgets_affinity && !settings.forget_affinity {
        state.given.clear();
        notes.push(format!("cpuset: {FORGETS}; forget_affinity accepts that"));
        return Vec::new();
    }
    let units = units(model);
    if units.is_empty() {
        notes.push("cpuset: no PLC, LSE or LSR cgroup".into());
    }
    take_back(model, &units, state);
    let mut wants = Vec::new();
    for unit in &units {
        if own_set(model, unit).is_some() {
            continue;
        }
        match give(model, unit, settings, state) {
            Ok(own) => wants.extend(own),
            Err(reason) => notes.push(format!("cpuset: {} gets no CPUs of its own: {reason}", unit.path)),
        }
    }
    wants.extend(move_off(model, &owned(model, state), notes));
    wants
}

/// Those that get CPUs: the topmost cgroup of each PLC, LSE or LSR workload. PLC first, then LSE, then LSR.
fn units(model: &Model) -> Vec<&CgroupModel> {
    let mut units = model.topmost(|node| node.path != "/" && !node.unmanaged && claim(model, node).is_some());
    units.sort_by_key(|node| (claim(model, node), &node.path));
    units
}

/// The class for which a cgroup gets CPUs: its own, or that of what it holds where that is all one container. (The
/// container "libpod-x" holds no threads itself: they are in "libpod-x/container".)
fn claim(model: &Model, node: &CgroupModel) -> Option<Class> {
    let claims = |node: &CgroupModel| matches!(node.class, Class::Plc | Class::Lse | Class::Lsr).then_some(node.class);
    let one_container =
        || node.container.is_some() && model.below(&node.path).all(|below| below.container == node.container);
    if claims(node).is_none() && !one_container() {
        return None;
    }
    std::iter::once(node).chain(model.below(&node.path)).filter_map(claims).min()
}

fn is_exclusive(model: &Model, unit: &CgroupModel) -> bool {
    let mut classes = std::iter::once(unit.class).chain(model.below(&unit.path).map(|below| below.class));
    classes.any(|class| matches!(class, Class::Plc | Class::Lse))
}

/// How many CPUs it needs: what it asks for, else what it may use, else one for each RT thread; at least one.
fn count(model: &Model, unit: &CgroupModel) -> usize {
    let all = || std::iter::once(unit).chain(model.below(&unit.path));
    let milli = all().find_map(|node| node.request_milli).or_else(|| all().find_map(|node| node.limit_milli));
    let threads = || all().filter_map(|node| node.rt_threads).map(u64::from).sum();
    usize::try_from(milli.map_or_else(threads, |milli| milli.div_ceil(1000))).unwrap_or(usize::MAX).max(1)
}

/// Takes back CPUs whose cgroup is gone, needs another number, or which are no longer there to be given.
fn take_back(model: &Model, units: &[&CgroupModel], state: &mut CpusetState) {
    let units: BTreeMap<u64, &CgroupModel> = units.iter().map(|unit| (unit.id, *unit)).collect();
    state.given.retain(|id, given| {
        let Some(unit) = units.get(id) else {
            given.left_s -= model.seconds;
            return given.left_s > 0.0;
        };
        given.path.clone_from(&unit.path);
        given.count == count(model, unit)
            && given.exclusive == is_exclusive(model, unit)
            && given.cpus.iter().all(|cpu| model.online.contains(cpu) && !model.reserved.contains(cpu))
    });
}

fn give(
    model: &Model,
    unit: &CgroupModel,
    settings: &CpusetSettings,
    state: &mut CpusetState,
) -> Result<Vec<Want>, String> {
    let exclusive = is_exclusive(model, unit);
    let count = count(model, unit);
    if let Some(given) = state.given.get_mut(&unit.id) {
        given.left_s = settings.hold_s;
    } else {
        let taken = owned(model, state);
        let bound = model.ancestors(&unit.path).find_map(|above| above.cpus.as_ref().filter(|cpus| !cpus.is_empty()));
        let free: CpuList = model
            .online
            .iter()
            .filter(|cpu| !model.reserved.contains(*cpu))
            .filter(|cpu| !taken.exclusive.contains(*cpu) && !taken.shared.contains(*cpu))
            .filter(|cpu| bound.is_none_or(|bound| bound.contains(*cpu)))
            .collect();
        let plc = std::iter::once(unit).chain(model.below(&unit.path)).any(|node| node.class == Class::Plc);
        let ask = Ask { count, isolated: plc, whole_cores: settings.whole_cores };
        let gathered = [ask, Ask { whole_cores: false, ..ask }]
            .into_iter()
            .filter_map(|ask| gather(ask, &free, &model.online, &model.isolated, &model.places))
            .find(|cpus| leaves_enough(model, &taken, cpus, settings));
        let cpus = gathered.ok_or_else(|| {
            format!("{count} of the free CPUs ({free}) cannot be given while {} stay shared", settings.min_shared_cpus)
        })?;
        let given = Given { path: unit.path.clone(), exclusive, cpus, count, left_s: settings.hold_s };
        state.given.insert(unit.id, given);
    }
    let cpus = state.given.get(&unit.id).map(|given| given.cpus.clone()).unwrap_or_default();
    let kind = if exclusive { "exclusive" } else { "reserved" };
    // What is below it and has a set of its own, as everything has on v1, goes with it.
    let below = model.below(&unit.path).filter(|node| node.cpus.as_ref().is_some_and(|cpus| !cpus.is_empty()));
    let want = |node: &CgroupModel| Want {
        path: node.path.clone(),
        id: node.id,
        setting: Setting::Cpus(cpus.clone()),
        origin: Origin::Cpuset,
        direction: Direction::Lift,
        reason: format!("{} needs {count} CPUs and gets {cpus} as {kind} ones", unit.path),
        evidence: [(format!("cgroups[{}].cpus_needed", unit.path), count as f64)].into(),
    };
    Ok(std::iter::once(unit).chain(below).map(want).collect())
}

/// Whether enough CPUs that are not isolated stay with everybody else.
fn leaves_enough(model: &Model, taken: &Owned, cpus: &CpuList, settings: &CpusetSettings) -> bool {
    let left = model.online.iter().filter(|cpu| {
        !cpus.contains(*cpu)
            && !taken.exclusive.contains(*cpu)
            && !taken.shared.contains(*cpu)
            && !model.isolated.contains(*cpu)
    });
    left.count() as u64 >= settings.min_shared_cpus
}

/// Moves LS and best-effort work off the CPUs that are others' own: the topmost cgroups that hold nothing else, and
/// what is below them with a set of its own.
fn move_off(model: &Model, owned: &Owned, notes: &mut Vec<String>) -> Vec<Want> {
    let inside = model.subtrees(&units(model));
    let movable = |node: &CgroupModel| {
        matches!(node.class, Class::Ls | Class::Be) && !node.unmanaged && node.path != "/" && !inside.contains(&node.id)
    };
    let mut blocked = BTreeSet::new();
    for node in model.cgroups.values().filter(|node| !movable(node)) {
        blocked.extend(model.ancestors(&node.path).map(|above| above.id));
    }
    let mut wants = Vec::new();
    for top in model.topmost(|node| movable(node) && !blocked.contains(&node.id)) {
        let Some(own) = &top.cpus else { continue };
        let bound = model.ancestors(&top.path).find_map(|above| above.cpus.as_ref().filter(|cpus| !cpus.is_empty()));
        let all = bound.unwrap_or(&model.online);
        let Some(left) = without(if own.is_empty() { all } else { own }, all, top.class, owned) else {
            notes.push(format!("cpuset: every CPU that {} may use is owned by others; it stays where it is", top.path));
            continue;
        };
        let below = model.below(&top.path).filter_map(|node| {
            let own = node.cpus.as_ref().filter(|own| !own.is_empty())?;
            let inside: CpuList = own.iter().filter(|cpu| left.contains(*cpu)).collect();
            Some((node, if inside.is_empty() { left.clone() } else { inside }))
        });
        for (node, cpus) in std::iter::once((top, left.clone())).chain(below) {
            if node.cpus.as_ref().is_some_and(|own| own.is_empty() && cpus == *all) {
                continue;
            }
            wants.push(Want {
                path: node.path.clone(),
                id: node.id,
                setting: Setting::Cpus(cpus),
                origin: Origin::Cpuset,
                direction: Direction::Reduce,
                reason: format!("CPUs {} are exclusive and {} reserved", shown(&owned.exclusive), shown(&owned.shared)),
                evidence: [("exclusive_cpus".to_owned(), owned.exclusive.len() as f64)].into(),
            });
        }
    }
    wants
}

/// What `own` keeps without others' CPUs, else what `all` keeps; `None` when that is nothing either.
fn without(own: &CpuList, all: &CpuList, class: Class, owned: &Owned) -> Option<CpuList> {
    let theirs = |cpu: u32| owned.exclusive.contains(cpu) || class == Class::Ls && owned.shared.contains(cpu);
    [own, all]
        .into_iter()
        .map(|cpus| cpus.iter().filter(|cpu| !theirs(*cpu)).collect::<CpuList>())
        .find(|left| !left.is_empty())
}

fn shown(cpus: &CpuList) -> String {
    if cpus.is_empty() { "none".into() } else { cpus.to_string() }
}
