//! Real programs that wait as real-time programs do, and say themselves what they saw. A workload prints two lines
//! of JSON: [`Ready`] when its threads exist, [`Outcome`] at its end. It knows nothing of what guard measures. Policies,
//! clocks and locks it shares with the workloads of guard's own lab; `enforce` and `keep` are guard's own executor at work.

mod cgroups;
mod cycle;
mod enforce;
pub mod inject;
mod keep;
mod load;
mod lock;
mod pingpong;
mod witness;

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

pub use cycle::Wait;
pub use guard::lab::workload::Ready;

use guard::lab::workload::{lock::PiLock, print_line};
use guard::sched::{Scheduling, burn_cpu_ns, burn_until, now_ns, pin, sleep_until, tid, timespec};

/// The workloads.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// A cyclic thread that times its own wake-ups
    Cycle(cycle::Args),
    /// Busy loops
    Spin(load::Spin),
    /// A SCHED_FIFO busy loop and a fair one on the same CPU; tells what was taken from the first
    FifoHog(load::FifoHog),
    /// Threads that sleep and wake now and then
    Threads(load::Threads),
    /// Threads that are born, sleep once and end, as fast as they can
    Churn(load::Churn),
    /// A SCHED_FIFO thread that shares a priority-inheritance futex with a fair thread, and a disturber between them
    PiMutex(lock::PiMutex),
    /// A SCHED_FIFO thread waits for a mutex of the C library without priority inheritance
    PlainMutex(lock::PlainMutex),
    /// A SCHED_FIFO thread that needs a pipe's kernel mutex while fair threads copy through that pipe
    PipeMutex(lock::PipeMutex),
    /// Two threads that send one byte to and fro
    Pingpong(pingpong::Args),
    /// Cgroups with a napping process in each
    Cgroups(cgroups::Args),
    /// A cyclic thread, and what makes it late on purpose
    Inject(inject::Args),
    /// guard's executor, changing knobs at random until it is killed
    #[command(hide = true)]
    Enforce(enforce::Args),
    /// guard's executor and its agent for systemd, keeping a quota
    #[command(hide = true)]
    Keep(keep::Args),
    /// The dashboard's terminal, in which something panics
    #[command(hide = true)]
    PanicOnScreen,
    /// One thread that sleeps and wakes until it is killed
    #[command(hide = true)]
    Nap(load::Nap),
}

/// Last line of a workload's output.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Cycles, round trips, waits: what the workload counts, without `missed`.
    pub cycles: u64,
    /// Cycles whose expiry passed while the workload was still busy.
    pub missed: u64,
    /// Smallest latency, ns.
    pub min_ns: u64,
    /// Largest latency, ns.
    pub max_ns: u64,
    /// Mean latency, ns.
    pub avg_ns: u64,
    /// Latencies in bins of one us like cyclictest's: us, rounded down → count.
    pub histogram: BTreeMap<u64, u64>,
    /// What else this workload counts; names end in their unit.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

impl Outcome {
    /// What `latencies_ns` say.
    fn of_latencies(latencies_ns: &[u64], missed: u64) -> Self {
        let mut histogram = BTreeMap::new();
        for ns in latencies_ns {
            *histogram.entry(ns / 1000).or_insert(0) += 1;
        }
        let cycles = latencies_ns.len() as u64;
        Self {
            cycles,
            missed,
            min_ns: latencies_ns.iter().min().copied().unwrap_or(0),
            max_ns: latencies_ns.iter().max().copied().unwrap_or(0),
            avg_ns: latencies_ns.iter().sum::<u64>().checked_div(cycles).unwrap_or(0),
            histogram,
            counters: BTreeMap::new(),
        }
    }

    fn with(mut self, counter: &str, value: u64) -> Self {
        self.counters.insert(counter.to_owned(), value);
        self
    }

    /// A counter by name.
    ///
    /// # Errors
    /// When the workload does not count that.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.counters.get(name).copied().with_context(|| format!("the workload does not count {name}"))
    }
}

/// When a workload begins.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Start {
    /// Wait for a line on stdin before beginning, and end with the process that started this one
    #[arg(long)]
    hold: bool,
}

impl Start {
    /// Says that `tids` exist, then holds if it was asked to. Policies are set after this, so that whoever started
    /// the workload can place it into a cgroup that allows them.
    fn ready(self, tids: &[u32]) -> Result<()> {
        if self.hold {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("prctl(PR_SET_PDEATHSIG)")?;
        }
        print_line(&Ready { pid: std::process::id(), tids: tids.to_vec() })?;
        if self.hold {
            let mut line = String::new();
            ensure!(io::stdin().read_line(&mut line).context("stdin")? > 0, "stdin ended while holding");
        }
        Ok(())
    }
}

/// Runs a workload to its end.
///
/// # Errors
/// When the system refuses what the workload needs; the message names the call.
pub fn run(command: Command) -> Result<()> {
    let outcome = match command {
        Command::Cycle(args) => cycle::run(&args)?,
        Command::Spin(args) => load::spin(&args)?,
        Command::FifoHog(args) => load::fifo_hog(&args)?,
        Command::Threads(args) => load::threads(&args)?,
        Command::Churn(args) => load::churn(&args)?,
        Command::PiMutex(args) => lock::pi_mutex(&args)?,
        Command::PlainMutex(args) => lock::plain_mutex(&args)?,
        Command::PipeMutex(args) => lock::pipe_mutex(&args)?,
        Command::Pingpong(args) => pingpong::run(&args)?,
        Command::Cgroups(args) => cgroups::run(&args)?,
        Command::Inject(args) => return Ok(print_line(&inject::run(&args)?)?),
        Command::Enforce(args) => return enforce::run(&args),
        Command::Keep(args) => keep::run(&args)?,
        Command::PanicOnScreen => return panic_on_screen(),
        Command::Nap(args) => return load::nap(&args),
    };
    Ok(print_line(&outcome)?)
}

/// Takes the terminal as `guard top` does, waits for a key, and panics.
#[allow(clippy::panic, reason = "a panic is what this is for")]
fn panic_on_screen() -> Result<()> {
    let _screen = guard::dashboard::Screen::open().context("the terminal")?;
    println!("on the screen");
    io::Read::read_exact(&mut io::stdin(), &mut [0]).context("a key")?;
    panic!("a panic on purpose")
}
