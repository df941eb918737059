//! The course of events around late wake-ups, in the JSON form of trace events that Perfetto (ui.perfetto.dev) and
//! chrome://tracing open: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use guard_common::flight::{Entry, flags, kind};
use serde_json::{Value, json};

use crate::explain::{Interrupts, Traced, softirq_name};

/// Tracks: one per CPU, per thread, per CPU for each kind of interrupt, and one for what was late.
const CPUS: u32 = 1;
const THREADS: u32 = 2;
const IRQS: u32 = 3;
const SOFTIRQS: u32 = 4;
const LATE: u32 = 5;

/// Renders traces. What several of them share stands there once.
#[must_use]
pub fn render(traces: &[Traced]) -> String {
    let mut entries: Vec<&Entry> = traces.iter().flat_map(|trace| &trace.entries).collect();
    entries.sort_by_key(|entry| (entry.at_ns, entry.cpu, entry.seq));
    entries.dedup();
    let mut late_ones: Vec<&Traced> = traces.iter().collect();
    late_ones.sort_by_key(|trace| trace.from_ns);
    let mut events = names();
    let comms = comms(&entries);
    let named = late_ones.iter().map(|trace| (trace.tid, trace.comm.as_str())).collect::<BTreeMap<_, _>>();
    events.extend(named.into_iter().map(|(tid, comm)| track_name((LATE, tid), &format!("{comm} {tid}"))));
    events.extend(late_ones.into_iter().map(late));
    for cpu in entries.iter().map(|entry| u32::from(entry.cpu)).collect::<BTreeSet<_>>() {
        events.extend([CPUS, IRQS, SOFTIRQS].map(|process| track_name((process, cpu), &format!("CPU {cpu}"))));
    }
    events.extend(cpu_slices(&entries));
    events.extend(thread_slices(&entries, &comms));
    // All of one node.
    let none = Interrupts::default();
    let interrupts = traces.last().map_or(&none, |trace| &trace.interrupts);
    events.extend(entries.iter().filter_map(|entry| interrupt(entry, interrupts)));
    json!({ "displayTimeUnit": "ns", "traceEvents": events }).to_string() + "\n"
}

fn names() -> Vec<Value> {
    [
        (LATE, "Late wake-ups"),
        (CPUS, "CPUs"),
        (THREADS, "Threads"),
        (IRQS, "Hard interrupts"),
        (SOFTIRQS, "Soft interrupts"),
    ]
    .iter()
    .map(|(process, name)| json!({ "ph": "M", "name": "process_name", "pid": process, "args": { "name": name } }))
    .collect()
}

fn track_name(track: (u32, u32), name: &str) -> Value {
    json!({ "ph": "M", "name": "thread_name", "pid": track.0, "tid": track.1, "args": { "name": name } })
}

/// A slice. Times are us since boot, with the nanoseconds behind the point.
fn slice(track: (u32, u32), name: &str, from_ns: u64, to_ns: u64, about: &Value) -> Value {
    #[allow(clippy::cast_precision_loss, reason = "ns since boot stay below 2^53 for a hundred days")]
    let us = |ns: u64| ns as f64 / 1e3;
    let (ts, dur) = (us(from_ns), us(to_ns.saturating_sub(from_ns)));
    json!({ "ph": "X", "pid": track.0, "tid": track.1, "name": name, "ts": ts, "dur": dur, "args": about })
}

fn late(trace: &Traced) -> Value {
    let about = json!({ "tid": trace.tid, "latency_ns": trace.to_ns.saturating_sub(trace.from_ns) });
    slice((LATE, trace.tid), &format!("{} late", trace.comm), trace.from_ns, trace.to_ns, &about)
}

fn comm(entry: &Entry) -> String {
    guard_common::comm::text(&entry.comm).to_string()
}

fn comms(entries: &[&Entry]) -> HashMap<u32, String> {
    entries.iter().filter(|e| e.kind == kind::SWITCH).map(|e| (e.tid, comm(e))).collect()
}

/// Who had each CPU, from its first switch on.
fn cpu_slices(entries: &[&Entry]) -> Vec<Value> {
    let mut running: BTreeMap<u16, &Entry> = BTreeMap::new();
    let mut slices = Vec::new();
    for entry in entries.iter().filter(|e| e.kind == kind::SWITCH) {
        if let Some(before) = running.insert(entry.cpu, entry)
            && before.tid != 0
        {
            let about = json!({ "tid": before.tid, "prio": before.prio, "cgroup": before.cgroup_id });
            slices.push(slice((CPUS, u32::from(entry.cpu)), &comm(before), before.at_ns, entry.at_ns, &about));
        }
    }
    slices
}

/// What each thread did, from its first event on.
fn thread_slices(entries: &[&Entry], comms: &HashMap<u32, String>) -> Vec<Value> {
    let mut doing: BTreeMap<u32, (&'static str, u64)> = BTreeMap::new();
    let mut slices = Vec::new();
    let mut begin = |tid: u32, what: &'static str, at_ns: u64| {
        if tid == 0 {
            return;
        }
        if let Some((before, since_ns)) = doing.insert(tid, (what, at_ns)) {
            slices.push(slice((THREADS, tid), before, since_ns, at_ns, &json!({})));
        }
    };
    for entry in entries {
        let waits = if entry.flags & flags::THROTTLED != 0 { "throttled" } else { "waits for a CPU" };
        match entry.kind {
            kind::SWITCH => {
                let stays = entry.arg == 0 || entry.flags & flags::PREEMPTED != 0;
                begin(entry.other, if stays { waits } else { "sleeps" }, entry.at_ns);
                begin(entry.tid, "runs", entry.at_ns);
            }
            kind::WAKING => begin(entry.tid, waits, entry.at_ns),
            _ => {}
        }
    }
    let named = doing.keys().map(|tid| {
        let name = comms.get(tid).map_or_else(|| tid.to_string(), |comm| format!("{comm} {tid}"));
        track_name((THREADS, *tid), &name)
    });
    let named: Vec<Value> = named.collect();
    slices.extend(named);
    slices
}

fn interrupt(entry: &Entry, interrupts: &Interrupts) -> Option<Value> {
    let (process, name) = match entry.kind {
        kind::IRQ => (IRQS, interrupts.name(entry.arg)),
        kind::SOFTIRQ => (SOFTIRQS, softirq_name(entry.arg)),
        kind::NMI => (IRQS, "NMI".to_owned()),
        _ => return None,
    };
    let from_ns = entry.at_ns.saturating_sub(entry.took_ns);
    Some(slice((process, u32::from(entry.cpu)), &name, from_ns, entry.at_ns, &json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing::{switch, waking};

    #[test]
    fn cpus_threads_and_interrupts_have_their_slices() {
        let irq = Entry { kind: kind::IRQ, arg: 24, took_ns: 500, ..waking(1_700, 0, 0, 0) };
        let entries = vec![switch(1_000, 0, 7, 0), switch(2_000, 7, 8, 0), irq, switch(3_000, 8, 7, 1)];
        let traced = Traced {
            tid: 7,
            comm: "cycle".into(),
            from_ns: 1_000,
            to_ns: 3_000,
            entries,
            interrupts: Interrupts::default(),
        };
        // Twice the same, as two late wake-ups close to each other have it, the later one first.
        let earlier = Traced { from_ns: 500, to_ns: 900, ..traced.clone() };
        let text = render(&[traced, earlier]);
        let trace: Value = serde_json::from_str(&text).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |process: u32| events.iter().filter(|e| e["ph"] == "X" && e["pid"] == process).collect::<Vec<_>>();
        assert_eq!(of(CPUS).len(), 2, "{text}");
        assert_eq!((of(CPUS)[0]["ts"].as_f64(), of(CPUS)[0]["dur"].as_f64()), (Some(1.0), Some(1.0)));
        assert_eq!(of(IRQS)[0]["name"], "irq 24");
        let waits = of(THREADS).into_iter().find(|e| e["name"] == "waits for a CPU").unwrap();
        assert_eq!((waits["tid"].as_u64(), waits["dur"].as_f64()), (Some(7), Some(1.0)));
        let late: Vec<_> = of(LATE).iter().map(|e| e["ts"].as_f64().unwrap()).collect();
        assert_eq!(late, [0.5, 1.0]);
        let tracks =
            events.iter().filter(|e| e["name"] == "thread_name").map(|e| (e["pid"].as_u64(), e["tid"].as_u64()));
        let mut tracks: Vec<_> = tracks.collect();
        tracks.sort_unstable();
        let wanted =
            [(1, 1), (2, 7), (2, 8), (3, 1), (4, 1), (5, 7)].map(|(process, track)| (Some(process), Some(track)));
        assert_eq!(tracks, wanted, "one name for each track");
    }
}
