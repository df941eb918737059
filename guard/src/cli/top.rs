//! `guard top`: the live dashboard.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::arguments::{self, WatchArguments};
use super::exit::Failure;
use super::output;
use crate::control::SOCKET;
use crate::dashboard::{self, DashboardOptions, From};

/// Watch the node live: workloads worst first, causes, what guard did
///
/// By itself it observes this node like `guard report` does, and changes nothing. It can also show what a running controller
/// sees, or a recording. `?` explains the keys; `q` ends it and leaves the terminal as it was.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Show a recording (`guard run --record`), a JSON report or lines of them.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["connect", "interval", "cgroup", "tid", "no_explain", "run_time_stats"])]
    replay: Option<PathBuf>,
    /// How many times faster than it happened a recording is shown, 0.125 to 1024.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed, requires = "replay")]
    speed: f64,
    /// Show what a controller (`guard run --listen`) sees; without a value that at /run/guard/guard.sock.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = SOCKET,
        conflicts_with_all = ["interval", "cgroup", "tid", "no_explain", "run_time_stats"])]
    connect: Option<String>,
    /// Time between two pictures.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = arguments::interval)]
    interval: Duration,
    /// Where `p` writes the interval that is shown.
    #[arg(long, value_name = "DIR", default_value = ".")]
    snapshot_dir: PathBuf,
    /// No colours; also when the variable NO_COLOR is set to anything.
    #[arg(long)]
    no_color: bool,
    /// Print the overview after the last interval of the recording as SVG, so many columns and rows large, and end.
    #[arg(long, value_name = "COLUMNSxROWS", value_parser = size, requires = "replay")]
    picture: Option<(u16, u16)>,
    #[command(flatten)]
    watch: WatchArguments,
}

const AFTER_HELP: &str = "\
Examples:
  guard top
  guard top --cgroup '/kubepods*' --threshold 200us
  guard top --connect                                  what the controller at /run/guard/guard.sock sees
  guard top --replay /var/lib/guard/record --speed 8   a recording of guard run --record

Needs a terminal, and root unless --replay is given. Exit codes: 0 done, 2 wrong usage or no terminal, 3 this node
cannot do it, 70 a defect of guard. Keys and columns: docs/top.md.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let limit = arguments.watch.threshold();
    if let (Some(path), Some(size)) = (&arguments.replay, arguments.picture) {
        return output::stdout(&dashboard::picture(path, limit, size)?);
    }
    let from = match (&arguments.replay, &arguments.connect) {
        (Some(path), _) => From::Replay(path.clone(), arguments.speed),
        (None, Some(socket)) => From::Socket(socket.strip_prefix("unix:").unwrap_or(socket).into()),
        (None, None) => From::Node { watch: arguments.watch.watch(), interval: arguments.interval },
    };
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    dashboard::run(&DashboardOptions {
        from,
        limit,
        snapshot_dir: arguments.snapshot_dir.clone(),
        colour: !(arguments.no_color || no_color),
    })?;
    Ok(())
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| (0.125..=1024.0).contains(speed));
    speed.ok_or_else(|| "want a number from 0.125 to 1024".to_owned())
}

fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(c, r)| Some((c.parse().ok()?, r.parse().ok()?)));
    let fits = |(columns, rows): &(u16, u16)| (1..=500).contains(columns) && (1..=500).contains(rows);
    parsed.filter(fits).ok_or_else(|| "want columns x rows, such as 112x28".to_owned())
}
