//! Shrinks best-effort work. A profile decides what best-effort work as a whole may use; this file bounds that (never
//! below the floor, never up by more than a step) and turns it into a quota or a set of CPUs for the topmost cgroups
//! that are best-effort through and through.

mod cpuset_form;
mod decision;
mod latency;
mod memory;
mod pressure;
mod settings;
mod targets;
mod threshold;

use std::collections::HashMap;

pub use settings::{Form, LatencySettings, PressureSettings, Profile, SuppressSettings, ThresholdSettings};

use super::cpuset;
use super::model::{CgroupModel, Model, rounded};
use super::plan::Want;
use crate::snapshot::Snapshot;
use decision::{Decision, Load};
use targets::{Shared, Why, floor_milli, quotas, remember_sharing, used_milli};

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct SuppressState {
    /// The profile that decided last.
    profile: Profile,
    /// What best-effort work may use, in thousandths of a CPU; `None` for all.
    budget: Option<u64>,
    /// Why it is what it is.
    why: Why,
    shared: Shared,
    latency: latency::LatencyState,
    pressure: pressure::PressureState,
}

/// What best-effort work is to be held to after an interval.
pub(super) fn decide(
    snapshot: &Snapshot,
    model: &Model,
    settings: &SuppressSettings,
    owned: &cpuset::Owned,
    state: &mut SuppressState,
    notes: &mut Vec<String>,
) -> Vec<Want> {
    remember_sharing(&mut state.shared, snapshot, model, settings);
    if state.profile != settings.profile {
        *state = SuppressState {
            profile: settings.profile,
            shared: std::mem::take(&mut state.shared),
            ..SuppressState::default()
        };
    }
    if settings.profile == Profile::Off {
        notes.push("suppress: profile is off".into());
        return Vec::new();
    }
    notes.extend(state.shared.values().map(targets::Sharing::note));
    let targets = targets::targets(model, &state.shared);
    if targets.is_empty() {
        notes.push("suppress: no best-effort cgroup that may be shrunk".into());
        state.budget = None;
        if settings.profile == Profile::Latency {
            latency::watch(snapshot, &settings.latency, &mut state.latency);
        }
        return Vec::new();
    }
    let floor = floor_milli(model, settings);
    if floor >= model.capacity_milli() {
        notes.push(format!("suppress: the floor of {floor} mCPU is the whole node: nothing can be shrunk"));
    }
    let load = Load { used: used_milli(&targets), floor, budget: state.budget };
    let decision = match settings.profile {
        Profile::Off => Decision::Stay,
        Profile::Latency => latency::decide(snapshot, model, load, settings, &mut state.latency, notes),
        Profile::Pressure => pressure::decide(snapshot, model, &targets, settings, load, &mut state.pressure),
        Profile::Threshold => threshold::decide(model, &targets, settings, state.budget, floor),
    };
    match decision {
        Decision::Allow { milli, why } => {
            state.budget = bounded(milli, state.budget, floor, model, settings);
            state.why = why;
        }
        Decision::Stay => {}
        Decision::Keep(reason) => notes.push(format!("suppress: {reason}; best-effort work stays as it is")),
    }
    enforce(model, &targets, settings, owned, state, notes)
}

/// What follows at once from a late wake-up: the profile "latency" cuts, at most once between two Snapshots.
pub(super) fn late(
    model: &Model,
    late: LateWakeup,
    settings: &SuppressSettings,
    owned: &cpuset::Owned,
    state: &mut SuppressState,
) -> Vec<Want> {
    if settings.profile != Profile::Latency || state.profile != Profile::Latency {
        return Vec::new();
    }
    let targets = targets::targets(model, &state.shared);
    if targets.is_empty() {
        return Vec::new();
    }
    let floor = floor_milli(model, settings);
    let load = Load { used: used_milli(&targets), floor, budget: state.budget };
    let Some((milli, why)) = latency::react(model, late, load, settings, &mut state.latency) else {
        return Vec::new();
    };
    state.budget = bounded(Some(milli), state.budget, floor, model, settings);
    state.why = why;
    enforce(model, &targets, settings, owned, state, &mut Vec::new())
}

/// Per cgroup, the wait in ns that is answered at once; empty unless the profile answers.
pub(super) fn late_from(state: &SuppressState) -> HashMap<u64, u64> {
    if state.profile == Profile::Latency { latency::late_from(&state.latency) } else { HashMap::new() }
}

pub(super) use latency::LateWakeup;

/// Never below the floor; up by no more than a step; `None` once it is the whole node.
fn bounded(
    wanted: Option<u64>,
    current: Option<u64>,
    floor: u64,
    model: &Model,
    settings: &SuppressSettings,
) -> Option<u64> {
    let capacity = model.capacity_milli();
    let step = rounded((capacity * settings.max_rise_percent) as f64 / 100.0 * model.second());
    let most = current.map_or(u64::MAX, |current| current.saturating_add(step));
    let budget = wanted.unwrap_or(capacity).min(most).max(floor);
    (budget < capacity).then_some(budget)
}

fn enforce(
    model: &Model,
    targets: &[&CgroupModel],
    settings: &SuppressSettings,
    owned: &cpuset::Owned,
    state: &SuppressState,
    notes: &mut Vec<String>,
) -> Vec<Want> {
    let Some(budget) = state.budget else { return Vec::new() };
    if settings.form == Form::Cpuset && model.forgets_affinity {
        notes.push(format!("suppress: {}; best-effort work gets a quota instead", cpuset::FORGETS));
    } else if settings.form == Form::Cpuset {
        match cpuset_form::wants(model, targets, budget, owned, &state.why) {
            Ok(wants) => return wants,
            Err(reason) => notes.push(format!("suppress: {reason}; best-effort work gets a quota instead")),
        }
    }
    let unread = targets.iter().filter(|node| node.quota.is_none());
    notes.extend(unread.map(|node| format!("suppress: the quota of {} was not read", node.path)));
    quotas(targets, budget, settings, &state.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(cpus: u32, seconds: f64) -> Model {
        Model { seconds, online: (0..cpus).collect(), ..Model::default() }
    }

    #[test]
    fn an_allowance_grows_by_a_tenth_of_the_node_and_shrinks_at_once() {
        let settings = SuppressSettings::default();
        // 16 CPUs, floor 20 mCPU: Koordinator's 2,000 us; its step is 160,000 us, here 1600 mCPU.
        for (wanted, current, budget) in [
            (Some(10_000), None, Some(10_000)),
            (Some(10_000), Some(5000), Some(6600)),
            (Some(6600), Some(5000), Some(6600)),
            (Some(6601), Some(5000), Some(6600)),
            (Some(100), Some(5000), Some(100)),
            (Some(0), Some(5000), Some(20)),
            (Some(0), None, Some(20)),
            (None, Some(5000), Some(6600)),
            (None, Some(14_400), None),
            (None, None, None),
            (Some(16_000), None, None),
            (Some(15_999), None, Some(15_999)),
        ] {
            assert_eq!(bounded(wanted, current, 20, &model(16, 1.0), &settings), budget, "{wanted:?} {current:?}");
        }
    }

    #[test]
    fn the_step_is_that_of_the_time_that_passed_but_of_a_second_at_most() {
        let settings = SuppressSettings::default();
        for (seconds, budget) in [(0.0, 5000), (0.1, 5160), (0.5, 5800), (0.9999, 6600), (1.0, 6600), (7.0, 6600)] {
            let bounded = bounded(None, Some(5000), 20, &model(16, seconds), &settings);
            assert_eq!(bounded, Some(budget), "{seconds} s");
        }
    }
}
