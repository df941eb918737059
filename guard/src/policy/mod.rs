//! What to do about what was seen: pure functions from a Snapshot and a PolicyState to a Plan. No clock, no file, no log:
//! time is the sum of the windows of the Snapshots. One file per policy; `plan` merges what they want, so that each
//! knob has one owner.

pub mod burst;
mod check;
mod cpus;
pub mod cpuset;
mod ledger;
mod model;
pub mod plan;
pub mod protect;
pub mod suppress;
mod survey;

use std::collections::HashMap;

pub use check::Invalid;
pub use plan::{Direction, Origin, Plan, Want};
use serde::{Deserialize, Serialize};

use crate::snapshot::{Cgroup, Class, Snapshot};
use ledger::Ledger;
use model::Model;

/// What the user chose, per policy. The sections of the configuration file with the same names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Shrinks best-effort work.
    pub suppress: suppress::SuppressSettings,
    /// Lets latency-sensitive work exceed its quota for a while.
    pub burst: burst::BurstSettings,
    /// Lifts quotas off PLC cgroups.
    pub protect: protect::ProtectSettings,
    /// Gives CPUs to those that need them alone.
    pub cpuset: cpuset::CpusetSettings,
}

impl PolicySettings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not, with its section.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.suppress.validate()?;
        self.burst.validate()?;
        self.protect.validate()?;
        self.cpuset.validate()
    }
}

/// What the policies remember from one Snapshot to the next. [`PolicyState::default`] is that of the start.
#[derive(Clone, Debug, Default)]
pub struct PolicyState {
    /// The node after the last interval.
    model: Model,
    ledger: Ledger,
    protect: protect::ProtectState,
    cpuset: cpuset::CpusetState,
    suppress: suppress::SuppressState,
    burst: burst::BurstState,
}

/// What should be done after an interval. The Plan is complete: what it does not name is to be put back.
///
/// ```
/// use guard::{policy::{PolicySettings, PolicyState, decide}, record::Replay};
/// // What the policies remember from one interval to the next.
/// let mut state = PolicyState::default();
/// for snapshot in Replay::open("../docs/example.guardrec".as_ref())?.flatten() {
///     for want in decide(&snapshot, &PolicySettings::default(), &mut state).wants {
///         assert!(!want.reason.is_empty(), "{} of {}", want.setting.knob(), want.path);
///     }
/// }
/// # Ok::<(), guard::record::ReplayError>(())
/// ```
pub fn decide(snapshot: &Snapshot, settings: &PolicySettings, state: &mut PolicyState) -> Plan {
    if let Some(reason) = &snapshot.node.hands_off {
        *state = PolicyState::default();
        return Plan { wants: Vec::new(), notes: vec![format!("Nothing is changed on this node: {reason}")] };
    }
    let model = Model::new(snapshot, &state.ledger);
    let mut notes = Vec::new();
    let mut wants = protect::decide(snapshot, &model, &settings.protect, &mut state.protect, &mut notes);
    wants.extend(cpuset::decide(&model, &settings.cpuset, &mut state.cpuset, &mut notes));
    let owned = cpuset::owned(&model, &state.cpuset);
    wants.extend(suppress::decide(snapshot, &model, &settings.suppress, &owned, &mut state.suppress, &mut notes));
    wants.extend(burst::decide(snapshot, &model, &settings.burst, &mut state.burst, &mut notes));
    let wants = plan::merge(wants, &model, &mut notes);
    state.ledger.settle(&wants, &model);
    state.model = model;
    notes.dedup();
    Plan { wants, notes }
}

/// What should be done at once, between two Snapshots, in addition to the last Plan. Nothing when the trigger's cgroup
/// was in no Snapshot yet.
pub fn react(trigger: &Trigger, settings: &PolicySettings, state: &mut PolicyState) -> Vec<Want> {
    let PolicyState { model, ledger, protect, cpuset, suppress, .. } = state;
    let wants = match *trigger {
        Trigger::Throttled { id } => protect::throttled(model, id, &settings.protect, protect),
        Trigger::Late { id, at_ns, latency_ns, times, by } => {
            let late = suppress::LateWakeup { id, at_ns, latency_ns, times, by };
            suppress::late(model, late, &settings.suppress, &cpuset::owned(model, cpuset), suppress)
        }
    };
    let wants = plan::merge(wants, model, &mut Vec::new());
    ledger.note(&wants, model);
    wants
}

/// What should be done at once for PLC cgroups that have turned up since the last Snapshot, in addition to the last Plan.
/// `cgroups` are these and whatever may hold them back: what contains them, what is below them and the rest of their
/// containers, with their knobs as they are now.
pub fn discover(cgroups: &[Cgroup], settings: &PolicySettings, state: &mut PolicyState) -> Vec<Want> {
    let PolicyState { model, ledger, protect, .. } = state;
    model.discover(cgroups, ledger);
    let new: Vec<u64> = cgroups.iter().filter(|cgroup| cgroup.class == Class::Plc).map(|cgroup| cgroup.id).collect();
    let wants = protect::discovered(model, &new, &settings.protect, protect);
    let wants = plan::merge(wants, model, &mut Vec::new());
    ledger.note(&wants, model);
    wants
}

/// Per cgroup, the wait in ns that suppress answers at once.
#[must_use]
pub fn late_from(state: &PolicyState) -> HashMap<u64, u64> {
    suppress::late_from(&state.suppress)
}

/// What happened between two Snapshots and cannot wait for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The quota of a protected cgroup ran out.
    Throttled {
        /// Whose quota: the protected cgroup, or an ancestor of one.
        id: u64,
    },
    /// Threads were on a CPU later than their budget allows.
    Late {
        /// Their cgroup.
        id: u64,
        /// When the worst of them got its CPU, on a clock that only goes forwards, ns.
        at_ns: u64,
        /// How late that one was, ns.
        latency_ns: u64,
        /// How many there were.
        times: u64,
        /// Cgroup of the task that had the CPU before it.
        by: u64,
    },
}

#[cfg(test)]
mod tests;
