//! Several Snapshots of one node as one: what it was like over all of their windows.

use std::collections::HashMap;
use std::hash::Hash;

use super::order;
use super::parts::{
    Breach, Cgroup, Cpu, CpuStat, Interrupt, Inversion, Lock, Lost, Overhead, Pressure, Snapshot, Stolen, Thread,
    Throttle, Timer,
};

/// Late wake-ups that a sum keeps: the worst. The others are counted in [`Lost::breaches`].
const BREACHES_KEPT: usize = 1_000;
/// Actions that a sum keeps: the last.
const ACTIONS_KEPT: usize = 10_000;

impl Snapshot {
    /// All of them as one, worst first; `None` without any. See [`Self::absorb`].
    pub fn sum(mut snapshots: impl Iterator<Item = Self>) -> Option<Self> {
        let mut sum = snapshots.next()?;
        snapshots.for_each(|later| sum.absorb(&later));
        order::cgroups(&mut sum.cgroups);
        order::threads(&mut sum.threads);
        Inversion::sort(&mut sum.inversions);
        Some(sum)
    }

    /// Adds `later`. The result is unsorted; [`Self::sum`] sorts. Counts are added, states (node, signals, knobs, quotas) are
    /// the later one's, the window begins where it began and its length is the sum. The worst thousand late wake-ups are
    /// kept.
    pub fn absorb(&mut self, later: &Self) {
        absorb_overhead(&mut self.overhead, self.window.seconds, &later.overhead, later.window.seconds);
        self.schema = later.schema;
        self.node.clone_from(&later.node);
        self.window.seconds += later.window.seconds;
        self.signals.clone_from(&later.signals);
        absorb_all(&mut self.cgroups, &later.cgroups, |c| (c.id, c.path.clone()), |_| true, Cgroup::absorb);
        // The tid of a thread that has ended belongs to another one afterwards.
        absorb_all(&mut self.threads, &later.threads, |t| (t.tid, t.pid), |t| !t.exited, Thread::absorb);
        absorb_all(&mut self.cpus, &later.cpus, |c| c.cpu, |_| true, Cpu::absorb);
        self.breaches.extend_from_slice(&later.breaches);
        add(&mut self.overhead.lost.breaches, keep_worst(&mut self.breaches));
        for inversion in &later.inversions {
            Inversion::merge(&mut self.inversions, inversion.clone());
        }
        self.actions.extend_from_slice(&later.actions);
        let surplus = self.actions.len().saturating_sub(ACTIONS_KEPT);
        self.actions.drain(..surplus);
    }
}

/// Drops all but the worst, keeping their order; returns how many were dropped.
fn keep_worst(breaches: &mut Vec<Breach>) -> u64 {
    let surplus = breaches.len().saturating_sub(BREACHES_KEPT);
    if surplus > 0 {
        let mut latencies: Vec<u64> = breaches.iter().map(|b| b.latency_ns).collect();
        latencies.sort_unstable();
        let mut left = surplus;
        breaches.retain(|b| {
            let drop = left > 0 && b.latency_ns <= latencies[surplus - 1];
            left -= usize::from(drop);
            !drop
        });
    }
    u64::try_from(surplus).unwrap_or(u64::MAX)
}

/// Adds each of `later` to the one of `all` that has the same key and is open to additions, or else at the end.
fn absorb_all<T: Clone, K: Hash + Eq>(
    all: &mut Vec<T>,
    later: &[T],
    key: impl Fn(&T) -> K,
    open: impl Fn(&T) -> bool,
    absorb: impl Fn(&mut T, &T),
) {
    let known: HashMap<K, usize> = all.iter().enumerate().filter(|(_, t)| open(t)).map(|(i, t)| (key(t), i)).collect();
    for one in later {
        match known.get(&key(one)) {
            Some(index) => absorb(&mut all[*index], one),
            None => all.push(one.clone()),
        }
    }
}

fn absorb_overhead(sum: &mut Overhead, seconds: f64, later: &Overhead, later_seconds: f64) {
    let total = seconds + later_seconds;
    if total > 0.0 {
        sum.cpu_fraction = (sum.cpu_fraction * seconds + later.cpu_fraction * later_seconds) / total;
    }
    sum.memory_bytes = sum.memory_bytes.max(later.memory_bytes);
    sum.map_bytes = sum.map_bytes.max(later.map_bytes);
    #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
    if let (Some(ns), Some(events), Some(later_ns), Some(later_events)) =
        (sum.ns_per_event, sum.events, later.ns_per_event, later.events)
    {
        let all = events.saturating_add(later_events);
        let spent = ns * events as f64 + later_ns * later_events as f64;
        sum.ns_per_event = Some(if all == 0 { 0.0 } else { spent / all as f64 });
        sum.events = Some(all);
    } else {
        (sum.ns_per_event, sum.events) = (None, None);
    }
    sum.user_rest_ns = later.user_rest_ns;
    sum.lost.absorb(&later.lost);
}

fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

/// The sum where both sides were seen.
fn add_seen(sum: &mut Option<u64>, later: Option<u64>) {
    *sum = sum.zip(later).map(|(a, b)| a.saturating_add(b));
}

impl Lost {
    /// Adds another window.
    pub(crate) fn absorb(&mut self, later: &Self) {
        add(&mut self.missed_events, later.missed_events);
        add(&mut self.collisions, later.collisions);
        add(&mut self.other_cgroups, later.other_cgroups);
        add(&mut self.unwatched_threads, later.unwatched_threads);
        add(&mut self.breaches, later.breaches);
        add(&mut self.failed_reads, later.failed_reads);
        add(&mut self.past_timers, later.past_timers);
        add(&mut self.dropped_threads, later.dropped_threads);
    }
}

impl Cgroup {
    /// Adds the window of `later`, whose states count.
    pub(crate) fn absorb(&mut self, later: &Self) {
        let mut sum = later.clone();
        sum.wakeup.rt.merge(&self.wakeup.rt);
        sum.wakeup.fair.merge(&self.wakeup.fair);
        sum.wakeup.throttled.merge(&self.wakeup.throttled);
        sum.timer.absorb(&self.timer);
        sum.lock.absorb(&self.lock);
        sum.throttle.absorb(&self.throttle);
        sum.container = sum.container.or_else(|| self.container.take());
        add_seen(&mut sum.cpu_ns, self.cpu_ns);
        sum.cpu_pressure = sum.cpu_pressure.zip(self.cpu_pressure).map(|(a, b)| a.plus(b));
        *self = sum;
    }
}

impl Thread {
    fn absorb(&mut self, later: &Self) {
        let mut sum = later.clone();
        sum.timer.absorb(&self.timer);
        sum.wakeup.merge(&self.wakeup);
        sum.lock.absorb(&self.lock);
        add(&mut sum.user_estimated, self.user_estimated);
        add(&mut sum.breaches, self.breaches);
        sum.affinity = sum.affinity.or_else(|| self.affinity.take());
        sum.period_ns = sum.period_ns.or(self.period_ns);
        sum.timer_kind = sum.timer_kind.or_else(|| self.timer_kind.take());
        *self = sum;
    }
}

impl Timer {
    /// Adds another window.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.irq.merge(&other.irq);
        self.thread.merge(&other.thread);
        self.user.merge(&other.user);
        add(&mut self.missed, other.missed);
    }
}

impl Lock {
    fn absorb(&mut self, other: &Self) {
        self.wait.merge(&other.wait);
        add(&mut self.boosts, other.boosts);
        self.futex_boosts = match (self.futex_boosts, other.futex_boosts) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
    }
}

impl Throttle {
    /// Adds an earlier window; its culprit, source and quota stand where this window has none.
    fn absorb(&mut self, earlier: &Self) {
        add(&mut self.count, earlier.count);
        add(&mut self.total_ns, earlier.total_ns);
        self.duration.merge(&earlier.duration);
        self.by = self.by.take().or_else(|| earlier.by.clone());
        self.source = self.source.take().or_else(|| earlier.source.clone());
        self.cpu_stat = match (self.cpu_stat, earlier.cpu_stat) {
            (Some(a), Some(b)) => Some(CpuStat {
                nr_periods: a.nr_periods.saturating_add(b.nr_periods),
                nr_throttled: a.nr_throttled.saturating_add(b.nr_throttled),
                throttled_ns: a.throttled_ns.saturating_add(b.throttled_ns),
            }),
            (a, b) => a.or(b),
        };
    }
}

impl Pressure {
    /// Both together; full only where both say it.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            some_ns: self.some_ns.saturating_add(other.some_ns),
            full_ns: self.full_ns.zip(other.full_ns).map(|(a, b)| a.saturating_add(b)),
        }
    }
}

impl Cpu {
    /// Adds the window of `later`.
    pub(crate) fn absorb(&mut self, later: &Self) {
        let mut sum = self.clone();
        (sum.place, sum.isolated) = (later.place, later.isolated);
        add_seen(&mut sum.busy_ns, later.busy_ns);
        sum.hardirq.absorb(later.hardirq);
        sum.softirq.absorb(later.softirq);
        sum.rt_throttle.absorb(later.rt_throttle);
        sum.fair_server.absorb(later.fair_server);
        *self = sum;
    }
}

impl Interrupt {
    fn absorb(&mut self, later: Self) {
        add(&mut self.count, later.count);
        add(&mut self.total_ns, later.total_ns);
        add(&mut self.while_rt_ns, later.while_rt_ns);
        self.max_ns = self.max_ns.max(later.max_ns);
    }
}

impl Stolen {
    fn absorb(&mut self, later: Self) {
        add(&mut self.count, later.count);
        add(&mut self.total_ns, later.total_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::samples;

    #[test]
    fn what_is_counted_is_added_and_extremes_stay() {
        let mut sum = samples::full();
        let mut later = samples::full();
        later.cgroups[0].timer.user.record(5_000_000);
        later.cpus[1].hardirq.max_ns = 7;
        later.node.kernel = "6.12".into();
        sum.absorb(&later);
        assert_eq!(sum.window.seconds, 20.0);
        assert_eq!(sum.node.kernel, "6.12");
        let plc = &sum.cgroups[0];
        assert_eq!((plc.timer.user.count(), plc.timer.user.max_ns(), plc.timer.missed), (7, 5_000_000, 4));
        assert_eq!(sum.threads[0].breaches, 2);
        assert_eq!((sum.cpus[1].hardirq.count, sum.cpus[1].hardirq.max_ns), (180, 30_000));
        let machine = sum.cgroups.iter().find(|c| c.path == "/machine").unwrap();
        assert_eq!(machine.throttle.cpu_stat.map(|s| s.nr_throttled), Some(24));
        assert_eq!((sum.breaches.len(), sum.actions.len(), sum.overhead.lost.breaches), (2, 2, 6));
        assert_eq!((sum.overhead.events, sum.overhead.ns_per_event), (Some(10_000), Some(310.0)));
    }

    #[test]
    fn a_tid_that_is_used_again_is_another_thread() {
        let sum = Snapshot::sum([samples::full(), samples::full()].into_iter()).unwrap();
        // The first sample's irq/9 has ended, so that of the second is not the same; cycle is.
        assert_eq!(sum.threads.iter().map(|t| t.tid).collect::<Vec<_>>(), [1234, 77, 77]);
    }

    #[test]
    fn the_worst_late_wake_ups_are_kept_in_their_order() {
        let mut sum = samples::full();
        sum.overhead.lost.breaches = 0;
        let breach = sum.breaches[0].clone();
        let late = |latency_ns| Breach { latency_ns, ..breach.clone() };
        sum.breaches = (0..BREACHES_KEPT as u64).map(late).collect();
        let mut later = samples::empty();
        later.breaches = vec![late(5_000), late(6_000)];
        sum.absorb(&later);
        assert_eq!((sum.breaches.len(), sum.overhead.lost.breaches), (BREACHES_KEPT, 2));
        assert_eq!(sum.breaches[0].latency_ns, 2);
        assert_eq!(sum.breaches[BREACHES_KEPT - 1].latency_ns, 6_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_snapshots_are_too_strange_to_be_added(mut a in samples::any_snapshot(), b in samples::any_snapshot()) {
            a.absorb(&b);
            prop_assert!(a.window.seconds >= b.window.seconds);
        }
    }
}
