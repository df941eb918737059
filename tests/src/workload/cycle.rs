//! A cyclic thread. Like cyclictest it asks for a point in time, reads the clock as soon as it is back and takes the
//! difference. It waits in every way that programs wait in, one way per run.

use std::{num::NonZeroU32, os::fd::OwnedFd, sync::atomic::AtomicU32};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, epoll},
    io::Errno,
    mm::{MlockAllFlags, mlockall},
    pipe::pipe,
    thread::{ClockId, NanosleepRelativeResult, futex},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags},
};

use super::{
    Outcome, Scheduling, Start, burn_until, now_ns, pin, tid, timespec,
    witness::{self, Seen, Witness},
};
use crate::sys::{self, PosixTimer};

/// How a cyclic thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// clock_nanosleep to an absolute time.
    ClockNanosleepAbs,
    /// clock_nanosleep for the interval.
    ClockNanosleepRel,
    /// read of a periodic timerfd.
    Timerfd,
    /// epoll_wait on a periodic timerfd, then its read.
    TimerfdEpoll,
    /// ppoll with the time left as time-out.
    Ppoll,
    /// epoll_wait with the interval as time-out (whole ms).
    EpollTimeout,
    /// FUTEX_WAIT_BITSET with an absolute time-out.
    Futex,
    /// A periodic POSIX timer and sigwait.
    PosixTimer,
    /// sched_yield under SCHED_DEADLINE, which sleeps until the next period.
    SchedYield,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to wait
    wait: Wait,
    /// Length of a cycle
    #[arg(long, default_value_t = 1000)]
    interval_us: u64,
    /// Wake-ups to wait for
    #[arg(long, default_value_t = 1000)]
    cycles: usize,
    /// other, fifo:PRIORITY or deadline:RUNTIME_US
    #[arg(long, default_value = "other")]
    policy: Scheduling,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
    /// Lock all memory
    #[arg(long)]
    mlockall: bool,
    /// See also when the kernel let the thread back into its own code, by a program in the kernel; not of relative waits
    #[arg(long)]
    witness: bool,
    /// Burn CPU for this long in every cycle
    #[arg(long, default_value_t = 0)]
    work_us: u64,
    /// In every so many-th cycle, stay busy for --stall-us (0 is never)
    #[arg(long, default_value_t = 0)]
    stall_every: usize,
    /// How long a stall takes
    #[arg(long, default_value_t = 0)]
    stall_us: u64,
    #[command(flatten)]
    start: Start,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    ensure!(args.interval_us > 0, "--interval-us is 0");
    ensure!(
        args.wait != Wait::SchedYield || matches!(args.policy, Scheduling::Deadline(_)),
        "sched-yield waits only with --policy deadline:RUNTIME_US"
    );
    ensure!(
        args.wait != Wait::EpollTimeout || args.interval_us.is_multiple_of(1000),
        "epoll_wait takes whole ms, {} us are not",
        args.interval_us
    );
    args.start.ready(&[tid()])?;
    pin(args.cpu)?;
    if args.mlockall {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).context("mlockall")?;
    }
    args.policy.apply(args.interval_us)?;
    if args.wait == Wait::SchedYield { yielding(args) } else { timed(args) }
}

/// A loop whose requested expiry is known to it. Beside its latencies it tells when it first and last read its clock, and the
/// longest time between two readings: for longer it cannot have waited for a CPU meanwhile.
fn timed(args: &Args) -> Result<Outcome> {
    let interval_ns = args.interval_us * 1000;
    let witness = args.witness.then(Witness::prepare).transpose()?;
    let mut all = vec![Seen::default(); args.cycles];
    let mut missed = 0;
    let began_ns = now_ns();
    let (mut last_ns, mut longest_ns) = (began_ns, 0);
    // The first expiry is a few cycles away: preparing takes longer than one.
    let mut next_ns = now_ns() + 10 * interval_ns;
    let mut waiter = Waiter::prepare(args.wait, next_ns, interval_ns)?;
    for (cycle, seen) in all.iter_mut().enumerate() {
        // An expiry that has passed is not waited for: nothing wakes, so nothing is timed.
        loop {
            let before_ns = now_ns();
            if next_ns > before_ns {
                break;
            }
            let Some(ticks) = waiter.skip(before_ns, next_ns)? else { break };
            missed += ticks;
            next_ns += ticks * interval_ns;
        }
        if let Some(witness) = &witness {
            witness.want(next_ns);
        }
        let woken = waiter.wait(next_ns)?;
        let since_expiry = |at_ns: u64| at_ns.saturating_sub(woken.expiry_ns);
        let returned_ns = witness.as_ref().and_then(Witness::returned_ns).map(since_expiry);
        *seen = Seen { own_ns: since_expiry(woken.at_ns), returned_ns };
        longest_ns = longest_ns.max(woken.at_ns - last_ns);
        last_ns = woken.at_ns;
        missed += woken.ticks - 1;
        next_ns = woken.next_ns;
        if args.work_us > 0 {
            burn_until(now_ns() + args.work_us * 1000);
        }
        if args.stall_every > 0 && (cycle + 1) % args.stall_every == 0 {
            burn_until(now_ns() + args.stall_us * 1000);
        }
    }
    let latencies_ns: Vec<u64> = all.iter().map(|seen| seen.own_ns).collect();
    let outcome = Outcome::of_latencies(&latencies_ns, missed)
        .with("began_ns", began_ns)
        .with("ended_ns", last_ns)
        .with("longest_ns", longest_ns);
    Ok(if witness.is_some() { witness::add_to(outcome, &all) } else { outcome })
}

/// A loop of sched_yield. Its expiries are the starts of its periods, which user space is not told: they are taken
/// from the earliest wake-up, so the latencies are relative to that one.
fn yielding(args: &Args) -> Result<Outcome> {
    let interval_ns = args.interval_us * 1000;
    let mut at_ns = vec![0_u64; args.cycles];
    for (cycle, at_ns) in at_ns.iter_mut().enumerate() {
        // Whoever yields after its next period has begun is given new run time at once, without a timer: no wait.
        let switches = sys::switches();
        while {
            rustix::thread::sched_yield();
            *at_ns = now_ns();
            sys::switches() == switches
        } {}
        if args.work_us > 0 {
            burn_until(*at_ns + args.work_us * 1000);
        }
        if args.stall_every > 0 && (cycle + 1) % args.stall_every == 0 {
            burn_until(now_ns() + args.stall_us * 1000);
        }
    }
    let first_ns = at_ns.first().copied().context("--cycles is 0")?;
    let (mut periods, mut offsets_ns) = (Vec::with_capacity(at_ns.len()), Vec::with_capacity(at_ns.len()));
    for ns in &at_ns {
        let since_ns = ns - first_ns;
        let period = (since_ns + interval_ns / 2) / interval_ns;
        periods.push(period);
        offsets_ns.push(since_ns.cast_signed() - (period * interval_ns).cast_signed());
    }
    let earliest_ns = offsets_ns.iter().min().copied().unwrap_or(0);
    let latencies_ns: Vec<u64> = offsets_ns.iter().map(|ns| (ns - earliest_ns).cast_unsigned()).collect();
    let missed = periods.windows(2).map(|pair| (pair[1] - pair[0]).saturating_sub(1)).sum();
    Ok(Outcome::of_latencies(&latencies_ns, missed))
}

/// One return from a wait. Instants are CLOCK_MONOTONIC.
struct Woken {
    /// The requested expiry, ns.
    expiry_ns: u64,
    /// When the thread was back, ns.
    at_ns: u64,
    /// Expiries that this return stands for.
    ticks: u64,
    /// The expiry after it, ns.
    next_ns: u64,
}

/// What one way of waiting needs.
struct Waiter {
    interval_ns: u64,
    by: By,
}

enum By {
    ClockNanosleepAbs,
    ClockNanosleepRel,
    Timerfd(OwnedFd),
    TimerfdEpoll {
        timer: OwnedFd,
        epoll: OwnedFd,
        events: Vec<epoll::Event>,
    },
    /// Nobody ever writes to the pipe.
    Ppoll {
        silent: OwnedFd,
        _writer: OwnedFd,
    },
    EpollTimeout {
        epoll: OwnedFd,
        events: Vec<epoll::Event>,
    },
    Futex(AtomicU32),
    PosixTimer(PosixTimer),
}

impl Waiter {
    fn prepare(wait: Wait, first_ns: u64, interval_ns: u64) -> Result<Self> {
        let by = match wait {
            Wait::ClockNanosleepAbs | Wait::SchedYield => By::ClockNanosleepAbs,
            Wait::ClockNanosleepRel => By::ClockNanosleepRel,
            Wait::Timerfd => By::Timerfd(timerfd(first_ns, interval_ns)?),
            Wait::TimerfdEpoll => {
                let (timer, epoll) = (timerfd(first_ns, interval_ns)?, new_epoll()?);
                epoll::add(&epoll, &timer, epoll::EventData::new_u64(0), epoll::EventFlags::IN).context("epoll_ctl")?;
                By::TimerfdEpoll { timer, epoll, events: Vec::with_capacity(1) }
            }
            Wait::Ppoll => {
                let (silent, writer) = pipe().context("pipe")?;
                By::Ppoll { silent, _writer: writer }
            }
            Wait::EpollTimeout => By::EpollTimeout { epoll: new_epoll()?, events: Vec::with_capacity(1) },
            Wait::Futex => By::Futex(AtomicU32::new(0)),
            Wait::PosixTimer => By::PosixTimer(PosixTimer::start(first_ns, interval_ns).context("timer_create")?),
        };
        Ok(Self { interval_ns, by })
    }

    /// Waits for the expiry at `next_ns`, or for one interval where the wait is relative.
    fn wait(&mut self, next_ns: u64) -> Result<Woken> {
        let interval_ns = self.interval_ns;
        let after = |expiry_ns, ticks| {
            let at_ns = now_ns();
            Woken { expiry_ns, at_ns, ticks, next_ns: expiry_ns + ticks * interval_ns }
        };
        match &mut self.by {
            By::ClockNanosleepAbs => {
                rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &timespec(next_ns))
                    .context("clock_nanosleep")?;
                Ok(after(next_ns, 1))
            }
            By::ClockNanosleepRel => {
                let expiry_ns = now_ns() + interval_ns;
                match rustix::thread::clock_nanosleep_relative(ClockId::Monotonic, &timespec(interval_ns)) {
                    NanosleepRelativeResult::Ok => {}
                    NanosleepRelativeResult::Interrupted(_) => return Err(Errno::INTR).context("clock_nanosleep"),
                    NanosleepRelativeResult::Err(error) => return Err(error).context("clock_nanosleep"),
                }
                Ok(later(after(expiry_ns, 1)))
            }
            By::Timerfd(timer) => {
                let ticks = read_ticks(timer)?;
                Ok(after(next_ns, ticks))
            }
            By::TimerfdEpoll { timer, epoll, events } => {
                events.clear();
                epoll::wait(&*epoll, spare_capacity(events), None).context("epoll_wait")?;
                // The program is awake here; the read below is its first work.
                let mut woken = after(next_ns, 1);
                woken.ticks = read_ticks(timer)?;
                woken.next_ns = next_ns + woken.ticks * interval_ns;
                Ok(woken)
            }
            By::Ppoll { silent, .. } => {
                let left_ns = next_ns.saturating_sub(now_ns());
                let mut fds = [PollFd::new(silent, PollFlags::IN)];
                rustix::event::poll(&mut fds, Some(&timespec(left_ns))).context("ppoll")?;
                Ok(after(next_ns, 1))
            }
            By::EpollTimeout { epoll, events } => {
                events.clear();
                let expiry_ns = now_ns() + interval_ns;
                epoll::wait(&*epoll, spare_capacity(events), Some(&timespec(interval_ns))).context("epoll_wait")?;
                Ok(later(after(expiry_ns, 1)))
            }
            By::Futex(word) => {
                match futex::wait_bitset(word, futex::Flags::PRIVATE, 0, Some(&timespec(next_ns)), NonZeroU32::MAX) {
                    Err(Errno::TIMEDOUT) => Ok(after(next_ns, 1)),
                    Err(error) => Err(error).context("futex(FUTEX_WAIT_BITSET)"),
                    Ok(()) => anyhow::bail!("somebody woke a private futex"),
                }
            }
            By::PosixTimer(timer) => {
                let ticks = timer.wait().context("sigwait")?;
                Ok(after(next_ns, ticks))
            }
        }
    }

    /// Takes expiries from `next_ns` on that had passed at `before_ns`, and says how many. None when the kernel has not
    /// come round to them: on PREEMPT_RT the timers' thread may have had to wait for this one, and then a wait is real.
    fn skip(&mut self, before_ns: u64, next_ns: u64) -> Result<Option<u64>> {
        match &self.by {
            By::Timerfd(timer) | By::TimerfdEpoll { timer, .. } => {
                let mut fds = [PollFd::new(timer, PollFlags::IN)];
                match rustix::event::poll(&mut fds, Some(&timespec(0))).context("ppoll")? {
                    0 => Ok(None),
                    _ => read_ticks(timer).map(Some),
                }
            }
            By::PosixTimer(timer) => timer.take_pending().context("sigtimedwait"),
            _ => Ok(Some((before_ns - next_ns) / self.interval_ns + 1)),
        }
    }
}

/// A relative wait starts anew from where the thread is, so its next expiry is never in the past.
fn later(mut woken: Woken) -> Woken {
    woken.next_ns = u64::MAX;
    woken
}

fn timerfd(first_ns: u64, interval_ns: u64) -> Result<OwnedFd> {
    let fd =
        rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).context("timerfd_create")?;
    let when = Itimerspec { it_interval: timespec(interval_ns), it_value: timespec(first_ns) };
    rustix::time::timerfd_settime(&fd, TimerfdTimerFlags::ABSTIME, &when).context("timerfd_settime")?;
    Ok(fd)
}

fn read_ticks(timer: &OwnedFd) -> Result<u64> {
    let mut ticks = [0; 8];
    rustix::io::read(timer, &mut ticks).context("read of a timerfd")?;
    Ok(u64::from_ne_bytes(ticks))
}

fn new_epoll() -> Result<OwnedFd> {
    epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create1")
}
