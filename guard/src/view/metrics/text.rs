//! Metrics as text: in Prometheus's own form (0.0.4) and as OpenMetrics 1.0. They differ in the names of types and in what
//! ends the page; the series are the same.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::buckets::{cumulative, seconds};
use super::catalogue::{Family, FamilyKind};
use super::page::{Exposition, Sample, Value};
use crate::snapshot::Histogram;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// The page as text.
pub(super) fn render(page: &Exposition<'_>, dialect: Dialect) -> String {
    let mut text = String::new();
    for (family, samples) in page.families() {
        head(&mut text, family, dialect);
        for sample in samples {
            series(&mut text, family, sample);
        }
    }
    if dialect == Dialect::OpenMetrics {
        text += "# EOF\n";
    }
    text
}

fn head(text: &mut String, family: &Family, dialect: Dialect) {
    let Family { name, kind, help, .. } = family;
    // OpenMetrics names the family without what its kind adds to the name.
    let suffix = match (dialect, kind) {
        (Dialect::OpenMetrics, FamilyKind::Counter) => "_total",
        (Dialect::OpenMetrics, FamilyKind::Info) => "_info",
        _ => "",
    };
    let name = name.strip_suffix(suffix).unwrap_or(name);
    let kind = match (dialect, kind) {
        (Dialect::Prometheus, FamilyKind::Info) => "gauge",
        _ => kind.name(),
    };
    let help = match dialect {
        Dialect::Prometheus => Cow::Borrowed(*help),
        Dialect::OpenMetrics => Cow::Owned(help.replace('"', "\\\"")),
    };
    push(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    if dialect == Dialect::OpenMetrics {
        for unit in ["seconds", "bytes"] {
            if name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) {
                push(text, format_args!("# UNIT {name} {unit}\n"));
            }
        }
    }
}

fn series(text: &mut String, family: &Family, sample: &Sample<'_>) {
    let mut labels = String::new();
    for (name, value) in family.labels.iter().zip(&sample.labels) {
        let comma = if labels.is_empty() { "" } else { "," };
        push(&mut labels, format_args!("{comma}{name}=\"{}\"", escaped(value)));
    }
    let name = family.name;
    match sample.value {
        Value::Number(number) if labels.is_empty() => push(text, format_args!("{name} {number}\n")),
        Value::Number(number) => push(text, format_args!("{name}{{{labels}}} {number}\n")),
        Value::Histogram(histogram) => buckets(text, name, &labels, histogram),
    }
}

fn buckets(text: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let count = histogram.count();
    for (limit, below) in cumulative(histogram) {
        push(text, format_args!("{name}_bucket{{{labels}{comma}le=\"{}\"}} {below}\n", limit_text(limit)));
    }
    push(text, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n"));
    push(text, format_args!("{name}_sum{{{labels}}} {}\n", seconds(histogram.sum_ns())));
    push(text, format_args!("{name}_count{{{labels}}} {count}\n"));
}

/// A limit as Go prints it, so that it is the same label however the page was asked for: "1.6e-05", "0.000128".
fn limit_text(limit: f64) -> String {
    if limit >= 1e-4 {
        return limit.to_string();
    }
    let text = format!("{limit:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    } else {
        Cow::Borrowed(value)
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_printed_as_go_does() {
        for (limit, text) in [(1e-6, "1e-06"), (16e-6, "1.6e-05"), (128e-6, "0.000128"), (4.194304, "4.194304")] {
            assert_eq!(limit_text(limit), text);
        }
    }

    #[test]
    fn no_label_ends_its_line() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
