//! `guard run`: the controller. It observes, reports what it would do, or does it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use super::arguments::{self, Listen, WatchArguments};
use super::exit::Failure;
use super::output::{self, Lines};
use crate::config::{self, Config, Endpoint};
use crate::control::{self, Acting, Answer, Enforce, HttpServer, Pace, Server};
use crate::record::{RecordLimits, Recorder};
use crate::snapshot::Snapshot;
use crate::view;
use crate::view::metrics::{Exporter, MetricsFormat};

/// Lines on stdout between two heads.
const HEAD_EVERY: u32 = 20;
/// Time between two lines when nobody says otherwise.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watch the node and say every interval what it was like; with --enforce, act
///
/// Prints one line per interval: the thread (or else the cgroup) that was worst and its timer latency, the 99th percentiles
/// of the waits of real-time and fair tasks, throttles, late wake-ups and what was lost. A `*` says that the
/// return to user space was not seen, and the figure ends when the thread was on its CPU. Ends cleanly on SIGINT and
/// SIGTERM.
///
/// Without --enforce nothing on the node is changed. With --config the policies are asked after each interval, and what
/// they would change stands below its line. With --enforce it is changed: quotas are lifted off PLC cgroups, best-effort
/// work is held back, as the configuration says. Every value that is changed is in the journal first, every change is in
/// the audit log, and the end puts everything back. SIGHUP reads the configuration again and opens the audit log
/// anew.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Configuration: workloads and policies. deploy/guard.toml shows every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do what the policies want. Without --config by their defaults.
    #[arg(long)]
    enforce: bool,
    /// Directory of the journal, instead of the configuration's.
    #[arg(long, value_name = "DIR", requires = "enforce")]
    state_dir: Option<PathBuf>,
    /// Audit log, instead of the configuration's.
    #[arg(long, value_name = "FILE", requires = "enforce")]
    audit: Option<PathBuf>,
    /// Time between two lines, and two decisions; the configuration's, or 1s, if not given.
    #[arg(long, value_name = "TIME", value_parser = arguments::interval)]
    interval: Option<Duration>,
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
    /// Show what is seen at ADDR, read-only. unix:/run/guard/guard.sock is a socket for `guard top --connect`;
    /// 127.0.0.1:9469 or http+unix:/run/guard/metrics.sock shows metrics to Prometheus (docs/metrics.md). May be repeated.
    #[arg(long, value_name = "ADDR", value_parser = arguments::listen)]
    listen: Vec<Listen>,
    /// Allow an ADDR that other machines can reach. There is no encryption and no password.
    #[arg(long, requires = "listen")]
    allow_remote: bool,
    /// Print the metrics that there are, as Markdown, and measure nothing.
    #[arg(long)]
    list_metrics: bool,
}

/// They, opened.
struct Opened {
    recorder: Option<Recorder>,
    servers: Vec<Server>,
    metrics: Option<ShownMetrics>,
}

/// Metrics, and where they are shown.
struct ShownMetrics {
    exporter: Arc<Mutex<Exporter>>,
    _servers: Vec<HttpServer>,
}

impl Sinks {
    /// Opens them; within the runtime, which serves the socket.
    fn open(&self, metrics: &config::Metrics) -> Result<Opened, Failure> {
        let limits = RecordLimits { bytes: self.record_size, age: self.record_age };
        let recorder = self.record.as_deref().map(|dir| Recorder::start(dir, limits)).transpose()?;
        let bind = |path: &PathBuf| Server::bind(path).map_err(|source| Failure::Listen { path: path.clone(), source });
        let sockets = self.listen.iter().filter_map(|listen| match listen {
            Listen::Snapshots(path) => Some(bind(path)),
            Listen::Metrics(_) => None,
        });
        Ok(Opened { recorder, servers: sockets.collect::<Result<_, _>>()?, metrics: self.show_metrics(metrics)? })
    }

    fn show_metrics(&self, metrics: &config::Metrics) -> Result<Option<ShownMetrics>, Failure> {
        let named = self.listen.iter().filter_map(|listen| match listen {
            Listen::Metrics(endpoint) => Some(endpoint),
            Listen::Snapshots(_) => None,
        });
        let endpoints: Vec<&Endpoint> = named.chain(&metrics.listen).collect();
        if endpoints.is_empty() {
            return Ok(None);
        }
        let limits = view::metrics::SeriesLimits { cgroups: metrics.max_cgroups, threads: metrics.max_threads };
        let exporter = Arc::new(Mutex::new(Exporter::new(limits)));
        let start = |endpoint: &Endpoint| {
            if endpoint.is_remote() && !self.allow_remote && !metrics.allow_remote {
                return Err(Failure::Usage(format!(
                    "--listen {endpoint}: other machines could read it: choose an address of loopback, or add --allow-remote"
                )));
            }
            let server = HttpServer::start(endpoint, answer(&exporter))
                .map_err(|source| Failure::Metrics { endpoint: endpoint.clone(), source })?;
            tracing::info!("metrics are shown on {}", server.endpoint());
            Ok(server)
        };
        let servers = endpoints.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Some(ShownMetrics { exporter, _servers: servers }))
    }
}

/// Pages of the exporter, by the client's Accept header.
fn answer(exporter: &Arc<Mutex<Exporter>>) -> Arc<Answer> {
    let exporter = Arc::clone(exporter);
    Arc::new(move |accept: &str| {
        let format = MetricsFormat::accepted(accept);
        // A panic elsewhere leaves totals that are not whole; they are still the best there is.
        let mut exporter = exporter.lock().unwrap_or_else(PoisonError::into_inner);
        (format.content_type(), exporter.page(format))
    })
}

impl Opened {
    /// Whether nobody wants Snapshots as JSON.
    fn want_no_json(&self) -> bool {
        self.recorder.is_none() && self.servers.is_empty()
    }

    fn take_json(&mut self, json: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(json.as_bytes().into());
        }
        self.servers.iter().for_each(|server| server.show(json.as_bytes()));
    }

    fn take(&self, snapshot: &Snapshot) {
        if let Some(metrics) = &self.metrics {
            metrics.exporter.lock().unwrap_or_else(PoisonError::into_inner).take(snapshot);
        }
    }
}

const AFTER_HELP: &str = "\
Examples:
  guard run
  guard run --interval 10s --output /var/log/guard.jsonl
  guard run --record /var/lib/guard/record --record-size 256MiB --listen unix:/run/guard/guard.sock
  guard run --listen 127.0.0.1:9469              metrics for Prometheus, http://127.0.0.1:9469/metrics
  guard run --cgroup '/kubepods*' --threshold 200us
  guard run --config /etc/guard.toml             what would be done
  guard run --config /etc/guard.toml --enforce   do it
  guard restore                                  put back what a killed guard left

Needs root. Exit codes: 0 done, 1 something could not be put back, 2 wrong usage or configuration, 3 this node cannot do
it, 70 a defect of guard. How guard acts: docs/acting.md.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.sinks.list_metrics {
        return output::stdout(&view::metrics::markdown());
    }
    let config = Config::load_or_default(arguments.config.as_deref())?;
    // Before there are threads: they stay where this one is.
    control::keep_off_reserved_cpus();
    let lines = arguments.output.as_deref().map(Lines::open).transpose()?;
    let runtime = control::runtime().map_err(Failure::Runtime)?;
    // The socket belongs to the event loop.
    let sinks = runtime.block_on(async { arguments.sinks.open(&config.metrics) })?;
    let mut screen = Screen { lines, sinks, until_head: 0 };
    let watch = arguments.watch.watch();
    if arguments.config.is_none() && !arguments.enforce {
        let pace = Pace { interval: arguments.interval.unwrap_or(INTERVAL), duration: arguments.duration };
        runtime.block_on(control::run(&watch, pace, || (), |snapshot| screen.show(snapshot)))?;
        return Ok(());
    }
    let interval = arguments.interval.unwrap_or(config.node.interval.duration());
    let acting = Acting {
        config: Arc::new(config),
        file: arguments.config.clone(),
        fixed_interval: arguments.interval.is_some(),
        enforce: arguments
            .enforce
            .then(|| Enforce { state_dir: arguments.state_dir.clone(), audit: arguments.audit.clone() }),
    };
    let pace = Pace { interval, duration: arguments.duration };
    runtime.block_on(control::act(&watch, pace, acting, || (), move |snapshot| screen.show(snapshot)))
}

/// Where intervals are shown.
struct Screen {
    lines: Option<Lines>,
    sinks: Opened,
    until_head: u32,
}

impl Screen {
    fn show(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        self.sinks.take(snapshot);
        if self.lines.is_some() || !self.sinks.want_no_json() {
            let json = view::json::line(snapshot)?;
            self.sinks.take_json(&json);
            self.lines.as_mut().map_or(Ok(()), |lines| lines.append(json))?;
        }
        let mut text = String::new();
        if self.until_head == 0 {
            self.until_head = HEAD_EVERY;
            text += &(view::line::head() + "\n");
        }
        self.until_head -= 1;
        text += &(view::line::render(snapshot) + "\n");
        for line in view::plan::lines(snapshot) {
            text += &(line + "\n");
        }
        output::stdout(&text)
    }
}
