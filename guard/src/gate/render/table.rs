//! The verdict for a terminal: the outcome first, then the figures, then a sentence for each, then what was compared.

use super::rows::{HEAD, columns, compared, rows};
use crate::gate::verdict::Verdict;

pub(super) fn render(verdict: &Verdict) -> String {
    let mut text = format!("{}: {}\n", verdict.outcome.name().to_uppercase(), verdict.sentence);
    let rows = rows(verdict);
    if !rows.is_empty() {
        text += "\n";
        text += &columns(HEAD, &rows);
        text += "\n";
    }
    let sentences = verdict.budgets.iter().map(|b| &b.sentence).chain(verdict.metrics.iter().map(|m| &m.sentence));
    for sentence in sentences {
        text += &format!("- {sentence}\n");
    }
    text += "\n";
    for line in compared(verdict) {
        text += &format!("{line}\n");
    }
    for note in &verdict.notes {
        text += &format!("note: {note}\n");
    }
    text
}
