//! The roles: which threads they have, and what each thread does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::lock::Lock;
use super::part::{PartOutcome, ProcessPart, Role};
use crate::random::Random;
use crate::sched::{CallError, Scheduling, burn_cpu_ns, now_ns, sleep_until};

/// Priority of the SCHED_FIFO threads: above interrupt threads' 50, as PLC runtimes have it.
const PRIORITY: i32 = 80;
/// Memory that a load thread walks through: more than a core's own caches.
const WALK_BYTES: usize = 8 << 20;
/// Shortest gap in a busy loop that counts as taken by somebody: far above any interrupt.
const LEAST_GAP_NS: u64 = 2_000_000;

/// What the threads of one process share.
pub(super) struct Run<'a> {
    /// When the first cycle begins; CLOCK_MONOTONIC, ns.
    pub(super) begin_ns: u64,
    /// No cycle begins later.
    pub(super) end_ns: u64,
    /// Length of a cycle, ns.
    pub(super) interval_ns: u64,
    /// Set when one thread has ended.
    pub(super) done: &'a AtomicBool,
}

impl Run<'_> {
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

type Work = Box<dyn FnOnce(&Run<'_>) -> Result<Option<PartOutcome>, CallError> + Send>;

/// A thread: what it needs before it begins, and its work.
pub(super) struct WorkloadThread {
    pub(super) scheduling: Scheduling,
    /// Whether it goes on under SCHED_OTHER when the policy is refused.
    pub(super) may_be_refused: bool,
    pub(super) cpu: Option<usize>,
    pub(super) work: Work,
}

/// The threads of a part, the measured one first.
pub(super) fn threads(part: &ProcessPart) -> Vec<WorkloadThread> {
    let fifo = |work: Work| WorkloadThread {
        scheduling: Scheduling::Fifo(PRIORITY),
        may_be_refused: false,
        cpu: part.cpu,
        work,
    };
    let fair =
        |work: Work| WorkloadThread { scheduling: Scheduling::Other, may_be_refused: false, cpu: part.cpu, work };
    match part.role {
        Role::Lock { inherit, busy_percent } => {
            let lock = Arc::new(Lock::new(inherit));
            let held = Arc::clone(&lock);
            vec![
                fifo(Box::new(move |run| taker(run, &lock))),
                fair(Box::new(move |run| holder(run, &held, busy_percent))),
            ]
        }
        Role::Fallback => vec![WorkloadThread { may_be_refused: true, ..fifo(Box::new(|run| worker(run, 4))) }],
        Role::CoThread => {
            let newest_ns = Arc::new(AtomicU64::new(0));
            let made_ns = Arc::clone(&newest_ns);
            vec![
                fifo(Box::new(move |run| consumer(run, &newest_ns))),
                fair(Box::new(move |run| producer(run, &made_ns))),
            ]
        }
        Role::Fair => (0..cpus())
            .map(|cpu| WorkloadThread { cpu: Some(cpu), ..fair(Box::new(|run: &Run<'_>| worker(run, 6))) })
            .collect(),
        Role::Load => (0..2 * cpus()).map(|_| fair(Box::new(walker))).collect(),
        Role::Hog => vec![fifo(Box::new(hog)), fair(Box::new(rival))],
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What came of a cycle that was begun.
struct Worked {
    /// From when it was due to when its work was done, ns.
    response_ns: u64,
    /// Whether it had nothing new to work with.
    in_vain: bool,
}

/// Does `work` in every cycle. `work` gets the instant at which the cycle was due.
fn cycle(
    run: &Run<'_>,
    mut work: impl FnMut(u64) -> Result<Worked, CallError>,
) -> Result<Option<PartOutcome>, CallError> {
    let scheduling = if Scheduling::is_fifo_now() { Scheduling::Fifo(PRIORITY) } else { Scheduling::Other };
    let mut outcome = PartOutcome { policy: scheduling.to_string(), ..PartOutcome::default() };
    let mut due_ns = run.begin_ns + run.interval_ns;
    while due_ns < run.end_ns && !run.is_done() {
        sleep_until(due_ns)?;
        outcome.wakeup.record(now_ns().saturating_sub(due_ns));
        let Worked { response_ns, in_vain } = work(due_ns)?;
        outcome.response.record(response_ns);
        // A cycle that was still under way when others were due is lost, and they are lost with it.
        let missed = now_ns().saturating_sub(due_ns) / run.interval_ns;
        outcome.cycles += 1 + missed;
        outcome.lost += if missed > 0 { 1 + missed } else { u64::from(in_vain) };
        due_ns += (1 + missed) * run.interval_ns;
    }
    Ok(Some(outcome))
}

/// Takes the lock in every cycle, for no longer than it takes to give it back.
fn taker(run: &Run<'_>, lock: &Lock) -> Result<Option<PartOutcome>, CallError> {
    cycle(run, |due_ns| {
        let locked_ns = lock.with(now_ns)?;
        Ok(Worked { response_ns: locked_ns - due_ns, in_vain: false })
    })
}

/// Holds the lock for five eighths of the time in which it is busy: a tenth of a cycle each time, with work of 0.2 to 1 times
/// that between. That work varies so that neither cycles nor quota periods fall into step with it.
fn holder(run: &Run<'_>, lock: &Lock, busy_percent: u8) -> Result<Option<PartOutcome>, CallError> {
    let hold_ns = run.interval_ns / 10;
    let mut random = Random::new(0);
    sleep_until(run.begin_ns)?;
    while !run.is_done() {
        lock.with(|| burn_cpu_ns(hold_ns))?;
        let rest_ns = hold_ns / 5 + random.below((hold_ns * 4 / 5).max(1));
        burn_cpu_ns(rest_ns);
        if let Some(idle_percent) = 100_u64.checked_sub(busy_percent.into()).filter(|percent| *percent > 0) {
            sleep_until(now_ns() + (hold_ns + rest_ns) * idle_percent / u64::from(busy_percent.max(1)))?;
        }
    }
    Ok(None)
}

/// Works for so many tenths of every cycle.
fn worker(run: &Run<'_>, tenths: u64) -> Result<Option<PartOutcome>, CallError> {
    cycle(run, |due_ns| {
        burn_cpu_ns(run.interval_ns * tenths / 10);
        Ok(Worked { response_ns: now_ns() - due_ns, in_vain: false })
    })
}

/// Needs a value in every cycle that was begun in the one before. Its response is the age of what it finds.
fn consumer(run: &Run<'_>, newest_ns: &AtomicU64) -> Result<Option<PartOutcome>, CallError> {
    let mut last_ns = 0;
    cycle(run, |_| {
        let begun_ns = newest_ns.load(Ordering::Acquire);
        let in_vain = begun_ns == last_ns;
        last_ns = begun_ns;
        // Until the first value comes, everything is as old as the run.
        Ok(Worked { response_ns: now_ns() - begun_ns.max(run.begin_ns), in_vain })
    })
}

/// Begins a value at the beginning of every cycle and publishes when it was begun.
fn producer(run: &Run<'_>, made_ns: &AtomicU64) -> Result<Option<PartOutcome>, CallError> {
    let mut begun_ns = run.begin_ns;
    while !run.is_done() {
        sleep_until(begun_ns)?;
        burn_cpu_ns(run.interval_ns * 4 / 10);
        made_ns.store(begun_ns, Ordering::Release);
        begun_ns += (1 + now_ns().saturating_sub(begun_ns) / run.interval_ns) * run.interval_ns;
    }
    Ok(None)
}

/// Walks through memory until the end.
fn walker(run: &Run<'_>) -> Result<Option<PartOutcome>, CallError> {
    let mut memory = vec![0_u8; WALK_BYTES];
    while now_ns() < run.end_ns {
        // One byte of every cache line.
        for byte in memory.iter_mut().step_by(64) {
            *byte = byte.wrapping_add(1);
        }
    }
    std::hint::black_box(&memory);
    Ok(None)
}

/// Reads the clock without pause. Where the clock jumps, somebody else had the CPU: each jump is a response, and the
/// cycles within it are lost.
fn hog(run: &Run<'_>) -> Result<Option<PartOutcome>, CallError> {
    sleep_until(run.begin_ns)?;
    let mut outcome = PartOutcome { policy: Scheduling::Fifo(PRIORITY).to_string(), ..PartOutcome::default() };
    let mut last_ns = now_ns();
    while last_ns < run.end_ns {
        let at_ns = now_ns();
        let gap_ns = at_ns - last_ns;
        if gap_ns > LEAST_GAP_NS.max(run.interval_ns) {
            outcome.response.record(gap_ns);
            outcome.lost += gap_ns / run.interval_ns;
        }
        last_ns = at_ns;
    }
    outcome.cycles = (run.end_ns - run.begin_ns) / run.interval_ns;
    outcome.lost = outcome.lost.min(outcome.cycles);
    Ok(Some(outcome))
}

/// Wants the hog's CPU all the time.
fn rival(run: &Run<'_>) -> Result<Option<PartOutcome>, CallError> {
    while !run.is_done() {
        std::hint::spin_loop();
    }
    Ok(None)
}
