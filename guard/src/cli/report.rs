//! `guard report`: measure for a while and say what was seen.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output::{self, Target};
use crate::control;
use crate::snapshot::Snapshot;
use crate::view;

/// Measure for a while and say what was seen
///
/// Shows for every cgroup and every real-time thread how long it waited for a CPU after a wake-up, how late its timers
/// were, how long quotas and locks held it back, and what took the CPUs from real-time threads. Interrupt it and it
/// reports what it has seen so far. Nothing on the node is changed.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = arguments::window)]
    duration: Duration,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write to this file instead of stdout. It appears, or is replaced, only when the report is complete.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the node was doing, in your words ("idle", "stress-ng --cpu 2"); `guard gate` compares only reports with the
    /// same label.
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    #[command(flatten)]
    watch: WatchArguments,
    /// Print the JSON schema of --format json and of `guard run --output`, and measure nothing.
    #[arg(long)]
    json_schema: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts; see --json-schema.
    Json,
    /// The histogram that `cyclictest -h` prints, one column per thread that a timer woke.
    Cyclictest,
}

const AFTER_HELP: &str = "\
Examples:
  guard report
  guard report --duration 1m --cgroup '/system.slice/*'
  guard report --tid 1234 --format cyclictest > histogram.txt
  guard report --format json --output report.json

Needs root. Exit codes: 0 done, 2 wrong usage, 3 this node cannot do it, 70 a defect of guard.
How to read the report: docs/report.md.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.json_schema {
        return output::stdout(&view::json::schema()?);
    }
    let target = Target::open(arguments.output.as_deref())?;
    // Also for whoever starts what is to be measured only when all of it will be seen.
    let begun = || eprintln!("Measuring for {:?}. Ctrl-C ends it early with a report.", arguments.duration);
    let mut snapshot = control::runtime().map_err(Failure::Runtime)?.block_on(control::measure(
        &arguments.watch.watch(),
        arguments.duration,
        begun,
    ))?;
    snapshot.node.label.clone_from(&arguments.label);
    target.write(&rendered(&snapshot, arguments.format)?)
}

fn rendered(snapshot: &Snapshot, format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Text => view::text::render(snapshot, output::width()),
        Format::Json => view::json::pretty(snapshot)? + "\n",
        Format::Cyclictest => view::cyclictest::render(snapshot),
    })
}
