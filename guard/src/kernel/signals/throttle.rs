//! Signal `throttle`: CFS bandwidth throttles of each cgroup. The functions that throttle show each; the period timer shows
//! the kernel's own counters; cpu.stat alone shows how many there were.

use super::{
    row::{Ask, Row, Source},
    timer::TIMER,
};
use crate::kernel::{
    offer::CFS_PERIOD_TIMER,
    programs::{entry, exit},
};
use crate::snapshot::{SignalName, ThrottleSource};

const CPU_STAT: &str = "cpu.stat";

pub(super) static THROTTLE: Row = Row {
    needs: bandwidth,
    unseen: CPU_STAT,
    ..Row::new(
        SignalName::Throttle,
        &[
            Source {
                frozen: &[entry("unthrottle_cfs_rq"), exit("throttle_cfs_rq")],
                // From a cfs_rq to the id of its cgroup.
                members: &["cfs_rq.tg", "task_group.css.cgroup"],
                ..Source::new("fexit throttle_cfs_rq, fentry unthrottle_cfs_rq; cpu.stat")
            },
            Source {
                needs: |ask| TIMER.decide(ask).sight.and_then(|_| ask.offer.callback(CFS_PERIOD_TIMER)),
                // From a period timer to its cgroup, and the kernel's own counters.
                members: &[
                    "task_group.css.cgroup",
                    "task_group.cfs_bandwidth",
                    "cfs_bandwidth.period_timer",
                    "cfs_bandwidth.nr_throttled",
                    "cfs_bandwidth.throttled_time",
                ],
                instead: "durations are means of a period, for lack of fentry",
                nor: "nor by the period timer: ",
                configure: |config| config.throttle_by_period = 1,
                ..Source::new("tp_btf hrtimer_expire_entry of sched_cfs_period_timer; cpu.stat")
            },
            Source { instead: "durations are not known, for lack of fentry", ..Source::new(CPU_STAT) },
        ],
    )
};

/// Whether there is CFS bandwidth control.
pub(super) fn bandwidth(ask: &Ask<'_>) -> Result<(), String> {
    let throttle_count = ask.offer.members(&["cfs_rq.throttle_count"]);
    throttle_count.map_err(|reason| format!("there is no CFS bandwidth control (CONFIG_CFS_BANDWIDTH): {reason}"))
}

/// What counts throttles with this source of the row.
pub(super) fn counted_by(source: Option<usize>) -> ThrottleSource {
    match source {
        Some(0) => ThrottleSource::Fentry,
        Some(1) => ThrottleSource::PeriodTimer,
        _ => ThrottleSource::CpuStat,
    }
}

/// Whether each throttle is seen.
pub(super) fn is_each_seen(ask: &Ask<'_>) -> bool {
    counted_by(THROTTLE.decide(ask).by) == ThrottleSource::Fentry
}
