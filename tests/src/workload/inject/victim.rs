//! The victim: a cyclic thread that takes a lock, asks for data or touches memory in each cycle, as far as the hazards
//! of the run want that.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Mutex, PoisonError, mpsc::Receiver},
};

use anyhow::{Context as _, Result};
use rustix::{
    pipe::pipe,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags},
};

use super::{Scene, fault::Page};
use crate::workload::{PiLock, Scheduling, now_ns, pin, sleep_until, timespec};

/// The victim's priority.
pub(super) const PRIORITY: i32 = 80;

/// What the hazards of a run want of the victim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// A futex without priority inheritance, taken in each cycle.
    pub(super) plain_lock: bool,
    /// One with priority inheritance.
    pub(super) pi_lock: bool,
    /// Data of a helper in each cycle.
    pub(super) data: bool,
    /// Memory that may be taken away.
    pub(super) page: bool,
    /// Its timers are of a timerfd.
    pub(super) timerfd: bool,
    /// It arms its timer on the other CPU.
    pub(super) remote: bool,
    /// It has a fair policy.
    pub(super) fair: bool,
    /// The process has a network of its own.
    pub(super) network: bool,
}

/// The victim as the others see it.
pub(super) struct Victim {
    needs: Needs,
    pub(super) plain: Mutex<()>,
    pub(super) pi: PiLock,
    pub(super) request: (OwnedFd, OwnedFd),
    pub(super) reply: (OwnedFd, OwnedFd),
    pub(super) page: Option<Page>,
    /// Cycles done.
    cycles: AtomicU64,
    /// When the next one is due.
    due_ns: AtomicU64,
}

impl Victim {
    pub(super) fn new(needs: Needs) -> Result<Self> {
        Ok(Self {
            needs,
            plain: Mutex::new(()),
            pi: PiLock::new(),
            request: pipe().context("pipe")?,
            reply: pipe().context("pipe")?,
            page: needs.page.then(Page::new).transpose()?,
            cycles: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
        })
    }

    pub(super) fn cycles(&self) -> u64 {
        self.cycles.load(Ordering::Acquire)
    }

    /// The first instant of its schedule that is at least `ahead_ns` away.
    pub(super) fn due_after(&self, ahead_ns: u64, interval_ns: u64) -> u64 {
        let (due_ns, least) = (self.due_ns.load(Ordering::Acquire), now_ns() + ahead_ns);
        due_ns + least.saturating_sub(due_ns).div_ceil(interval_ns) * interval_ns
    }
}

/// Cycles until the run is over.
pub(super) fn run(scene: &Scene) -> Result<Vec<(u64, u64, u64)>> {
    let (victim, needs) = (&scene.victim, scene.victim.needs);
    pin(Some(scene.cpu))?;
    if !needs.fair {
        Scheduling::Fifo(PRIORITY).apply(0)?;
    }
    let timer = needs.timerfd.then(timerfd).transpose()?;
    let mut cycles = Vec::with_capacity(1 << 16);
    let mut due_ns = now_ns() + 2 * scene.interval_ns;
    while !scene.done.load(Ordering::Relaxed) {
        victim.due_ns.store(due_ns, Ordering::Release);
        if needs.remote {
            pin(Some(scene.other_cpu))?;
        }
        if let Some(timer) = &timer {
            let once = Itimerspec { it_interval: timespec(0), it_value: timespec(due_ns) };
            rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once).context("timerfd_settime")?;
        }
        if needs.remote {
            pin(Some(scene.cpu))?;
        }
        match &timer {
            Some(timer) => {
                rustix::io::read(timer, &mut [0_u8; 8]).context("read of a timerfd")?;
            }
            None => sleep_until(due_ns)?,
        }
        let awake_ns = now_ns();
        work(victim)?;
        let done_ns = now_ns();
        cycles.push((due_ns, awake_ns, done_ns));
        victim.cycles.fetch_add(1, Ordering::Release);
        // What has passed is not waited for.
        due_ns += (1 + done_ns.saturating_sub(due_ns) / scene.interval_ns) * scene.interval_ns;
    }
    Ok(cycles)
}

/// A thread of the highest priority on the victim's CPU, which no shot can stop: where it is late, the machine itself stood
/// still. Returns when that was and for how long, ns.
pub(super) fn sentinel(scene: &Scene, may_go: &Receiver<()>) -> Result<Vec<(u64, u64)>> {
    may_go.recv().context("the main thread is gone")?;
    pin(Some(scene.cpu))?;
    Scheduling::Fifo(99).apply(0)?;
    let interval_ns = scene.interval_ns / 8;
    let mut noise = Vec::with_capacity(1 << 12);
    let mut due_ns = now_ns() + interval_ns;
    while !scene.done.load(Ordering::Relaxed) {
        sleep_until(due_ns)?;
        let late_ns = now_ns() - due_ns;
        if late_ns > interval_ns / 4 {
            noise.push((due_ns, late_ns));
        }
        due_ns += (1 + late_ns / interval_ns) * interval_ns;
    }
    Ok(noise)
}

fn work(victim: &Victim) -> Result<()> {
    if victim.needs.plain_lock {
        drop(victim.plain.lock().unwrap_or_else(PoisonError::into_inner));
    }
    if victim.needs.pi_lock {
        victim.pi.lock()?;
        victim.pi.unlock()?;
    }
    if victim.needs.data {
        rustix::io::write(&victim.request.1, &[1]).context("write of a request")?;
        rustix::io::read(&victim.reply.0, &mut [0_u8]).context("read of a reply")?;
    }
    if let Some(page) = &victim.page {
        page.touch();
    }
    Ok(())
}

fn timerfd() -> Result<OwnedFd> {
    rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).context("timerfd_create")
}
