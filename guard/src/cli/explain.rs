//! `guard explain`: late wake-ups with their causes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output::Target;
use crate::control::{ControlError, Pace, Recorder, Traces, Watch};
use crate::explain::{Couplings, Explanation};
use crate::snapshot::Snapshot;
use crate::{control, explain, record, view};

/// Say why real-time threads were late, the worst first
///
/// Watches the node for a while and names for each late wake-up one cause, who did it, and what can be done. Late is
/// what takes longer than --threshold: from a timer's expiry, or from the wake-up, until the thread is on its CPU; and
/// the sleep of a thread for a lock or in the middle of its cycle. Repeated ones are merged. Then come the inversions, who
/// of the urgent waited for whom of the less urgent, and what went up and down together. Nothing on the node is changed.
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
    /// Explain what is in a recording (`guard run --record`), a JSON report or lines of them instead
    /// of watching.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["duration", "trace", "cgroup", "tid", "threshold", "explain", "no_explain", "run_time_stats"])]
    replay: Option<PathBuf>,
    /// Write what all CPUs did around the first late wake-ups to this file, as trace events in JSON: for Perfetto
    /// (ui.perfetto.dev) and chrome://tracing.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts: findings, inversions and couplings.
    Json,
}

const AFTER_HELP: &str = "\
Causes:
  throttled_lock_holder    the holder of a lock it waited for was stopped by a CPU quota
  lock_holder_preempted    the holder of a lock it waited for had to leave its CPU to others
  lock_contention          a lock of the kernel, or a futex with priority inheritance
  non_pi_lock              a futex without priority inheritance
  co_thread_throttled      a thread for whose data it waited was stopped by a CPU quota
  higher_priority          a thread of the same or a higher priority had the CPU
  lower_priority_blocking  a thread of a lower priority could not be preempted
  irq, softirq, nmi        interrupts, or the threads that handle them
  rt_throttling            the kernel took the CPU from real-time threads
  fair_server              the kernel gave the CPU to a fair thread
  policy_fallback          it runs under a fair policy although it has a budget
  page_fault               it waited for memory that it touched
  soft_timer               its timer runs in a soft interrupt, which came late
  remote_timer             its timer expired on another CPU
  migration                it was being moved to another CPU
  cpu_idle_exit            its CPU had to wake from idle
  steal                    the host of this virtual machine took the CPU
  unknown                  what was seen does not tell

Examples:
  guard explain
  guard explain --threshold 200us --cgroup '/machine.slice/*'
  guard explain --duration 1m --format json --output why.json
  guard explain --duration 1m --trace late.json
  guard explain --replay /var/lib/guard/record

A thread named with --tid is judged whatever its policy is. How to read it: docs/explain.md.
Needs root, except for --replay. Exit codes: 0 done, 2 wrong usage, 3 this node cannot do it, 70 a defect of guard.";

/// What was seen, window by window.
#[derive(Default)]
struct Seen {
    sum: Option<Snapshot>,
    couplings: Couplings,
}

impl Seen {
    fn add(&mut self, snapshot: &Snapshot) {
        self.couplings.add(snapshot);
        match &mut self.sum {
            Some(sum) => sum.absorb(snapshot),
            None => self.sum = Some(snapshot.clone()),
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let target = Target::open(arguments.output.as_deref())?;
    let mut seen = Seen::default();
    if let Some(path) = &arguments.replay {
        for mut snapshot in record::Replay::open(path)?.filter_map(super::report::told_if_damaged) {
            // By what this guard knows of causes, from what was recorded.
            snapshot.breaches.iter_mut().for_each(explain::explain);
            snapshot.inversions = explain::inversion::inversions(&snapshot.breaches, &snapshot.cgroups);
            seen.add(&snapshot);
        }
    } else {
        watch(arguments, &mut seen)?;
    }
    let Some(snapshot) = seen.sum else { return Ok(()) };
    let explanation = Explanation {
        findings: explain::findings([&snapshot]),
        inversions: snapshot.inversions.clone(),
        couplings: seen.couplings.found(),
    };
    target.write(&match arguments.format {
        Format::Text => view::explain::render(&snapshot, &explanation),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
    })
}

/// Watches this node, in windows of a second at most.
fn watch(arguments: &Arguments, seen: &mut Seen) -> Result<(), Failure> {
    let trace = arguments.trace.as_deref().map(|path| Ok::<_, Failure>((Target::open(Some(path))?, Traces::default())));
    let trace = trace.transpose()?;
    let traces = trace.as_ref().map(|(_, traces)| traces.clone());
    let mut watch = Watch { traces, ..arguments.watch.watch() };
    if watch.recorder == Recorder::WhereItFits {
        watch.recorder = Recorder::On;
    }
    let pace = Pace { interval: arguments.duration.min(Duration::from_secs(1)), duration: Some(arguments.duration) };
    let begun = || eprintln!("Measuring for {:?}. Ctrl-C ends it early with a report.", arguments.duration);
    control::runtime().map_err(Failure::Runtime)?.block_on(control::run(&watch, pace, begun, |snapshot| {
        seen.add(snapshot);
        Ok::<_, ControlError>(())
    }))?;
    if let Some((target, traces)) = trace {
        target.write(&view::trace::render(&traces.take()))?;
    }
    Ok(())
}
