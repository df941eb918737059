//! Fault injectors: a cyclic thread, the victim, and what makes it late on purpose, shot by shot with calm between. The
//! log says what was done when, and how late the victim was by its own clock: the ground truth for whoever explains it.

mod fault;
mod hazard;
mod herd;
mod net;
mod occupy;
mod victim;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

pub use hazard::Hazard;
use hazard::Shoot;
pub use occupy::may_raise_nmi;
use victim::{Needs, Victim};

use super::{Start, now_ns, sleep_until, tid};
use guard::random::Random;

/// CPU quota that the hazards which want one need in the process's cgroup: us of CPU in so many us.
pub const QUOTA_US: (u64, u64) = (10_000, 100_000);

/// What to inject, and how often.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do to the victim, in turn; two also come together
    #[arg(required = true, num_args = 1..)]
    hazards: Vec<Hazard>,
    /// How often
    #[arg(long, default_value_t = 30)]
    shots: usize,
    /// The victim's CPU
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Another one, for what happens elsewhere
    #[arg(long, default_value_t = 0)]
    other_cpu: usize,
    /// Length of the victim's cycle
    #[arg(long, default_value_t = 10_000)]
    interval_us: u64,
    /// How long each shot lasts, where it can be chosen: longer than a cycle, so that every shot hits
    #[arg(long, default_value_t = 15_000)]
    harm_us: u64,
    /// Threads, timers or sockets of what comes in herds
    #[arg(long, default_value_t = 4_000)]
    herd: usize,
    /// Directory of another cgroup, for the thread at the end of a chain
    #[arg(long)]
    far_cgroup: Option<PathBuf>,
    /// Seed of the pauses
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    start: Start,
}

/// What was done and what came of it. Instants are CLOCK_MONOTONIC in ns.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    /// The victim's tid.
    pub victim: u32,
    /// Shots, in order.
    pub shots: Vec<Shot>,
    /// When the machine itself stood still, whatever was injected: from when on, and for how long, ns. Seen by a thread of
    /// the highest priority on the victim's CPU, or by busy threads; absent where the hazards stop all of those.
    pub noise: Option<Vec<(u64, u64)>>,
    /// The victim's cycles: when each was due, when the victim was awake, and when its work was done.
    pub cycles: Vec<(u64, u64, u64)>,
}

/// One shot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shot {
    /// What was done.
    pub hazards: Vec<Hazard>,
    /// When it began.
    pub begin_ns: u64,
    /// When the victim had been through a whole cycle after it.
    pub end_ns: u64,
    /// Whether it could be done: a CPU that is busy with something else has no idleness to leave.
    pub done: bool,
}

/// What all threads of a run know.
struct Scene {
    cpu: usize,
    other_cpu: usize,
    interval_ns: u64,
    harm_ns: u64,
    herd: usize,
    far_cgroup: Option<PathBuf>,
    victim: Victim,
    /// When the machine stood still, as a shooter noticed, and for how long, ns.
    stood_still: Mutex<Vec<(u64, u64)>>,
    /// A shooter could not do what it was to do.
    misfired: AtomicBool,
    done: AtomicBool,
}

/// The thread that does one hazard.
struct Shooter {
    hazard: Hazard,
    fire: mpsc::Sender<()>,
    fired: mpsc::Receiver<Result<()>>,
}

/// Longest that a shot may take.
const LONGEST: Duration = Duration::from_secs(120);

pub(super) fn run(args: &Args) -> Result<Log> {
    let mut needs = Needs::default();
    for hazard in &args.hazards {
        hazard.needs(&mut needs)?;
    }
    if needs.network {
        net::enter_own_network()?;
    }
    if needs.fair {
        guard::sched::forgo_realtime()?;
    }
    let scene = Arc::new(Scene {
        cpu: args.cpu,
        other_cpu: args.other_cpu,
        interval_ns: args.interval_us * 1000,
        harm_ns: args.harm_us * 1000,
        herd: args.herd,
        far_cgroup: args.far_cgroup.clone(),
        victim: Victim::new(needs)?,
        stood_still: Mutex::new(Vec::new()),
        misfired: AtomicBool::new(false),
        done: AtomicBool::new(false),
    });
    // The victim is born before it is held, and gets its policy after, when it is in its cgroup.
    let (go, may_go) = mpsc::channel::<()>();
    let (tids, told) = mpsc::channel();
    let cyclic = {
        let scene = Arc::clone(&scene);
        thread::spawn(move || -> Result<_> {
            tids.send(tid()).context("the main thread is gone")?;
            may_go.recv().context("the main thread is gone")?;
            victim::run(&scene)
        })
    };
    let sentinel = args.hazards.iter().all(|hazard| hazard.spares_the_highest()).then(|| {
        let scene = Arc::clone(&scene);
        let (say, said) = mpsc::channel();
        (thread::spawn(move || victim::sentinel(&scene, &said)), say)
    });
    let victim = told.recv().context("the victim is gone")?;
    args.start.ready(&[victim])?;
    go.send(()).context("the victim is gone")?;
    let sentinel = sentinel.map(|(sentinel, go)| (sentinel, go.send(())));
    let shooters = args.hazards.iter().map(|hazard| shooter(*hazard, &scene)).collect::<Result<Vec<_>>>()?;
    // Its period is recognised first.
    pause(&scene, 20)?;
    let mut random = Random::new(args.seed);
    let mut shots = Vec::with_capacity(args.shots);
    for number in 0..args.shots {
        pause(&scene, 4 + random.below(7))?;
        if args.hazards.iter().any(|hazard| hazard.wants_quota() || hazard.wants_far_quota()) {
            // The quota of another period.
            sleep_until(now_ns() + 2 * QUOTA_US.1 * 1000 + random.below(QUOTA_US.1) * 1000)?;
        }
        let chosen: Vec<&Shooter> = match (&shooters[..], number % 3) {
            ([a, _], 0) => vec![a],
            ([_, b], 1) => vec![b],
            (all @ [_, _], _) => all.iter().collect(),
            (all, _) => all.iter().skip(number % all.len()).take(1).collect(),
        };
        shots.push(shoot(&scene, &chosen)?);
    }
    pause(&scene, 5)?;
    scene.done.store(true, Ordering::Relaxed);
    let cycles = cyclic.join().map_err(|_| anyhow!("the victim panicked"))??;
    let noise = match sentinel {
        Some((sentinel, _)) => Some(sentinel.join().map_err(|_| anyhow!("the sentinel panicked"))??),
        None if args.hazards == [Hazard::RtTaken] => {
            Some(std::mem::take(&mut *scene.stood_still.lock().unwrap_or_else(PoisonError::into_inner)))
        }
        None => None,
    };
    Ok(Log { victim, shots, noise, cycles })
}

fn shooter(hazard: Hazard, scene: &Arc<Scene>) -> Result<Shooter> {
    let (fire, fires) = mpsc::channel();
    let (say, fired) = mpsc::channel();
    let scene = Arc::clone(scene);
    thread::spawn(move || {
        // Sets itself up in the thread that shoots: policy and CPU are a thread's own.
        let mut shoot: Shoot = match hazard.set_up(&scene) {
            Ok(shoot) => {
                let _ = say.send(Ok(()));
                shoot
            }
            Err(error) => {
                let _ = say.send(Err(error));
                return;
            }
        };
        for () in fires {
            if say.send(shoot(&scene)).is_err() {
                break;
            }
        }
    });
    let this = Shooter { hazard, fire, fired };
    this.wait().with_context(|| format!("{hazard:?}"))?;
    Ok(this)
}

impl Shooter {
    fn wait(&self) -> Result<()> {
        self.fired.recv_timeout(LONGEST).map_err(|error| anyhow!("{:?}: {error}", self.hazard))?
    }
}

fn shoot(scene: &Scene, chosen: &[&Shooter]) -> Result<Shot> {
    let begin_ns = now_ns();
    for shooter in chosen {
        shooter.fire.send(()).with_context(|| format!("{:?} has ended", shooter.hazard))?;
    }
    for shooter in chosen {
        shooter.wait()?;
    }
    // The cycle under way, and another one.
    let cycles = scene.victim.cycles();
    let give_up = now_ns() + 20_000_000_000;
    while scene.victim.cycles() < cycles + 2 {
        if now_ns() > give_up {
            bail!("the victim stands still");
        }
        sleep_until(now_ns() + scene.interval_ns / 4)?;
    }
    let (end_ns, done) = (now_ns(), !scene.misfired.swap(false, Ordering::AcqRel));
    Ok(Shot { hazards: chosen.iter().map(|shooter| shooter.hazard).collect(), begin_ns, end_ns, done })
}

/// Lets so many cycles pass.
fn pause(scene: &Scene, cycles: u64) -> Result<()> {
    Ok(sleep_until(now_ns() + cycles * scene.interval_ns)?)
}
