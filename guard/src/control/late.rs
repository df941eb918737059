//! Names a late wake-up: from the kernel side's record, and from the account that the flight recorder gave of it, to the
//! breach of a Snapshot with its cause.

use std::collections::BTreeMap;

use guard_common::comm;
use guard_common::event::{self, WakeContext, breach_flags as bits};
use guard_common::maps::{self, LOCK_PI_FUTEX, NO_SYSCALL};

use super::accounts::Accounted;
use super::clock::WallClock;
use super::known::Known;
use crate::explain::{self, Who};
use crate::snapshot::{
    Breach, BreachFlag, BreachKind, Cause, CgroupPath, ChainLink, Culprit, Evidence, LockKind, Occupied, SignalState,
    ThrottledBy, TimePart, Unaccounted, WokenBy, Word,
};

/// A breach of a Snapshot, explained.
pub(super) fn join(
    record: &event::Breach,
    accounted: Option<&Accounted>,
    recorder: Option<SignalState>,
    known: &Known,
    clock: WallClock,
) -> Breach {
    let latency_ns = record.switched_in_ns.saturating_sub(record.since_ns);
    let comm = comm::text(&record.comm).to_string();
    let timer = record.kind == event::BreachKind::Timer as u32;
    let blocked = record.kind == event::BreachKind::Blocked as u32;
    let kind = if timer {
        BreachKind::Timer
    } else if blocked {
        BreachKind::Blocked
    } else {
        BreachKind::Wakeup
    };
    let wait_since_ns =
        [record.waking_ns, record.expired_ns, record.since_ns].into_iter().find(|ns| *ns > 0).unwrap_or(0);
    let owner = known.threads.get(&record.lock_owner).filter(|_| record.lock_owner != 0);
    let mut breach = Breach {
        at: clock.rfc3339(record.switched_in_ns),
        tid: record.tid,
        cgroup: known.path_of(record.cgroup_id),
        kind: kind.into(),
        latency_ns,
        cause: Cause::Unknown.into(),
        culprit: None,
        shares: BTreeMap::new(),
        sentence: String::new(),
        comm,
        evidence: Evidence {
            cpu: record.cpu,
            prio: record.prio,
            waker_cpu: record.waker_cpu,
            irq_delay_ns: (timer && record.expired_ns > 0).then(|| record.expired_ns.saturating_sub(record.since_ns)),
            wait_ns: record.switched_in_ns.saturating_sub(wait_since_ns),
            hardirq_ns: record.hardirq_ns,
            softirq_ns: record.softirq_ns,
            occupied: occupied(&record.occupied_ns),
            prev_ran_ns: Some(record.prev_ran_ns),
            throttled_ns: record.throttled_ns,
            lock_wait_ns: record.lock_wait_ns,
            lock_owner: record.lock_owner,
            lock_owner_comm: owner.map(|of| of.info.comm.clone()),
            lock_owner_cgroup: owner.and_then(|of| of.info.cgroup.clone()),
            lock_kind: (record.flags & bits::LOCK != 0).then(|| lock_kind(record.lock_flags).into()),
            blocked_ns: blocked.then(|| wait_since_ns.saturating_sub(record.slept_ns)),
            blocked_in: blocked.then(|| system_call(record.slept_in)).flatten(),
            prev_tid: record.prev_tid,
            prev_comm: comm::text(&record.prev_comm).to_string(),
            prev_prio: record.prev_prio,
            prev_cgroup: (record.prev_cgroup_id > 0).then(|| known.path_of(record.prev_cgroup_id)),
            waker: record.waker,
            waker_comm: comm::text(&record.waker_comm).to_string(),
            waker_prio: record.waker_prio,
            waker_cgroup: (record.waker_cgroup_id > 0).then(|| known.path_of(record.waker_cgroup_id)),
            woken_by: woken_by(record.wake_context).map(Word::from),
            waker_throttled_ns: if blocked { throttled_while_asleep(record) } else { 0 },
            throttled_by: throttled_by(record, accounted, known),
            steal_ns: accounted.and_then(|accounted| accounted.steal_ns),
            parts: parts(accounted, known),
            unaccounted: unaccounted(accounted, recorder).map(Word::from),
            stacks: accounted.and_then(|accounted| accounted.stacks.clone()),
            chain: chain(accounted, known),
            flags: breach_flags(record.flags),
        },
    };
    explain::explain(&mut breach);
    breach
}

/// Whose quota stopped the last of those that were waited for, else the waker, else the late thread itself.
fn throttled_by(record: &event::Breach, accounted: Option<&Accounted>, known: &Known) -> Option<ThrottledBy> {
    let last = accounted.and_then(|accounted| accounted.account.as_ref()?.chain.last());
    let id = match last {
        Some(link) => link.who.cgroup_id,
        None if record.kind == event::BreachKind::Blocked as u32 => record.waker_cgroup_id,
        None => record.cgroup_id,
    };
    let path = known.path_of(id);
    CgroupPath::of(&path).and_above().find_map(|path| {
        let (info, reading) = known.cgroups.values().find(|(info, _)| info.path == path)?;
        let throttled = reading.cpu_stat.is_some_and(|stat| stat.nr_throttled > 0);
        reading.quota.filter(|_| throttled).map(|quota| ThrottledBy { cgroup: info.path.clone(), quota })
    })
}

/// Parts of the time lost, by name.
fn parts(accounted: Option<&Accounted>, known: &Known) -> Vec<TimePart> {
    let parts = accounted.and_then(|accounted| accounted.account.as_ref()).map_or(&[][..], |account| &account.parts);
    parts
        .iter()
        .map(|part| TimePart {
            cause: part.cause.into(),
            ns: part.ns,
            by: part.by.as_ref().map(|who| culprit(who, known)),
        })
        .collect()
}

/// Why there are no parts, or why they may not be all, by the state of the flight recorder.
fn unaccounted(accounted: Option<&Accounted>, recorder: Option<SignalState>) -> Option<Unaccounted> {
    match (recorder, accounted) {
        (None | Some(SignalState::Off), _) => Some(Unaccounted::RecorderOff),
        (Some(SignalState::Unavailable), _) => Some(Unaccounted::NoMemory),
        (_, None) => Some(Unaccounted::TooMany),
        (_, Some(Accounted { account: None, .. })) => Some(Unaccounted::Overwritten),
        (_, Some(Accounted { account: Some(account), .. })) if account.forgotten_ns > 0 => {
            Some(Unaccounted::Overwritten)
        }
        (Some(SignalState::Degraded), Some(_)) => Some(Unaccounted::RecorderDegraded),
        (Some(SignalState::Active), Some(_)) => None,
    }
}

/// Who was waited for, by name.
fn chain(accounted: Option<&Accounted>, known: &Known) -> Vec<ChainLink> {
    let chain = accounted.and_then(|accounted| accounted.account.as_ref()).map_or(&[][..], |account| &account.chain);
    chain.iter().map(|link| ChainLink { who: culprit(&link.who, known), did: link.did.into(), ns: link.ns }).collect()
}

fn culprit(who: &Who, known: &Known) -> Culprit {
    let comm = match known.threads.get(&who.tid) {
        Some(of) if who.comm.is_empty() && who.tid != 0 => of.info.comm.clone(),
        _ => who.comm.clone(),
    };
    Culprit { tid: who.tid, comm, cgroup: (who.cgroup_id > 0).then(|| known.path_of(who.cgroup_id)), prio: who.prio }
}

/// What had the CPU, where that is known: a wait in which nothing had it is one for another CPU.
fn occupied(ns: &maps::Occupied) -> Option<Occupied> {
    let of = |what: maps::Occupant| ns[what as usize];
    ns.iter().any(|ns| *ns > 0).then(|| Occupied {
        realtime_ns: of(maps::Occupant::RealTime),
        fair_ns: of(maps::Occupant::Fair),
        idle_ns: of(maps::Occupant::Idle),
        rt_throttled_ns: of(maps::Occupant::RtThrottled),
        fair_server_ns: of(maps::Occupant::FairServer),
    })
}

/// Part of the sleep in which the waker was throttled, by the last time that it was, ns.
fn throttled_while_asleep(record: &event::Breach) -> u64 {
    record.waker_throttled_ns.min(record.waker_throttled_until_ns.saturating_sub(record.slept_ns))
}

fn woken_by(context: u32) -> Option<WokenBy> {
    match context {
        c if c == WakeContext::Task as u32 => Some(WokenBy::Task),
        c if c == WakeContext::Softirq as u32 => Some(WokenBy::Softirq),
        c if c == WakeContext::Hardirq as u32 => Some(WokenBy::Hardirq),
        _ => None,
    }
}

/// Kind of a lock by contention_begin's flags: <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/lock.h>
fn lock_kind(flags: u32) -> LockKind {
    const SPIN: u32 = 1;
    const READ_OR_WRITE: u32 = 2 | 4;
    const RT: u32 = 8;
    const PERCPU: u32 = 16;
    const MUTEX: u32 = 32;
    match flags {
        LOCK_PI_FUTEX => LockKind::PiFutex,
        f if f & MUTEX != 0 => LockKind::Mutex,
        f if f & READ_OR_WRITE != 0 => LockKind::Rwlock,
        f if f & PERCPU != 0 => LockKind::PerCpuRwlock,
        f if f & RT != 0 => LockKind::RtMutex,
        f if f & SPIN != 0 => LockKind::Spinlock,
        _ => LockKind::Semaphore,
    }
}

/// Name of a system call in which threads wait, else its number.
fn system_call(number: u32) -> Option<String> {
    if number == NO_SYSCALL {
        return None;
    }
    let names = [
        (libc::SYS_futex, "futex"),
        (libc::SYS_clock_nanosleep, "clock_nanosleep"),
        (libc::SYS_nanosleep, "nanosleep"),
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_readv, "readv"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_pselect6, "pselect6"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
        (libc::SYS_wait4, "wait4"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_semtimedop, "semtimedop"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_sched_yield, "sched_yield"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_select, "select"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
    ];
    let name = names.into_iter().find(|(known, _)| *known == i64::from(number)).map(|(_, name)| name.to_owned());
    Some(name.unwrap_or_else(|| format!("system call {number}")))
}

fn breach_flags(flags: u32) -> Vec<Word<BreachFlag>> {
    [
        (bits::PREEMPTED, BreachFlag::Preempted),
        (bits::REMOTE_TIMER, BreachFlag::RemoteTimer),
        (bits::MIGRATED, BreachFlag::Migrated),
        (bits::RT_STOLEN, BreachFlag::RtStolen),
        (bits::FAIR_SERVER, BreachFlag::FairServer),
        (bits::LOCK, BreachFlag::Lock),
        (bits::SOFT_TIMER, BreachFlag::SoftTimer),
        (bits::FUTEX_OWNER, BreachFlag::FutexOwner),
    ]
    .into_iter()
    .filter(|(bit, _)| flags & bit != 0)
    .map(|(_, flag)| flag.into())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Account;

    #[test]
    fn a_late_wake_up_that_was_not_accounted_for_says_why() {
        let found = Accounted { account: Some(Account::default()), ..Accounted::default() };
        let overwritten = Accounted::default();
        let in_part = Account { forgotten_ns: 1, ..Account::default() };
        let in_part = Accounted { account: Some(in_part), ..Accounted::default() };
        for (recorder, accounted, why) in [
            (None, None, Some(Unaccounted::RecorderOff)),
            (Some(SignalState::Off), None, Some(Unaccounted::RecorderOff)),
            (Some(SignalState::Unavailable), None, Some(Unaccounted::NoMemory)),
            (Some(SignalState::Active), None, Some(Unaccounted::TooMany)),
            (Some(SignalState::Active), Some(&overwritten), Some(Unaccounted::Overwritten)),
            (Some(SignalState::Active), Some(&in_part), Some(Unaccounted::Overwritten)),
            (Some(SignalState::Degraded), Some(&found), Some(Unaccounted::RecorderDegraded)),
            (Some(SignalState::Active), Some(&found), None),
        ] {
            assert_eq!(unaccounted(accounted, recorder), why, "{recorder:?}");
        }
    }
}
