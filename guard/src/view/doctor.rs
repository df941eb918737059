//! What doctor found: for a technician at a terminal of 80 columns, worst first; as a shell script to review; as the
//! table of all checks in the documentation.

use std::fmt::Write as _;

use super::figures::printable;
use crate::{
    doctor::{Check, DoctorReport, Evidence, Finding, RemedyStep, Severity},
    snapshot::CgroupLayout,
};

/// Width of the text: made for a console and for a ticket.
const WIDTH: usize = 80;
/// Lines of evidence and commands of one finding before the rest is only counted.
const LINES: usize = 4;

/// The report as text.
#[must_use]
pub fn text(report: &DoctorReport) -> String {
    let mut out = header(report);
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    out += &format!(
        "{} critical, {} warnings, {} unknown, {} notes, {} ok\n",
        count(Severity::Critical),
        count(Severity::Warning),
        count(Severity::Unknown),
        count(Severity::Info),
        count(Severity::Ok)
    );
    for finding in report.findings.iter().filter(|finding| finding.severity != Severity::Ok) {
        self::finding(finding, &mut out);
    }
    let fine: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Ok)
        .map(|finding| finding.id.as_str())
        .collect();
    if !fine.is_empty() {
        out.push('\n');
        wrap(&mut out, "OK  ", &fine.join(", "));
    }
    out
}

fn header(report: &DoctorReport) -> String {
    let node = &report.node;
    let layout = match node.cgroup {
        CgroupLayout::V1 => "cgroup v1",
        CgroupLayout::V2 => "cgroup v2",
        CgroupLayout::Hybrid => "cgroup v1 and v2",
        CgroupLayout::None => "no cpu cgroups",
    };
    let apart = if node.rt_cpus.is_empty() { "none".to_owned() } else { node.rt_cpus.to_string() };
    format!(
        "{}: kernel {}, {}, {layout}\nCPUs {}, of real-time work: {apart}; real-time processes: {}\n",
        printable(&node.hostname),
        printable(&node.kernel),
        if node.realtime { "PREEMPT_RT" } else { "not PREEMPT_RT" },
        node.cpus,
        node.realtime_processes,
    )
}

fn name_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Unknown => "UNKNOWN",
        Severity::Info => "NOTE",
        Severity::Ok => "OK",
    }
}

fn finding(finding: &Finding, out: &mut String) {
    out.push('\n');
    wrap(out, &format!("{}  ", name_of(finding.severity)), &format!("{}: {}", finding.id, finding.title));
    // What could not be seen has neither evidence nor remedy.
    if finding.severity == Severity::Unknown {
        return;
    }
    evidence(&finding.evidence, out);
    if finding.severity.must_act() {
        wrap(out, "  why     ", &finding.why);
        wrap(out, "          ", &finding.link);
    }
    let Some(remedy) = &finding.remedy else { return };
    let steps: Vec<&RemedyStep> = remedy.commands.iter().chain(&remedy.by_hand).collect();
    for step in steps.iter().take(LINES) {
        wrap(out, "  change  ", &step.change);
        wrap(out, "    undo  ", &step.undo);
    }
    more(steps.len(), "changes: guard doctor --fix-plan", out);
    if remedy.reboot {
        wrap(out, "          ", "takes a reboot");
    }
}

fn evidence(all: &[Evidence], out: &mut String) {
    for one in all.iter().take(LINES) {
        // A file of many lines is no evidence that fits here.
        let value = one.value.lines().next().unwrap_or_default();
        wrap(out, "  seen    ", &format!("{} = {value}", one.source));
    }
    more(all.len(), "in --format json", out);
}

fn more(count: usize, of: &str, out: &mut String) {
    if count > LINES {
        wrap(out, "          ", &format!("and {} more {of}", count - LINES));
    }
}

/// Adds words behind a label, the following lines indented as far. A word that is longer than a line, as a path may be,
/// is not broken: somebody will copy it.
fn wrap(out: &mut String, label: &str, words: &str) {
    let indent = label.chars().count();
    out.push_str(label);
    let mut column = indent;
    for (index, word) in printable(words).split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// The changes as a shell script to be reviewed. What a person has to do stands in comments.
#[must_use]
pub fn fix_plan(report: &DoctorReport) -> String {
    let mut out = String::from("#!/bin/sh\n# Made by guard doctor --fix-plan. Review it, then run it as root.\n");
    for line in header(report).lines() {
        comment(&mut out, line);
    }
    out += "# The commands last until the next boot and can be run again; below each stands what undoes it.\n";
    out += "# Containers keep what is written to their cgroups until they are started anew.\n\n";
    out += "refused=0\nrefused() { echo \"refused: $1\" >&2; refused=1; }\n";
    let mended = report.findings.iter().filter(|finding| finding.remedy.is_some());
    // A note may be acted on, or not: it is offered, and not carried out.
    for finding in mended {
        block(finding, &mut out);
    }
    out += "\nexit $refused\n";
    out
}

fn block(finding: &Finding, out: &mut String) {
    let Some(remedy) = &finding.remedy else { return };
    let must_act = finding.severity.must_act();
    out.push('\n');
    comment(out, &format!("---- {} {}: {}", name_of(finding.severity), finding.id, finding.title));
    for one in &finding.evidence {
        comment(out, &format!("seen: {} = {}", one.source, one.value.lines().next().unwrap_or_default()));
    }
    if must_act {
        comment(out, &finding.why);
    }
    comment(out, &finding.link);
    for step in &remedy.commands {
        if must_act {
            let _ = writeln!(out, "{} || refused {}", step.change, finding.id);
        } else {
            comment(out, &format!("optional: {}", step.change));
        }
        comment(out, &format!("undo: {}", step.undo));
    }
    for step in &remedy.by_hand {
        comment(out, &format!("by hand: {}", step.change));
        comment(out, &format!("undo: {}", step.undo));
    }
    if remedy.reboot {
        comment(out, "takes a reboot");
    }
}

/// One line of comment, whatever the text holds: a line break in a name must not become a command.
fn comment(out: &mut String, text: &str) {
    let _ = writeln!(out, "# {}", printable(text));
}

/// The report as JSON, indented, with a final line feed.
///
/// # Errors
/// When serde_json refuses a value; no report holds one it refuses.
pub fn json(report: &DoctorReport) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

/// The JSON schema of [`json`], indented, with a final line feed.
///
/// # Errors
/// When serde_json refuses the schema; it never does.
pub fn schema() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&crate::doctor::json_schema()).map(|text| text + "\n")
}

/// The checks as a table in Markdown.
#[must_use]
pub fn table(checks: &[&Check]) -> String {
    let mut out = String::from("| check | looks at | why |\n|---|---|---|\n");
    for check in checks {
        let _ = writeln!(out, "| `{}` | {} | {} [more]({}) |", check.id, check.looks_at, check.why, check.link);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Remedy, ReportNode, SCHEMA, checks};

    fn report(finding: Finding) -> DoctorReport {
        DoctorReport {
            schema: SCHEMA,
            node: ReportNode {
                hostname: "edge-7".to_owned(),
                kernel: "6.12.0".to_owned(),
                realtime: true,
                cgroup: CgroupLayout::V2,
                cpus: "0-3".parse().unwrap(),
                rt_cpus: "3".parse().unwrap(),
                realtime_processes: 1,
            },
            findings: vec![finding],
        }
    }

    fn evil() -> Finding {
        Finding {
            id: "cgroup.quota".to_owned(),
            severity: Severity::Critical,
            title: "/a\nreboot: a quota".to_owned(),
            evidence: vec![Evidence { source: "/a\nreboot/cpu.max".to_owned(), value: "1\u{1b}[2J".to_owned() }],
            why: "It hurts.".to_owned(),
            link: "https://docs.kernel.org/".to_owned(),
            remedy: Some(Remedy {
                commands: vec![RemedyStep { change: "true".to_owned(), undo: "echo '\nreboot\n'".to_owned() }],
                by_hand: vec![RemedyStep { change: "think\nreboot".to_owned(), undo: "forget".to_owned() }],
                reboot: true,
            }),
        }
    }

    #[test]
    fn a_name_with_a_line_break_stays_in_its_comment() {
        let script = fix_plan(&report(evil()));
        let commands: Vec<&str> = script.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert_eq!(
            commands,
            [
                "refused=0",
                "refused() { echo \"refused: $1\" >&2; refused=1; }",
                "true || refused cgroup.quota",
                "exit $refused"
            ]
        );
        assert!(!text(&report(evil())).contains('\u{1b}'));
    }

    #[test]
    fn lines_fit_a_console_unless_one_word_is_longer() {
        let mut finding = evil();
        finding.why = "word ".repeat(100);
        finding.title = format!("{} {}", "long ".repeat(30), "/a".repeat(60));
        for line in text(&report(finding)).lines() {
            assert!(line.chars().count() <= WIDTH || line.contains("/a/a/a"), "{line}");
        }
    }

    #[test]
    fn the_command_of_a_note_is_offered_and_not_run() {
        let mut finding = evil();
        finding.severity = Severity::Info;
        let script = fix_plan(&report(finding));
        assert!(script.contains("# optional: true\n") && !script.contains("\ntrue"), "{script}");
    }

    #[test]
    fn the_documentation_has_every_check() {
        let documented = include_str!("../../../docs/doctor.md");
        assert!(
            documented.contains(&table(&checks())),
            "docs/doctor.md is out of date: put the output of `guard doctor --list` there"
        );
    }

    #[test]
    fn the_published_schema_is_the_one_of_the_types() {
        let published = include_str!("../../../docs/doctor.schema.json");
        assert!(
            published == schema().unwrap(),
            "docs/doctor.schema.json is out of date: run `guard doctor --json-schema > docs/doctor.schema.json`"
        );
        let schema: serde_json::Value = serde_json::from_str(published).unwrap();
        let report: serde_json::Value = serde_json::from_str(&json(&report(evil())).unwrap()).unwrap();
        assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&report));
    }
}
