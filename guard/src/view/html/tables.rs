//! The tables of the report: the same figures as the text has.

use std::collections::HashMap;

use super::page::{Look, escaped, section, table, tag};
use crate::explain::LateFinding;
use crate::snapshot::{Cgroup, Cpu, SignalName, SignalState, Snapshot};
use crate::view::figures::{self, printable};
use crate::view::text;

/// Rows before the rest is only counted.
const ROWS: usize = 30;

pub(super) fn threads(snapshot: &Snapshot) -> String {
    if snapshot.threads.is_empty() {
        return section("Threads", "No real-time thread was seen; others can be named with --tid.", "");
    }
    let names: HashMap<&str, &Cgroup> = snapshot.cgroups.iter().map(|c| (c.path.as_str(), c)).collect();
    let late = snapshot.sees(SignalName::Breach);
    let rows: Vec<Vec<String>> = snapshot
        .threads
        .iter()
        .map(|thread| {
            let [p50, p99, max] = figures::timer(&thread.timer);
            vec![
                thread.comm.clone(),
                thread.tid.to_string(),
                text::scheduling(thread),
                names.get(thread.cgroup.as_str()).map_or_else(|| thread.cgroup.clone(), |c| figures::cgroup_name(c)),
                thread.period_ns.map_or_else(|| figures::ABSENT.to_owned(), figures::round_time),
                p50,
                p99,
                max,
                figures::max(&thread.wakeup),
                figures::max(&thread.lock.wait),
                figures::count_if(thread.period_ns.is_some(), thread.timer.missed),
                figures::count_if(late, thread.breaches),
            ]
        })
        .collect();
    let columns = [
        ("thread", Look::Name),
        ("tid", Look::Figure),
        ("policy", Look::Text),
        ("cgroup", Look::Name),
        ("period", Look::Figure),
        ("timer p50", Look::Figure),
        ("p99", Look::Figure),
        ("max", Look::Figure),
        ("wait max", Look::Figure),
        ("lock max", Look::Figure),
        ("missed", Look::Figure),
        ("late", Look::Figure),
    ];
    section("Threads", "watched threads, worst first", &table(&columns, &rows, ROWS))
}

pub(super) fn cgroups(snapshot: &Snapshot) -> String {
    if snapshot.cgroups.is_empty() {
        return section("Cgroups", "None had any activity.", "");
    }
    let by_path: HashMap<&str, &Cgroup> = snapshot.cgroups.iter().map(|c| (c.path.as_str(), c)).collect();
    let rows: Vec<Vec<String>> = snapshot
        .cgroups
        .iter()
        .map(|cgroup| {
            let wakeup = &cgroup.wakeup;
            vec![
                figures::cgroup_name(cgroup),
                text::class(cgroup).to_owned(),
                figures::quantile(&wakeup.rt, 0.99),
                figures::max(&wakeup.rt),
                figures::quantile(&wakeup.fair, 0.99),
                figures::max(&wakeup.fair),
                figures::max(&wakeup.throttled),
                figures::count_if(cgroup.throttle.source.is_some(), cgroup.throttle.count),
                text::throttle_note(cgroup, &by_path).unwrap_or_default(),
            ]
        })
        .collect();
    let columns = [
        ("cgroup", Look::Name),
        ("class", Look::Text),
        ("RT p99", Look::Figure),
        ("RT max", Look::Figure),
        ("fair p99", Look::Figure),
        ("fair max", Look::Figure),
        ("quota wait", Look::Figure),
        ("throttles", Look::Figure),
        ("whose quota", Look::Name),
    ];
    section("Cgroups", "with activity, worst first", &table(&columns, &rows, ROWS))
}

pub(super) fn cpus(snapshot: &Snapshot) -> String {
    let (irq, taken) = (snapshot.sees(SignalName::Irq), snapshot.sees(SignalName::RtThrottle));
    if !irq && !taken {
        return section("CPUs", "Interrupts and what is taken from real-time threads are not seen on this node.", "");
    }
    let harmed: Vec<&Cpu> = snapshot.cpus.iter().filter(|cpu| text::harmed(cpu)).collect();
    let rows: Vec<Vec<String>> = harmed.iter().map(|cpu| text::cpu_cells(cpu, irq, taken)).collect();
    let columns = [
        ("CPU", Look::Figure),
        ("hardirq", Look::Figure),
        ("longest", Look::Figure),
        ("softirq", Look::Figure),
        ("longest", Look::Figure),
        ("RT throttling", Look::Figure),
        ("fair server", Look::Figure),
    ];
    let about = format!(
        "interrupts while a real-time thread was runnable, and real-time threads put off their CPU; {} of {} CPUs had any",
        harmed.len(),
        snapshot.cpus.len()
    );
    section("CPUs", &about, &if rows.is_empty() { String::new() } else { table(&columns, &rows, ROWS) })
}

pub(super) fn findings(findings: &[LateFinding]) -> String {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let culprit = finding.culprit.as_ref();
            vec![
                finding.cause.to_string(),
                finding.count.to_string(),
                figures::time(finding.worst_ns),
                format!("{} in {}", finding.comm, finding.cgroup),
                culprit.map_or_else(|| figures::ABSENT.to_owned(), |c| format!("{} {}", c.comm, c.tid)),
                finding.remedy.clone().unwrap_or_else(|| figures::ABSENT.to_owned()),
            ]
        })
        .collect();
    let columns = [
        ("cause", Look::Text),
        ("late", Look::Figure),
        ("worst", Look::Figure),
        ("whose", Look::Name),
        ("by", Look::Name),
        ("remedy", Look::Name),
    ];
    table(&columns, &rows, ROWS)
}

pub(super) fn actions(snapshot: &Snapshot) -> String {
    if snapshot.actions.is_empty() {
        return String::new();
    }
    let row = |action: &crate::snapshot::Action| {
        vec![
            text::time_of_day(&action.at).to_owned(),
            action.path.clone(),
            format!("{} {} → {}", action.knob, action.old, action.new),
            action.reason.clone(),
            action.result.to_string(),
        ]
    };
    // The last first: they are in force.
    let rows: Vec<Vec<String>> = snapshot.actions.iter().rev().map(row).collect();
    let columns = [
        ("at", Look::Text),
        ("cgroup", Look::Name),
        ("change", Look::Name),
        ("why", Look::Name),
        ("result", Look::Text),
    ];
    section("What guard did", "last first; \"planned\" was not done", &table(&columns, &rows, ROWS))
}

pub(super) fn signals(snapshot: &Snapshot) -> String {
    let state = |state: SignalState| match state {
        SignalState::Active => "seen",
        SignalState::Degraded => "in part",
        SignalState::Unavailable => "not seen",
        SignalState::Off => "turned off",
    };
    let rows: Vec<Vec<String>> = snapshot
        .signals
        .iter()
        .map(|signal| {
            vec![
                signal.name.to_string(),
                state(signal.state).to_owned(),
                signal.source.clone(),
                signal.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let columns =
        [("signal", Look::Text), ("state", Look::Text), ("source", Look::Name), ("why not in full", Look::Name)];
    tag("p", "faint", "What could be seen, and by which means:") + &table(&columns, &rows, ROWS)
}

/// Facts by name.
pub(super) fn pairs(rows: &[(&str, String)]) -> String {
    let row = |(key, value): &(&str, String)| {
        let value = if value.is_empty() { figures::ABSENT.to_owned() } else { printable(value).into_owned() };
        format!("<tr><td class=\"key\">{}</td><td class=\"name\">{}</td></tr>\n", escaped(key), escaped(&value))
    };
    format!("<table><tbody>\n{}</tbody></table>\n", rows.iter().map(row).collect::<String>())
}
