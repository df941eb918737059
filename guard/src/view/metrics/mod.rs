//! Metrics for Prometheus: what all Snapshots so far come to, as its text, as OpenMetrics and as its protobuf. Like every
//! view it knows Snapshots only; who asks for a page, and by which way, is not its business.

mod buckets;
mod catalogue;
mod page;
mod places;
mod protobuf;
mod text;
mod totals;

use bytes::Bytes;
pub use catalogue::markdown;
pub use totals::SeriesLimits;

use self::page::Exposition;
use self::text::Dialect;
use self::totals::Totals;
use crate::snapshot::Snapshot;

/// A form in which metrics can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus's text, 0.0.4.
    Text,
    /// OpenMetrics text, 1.0.
    OpenMetrics,
    /// Prometheus's protobuf messages, each behind its length; the only form with native histograms.
    Protobuf,
}

const FORMATS: usize = 3;

impl MetricsFormat {
    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// What a client likes best by its Accept header; text when it says nothing that is understood.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let wanted = header.split(',').filter_map(|range| {
            let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
            let parameter = |name: &str| {
                parameters.split(';').find_map(|one| {
                    let (key, value) = one.split_once('=')?;
                    key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
                })
            };
            let format = match kind.trim().to_ascii_lowercase().as_str() {
                "application/vnd.google.protobuf"
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && parameter("encoding") == Some("delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" if parameter("version").is_none_or(|version| version == "1.0.0") => {
                    Self::OpenMetrics
                }
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => return None,
            };
            let weight = parameter("q").map_or(Some(1.0), |q| q.parse::<f64>().ok())?;
            (weight > 0.0).then_some((format, weight))
        });
        // Of equals the first.
        let better = |best: (Self, f64), one: (Self, f64)| if one.1 > best.1 { one } else { best };
        wanted.reduce(better).map_or(Self::Text, |(format, _)| format)
    }
}

/// Takes Snapshots and shows what they come to.
pub struct Exporter {
    totals: Totals,
    /// Pages that were asked for since the last Snapshot: however often they are, each is made once.
    pages: [Option<Bytes>; FORMATS],
}

impl Exporter {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(limits: SeriesLimits) -> Self {
        Self { totals: Totals::new(limits), pages: [const { None }; FORMATS] }
    }

    /// Adds an interval.
    pub fn take(&mut self, snapshot: &Snapshot) {
        self.totals.take(snapshot);
        self.pages = [const { None }; FORMATS];
    }

    /// All metrics in this form.
    pub fn page(&mut self, format: MetricsFormat) -> Bytes {
        let Self { totals, pages } = self;
        let render = || {
            let page = Exposition::new(totals);
            match format {
                MetricsFormat::Text => Bytes::from(text::render(&page, Dialect::Prometheus)),
                MetricsFormat::OpenMetrics => Bytes::from(text::render(&page, Dialect::OpenMetrics)),
                MetricsFormat::Protobuf => Bytes::from(protobuf::render(&page)),
            }
        };
        pages[format as usize].get_or_insert_with(render).clone()
    }
}

#[cfg(test)]
mod tests;
