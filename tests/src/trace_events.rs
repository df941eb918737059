//! The rules of the JSON trace events, as far as readers such as Perfetto and chrome://tracing rely on them:
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>. Only for complete events ("X") and
//! metadata ("M"), which is all that guard writes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A track: process and thread.
type Track = (u64, u64);

/// What a trace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Name of each process.
    pub processes: BTreeMap<u64, String>,
    /// Name of each track.
    pub threads: BTreeMap<Track, String>,
    /// Slices of each track, in the file's order: begin and end, ns.
    pub slices: BTreeMap<Track, Vec<(u64, u64)>>,
}

impl Tracks {
    /// Reads a trace.
    ///
    /// # Errors
    /// When an event is not as the format wants it; the message has the event.
    pub fn read(trace: &Value) -> Result<Self> {
        let unit = trace.get("displayTimeUnit").context("no displayTimeUnit")?;
        ensure!(unit == "ns" || unit == "ms", "times are shown in {unit}");
        let mut this = Self::default();
        for event in trace["traceEvents"].as_array().context("traceEvents is no list")? {
            this.add(event).with_context(|| event.to_string())?;
        }
        Ok(this)
    }

    fn add(&mut self, event: &Value) -> Result<()> {
        let number = |key: &str| event[key].as_u64().with_context(|| format!("{key} is no number"));
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned).context("no name");
        let process = number("pid")?;
        match event["ph"].as_str().context("ph is no text")? {
            "M" => {
                let named = text(&event["args"]["name"])?;
                let before = match event["name"].as_str() {
                    Some("process_name") => self.processes.insert(process, named),
                    Some("thread_name") => self.threads.insert((process, number("tid")?), named),
                    _ => bail!("this metadata means nothing to a reader"),
                };
                ensure!(before.is_none(), "it already has a name");
            }
            "X" => {
                text(&event["name"])?;
                ensure!(event["args"].is_object(), "args is no object");
                let (from_ns, took_ns) = (ns(&event["ts"])?, ns(&event["dur"])?);
                let track = self.slices.entry((process, number("tid")?)).or_default();
                track.push((from_ns, from_ns + took_ns));
            }
            _ => bail!("a phase that is not checked here"),
        }
        Ok(())
    }

    /// Checks that all processes and tracks have names, and that a reader can draw each track: its slices stand in order of time, and
    /// of two that overlap one holds the other.
    ///
    /// # Errors
    /// When that is not so; the message names the track.
    pub fn expect_drawable(&self) -> Result<()> {
        let named: BTreeSet<u64> = self.processes.keys().copied().collect();
        let used: BTreeSet<u64> = self.slices.keys().map(|(process, _)| *process).collect();
        ensure!(used.is_subset(&named), "processes {used:?} have slices and only {named:?} have names");
        for (track, slices) in &self.slices {
            ensure!(self.threads.contains_key(track), "track {track:?} has no name");
            let mut open: Vec<(u64, u64)> = Vec::new();
            let mut last_ns = 0;
            for slice @ (from_ns, to_ns) in slices {
                ensure!(*from_ns >= last_ns, "track {track:?}: {slice:?} comes after one that begins at {last_ns}");
                last_ns = *from_ns;
                open.retain(|(_, end_ns)| end_ns > from_ns);
                let within = open.iter().all(|(_, end_ns)| to_ns <= end_ns);
                ensure!(within, "track {track:?}: {slice:?} goes beyond {open:?}, in which it begins");
                open.push(*slice);
            }
        }
        Ok(())
    }
}

/// us, with nanoseconds behind the point, to ns.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number of ns that a double holds exactly"
)]
fn ns(value: &Value) -> Result<u64> {
    let us = value.as_f64().context("a time is no number")?;
    ensure!((0.0..1e12).contains(&us), "{us} us is no time since boot");
    Ok((us * 1e3).round() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(tid: u64, ts: f64, dur: f64) -> Value {
        json!({ "ph": "X", "pid": 1, "tid": tid, "name": "n", "ts": ts, "dur": dur, "args": {} })
    }

    fn drawable(events: Vec<Value>) -> Result<()> {
        let process = json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": "CPUs" } });
        let tracks = [1, 2].map(|tid| {
            json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": { "name": format!("CPU {tid}") } })
        });
        let events: Vec<Value> = [process].into_iter().chain(tracks).chain(events).collect();
        Tracks::read(&json!({ "displayTimeUnit": "ns", "traceEvents": events }))?.expect_drawable()
    }

    #[test]
    fn slices_may_follow_one_another_and_hold_one_another() {
        drawable(vec![slice(1, 1.0, 2.001), slice(2, 0.5, 1.0), slice(1, 3.001, 2.0), slice(1, 4.0, 0.5)]).unwrap();
    }

    #[test]
    fn what_a_reader_could_not_draw_is_refused() {
        for (events, why) in [
            (vec![slice(1, 1.0, 2.0), slice(1, 2.0, 2.0)], "goes beyond"),
            (vec![slice(1, 3.0, 1.0), slice(1, 1.0, 1.0)], "comes after"),
            (vec![slice(1, -1.0, 1.0)], "no time since boot"),
            (vec![json!({ "ph": "X", "pid": 1, "tid": 1, "name": "n", "ts": 1.0, "args": {} })], "no number"),
            (vec![json!({ "ph": "B", "pid": 1, "tid": 1, "name": "n", "ts": 1.0 })], "a phase"),
            (
                vec![json!({ "ph": "X", "pid": 2, "tid": 1, "name": "n", "ts": 1.0, "dur": 1, "args": {} })],
                "have names",
            ),
            (vec![json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": "again" } })], "already"),
            (vec![json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": 3, "args": { "name": "" } })], "no name"),
            (vec![slice(3, 1.0, 1.0)], "has no name"),
        ] {
            let error = format!("{:#}", drawable(events).unwrap_err());
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
