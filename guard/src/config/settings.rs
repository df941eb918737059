//! What the user chose: the whole configuration, and its section on the node.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::metrics::Metrics;
use super::units::Time;
use super::workload::Workload;
use crate::policy;
use crate::snapshot::CpuList;

/// What the user chose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The node, and guard on it.
    pub node: NodeSettings,
    /// Workloads by name, in the order of the file.
    pub workloads: Vec<Workload>,
    /// The policies.
    pub policy: policy::PolicySettings,
    /// Metrics.
    pub metrics: Metrics,
}

/// The section `[node]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSettings {
    /// CPUs kept for the system: never given to a workload alone, and not part of the capacity that policies share out.
    pub reserved_cpus: CpuList,
    /// Time between two decisions.
    pub interval: Time,
    /// Directory of the journal, which holds the values that guard found. It must outlive a crash of guard.
    pub state_dir: PathBuf,
    /// File to which each change is appended as a line of JSON.
    pub audit: PathBuf,
    /// SCHED_FIFO priority of the threads that decide and write while guard enforces, 1 to 99; 0 for none. Read at the
    /// start.
    pub priority: u8,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            reserved_cpus: CpuList::default(),
            interval: Time::from_millis(1_000),
            state_dir: "/var/lib/guard".into(),
            audit: "/var/log/guard/audit.jsonl".into(),
            priority: 1,
        }
    }
}
