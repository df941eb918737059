//! `guard run`: the controller, which so far observes only.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output::{self, Lines};
use crate::control;
use crate::view;

/// Lines on stdout between two heads.
const HEAD_EVERY: u32 = 20;

/// Watch the node and say every interval what it was like
///
/// Prints one line per interval: the thread (or else the cgroup) that was worst and its timer latency, the 99th percentiles
/// of the waits of real-time and fair tasks, throttles, late wake-ups and what was lost. A `*` says that the
/// return to user space was not seen, and the figure ends when the thread was on its CPU. Ends cleanly on SIGINT and
/// SIGTERM. Nothing on the node is changed.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Time between two lines.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = arguments::interval)]
    interval: Duration,
    /// End after this time; without it, run until a signal.
    #[arg(long, value_name = "TIME", value_parser = arguments::window)]
    duration: Option<Duration>,
    /// Append every interval to this file as one line of JSON (its schema: `guard report --json-schema`).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchArguments,
}

const AFTER_HELP: &str = "\
Examples:
  guard run
  guard run --interval 10s --output /var/log/guard.jsonl
  guard run --cgroup '/kubepods*' --threshold 200us

Needs root. Exit codes: 0 done, 2 wrong usage, 3 this node cannot do it, 70 a defect of guard.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut lines = arguments.output.as_deref().map(Lines::open).transpose()?;
    let mut until_head = 0;
    let pace = control::Pace { interval: arguments.interval, duration: arguments.duration };
    control::runtime().map_err(Failure::Runtime)?.block_on(control::run(
        &arguments.watch.watch(),
        pace,
        || (),
        |snapshot| {
            if let Some(lines) = &mut lines {
                lines.append(view::json::line(snapshot)?)?;
            }
            if until_head == 0 {
                until_head = HEAD_EVERY;
                output::stdout(&(view::line::head() + "\n"))?;
            }
            until_head -= 1;
            output::stdout(&(view::line::render(snapshot) + "\n"))
        },
    ))?;
    Ok(())
}
