//! `guard plan`: what the policies would do, without doing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output;
use super::report::told_if_damaged;
use crate::config::Config;
use crate::control::{self, Planned};
use crate::record::Replay;
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
    /// Recorded Snapshots: a recording (`guard run --record`), a JSON report, or lines of `guard run --output`.
    #[arg(long, value_name = "PATH")]
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

/// The Snapshots of a recording or a file; what could not be read is reported and left out.
fn recorded(path: &Path) -> Result<impl Iterator<Item = Result<Snapshot, Failure>>, Failure> {
    Ok(Replay::open(path)?.filter_map(told_if_damaged).map(Ok))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_report_and_a_stream_are_both_read() {
        let snapshot = samples::full();
        let line = view::json::line(&snapshot).unwrap();
        let read = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("r");
            std::fs::write(&path, text).unwrap();
            recorded(&path).map(Iterator::count).map_err(|error| error.to_string())
        };
        assert_eq!(read(&view::json::pretty(&snapshot).unwrap()), Ok(1));
        assert_eq!(read(&format!("{line}\n{line}\n\n{line}\n")), Ok(3));
        assert_eq!(read(&format!("{line}\n{{}}\n")), Ok(1), "the good part");
        assert!(read("").unwrap_err().contains("empty"));
        assert!(recorded(Path::new("/no/such/file")).is_err());
    }
}
