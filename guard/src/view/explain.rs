//! Findings for people: what happened, how often, and what can be done.

use super::figures::{self, printable};
use crate::explain::Finding;
use crate::snapshot::{SignalState, Snapshot};

/// The findings of `snapshot`, the worst first.
#[must_use]
pub fn render(snapshot: &Snapshot, findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        out += &format!("{:>8}  {}  {}\n", figures::time(finding.worst_ns), finding.cause, printable(&finding.cgroup));
        out += &format!("          {}\n", printable(&finding.sentence));
        if finding.count > 1 {
            let total = figures::time(finding.total_ns);
            out +=
                &format!("          {} times, {total} in all; this was the worst, at {}\n", finding.count, finding.at);
        } else {
            out += &format!("          once, at {}\n", finding.at);
        }
        if let Some(remedy) = &finding.remedy {
            out += &format!("          remedy: {remedy}\n");
        }
        out.push('\n');
    }
    if findings.is_empty() {
        out += &match snapshot.signals.iter().find(|signal| signal.name == "breach") {
            Some(signal) if signal.state == SignalState::Active => {
                format!("No watched thread was late in {:.1} s.\n", snapshot.window.seconds)
            }
            _ => "Late wake-ups were not seen on this node.\n".to_owned(),
        };
    }
    let lost = snapshot.overhead.lost.breaches;
    if lost > 0 {
        out += &format!("{lost} more were too many to be recorded.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::findings;
    use crate::view::samples;

    #[test]
    fn each_finding_has_its_cause_its_sentence_and_its_remedy() {
        let mut snapshot = samples::full();
        snapshot.breaches[0].cause = "non_pi_lock".into();
        let text = render(&snapshot, &findings([&snapshot]));
        for part in
            ["1.9 ms  non_pi_lock  /machine/libpod-1\n", "once, at 2026-11-22", "remedy: give the mutex priority"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn nothing_late_is_told_from_nothing_seen() {
        let mut snapshot = samples::full();
        snapshot.breaches.clear();
        snapshot.signals.retain(|signal| signal.name != "breach");
        assert!(render(&snapshot, &[]).contains("were not seen"));
        snapshot.signals.push(crate::snapshot::Signal {
            name: "breach".into(),
            source: "ring buffer".into(),
            state: SignalState::Active,
            reason: None,
        });
        assert!(render(&snapshot, &[]).contains("No watched thread was late"));
    }
}
