//! Is one side slower than the other? Numbers in, a probability and a shift out; nothing here knows what they are.
//!
//! Runs are compared, never events: the wake-ups of one run share its luck and are not independent, runs are. The test is a
//! permutation test on the sum of ranks (Wilcoxon, 1945; Mann and Whitney, 1947): if both sides were drawn from one
//! distribution, every way to deal the values into two sides would be equally likely. Ranks, because then a single wild
//! run counts as one run and not as its size. The shift is the median of all pairwise ratios (Hodges and Lehmann, 1963),
//! which up to 29 % of wild values cannot move at will.

use crate::random::Random;

/// Runs of both sides together up to which all ways to deal them are counted, not sampled.
const EXACT_UP_TO: usize = 50;

/// Hits after which a sampled probability is precise enough to stop (Besag and Clifford, 1991).
const HITS_ENOUGH: u64 = 50;

/// Twice the midrank of each value of both sides, `a` first: whole numbers, also for ties.
fn ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let values: Vec<f64> = a.iter().chain(b).copied().collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|x, y| values[*x].total_cmp(&values[*y]));
    let mut ranks = vec![0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same = |i: &&usize| values[**i].total_cmp(&values[order[from]]).is_eq();
        let to = from + order[from..].iter().take_while(same).count();
        for i in &order[from..to] {
            ranks[*i] = from + 1 + to;
        }
        from = to;
    }
    ranks
}

/// Probability that `b` ranks as high as it does, or higher, if both sides were drawn from one distribution. Small
/// means: `b` is larger. 1 when a side is empty.
///
/// Exact up to `EXACT_UP_TO` values; beyond, `draws` ways to deal them are drawn with `seed`, fewer once the answer is
/// clear. A sampled probability is never below 1 / (`draws` + 1).
#[must_use]
pub fn probability(a: &[f64], b: &[f64], draws: u64, seed: u64) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let mut ranks = ranks(a, b);
    let observed = ranks[a.len()..].iter().sum();
    if ranks.len() <= EXACT_UP_TO {
        exact(&ranks, b.len(), observed)
    } else {
        // In order, so that the draws are the same whatever order the runs came in.
        ranks.sort_unstable();
        sampled(&mut ranks, b.len(), observed, draws, &mut Random::new(seed))
    }
}

/// Share of all subsets of `size` ranks whose sum is `observed` or more: how many subsets of each size have which sum,
/// one rank after another.
#[allow(clippy::cast_precision_loss, reason = "only ratios of the counts matter")]
fn exact(ranks: &[usize], size: usize, observed: usize) -> f64 {
    let most: usize = ranks.iter().sum();
    let mut subsets = vec![vec![0.0_f64; most + 1]; size + 1];
    subsets[0][0] = 1.0;
    let mut reached = 0;
    for (taken, rank) in ranks.iter().enumerate() {
        reached += rank;
        for n in (1..=size.min(taken + 1)).rev() {
            let (smaller, larger) = subsets.split_at_mut(n);
            for sum in *rank..=reached {
                larger[0][sum] += smaller[n - 1][sum - rank];
            }
        }
    }
    let all: f64 = subsets[size].iter().sum();
    let as_high: f64 = subsets[size].iter().skip(observed).sum();
    (as_high / all).min(1.0)
}

#[allow(clippy::cast_precision_loss, reason = "counts of draws are small")]
fn sampled(ranks: &mut [usize], size: usize, observed: usize, draws: u64, rng: &mut Random) -> f64 {
    let mut hits = 0;
    for drawn in 1..=draws {
        for i in 0..size {
            let j = i + rng.index(ranks.len() - i);
            ranks.swap(i, j);
        }
        if ranks[..size].iter().sum::<usize>() >= observed {
            hits += 1;
            if hits == HITS_ENOUGH {
                return hits as f64 / drawn as f64;
            }
        }
    }
    (hits + 1) as f64 / (draws + 1) as f64
}

/// What the test takes of the candidate: all but the largest value. So a single wild run cannot decide, however it came
/// about; where both sides come from one distribution, the probability is only larger for it.
#[must_use]
pub fn without_largest(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(i, _)| i);
    values.iter().enumerate().filter(|(i, _)| Some(*i) != largest).map(|(_, value)| *value).collect()
}

/// The smallest probability that the test can reach with so many values a side: one over the ways to deal them.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts of runs are small")]
pub fn smallest_probability(a: usize, b: usize) -> f64 {
    (1..=b).map(|i| i as f64 / (a + i) as f64).product()
}

/// How much larger `b` is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// As a factor: 1.1 is 10 % larger.
    pub factor: f64,
    /// Bounds that the true factor keeps in 95 of 100 comparisons.
    pub bounds: (f64, f64),
    /// In the unit of the values.
    pub difference: f64,
}

/// The shift from `a` to `b`; `None` when a side is empty. Values are positive.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of runs are small, and the bound is clamped to them"
)]
pub fn shift(a: &[f64], b: &[f64]) -> Option<Shift> {
    let mut factors = pairwise(a, b, |a, b| b / a);
    let mut differences = pairwise(a, b, |a, b| b - a);
    if factors.is_empty() {
        return None;
    }
    factors.sort_by(f64::total_cmp);
    // The interval of the rank-sum test by its normal approximation (Hollander and Wolfe, 1973).
    let (n, m) = (a.len() as f64, b.len() as f64);
    let spread = 1.96 * (n * m * (n + m + 1.0) / 12.0).sqrt();
    let low = ((n * m / 2.0 - spread).round().max(0.0) as usize).min(factors.len() - 1);
    let bounds = (factors[low], factors[factors.len() - 1 - low]);
    Some(Shift { factor: middle_of_sorted(&factors), bounds, difference: median(&mut differences) })
}

/// Only the factor of [`shift`], in linear time.
#[must_use]
pub(super) fn factor(a: &[f64], b: &[f64]) -> f64 {
    let mut factors = pairwise(a, b, |a, b| b / a);
    let middle = factors.len() / 2;
    *factors.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Pairs in which the value of `b` is the larger one; equal ones count half (Mann and Whitney's U).
#[must_use]
pub(super) fn wins(a: &[f64], b: &[f64]) -> f64 {
    pairwise(a, b, |a, b| {
        if b > a {
            1.0
        } else if b < a {
            0.0
        } else {
            0.5
        }
    })
    .iter()
    .sum()
}

/// The number of pairs, of `a` and `b` runs without ties, from which on the probability is at most `level`. Exact where
/// the test is; beyond, by the normal approximation of the rank sum.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts of runs are small")]
pub(super) fn critical_wins(a: usize, b: usize, level: f64) -> f64 {
    let (pairs, runs) = (a * b, a + b);
    if runs > EXACT_UP_TO {
        let spread = (pairs as f64 * (runs + 1) as f64 / 12.0).sqrt();
        return pairs as f64 / 2.0 + 0.5 + normal_quantile(1.0 - level) * spread;
    }
    let ranks: Vec<usize> = (1..=runs).map(|rank| 2 * rank).collect();
    let (mut low, mut high) = (0, pairs + 1);
    while low < high {
        let wins = usize::midpoint(low, high);
        if exact(&ranks, b, 2 * wins + b * (b + 1)) <= level {
            high = wins;
        } else {
            low = wins + 1;
        }
    }
    low as f64
}

/// The value that a standard normal variable does not exceed with probability `p` (Abramowitz and Stegun, 26.2.23, within
/// 0.0005).
#[must_use]
pub(super) fn normal_quantile(p: f64) -> f64 {
    let tail = p.min(1.0 - p);
    let t = (-2.0 * tail.ln()).sqrt();
    let z = t
        - (0.010_328 * t + 0.802_853).mul_add(t, 2.515_517)
            / ((0.001_308 * t + 0.189_269).mul_add(t, 1.432_788)).mul_add(t, 1.0);
    if p < 0.5 { -z } else { z }
}

fn pairwise(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().flat_map(|a| b.iter().map(|b| of(*a, *b))).collect()
}

/// The middle value; of an even number the mean of the two in the middle. NaN for none. Sorts its argument.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    middle_of_sorted(values)
}

fn middle_of_sorted(values: &[f64]) -> f64 {
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Spread of `values` around their median as a fraction of it, by the median absolute deviation scaled to a standard
/// deviation (Rousseeuw and Croux, 1993): a single wild value does not widen it. Values are positive.
#[must_use]
pub fn relative_spread(values: &[f64]) -> f64 {
    let middle = median(&mut values.to_vec());
    let mut deviations: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    1.4826 * median(&mut deviations) / middle
}

/// Probabilities corrected for there being so many: with each compared to a level, the chance of any false alarm stays
/// below that level (Holm, 1979).
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts of metrics are small")]
pub fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|x, y| probabilities[*x].total_cmp(&probabilities[*y]));
    let mut corrected = vec![1.0; probabilities.len()];
    let mut largest = 0.0_f64;
    for (nth, i) in order.into_iter().enumerate() {
        largest = largest.max(probabilities[i] * (probabilities.len() - nth) as f64).min(1.0);
        corrected[i] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn p(a: &[f64], b: &[f64]) -> f64 {
        probability(a, b, 20_000, 1)
    }

    #[test]
    fn only_one_of_several_largest_is_left_out() {
        assert_eq!(without_largest(&[3.0, 9.0, 1.0, 9.0]), [3.0, 9.0, 1.0]);
        assert_eq!(without_largest(&[3.0]), [0.0; 0]);
        assert_eq!(without_largest(&[]), [0.0; 0]);
    }

    /// All subsets one by one, as slowly as possible.
    fn by_enumeration(a: &[f64], b: &[f64]) -> f64 {
        let ranks = ranks(a, b);
        let observed: usize = ranks[a.len()..].iter().sum();
        let sums = (0u32..1 << ranks.len()).filter(|set| set.count_ones() as usize == b.len()).map(|set| {
            ranks.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, rank)| rank).sum::<usize>()
        });
        let (mut all, mut high) = (0.0, 0.0);
        for sum in sums {
            all += 1.0;
            high += f64::from(u8::from(sum >= observed));
        }
        high / all
    }

    #[test]
    fn textbook_figures_come_out() {
        // Five against five, completely apart: 1 of 252.
        assert!((p(&[1., 2., 3., 4., 5.], &[6., 7., 8., 9., 10.]) - 1.0 / 252.0).abs() < 1e-12);
        assert!((smallest_probability(5, 5) - 1.0 / 252.0).abs() < 1e-12);
        assert!((smallest_probability(20, 20) - 1.0 / 137_846_528_820.0).abs() < 1e-20);
        // All alike: every deal ranks as high.
        assert!((p(&[1.0; 6], &[1.0; 6]) - 1.0).abs() < 1e-12);
        assert!((p(&[], &[1.0]) - 1.0).abs() < 1e-12);
        let shift = shift(&[10., 11., 12.], &[20., 22., 24.]).unwrap();
        assert!((shift.factor - 2.0).abs() < 1e-12 && (shift.difference - 11.0).abs() < 1e-12, "{shift:?}");
    }

    #[test]
    fn quantiles_of_the_normal_distribution_are_those_of_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.95, 1.645), (0.975, 1.960), (0.99, 2.326), (0.999, 3.090), (0.025, -1.960)] {
            assert!((normal_quantile(p) - z).abs() < 0.001, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn holm_is_as_published() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, want) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((got - want).abs() < 1e-12, "{corrected:?}");
        }
        assert!(holm(&[]).is_empty());
    }

    /// Under the null hypothesis a probability of at most x comes up in at most, and nearly, a share x of the cases.
    fn uniform(runs: usize, cases: u32, tolerance: f64) {
        let mut rng = Random::new(7);
        let mut side = || (0..runs).map(|_| rng.normal().exp()).collect::<Vec<f64>>();
        let found: Vec<f64> = (0..cases).map(|_| p(&side(), &side())).collect();
        for level in [0.01, 0.05, 0.2, 0.5, 0.8] {
            let share = found.iter().filter(|p| **p <= level).count() as f64 / f64::from(cases);
            assert!((share - level).abs() < tolerance, "{share} of all cases at or below {level}");
        }
    }

    #[test]
    fn probabilities_are_uniform_when_nothing_changed() {
        uniform(20, 3_000, 0.03);
        uniform(30, 500, 0.06);
    }

    #[test]
    fn exact_and_sampled_agree() {
        let mut rng = Random::new(3);
        let a: Vec<f64> = (0..25).map(|_| rng.normal()).collect();
        for offset in [0.0, 0.3, 0.6] {
            let b: Vec<f64> = (0..25).map(|_| rng.normal() + offset).collect();
            let mut ranks = ranks(&a, &b);
            let observed = ranks[25..].iter().sum();
            let (exact, sampled) = (exact(&ranks, 25, observed), sampled(&mut ranks, 25, observed, 200_000, &mut rng));
            assert!((exact - sampled).abs() < 0.35 * exact + 1e-4, "{exact} {sampled}");
        }
    }

    proptest! {
        #[test]
        fn counting_is_enumeration(a in prop::collection::vec(0u8..12, 1..7), b in prop::collection::vec(0u8..12, 1..7)) {
            let (a, b): (Vec<f64>, Vec<f64>) = (a.into_iter().map(f64::from).collect(), b.into_iter().map(f64::from).collect());
            prop_assert!((p(&a, &b) - by_enumeration(&a, &b)).abs() < 1e-9);
        }

        #[test]
        fn order_does_not_matter_and_the_answer_is_always_the_same(
            mut a in prop::collection::vec(1.0f64..9.0, 20..40), b in prop::collection::vec(1.0f64..9.0, 20..40),
        ) {
            let before = p(&a, &b);
            a.reverse();
            prop_assert_eq!(before.to_bits(), p(&a, &b).to_bits());
        }

        #[test]
        fn both_directions_are_one_test(a in prop::collection::vec(1.0f64..9.0, 1..12), b in prop::collection::vec(1.0f64..9.0, 1..12)) {
            let mirrored = |side: &[f64]| side.iter().map(|v| -v).collect::<Vec<f64>>();
            prop_assert!((p(&a, &b) - p(&mirrored(&b), &mirrored(&a))).abs() < 1e-9);
            // As high or higher one way, and as low or lower the other way, cover everything.
            prop_assert!(p(&a, &b) + p(&b, &a) >= 1.0 - 1e-9);
        }

        #[test]
        fn a_slower_run_never_makes_the_candidate_look_better(
            a in prop::collection::vec(1.0f64..9.0, 2..14), mut b in prop::collection::vec(1.0f64..9.0, 2..14),
            which in 0usize..14, more in 0.0f64..5.0,
        ) {
            let (p_before, factor_before) = (p(&a, &b), shift(&a, &b).unwrap().factor);
            let which = which % b.len();
            b[which] += more;
            prop_assert!(p(&a, &b) <= p_before + 1e-9);
            prop_assert!(shift(&a, &b).unwrap().factor >= factor_before - 1e-9);
        }

        #[test]
        fn one_wild_run_stays_within_the_range_of_the_others(
            a in prop::collection::vec(1.0f64..2.0, 5..20), mut b in prop::collection::vec(1.0f64..2.0, 5..20),
        ) {
            b[0] = 1e9;
            prop_assert!(shift(&a, &b).unwrap().factor <= 2.0);
            prop_assert!(relative_spread(&b) <= 1.5);
        }

        #[test]
        fn corrected_probabilities_never_shrink_and_keep_their_order(all in prop::collection::vec(0.0f64..=1.0, 0..40)) {
            let corrected = holm(&all);
            for (i, (before, after)) in all.iter().zip(&corrected).enumerate() {
                prop_assert!(after >= before && *after <= 1.0);
                for (other, other_after) in all.iter().zip(&corrected).skip(i) {
                    prop_assert!(before > other || after <= other_after);
                }
            }
        }
    }
}
