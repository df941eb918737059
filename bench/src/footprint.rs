//! What guard itself takes while it observes 200 cgroups once a second: CPU time, memory, kernel maps.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use guard_tests::harness::{self, Cgroup, GuardRun, Tool, WaitsIn, Workload};
use serde::Serialize;

use crate::{attached::Attached, table};

const GOAL_CPU_FRACTION: f64 = 0.003;
const GOAL_MEMORY_BYTES: u64 = 24 << 20;
const GOAL_MAP_BYTES: u64 = 32 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Cgroups that it observes
    #[arg(long, default_value_t = 200)]
    cgroups: usize,
    /// How long to watch it
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    cgroups: usize,
    /// Of one CPU.
    cpu_fraction: f64,
    memory_bytes: u64,
    map_bytes: u64,
}

/// Figures, and whether the goals are reached.
pub(crate) fn run(args: &Args) -> Result<(Figures, bool)> {
    let parent = Cgroup::create("bench")?;
    let dir = parent.dir();
    let dwellers = Workload::start(&[
        "cgroups",
        &args.cgroups.to_string(),
        "--parent",
        &dir.to_string_lossy(),
        "--interval-us",
        "100000",
    ])?;
    let mut tool = Tool::start(&mut GuardRun::default().with(&["run", "--interval", "1s"]).command()?)?;
    harness::attached(&mut tool, WaitsIn::Epoll).context("guard")?;
    let attached = Attached::of(tool)?;
    let pid = attached.pid();
    let (before, begin) = (cpu_time(pid)?, Instant::now());
    // The figure is a rate over this time; there is no event to wait for.
    sleep(Duration::from_secs(args.seconds));
    let cpu_fraction = (cpu_time(pid)? - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let figures = Figures {
        cgroups: args.cgroups,
        cpu_fraction,
        memory_bytes: memory_bytes(pid)?,
        map_bytes: attached.map_bytes()?,
    };
    attached.detach()?;
    dwellers.terminate()?;
    dwellers.outcome(Duration::from_secs(30))?;
    let reached = figures.show();
    Ok((figures, reached))
}

impl Figures {
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn show(&self) -> bool {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let percent = |fraction: f64| format!("{:.2} %", 100.0 * fraction);
        let row =
            |what: &str, is: String, goal: String, ratio: f64| vec![what.to_owned(), is, goal, format!("{ratio:.2}")];
        let ratios = [
            self.cpu_fraction / GOAL_CPU_FRACTION,
            self.memory_bytes as f64 / GOAL_MEMORY_BYTES as f64,
            self.map_bytes as f64 / GOAL_MAP_BYTES as f64,
        ];
        println!("guard run --interval 1s, {} cgroups", self.cgroups);
        table::print(
            &["of guard", "is", "goal", "ratio"],
            &[
                row("CPU (of one)", percent(self.cpu_fraction), percent(GOAL_CPU_FRACTION), ratios[0]),
                row("memory", mib(self.memory_bytes), mib(GOAL_MEMORY_BYTES), ratios[1]),
                row("kernel maps", mib(self.map_bytes), mib(GOAL_MAP_BYTES), ratios[2]),
            ],
        );
        ratios.iter().all(|ratio| *ratio <= 1.0)
    }
}

/// CPU time of all threads of a process since its start: by the scheduler's clock, since ticks are as long as what is
/// measured here.
fn cpu_time(pid: u32) -> Result<Duration> {
    let dir = format!("/proc/{pid}/task");
    let mut total_ns = 0;
    for task in fs::read_dir(&dir).with_context(|| format!("read {dir}"))? {
        let path = task.with_context(|| format!("read {dir}"))?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let on_cpu_ns = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total_ns += on_cpu_ns.with_context(|| format!("{} is \"{}\"", path.display(), text.trim()))?;
    }
    Ok(Duration::from_nanos(total_ns))
}

/// Resident memory of a process.
fn memory_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no VmRSS"))? * 1024)
}
