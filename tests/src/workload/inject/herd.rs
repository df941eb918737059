//! Herds: so many timers for the same instant that serving them takes as long as a shot should.

use std::{
    fs,
    os::fd::OwnedFd,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::Builder,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use guard::sched::set_scheduler;

use super::{Scene, hazard::Shoot};
use crate::sys;
use crate::workload::{Scheduling, now_ns, pin, sleep_until, timespec};

/// How long before the victim's own instant the herd's is, ns.
const BEFORE_NS: u64 = 50_000;

/// SCHED_FIFO threads that all sleep until the same instant: real-time sleepers expire in the hard interrupt, on
/// PREEMPT_RT too.
pub(super) fn sleepers(scene: &Arc<Scene>) -> Result<Shoot> {
    let instant_ns = Arc::new(AtomicU64::new(0));
    let begin = Arc::new(Barrier::new(scene.herd + 1));
    let end = Arc::new(Barrier::new(scene.herd + 1));
    let (say, said) = mpsc::channel();
    for _ in 0..scene.herd {
        let (cpu, instant_ns, say) = (scene.cpu, Arc::clone(&instant_ns), say.clone());
        let (begin, end) = (Arc::clone(&begin), Arc::clone(&end));
        let sleeper = move || -> Result<()> {
            let ready = pin(Some(cpu)).and_then(|()| Scheduling::Fifo(1).apply(0));
            let failed = ready.is_err();
            let _ = say.send(ready);
            if failed {
                return Ok(());
            }
            loop {
                begin.wait();
                sleep_until(instant_ns.load(Ordering::Acquire))?;
                end.wait();
            }
        };
        Builder::new().stack_size(64 * 1024).spawn(sleeper).context("clone of a sleeper")?;
    }
    for _ in 0..scene.herd {
        said.recv().map_err(|_| anyhow!("a sleeper is gone"))??;
    }
    Ok(Box::new(move |scene| {
        // All of them have to go to sleep before.
        let ahead_ns = 4 * scene.interval_ns + 60_000 * scene.herd as u64;
        let due_ns = scene.victim.due_after(ahead_ns, scene.interval_ns);
        instant_ns.store(due_ns - BEFORE_NS, Ordering::Release);
        begin.wait();
        end.wait();
        Ok(())
    }))
}

/// Timers of timerfds on PREEMPT_RT, where the thread `ktimers` of the CPU serves them, which is raised above the victim.
pub(super) fn soft_timers(scene: &Arc<Scene>) -> Result<Shoot> {
    sys::allow_files(scene.herd as u64 + 1_000).context("setrlimit(RLIMIT_NOFILE)")?;
    let thread = Raised::above_victim(&format!("ktimers/{}", scene.cpu))?;
    let timers = (0..scene.herd)
        .map(|_| {
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).context("timerfd_create")
        })
        .collect::<Result<Vec<OwnedFd>>>()?;
    Ok(Box::new(move |scene| {
        let _ = &thread;
        let ahead_ns = 2 * scene.interval_ns + 60_000 * scene.herd as u64;
        let due_ns = scene.victim.due_after(ahead_ns, scene.interval_ns);
        let once = Itimerspec { it_interval: timespec(0), it_value: timespec(due_ns - BEFORE_NS) };
        for timer in &timers {
            rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once).context("timerfd_settime")?;
        }
        sleep_until(due_ns.max(now_ns()) + scene.harm_ns)?;
        Ok(())
    }))
}

/// A kernel thread with a higher priority than it had, until it is dropped.
struct Raised {
    tid: u32,
    priority: i32,
}

impl Raised {
    fn above_victim(comm: &str) -> Result<Self> {
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if fs::read_to_string(format!("/proc/{tid}/comm")).is_ok_and(|own| own.trim_end() == comm) {
                let priority = sys::priority(tid).with_context(|| format!("sched_getparam({comm})"))?;
                set_scheduler(tid, libc::SCHED_FIFO, super::victim::PRIORITY + 10)
                    .with_context(|| format!("sched_setscheduler({comm})"))?;
                return Ok(Self { tid, priority });
            }
        }
        Err(anyhow!("there is no thread {comm}"))
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Err(error) = set_scheduler(self.tid, libc::SCHED_FIFO, self.priority) {
            eprintln!("guard-workload: thread {} keeps its priority: {error}", self.tid);
        }
    }
}
