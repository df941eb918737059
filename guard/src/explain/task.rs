//! A task as the flight recorder names it, and what its name and its priority say.

use crate::snapshot::Cause;

/// Effective kernel priorities from here on are fair.
pub(super) const FAIR: i32 = 100;

/// Begin of the names of the threads that move others from CPU to CPU.
pub(super) const MOVER: &str = "migration/";

/// A task as the recorder names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Its tid; 0 for what is no task.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its effective kernel priority, where known.
    pub prio: Option<i32>,
    /// Id of its cgroup; 0 when unknown.
    pub cgroup_id: u64,
}

/// The cause that a kernel thread of this name stands for; `None` for any other thread.
pub(super) fn cause_of(comm: &str) -> Option<Cause> {
    let causes = [("irq/", Cause::Irq), ("ksoftirqd/", Cause::Softirq), ("ktimers/", Cause::Softirq)];
    causes.into_iter().find(|(begin, _)| comm.starts_with(begin)).map(|(_, cause)| cause)
}
