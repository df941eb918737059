//! A histogram as any of the formats has it, and the figures of a run that are taken from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::Metric;

/// Counts of latencies in intervals of any width.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    /// (lower edge, upper edge) of an interval in ns → latencies in it.
    counts: BTreeMap<(u64, u64), u64>,
    extremes: Option<(u64, u64)>,
    /// Latencies counted by a source that gave only their number and extremes.
    uncounted: u64,
}

impl Distribution {
    /// Counts `n` latencies of `lower_ns` to `upper_ns`.
    pub(super) fn add(&mut self, lower_ns: u64, upper_ns: u64, n: u64) {
        if n > 0 {
            let count = self.counts.entry((lower_ns, upper_ns.max(lower_ns))).or_insert(0);
            *count = count.saturating_add(n);
        }
    }

    /// Counts `n` latencies whose extremes alone are known.
    pub(super) fn add_uncounted(&mut self, n: u64) {
        self.uncounted = self.uncounted.saturating_add(n);
    }

    /// Widens the extremes.
    pub(super) fn widen(&mut self, min_ns: u64, max_ns: u64) {
        let (min, max) = self.extremes.unwrap_or((min_ns, max_ns));
        self.extremes = Some((min.min(min_ns), max.max(max_ns)));
    }

    /// The distribution in ns of latencies that were added in another unit.
    pub(super) fn in_ns(self, unit_ns: u64) -> Self {
        let ns = |value: u64| value.saturating_mul(unit_ns);
        let extremes = self.extremes.map(|(min, max)| (ns(min), ns(max)));
        let mut scaled = Self { extremes, uncounted: self.uncounted, ..Self::default() };
        for ((lower, upper), n) in self.counts {
            scaled.add(ns(lower), ns(upper), n);
        }
        scaled
    }

    /// Adds all that `other` counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for ((lower, upper), n) in &other.counts {
            self.add(*lower, *upper, *n);
        }
        self.add_uncounted(other.uncounted);
        if let Some((min, max)) = other.extremes {
            self.widen(min, max);
        }
    }

    /// Latencies in intervals.
    fn counted(&self) -> u64 {
        self.counts.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The figures; `None` when nothing was counted.
    pub(super) fn figures(&self) -> Option<Figures> {
        let (min_ns, max_ns) = self.extremes?;
        let counted = self.counted();
        let count = counted.saturating_add(self.uncounted);
        if count == 0 {
            return None;
        }
        // Intervals may overlap, those beyond the ends of two histograms; then a higher percentile is not less than a lower.
        let mut lower = min_ns;
        let mut quantile = |q| {
            (self.uncounted == 0).then(|| {
                lower = self.quantile_ns(q, counted, (min_ns, max_ns)).max(lower);
                lower
            })
        };
        Some(Figures {
            count,
            min_ns,
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            p9999_ns: quantile(0.9999),
            max_ns,
        })
    }

    /// Latency that a fraction `q` of all does not exceed, if those of each interval are spread evenly over it.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts stay far below 2^53 and the quantile is a fraction"
    )]
    fn quantile_ns(&self, q: f64, counted: u64, (min_ns, max_ns): (u64, u64)) -> u64 {
        let wanted = ((q * counted as f64).ceil() as u64).max(1);
        let mut before = 0_u64;
        for ((lower, upper), n) in &self.counts {
            if before.saturating_add(*n) >= wanted {
                let part = u128::from(upper - lower) * u128::from(wanted - before) / u128::from(*n);
                return lower.saturating_add(part as u64).clamp(min_ns.min(max_ns), max_ns);
            }
            before += n;
        }
        max_ns
    }
}

/// What is kept of a run's latencies, ns. Percentiles are absent where the source has no histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Latencies counted.
    pub count: u64,
    /// Smallest.
    pub min_ns: u64,
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<u64>,
    /// 90th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90_ns: Option<u64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<u64>,
    /// 99.9th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999_ns: Option<u64>,
    /// 99.99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p9999_ns: Option<u64>,
    /// Largest.
    pub max_ns: u64,
}

impl Figures {
    /// The figure `metric`, ns.
    ///
    /// # Errors
    /// The run cannot say: it has no histogram, or too few latencies lie above the percentile. The text completes a
    /// sentence that begins with the run.
    pub fn get(&self, metric: Metric) -> Result<u64, String> {
        let value = match metric {
            Metric::P50 => self.p50_ns,
            Metric::P90 => self.p90_ns,
            Metric::P99 => self.p99_ns,
            Metric::P999 => self.p999_ns,
            Metric::P9999 => self.p9999_ns,
            Metric::Max => Some(self.max_ns),
        };
        let needed = metric.latencies_needed();
        match value {
            None => Err(format!("has no histogram, so no {metric}")),
            Some(_) if self.count < needed => Err(format!("has {} latencies, {metric} needs {needed}", self.count)),
            Some(value) => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_lie_within_their_interval() {
        let mut d = Distribution::default();
        d.add(10_000, 11_000, 990);
        d.add(50_000, 90_000, 10);
        d.widen(10_000, 85_000);
        let f = d.figures().unwrap();
        assert_eq!((f.count, f.p50_ns, f.p99_ns, f.p999_ns), (1000, Some(10_505), Some(11_000), Some(85_000)));
        assert_eq!(f.get(Metric::P99), Ok(11_000));
        assert_eq!(f.get(Metric::P999).unwrap_err(), "has 1000 latencies, p99.9 needs 5000");
    }

    #[test]
    fn without_a_histogram_there_is_only_the_maximum() {
        let mut d = Distribution::default();
        d.add_uncounted(100_000);
        d.widen(3_000, 70_000);
        let f = d.figures().unwrap();
        assert_eq!(f.get(Metric::Max), Ok(70_000));
        assert!(f.get(Metric::P99).unwrap_err().contains("no histogram"));
        assert_eq!(Distribution::default().figures(), None);
    }

    proptest! {
        #[test]
        fn figures_are_ordered_and_within_the_extremes(bins in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..20)) {
            let mut d = Distribution::default();
            for (a, b, n) in bins {
                d.add(a.min(b), a.max(b), n);
                d.widen(a.min(b), a.max(b));
            }
            if let Some(f) = d.figures() {
                let all = [Some(f.min_ns), f.p50_ns, f.p90_ns, f.p99_ns, f.p999_ns, f.p9999_ns, Some(f.max_ns)];
                prop_assert!(all.iter().flatten().is_sorted(), "{f:?}");
            }
        }
    }
}
