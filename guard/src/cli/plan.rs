//! `guard plan`: what the policies would do, without doing it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output;
use crate::config::Config;
use crate::control::{self, Planned};
use crate::snapshot::Snapshot;
use crate::view;

/// Say what guard would change, and why, and change nothing
///
/// Measures for a moment, asks the policies after each interval, and shows which knob of which cgroup they would set
/// to what, what it is now, and the reason. `guard run --enforce` with the same configuration does it. With --replay
/// the policies are asked about recorded Snapshots instead, which needs no root: recordings of `guard run --config` hold
/// all that policies look at, those of `guard report` only what was measured.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Configuration; without it, all defaults. deploy/guard.toml shows every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only look whether the configuration is right.
    #[arg(long, requires = "config", conflicts_with_all = ["replay", "duration"])]
    check: bool,
    /// Recorded Snapshots: what `guard report --format json` or `guard run --output` wrote.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// How to show it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// How long to measure: 2s, if not given.
    #[arg(long, value_name = "TIME", value_parser = arguments::window, conflicts_with = "replay")]
    duration: Option<Duration>,
    #[command(flatten)]
    watch: WatchArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts: node, windows, and steps with the actions and notes of each window in which something changes.
    Json,
}

const DURATION: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
Examples:
  guard plan
  guard plan --config guard.toml --duration 10s
  guard plan --config guard.toml --check
  guard run --config guard.toml --output night.jsonl   (as root, once), then
  guard plan --config other.toml --replay night.jsonl

Needs root, unless --replay or --check is given. Exit codes: 0 done, 2 wrong usage or configuration, 3 this node cannot
do it, 70 a defect of guard. How guard acts: docs/acting.md.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load_or_default(arguments.config.as_deref())?;
    if arguments.check {
        return Ok(());
    }
    let planned = match &arguments.replay {
        Some(path) => control::replay(&config, recorded(path)?)?,
        None => {
            let duration = arguments.duration.unwrap_or(DURATION);
            let begun = || eprintln!("Measuring for {duration:?}. Nothing is changed.");
            control::runtime().map_err(Failure::Runtime)?.block_on(control::plan(
                &arguments.watch.watch(),
                Arc::new(config),
                duration,
                begun,
            ))?
        }
    };
    output::stdout(&rendered(&planned, arguments.format)?)
}

fn rendered(planned: &Planned, format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Text => {
            let steps = planned.steps.iter().map(|step| (&step.window, &step.actions[..], &step.notes[..]));
            view::plan::render(planned.windows, steps, output::width())
        }
        Format::Json => serde_json::to_string_pretty(planned)? + "\n",
    })
}

/// The Snapshots of a file: one, over as many lines as it likes, or one per line.
fn recorded(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Snapshot, Failure>>>, Failure> {
    let read = |source| Failure::Read { path: path.to_owned(), source };
    let wrong = |line: usize, error: &serde_json::Error| Failure::Recording {
        path: path.to_owned(),
        line,
        problem: format!("no Snapshot: {error}"),
    };
    let mut file = BufReader::new(File::open(path).map_err(read)?);
    let mut first = String::new();
    file.read_line(&mut first).map_err(read)?;
    if serde_json::from_str::<serde_json::Value>(&first).is_err() {
        let mut text = first;
        file.read_to_string(&mut text).map_err(read)?;
        let snapshot = serde_json::from_str(&text).map_err(|error| wrong(error.line(), &error))?;
        return Ok(Box::new(std::iter::once(Ok(snapshot))));
    }
    let path = path.to_owned();
    let lines = std::iter::once(Ok(first)).chain(file.lines()).zip(1..);
    Ok(Box::new(lines.filter(|(line, _)| !matches!(line, Ok(line) if line.trim().is_empty())).map(
        move |(line, number)| {
            let line = line.map_err(|source| Failure::Read { path: path.clone(), source })?;
            serde_json::from_str(&line).map_err(|error| Failure::Recording {
                path: path.clone(),
                line: number,
                problem: format!("no Snapshot: {error}"),
            })
        },
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    fn read(text: &str) -> Result<usize, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        std::fs::write(&path, text).unwrap();
        let all: Result<Vec<Snapshot>, Failure> = recorded(&path).and_then(Iterator::collect);
        all.map(|all| all.len()).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn a_report_and_a_stream_are_both_read() {
        let snapshot = samples::full();
        let line = view::json::line(&snapshot).unwrap();
        assert_eq!(read(&view::json::pretty(&snapshot).unwrap()), Ok(1));
        assert_eq!(read(&line), Ok(1));
        assert_eq!(read(&format!("{line}\n{line}\n\n{line}\n")), Ok(3));
    }

    #[test]
    fn what_is_no_snapshot_is_named_by_its_line() {
        let line = view::json::line(&samples::empty()).unwrap();
        let error = read(&format!("{line}\n{{}}\n")).unwrap_err();
        assert!(error.starts_with("FILE:2: no Snapshot: missing field"), "{error}");
        assert!(read("").unwrap_err().starts_with("FILE:1: no Snapshot: "));
        assert!(recorded(Path::new("/no/such/file")).is_err());
    }
}
