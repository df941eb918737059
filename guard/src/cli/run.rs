//! `guard run`: the controller, which so far observes only.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output::{self, Lines};
use crate::control::{self, Server};
use crate::record::{Limits, Recorder};
use crate::snapshot::Snapshot;
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
    sinks: Sinks,
    #[command(flatten)]
    watch: WatchArguments,
}

/// Where else Snapshots go.
#[derive(Debug, Args)]
struct Sinks {
    /// Keep every interval in a recording in this directory, to be read by --replay of `guard top` and others.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// How large the recording may be; the oldest part goes.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = arguments::recording_size, requires = "record")]
    record_size: u64,
    /// How old the recording may be.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = arguments::window, requires = "record")]
    record_age: Duration,
    /// Show every interval to `guard top --connect`, read-only, on this socket (unix:/run/guard/guard.sock).
    #[arg(long, value_name = "SOCKET", value_parser = arguments::socket)]
    listen: Option<PathBuf>,
}

/// They, opened.
struct Opened {
    recorder: Option<Recorder>,
    server: Option<Server>,
}

impl Sinks {
    /// Opens them; within the runtime, which serves the socket.
    fn open(&self) -> Result<Opened, Failure> {
        let limits = Limits { bytes: self.record_size, age: self.record_age };
        let recorder = self.record.as_deref().map(|dir| Recorder::start(dir, limits)).transpose()?;
        let bind = |path: &PathBuf| Server::bind(path).map_err(|source| Failure::Listen { path: path.clone(), source });
        Ok(Opened { recorder, server: self.listen.as_ref().map(bind).transpose()? })
    }
}

impl Opened {
    fn are_none(&self) -> bool {
        self.recorder.is_none() && self.server.is_none()
    }

    fn take(&mut self, json: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(json.as_bytes().into());
        }
        if let Some(server) = &self.server {
            server.show(json.as_bytes());
        }
    }
}

const AFTER_HELP: &str = "\
Examples:
  guard run
  guard run --interval 10s --output /var/log/guard.jsonl
  guard run --record /var/lib/guard/record --record-size 256MiB --listen unix:/run/guard/guard.sock
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
    control::runtime().map_err(Failure::Runtime)?.block_on(async {
        let mut sinks = arguments.sinks.open()?;
        let watch = arguments.watch.watch();
        let sink = |snapshot: &Snapshot| -> Result<(), Failure> {
            if lines.is_some() || !sinks.are_none() {
                let json = view::json::line(snapshot)?;
                sinks.take(&json);
                lines.as_mut().map_or(Ok(()), |lines| lines.append(json))?;
            }
            if until_head == 0 {
                until_head = HEAD_EVERY;
                output::stdout(&(view::line::head() + "\n"))?;
            }
            until_head -= 1;
            output::stdout(&(view::line::render(snapshot) + "\n"))
        };
        control::run(&watch, pace, || (), sink).await
    })?;
    Ok(())
}
