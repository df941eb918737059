//! A measuring thread: waits for its next cycle as cyclictest's threads do, reads its clock, and counts how late it is. What
//! it counts can be read while it runs.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use rustix::thread::{ClockId, NanosleepRelativeResult};

use super::options::{Aligned, Options, ThreadPlan, Wait};
use crate::sched::{CallError, clock_ns, sleep_until_by, timespec};

/// What stands for the smallest latency until there is one; so cyclictest prints it.
const NO_MINIMUM: u64 = 1_000_000;
/// Values kept until they are printed one by one (`-v`), a power of two: 16 s of cycles of 1 ms.
const VALUES: usize = 16_384;

/// What a thread has counted. Only the thread writes; others read while it does, so figures may be a cycle apart. All
/// latencies are us, or ns with `-N`.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) tid: AtomicU32,
    pub(super) cycles: AtomicU64,
    min: AtomicU64,
    pub(super) max: AtomicU64,
    act: AtomicU64,
    sum: AtomicU64,
    /// Count of each latency.
    histogram: Box<[AtomicU64]>,
    /// Cycles whose latency is beyond the histogram: how many, and the numbers of the first.
    overflows: AtomicU64,
    outliers: Box<[AtomicU64]>,
    /// The last latencies, by cycle.
    values: Box<[AtomicU64]>,
}

/// The same as plain figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Thread id; 0 before the thread runs.
    pub tid: u32,
    /// Cycles measured.
    pub cycles: u64,
    /// Smallest latency.
    pub min: u64,
    /// Largest latency.
    pub max: u64,
    /// Last latency.
    pub act: u64,
    /// Sum of all latencies.
    pub sum: u64,
    /// Count of each latency from 0 on; empty without `-h`.
    pub histogram: Vec<u64>,
    /// Latencies beyond it.
    pub overflows: u64,
    /// Numbers of the first cycles with such a latency.
    pub outliers: Vec<u64>,
}

impl Counts {
    pub(super) fn new(options: &Options) -> Self {
        let cells = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        let rows = usize::try_from(options.histogram).unwrap_or(0);
        Self {
            tid: AtomicU32::new(0),
            cycles: AtomicU64::new(0),
            min: AtomicU64::new(NO_MINIMUM),
            max: AtomicU64::new(0),
            act: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            histogram: cells(rows),
            overflows: AtomicU64::new(0),
            outliers: cells(rows),
            values: cells(if options.verbose { VALUES } else { 0 }),
        }
    }

    /// Counts one cycle. No other thread calls this, so loads and stores need not be one step.
    fn count(&self, latency: u64) {
        let cycle = self.cycles.load(Relaxed);
        self.min.store(self.min.load(Relaxed).min(latency), Relaxed);
        self.max.store(self.max.load(Relaxed).max(latency), Relaxed);
        self.act.store(latency, Relaxed);
        self.sum.store(self.sum.load(Relaxed) + latency, Relaxed);
        if !self.values.is_empty() {
            self.values[Self::place(cycle)].store(latency, Relaxed);
        }
        if !self.histogram.is_empty() {
            match usize::try_from(latency).ok().and_then(|at| self.histogram.get(at)) {
                Some(cell) => cell.store(cell.load(Relaxed) + 1, Relaxed),
                None => {
                    let overflows = self.overflows.load(Relaxed);
                    if let Some(cell) = usize::try_from(overflows).ok().and_then(|at| self.outliers.get(at)) {
                        cell.store(cycle, Relaxed);
                    }
                    self.overflows.store(overflows + 1, Relaxed);
                }
            }
        }
        self.cycles.store(cycle + 1, std::sync::atomic::Ordering::Release);
    }

    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below VALUES")]
    fn place(cycle: u64) -> usize {
        (cycle % VALUES as u64) as usize
    }

    /// The latency of a cycle; `None` without `-v`, or when it is overwritten already.
    pub(super) fn value(&self, cycle: u64) -> Option<u64> {
        self.values.get(Self::place(cycle)).map(|cell| cell.load(Relaxed))
    }

    /// What stands there now; the histogram only when `whole`.
    pub(super) fn figures(&self, whole: bool) -> Figures {
        let all = |cells: &[AtomicU64]| cells.iter().map(|cell| cell.load(Relaxed)).collect();
        let overflows = self.overflows.load(Relaxed);
        let known = usize::try_from(overflows).unwrap_or(usize::MAX).min(self.outliers.len());
        Figures {
            tid: self.tid.load(Relaxed),
            cycles: self.cycles.load(Relaxed),
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
            act: self.act.load(Relaxed),
            sum: self.sum.load(Relaxed),
            histogram: if whole { all(&self.histogram) } else { Vec::new() },
            overflows,
            outliers: if whole { all(&self.outliers[..known]) } else { Vec::new() },
        }
    }
}

/// The end of measuring, shared by the threads and whoever started them.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) come: AtomicBool,
    /// Which thread was above `-b` first, and how late the last one was.
    pub(super) broken: std::sync::Mutex<Option<Broken>>,
}

/// A latency above `-b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The thread that was first.
    pub tid: u32,
    /// The last latency above.
    pub latency: u64,
}

/// Measures until the end has come, or the thread has done what it was to do.
///
/// `start_ns` is where aligned cycles count from; `None` where every thread begins when it comes.
pub(super) fn measure(
    options: &Options,
    plan: &ThreadPlan,
    number: u64,
    start_ns: Option<u64>,
    counts: &Counts,
    end: &End,
) -> Result<(), CallError> {
    let clock = clock(options);
    let unit_ns = if options.nsecs { 1 } else { 1_000 };
    let interval_ns = plan.interval_us * 1_000;
    let begin_ns = match (start_ns, options.aligned) {
        (Some(start_ns), Some(Aligned::Apart(us))) => start_ns + number * us * 1_000,
        (Some(start_ns), Some(Aligned::Second(us))) => start_ns + us * 1_000,
        _ => clock_ns(clock),
    };
    let stop_ns = (options.duration_s > 0).then(|| begin_ns + options.duration_s * 1_000_000_000);
    let mut next_ns = begin_ns + interval_ns;
    while !end.come.load(Relaxed) {
        match options.wait {
            Wait::Absolute => sleep_until_by(clock, next_ns)?,
            // Counted from where the thread is when it goes to sleep.
            Wait::Relative => {
                next_ns = clock_ns(clock) + interval_ns;
                over(&rustix::thread::clock_nanosleep_relative(clock, &timespec(interval_ns)), "clock_nanosleep")?;
            }
            Wait::Nanosleep => {
                next_ns = clock_ns(clock) + interval_ns;
                over(&rustix::thread::nanosleep(&timespec(interval_ns)), "nanosleep")?;
            }
        }
        let now_ns = clock_ns(clock);
        if end.come.load(Relaxed) {
            break;
        }
        let latency = now_ns.saturating_sub(next_ns) / unit_ns;
        counts.count(latency);
        if options.break_at > 0 && latency > options.break_at {
            let tid = counts.tid.load(Relaxed);
            let mut broken = end.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *broken = Some(Broken { tid: broken.map_or(tid, |first| first.tid), latency });
            end.come.store(true, Relaxed);
        }
        if stop_ns.is_some_and(|stop_ns| now_ns >= stop_ns) {
            end.come.store(true, Relaxed);
        }
        // Cycles that were due meanwhile are left out, not made up for.
        next_ns += interval_ns * (1 + now_ns.saturating_sub(next_ns) / interval_ns);
        if options.loops > 0 && counts.cycles.load(Relaxed) >= options.loops {
            break;
        }
    }
    Ok(())
}

/// The clock that the threads wait on.
pub(super) fn clock(options: &Options) -> ClockId {
    if options.realtime_clock { ClockId::Realtime } else { ClockId::Monotonic }
}

/// A sleep that a stopped process cut short is over.
fn over(slept: &NanosleepRelativeResult, call: &str) -> Result<(), CallError> {
    match slept {
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => Ok(()),
        NanosleepRelativeResult::Err(error) => Err(CallError::at(call)(*error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(options: &Options, latencies: &[u64]) -> Figures {
        let counts = Counts::new(options);
        latencies.iter().for_each(|latency| counts.count(*latency));
        counts.figures(true)
    }

    #[test]
    fn latencies_are_counted_with_their_cycles() {
        let options = Options { histogram: 3, ..Options::default() };
        let figures = counted(&options, &[2, 5, 0, 2, 3, 9, 7]);
        assert_eq!((figures.cycles, figures.min, figures.max, figures.act, figures.sum), (7, 0, 9, 7, 28));
        assert_eq!((figures.histogram, figures.overflows, figures.outliers), (vec![1, 0, 2], 4, vec![1, 4, 5]));
    }

    #[test]
    fn before_the_first_cycle_the_minimum_is_cyclictests() {
        assert_eq!(counted(&Options::default(), &[]).min, 1_000_000);
    }

    #[test]
    fn a_thread_ends_after_its_loops_and_leaves_late_cycles_out() {
        let options = Options { loops: 20, nsecs: true, ..Options::default() };
        let plan =
            ThreadPlan { cpu: None, priority: 0, policy: super::super::options::PolicyName::Other, interval_us: 500 };
        for wait in [Wait::Absolute, Wait::Relative, Wait::Nanosleep] {
            let options = Options { wait, ..options.clone() };
            let counts = Counts::new(&options);
            let begin_ns = clock_ns(ClockId::Monotonic);
            measure(&options, &plan, 0, None, &counts, &End::default()).unwrap();
            let took_ns = clock_ns(ClockId::Monotonic) - begin_ns;
            let figures = counts.figures(true);
            assert_eq!(figures.cycles, 20, "{wait:?}");
            assert!(took_ns >= 20 * 500_000, "{wait:?}: {took_ns}");
            assert!(figures.max < took_ns && figures.min > 0, "{wait:?}: {figures:?}");
        }
    }

    #[test]
    fn a_latency_above_the_limit_ends_it_for_all() {
        let options = Options { break_at: 1, nsecs: true, ..Options::default() };
        let plan =
            ThreadPlan { cpu: None, priority: 0, policy: super::super::options::PolicyName::Other, interval_us: 100 };
        let (counts, end) = (Counts::new(&options), End::default());
        counts.tid.store(77, Relaxed);
        measure(&options, &plan, 0, None, &counts, &end).unwrap();
        let broken = end.broken.into_inner().unwrap().unwrap();
        assert_eq!((broken.tid, broken.latency), (77, counts.figures(false).act));
        assert!(end.come.into_inner());
    }
}
