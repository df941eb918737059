//! Loads that keep CPUs, the scheduler and the thread table busy.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::Signal;

use super::{Outcome, Scheduling, Start, burn_until, now_ns, pin, sleep_until, tid};
use crate::sys::{Signals, switches};

/// Enough for a thread that calls a handful of functions; ten thousand of them fit anywhere.
const STACK_BYTES: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct Spin {
    /// For how long
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Busy threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// other or fifo:PRIORITY
    #[arg(long, default_value = "other")]
    policy: Scheduling,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, clap::Args)]
pub struct FifoHog {
    /// For how long
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The CPU
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Priority of the SCHED_FIFO thread
    #[arg(long, default_value_t = 10)]
    priority: i32,
    /// Count as taken what the thread itself does not see for longer than this
    #[arg(long, default_value_t = 2000)]
    gap_us: u64,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, clap::Args)]
pub struct Threads {
    /// How many
    count: usize,
    /// Sleep of each between two wake-ups
    #[arg(long, default_value_t = 1_000_000)]
    interval_us: u64,
    /// Stop after this long; SIGTERM or SIGINT stop it earlier
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, clap::Args)]
pub struct Churn {
    /// For how long
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Policy of the short-lived threads
    #[arg(long, default_value = "other")]
    policy: Scheduling,
    /// Sleep of each in its short life
    #[arg(long, default_value_t = 100)]
    sleep_us: u64,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, clap::Args)]
pub struct Nap {
    /// Time between two wake-ups
    #[arg(long, default_value_t = 1_000_000)]
    interval_us: u64,
    /// Burn CPU for this long at every wake-up
    #[arg(long, default_value_t = 0)]
    work_us: u64,
}

fn ns_of(seconds: f64) -> Result<u64> {
    let duration = Duration::try_from_secs_f64(seconds).with_context(|| format!("{seconds} is no duration in s"))?;
    u64::try_from(duration.as_nanos()).with_context(|| format!("{seconds} s is too long"))
}

fn small_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().stack_size(STACK_BYTES).spawn(work).context("clone of a thread")
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

pub(super) fn spin(args: &Spin) -> Result<Outcome> {
    let length_ns = ns_of(args.seconds)?;
    let (policy, cpu) = (args.policy, args.cpu);
    let go = Arc::new(Barrier::new(args.threads + 1));
    let (tids, from_threads) = mpsc::channel();
    let threads = (0..args.threads)
        .map(|_| {
            let (go, tids) = (Arc::clone(&go), tids.clone());
            small_thread(move || {
                tids.send(tid()).context("the main thread is gone")?;
                go.wait();
                pin(cpu)?;
                policy.apply(0)?;
                burn_until(now_ns() + length_ns);
                Ok(now_ns())
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let tids: Vec<u32> = from_threads.iter().take(args.threads).collect();
    args.start.ready(&tids)?;
    go.wait();
    let mut ended_ns = 0;
    for thread in threads {
        ended_ns = ended_ns.max(join(thread)?);
    }
    Ok(Outcome::default().with("ended_ns", ended_ns))
}

/// The SCHED_FIFO thread reads the clock without pause; where the clock jumps and the thread has left its CPU meanwhile, the kernel
/// gave that to somebody else. (The host of a virtual machine takes the CPU without the thread's leaving it.)
pub(super) fn fifo_hog(args: &FifoHog) -> Result<Outcome> {
    let length_ns = ns_of(args.seconds)?;
    let (cpu, priority, gap_ns) = (args.cpu, args.priority, args.gap_us * 1000);
    let go = Arc::new(Barrier::new(3));
    let done = Arc::new(AtomicBool::new(false));
    let (tids, from_threads) = mpsc::channel();
    let hog = {
        let (go, done, tids) = (Arc::clone(&go), Arc::clone(&done), tids.clone());
        small_thread(move || {
            tids.send((0, tid())).context("the main thread is gone")?;
            go.wait();
            pin(Some(cpu))?;
            Scheduling::Fifo(priority).apply(0)?;
            let mut gaps_ns = Vec::with_capacity(1 << 16);
            let mut last_ns = now_ns();
            let end_ns = last_ns + length_ns;
            let mut left = switches();
            while last_ns < end_ns {
                let at_ns = now_ns();
                if at_ns - last_ns > gap_ns {
                    let before = std::mem::replace(&mut left, switches());
                    if left > before {
                        gaps_ns.push(at_ns - last_ns);
                    }
                }
                last_ns = at_ns;
            }
            done.store(true, Ordering::Relaxed);
            Ok(gaps_ns)
        })?
    };
    let spinner = {
        let (go, done) = (Arc::clone(&go), Arc::clone(&done));
        small_thread(move || {
            tids.send((1, tid())).context("the main thread is gone")?;
            go.wait();
            pin(Some(cpu))?;
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            Ok(())
        })?
    };
    let by_role: BTreeMap<u32, u32> = from_threads.iter().take(2).collect();
    args.start.ready(&by_role.into_values().collect::<Vec<_>>())?;
    go.wait();
    let gaps_ns = join(hog)?;
    join(spinner)?;
    Ok(Outcome::of_latencies(&gaps_ns, 0).with("taken_ns", gaps_ns.iter().sum()))
}

pub(super) fn threads(args: &Threads) -> Result<Outcome> {
    let stop_signals = Signals::block(&[libc::SIGTERM, libc::SIGINT]).context("pthread_sigmask")?;
    let length = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let interval_ns = args.interval_us * 1000;
    let stop = Arc::new(AtomicBool::new(false));
    let wakeups = Arc::new(AtomicU64::new(0));
    let begin_ns = now_ns();
    let mut threads = Vec::with_capacity(args.count);
    for index in 0..args.count as u64 {
        let (stop, wakeups) = (Arc::clone(&stop), Arc::clone(&wakeups));
        // Spread over the interval, so that they do not wake as one.
        let first_ns = begin_ns + interval_ns + index * interval_ns / args.count as u64;
        threads.push(small_thread(move || {
            let mut next_ns = first_ns;
            while !stop.load(Ordering::Relaxed) {
                sleep_until(next_ns)?;
                wakeups.fetch_add(1, Ordering::Relaxed);
                while next_ns <= now_ns() {
                    next_ns += interval_ns;
                }
            }
            Ok(())
        })?);
    }
    args.start.ready(&[tid()])?;
    stop_signals.wait(length).context("sigtimedwait")?;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        join(thread)?;
    }
    Ok(Outcome { cycles: wakeups.load(Ordering::Relaxed), ..Outcome::default() })
}

/// Threads are the cheapest users of the pid space: a second is enough to go round it once.
pub(super) fn churn(args: &Churn) -> Result<Outcome> {
    let length_ns = ns_of(args.seconds)?;
    let (policy, sleep_ns) = (args.policy, args.sleep_us * 1000);
    args.start.ready(&[tid()])?;
    let end_ns = now_ns() + length_ns;
    let (mut born, mut rounds, mut last_tid) = (0, 0, 0);
    while now_ns() < end_ns {
        let brood = (0..8)
            .map(|_| {
                small_thread(move || {
                    policy.apply(1000)?;
                    sleep_until(now_ns() + sleep_ns)?;
                    Ok(tid())
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut largest = 0;
        for thread in brood {
            born += 1;
            largest = largest.max(join(thread)?);
        }
        // The kernel hands tids out in ascending order and begins again at the bottom.
        if largest < last_tid {
            rounds += 1;
        }
        last_tid = largest;
    }
    Ok(Outcome { cycles: born, ..Outcome::default() }.with("pid_rounds", rounds))
}

/// Runs until it is killed, at the latest when whoever started it ends.
pub(super) fn nap(args: &Nap) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("prctl(PR_SET_PDEATHSIG)")?;
    let interval_ns = args.interval_us * 1000;
    let mut next_ns = now_ns() + interval_ns;
    loop {
        sleep_until(next_ns)?;
        if args.work_us > 0 {
            burn_until(now_ns() + args.work_us * 1000);
        }
        while next_ns <= now_ns() {
            next_ns += interval_ns;
        }
    }
}
