//! The verdict as workflow commands of GitHub Actions: an error for every regression, a warning for what could not be
//! judged, a notice with the outcome.

use crate::gate::verdict::{GateOutcome, Status, Verdict};

pub(super) fn render(verdict: &Verdict) -> String {
    let level = match verdict.outcome {
        GateOutcome::Pass => "notice",
        GateOutcome::Regression => "error",
        GateOutcome::NotComparable | GateOutcome::TooLittleData => "warning",
    };
    let mut text = command(level, verdict.outcome.name(), &verdict.sentence);
    let budgets = verdict.budgets.iter().map(|b| (b.status, &b.sentence));
    for (status, sentence) in budgets.chain(verdict.metrics.iter().map(|m| (m.status, &m.sentence))) {
        match status {
            Status::OverBudget | Status::Regression => text += &command("error", status.name(), sentence),
            Status::NotComparable | Status::TooLittleData => text += &command("warning", status.name(), sentence),
            Status::Pass | Status::NotJudged => {}
        }
    }
    for note in &verdict.notes {
        text += &command("notice", "note", note);
    }
    text
}

fn command(level: &str, title: &str, message: &str) -> String {
    let message = message.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::{level} title=guard gate%3A {title}::{message}\n")
}
