//! Locks that a real-time thread finds taken: a futex with priority inheritance between threads of one process, and
//! a mutex inside the kernel.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{JoinHandle, spawn},
};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pipe::{fcntl_setpipe_size, pipe},
};

use crate::sys;

use super::{Outcome, PiLock, Scheduling, Start, burn_cpu_ns, burn_until, now_ns, pin, sleep_until, tid};

#[derive(Debug, clap::Args)]
pub struct PiMutex {
    /// Times that the SCHED_FIFO thread takes the lock
    #[arg(long, default_value_t = 500)]
    cycles: usize,
    /// Time between them
    #[arg(long, default_value_t = 5000)]
    interval_us: u64,
    /// CPU time for which the fair thread holds the lock
    #[arg(long, default_value_t = 2000)]
    hold_us: u64,
    /// The one CPU that all of them share
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Priority of the SCHED_FIFO thread; the disturber's is half of it
    #[arg(long, default_value_t = 80)]
    priority: i32,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, clap::Args)]
pub struct PlainMutex {
    /// Times that the SCHED_FIFO thread takes the lock
    #[arg(long, default_value_t = 100)]
    cycles: usize,
    /// Time between them
    #[arg(long, default_value_t = 20_000)]
    interval_us: u64,
    /// How long the fair thread holds the lock, asleep
    #[arg(long, default_value_t = 15_000)]
    hold_us: u64,
    /// Make it robust: then its owner stands in the word that waiters sleep on
    #[arg(long)]
    robust: bool,
    /// Run the SCHED_FIFO thread on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
    /// Its priority
    #[arg(long, default_value_t = 80)]
    priority: i32,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, clap::Args)]
pub struct PipeMutex {
    /// Times that the SCHED_FIFO thread writes into the pipe
    #[arg(long, default_value_t = 2000)]
    cycles: usize,
    /// Time between them
    #[arg(long, default_value_t = 1000)]
    interval_us: u64,
    /// Run the SCHED_FIFO thread on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
    /// Its priority
    #[arg(long, default_value_t = 80)]
    priority: i32,
    #[command(flatten)]
    start: Start,
}

/// What the threads of one workload share before they begin.
struct Cast {
    begin: Arc<Barrier>,
    done: Arc<AtomicBool>,
    tids: mpsc::Sender<(usize, u32)>,
    from_threads: mpsc::Receiver<(usize, u32)>,
    size: usize,
}

impl Cast {
    fn of(size: usize) -> Self {
        let (tids, from_threads) = mpsc::channel();
        Self {
            begin: Arc::new(Barrier::new(size + 1)),
            done: Arc::new(AtomicBool::new(false)),
            tids,
            from_threads,
            size,
        }
    }

    /// Starts the thread with this number; `work` runs once everybody is there and `done` says when to end.
    fn enter<T: Send + 'static>(
        &self,
        number: usize,
        work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let (begin, done, tids) = (Arc::clone(&self.begin), Arc::clone(&self.done), self.tids.clone());
        spawn(move || {
            tids.send((number, tid())).context("the main thread is gone")?;
            begin.wait();
            let result = work(&done);
            // Whoever fails or ends first ends the play.
            done.store(true, Ordering::Relaxed);
            result
        })
    }

    /// Starts the SCHED_FIFO thread, the first: it does `work` so often at the beats of an interval, and leaves out those that
    /// pass meanwhile. Its end ends the play. Returns the times that `work` took, ns, as far as they count.
    fn lead(
        &self,
        cpu: Option<usize>,
        priority: i32,
        cycles: usize,
        interval_ns: u64,
        mut work: impl FnMut() -> Result<Option<u64>> + Send + 'static,
    ) -> JoinHandle<Result<Vec<u64>>> {
        self.enter(0, move |_| {
            pin(cpu)?;
            Scheduling::Fifo(priority).apply(0)?;
            let mut took_ns = Vec::with_capacity(cycles);
            let mut next_ns = now_ns() + interval_ns;
            for _ in 0..cycles {
                sleep_until(next_ns)?;
                took_ns.extend(work()?);
                while next_ns <= now_ns() {
                    next_ns += interval_ns;
                }
            }
            Ok(took_ns)
        })
    }

    fn raise_curtain(&self, start: Start) -> Result<()> {
        let tids: BTreeMap<usize, u32> = self.from_threads.iter().take(self.size).collect();
        start.ready(&tids.into_values().collect::<Vec<_>>())?;
        self.begin.wait();
        Ok(())
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// The classic inversion. Three threads share a CPU: a fair one that holds a lock, a SCHED_FIFO one that wants it,
/// and one in between that would keep the holder off the CPU if the holder were not boosted.
pub(super) fn pi_mutex(args: &PiMutex) -> Result<Outcome> {
    let (cpu, priority, cycles) = (Some(args.cpu), args.priority, args.cycles);
    let (interval_ns, hold_ns) = (args.interval_us * 1000, args.hold_us * 1000);
    let lock = Arc::new(PiLock::new());
    let cast = Cast::of(3);
    let control = {
        let lock = Arc::clone(&lock);
        cast.lead(cpu, priority, cycles, interval_ns, move || {
            let before_ns = now_ns();
            let waited_ns = lock.lock()?.then(|| now_ns() - before_ns);
            lock.unlock()?;
            Ok(waited_ns)
        })
    };
    let holder = cast.enter(1, move |done| {
        pin(cpu)?;
        while !done.load(Ordering::Relaxed) {
            lock.lock()?;
            burn_cpu_ns(hold_ns);
            lock.unlock()?;
            sleep_until(now_ns() + hold_ns / 4)?;
        }
        Ok(())
    });
    let disturber = cast.enter(2, move |done| {
        pin(cpu)?;
        Scheduling::Fifo((priority / 2).max(1)).apply(0)?;
        while !done.load(Ordering::Relaxed) {
            burn_until(now_ns() + interval_ns / 4);
            sleep_until(now_ns() + interval_ns)?;
        }
        Ok(())
    });
    cast.raise_curtain(args.start)?;
    let waits_ns = join(control)?;
    join(holder)?;
    join(disturber)?;
    Ok(Outcome::of_latencies(&waits_ns, 0).with("waits", waits_ns.len() as u64))
}

/// A mutex of the C library without priority inheritance, held by a fair thread whenever the SCHED_FIFO one wants it.
pub(super) fn plain_mutex(args: &PlainMutex) -> Result<Outcome> {
    let (cpu, priority, cycles) = (args.cpu, args.priority, args.cycles);
    let (interval_ns, hold_ns) = (args.interval_us * 1000, args.hold_us * 1000);
    let mutex = Arc::new(sys::PlainMutex::new(args.robust).context("pthread_mutex_init")?);
    let cast = Cast::of(2);
    let control = {
        let mutex = Arc::clone(&mutex);
        cast.lead(cpu, priority, cycles, interval_ns, move || {
            let before_ns = now_ns();
            mutex.lock().context("pthread_mutex_lock")?;
            let waited_ns = now_ns() - before_ns;
            mutex.unlock().context("pthread_mutex_unlock")?;
            Ok(Some(waited_ns))
        })
    };
    let holder = cast.enter(1, move |done| {
        while !done.load(Ordering::Relaxed) {
            mutex.lock().context("pthread_mutex_lock")?;
            sleep_until(now_ns() + hold_ns)?;
            mutex.unlock().context("pthread_mutex_unlock")?;
            sleep_until(now_ns() + hold_ns / 16)?;
        }
        Ok(())
    });
    cast.raise_curtain(args.start)?;
    let waits_ns = join(control)?;
    join(holder)?;
    Ok(Outcome::of_latencies(&waits_ns, 0))
}

/// Copying through a pipe holds its mutex for as long as the copy takes. The SCHED_FIFO thread writes one byte into the
/// same pipe without blocking on its fill, so all that it ever waits for is the mutex.
pub(super) fn pipe_mutex(args: &PipeMutex) -> Result<Outcome> {
    const CHUNK_BYTES: usize = 256 * 1024;
    let (cpu, priority, cycles, interval_ns) = (args.cpu, args.priority, args.cycles, args.interval_us * 1000);
    let (reader, writer) = pipe().context("pipe")?;
    fcntl_setpipe_size(&writer, 4 * CHUNK_BYTES).context("fcntl(F_SETPIPE_SZ)")?;
    let own_writer = {
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open of {path}"))?
    };
    let cast = Cast::of(3);
    let control = cast.lead(cpu, priority, cycles, interval_ns, move || {
        let before_ns = now_ns();
        match rustix::io::write(&own_writer, &[0]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(Some(now_ns() - before_ns)),
            Err(error) => Err(error).context("write to a pipe"),
        }
    });
    let filler = cast.enter(1, move |done| {
        let chunk = vec![0; CHUNK_BYTES];
        while !done.load(Ordering::Relaxed) {
            match rustix::io::write(&writer, &chunk) {
                Ok(_) => {}
                // The drainer saw the end first.
                Err(Errno::PIPE) => break,
                Err(error) => return Err(error).context("write to a pipe"),
            }
        }
        Ok(())
    });
    let drainer = cast.enter(2, move |done| {
        let mut chunk = vec![0; CHUNK_BYTES];
        while !done.load(Ordering::Relaxed) {
            if rustix::io::read(&reader, &mut chunk).context("read from a pipe")? == 0 {
                break;
            }
        }
        Ok(())
    });
    cast.raise_curtain(args.start)?;
    let writes_ns = join(control)?;
    join(filler)?;
    join(drainer)?;
    Ok(Outcome::of_latencies(&writes_ns, 0))
}
