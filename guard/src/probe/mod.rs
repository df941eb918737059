//! Active measurement: threads of guard's own that wait for cycles and time themselves, with cyclictest's options and
//! meanings, so that its scripts work unchanged. This room measures and counts; it knows no output. Beside it, when asked
//! for, stands what guard's programs in the kernel see of the same threads.

mod error;
mod getopt;
mod options;
mod place;
mod refusal;
mod sys;
mod thread;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Barrier, PoisonError, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::mm::MlockAllFlags;

pub use error::{OptionError, ProbeError};
pub use getopt::{Wanted, parse};
pub use options::{Aligned, LatencyTarget, Options, PolicyName, ThreadPlan, Wait, cpus};
pub use thread::{Broken, Figures};

use crate::control::{Observer, Recorder, Selection, Watch};
use crate::fault;
use crate::inventory::Topology;
use crate::sched::{self, CallError, Scheduling, allowed, clock_ns, pin, tid};
use crate::snapshot::Thread;
use place::Place;
use refusal::Standing;
use thread::{Counts, End};

/// Time between two readings of the threads' counts: cyclictest's.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Time that threads get to come to their end before what they counted is taken: cyclictest's.
const ENDING: Duration = Duration::from_millis(50);
/// Time between two samples of the kernel side: seldom, for it runs beside what is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Wake-ups are counted, not judged: later than any.
const NEVER_LATE: Duration = Duration::from_secs(10);
/// Limits how long CPUs may take to wake up, as long as it is open.
const DMA_LATENCY: &str = "/dev/cpu_dma_latency";

/// What locking memory needs.
const MLOCK: &str = "-m needs root, CAP_IPC_LOCK or an RLIMIT_MEMLOCK above all that guard maps (ulimit -l unlimited)";

/// What the threads have counted so far, to be shown.
#[derive(Debug)]
pub struct ProbeState<'a> {
    /// The threads.
    pub plans: &'a [ThreadPlan],
    /// Their figures, without histograms.
    pub figures: &'a [Figures],
    /// With `-v`: thread, cycle and latency of each value since the last time.
    pub values: &'a [(usize, u64, u64)],
    /// Whether somebody asked for them (SIGUSR1), and not only time has passed.
    pub asked: bool,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// The threads.
    pub plans: Vec<ThreadPlan>,
    /// Their figures.
    pub figures: Vec<Figures>,
    /// NUMA node of each thread's CPU; `None` where the kernel does not say.
    pub nodes: Vec<Option<u32>>,
    /// What was above `-b`.
    pub broken: Option<Broken>,
    /// Begin.
    pub began: Timestamp,
    /// End.
    pub ended: Timestamp,
    /// With `--passive`: each thread as the kernel side saw it; `None` when it did not.
    pub passive: Option<Vec<Option<Thread>>>,
}

/// Measures as `options` say, until they, SIGINT or SIGTERM end it. Meant as the whole of a process: signals stay blocked,
/// memory locked, and a thread with a long cycle ends when it wakes.
///
/// `report` gets what cyclictest prints first, `show` what it shows while it runs.
///
/// # Errors
/// See [`ProbeError`]; and what `show` fails with.
pub fn run<E: From<ProbeError>>(
    options: &Options,
    mut report: impl FnMut(LatencyRequest) -> Result<(), E>,
    mut show: impl FnMut(&ProbeState<'_>) -> Result<(), E>,
) -> Result<Measured, E> {
    let plans = options.plan(&allowed().map_err(ProbeError::from)?).map_err(ProbeError::from)?;
    let place = options.cgroup.as_deref().map(Place::find).transpose()?;
    let began = Timestamp::now();
    let signals = sys::Signals::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGUSR1])
        .map_err(|source| ProbeError::Start { what: "wait for signals", source })?;
    if let Some(text) = &options.main_affinity {
        let allowed = allowed().map_err(ProbeError::from)?;
        let cpus = cpus("--mainaffinity", text, &allowed).map_err(ProbeError::from)?;
        sched::run_on(&cpus).map_err(ProbeError::from)?;
    }
    if options.mlockall {
        rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
            .map_err(|error| ProbeError::Refused { call: CallError::at("mlockall")(error), hint: MLOCK.to_owned() })?;
    }
    let (file, said) = ask_for_latency(options.latency);
    report(said)?;

    let mut threads = MeasuringThreads::start(options, &plans, place.as_ref())?;
    let tids: Vec<u32> = threads.counts.iter().map(|counts| counts.tid.load(Relaxed)).collect();
    let mut observer = options.passive.then(|| observe(&tids)).transpose()?;
    threads.go(options);

    let mut values = Values::default();
    let mut sampled = Instant::now();
    loop {
        let over = threads.are_over(options)?;
        let figures = threads.figures(false);
        values.take(&threads.counts, &figures, options.oscope);
        show(&ProbeState { plans: &plans, figures: &figures, values: &values.taken, asked: false })?;
        if over {
            break;
        }
        let signal =
            signals.wait(LOOK_EVERY).map_err(|source| ProbeError::Start { what: "wait for signals", source })?;
        match signal {
            None => {}
            Some(libc::SIGUSR1) => show(&ProbeState { plans: &plans, figures: &figures, values: &[], asked: true })?,
            Some(_) => threads.end.come.store(true, Relaxed),
        }
        if let Some(observer) = &mut observer
            && sampled.elapsed() >= SAMPLE_EVERY
        {
            observer.sample().map_err(ProbeError::from)?;
            sampled = Instant::now();
        }
    }
    threads.end.come.store(true, Relaxed);
    let passive = observer.map(|mut observer| passive(&mut observer, &tids)).transpose()?;
    std::thread::sleep(ENDING);
    drop(file);
    let broken = *threads.end.broken.lock().unwrap_or_else(PoisonError::into_inner);
    let topology = Topology::read(Path::new("/")).unwrap_or_default();
    Ok(Measured {
        nodes: plans.iter().map(|plan| topology.place(plan.cpu?).map(|place| place.node)).collect(),
        figures: threads.figures(true),
        plans,
        broken,
        began,
        ended: Timestamp::now(),
        passive,
    })
}

/// What became of the request to power management.
#[derive(Debug, PartialEq, Eq)]
pub enum LatencyRequest {
    /// CPUs wake up within this many us from now on.
    Set(u32),
    /// They do not, and why.
    NotSet(String),
}

/// Keeps CPUs from sleeping deeply as long as the file is held.
fn ask_for_latency(target: LatencyTarget) -> (Option<File>, LatencyRequest) {
    let us = match target {
        LatencyTarget::Us(us) => us,
        LatencyTarget::Laptop => {
            return (None, LatencyRequest::NotSet("not setting cpu_dma_latency to save battery power".to_owned()));
        }
        LatencyTarget::DefaultSystem => {
            return (None, LatencyRequest::NotSet("not setting cpu_dma_latency from cyclictest".to_owned()));
        }
    };
    let opened = File::options().write(true).open(DMA_LATENCY).and_then(|mut file| {
        io::Write::write_all(&mut file, &us.to_ne_bytes())?;
        Ok(file)
    });
    match opened {
        Ok(file) => (Some(file), LatencyRequest::Set(us)),
        Err(error) => (None, LatencyRequest::NotSet(format!("{DMA_LATENCY}: {error}"))),
    }
}

/// The measuring threads, which wait at a barrier until all are set up.
struct MeasuringThreads {
    counts: Vec<Arc<Counts>>,
    end: Arc<End>,
    barrier: Arc<Barrier>,
    /// Where aligned cycles count from; set before they begin.
    start_ns: Arc<std::sync::atomic::AtomicU64>,
    /// What a thread failed with.
    failed: mpsc::Receiver<ProbeError>,
}

impl MeasuringThreads {
    fn start(options: &Options, plans: &[ThreadPlan], place: Option<&Place>) -> Result<Self, ProbeError> {
        let (ready, entered) = mpsc::channel();
        let (failing, failed) = mpsc::channel();
        let this = Self {
            counts: plans.iter().map(|_| Arc::new(Counts::new(options))).collect(),
            end: Arc::default(),
            barrier: Arc::new(Barrier::new(plans.len() + 1)),
            start_ns: Arc::default(),
            failed,
        };
        for (number, (plan, counts)) in (0_u64..).zip(plans.iter().zip(&this.counts)) {
            let (options, plan, counts, end) =
                (options.clone(), plan.clone(), Arc::clone(counts), Arc::clone(&this.end));
            let (barrier, start_ns) = (Arc::clone(&this.barrier), Arc::clone(&this.start_ns));
            let (ready, failing, place) = (ready.clone(), failing.clone(), place.cloned());
            let body = move || {
                counts.tid.store(tid(), Relaxed);
                // Into the cgroup first: whether the policy is allowed depends on it.
                let dressed = attempt(|| {
                    pin(plan.cpu.and_then(|cpu| usize::try_from(cpu).ok()))?;
                    place.as_ref().map_or(Ok(()), Place::enter)?;
                    set_policy(&plan).map_err(|call| refused(call, &plan))
                });
                let failed = dressed.is_err();
                // The receiver lives as long as anybody is expected.
                let _ = ready.send(dressed);
                if failed {
                    return;
                }
                barrier.wait();
                let start_ns = Some(start_ns.load(Acquire)).filter(|ns| *ns > 0);
                let measured = attempt(|| Ok(thread::measure(&options, &plan, number, start_ns, &counts, &end)?));
                if let Err(error) = measured {
                    end.come.store(true, Relaxed);
                    let _ = failing.send(error);
                }
            };
            std::thread::Builder::new()
                .name("guard-probe".to_owned())
                .spawn(body)
                .map_err(|source| ProbeError::Start { what: "start a measuring thread", source })?;
        }
        // Every thread has its say: `ready` is still there, and panics are caught.
        for entered in entered.iter().take(plans.len()) {
            entered?;
        }
        Ok(this)
    }

    /// Lets them begin.
    fn go(&mut self, options: &Options) {
        const SECOND_NS: u64 = 1_000_000_000;
        let now_ns = clock_ns(thread::clock(options));
        let start_ns = match options.aligned {
            None => 0,
            Some(Aligned::Apart(_)) => now_ns,
            // Not so near that a thread could come too late for it.
            Some(Aligned::Second(_)) => (now_ns + SECOND_NS / 10).next_multiple_of(SECOND_NS),
        };
        self.start_ns.store(start_ns, std::sync::atomic::Ordering::Release);
        self.barrier.wait();
    }

    fn figures(&self, whole: bool) -> Vec<Figures> {
        self.counts.iter().map(|counts| counts.figures(whole)).collect()
    }

    /// Whether the end has come, or a thread has done all its cycles, which ends it for the others.
    fn are_over(&self, options: &Options) -> Result<bool, ProbeError> {
        if let Ok(error) = self.failed.try_recv() {
            return Err(error);
        }
        let done = |counts: &Arc<Counts>| options.loops > 0 && counts.cycles.load(Acquire) >= options.loops;
        Ok(self.end.come.load(Relaxed) || self.counts.iter().any(done))
    }
}

/// What a thread does, its panic being one of the ways in which it fails.
fn attempt(work: impl FnOnce() -> Result<(), ProbeError>) -> Result<(), ProbeError> {
    fault::caught(work).map_err(ProbeError::Panicked).flatten()
}

/// Gives the calling thread its policy. What has no priority is SCHED_OTHER, whatever its name: so does cyclictest.
fn set_policy(plan: &ThreadPlan) -> Result<(), CallError> {
    let priority = i32::try_from(plan.priority).unwrap_or(i32::MAX);
    let scheduling = match plan.policy {
        PolicyName::Fifo => Scheduling::Fifo(priority),
        PolicyName::Rr => Scheduling::RoundRobin(priority),
        PolicyName::Other | PolicyName::Batch | PolicyName::Idle => Scheduling::Other,
    };
    scheduling.apply(0)
}

/// The failure of [`set_policy`] in the calling thread, with its reason where the kernel does not say it.
fn refused(call: CallError, plan: &ThreadPlan) -> ProbeError {
    if !call.is_refusal() {
        return call.into();
    }
    ProbeError::Refused { call, hint: Standing::of_this_thread().hint(plan.priority) }
}

/// Loads guard's programs and has them watch these threads from now on.
fn observe(tids: &[u32]) -> Result<Observer, ProbeError> {
    let watch = Watch {
        selection: Selection { cgroups: Vec::new(), tids: tids.to_vec() },
        threshold: NEVER_LATE,
        act: false,
        run_time_stats: false,
        policy: None,
        recorder: Recorder::Off,
        traces: None,
        stacks: false,
    };
    Ok(Observer::start(&watch)?)
}

/// What they saw.
fn passive(observer: &mut Observer, tids: &[u32]) -> Result<Vec<Option<Thread>>, ProbeError> {
    let mut threads = observer.snapshot()?.threads;
    let mut take = |tid: &u32| {
        let at = threads.iter().position(|thread| thread.tid == *tid)?;
        Some(threads.swap_remove(at))
    };
    Ok(tids.iter().map(&mut take).collect())
}

/// Values on their way to be printed one by one, the largest of every `-o`.
#[derive(Default)]
struct Values {
    /// Of each thread: cycles read, values since the last printed one, the largest of them and its cycle.
    read: Vec<(u64, u64, u64, u64)>,
    taken: Vec<(usize, u64, u64)>,
}

impl Values {
    fn take(&mut self, counts: &[Arc<Counts>], figures: &[Figures], of: u64) {
        self.taken.clear();
        self.read.resize(counts.len(), (0, 0, 0, 0));
        for (number, (read, (counts, figures))) in self.read.iter_mut().zip(counts.iter().zip(figures)).enumerate() {
            while read.0 < figures.cycles {
                let Some(value) = counts.value(read.0) else { return };
                if value > read.2 || read.1 == 0 {
                    (read.2, read.3) = (value, read.0);
                }
                read.0 += 1;
                read.1 += 1;
                if read.1 == of {
                    self.taken.push((number, read.3, read.2));
                    (read.1, read.2) = (0, 0);
                }
            }
        }
    }
}
