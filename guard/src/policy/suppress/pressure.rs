//! Profile "pressure": base quota × a ratio by CPU pressure, after the resource-isolation document's table.

use super::decision::{Decision, Load};
use super::memory::Memory;
use super::settings::{PressureSettings, SuppressSettings};
use super::targets::Why;
use crate::policy::model::{CgroupModel, Model, rounded};
use crate::snapshot::{Class, SignalName, Snapshot};

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct PressureState {
    /// The pressure that counts, percent: it follows the measured one up at once and down with hysteresis.
    effective: Option<f64>,
    /// For how long the measured one has been lower by more than the hysteresis, s.
    lower_s: f64,
    /// The ratio that followed.
    ratio: Option<f64>,
    memory: Memory,
}

/// The share of the base quota at a pressure of `pressure` percent: that of the last row that it reaches.
pub(super) fn ratio(pressure: f64, settings: &PressureSettings) -> f64 {
    let reached = settings.table.iter().rev().find(|(from, _)| *from <= pressure);
    reached.or(settings.table.first()).map_or(1.0, |(_, ratio)| *ratio)
}

impl PressureState {
    fn follow(&mut self, measured: f64, seconds: f64, settings: &PressureSettings) -> f64 {
        let effective = match self.effective {
            Some(effective) if measured + settings.hysteresis < effective => {
                self.lower_s += seconds;
                if self.lower_s >= settings.hold_s && seconds > 0.0 {
                    measured + settings.hysteresis
                } else {
                    effective
                }
            }
            Some(effective) => {
                self.lower_s = 0.0;
                effective.max(measured)
            }
            None => measured,
        };
        self.effective = Some(effective);
        effective
    }
}

/// CPU pressure and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub percent: f64,
    pub source: String,
}

/// The share of time in which work other than best-effort waited for a CPU, but no more than the node's utilisation:
/// tasks that wait while CPUs are idle wait for a quota, which shrinking best-effort work does not help. From PSI of
/// the cgroups, else of the node, else from run-queue waits; utilisation alone where none was seen.
pub(super) fn measure(snapshot: &Snapshot, model: &Model) -> Option<Measured> {
    if model.seconds <= 0.0 {
        return None;
    }
    let of_window = |ns: u64| (ns as f64 / (model.seconds * 1e7)).min(100.0);
    let sensitive = |path: &str| {
        let node = model.cgroups.get(path)?;
        let mixed = model.below(path).any(|below| matches!(below.class, Class::Be | Class::System));
        (node.is_sensitive() && !mixed).then_some(())
    };
    let highest = |of: &dyn Fn(&crate::snapshot::Cgroup) -> Option<u64>, what: &str| {
        let values = snapshot.cgroups.iter().filter_map(|cgroup| {
            let ns = of(cgroup)?;
            sensitive(&cgroup.path)?;
            Some((ns, format!("cgroups[{}].{what}", cgroup.path)))
        });
        values.max_by_key(|(ns, _)| *ns).map(|(ns, source)| Measured { percent: of_window(ns), source })
    };
    let stalled = highest(&|cgroup| cgroup.cpu_pressure.map(|p| p.some_ns), "cpu_pressure.some_ns")
        .or_else(|| {
            let some_ns = snapshot.node.cpu_pressure?.some_ns;
            Some(Measured { percent: of_window(some_ns), source: "node.cpu_pressure.some_ns".into() })
        })
        .or_else(|| {
            let waits =
                |cgroup: &crate::snapshot::Cgroup| Some(cgroup.wakeup.fair.sum_ns() + cgroup.wakeup.rt.sum_ns());
            highest(&waits, "wakeup.sum_ns").filter(|_| snapshot.sees(SignalName::Wakeup))
        });
    let capacity = model.capacity_milli();
    let utilised = model.used_milli.filter(|_| capacity > 0).map(|used| Measured {
        percent: (100.0 * used as f64 / capacity as f64).min(100.0),
        source: "cpus[].busy_ns".into(),
    });
    match (stalled, utilised) {
        (Some(stalled), Some(utilised)) if utilised.percent < stalled.percent => Some(utilised),
        (Some(stalled), _) => Some(stalled),
        (None, utilised) => utilised,
    }
}

pub(super) fn decide(
    snapshot: &Snapshot,
    model: &Model,
    targets: &[&CgroupModel],
    settings: &SuppressSettings,
    load: Load,
    state: &mut PressureState,
) -> Decision {
    state.memory.pass(model.seconds);
    let Some(measured) = measure(snapshot, model) else {
        return Decision::Keep("no CPU pressure, run-queue wait or utilisation was read".into());
    };
    let effective = state.follow(measured.percent, model.seconds, &settings.pressure);
    let ratio = ratio(effective, &settings.pressure);
    if state.ratio.replace(ratio).is_none_or(|last| ratio < last) && ratio < 1.0 {
        state.memory.harm(load.level(model.capacity_milli()), settings);
    }
    let inside = model.subtrees(targets);
    let asking =
        model.topmost(|node| node.is_sensitive() && node.request_milli.is_some() && !inside.contains(&node.id));
    let request: u64 = asking.iter().filter_map(|node| node.request_milli).sum();
    let system = settings.reserved_milli.max(model.reserved.len() as u64 * 1000);
    let base = base_milli(model.capacity_milli(), request, system);
    let why = Why {
        reason: format!(
            "At a CPU pressure of {effective:.0} % (now {:.0} %), best-effort work gets {ratio:.2} of the {base} mCPU that requests ({request} mCPU) and the system ({system} mCPU) leave",
            measured.percent
        ),
        evidence: [
            (measured.source, measured.percent),
            ("pressure_percent".into(), effective),
            ("ratio".into(), ratio),
        ]
        .into(),
    };
    let wanted = rounded(base as f64 * ratio);
    let most = state.memory.most(settings).map(|most| most.max(load.budget.unwrap_or(0)));
    Decision::Allow { milli: Some(most.map_or(wanted, |most| most.min(wanted))), why }
}

/// What others' requests and the system leave of the node.
pub(super) fn base_milli(capacity: u64, request: u64, system: u64) -> u64 {
    capacity.saturating_sub(request).saturating_sub(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_documents() {
        let settings = PressureSettings::default();
        // 16 CPUs, LS asks for 8, the system keeps 1: 7 CPUs are left.
        let base = base_milli(16_000, 8000, 1000);
        assert_eq!(base, 7000);
        for (pressure, share, quota_us) in [
            (0.0, 1.0, 700_000),
            (40.0, 1.0, 700_000),
            (45.0, 1.0, 700_000),
            (49.9, 1.0, 700_000),
            (50.0, 0.8, 560_000),
            (79.9, 0.8, 560_000),
            (80.0, 0.3, 210_000),
            (85.0, 0.3, 210_000),
            (95.0, 0.1, 70_000),
            (100.0, 0.1, 70_000),
        ] {
            assert_eq!(ratio(pressure, &settings), share, "{pressure}");
            let milli = rounded(base as f64 * share);
            assert_eq!(crate::policy::plan::bandwidth(milli, 100_000).quota_us, Some(quota_us), "{pressure}");
        }
    }

    #[test]
    fn what_is_asked_for_can_exceed_the_node() {
        assert_eq!(base_milli(4000, 6000, 1000), 0);
    }

    #[test]
    fn a_higher_pressure_counts_at_once_and_a_lower_one_after_a_while() {
        let settings = PressureSettings { hysteresis: 5.0, hold_s: 2.0, ..PressureSettings::default() };
        let mut state = PressureState::default();
        for (at, (measured, effective)) in
            [(30.0, 30.0), (81.0, 81.0), (77.0, 81.0), (70.0, 81.0), (70.0, 75.0), (70.0, 75.0), (90.0, 90.0)]
                .into_iter()
                .enumerate()
        {
            assert_eq!(state.follow(measured, 1.0, &settings), effective, "step {at}");
        }
        // An empty interval passes no time.
        for _ in 0..10 {
            assert_eq!(state.follow(10.0, 0.0, &settings), 90.0);
        }
    }
}
