//! Signal `rt_throttle`: a CPU taken from runnable real-time tasks, by RT throttling or by the fair server.

use super::row::{Ask, Row, Source, shortfalls};
use crate::snapshot::SignalName;

/// From a task to the real-time tasks that are runnable on its CPU.
pub(super) const RT_RUNNABLE: &[&str] =
    &["task_struct.se.cfs_rq", "cfs_rq.rq", "rq.rt.rt_nr_running", "rt_rq.rt_nr_running"];

pub(super) static RT_THROTTLE: Row = Row::new(
    SignalName::RtThrottle,
    &[Source { weaker, ..Source::new("tp_btf sched_switch: a runnable RT task gives way to a fair one") }],
);

fn weaker(ask: &Ask<'_>) -> Vec<String> {
    // Without a server of fair tasks, or without RT time for each cgroup, there is nothing of them to see.
    ask.offer.offset("task_struct.dl_server");
    ask.offer.offset("task_struct.rt.rt_rq");
    shortfalls([(
        "where other tasks follow while the real-time task waits on, the end is seen too early",
        ask.offer.members(RT_RUNNABLE),
    )])
}
