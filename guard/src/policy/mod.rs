//! What to do about what was seen: pure functions from a Snapshot and a State to a Plan. No clock, no file, no log:
//! time is the sum of the windows of the Snapshots. One file per policy; `plan` merges what they want, so that each
//! knob has one owner.

pub mod burst;
pub mod cpuset;
pub mod plan;
pub mod protect;
pub mod suppress;

pub use plan::{Direction, Origin, Plan, Want};
use serde::{Deserialize, Serialize};

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
