//! What doctor found on this node: what must be acted on, why, and how; worst first.

use ratatui::style::Style;

use super::page::Page;
use super::state::{App, SourceKind};
use super::theme::Level;
use crate::doctor::{Finding, Severity};

/// Lines of evidence and steps of one finding before the rest is only counted.
const LINES: usize = 4;

pub(super) fn page(app: &App, width: usize) -> Page {
    let mut page = Page::default();
    let theme = app.options.theme;
    let Some(report) = &app.examined else {
        let text = match app.options.kind {
            SourceKind::Replay => {
                "A recording does not have what doctor looks at; run guard doctor on the node itself."
            }
            SourceKind::Live | SourceKind::Socket => "Looking at this node ...",
        };
        page.wrapped(text, 0, width, Style::new());
        return page;
    };
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let remark = format!(
        "{} critical, {} warnings, {} unknown, {} notes, {} ok; r looks again{}",
        count(Severity::Critical),
        count(Severity::Warning),
        count(Severity::Unknown),
        count(Severity::Info),
        count(Severity::Ok),
        if app.examining { " (looking)" } else { "" }
    );
    page.section("DOCTOR", &remark, theme);
    for finding in report.findings.iter().filter(|finding| finding.severity != Severity::Ok) {
        told(&mut page, app, finding, width);
    }
    if !report.must_act() {
        page.text("Nothing has to be acted on.");
    }
    page
}

fn told(page: &mut Page, app: &App, finding: &Finding, width: usize) {
    let theme = app.options.theme;
    let (level, word) = match finding.severity {
        Severity::Critical => (Level::Bad, "critical"),
        Severity::Warning => (Level::Warn, "warning"),
        Severity::Unknown => (Level::Fine, "unknown"),
        Severity::Info | Severity::Ok => (Level::Fine, "note"),
    };
    page.body.push(ratatui::text::Line::default());
    let title = format!("{} {word}  {}  [{}]", level.sign(), finding.title, finding.id);
    page.wrapped_hanging(&title, width, theme.level(level));
    page.wrapped(&finding.why, 4, width, theme.faint());
    for seen in finding.evidence.iter().take(LINES) {
        page.wrapped(&format!("{}: {}", seen.source, seen.value), 6, width, theme.faint());
    }
    more(page, finding.evidence.len());
    let Some(remedy) = &finding.remedy else { return };
    let steps: Vec<(&str, &str)> = (remedy.commands.iter().map(|step| ("# ", step.change.as_str())))
        .chain(remedy.by_hand.iter().map(|step| ("by hand: ", step.change.as_str())))
        .collect();
    for (how, change) in steps.iter().take(LINES) {
        page.wrapped(&format!("{how}{change}"), 6, width, Style::new());
    }
    more(page, steps.len());
    if remedy.reboot {
        page.text("      takes a reboot");
    }
}

fn more(page: &mut Page, lines: usize) {
    if lines > LINES {
        page.text(&format!("      and {} more: guard doctor", lines - LINES));
    }
}
