//! How many runs it takes to see a shift: by simulation from the baseline's own runs, judged by the very same test.

use serde::Serialize;

use super::judge::{self, GateSettings, MIN_RUNS};
use super::metric::{LatencySignal, Metric};
use super::run::{Run, Series};
use super::stats::{self, relative_spread, without_largest};
use crate::random::Random;
use crate::snapshot::Word;

/// Runs a side that are tried.
const SIZES: [usize; 12] = [5, 6, 8, 10, 12, 15, 20, 30, 40, 60, 100, 200];

/// Simulated comparisons for each size: a share of 95 % is known to within 2 %.
const CASES: usize = 400;

/// Share of the comparisons in which a shift must be found.
const FOUND: f64 = 0.95;

/// What a figure takes to be judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Needed {
    /// Workload.
    pub workload: String,
    /// Signal.
    pub signal: Word<LatencySignal>,
    /// Figure.
    pub metric: Metric,
    /// Runs of the baseline that the estimate is made from.
    pub runs: usize,
    /// Median over these, ns.
    pub median_ns: f64,
    /// Spread from run to run, as a fraction of the median.
    pub spread: f64,
    /// For each shift: runs a side with which it is found in 95 of 100 comparisons; `None` when 200 are not enough.
    pub needed: Vec<(f64, Option<usize>)>,
}

/// How many runs are needed for which shift.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleSizes {
    /// Figures of the baseline; empty without one.
    pub figures: Vec<Needed>,
    /// Figures that are tested together.
    pub tests: usize,
    /// Chance of any false alarm among them.
    pub level: f64,
    /// Runs a side without which nothing can be shown, whatever the shift.
    pub least_runs: usize,
}

/// Estimates, from the runs of a baseline, how many are needed a side to find each of `shifts` (0.1 is 10 %).
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts of tests are small")]
pub fn explain(baseline: &[Run], shifts: &[f64], settings: &GateSettings) -> SampleSizes {
    let all = baseline.iter().flat_map(|run| &run.series);
    let series: std::collections::BTreeSet<&Series> =
        all.filter(|(s, e)| settings.chosen(s, e)).map(|(s, _)| s).collect();
    let figures: Vec<(&Series, Metric, Vec<f64>)> = series
        .into_iter()
        .flat_map(|series| settings.metrics().iter().map(move |metric| (series, *metric)))
        .map(|(series, metric)| (series, metric, judge::values(series, metric, baseline).0))
        .filter(|(_, _, values)| values.len() >= MIN_RUNS)
        .collect();
    let tests = if figures.is_empty() { settings.metrics().len() } else { figures.len() };
    let least_runs = least(tests, settings.level);
    let sizes: Vec<(usize, f64)> = SIZES
        .into_iter()
        .filter(|runs| *runs >= least_runs)
        .map(|runs| (runs, stats::critical_wins(runs, runs - 1, settings.level / tests as f64)))
        .collect();
    let figures = figures
        .into_iter()
        .map(|(series, metric, values)| Needed {
            workload: series.workload.clone(),
            signal: series.signal.clone(),
            metric,
            runs: values.len(),
            median_ns: stats::median(&mut values.clone()),
            spread: relative_spread(&values),
            needed: shifts
                .iter()
                .map(|shift| {
                    let found = |size: &&(usize, f64)| power(&values, *shift, **size, metric, settings) >= FOUND;
                    (*shift, sizes.iter().find(found).map(|(runs, _)| *runs))
                })
                .collect(),
        })
        .collect();
    SampleSizes { figures, tests, level: settings.level, least_runs }
}

#[allow(clippy::cast_precision_loss, reason = "counts of tests are small")]
fn least(tests: usize, level: f64) -> usize {
    (MIN_RUNS..1_000).find(|n| judge::can_show(*n, *n, level / tests as f64)).unwrap_or(1_000)
}

/// Share of simulated comparisons in which a shift is found with so many runs a side, of whose pairs the candidate must win
/// `critical`.
///
/// Each side is drawn from `values` with replacement; a little noise, narrowing with their number, keeps two draws of one
/// run from being ties (a smoothed bootstrap: Silverman and Young, 1987).
#[allow(clippy::cast_precision_loss, reason = "counts of runs and cases are small")]
fn power(values: &[f64], shift: f64, (runs, critical): (usize, f64), metric: Metric, settings: &GateSettings) -> f64 {
    let mut random = Random::new(settings.seed);
    let width = 0.45 * relative_spread(values) * (values.len() as f64).powf(-0.2);
    let smallest = settings.smallest(metric);
    let middle = stats::median(&mut values.to_vec());
    let mut side = |factor: f64| -> Vec<f64> {
        let one = |_| (values[random.index(values.len())] * (width * random.normal()).exp() * factor).max(1.0);
        (0..runs).map(one).collect()
    };
    let mut found = 0;
    for _ in 0..CASES {
        let (a, b) = (side(1.0), side(1.0 + shift));
        if stats::wins(&a, &without_largest(&b)) >= critical {
            let factor = stats::factor(&a, &b) - 1.0;
            found += usize::from(factor >= smallest.fraction && factor * middle >= smallest.ns);
        }
    }
    found as f64 / CASES as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::probability;

    fn values(spread: f64) -> Vec<f64> {
        let mut random = Random::new(5);
        (0..40).map(|_| 50_000.0 * (spread * random.normal()).exp()).collect()
    }

    #[test]
    fn a_larger_shift_more_runs_and_less_noise_are_easier_to_see() {
        let settings = GateSettings::default();
        let power = |spread, shift, runs| {
            let size = (runs, stats::critical_wins(runs, runs - 1, 0.01 / 3.0));
            power(&values(spread), shift, size, Metric::P99, &settings)
        };
        assert!(power(0.05, 0.10, 20) > 0.95);
        assert!(power(0.05, 0.20, 20) >= power(0.05, 0.10, 20));
        assert!(power(0.20, 0.10, 20) < power(0.05, 0.10, 20));
        assert!(power(0.20, 0.20, 60) > power(0.20, 0.20, 10));
        assert!(power(0.05, 0.0, 20) <= 0.01);
        assert!(power(0.01, 0.02, 20) < 0.05, "below what matters");
    }

    #[test]
    fn the_short_cut_decides_as_the_test_does() {
        let mut random = Random::new(11);
        let level = 0.01 / 3.0;
        let critical = stats::critical_wins(20, 19, level);
        let mut found = 0;
        for _ in 0..200 {
            let a: Vec<f64> = (0..20).map(|_| random.normal()).collect();
            let b: Vec<f64> = (0..19).map(|_| random.normal() + 0.9).collect();
            assert_eq!(stats::wins(&a, &b) >= critical, probability(&a, &b, 0, 1) <= level, "{a:?} {b:?}");
            found += u32::from(stats::wins(&a, &b) >= critical);
        }
        assert!((50..150).contains(&found), "{found}: both answers come up");
    }
}
