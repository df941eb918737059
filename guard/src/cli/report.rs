//! `guard report`: measure for a while and say what was seen.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output::{self, Target};
use crate::control;
use crate::record;
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
    /// Report on a recording (`guard run --record`), a JSON report or lines of them instead of measuring.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["duration", "cgroup", "tid", "threshold", "explain", "no_explain", "run_time_stats"])]
    replay: Option<PathBuf>,
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
    /// One page for a browser that needs nothing else: verdict, plots, causes, the node.
    Html,
    /// hdrhistogram's interval log (V2), one line per histogram and, of a recording, per interval.
    Hdr,
}

const AFTER_HELP: &str = "\
Examples:
  guard report
  guard report --duration 1m --cgroup '/system.slice/*'
  guard report --tid 1234 --format cyclictest > histogram.txt
  guard report --format json --output report.json
  guard report --format html --output report.html
  guard report --replay /var/lib/guard/record --format hdr > latencies.hlog

Needs root, except for --replay. Exit codes: 0 done, 2 wrong usage, 3 this node cannot do it, 70 a defect of guard.
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
    if let Some(path) = &arguments.replay {
        let snapshots = record::Replay::open(path)?.filter_map(told_if_damaged);
        return target.write(&rendered(snapshots, arguments.format)?);
    }
    // Also for whoever starts what is to be measured only when all of it will be seen.
    let begun = || eprintln!("Measuring for {:?}. Ctrl-C ends it early with a report.", arguments.duration);
    let mut snapshot = control::runtime().map_err(Failure::Runtime)?.block_on(control::measure(
        &arguments.watch.watch(),
        arguments.duration,
        begun,
    ))?;
    snapshot.node.label.clone_from(&arguments.label);
    target.write(&rendered(std::iter::once(snapshot), arguments.format)?)
}

/// What could not be read is reported and left out.
pub(super) fn told_if_damaged(next: Result<Snapshot, record::Damage>) -> Option<Snapshot> {
    next.inspect_err(|damage| eprintln!("warning: left out: {damage}")).ok()
}

/// The Snapshots as one, or one by one where the format has room for time.
fn rendered(snapshots: impl Iterator<Item = Snapshot>, format: Format) -> Result<String, Failure> {
    if let Format::Hdr = format {
        let mut log = Vec::new();
        view::hdr::write(snapshots, &mut log)
            .map_err(|source| Failure::Write { what: "the interval log".to_owned(), source })?;
        return Ok(String::from_utf8_lossy(&log).into_owned());
    }
    if let Format::Html = format {
        return Ok(view::html::HtmlReport::of(snapshots).render());
    }
    let Some(snapshot) = Snapshot::sum(snapshots) else { return Ok(String::new()) };
    Ok(match format {
        Format::Text => view::text::render(&snapshot, output::width()),
        Format::Json => view::json::pretty(&snapshot)? + "\n",
        Format::Cyclictest => view::cyclictest::render(&snapshot),
        Format::Hdr | Format::Html => String::new(),
    })
}
