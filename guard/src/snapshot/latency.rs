//! Histogram arithmetic of the user side: sums over CPUs, differences over time, percentiles, the JSON form.

use guard_common::hist::{self, BUCKETS};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A histogram of latencies in ns with the buckets of [`guard_common::hist`].
///
/// `min_ns` and `max_ns` are exact where the source knew them; otherwise they are edges of the outermost buckets.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Option<Box<[u64; BUCKETS]>>,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: None, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("min_ns", &self.min_ns())
            .field("max_ns", &self.max_ns)
            .finish_non_exhaustive()
    }
}

impl Histogram {
    /// Counts one latency of `ns` nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.counts_mut()[hist::bucket_of(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds `n` latencies of bucket `index`; sum and extremes come by [`Self::add_sum`] and [`Self::widen`].
    pub fn add_count(&mut self, index: usize, n: u64) {
        if n > 0 {
            // Saturating: a damaged report must not be able to end the program that reads it.
            let count = &mut self.counts_mut()[index];
            *count = count.saturating_add(n);
        }
    }

    /// Adds to the sum of all latencies, ns.
    pub fn add_sum(&mut self, ns: u64) {
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Widens the extremes, ns.
    pub fn widen(&mut self, min_ns: u64, max_ns: u64) {
        self.min_ns = self.min_ns.min(min_ns);
        self.max_ns = self.max_ns.max(max_ns);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        if let Some(counts) = &other.counts {
            for (mine, theirs) in self.counts_mut().iter_mut().zip(counts.iter()) {
                *mine = mine.saturating_add(*theirs);
            }
            self.add_sum(other.sum_ns);
            self.widen(other.min_ns, other.max_ns);
        }
    }

    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.as_ref().map_or(0, |c| c.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Sum of all latencies, ns.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Smallest latency, ns; 0 when empty.
    #[must_use]
    pub fn min_ns(&self) -> u64 {
        // An extreme outside of its bucket is not known yet.
        let exact = |i| (hist::lower_ns(i)..=hist::upper_ns(i)).contains(&self.min_ns);
        self.first().map_or(0, |i| if exact(i) { self.min_ns } else { hist::lower_ns(i) })
    }

    /// Largest latency, ns; 0 when empty.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        let exact = |i| (hist::lower_ns(i)..=hist::upper_ns(i)).contains(&self.max_ns);
        let edge = |i| if i == BUCKETS - 1 { hist::lower_ns(i) } else { hist::upper_ns(i) };
        self.last().map_or(0, |i| if exact(i) { self.max_ns } else { edge(i) })
    }

    /// Mean latency, ns; 0 when empty.
    #[must_use]
    pub fn mean_ns(&self) -> u64 {
        self.sum_ns.checked_div(self.count()).unwrap_or(0)
    }

    /// Latency that a fraction `quantile` (0..=1) of all latencies does not exceed. In buckets of one us their upper edge,
    /// in wider ones where it lies if the bucket's latencies are spread evenly; never more than the maximum. 0 when
    /// empty.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        let count = self.count();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "counts stay far below 2^53 and the quantile is a fraction"
        )]
        let wanted = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut before = 0;
        for (index, n) in self.indexed() {
            if n >= wanted - before {
                return spread(index, wanted - before, n).max(self.min_ns()).min(self.max_ns());
            }
            before += n;
        }
        0
    }

    /// The non-empty buckets, as (largest latency in ns, count), ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.indexed().map(|(i, n)| (hist::upper_ns(i), n))
    }

    /// The non-empty buckets, as (index, count), ascending.
    pub fn indexed(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().flat_map(|c| c.iter().copied().enumerate()).filter(|(_, n)| *n > 0)
    }

    fn first(&self) -> Option<usize> {
        self.indexed().next().map(|(i, _)| i)
    }

    fn last(&self) -> Option<usize> {
        self.indexed().last().map(|(i, _)| i)
    }

    fn counts_mut(&mut self) -> &mut [u64; BUCKETS] {
        self.counts.get_or_insert_with(|| Box::new([0; BUCKETS]))
    }

    /// The same counts in an [`hdrhistogram::Histogram`] of nanoseconds, each at the lower edge of its bucket.
    ///
    /// Three significant digits give hdrhistogram finer buckets than ours everywhere, so no two of ours fall into one.
    /// Latencies of 16.8 s and more stand at 16.8 s.
    ///
    /// # Errors
    /// When hdrhistogram refuses the counts (it cannot for counts that fit into its cells).
    pub fn to_hdr(&self) -> Result<hdrhistogram::Histogram<u64>, hdrhistogram::RecordError> {
        #[allow(clippy::expect_used, reason = "constant arguments that hdrhistogram accepts")]
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, 2 * hist::MAX_TRACKED_NS, 3)
            .expect("1 ns to 33 s with three digits is a valid range");
        for (i, n) in self.indexed() {
            hdr.record_n(hist::lower_ns(i).max(1), n)?;
        }
        Ok(hdr)
    }

    /// Back from [`Self::to_hdr`]; sum and extremes are then known to a bucket only.
    #[must_use]
    pub fn from_hdr(hdr: &hdrhistogram::Histogram<u64>) -> Self {
        let mut this = Self::default();
        for v in hdr.iter_recorded() {
            // hdrhistogram's cell holds our lower edge somewhere inside, so its upper end is still in our bucket.
            let index = hist::bucket_of(hdr.highest_equivalent(v.value_iterated_to()));
            this.add_count(index, v.count_at_value());
            this.add_sum(hist::lower_ns(index).saturating_mul(v.count_at_value()));
            this.widen(hist::lower_ns(index), hist::upper_ns(index));
        }
        this
    }
}

/// The `rank`-th (1..=n) of `n` latencies in bucket `index`, ns.
fn spread(index: usize, rank: u64, n: u64) -> u64 {
    let (lower, upper) = (hist::lower_ns(index), hist::upper_ns(index));
    let width = upper - lower;
    // Times are read by people and by peers in whole us: there is nothing to be said within one.
    if width < 1_000 || index == BUCKETS - 1 {
        return upper;
    }
    let part = u128::from(width) * u128::from(rank) / u128::from(n.max(1));
    lower + u64::try_from(part).unwrap_or(width)
}

/// A [`Histogram`] in its JSON form: `{count, min_ns, mean_ns, p50_ns, …, max_ns, histogram: [[upper_ns, count], …]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency(pub Histogram);

impl std::ops::Deref for Latency {
    type Target = Histogram;

    fn deref(&self) -> &Histogram {
        &self.0
    }
}

impl std::ops::DerefMut for Latency {
    fn deref_mut(&mut self) -> &mut Histogram {
        &mut self.0
    }
}

/// Distribution of a latency. Percentiles are at most a bucket, 6.25 % or 1 us, from the true value.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Latency")]
struct LatencyJson {
    /// Latencies counted; all other fields are 0 when it is 0.
    count: u64,
    /// Smallest, ns.
    min_ns: u64,
    /// Mean, ns.
    mean_ns: u64,
    /// Median, ns.
    p50_ns: u64,
    /// 90th percentile, ns.
    p90_ns: u64,
    /// 99th percentile, ns.
    p99_ns: u64,
    /// 99.9th percentile, ns.
    p999_ns: u64,
    /// 99.99th percentile, ns.
    p9999_ns: u64,
    /// Largest, ns.
    max_ns: u64,
    /// Sum, ns.
    #[serde(default)]
    sum_ns: u64,
    /// Non-empty buckets: largest latency that the bucket counts in ns, count.
    histogram: Vec<(u64, u64)>,
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        LatencyJson {
            count: self.count(),
            min_ns: self.min_ns(),
            mean_ns: self.mean_ns(),
            p50_ns: self.quantile_ns(0.5),
            p90_ns: self.quantile_ns(0.9),
            p99_ns: self.quantile_ns(0.99),
            p999_ns: self.quantile_ns(0.999),
            p9999_ns: self.quantile_ns(0.9999),
            max_ns: self.max_ns(),
            sum_ns: self.sum_ns(),
            histogram: self.buckets().collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = LatencyJson::deserialize(deserializer)?;
        let mut histogram = Histogram::default();
        for (upper, n) in json.histogram {
            histogram.add_count(hist::bucket_of(upper), n);
        }
        if json.count > 0 {
            histogram.add_sum(json.sum_ns);
            histogram.widen(json.min_ns, json.max_ns);
        }
        Ok(Self(histogram))
    }
}

impl JsonSchema for Latency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        LatencyJson::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        LatencyJson::json_schema(generator)
    }
}

#[cfg(test)]
impl Histogram {
    /// Counts each of these values once.
    pub(crate) fn of(values: &[u64]) -> Self {
        let mut histogram = Self::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_histogram_is_all_zero() {
        let h = Histogram::default();
        assert_eq!((h.count(), h.min_ns(), h.mean_ns(), h.quantile_ns(0.99), h.max_ns()), (0, 0, 0, 0, 0));
    }

    #[test]
    fn json_round_trip_keeps_everything() {
        let before = Latency(Histogram::of(&[1, 999, 1000, 63_999, 64_000, 1_000_000, 20_000_000_000]));
        let text = serde_json::to_string(&before).unwrap();
        let after: Latency = serde_json::from_str(&text).unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn extremes_that_are_not_known_yet_are_edges_of_their_buckets() {
        let mut h = Histogram::default();
        let index = hist::bucket_of(180_000);
        h.add_count(index, 1);
        let edges = (hist::lower_ns(index), hist::upper_ns(index));
        assert_eq!((h.min_ns(), h.max_ns(), h.quantile_ns(0.5)), (edges.0, edges.1, edges.1));
        h.widen(u64::MAX, edges.0 + 5);
        assert_eq!((h.min_ns(), h.max_ns(), h.quantile_ns(0.5)), (edges.0, edges.0 + 5, edges.0 + 5));
    }

    #[test]
    fn a_wide_bucket_is_taken_as_evenly_filled() {
        let mut h = Histogram::default();
        let index = hist::bucket_of(1_000_000);
        let (lower, upper) = (hist::lower_ns(index), hist::upper_ns(index));
        (0..100).for_each(|n| h.record(lower + (upper - lower) * n / 99));
        for percent in [1, 25, 50, 75, 100] {
            let even = lower + (upper - lower) * percent / 100;
            #[allow(clippy::cast_precision_loss, reason = "a small number")]
            let said = h.quantile_ns(percent as f64 / 100.0);
            assert!(said.abs_diff(even) <= (upper - lower) / 50, "{percent} %: {said} instead of {even}");
        }
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_hdrhistogram(values in prop::collection::vec(1u64..10_000_000_000, 1..300), q in 0.0f64..=1.0) {
            let ours = Histogram::of(&values);
            let mut theirs = hdrhistogram::Histogram::<u64>::new(3).unwrap();
            values.iter().for_each(|v| theirs.record(*v).unwrap());
            let (a, b) = (ours.quantile_ns(q), theirs.value_at_quantile(q));
            // One bucket of ours and one of theirs apart at most.
            let allowed = b / 16 + b / 500 + 1001;
            prop_assert!(a.abs_diff(b) <= allowed, "ours {a}, theirs {b} at {q}");
            prop_assert_eq!(ours.count(), theirs.len());
            prop_assert_eq!(ours.max_ns(), *values.iter().max().unwrap());
            prop_assert_eq!(ours.min_ns(), *values.iter().min().unwrap());
        }

        #[test]
        fn hdrhistogram_keeps_every_bucket_apart(values in prop::collection::vec(0u64..16_000_000_000, 0..300)) {
            let before = Histogram::of(&values);
            let after = Histogram::from_hdr(&before.to_hdr().unwrap());
            prop_assert!(before.indexed().eq(after.indexed()));
        }

        #[test]
        fn merging_is_counting_together(a in prop::collection::vec(any::<u64>(), 0..100), b in prop::collection::vec(any::<u64>(), 0..100)) {
            let mut merged = Histogram::of(&a);
            merged.merge(&Histogram::of(&b));
            let together = Histogram::of(&[a, b].concat());
            prop_assert!(merged.indexed().eq(together.indexed()));
            prop_assert_eq!(merged.max_ns(), together.max_ns());
            prop_assert_eq!(merged.min_ns(), together.min_ns());
        }
    }
}
