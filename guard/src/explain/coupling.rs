//! Couplings: what went up and down together from window to window. A hint where to look, never a proof. Pure.

use std::collections::{BTreeMap, VecDeque};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Class, Snapshot, Word, words};

/// Windows that a coefficient looks back on.
const WINDOWS: usize = 300;
/// Fewest windows that say anything.
const FEWEST: usize = 10;
/// From this coefficient on two series are called coupled.
const COUPLED: f64 = 0.75;

/// Two series and how far they go together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coupling {
    /// The cgroup.
    pub cgroup: String,
    /// What of it, and with what.
    pub what: Word<CoupledPair>,
    /// Windows with both figures.
    pub samples: usize,
    /// Pearson's coefficient; absent when a series stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pearson: Option<f64>,
    /// Spearman's, which is Pearson's of the ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spearman: Option<f64>,
    /// Whether one of them is above 0.75.
    pub coupled: bool,
}

words! {
    /// What may go together.
    enum CoupledPair {
        /// How long the cgroup was throttled, and its cpu.pressure.
        ThrottledAndPressure = "throttled time and cpu pressure",
        /// What best-effort cgroups did, and the worst latency of a PLC.
        BestEffortAndLatency = "best-effort activity and latency",
    }
}

/// What the first series of a pair is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    ThrottledTime,
    BestEffortCpuTime,
    /// Always counted.
    BestEffortWakeups,
}

impl Measure {
    fn pair(self) -> CoupledPair {
        match self {
            Self::ThrottledTime => CoupledPair::ThrottledAndPressure,
            Self::BestEffortCpuTime | Self::BestEffortWakeups => CoupledPair::BestEffortAndLatency,
        }
    }
}

/// The last windows of each pair of series.
#[derive(Clone, Debug, Default)]
pub struct Couplings {
    series: BTreeMap<(String, Measure), VecDeque<(f64, f64)>>,
}

impl Couplings {
    /// Adds a window.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let seconds = snapshot.window.seconds;
        if seconds <= 0.0 {
            return;
        }
        let best_effort = best_effort(snapshot);
        for cgroup in &snapshot.cgroups {
            if let (Some(stat), Some(pressure)) = (cgroup.throttle.cpu_stat, cgroup.cpu_pressure) {
                let pair = (share(stat.throttled_ns, seconds), share(pressure.some_ns, seconds));
                self.push(&cgroup.path, Measure::ThrottledTime, pair);
            }
            if let (Class::Plc, Some((cpu_ns, wakeups))) = (cgroup.class, best_effort) {
                let timer = cgroup.timer.last_stage().map(|(_, latency)| latency);
                if let Some(latency) = timer.or((!cgroup.wakeup.rt.is_empty()).then_some(&cgroup.wakeup.rt)) {
                    #[allow(
                        clippy::cast_precision_loss,
                        reason = "latencies and counts of a window stay far below 2^53"
                    )]
                    let (wakeups, max_ns) = (wakeups as f64 / seconds, latency.max_ns() as f64);
                    self.push(&cgroup.path, Measure::BestEffortWakeups, (wakeups, max_ns));
                    if let Some(cpu_ns) = cpu_ns {
                        self.push(&cgroup.path, Measure::BestEffortCpuTime, (share(cpu_ns, seconds), max_ns));
                    }
                }
            }
        }
    }

    fn push(&mut self, cgroup: &str, measure: Measure, pair: (f64, f64)) {
        let series = self.series.entry((cgroup.to_owned(), measure)).or_default();
        series.push_back(pair);
        if series.len() > WINDOWS {
            series.pop_front();
        }
    }

    /// Whether another series shows what `key` names: the two measures of activity have different units, and the CPU time
    /// of a cgroup that is new is not known in its first window.
    fn known_better(&self, (cgroup, measure): &(String, Measure)) -> bool {
        let by_cpu_time = || self.series.get(&(cgroup.clone(), Measure::BestEffortCpuTime));
        *measure == Measure::BestEffortWakeups && by_cpu_time().is_some_and(|series| series.len() >= FEWEST)
    }

    /// What can be said of the last windows, the closest first.
    #[must_use]
    pub fn found(&self) -> Vec<Coupling> {
        let mut found: Vec<Coupling> = self
            .series
            .iter()
            .filter(|(key, series)| series.len() >= FEWEST && !self.known_better(key))
            .map(|((cgroup, measure), series)| {
                let (xs, ys): (Vec<f64>, Vec<f64>) = series.iter().copied().unzip();
                let (pearson, spearman) = (pearson(&xs, &ys), pearson(&ranks(&xs), &ranks(&ys)));
                let coupled = [pearson, spearman].into_iter().flatten().any(|r| r > COUPLED);
                Coupling {
                    cgroup: cgroup.clone(),
                    what: measure.pair().into(),
                    samples: series.len(),
                    pearson,
                    spearman,
                    coupled,
                }
            })
            .collect();
        let closeness = |c: &Coupling| c.pearson.unwrap_or(-2.0).max(c.spearman.unwrap_or(-2.0));
        found.sort_by(|a, b| closeness(b).total_cmp(&closeness(a)).then_with(|| a.cgroup.cmp(&b.cgroup)));
        found
    }
}

#[allow(clippy::cast_precision_loss, reason = "times of a window stay far below 2^53 ns")]
fn share(ns: u64, seconds: f64) -> f64 {
    ns as f64 / 1e9 / seconds
}

/// What best-effort cgroups did in the window: CPU time, ns, where it was read for all of them, and wake-ups. None without any.
fn best_effort(snapshot: &Snapshot) -> Option<(Option<u64>, u64)> {
    let cgroups: Vec<_> = snapshot.cgroups.iter().filter(|cgroup| cgroup.class == Class::Be).collect();
    let cpu_ns = cgroups.iter().map(|cgroup| cgroup.cpu_ns).sum();
    let wakeups = cgroups.iter().map(|cgroup| cgroup.wakeup.fair.count()).sum();
    (!cgroups.is_empty()).then_some((cpu_ns, wakeups))
}

/// Pearson's coefficient of two series of the same length; `None` when one of them stands still.
#[allow(clippy::cast_precision_loss, reason = "at most some hundred samples")]
fn pearson(xs: &[f64], ys: &[f64]) -> Option<f64> {
    let n = xs.len() as f64;
    let (mean_x, mean_y) = (xs.iter().sum::<f64>() / n, ys.iter().sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in xs.iter().zip(ys) {
        xy += (x - mean_x) * (y - mean_y);
        xx += (x - mean_x).powi(2);
        yy += (y - mean_y).powi(2);
    }
    let product = xx * yy;
    (product > 0.0).then(|| (xy / product.sqrt()).clamp(-1.0, 1.0)).filter(|r| r.is_finite())
}

/// Rank of each value; equal ones share the mean of theirs.
#[allow(clippy::cast_precision_loss, reason = "at most some hundred samples")]
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    for equal in order.chunk_by(|a, b| values[*a].total_cmp(&values[*b]).is_eq()) {
        let first = order.iter().position(|at| at == &equal[0]).unwrap_or(0);
        let rank = first as f64 + (equal.len() as f64 - 1.0) / 2.0;
        equal.iter().for_each(|at| ranks[*at] = rank);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::{CpuStat, Pressure};
    use crate::view::samples;

    #[test]
    fn coefficients_are_those_of_the_textbook() {
        let close = |a: Option<f64>, b: f64| assert!(a.is_some_and(|a| (a - b).abs() < 1e-9), "{a:?} {b}");
        close(pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), 1.0);
        close(pearson(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        // Anscombe's first quartet.
        let xs = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let ys = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        assert!((pearson(&xs, &ys).unwrap() - 0.816_42).abs() < 1e-5);
        // One outlier decides Pearson's, not Spearman's.
        let (xs, ys) = ([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 1_000.0]);
        close(pearson(&ranks(&xs), &ranks(&ys)), 1.0);
        assert!(pearson(&xs, &ys).unwrap() < 0.75);
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), None, "a series that stands still goes with nothing");
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 9.0]), [1.5, 0.0, 1.5, 3.0]);
    }

    #[test]
    fn throttling_and_pressure_that_go_together_are_coupled_from_ten_windows_on() {
        let mut couplings = Couplings::default();
        for window in 0..12_u64 {
            let mut snapshot = samples::full();
            snapshot.window.seconds = 1.0;
            let cgroup = &mut snapshot.cgroups[0];
            let ns = window * window * 1_000_000;
            cgroup.throttle.cpu_stat = Some(CpuStat { nr_periods: 10, nr_throttled: 1, throttled_ns: ns });
            cgroup.cpu_pressure = Some(Pressure { some_ns: ns * 2 + 5, full_ns: None });
            if window == 9 {
                assert!(couplings.found().iter().all(|c| c.what != CoupledPair::ThrottledAndPressure));
            }
            couplings.add(&snapshot);
        }
        let found = couplings.found();
        let own = found.iter().find(|c| c.what == CoupledPair::ThrottledAndPressure).unwrap();
        assert_eq!((own.samples, own.coupled), (12, true));
        assert!(own.pearson.unwrap() > 0.99 && own.spearman.unwrap() > 0.99);
    }

    #[test]
    fn best_effort_activity_is_of_one_unit_in_all_windows() {
        let mut couplings = Couplings::default();
        for window in 0..14_u64 {
            let mut snapshot = samples::full();
            snapshot.window.seconds = 1.0;
            let mut best_effort = snapshot.cgroups[0].clone();
            (best_effort.path, best_effort.class) = ("/be".into(), Class::Be);
            // A new one comes in each of the first windows, and is busy at once.
            best_effort.cpu_ns = (window >= 2).then_some(window % 4 * 100_000_000);
            let plc = &mut snapshot.cgroups[0];
            (plc.class, plc.timer) = (Class::Plc, crate::snapshot::Timer::default());
            plc.wakeup.rt = crate::snapshot::Latency::default();
            plc.wakeup.rt.record(1_000 + window % 4 * 1_000_000);
            snapshot.cgroups.truncate(1);
            snapshot.cgroups.push(best_effort);
            couplings.add(&snapshot);
            let found = couplings.found();
            let own: Vec<_> = found.iter().filter(|c| c.what == CoupledPair::BestEffortAndLatency).collect();
            match window {
                0..9 => assert!(own.is_empty(), "{own:?}"),
                // By wake-ups, which stand still here.
                9..11 => assert!(!own[0].coupled && own[0].samples as u64 == window + 1, "{own:?}"),
                _ => assert!(own[0].coupled && own[0].samples as u64 == window - 1, "{own:?}"),
            }
            assert!(own.len() < 2, "{own:?}");
        }
    }

    proptest! {
        #[test]
        fn coefficients_stay_within_their_bounds(pairs in prop::collection::vec((-1e12..1e12_f64, -1e12..1e12_f64), 1..50)) {
            let (xs, ys): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            for r in [pearson(&xs, &ys), pearson(&ranks(&xs), &ranks(&ys))].into_iter().flatten() {
                prop_assert!((-1.0..=1.0).contains(&r));
            }
        }
    }
}
