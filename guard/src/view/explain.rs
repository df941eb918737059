//! Findings for people: what happened, how often, and what can be done.

use super::figures::{self, printable};
use crate::explain::{Coupling, Explanation};
use crate::snapshot::{ChainLink, Class, Inversion, SignalName, SignalState, Snapshot};

/// Inversions and couplings that are shown, the worst.
const SHOWN: usize = 10;

/// What was found in `snapshot`, the worst first.
#[must_use]
pub fn render(snapshot: &Snapshot, explanation: &Explanation) -> String {
    let findings = &explanation.findings;
    let mut out = String::new();
    for finding in findings {
        out += &format!("{:>8}  {}  {}\n", figures::time(finding.worst_ns), finding.cause, printable(&finding.cgroup));
        out += &format!("          {}\n", printable(&finding.sentence));
        if finding.chain.len() > 1 {
            let links: Vec<String> = finding.chain.iter().map(link).collect();
            out += &format!("          chain: {} waits for {}\n", printable(&finding.comm), links.join(", for "));
        }
        if let Some(stacks) = &finding.stacks {
            out += &stack("woken while this ran", &stacks.waking);
            out += &stack("the CPU was left here", &stacks.leaving);
        }
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
        out += &match snapshot.signals.iter().find(|signal| signal.name == SignalName::Breach) {
            Some(signal) if signal.state == SignalState::Active => {
                format!("No watched thread was late in {:.1} s.\n", snapshot.window.seconds)
            }
            _ => "Late wake-ups were not seen on this node.\n".to_owned(),
        };
    }
    out += &inversions(&explanation.inversions);
    out += &couplings(&explanation.couplings);
    let lost = snapshot.overhead.lost.breaches;
    if lost > 0 {
        out += &format!("{lost} more were too many to be recorded.\n");
    }
    out
}

/// A kernel stack, a line for each frame.
fn stack(what: &str, frames: &[String]) -> String {
    let frames: String = frames.iter().map(|frame| format!("            {}\n", printable(frame))).collect();
    if frames.is_empty() { frames } else { format!("          {what}:\n{frames}") }
}

/// "mqtt (tid 12, in /be: throttled, 70.0 ms)".
fn link(link: &ChainLink) -> String {
    let place = link.who.cgroup.as_deref().map_or_else(String::new, |path| format!(", in {}", printable(path)));
    let comm = printable(&link.who.comm);
    format!("{comm} (tid {}{place}: {}, {})", link.who.tid, link.did, figures::time(link.ns))
}

fn inversions(all: &[Inversion]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut out = "INVERSIONS  who of the urgent waited for whom of the less urgent\n".to_owned();
    for inversion in all.iter().take(SHOWN) {
        let place = |path: &str, class: Option<Class>| {
            let class = class.map_or_else(String::new, |class| format!("{class:?} ").to_uppercase());
            format!("{class}{}", printable(path))
        };
        let by = inversion
            .by_cgroup
            .as_deref()
            .map_or_else(String::new, |path| format!(" in {}", place(path, inversion.by_class)));
        let worst = inversion.causes.iter().max_by_key(|(_, ns)| **ns).map_or("", |(cause, _)| cause.as_str());
        out += &format!(
            "{:>8}  {} in {} for {}{by}: {} times, worst {}, mostly {worst}\n",
            figures::time(inversion.lost_ns),
            printable(&inversion.comm),
            place(&inversion.cgroup, inversion.class),
            printable(&inversion.by_comm),
            inversion.count,
            figures::time(inversion.worst_ns),
        );
    }
    out + &more(all.len()) + "\n"
}

fn couplings(all: &[Coupling]) -> String {
    let coupled: Vec<&Coupling> = all.iter().filter(|coupling| coupling.coupled).collect();
    if coupled.is_empty() {
        return String::new();
    }
    let mut out = "COUPLINGS  what went up and down together; a hint, not a proof\n".to_owned();
    let figure = |r: Option<f64>| r.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    for coupling in coupled.iter().take(SHOWN) {
        out += &format!(
            "  {}: {}, Pearson {}, Spearman {}, of {} windows\n",
            printable(&coupling.cgroup),
            coupling.what,
            figure(coupling.pearson),
            figure(coupling.spearman),
            coupling.samples
        );
    }
    out + &more(coupled.len()) + "\n"
}

fn more(count: usize) -> String {
    if count > SHOWN { format!("  {} more.\n", count - SHOWN) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::inversion::inversions;
    use crate::explain::{CoupledPair, findings};
    use crate::snapshot::{Culprit, TimePart};
    use crate::view::samples;

    fn explanation(snapshot: &Snapshot) -> Explanation {
        Explanation {
            findings: findings([snapshot]),
            inversions: inversions(&snapshot.breaches, &snapshot.cgroups),
            couplings: vec![Coupling {
                cgroup: "/plc".into(),
                what: CoupledPair::ThrottledAndPressure.into(),
                samples: 12,
                pearson: Some(0.9),
                spearman: None,
                coupled: true,
            }],
        }
    }

    #[test]
    fn each_finding_has_its_cause_its_sentence_and_its_remedy() {
        let mut snapshot = samples::full();
        snapshot.breaches[0].cause = "non_pi_lock".into();
        let text = render(&snapshot, &explanation(&snapshot));
        for part in
            ["1.9 ms  non_pi_lock  /machine/libpod-1\n", "once, at 2026-11-22", "remedy: give the mutex priority"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_chain_is_shown_whole_and_so_are_inversions_and_couplings() {
        let mut snapshot = samples::full();
        let who = |tid, comm: &str| Culprit { tid, comm: comm.into(), cgroup: Some("/be".into()), prio: Some(120) };
        let evidence = &mut snapshot.breaches[0].evidence;
        evidence.prio = 19;
        let link = |tid, comm, did: &str| ChainLink { who: who(tid, comm), did: did.into(), ns: 1_000_000 };
        evidence.chain = vec![link(5, "mqtt", "waited"), link(6, "logger", "throttled")];
        let by = Some(who(6, "logger"));
        evidence.parts = vec![TimePart { cause: "throttled_lock_holder".into(), ns: 1_900_000, by }];
        let text = render(&snapshot, &explanation(&snapshot));
        for part in [
            " waits for mqtt (tid 5, in /be: waited, 1.0 ms), for logger (tid 6, in /be: throttled, 1.0 ms)\n",
            "INVERSIONS",
            " for logger in /be: 1 times, worst 1.9 ms, mostly throttled_lock_holder\n",
            "/plc: throttled time and cpu pressure, Pearson 0.90, Spearman -, of 12 windows\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn nothing_late_is_told_from_nothing_seen() {
        let mut snapshot = samples::full();
        snapshot.breaches.clear();
        snapshot.signals.retain(|signal| signal.name != SignalName::Breach);
        assert!(render(&snapshot, &explanation(&snapshot)).contains("were not seen"));
        snapshot.signals.push(crate::snapshot::Signal {
            name: "breach".into(),
            source: "ring buffer".into(),
            state: SignalState::Active,
            reason: None,
        });
        assert!(render(&snapshot, &explanation(&snapshot)).contains("No watched thread was late"));
    }
}
