//! `guard explain`: late wake-ups with their causes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output::Target;
use crate::{control, explain, view};

/// Say why real-time threads were late, the worst first
///
/// Watches the node for a while and names for each late wake-up one cause, who did it, and what can be done. Late is
/// what takes longer than --threshold: from a timer's expiry, or from the wake-up, until the thread is on its CPU; and
/// the sleep of a thread for a lock or in the middle of its cycle. Repeated ones are merged. Nothing on the node is
/// changed.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// How long to watch.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = arguments::window)]
    duration: Duration,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write to this file instead of stdout. It appears, or is replaced, only when it is complete.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts: an array of findings.
    Json,
}

const AFTER_HELP: &str = "\
Causes:
  throttled_lock_holder    the holder of a lock it waited for was stopped by a CPU quota
  co_thread_throttled      a thread of its cgroup for which it waited was stopped by a CPU quota
  lock_contention          a lock of the kernel, or a futex with priority inheritance
  non_pi_lock              a futex without priority inheritance
  higher_priority          a thread of the same or a higher priority had the CPU
  lower_priority_blocking  a thread of a lower priority could not be preempted
  irq, softirq             interrupts, or the threads that handle them
  rt_throttling            the kernel took the CPU from real-time threads
  fair_server              the kernel gave the CPU to a fair thread
  policy_fallback          it runs under a fair policy although it has a budget
  soft_timer               its timer runs in a soft interrupt, which came late
  remote_timer             its timer expired on another CPU
  cpu_idle_exit            its CPU had to wake from idle
  unknown                  what was seen does not tell

Examples:
  guard explain
  guard explain --threshold 200us --cgroup '/machine.slice/*'
  guard explain --duration 1m --format json --output why.json

Needs root. Exit codes: 0 done, 2 wrong usage, 3 this node cannot do it, 70 a defect of guard.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let target = Target::open(arguments.output.as_deref())?;
    let begun = || eprintln!("Measuring for {:?}. Ctrl-C ends it early with a report.", arguments.duration);
    let snapshot = control::runtime().map_err(Failure::Runtime)?.block_on(control::measure(
        &arguments.watch.watch(),
        arguments.duration,
        begun,
    ))?;
    let findings = explain::findings([&snapshot]);
    target.write(&match arguments.format {
        Format::Text => view::explain::render(&snapshot, &findings),
        Format::Json => serde_json::to_string_pretty(&findings)? + "\n",
    })
}
