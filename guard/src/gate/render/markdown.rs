//! The verdict as Markdown, for a job summary or a comment on a merge request.

use super::rows::{HEAD, compared, rows};
use crate::gate::verdict::Verdict;

pub(super) fn render(verdict: &Verdict) -> String {
    let mut text = format!("## guard gate: {}\n\n{}\n\n", verdict.outcome.name(), plain(&verdict.sentence));
    let rows = rows(verdict);
    if !rows.is_empty() {
        text += &format!("| {} |\n|---|---|---|---|---|---|---|\n", HEAD.join(" | "));
        for row in rows {
            text += &format!("| {} |\n", row.map(|cell| plain(&cell)).join(" | "));
        }
        text += "\n";
    }
    let sentences = verdict.budgets.iter().map(|b| &b.sentence).chain(verdict.metrics.iter().map(|m| &m.sentence));
    let compared = compared(verdict);
    for line in sentences.chain(&compared).chain(&verdict.notes) {
        text += &format!("- {}\n", plain(line));
    }
    text
}

/// Text in which nothing is markup.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '<' => plain += "&lt;",
            '>' => plain += "&gt;",
            '&' => plain += "&amp;",
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' | '~' => plain.extend(['\\', c]),
            _ => plain.push(c),
        }
    }
    plain
}
