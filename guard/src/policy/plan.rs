//! The Plan: which knobs should have which values, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::snapshot::{Knob, Setting};

/// Which policy wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Lifting quotas off PLC cgroups.
    Protect,
    /// Exclusive CPUs.
    Cpuset,
    /// Shrinking best-effort work.
    Suppress,
    /// Bursting latency-sensitive work.
    Burst,
}

/// The two directions that must never be confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Shrinks what disturbs.
    Reduce,
    /// Raises what strangles.
    Lift,
}

/// One knob of one cgroup that should have a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// Path of the cgroup.
    pub path: String,
    /// Its id: a cgroup that was made anew under the same path is another one.
    pub id: u64,
    /// Knob and value.
    pub setting: Setting,
    /// Which policy wants it.
    pub origin: Origin,
    /// Which way it goes.
    pub direction: Direction,
    /// One sentence for people.
    pub reason: String,
    /// The Snapshot's values that led to it, by their names there.
    pub evidence: BTreeMap<String, f64>,
}

/// What the policies want. It is complete: a knob that guard holds and that no want names is to be put back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// At most one per cgroup and knob, ordered by path.
    pub wants: Vec<Want>,
    /// What a policy did not do, and why: one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// The want for a knob of a cgroup.
    #[must_use]
    pub fn want(&self, id: u64, knob: Knob) -> Option<&Want> {
        self.wants.iter().find(|want| want.id == id && want.setting.knob() == knob)
    }
}
