//! guard's histogram in Prometheus's two forms. Classic: cumulative counts up to fixed limits. Native: sparse buckets whose
//! limits grow by the eighth root of two (schema 3), so each is at most 9.1 % wide.

use guard_common::hist::{self, BUCKETS};

use crate::snapshot::Histogram;

/// Octaves of the classic limits: 1 us to 4.2 s.
const OCTAVES: u32 = 23;
/// Native buckets per octave are 2 to the power of this.
pub(super) const SCHEMA: i32 = 3;
/// The native bucket of zero reaches up to here, s: guard's first bucket, of less than 1 us.
pub(super) const ZERO_THRESHOLD: f64 = 1e-6;
const NS_PER_S: f64 = 1e9;

/// Nanoseconds in seconds.
#[allow(clippy::cast_precision_loss, reason = "beyond 2^53 ns, 104 days, the last nanoseconds do not matter")]
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_S
}

/// The classic limits in ns: the powers of two in us. Each is the lower edge of one of guard's buckets, so a count up to it
/// is exact but for latencies of exactly that many us, which are in the next one.
pub(super) fn limits_ns() -> impl Iterator<Item = u64> {
    (0..OCTAVES).map(|octave| 1_000 << octave)
}

/// Classic: limit in seconds and how many are below, for each limit but the infinite one.
pub(super) fn cumulative(histogram: &Histogram) -> Vec<(f64, u64)> {
    let mut buckets = histogram.buckets().peekable();
    let mut below = 0_u64;
    limits_ns()
        .map(|limit_ns| {
            while let Some((_, n)) = buckets.next_if(|(upper_ns, _)| *upper_ns < limit_ns) {
                below = below.saturating_add(n);
            }
            (seconds(limit_ns), below)
        })
        .collect()
}

/// Native: what is in the bucket of zero, and the others as index and count, ascending. A count of guard's bucket goes
/// where the middle of that bucket is.
pub(super) fn native(histogram: &Histogram) -> (u64, Vec<(i32, u64)>) {
    let mut zero = 0;
    let mut buckets: Vec<(i32, u64)> = Vec::new();
    for (index, n) in histogram.indexed() {
        if index == 0 {
            zero = n;
            continue;
        }
        let native = native_index(middle_s(index));
        match buckets.last_mut() {
            Some((last, count)) if *last == native => *count = count.saturating_add(n),
            _ => buckets.push((native, n)),
        }
    }
    (zero, buckets)
}

/// Middle of guard's bucket, s; where it has no end, its begin.
fn middle_s(index: usize) -> f64 {
    let lower = seconds(hist::lower_ns(index));
    if index >= BUCKETS - 1 || index >= hist::OVERFLOW {
        return lower;
    }
    f64::midpoint(lower, seconds(hist::lower_ns(index + 1)))
}

/// The native bucket that counts `value`: the one from above 2^((i-1)/8) to 2^(i/8), both s.
#[allow(clippy::cast_possible_truncation, reason = "times from 1 us to 17 s have indices from -160 to 33")]
fn native_index(value: f64) -> i32 {
    (value.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_limit_is_an_edge_of_guards_own_buckets() {
        for limit in limits_ns() {
            assert_eq!(hist::lower_ns(hist::bucket_of(limit)), limit);
        }
        assert_eq!(limits_ns().last(), Some(4_194_304_000));
    }

    #[test]
    fn counts_are_cumulative() {
        let counts = cumulative(&Histogram::of(&[500, 1_500, 1_999, 2_000, 70_000, 20_000_000_000]));
        let at = |limit: f64| counts.iter().find(|(l, _)| *l == limit).unwrap().1;
        assert_eq!([at(1e-6), at(2e-6), at(4e-6), at(64e-6), at(128e-6), at(4.194304)], [1, 3, 4, 4, 5, 5]);
    }

    proptest! {
        #[test]
        fn a_classic_limit_counts_exactly_what_is_below_it(values in prop::collection::vec(0u64..20_000_000_000, 0..200)) {
            for (limit, below) in cumulative(&Histogram::of(&values)) {
                let expected = values.iter().filter(|v| seconds(**v) < limit).count() as u64;
                prop_assert_eq!(below, expected, "{}", limit);
            }
        }

        #[test]
        fn a_native_bucket_is_near_what_it_counts(ns in 1_000u64..16_000_000_000) {
            let (zero, buckets) = native(&Histogram::of(&[ns]));
            prop_assert_eq!((zero, buckets.len()), (0, 1));
            let upper = 2_f64.powf(f64::from(buckets[0].0) / 8.0);
            let lower = 2_f64.powf(f64::from(buckets[0].0 - 1) / 8.0);
            // Half of guard's own bucket beside it at most: 1/32, and half a us below 64 us.
            let slack = seconds(ns) / 31.0 + 0.51e-6;
            prop_assert!(lower - slack <= seconds(ns) && seconds(ns) <= upper + slack, "{} in {}..{}", ns, lower, upper);
        }

        #[test]
        fn no_latency_is_left_out(values in prop::collection::vec(any::<u64>(), 0..200)) {
            let (zero, buckets) = native(&Histogram::of(&values));
            let all = zero + buckets.iter().map(|(_, n)| n).sum::<u64>();
            prop_assert_eq!(all, values.len() as u64);
            prop_assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
