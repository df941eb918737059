//! Signal `throttled_wait`: the part of a fair task's wait in which its cgroup or an ancestor was throttled.

use guard_common::config::throttled_time;

use super::{
    row::{Ask, Group, Row, Source},
    throttle,
    timer::TIMER,
};
use crate::kernel::{
    offer::{CFS_PERIOD_TIMER, Lack},
    programs::{entry, tracepoint},
};
use crate::snapshot::SignalName;

/// A migration carries the part waited so far to the other CPU.
pub(super) const MIGRATE: Group = &[tracepoint("sched_migrate_task")];

pub(super) static THROTTLED_WAIT: Row = Row {
    needs,
    lacking: "nothing tells how long a cgroup was throttled",
    ..Row::new(
        SignalName::ThrottledWait,
        &[
            Source {
                probes: MIGRATE,
                members: &["cfs_rq.throttled_clock_self_time", "cfs_rq.throttled_clock_self", "cfs_rq.rq", "rq.clock"],
                configure: |config| config.throttled_time = throttled_time::FIELD,
                ..Source::new("cfs_rq.throttled_clock_self_time at sched_waking, sched_migrate_task, sched_switch")
            },
            Source {
                frozen: &[entry("tg_unthrottle_up"), entry("tg_throttle_down")],
                probes: MIGRATE,
                members: &["rq.cpu"],
                configure: |config| config.throttled_time = throttled_time::FENTRY,
                ..Source::new("fentry tg_throttle_down, tg_unthrottle_up")
            },
        ],
    )
};

fn needs(ask: &Ask<'_>) -> Result<(), String> {
    ask.group(MIGRATE, Lack::Signal)?;
    throttle::bandwidth(ask)?;
    // From a task to the cfs_rq that it waits on, and to the one it moves to.
    ask.offer.members(&["task_struct.se.cfs_rq", "task_struct.sched_task_group", "task_group.cfs_rq"])?;
    if throttle::is_each_seen(ask) {
        return Ok(());
    }
    // Throttled time is looked at only once a quota was seen on the node.
    let seen = TIMER.decide(ask).sight.and_then(|_| ask.offer.callback(CFS_PERIOD_TIMER));
    seen.map_err(|reason| format!("neither fentry nor the period timer shows that there are quotas: {reason}"))
}
