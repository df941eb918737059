//! What the dashboard remembers: the last Snapshots, and of every workload its sums since the begin and its trend.

use std::collections::{HashMap, VecDeque};

use super::super::figures;
use crate::snapshot::{Action, BudgetOf, Cgroup, Histogram, Latency, Snapshot};

/// Snapshots kept, at most.
const SNAPSHOTS: usize = 600;
/// Memory that they may take, bytes, roughly.
const BYTES: usize = 24 << 20;
/// Worst latencies kept of each workload.
const TREND: usize = 120;
/// Workloads whose sums are kept; beyond it those that were not seen longest go.
const WORKLOADS: usize = 4_096;
/// Actions kept since the begin.
const ACTIONS: usize = 1_000;

/// Which latency speaks for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Timer expiry to return to user space.
    User,
    /// Timer expiry to switch-in, where no return to user space was seen.
    Thread,
    /// Ready to running, real-time tasks.
    Rt,
    /// Ready to running, fair tasks.
    Fair,
}

impl Measure {
    /// Its name in a column.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "timer",
            Self::Thread => "timer*",
            Self::Rt => "RT wait",
            Self::Fair => "wait",
        }
    }

    /// Whether a limit for real-time threads applies.
    pub(super) fn is_real_time(self) -> bool {
        self != Self::Fair
    }

    /// The latency of a cgroup.
    pub(super) fn of(self, cgroup: &Cgroup) -> &Latency {
        match self {
            Self::User => &cgroup.timer.user,
            Self::Thread => &cgroup.timer.thread,
            Self::Rt => &cgroup.wakeup.rt,
            Self::Fair => &cgroup.wakeup.fair,
        }
    }

    const ALL: [Self; 4] = [Self::User, Self::Thread, Self::Rt, Self::Fair];
}

/// The latency that speaks for a cgroup: the first that was seen of timers, real-time waits and fair waits.
pub(super) fn measured(cgroup: &Cgroup) -> Option<(Measure, &Latency)> {
    Measure::ALL.into_iter().map(|m| (m, m.of(cgroup))).find(|(_, latency)| !latency.is_empty())
}

/// A workload since the begin.
#[derive(Default)]
pub(super) struct Track {
    sums: [Histogram; 4],
    /// Throttles by its own quota.
    pub(super) throttles: u64,
    /// Number of the Snapshot and worst latency in it, ns; oldest first.
    worst: VecDeque<(u64, u64)>,
}

impl Track {
    /// The sum of a latency since the begin.
    pub(super) fn sum(&self, metric: Measure) -> &Histogram {
        &self.sums[metric as usize]
    }

    /// Worst latency of each of the `n` Snapshots up to number `until`, ns; 0 where there is none.
    pub(super) fn trend(&self, until: u64, n: usize) -> Vec<u64> {
        let mut trend = vec![0; n];
        for (number, ns) in &self.worst {
            if let Some(back) = until.checked_sub(*number).and_then(|back| usize::try_from(back).ok())
                && back < n
            {
                trend[n - 1 - back] = *ns;
            }
        }
        trend
    }

    fn add(&mut self, number: u64, cgroup: &Cgroup) {
        for metric in Measure::ALL {
            self.sums[metric as usize].merge(metric.of(cgroup));
        }
        self.throttles = self.throttles.saturating_add(cgroup.throttle.count);
        if self.worst.len() == TREND {
            self.worst.pop_front();
        }
        self.worst.push_back((number, measured(cgroup).map_or(0, |(_, latency)| latency.max_ns())));
    }

    fn last_seen(&self) -> u64 {
        self.worst.back().map_or(0, |(number, _)| *number)
    }
}

/// All that is remembered.
#[derive(Default)]
pub(super) struct SnapshotHistory {
    snapshots: VecDeque<(Snapshot, usize)>,
    bytes: usize,
    /// Number of the next Snapshot; the first ever was 0.
    next: u64,
    tracks: HashMap<u64, Track>,
    /// Since the begin, oldest first, with the number of their Snapshot.
    pub(super) actions: VecDeque<(u64, Action)>,
}

impl SnapshotHistory {
    /// Takes the newest Snapshot in; the oldest go when there are too many.
    pub(super) fn push(&mut self, snapshot: Snapshot) {
        for cgroup in &snapshot.cgroups {
            self.tracks.entry(cgroup.id).or_default().add(self.next, cgroup);
        }
        if self.tracks.len() > WORKLOADS {
            let mut seen: Vec<u64> = self.tracks.values().map(Track::last_seen).collect();
            seen.sort_unstable();
            let oldest = seen[seen.len() - WORKLOADS];
            self.tracks.retain(|_, track| track.last_seen() >= oldest);
        }
        self.actions.extend(snapshot.actions.iter().map(|action| (self.next, action.clone())));
        self.actions.drain(..self.actions.len().saturating_sub(ACTIONS));
        let bytes = weight(&snapshot);
        self.snapshots.push_back((snapshot, bytes));
        self.bytes += bytes;
        self.next += 1;
        while self.snapshots.len() > 1 && (self.snapshots.len() > SNAPSHOTS || self.bytes > BYTES) {
            self.bytes -= self.snapshots.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Number of the newest Snapshot.
    pub(super) fn newest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Number of the oldest Snapshot that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.next - self.snapshots.len() as u64
    }

    /// A Snapshot by its number.
    pub(super) fn get(&self, number: u64) -> Option<&Snapshot> {
        let index = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        self.snapshots.get(index).map(|(snapshot, _)| snapshot)
    }

    /// Up to `n` Snapshots up to number `until`, oldest first.
    pub(super) fn last(&self, until: u64, n: usize) -> impl Iterator<Item = &Snapshot> {
        let end = usize::try_from((until + 1).saturating_sub(self.oldest())).unwrap_or(0).min(self.snapshots.len());
        self.snapshots.range(end.saturating_sub(n)..end).map(|(snapshot, _)| snapshot)
    }

    /// A workload since the begin.
    pub(super) fn track(&self, id: u64) -> Option<&Track> {
        self.tracks.get(&id)
    }
}

/// Memory that a Snapshot takes, bytes, roughly.
fn weight(snapshot: &Snapshot) -> usize {
    const HISTOGRAM: usize = guard_common::hist::BUCKETS * size_of::<u64>();
    let of_cgroup = |c: &Cgroup| {
        let all = [&c.wakeup.rt, &c.wakeup.fair, &c.wakeup.throttled, &c.throttle.duration, &c.lock.wait];
        let timers = [&c.timer.irq, &c.timer.thread, &c.timer.user];
        all.iter().chain(&timers).filter(|latency| !latency.is_empty()).count()
    };
    let histograms: usize = snapshot.cgroups.iter().map(of_cgroup).sum::<usize>()
        + snapshot
            .threads
            .iter()
            .flat_map(|t| [&t.timer.irq, &t.timer.thread, &t.timer.user, &t.wakeup, &t.lock.wait])
            .filter(|latency| !latency.is_empty())
            .count();
    let records = snapshot.cgroups.len() + snapshot.threads.len() + snapshot.breaches.len() + snapshot.cpus.len();
    histograms * HISTOGRAM + records * 1_024
}

/// The part of a cgroup's budgets that its worst figure has used up; `None` without a budget or anything measured.
pub(super) fn budget_use(cgroup: &Cgroup) -> Option<f64> {
    let used = |budget: &crate::snapshot::Budget| {
        let metric = budget.metric.known()?;
        let latency = match metric.of {
            BudgetOf::Wakeup => &cgroup.wakeup.rt,
            BudgetOf::Timer => cgroup.timer.last_stage()?.1,
        };
        if latency.is_empty() || budget.limit_ns == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a share for people")]
        Some(metric.point.of(latency) as f64 / budget.limit_ns as f64)
    };
    cgroup.budgets.iter().filter_map(used).reduce(f64::max)
}

/// Name of a cgroup for a row.
pub(super) fn name(cgroup: &Cgroup) -> String {
    figures::cgroup_name(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Budget;
    use crate::view::samples;

    #[test]
    fn memory_stays_bounded_and_numbers_go_on() {
        let mut history = SnapshotHistory::default();
        for _ in 0..2 * SNAPSHOTS {
            history.push(samples::full());
        }
        assert_eq!(history.newest(), Some(2 * SNAPSHOTS as u64 - 1));
        assert!(history.snapshots.len() <= SNAPSHOTS && history.bytes <= BYTES);
        assert!(history.get(history.oldest()).is_some() && history.get(history.oldest() - 1).is_none());
        assert_eq!(history.actions.len(), ACTIONS);
        let track = history.track(101).unwrap();
        assert_eq!(track.sum(Measure::User).count(), 3 * 2 * SNAPSHOTS as u64);
        assert_eq!(track.worst.len(), TREND);
    }

    #[test]
    fn workloads_that_are_long_gone_are_forgotten() {
        let mut history = SnapshotHistory::default();
        for id in 0..2 * WORKLOADS as u64 {
            let mut snapshot = samples::empty();
            snapshot.cgroups = vec![Cgroup { id, ..Cgroup::default() }];
            history.push(snapshot);
        }
        assert!(history.tracks.len() <= WORKLOADS + 1 && history.track(0).is_none());
    }

    #[test]
    fn a_trend_has_gaps_where_nothing_was_seen() {
        let mut history = SnapshotHistory::default();
        history.push(samples::full());
        history.push(samples::empty());
        history.push(samples::full());
        assert_eq!(history.track(101).unwrap().trend(2, 4), [0, 1_900_000, 0, 1_900_000]);
        assert_eq!(history.track(101).unwrap().trend(1, 2), [1_900_000, 0]);
    }

    #[test]
    fn the_worst_budget_counts() {
        let mut cgroup = samples::full().cgroups[0].clone();
        assert_eq!(budget_use(&cgroup), None);
        let budget = |metric: &str, limit_ns| Budget { metric: metric.into(), limit_ns };
        cgroup.budgets = vec![budget("timer.max", 1_000_000), budget("wakeup.p999", 100_000_000), budget("x.y", 1)];
        assert_eq!(budget_use(&cgroup), Some(1.9));
    }
}
