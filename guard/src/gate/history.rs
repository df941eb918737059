//! The history file: one run per line of JSON, so that two branches that both add runs merge without thinking
//! (`*.jsonl merge=union` in .gitattributes). Each line begins with its time, so sorted lines are in order of time. Lines
//! are added and never changed.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::distribution::Figures;
use super::error::{GateError, Wrong};
use super::facts::RunFacts;
use super::run::{Run, Series, SeriesFigures};
use super::text;

/// Version of the form of a line.
const VERSION: u64 = 1;

/// A line. The order of the fields is that of the text: it is sorted by time, then by run.
#[derive(Serialize, Deserialize)]
struct Line {
    at: String,
    run: String,
    guard_gate: u64,
    facts: RunFacts,
    latencies: Vec<Latencies>,
}

#[derive(Serialize, Deserialize)]
struct Latencies {
    #[serde(flatten)]
    series: Series,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    detail: bool,
    #[serde(flatten)]
    figures: Figures,
}

/// The lines of a history file.
#[derive(Debug, Default)]
pub struct History {
    lines: Vec<String>,
    known: HashSet<String>,
}

impl History {
    /// Reads a history; one that does not exist is empty.
    ///
    /// # Errors
    /// The file cannot be read, or is no history.
    pub fn read(path: &Path) -> Result<Self, GateError> {
        let text = match text::read(path) {
            Ok(text) => text,
            Err(GateError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let known = parse(path, &text).map_err(|wrong| wrong.of(path))?.into_iter().map(|run| run.id).collect();
        let lines = text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect();
        Ok(Self { lines, known })
    }

    /// Adds the runs that it does not hold yet and returns how many. `now` (RFC 3339) is the time of those whose format
    /// has none.
    ///
    /// # Errors
    /// When serde_json refuses a run; it never does.
    pub fn add(&mut self, runs: &[Run], now: &str) -> serde_json::Result<usize> {
        let before = self.lines.len();
        for run in runs {
            if !self.known.insert(run.id.clone()) {
                continue;
            }
            let latencies = run.series.iter().map(|(series, entry)| Latencies {
                series: series.clone(),
                detail: entry.detail,
                figures: entry.figures.clone(),
            });
            self.lines.push(serde_json::to_string(&Line {
                at: run.at.clone().unwrap_or_else(|| now.to_owned()),
                run: run.id.clone(),
                guard_gate: VERSION,
                facts: run.facts.clone(),
                latencies: latencies.collect(),
            })?);
        }
        Ok(self.lines.len() - before)
    }

    /// The file: sorted, each line once.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = self.lines.clone();
        lines.sort();
        lines.dedup();
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// The runs of a history, each once.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Run>, Wrong> {
    #[derive(Deserialize)]
    struct Version {
        guard_gate: u64,
    }
    let mut runs = Vec::new();
    let mut seen = HashSet::new();
    for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line)).filter(|(_, line)| !line.trim().is_empty())
    {
        if ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|mark| line.starts_with(mark)) {
            return Err(Wrong::line(n, "an unresolved merge; keep the lines of both sides"));
        }
        let version: Version = serde_json::from_str(line).map_err(|error| Wrong::json(&error, n))?;
        if version.guard_gate != VERSION {
            let version = version.guard_gate;
            return Err(Wrong::line(n, format!("has version {version} of the history; this guard reads {VERSION}")));
        }
        let line: Line = serde_json::from_str(line).map_err(|error| Wrong::json(&error, n))?;
        if !seen.insert(line.run.clone()) {
            continue;
        }
        let entry = |l: Latencies| (l.series, SeriesFigures { figures: l.figures, detail: l.detail });
        let series: BTreeMap<Series, SeriesFigures> = line.latencies.into_iter().map(entry).collect();
        runs.push(Run {
            source: format!("{}, line {n}", path.display()),
            id: line.run,
            at: Some(line.at),
            facts: line.facts,
            series,
            notes: Vec::new(),
        });
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::read;

    fn run() -> Run {
        let text = include_bytes!("testdata/cyclictest-2.40.json");
        read::parse(Path::new("a.json"), text).unwrap().remove(0)
    }

    fn table() -> Run {
        let text = include_bytes!("testdata/cyclictest-2.40-h60.txt");
        read::parse(Path::new("a.txt"), text).unwrap().remove(0)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut history = History::default();
        assert_eq!(history.add(&[run(), table(), run()], "2026-11-25T00:00:00Z").unwrap(), 2);
        let text = history.text();
        assert_eq!(text.lines().count(), 2);
        let back = parse(Path::new("h"), &text).unwrap();
        assert_eq!((&back[0].series, &back[0].facts, &back[0].id), (&run().series, &run().facts, &run().id));
        assert_eq!(back[1].at.as_deref(), Some("2026-11-25T00:00:00Z"), "a table has no time of its own");
    }

    #[test]
    fn a_run_is_added_once_and_old_lines_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.jsonl");
        let mut history = History::read(&path).unwrap();
        history.add(&[run()], "now").unwrap();
        std::fs::write(&path, history.text()).unwrap();
        let mut again = History::read(&path).unwrap();
        assert_eq!(again.add(&[run()], "later").unwrap(), 0);
        assert_eq!(again.add(&[table()], "2030-01-01T00:00:00Z").unwrap(), 1);
        assert!(again.text().starts_with(&history.text()));
    }

    #[test]
    fn a_byte_order_mark_is_read_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.jsonl");
        let mut history = History::default();
        history.add(&[run(), table()], "2026-11-25T00:00:00Z").unwrap();
        let text = history.text();
        std::fs::write(&path, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
        assert_eq!(read::read(&path).unwrap().len(), 2);
        let mut again = History::read(&path).unwrap();
        assert_eq!(again.add(&[run(), table()], "later").unwrap(), 0);
        assert_eq!(again.text(), text);
    }

    #[test]
    fn both_sides_of_a_merge_in_any_order_are_one_history() {
        let mut history = History::default();
        history.add(&[run(), table()], "2026-11-25T00:00:00Z").unwrap();
        let text = history.text();
        let lines: Vec<&str> = text.lines().collect();
        let union = format!("{}\n{}\n{}\n", lines[1], lines[0], lines[1]);
        assert_eq!(parse(Path::new("h"), &union).unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let mut history = History::default();
        history.add(&[run(), table()], "2026-11-25T00:00:00Z").unwrap();
        let text = history.text();
        let error = |text: &str| parse(Path::new("h"), text).unwrap_err().of(Path::new("h")).to_string();
        assert!(error(&text[..text.len() - 30]).starts_with("h, line 2"), "{}", error(&text[..text.len() - 30]));
        assert!(error(&format!("{text}<<<<<<< HEAD\n")).contains("line 3: an unresolved merge"));
        assert!(error(&text.replacen("\"guard_gate\":1", "\"guard_gate\":2", 1)).contains("line 1: has version 2"));
    }
}
