//! Which cgroup and which thread comes first: the worst.

use std::cmp::Reverse;

use super::latency::Histogram;
use super::parts::{Cgroup, Class, Thread};

/// Sorts worst first: class PLC before the others; then by [`cgroup_rank`]. Equals stand by path.
pub(crate) fn cgroups(cgroups: &mut [Cgroup]) {
    cgroups.sort_by_cached_key(|c| {
        let rank = cgroup_rank([&c.timer.user, &c.timer.thread, &c.wakeup.rt, &c.wakeup.throttled, &c.wakeup.fair]);
        (Reverse((c.class == Class::Plc, rank)), c.path.clone())
    });
}

/// Sorts worst first by [`thread_rank`]. Equals stand by tid.
pub(crate) fn threads(threads: &mut [Thread]) {
    threads.sort_by_cached_key(|t| (Reverse(thread_rank([&t.timer.user, &t.timer.thread, &t.wakeup])), t.tid));
}

/// How bad a cgroup is, the worst being the greatest: the largest timer latency (user stage, else thread stage), the
/// largest wait of a real-time task, the largest wait for a quota, and p99 of the fair tasks' waits, ns. What one cgroup
/// has and another has not counts as worse.
pub(crate) fn cgroup_rank([user, thread, rt, throttled, fair]: [&Histogram; 5]) -> [u64; 4] {
    [timer_max(user, thread), rt.max_ns(), throttled.max_ns(), fair.quantile_ns(0.99)]
}

/// How bad a thread is, the worst being the greatest: the largest timer latency (user stage, else thread stage), then
/// the largest wait, ns.
pub(crate) fn thread_rank([user, thread, wakeup]: [&Histogram; 3]) -> [u64; 2] {
    [timer_max(user, thread), wakeup.max_ns()]
}

fn timer_max(user: &Histogram, thread: &Histogram) -> u64 {
    if user.is_empty() { thread.max_ns() } else { user.max_ns() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Latency, Timer};

    fn latency(ns: u64) -> Latency {
        let mut latency = Latency::default();
        latency.record(ns);
        latency
    }

    #[test]
    fn plc_comes_first_then_timer_then_rt_then_throttled_then_fair() {
        let mut all: Vec<Cgroup> = ["e-fair", "d-throttled", "c-rt", "b-timer", "a-plc", "f-nothing"]
            .map(|path| Cgroup { path: path.into(), ..Cgroup::default() })
            .into();
        all[0].wakeup.fair = latency(9_000_000);
        all[1].wakeup.throttled = latency(4_000);
        all[2].wakeup.rt = latency(3_000);
        all[3].timer.thread = latency(2_000);
        all[4].class = Class::Plc;
        cgroups(&mut all);
        assert_eq!(
            all.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(),
            ["a-plc", "b-timer", "c-rt", "d-throttled", "e-fair", "f-nothing"]
        );
    }

    #[test]
    fn threads_stand_by_their_worst_cycle() {
        let thread = |tid, user: u64, wakeup: u64| Thread {
            tid,
            timer: Timer { user: latency(user), ..Timer::default() },
            wakeup: latency(wakeup),
            ..Thread::default()
        };
        let mut all = vec![thread(4, 10, 50), thread(3, 10, 50), thread(2, 10, 60), thread(1, 99, 1)];
        threads(&mut all);
        assert_eq!(all.iter().map(|t| t.tid).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
