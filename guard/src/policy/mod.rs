//! What to do about what was seen: pure functions from a Snapshot and a State to a Plan. No clock, no file, no log:
//! time is the sum of the windows of the Snapshots. One file per policy; `plan` merges what they want, so that each
//! knob has one owner.

pub mod budget;
pub mod burst;
mod check;
pub mod cpuset;
pub mod plan;
pub mod protect;
pub mod suppress;

pub use check::Invalid;
pub use plan::{Direction, Origin, Plan, Want};
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

/// What the user chose, per policy. The sections of the configuration file with the same names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Shrinks best-effort work.
    pub suppress: suppress::Settings,
    /// Lets latency-sensitive work exceed its quota for a while.
    pub burst: burst::Settings,
    /// Lifts quotas off PLC cgroups.
    pub protect: protect::Settings,
    /// Gives CPUs to those that need them alone.
    pub cpuset: cpuset::Settings,
}

impl Settings {
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

/// What the policies remember from one Snapshot to the next. [`State::default`] is that of the start.
#[derive(Clone, Debug, Default)]
pub struct State {}

/// What should be done after an interval. The Plan is complete: what it does not name is to be put back.
pub fn decide(_snapshot: &Snapshot, _settings: &Settings, _state: &mut State) -> Plan {
    Plan::default()
}

/// What should be done at once, between two Snapshots, in addition to the last Plan. Nothing when the trigger's cgroup
/// was in no Snapshot yet.
pub fn react(_trigger: &Trigger, _settings: &Settings, _state: &mut State) -> Vec<Want> {
    Vec::new()
}

/// What happened between two Snapshots and cannot wait for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The quota of a protected cgroup ran out.
    Throttled {
        /// Whose quota: the protected cgroup, or an ancestor of one.
        id: u64,
    },
    /// A watched thread was on its CPU later than its budget allows.
    Late {
        /// Its cgroup.
        id: u64,
        /// How late, ns.
        latency_ns: u64,
        /// Cgroup of the task that had the CPU before it.
        by: u64,
    },
}
