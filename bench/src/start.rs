//! How long guard takes to begin: from its start to the lifted quota of a PLC that was there before, and to its first window.
//! Timed from outside: by the quota's file, and by the first interval that guard shows. The phases between are guard's own
//! words.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::Snapshot;
use guard_tests::harness::{GuardRun, Tool, load_cpu, scratch_dir, until};
use serde::Serialize;

use crate::{
    reaction::{Distribution, Plc, until_changed},
    table,
};

/// From the start to the lifted quota, and to the first window.
const GOAL_PROTECTED_US: u64 = 100_000;
const GOAL_FIRST_WINDOW_US: u64 = 250_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Starts
    #[arg(long, default_value_t = 20)]
    starts: usize,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// Start of guard until the quota of a PLC is lifted.
    protected: Distribution,
    /// Start of guard until its first window begins.
    first_window: Distribution,
    /// Median of each phase, us, by guard's own words.
    phases_us: BTreeMap<String, f64>,
}

/// Figures, and whether the goals are reached.
pub(crate) fn run(args: &Args) -> Result<(Figures, bool)> {
    ensure!(args.starts > 0, "--starts 0 measures nothing");
    let mut starts = Vec::with_capacity(args.starts);
    for round in 0..args.starts {
        starts.push(start().with_context(|| format!("start {round}"))?);
    }
    let of = |time: fn(&Start) -> u64, goal| Distribution::of(starts.iter().map(time).collect(), goal);
    let protected = of(|start| start.protected_us, GOAL_PROTECTED_US)?;
    let first_window = of(|start| start.first_window_us, GOAL_FIRST_WINDOW_US)?;
    table::print(
        &["start", "rounds", "p50", "p90", "p99", "max", "goal p99", ""],
        &[protected.row("to the lifted quota"), first_window.row("to the first window")],
    );
    let mut phases: Vec<(&str, Vec<f64>)> = Vec::new();
    for (name, us) in starts.iter().flat_map(|start| &start.phases) {
        match phases.iter_mut().find(|(known, _)| known == name) {
            Some((_, all)) => all.push(*us),
            None => phases.push((name, vec![*us])),
        }
    }
    let phases: Vec<(String, f64)> =
        phases.into_iter().map(|(name, all)| (name.to_owned(), table::median(&all))).collect();
    println!();
    let rows: Vec<Vec<String>> = phases.iter().map(|(name, us)| vec![name.clone(), format!("{us:.0} us")]).collect();
    table::print(&["phase", "p50"], &rows);
    let reached = protected.reached() && first_window.reached();
    Ok((Figures { protected, first_window, phases_us: phases.into_iter().collect() }, reached))
}

/// One start.
struct Start {
    protected_us: u64,
    first_window_us: u64,
    /// In their order.
    phases: Vec<(String, f64)>,
}

fn start() -> Result<Start> {
    let plc = Plc::new("start", &load_cpu().to_string())?;
    let scratch = scratch_dir()?;
    let file = |name: &str| scratch.path().join(name);
    let config = format!(
        "[[workload]]\nmatch.cgroup = \"{}\"\nmanaged = true\n[[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n",
        plc.cgroup.path()
    );
    std::fs::write(file("guard.toml"), config).context("write of guard.toml")?;
    let quota = plc.cgroup.quota_text()?;
    let mut command = GuardRun::default().with(&["run", "--enforce", "--verbose", "--interval", "200ms"]).command()?;
    command.arg("--config").arg(file("guard.toml")).arg("--state-dir").arg(file("state"));
    command.arg("--audit").arg(file("audit.jsonl")).arg("--output").arg(file("snapshots.jsonl"));
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let mut guard = Tool::start(&mut command)?;
    until_changed(&plc.cgroup, &quota, "lifted")?;
    let protected_us = us(begun.elapsed());
    let first = until("the first interval", PATIENCE, || {
        let lines = std::fs::read_to_string(file("snapshots.jsonl")).unwrap_or_default();
        Ok(lines.split_once('\n').map(|(first, _)| first.to_owned()))
    })?;
    let first: Snapshot = serde_json::from_str(&first).context("the first interval")?;
    let began: SystemTime = first.window.start.parse::<jiff::Timestamp>().context("begin of the first window")?.into();
    let first_window_us = us(began.duration_since(wall).context("the first window began before guard")?);
    guard.signal(rustix::process::Signal::TERM)?;
    let status = guard.wait(PATIENCE)?;
    let said = guard.stderr()?;
    ensure!(status.success(), "guard ended with {status}: {said}");
    let phases: Vec<(String, f64)> = said.lines().filter_map(phase).collect();
    ensure!(!phases.is_empty(), "guard names no phase: {said}");
    Ok(Start { protected_us, first_window_us, phases })
}

/// What a line of guard's log says of a phase.
fn phase(line: &str) -> Option<(String, f64)> {
    let (what, took) = line.split_once("start: ")?.1.rsplit_once(" took_us=")?;
    Some((what.to_owned(), took.trim().parse().ok()?))
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
