//! Layout and arithmetic of guard's log-linear latency histogram, the same on both sides of the kernel boundary.
//!
//! The unit is one microsecond. Below [`LINEAR_US`] every microsecond has its own bucket; above, each octave is cut
//! into 16 buckets, so a bucket is never wider than 1/16 (6.25 %) of its lower edge. The last bucket collects
//! everything from 2^24 us (16.8 s) on.

/// Values below this many microseconds are exact to one microsecond.
pub const LINEAR_US: u64 = 64;
/// log2 of [`LINEAR_US`].
const LINEAR_LOG2: u32 = 6;
/// log2 of the buckets per octave.
const SUB_LOG2: u32 = 4;
/// Octaves above the linear part: 2^6 us to 2^24 us.
const OCTAVES: usize = 18;
/// Buckets in a histogram, the overflow bucket included. Even, so that [`crate::maps::Hist`] has no padding.
pub const BUCKETS: usize = LINEAR_US as usize + (OCTAVES << SUB_LOG2) + 2;
/// The bucket of all values of 2^24 us and more.
pub const OVERFLOW: usize = LINEAR_US as usize + (OCTAVES << SUB_LOG2);
/// The largest value distinguished from larger ones, in nanoseconds.
pub const MAX_TRACKED_NS: u64 = (1 << 24) * 1000 - 1;

/// Whole microseconds in `ns`, rounded down as cyclictest does.
///
/// BPF has no multiply-high and a slow 64-bit divide, so the usual short values take a multiplication instead:
/// 274877907 is 2^38/1000 rounded up; its error of 56/2^38 per unit stays below one for every `ns` < 2^32.
#[inline(always)]
#[must_use]
pub const fn us_of_ns(ns: u64) -> u64 {
    if ns >> 32 == 0 { (ns * 274_877_907) >> 38 } else { ns / 1000 }
}

/// Index of the bucket that counts a latency of `ns` nanoseconds; always less than [`BUCKETS`].
#[inline(always)]
#[must_use]
pub const fn bucket_of(ns: u64) -> usize {
    let us = us_of_ns(ns);
    if us < LINEAR_US {
        return us as usize;
    }
    if us >> (LINEAR_LOG2 + OCTAVES as u32) != 0 {
        return OVERFLOW;
    }
    // Position of the highest set bit. BPF has no instruction for it, and the compiler makes arithmetic of it; steps by
    // comparison would be 32 ways for the verifier to go on from, at each place that counts.
    let msb = us.ilog2();
    let sub = (us >> (msb - SUB_LOG2)) as usize & ((1 << SUB_LOG2) - 1);
    LINEAR_US as usize + (((msb - LINEAR_LOG2) as usize) << SUB_LOG2) + sub
}

/// Smallest latency in nanoseconds that bucket `index` counts.
#[must_use]
pub const fn lower_ns(index: usize) -> u64 {
    if index < LINEAR_US as usize {
        return index as u64 * 1000;
    }
    if index >= OVERFLOW {
        return MAX_TRACKED_NS + 1;
    }
    let above = index - LINEAR_US as usize;
    let octave = (above >> SUB_LOG2) as u32 + LINEAR_LOG2;
    let sub = (above & ((1 << SUB_LOG2) - 1)) as u64;
    ((1 << octave) + (sub << (octave - SUB_LOG2))) * 1000
}

/// Largest latency in nanoseconds that bucket `index` counts; `u64::MAX` for the overflow bucket.
#[must_use]
pub const fn upper_ns(index: usize) -> u64 {
    if index >= OVERFLOW { u64::MAX } else { lower_ns(index + 1) - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn microseconds_agree_with_division_at_the_edges() {
        for ns in [0, 1, 999, 1000, 1001, 63_999, 64_000, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(us_of_ns(ns), ns / 1000, "{ns}");
        }
    }

    #[test]
    fn buckets_are_contiguous_and_cover_everything() {
        assert_eq!(lower_ns(0), 0);
        for i in 0..OVERFLOW {
            assert_eq!(upper_ns(i) + 1, lower_ns(i + 1), "bucket {i}");
            assert_eq!(bucket_of(lower_ns(i)), i);
            assert_eq!(bucket_of(upper_ns(i)), i);
        }
        assert_eq!(bucket_of(MAX_TRACKED_NS + 1), OVERFLOW);
        assert_eq!(bucket_of(u64::MAX), OVERFLOW);
    }

    #[test]
    fn no_bucket_is_wider_than_its_promise() {
        for i in LINEAR_US as usize..OVERFLOW {
            let width = upper_ns(i) + 1 - lower_ns(i);
            assert!(width * 16 <= lower_ns(i), "bucket {i}: {width} ns wide at {} ns", lower_ns(i));
        }
    }

    proptest! {
        #[test]
        fn microseconds_agree_with_division(ns in any::<u64>()) {
            prop_assert_eq!(us_of_ns(ns), ns / 1000);
            prop_assert_eq!(us_of_ns(ns >> 32), (ns >> 32) / 1000);
        }

        #[test]
        fn every_value_falls_between_the_edges_of_its_bucket(ns in any::<u64>(), shift in 0u32..40) {
            let ns = ns >> shift;
            let i = bucket_of(ns);
            prop_assert!(i < BUCKETS && lower_ns(i) <= ns && ns <= upper_ns(i));
        }
    }
}
