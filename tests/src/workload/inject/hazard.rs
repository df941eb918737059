//! The hazards: what each wants of the victim, and what it does to it.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{QUOTA_US, Scene, herd, net, occupy, occupy::Occupier, victim::Needs};
use crate::workload::{Scheduling, burn_cpu_ns, burn_until, now_ns, pin, sleep_until, tid};

/// One way to make the victim late. Most are named after their cause in `guard explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hazard {
    /// A SCHED_FIFO thread above it is busy.
    HigherPriority,
    /// The holder of its lock, a plain futex, goes on running.
    NonPiLock,
    /// The same of a futex with priority inheritance.
    LockContention,
    /// The holder of its lock has to leave its CPU to a third thread.
    LockHolderPreempted,
    /// The holder of its lock uses up its cgroup's quota.
    ThrottledLockHolder,
    /// The holder of its lock waits for another lock, whose holder uses up the quota of another cgroup.
    LockChain,
    /// The helper that makes its data uses up its cgroup's quota.
    CoThreadThrottled,
    /// A SCHED_FIFO thread never sleeps, until the kernel takes the CPU from all of them.
    RtTaken,
    /// It was refused SCHED_FIFO, and its cgroup's quota is used up.
    PolicyFallback,
    /// Memory that it touches has to be brought first.
    PageFault,
    /// Its timerfd waits for the thread of soft timers, which has to wait itself (PREEMPT_RT).
    SoftTimer,
    /// The same on another CPU, where it armed its timer.
    RemoteTimer,
    /// A fair thread is in the kernel, which does not let itself be preempted.
    LowerPriorityBlocking,
    /// Another CPU has its CPU call a function in an interrupt.
    Irq,
    /// Very many timers expire at the same instant in one interrupt.
    TimerHerd,
    /// A non-maskable interrupt prints where its CPU is.
    Nmi,
    /// Its CPU is idle, and the idle task is slow to leave: stands for a deep idle state.
    CpuIdleExit,
    /// One datagram goes to very many sockets in one softirq; on PREEMPT_RT many soft timers in a thread above it.
    Softirq,
}

/// Does it once; returns when it is over.
pub(super) type Shoot = Box<dyn FnMut(&Scene) -> Result<()>>;

/// CPU time that uses up a quota more than once, ns: however short the rest of the first period is, being stopped takes far
/// longer than running.
const BEYOND_QUOTA_NS: u64 = QUOTA_US.0 * 1_000 * 5 / 2;
/// How long the one thread is busy that never sleeps. Its share is 0.95 s of a second, and wherever in a second it begins, 1.95 s
/// hold a share that is used up; the fair server may let one of its seconds pass.
const NEVER_SLEEPS_NS: u64 = 2_200_000_000;
/// A clock that jumps by more was taken away from its reader, ns.
const LEAST_GAP_NS: u64 = 1_000_000;

impl Hazard {
    /// Whether the process has to be in a cgroup with [`QUOTA_US`].
    #[must_use]
    pub fn wants_quota(self) -> bool {
        matches!(self, Self::ThrottledLockHolder | Self::CoThreadThrottled | Self::PolicyFallback)
    }

    /// Whether a thread of it has to be in another cgroup with [`QUOTA_US`]; see `--far-cgroup`.
    #[must_use]
    pub fn wants_far_quota(self) -> bool {
        self == Self::LockChain
    }

    /// Whether a SCHED_FIFO thread of the highest priority on the victim's CPU runs on all the same.
    pub(super) fn spares_the_highest(self) -> bool {
        match self {
            Self::RtTaken
            | Self::PolicyFallback
            | Self::LowerPriorityBlocking
            | Self::Irq
            | Self::TimerHerd
            | Self::Nmi
            | Self::CpuIdleExit => false,
            Self::Softirq => realtime(),
            _ => true,
        }
    }

    pub(super) fn needs(self, needs: &mut Needs) -> Result<()> {
        match self {
            Self::NonPiLock | Self::LockHolderPreempted | Self::ThrottledLockHolder | Self::LockChain => {
                needs.plain_lock = true;
            }
            Self::LockContention => needs.pi_lock = true,
            Self::CoThreadThrottled => needs.data = true,
            Self::PolicyFallback => needs.fair = true,
            Self::PageFault => needs.page = true,
            Self::SoftTimer => needs.timerfd = true,
            Self::RemoteTimer => (needs.timerfd, needs.remote) = (true, true),
            Self::Softirq => needs.network = !realtime(),
            Self::HigherPriority
            | Self::RtTaken
            | Self::LowerPriorityBlocking
            | Self::Irq
            | Self::TimerHerd
            | Self::Nmi
            | Self::CpuIdleExit => {}
        }
        if needs.fair && (needs.plain_lock || needs.pi_lock || needs.timerfd || needs.page || needs.data) {
            bail!("a victim that was refused SCHED_FIFO has no other hazard");
        }
        Ok(())
    }

    /// Gets ready in the thread that will shoot.
    pub(super) fn set_up(self, scene: &Arc<Scene>) -> Result<Shoot> {
        let (cpu, harm_ns) = (Some(scene.cpu), scene.harm_ns);
        pin(cpu)?;
        match self {
            Self::HigherPriority => {
                Scheduling::Fifo(90).apply(0)?;
                Ok(Box::new(move |_| {
                    burn_until(now_ns() + harm_ns);
                    Ok(())
                }))
            }
            // Above whatever else is on the CPU, so that nobody but the victim stops the holder.
            Self::NonPiLock => {
                Scheduling::Fifo(1).apply(0)?;
                Ok(Box::new(move |scene| {
                    let _held = scene.victim.plain.lock().unwrap_or_else(PoisonError::into_inner);
                    burn_cpu_ns(harm_ns);
                    Ok(())
                }))
            }
            Self::LockContention => {
                Scheduling::Fifo(1).apply(0)?;
                Ok(Box::new(move |scene| {
                    scene.victim.pi.lock()?;
                    burn_cpu_ns(harm_ns);
                    Ok(scene.victim.pi.unlock()?)
                }))
            }
            Self::LockHolderPreempted => {
                let (begin, _) = third(scene.cpu, Scheduling::Fifo(50), harm_ns)?;
                Ok(Box::new(move |scene| {
                    let _held = scene.victim.plain.lock().unwrap_or_else(PoisonError::into_inner);
                    begin.send(()).context("the third thread is gone")?;
                    burn_cpu_ns(harm_ns / 50);
                    Ok(())
                }))
            }
            Self::ThrottledLockHolder => Ok(Box::new(|scene| {
                let _held = scene.victim.plain.lock().unwrap_or_else(PoisonError::into_inner);
                burn_cpu_ns(BEYOND_QUOTA_NS);
                Ok(())
            })),
            Self::LockChain => chain(scene),
            Self::CoThreadThrottled => helper(scene),
            Self::PolicyFallback => Ok(Box::new(|_| {
                burn_cpu_ns(BEYOND_QUOTA_NS);
                Ok(())
            })),
            Self::RtTaken => taken(scene.cpu),
            Self::PageFault => Ok(Box::new(move |scene| {
                let page = scene.victim.page.as_ref().context("the victim has no such memory")?;
                page.take_away()?;
                page.bring_when_asked(harm_ns)
            })),
            Self::SoftTimer => {
                Scheduling::Fifo(50).apply(0)?;
                Ok(Box::new(move |_| {
                    burn_until(now_ns() + harm_ns);
                    Ok(())
                }))
            }
            Self::RemoteTimer => {
                pin(Some(scene.other_cpu))?;
                Scheduling::Fifo(50).apply(0)?;
                Ok(Box::new(move |_| {
                    burn_until(now_ns() + harm_ns);
                    Ok(())
                }))
            }
            Self::LowerPriorityBlocking => {
                let occupier = Occupier::called(scene.cpu)?;
                Ok(Box::new(move |_| occupier.occupy(now_ns() + harm_ns)))
            }
            Self::Irq => {
                let occupier = Occupier::called(scene.cpu)?;
                // An idle CPU may call the function without an interrupt.
                let (begin, begun) = third(scene.cpu, Scheduling::Fifo(1), 2 * harm_ns)?;
                pin(Some(scene.other_cpu))?;
                Ok(Box::new(move |_| {
                    begin.send(()).context("the third thread is gone")?;
                    begun.recv().context("the third thread is gone")?;
                    occupier.interrupt(now_ns() + harm_ns)
                }))
            }
            Self::TimerHerd => herd::sleepers(scene),
            Self::Nmi => {
                let occupier = Occupier::in_backtrace(scene.cpu)?;
                // An idle CPU prints nothing.
                let (begin, begun) = third(scene.cpu, Scheduling::Fifo(1), 2 * harm_ns)?;
                pin(Some(scene.other_cpu))?;
                Ok(Box::new(move |_| {
                    begin.send(()).context("the third thread is gone")?;
                    begun.recv().context("the third thread is gone")?;
                    occupier.order(now_ns() + harm_ns);
                    occupy::ask_for_backtraces()
                }))
            }
            Self::CpuIdleExit => {
                let occupier = Occupier::after_idleness(scene.cpu)?;
                pin(Some(scene.other_cpu))?;
                Ok(Box::new(move |scene| {
                    let due_ns = scene.victim.due_after(scene.interval_ns, scene.interval_ns);
                    // Neither the cycle before nor anything else that wakes the CPU long before is meant.
                    sleep_until(due_ns - scene.interval_ns / 8)?;
                    occupier.order(due_ns + harm_ns);
                    sleep_until(due_ns + harm_ns)?;
                    // A CPU that was busy all the time, or nearly, was idle for nobody to hold up.
                    let held_up = occupier.began_ns().is_some_and(|began_ns| began_ns < due_ns + harm_ns / 2);
                    scene.misfired.fetch_or(!held_up, Ordering::AcqRel);
                    Ok(())
                }))
            }
            Self::Softirq if realtime() => herd::soft_timers(scene),
            Self::Softirq => net::broadcast(scene),
        }
    }
}

/// Whether this kernel is PREEMPT_RT.
fn realtime() -> bool {
    std::fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

/// A thread of this policy that is busy for so long when it is told to, and tells when it begins.
fn third(cpu: usize, policy: Scheduling, busy_ns: u64) -> Result<(mpsc::Sender<()>, mpsc::Receiver<()>)> {
    let (begin, begins) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let ready = pin(Some(cpu)).and_then(|()| policy.apply(0));
        let failed = ready.is_err();
        let _ = say.send(ready);
        if failed {
            return;
        }
        for () in begins {
            // Not everybody wants to know.
            let _ = tell.send(());
            burn_until(now_ns() + busy_ns);
        }
    });
    said.recv().context("the third thread is gone")??;
    Ok((begin, told))
}

/// Answers the victim's requests at once, and after a shot only when it has used up its quota.
fn helper(scene: &Arc<Scene>) -> Result<Shoot> {
    let armed = Arc::new(AtomicBool::new(false));
    let (say, said) = mpsc::channel();
    {
        let (scene, armed) = (Arc::clone(scene), Arc::clone(&armed));
        thread::spawn(move || -> Result<()> {
            pin(Some(scene.cpu))?;
            loop {
                rustix::io::read(&scene.victim.request.0, &mut [0_u8]).context("read of a request")?;
                let shot = armed.swap(false, Ordering::AcqRel);
                if shot {
                    burn_cpu_ns(BEYOND_QUOTA_NS);
                }
                rustix::io::write(&scene.victim.reply.1, &[1]).context("write of a reply")?;
                if shot {
                    say.send(()).context("the shooter is gone")?;
                }
            }
        });
    }
    Ok(Box::new(move |_| {
        armed.store(true, Ordering::Release);
        said.recv().context("the helper is gone")
    }))
}

/// This thread, in the other cgroup, holds the far lock; a near thread holds the victim's and wants the far one.
fn chain(scene: &Arc<Scene>) -> Result<Shoot> {
    let far = Arc::new(Mutex::new(()));
    let (begin, begins) = mpsc::channel();
    {
        let (scene, far) = (Arc::clone(scene), Arc::clone(&far));
        thread::spawn(move || -> Result<()> {
            pin(Some(scene.cpu))?;
            for () in begins {
                let near = scene.victim.plain.lock().unwrap_or_else(PoisonError::into_inner);
                drop(far.lock().unwrap_or_else(PoisonError::into_inner));
                drop(near);
            }
            Ok(())
        });
    }
    let dir = scene.far_cgroup.as_ref().context("--far-cgroup is missing")?;
    // A single thread: "tasks" on v1, "cgroup.threads" on v2.
    let list = ["cgroup.threads", "tasks"].map(|name| dir.join(name)).into_iter().find(|list| list.exists());
    let list = list.with_context(|| format!("{} is no cgroup", dir.display()))?;
    fs::write(&list, tid().to_string()).with_context(|| format!("write to {}", list.display()))?;
    Ok(Box::new(move |_| {
        let _held = far.lock().unwrap_or_else(PoisonError::into_inner);
        begin.send(()).context("the near thread is gone")?;
        burn_cpu_ns(BEYOND_QUOTA_NS);
        Ok(())
    }))
}

/// This thread never sleeps, and a fair one wants its CPU. Where neither sees the clock go on, the machine stood still.
fn taken(cpu: usize) -> Result<Shoot> {
    let (begin, begins) = mpsc::channel();
    let (say, said) = mpsc::channel();
    // Before this thread has a policy that a new thread would inherit.
    thread::spawn(move || -> Result<()> {
        pin(Some(cpu))?;
        for begin_ns in begins {
            say.send(gaps(begin_ns)).context("the shooter is gone")?;
        }
        Ok(())
    });
    Scheduling::Fifo(50).apply(0)?;
    Ok(Box::new(move |scene| {
        let begin_ns = now_ns();
        begin.send(begin_ns).context("the rival is gone")?;
        let own = gaps(begin_ns);
        let rivals = said.recv().context("the rival is gone")?;
        let mut stood_still = scene.stood_still.lock().unwrap_or_else(PoisonError::into_inner);
        for (from_ns, to_ns) in own {
            for (its_from_ns, its_to_ns) in &rivals {
                let (from_ns, to_ns) = (from_ns.max(*its_from_ns), to_ns.min(*its_to_ns));
                if to_ns > from_ns {
                    stood_still.push((from_ns, to_ns - from_ns));
                }
            }
        }
        Ok(())
    }))
}

/// Reads the clock without pause; returns from when to when it did not go on for this thread, ns.
fn gaps(begin_ns: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut last_ns = begin_ns;
    while last_ns < begin_ns + NEVER_SLEEPS_NS {
        let at_ns = now_ns();
        if at_ns - last_ns > LEAST_GAP_NS {
            gaps.push((last_ns, at_ns));
        }
        last_ns = at_ns;
    }
    gaps
}
