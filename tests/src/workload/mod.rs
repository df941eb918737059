//! Real programs that wait as real-time programs do, and say themselves what they saw. A workload prints two lines
//! of JSON: [`Ready`] when its threads exist, [`Outcome`] at its end. It knows nothing of guard, but for `enforce`, which
//! is guard's own executor at work.

mod cgroups;
mod cycle;
mod enforce;
mod load;
mod lock;
mod pingpong;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    process::Signal,
    thread::{ClockId, CpuSet},
    time::Timespec,
};
use serde::{Deserialize, Serialize};

use crate::sys;

pub use cycle::Wait;

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
    /// A SCHED_FIFO thread that needs a pipe's kernel mutex while fair threads copy through that pipe
    PipeMutex(lock::PipeMutex),
    /// Two threads that send one byte to and fro
    Pingpong(pingpong::Args),
    /// Cgroups with a napping process in each
    Cgroups(cgroups::Args),
    /// guard's executor, changing knobs at random until it is killed
    #[command(hide = true)]
    Enforce(enforce::Args),
    /// One thread that sleeps and wakes until it is killed
    #[command(hide = true)]
    Nap(load::Nap),
}

/// First line of a workload's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Process id.
    pub pid: u32,
    /// Thread ids, the measured one first.
    pub tids: Vec<u32>,
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

fn print_line<T: Serialize>(value: &T) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line).context("stdout")
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
        Command::PipeMutex(args) => lock::pipe_mutex(&args)?,
        Command::Pingpong(args) => pingpong::run(&args)?,
        Command::Cgroups(args) => cgroups::run(&args)?,
        Command::Enforce(args) => return enforce::run(&args),
        Command::Nap(args) => return load::nap(&args),
    };
    print_line(&outcome)
}

/// Scheduling policy of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// SCHED_OTHER.
    Other,
    /// SCHED_FIFO with this priority.
    Fifo(i32),
    /// SCHED_DEADLINE with this runtime in us; deadline and period are the cycle's interval.
    Deadline(u64),
}

impl FromStr for Policy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse::<u32>().with_context(|| format!("\"{text}\" is not a number"));
        match text.split_once(':') {
            None if text == "other" => Ok(Self::Other),
            Some(("fifo", priority)) => {
                let priority = number(priority)?;
                ensure!((1..=99).contains(&priority), "priority {priority} is not in 1..=99");
                Ok(Self::Fifo(priority.cast_signed()))
            }
            Some(("deadline", runtime)) => Ok(Self::Deadline(number(runtime)?.into())),
            _ => bail!("\"{text}\" is none of other, fifo:PRIORITY, deadline:RUNTIME_US"),
        }
    }
}

impl Policy {
    /// Gives the calling thread this policy; `interval_us` is the period for SCHED_DEADLINE.
    fn apply(self, interval_us: u64) -> Result<()> {
        match self {
            Self::Other => Ok(()),
            Self::Fifo(priority) => {
                sys::set_fifo(priority).with_context(|| format!("sched_setscheduler(SCHED_FIFO, {priority})"))
            }
            Self::Deadline(runtime_us) => sys::set_deadline(runtime_us * 1000, interval_us * 1000)
                .with_context(|| format!("sched_setattr(SCHED_DEADLINE, {runtime_us} us of {interval_us} us)")),
        }
    }
}

/// Pins the calling thread to `cpu`.
fn pin(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    ensure!(cpu < CpuSet::MAX_CPU, "CPU {cpu} is beyond {}", CpuSet::MAX_CPU);
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("sched_setaffinity(CPU {cpu})"))
}

fn tid() -> u32 {
    rustix::thread::gettid().as_raw_pid().cast_unsigned()
}

fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

fn clock_ns(clock: ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() }
}

/// Sleeps until `ns` of CLOCK_MONOTONIC, through signals.
fn sleep_until(ns: u64) -> Result<()> {
    loop {
        match rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &timespec(ns)) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("clock_nanosleep"),
        }
    }
}

/// Burns CPU until `ns` of CLOCK_MONOTONIC.
fn burn_until(ns: u64) {
    while now_ns() < ns {
        std::hint::spin_loop();
    }
}

/// Burns `ns` of the calling thread's own CPU time, however often it is preempted.
fn burn_cpu_ns(ns: u64) {
    let end = clock_ns(ClockId::ThreadCPUTime) + ns;
    while clock_ns(ClockId::ThreadCPUTime) < end {
        std::hint::spin_loop();
    }
}
