//! What several forms show alike: the lines about the comparison, and budgets and figures as rows.

use crate::gate::verdict::{Verdict, percent, time};

/// The lines that say what was compared.
pub(super) fn compared(verdict: &Verdict) -> Vec<String> {
    let comparison = &verdict.comparison;
    let mut lines = vec![format!(
        "{} runs of the candidate, {} of the baseline",
        comparison.candidate_runs, comparison.baseline_runs
    )];
    if comparison.set_aside > 0 {
        lines.push(format!("{} runs of the baseline were made otherwise and are left out", comparison.set_aside));
    }
    lines.extend(comparison.differences.iter().map(|difference| format!("differs: {difference}")));
    if !comparison.unknown.is_empty() {
        let names: Vec<&str> = comparison.unknown.iter().map(|fact| fact.name()).collect();
        lines.push(format!("unknown, so taken to be alike: {}", names.join(", ")));
    }
    lines
}

/// Heads of [`rows`].
pub(super) const HEAD: [&str; 7] = ["workload", "figure", "baseline", "candidate", "shift", "p", "verdict"];

/// Budgets and figures as cells.
pub(super) fn rows(verdict: &Verdict) -> Vec<[String; 7]> {
    let dash = || "-".to_owned();
    let budgets = verdict.budgets.iter().map(|b| {
        [
            b.workload.clone(),
            format!("{} {}", b.signal, b.metric),
            format!("≤ {}", ns(b.limit_ns)),
            b.worst_ns.map_or_else(dash, ns),
            dash(),
            dash(),
            b.status.name().to_owned(),
        ]
    });
    let metrics = verdict.metrics.iter().map(|m| {
        [
            m.workload.clone(),
            format!("{} {}", m.signal, m.metric),
            m.medians_ns.map_or_else(dash, |(before, _)| time(before)),
            m.medians_ns.map_or_else(dash, |(_, after)| time(after)),
            m.shift.map_or_else(dash, percent),
            m.p_corrected.map_or_else(dash, |p| if p < 0.000_1 { "<0.0001".to_owned() } else { format!("{p:.4}") }),
            m.status.name().to_owned(),
        ]
    });
    budgets.chain(metrics).collect()
}

#[allow(clippy::cast_precision_loss, reason = "latencies are far below 2^53 ns")]
fn ns(ns: u64) -> String {
    time(ns as f64)
}

/// Rows below a head, each column as wide as its widest cell.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&head).chain(rows).collect();
    let width = |n: usize| all.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in all {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}
