//! The verdict as JUnit XML: a test case for the comparability, for every budget and for every figure.

use super::rows::compared;
use crate::gate::verdict::{GateOutcome, Status, Verdict};

/// A test case: class, name, and what went wrong: (element, type, text).
struct Case {
    class: String,
    name: String,
    fault: Option<(&'static str, &'static str, String)>,
    said: String,
}

pub(super) fn render(verdict: &Verdict) -> String {
    let cases = cases(verdict);
    let count =
        |element: &str| cases.iter().filter(|case| case.fault.as_ref().is_some_and(|(e, ..)| *e == element)).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
        cases.len(),
        count("failure"),
        count("error"),
        count("skipped")
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"guard gate\">\n  <testsuite name=\"guard gate\" \
         {counts}>\n"
    );
    for Case { class, name, fault, said } in cases {
        text += &format!("    <testcase classname=\"{}\" name=\"{}\">\n", escaped(&class), escaped(&name));
        if let Some((element, kind, message)) = fault {
            // What is skipped has no type.
            let kind = if element == "skipped" { String::new() } else { format!(" type=\"{kind}\"") };
            text += &format!("      <{element}{kind} message=\"{}\"/>\n", escaped(&message));
        }
        text += &format!("      <system-out>{}</system-out>\n    </testcase>\n", escaped(&said));
    }
    let closing = format!("{}: {}", verdict.outcome.name(), verdict.sentence);
    text + &format!("    <system-out>{}</system-out>\n  </testsuite>\n</testsuites>\n", escaped(&closing))
}

fn cases(verdict: &Verdict) -> Vec<Case> {
    let alike = verdict.comparison.differences.is_empty();
    let said: Vec<String> = compared(verdict).into_iter().chain(verdict.notes.iter().cloned()).collect();
    let comparable = Case {
        class: "comparison".to_owned(),
        name: "the runs can be compared".to_owned(),
        fault: (!alike).then(|| ("error", GateOutcome::NotComparable.name(), verdict.sentence.clone())),
        said: said.join("\n"),
    };
    let budgets = verdict.budgets.iter().map(|b| Case {
        class: b.workload.clone(),
        name: format!("{} {} budget", b.signal, b.metric),
        fault: fault(b.status, &b.sentence),
        said: b.sentence.clone(),
    });
    let metrics = verdict.metrics.iter().map(|m| Case {
        class: m.workload.clone(),
        name: format!("{} {}", m.signal, m.metric),
        fault: fault(m.status, &m.sentence),
        said: m.sentence.clone(),
    });
    std::iter::once(comparable).chain(budgets).chain(metrics).collect()
}

fn fault(status: Status, sentence: &str) -> Option<(&'static str, &'static str, String)> {
    let element = match status {
        Status::Pass => return None,
        Status::OverBudget | Status::Regression => "failure",
        Status::NotComparable | Status::TooLittleData => "error",
        Status::NotJudged => "skipped",
    };
    Some((element, status.name(), sentence.to_owned()))
}

/// Text for an attribute or an element; characters that XML cannot hold are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped.push('\n'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
