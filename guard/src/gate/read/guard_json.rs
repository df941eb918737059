//! guard's own report (`guard report --format json`): cgroups by the name of their container, and their watched threads.

use std::collections::HashMap;
use std::path::Path;

use guard_common::hist;
use serde::Deserialize;

use crate::gate::distribution::Distribution;
use crate::gate::error::Wrong;
use crate::gate::facts::{Fact, RunFacts};
use crate::gate::metric::LatencySignal;
use crate::gate::run::{Collected, Run, id_of};
use crate::snapshot::{Cgroup, Class, CpuList, Histogram, SCHEMA, SignalName, Snapshot};

/// The run in a report.
pub(super) fn parse(path: &Path, text: &str, more: bool) -> Result<Run, Wrong> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    if more {
        return Err(Wrong::whole(
            "holds several reports, as `guard run --output` writes them; a run is one report: use guard report --format \
             json",
        ));
    }
    let Version { schema } = serde_json::from_str(text).map_err(|error| Wrong::json(&error, 1))?;
    if schema != SCHEMA {
        return Err(Wrong::whole(format!("is a report of schema {schema}; this guard reads {SCHEMA}")));
    }
    let snapshot: Snapshot = serde_json::from_str(text).map_err(|error| Wrong::json(&error, 1))?;
    let lost = &snapshot.overhead.lost;
    let notes = if lost.missed_events > 0 || lost.collisions > 0 {
        vec![format!("{} events missed, {} counted for another thread", lost.missed_events, lost.collisions)]
    } else {
        Vec::new()
    };
    let series = collect(&snapshot).figures();
    if series.is_empty() {
        return Err(Wrong::whole("has counted no wake-up of a real-time or watched thread"));
    }
    Ok(Run {
        source: path.display().to_string(),
        id: id_of(text),
        at: Some(snapshot.window.start.clone()),
        facts: facts(&snapshot),
        series,
        notes,
    })
}

fn collect(snapshot: &Snapshot) -> Collected {
    let mut collected = Collected::default();
    let mut names = HashMap::new();
    for cgroup in &snapshot.cgroups {
        let name = name(cgroup);
        let timer = cgroup.timer.last_stage().map(|(_, latency)| &latency.0);
        for (signal, histogram) in [(LatencySignal::Timer, timer), (LatencySignal::Wakeup, Some(&cgroup.wakeup.rt.0))] {
            // The kernel's own threads wake up there all the time; their timers are not watched.
            let detail = cgroup.class == Class::System && signal == LatencySignal::Wakeup;
            if let Some(histogram) = histogram {
                collected.add(&name, signal, detail, &distribution(histogram));
            }
        }
        names.insert(cgroup.path.as_str(), name);
    }
    for thread in &snapshot.threads {
        let cgroup = names.get(thread.cgroup.as_str()).map_or(thread.cgroup.as_str(), String::as_str);
        let name = format!("{cgroup}:{}", thread.comm);
        let timer = thread.timer.last_stage().map(|(_, latency)| &latency.0);
        for (signal, histogram) in [(LatencySignal::Timer, timer), (LatencySignal::Wakeup, Some(&thread.wakeup.0))] {
            if let Some(histogram) = histogram {
                collected.add(&name, signal, true, &distribution(histogram));
            }
        }
    }
    collected
}

/// What people call the cgroup, and what stays the same when its container is started again.
fn name(cgroup: &Cgroup) -> String {
    match cgroup.container.as_ref().map(|container| (&container.pod, &container.name)) {
        Some((Some(pod), Some(name))) => format!("{pod}/{name}"),
        Some((None, Some(name))) => name.clone(),
        _ => cgroup.path.clone(),
    }
}

fn distribution(histogram: &Histogram) -> Distribution {
    let mut distribution = Distribution::default();
    for (index, n) in histogram.indexed() {
        distribution.add(hist::lower_ns(index), hist::upper_ns(index).saturating_add(1), n);
    }
    if !histogram.is_empty() {
        distribution.widen(histogram.min_ns(), histogram.max_ns());
    }
    distribution
}

fn facts(snapshot: &Snapshot) -> RunFacts {
    let node = &snapshot.node;
    let mut facts = RunFacts::default();
    facts.set(Fact::Instrument, "guard");
    facts.set(Fact::Options, if snapshot.sees(SignalName::User) { "until user" } else { "until thread" });
    facts.set(Fact::Kernel, &node.kernel);
    facts.set(Fact::Realtime, if node.realtime { "yes" } else { "no" });
    facts.set(Fact::Arch, &node.arch);
    facts.set(Fact::CpuModel, node.cpu_model.as_deref().unwrap_or_default());
    if let Ok(cpus) = node.cpus.parse::<CpuList>() {
        facts.set(Fact::Cpus, &cpus.len().to_string());
    }
    facts.set(Fact::Cmdline, &node.cmdline);
    facts.set(Fact::Governor, node.governor.as_deref().unwrap_or_default());
    facts.set(Fact::Label, node.label.as_deref().unwrap_or_default());
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{json, samples};

    #[test]
    fn a_report_is_read_by_the_names_of_its_containers_and_threads() {
        let mut snapshot = samples::full();
        snapshot.node.cpu_model = Some("Cell 7".into());
        snapshot.node.label = Some("stress-ng --cpu 2".into());
        let run = parse(Path::new("f"), &json::pretty(&snapshot).unwrap(), false).unwrap();
        assert_eq!(run.facts.get(Fact::CpuModel), Some("Cell 7"));
        assert_eq!(run.facts.get(Fact::Cpus), Some("4"));
        assert_eq!(run.facts.get(Fact::Label), Some("stress-ng --cpu 2"));
        assert_eq!(run.at.as_deref(), Some("2026-11-22T00:11:00Z"));
        let timer =
            run.series.iter().find(|(s, _)| s.workload == "plc-1" && s.signal == LatencySignal::Timer).unwrap().1;
        assert_eq!((timer.figures.count, timer.figures.max_ns, timer.detail), (3, 1_900_000, false));
        let thread = run.series.iter().find(|(s, _)| s.workload == "plc-1:cycle").unwrap().1;
        assert!(thread.detail);
    }

    #[test]
    fn a_stream_and_an_empty_report_are_refused() {
        let line = json::line(&samples::full()).unwrap();
        assert!(parse(Path::new("f"), &line, true).unwrap_err().what.contains("several reports"));
        let empty = json::line(&samples::empty()).unwrap();
        assert!(parse(Path::new("f"), &empty, false).unwrap_err().what.contains("counted no wake-up"));
    }
}
