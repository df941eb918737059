//! Who is on the node, by ids: what names the figures of a window.

use std::collections::HashMap;

use super::meter::WindowReading;
use crate::inventory::{CgroupInfo, ThreadInfo};
use crate::snapshot::Node;

/// Stands for all cgroups that found no slot.
const OTHER: &str = "(other)";

/// Who is on the node, and what the files of their cgroups say.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The machine.
    pub(super) node: Node,
    /// Cgroups by id: at least those in the sample and those with a quota.
    pub(super) cgroups: HashMap<u64, (CgroupInfo, WindowReading)>,
    /// Threads by tid: at least those in the sample that still live, and those that the user named.
    pub(super) threads: HashMap<u32, KnownThread>,
}

/// A thread by its names.
#[derive(Clone, Debug)]
pub(super) struct KnownThread {
    /// The thread.
    pub(super) info: ThreadInfo,
    /// CPUs it may run on, in list form; `None` when it ended before they were read.
    pub(super) affinity: Option<String>,
    /// Period that it asked for, ns; `None` unless it runs under SCHED_DEADLINE.
    pub(super) deadline_period_ns: Option<u64>,
    /// Whether it has ended since.
    pub(super) ended: bool,
}

impl Known {
    /// Path of a cgroup; "(other)" or "(id 7)" for one that has none.
    pub(super) fn path_of(&self, id: u64) -> String {
        self.cgroups.get(&id).map_or_else(|| nameless(id), |(info, _)| info.path.clone())
    }
}

/// What stands for the path of a cgroup that nobody knows.
pub(super) fn nameless(id: u64) -> String {
    if id == 0 { OTHER.to_owned() } else { format!("(id {id})") }
}
