//! Metrics in Prometheus's protobuf form, the only one in which it takes native histograms: messages of
//! `io.prometheus.client` (<https://github.com/prometheus/client_model>, metrics.proto), each behind its length. A histogram
//! has both forms; the server takes the one that it wants.

use prost::Message as _;

use super::buckets::{SCHEMA, ZERO_THRESHOLD, cumulative, native, seconds};
use super::catalogue::{Family, FamilyKind};
use super::page::{Exposition, Sample, Value};
use crate::snapshot;

#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(enumeration = "MetricType", optional, tag = "3")]
    r#type: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// A gauge or a counter.
#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    /// Empty buckets since the last span; of the first one its index.
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// The page, one message after the other.
pub(super) fn render(page: &Exposition<'_>) -> Vec<u8> {
    page.families().flat_map(|(family, samples)| message(family, samples).encode_length_delimited_to_vec()).collect()
}

fn message(family: &Family, samples: &[Sample<'_>]) -> MetricFamily {
    let r#type = match family.kind {
        FamilyKind::Counter => MetricType::Counter,
        FamilyKind::Gauge | FamilyKind::Info => MetricType::Gauge,
        FamilyKind::Histogram => MetricType::Histogram,
    };
    MetricFamily {
        name: Some(family.name.to_owned()),
        help: Some(family.help.to_owned()),
        r#type: Some(r#type.into()),
        metric: samples.iter().map(|sample| metric(family, sample)).collect(),
    }
}

fn metric(family: &Family, sample: &Sample<'_>) -> Metric {
    let label = family
        .labels
        .iter()
        .zip(&sample.labels)
        .map(|(name, value)| LabelPair { name: Some((*name).to_owned()), value: Some(value.to_string()) })
        .collect();
    let metric = Metric { label, ..Metric::default() };
    match sample.value {
        Value::Histogram(of) => Metric { histogram: Some(histogram(of)), ..metric },
        Value::Number(value) if family.kind == FamilyKind::Counter => {
            Metric { counter: Some(Number { value: Some(value) }), ..metric }
        }
        Value::Number(value) => Metric { gauge: Some(Number { value: Some(value) }), ..metric },
    }
}

fn histogram(of: &snapshot::Histogram) -> Histogram {
    let bucket = cumulative(of)
        .into_iter()
        .chain([(f64::INFINITY, of.count())])
        .map(|(limit, below)| Bucket { cumulative_count: Some(below), upper_bound: Some(limit) })
        .collect();
    let (zero, buckets) = native(of);
    let (positive_span, positive_delta) = spans(&buckets);
    Histogram {
        sample_count: Some(of.count()),
        sample_sum: Some(seconds(of.sum_ns())),
        bucket,
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD),
        zero_count: Some(zero),
        positive_span,
        positive_delta,
    }
}

/// Runs of neighbouring buckets, and by how much each bucket's count differs from the one before it.
fn spans(buckets: &[(i32, u64)]) -> (Vec<BucketSpan>, Vec<i64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut deltas = Vec::with_capacity(buckets.len());
    let (mut next, mut before) = (0, 0);
    for (index, n) in buckets {
        match spans.last_mut() {
            Some(BucketSpan { length: Some(length), .. }) if *index == next => *length += 1,
            _ => spans.push(BucketSpan { offset: Some(index - next), length: Some(1) }),
        }
        next = index + 1;
        let n = i64::try_from(*n).unwrap_or(i64::MAX);
        deltas.push(n - before);
        before = n;
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_told_by_spans_and_differences() {
        let (spans, deltas) = spans(&[(-20, 3), (-19, 5), (-10, 1)]);
        let as_numbers: Vec<_> = spans.iter().map(|s| (s.offset.unwrap(), s.length.unwrap())).collect();
        assert_eq!(as_numbers, [(-20, 2), (8, 1)]);
        assert_eq!(deltas, [3, 2, -4]);
    }

    #[test]
    fn a_histogram_has_both_forms() {
        let mut of = snapshot::Histogram::default();
        [500, 12_000, 12_000, 1_900_000].into_iter().for_each(|ns| of.record(ns));
        let back = Histogram::decode(histogram(&of).encode_to_vec().as_slice()).unwrap();
        assert_eq!((back.sample_count, back.zero_count, back.schema), (Some(4), Some(1), Some(3)));
        assert_eq!(back.bucket.last().unwrap().cumulative_count, Some(4));
        assert_eq!(back.positive_delta, [2, -1]);
    }
}
