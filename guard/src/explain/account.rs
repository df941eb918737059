//! Accounts for the whole time of a late wake-up by the CPUs' timeline: which task had the CPU that the thread waited for,
//! and what the thread that it slept for did meanwhile, through as many threads as wait for one another.

use std::collections::BTreeMap;

use guard_common::event::{BreachKind, WakeContext, breach_flags};
use guard_common::flight::flags;
use guard_common::{comm, event, maps};

use super::interrupt::softirq_name;
use super::task::{FAIR, MOVER, Who, cause_of};
use super::timeline::{Activity, Occupant, Timeline};
use crate::snapshot::{Cause, Did};

/// How long a wake-up from another CPU may be on its way: until then the scheduler chooses without knowing of it, ns.
const SETTLED_NS: u64 = 500_000;
/// Most threads of a chain.
const CHAIN: usize = 8;

/// A part of the time lost, with its cause and with who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseShare {
    /// Why.
    pub cause: Cause,
    /// How long, ns.
    pub ns: u64,
    /// Because of whom.
    pub by: Option<Who>,
}

/// A thread that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which.
    pub who: Who,
    /// What it did most of the time.
    pub did: Did,
    /// For how long it was waited for, ns.
    pub ns: u64,
}

/// The time of a breach, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Parts, the largest first. Together they are the latency.
    pub parts: Vec<CauseShare>,
    /// Threads that were waited for, each by the one before it.
    pub chain: Vec<Link>,
    /// Time before the recorder reaches back, which totals account for and nobody is named for, ns.
    pub forgotten_ns: u64,
}

/// Accounts for a breach. Where the recorder does not reach back to the begin of a wait for a CPU, what came before is shared
/// out by the running totals of that CPU. `None` when it reaches back to none of it, or not through a sleep, or when there are no
/// totals because the thread waited for another CPU.
#[must_use]
pub fn account(record: &event::Breach, timeline: &Timeline) -> Option<Account> {
    let reach_ns = timeline.reaches_back_to(record.cpu)?;
    let sleeps = record.kind == BreachKind::Blocked as u32;
    let totals = record.occupied_ns.iter().any(|ns| *ns > 0);
    if reach_ns > record.since_ns && (sleeps || !totals || reach_ns >= record.switched_in_ns) {
        return None;
    }
    let mut accounting = Accounting { record, timeline, parts: BTreeMap::new() };
    let end_ns = record.switched_in_ns;
    let begin_ns = record.since_ns;
    let woken_ns = [record.waking_ns, record.expired_ns, begin_ns].into_iter().find(|ns| *ns > 0).unwrap_or(begin_ns);
    let woken_ns = woken_ns.clamp(begin_ns, end_ns);
    let mut chain = Vec::new();
    let known_ns = reach_ns.clamp(woken_ns, end_ns);
    if record.kind == BreachKind::Timer as u32 {
        let expired_ns = if record.expired_ns > 0 { record.expired_ns } else { woken_ns };
        let expired_ns = expired_ns.clamp(begin_ns, woken_ns);
        accounting.late_timer(begin_ns, expired_ns);
        let callback = if accounting.flag(breach_flags::SOFT_TIMER) { Cause::SoftTimer } else { Cause::Irq };
        accounting.add(callback, woken_ns - expired_ns, None);
    } else if record.kind == BreachKind::Blocked as u32 {
        chain = accounting.sleep(begin_ns, woken_ns);
    } else {
        accounting.add(Cause::Unknown, woken_ns - begin_ns, None);
    }
    accounting.forgotten(woken_ns, known_ns);
    accounting.wait(woken_ns, known_ns, end_ns);
    let mut parts: Vec<CauseShare> = accounting.parts.into_values().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.ns));
    Some(Account { parts, chain, forgotten_ns: reach_ns.saturating_sub(begin_ns) })
}

struct Accounting<'a> {
    record: &'a event::Breach,
    timeline: &'a Timeline,
    parts: BTreeMap<(Cause, u32, Option<String>), CauseShare>,
}

impl Accounting<'_> {
    fn flag(&self, flag: u32) -> bool {
        self.record.flags & flag != 0
    }

    fn add(&mut self, cause: Cause, ns: u64, by: Option<Who>) {
        if ns == 0 {
            return;
        }
        let key = (cause, by.as_ref().map_or(0, |who| who.tid), by.as_ref().map(|who| who.comm.clone()));
        self.parts.entry(key).or_insert(CauseShare { cause, ns: 0, by }).ns += ns;
    }

    /// Time in interrupts has a cause of its own, whichever thread waits.
    fn interrupt(&self, what: &Occupant) -> Option<(Cause, Who)> {
        let (cause, comm) = match what {
            Occupant::Irq(number) => (Cause::Irq, self.timeline.interrupts().name(*number)),
            Occupant::Softirq(vector) => (Cause::Softirq, softirq_name(*vector)),
            Occupant::Nmi => (Cause::Nmi, "NMI".to_owned()),
            Occupant::Task(..) | Occupant::Unknown => return None,
        };
        Some((cause, Who { tid: 0, comm, prio: None, cgroup_id: 0 }))
    }

    /// From the timer's expiry until its callback ran.
    fn late_timer(&mut self, from_ns: u64, to_ns: u64) {
        let soft = self.flag(breach_flags::SOFT_TIMER);
        let remote = self.flag(breach_flags::REMOTE_TIMER);
        for span in self.timeline.occupants(self.record.waker_cpu, from_ns, to_ns) {
            let ns = span.ns();
            if let Some((cause, who)) = self.interrupt(&span.what) {
                // The soft interrupts before its own are what a soft timer waits for.
                let cause = if soft && cause == Cause::Softirq { Cause::SoftTimer } else { cause };
                self.add(cause, ns, Some(who));
                continue;
            }
            let Occupant::Task(who, ..) = span.what else {
                self.add(Cause::Unknown, ns, None);
                continue;
            };
            match (soft, remote) {
                (_, true) => self.add(Cause::RemoteTimer, ns, (who.tid != 0).then_some(who)),
                (true, false) => self.add(Cause::SoftTimer, ns, (who.tid != 0).then_some(who)),
                (false, false) if who.tid == 0 => self.add(Cause::CpuIdleExit, ns, None),
                // The task that ran had interrupts off, or the whole CPU stood still: that cannot be seen.
                (false, false) => self.add(Cause::Unknown, ns, Some(who)),
            }
        }
    }

    /// From when the thread became ready until the recorder reaches back to: by what its CPU did in the whole wait, less what it is
    /// seen to have done in the rest of it.
    fn forgotten(&mut self, from_ns: u64, to_ns: u64) {
        let (record, mut left_ns) = (self.record, to_ns - from_ns);
        if left_ns == 0 {
            return;
        }
        if record.prio >= FAIR {
            self.add(Cause::PolicyFallback, left_ns, None);
            return;
        }
        let mut occupied = record.occupied_ns;
        let mut interrupts = [(Cause::Irq, record.hardirq_ns), (Cause::Softirq, record.softirq_ns)];
        for span in self.timeline.tasks(record.cpu, to_ns, record.switched_in_ns) {
            let Occupant::Task(who, bits, _) = &span.what else { continue };
            let kind = kind_of(who, *bits);
            // Whether the fair server takes the CPU is known of each task here, and there of the first only.
            let other = match kind {
                maps::Occupant::RtThrottled => maps::Occupant::FairServer,
                maps::Occupant::FairServer => maps::Occupant::RtThrottled,
                kind => kind,
            };
            let mut ns = span.ns();
            for kind in [kind, other] {
                let seen_ns = ns.min(occupied[kind as usize]);
                occupied[kind as usize] -= seen_ns;
                ns -= seen_ns;
            }
        }
        for span in self.timeline.occupants(record.cpu, to_ns, record.switched_in_ns) {
            let of = self.interrupt(&span.what).map(|(cause, _)| cause);
            for (_, ns) in interrupts.iter_mut().filter(|(cause, _)| Some(*cause) == of) {
                *ns = ns.saturating_sub(span.ns());
            }
        }
        let all: u64 = occupied.iter().sum();
        if all == 0 {
            // The clocks of both agree that nothing is left.
            self.add(Cause::Unknown, left_ns, None);
            return;
        }
        for (cause, ns) in interrupts {
            let ns = ns.min(left_ns);
            self.add(cause, ns, None);
            left_ns -= ns;
        }
        // Whatever the rest is, it is shared as the totals are.
        let shared_ns = left_ns;
        for (kind, cause) in [
            (maps::Occupant::Fair, Cause::LowerPriorityBlocking),
            (maps::Occupant::Idle, Cause::CpuIdleExit),
            (maps::Occupant::RtThrottled, Cause::RtThrottling),
            (maps::Occupant::FairServer, Cause::FairServer),
        ] {
            let ns = u128::from(occupied[kind as usize]) * u128::from(shared_ns) / u128::from(all);
            let ns = u64::try_from(ns).unwrap_or(0).min(left_ns);
            self.add(cause, ns, None);
            left_ns -= ns;
        }
        self.add(Cause::HigherPriority, left_ns, None);
    }

    /// From when the thread became ready until it had a CPU, as far as the recorder reaches back: from `from_ns` on.
    fn wait(&mut self, ready_ns: u64, from_ns: u64, to_ns: u64) {
        let own = self.record.tid;
        let mut cpu = self.timeline.cpu_before(own, from_ns).unwrap_or(self.record.cpu);
        let moves: Vec<(u64, u32)> = self
            .timeline
            .between(from_ns, to_ns)
            .iter()
            .filter(|e| e.kind == guard_common::flight::kind::MIGRATE && e.tid == own)
            .map(|e| (e.at_ns, e.arg))
            .collect();
        let (mut since_ns, mut ready_ns) = (from_ns, ready_ns);
        let mut moved = Moved::Never;
        for (at_ns, to) in moves.into_iter().chain([(to_ns, self.record.cpu)]) {
            let moves = to != cpu && at_ns < to_ns;
            if moves && moved == Moved::Never {
                moved = Moved::After;
            }
            self.queued(cpu, ready_ns, (since_ns, at_ns), moved);
            if moves {
                moved = Moved::Before;
            }
            (cpu, since_ns, ready_ns) = (to, at_ns, at_ns);
        }
    }

    /// While the thread waited for `cpu`, for which it was ready from `ready_ns` on.
    fn queued(&mut self, cpu: u32, ready_ns: u64, (from_ns, to_ns): (u64, u64), moved: Moved) {
        if to_ns <= from_ns {
            return;
        }
        let prio = self.record.prio;
        if prio >= FAIR {
            let throttled = self.record.throttled_ns.min(to_ns - from_ns);
            let all = to_ns - from_ns;
            self.add(Cause::PolicyFallback, throttled, None);
            let rest = all - throttled;
            for span in self.timeline.occupants(cpu, from_ns, to_ns) {
                // Which part of the wait the quota caused is not known.
                let ns = u64::try_from(u128::from(span.ns()) * u128::from(rest) / u128::from(all)).unwrap_or(0);
                match span.what {
                    Occupant::Task(who, ..) if who.tid != 0 => self.add(Cause::PolicyFallback, ns, Some(who)),
                    what => match self.interrupt(&what) {
                        Some((cause, who)) => self.add(cause, ns, Some(who)),
                        None => self.add(Cause::PolicyFallback, ns, None),
                    },
                }
            }
            return;
        }
        let throttled = self.timeline.is_rt_throttled(self.record.tid, ready_ns).then_some(false);
        let mut taken = self.timeline.taken(cpu, from_ns).or(throttled.filter(|_| from_ns == ready_ns));
        for span in self.timeline.occupants(cpu, from_ns, to_ns) {
            let ns = span.ns();
            match span.what {
                Occupant::Task(who, bits, since_ns) => {
                    if is_real_time(&who) {
                        taken = None;
                    } else if bits & flags::STOLEN != 0 || since_ns > ready_ns + SETTLED_NS {
                        // A scheduler that chooses a fair task while this thread waits does not choose real-time ones now.
                        taken = Some(taken.unwrap_or(false) || bits & flags::SERVER != 0);
                    }
                    let cause = who_had_the_cpu(&who, taken, prio, moved);
                    self.add(cause, ns, (who.tid != 0).then_some(who));
                }
                what => match self.interrupt(&what) {
                    Some((cause, who)) => self.add(cause, ns, Some(who)),
                    None => self.add(Cause::Unknown, ns, None),
                },
            }
        }
    }

    /// The sleep of a thread for a lock, or in the middle of its cycle.
    fn sleep(&mut self, from_ns: u64, to_ns: u64) -> Vec<Link> {
        let record = self.record;
        let lock = self.flag(breach_flags::LOCK);
        let futex = i64::from(record.slept_in) == libc::SYS_futex;
        let fault = record.slept_in == maps::NO_SYSCALL;
        let base = if lock {
            Cause::LockContention
        } else if futex {
            Cause::NonPiLock
        } else if fault {
            Cause::PageFault
        } else {
            Cause::Unknown
        };
        let throttled = if lock || futex || fault { Cause::ThrottledLockHolder } else { Cause::CoThreadThrottled };
        let by_task = record.wake_context == WakeContext::Task as u32;
        // The kernel knows the owner of its locks; of a futex its word may.
        let owned = lock || self.flag(breach_flags::FUTEX_OWNER);
        let holder = if owned && record.lock_owner != 0 {
            record.lock_owner
        } else if by_task {
            record.waker
        } else {
            // A time-out, a signal, or a device has woken it.
            let cause = if base == Cause::NonPiLock { Cause::Unknown } else { base };
            self.add(cause, to_ns - from_ns, None);
            return Vec::new();
        };
        let mut chain = Vec::new();
        let why = WaitCauses { base, throttled };
        self.waited_for(holder, why, from_ns, to_ns, &mut chain);
        chain
    }

    /// What `tid` did while it was waited for.
    fn waited_for(&mut self, tid: u32, why: WaitCauses, from_ns: u64, to_ns: u64, chain: &mut Vec<Link>) {
        let who = self.timeline.who(tid, to_ns).unwrap_or_else(|| self.waker(tid));
        let mut times: BTreeMap<Did, u64> = BTreeMap::new();
        // The longest sleep that another thread ended.
        let mut next: (u64, Vec<Link>) = (0, Vec::new());
        let deep = chain.len() + 1 >= CHAIN;
        for span in self.timeline.activities(tid, from_ns, to_ns) {
            let ns = span.ns();
            match span.what {
                Activity::Runs => {
                    *times.entry(Did::Ran).or_insert(0) += ns;
                    self.add(why.base, ns, Some(who.clone()));
                }
                Activity::Waits { cpu, throttled_ns } => {
                    let throttled = throttled_ns.min(ns);
                    *times.entry(Did::Throttled).or_insert(0) += throttled;
                    self.add(why.throttled, throttled, Some(who.clone()));
                    *times.entry(Did::Preempted).or_insert(0) += ns - throttled;
                    self.preempted(&who, why, cpu, (span.from_ns, span.to_ns), ns - throttled);
                }
                Activity::Sleeps { woken_by: Some(waker) } if !deep && waker != tid => {
                    *times.entry(Did::Waited).or_insert(0) += ns;
                    let mut links = vec![];
                    self.waited_for(waker, why, span.from_ns, span.to_ns, &mut links);
                    if ns > next.0 {
                        next = (ns, links);
                    }
                }
                Activity::Sleeps { .. } => {
                    *times.entry(Did::Slept).or_insert(0) += ns;
                    self.add(why.base, ns, Some(who.clone()));
                }
                Activity::Unknown => self.add(why.base, ns, Some(who.clone())),
            }
        }
        let did = times.into_iter().max_by_key(|(_, ns)| *ns).map_or(Did::Ran, |(did, _)| did);
        chain.push(Link { who, did, ns: to_ns - from_ns });
        if did == Did::Waited {
            chain.append(&mut next.1);
        }
        chain.truncate(CHAIN);
    }

    /// `holder` could run and did not: `ns` of `span` are to be accounted for.
    fn preempted(&mut self, holder: &Who, why: WaitCauses, cpu: u32, span: (u64, u64), ns: u64) {
        let all = span.1.saturating_sub(span.0);
        if ns == 0 || all == 0 {
            return;
        }
        let mut left = ns;
        for part in self.timeline.occupants(cpu, span.0, span.1) {
            let share = u64::try_from(u128::from(part.ns()) * u128::from(ns) / u128::from(all)).unwrap_or(0).min(left);
            left -= share;
            match part.what {
                Occupant::Task(who, ..) if who.tid != 0 && who.tid != holder.tid => {
                    self.add(Cause::LockHolderPreempted, share, Some(who));
                }
                what => match self.interrupt(&what) {
                    Some((cause, who)) => self.add(cause, share, Some(who)),
                    None => self.add(why.base, share, Some(holder.clone())),
                },
            }
        }
        self.add(why.base, left, Some(holder.clone()));
    }

    /// The waker as the breach record has it.
    fn waker(&self, tid: u32) -> Who {
        let record = self.record;
        if tid == record.waker {
            let comm = comm::text(&record.waker_comm).to_string();
            return Who { tid, comm, prio: Some(record.waker_prio), cgroup_id: record.waker_cgroup_id };
        }
        Who { tid, comm: String::new(), prio: None, cgroup_id: 0 }
    }
}

/// What a wait for another thread is called: while that one runs or sleeps, and while a quota stops it.
#[derive(Clone, Copy)]
struct WaitCauses {
    base: Cause,
    throttled: Cause,
}

/// Whether the late thread goes to another CPU before or after it waits for this one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    Never,
    Before,
    After,
}

/// Why `who` had the CPU that a real-time thread of priority `prio` waited for. `taken` when the kernel gives it to fair
/// tasks only, and whether the fair server does.
fn who_had_the_cpu(who: &Who, taken: Option<bool>, prio: i32, moved: Moved) -> Cause {
    // One that became real-time keeps the CPU from a real-time thread only by a priority that is not below.
    let its_prio = who.prio.unwrap_or(prio);
    if let Some(server) = taken.filter(|_| its_prio >= FAIR) {
        if server { Cause::FairServer } else { Cause::RtThrottling }
    } else if who.tid == 0 {
        if moved == Moved::Before { Cause::Migration } else { Cause::CpuIdleExit }
    } else if who.comm.starts_with(MOVER) {
        // It has other work as well, and then is above every other task.
        if moved == Moved::Never { Cause::HigherPriority } else { Cause::Migration }
    } else {
        cause_of(&who.comm).unwrap_or(if its_prio <= prio {
            Cause::HigherPriority
        } else {
            Cause::LowerPriorityBlocking
        })
    }
}

/// Whether it is real-time, or became so while it ran.
fn is_real_time(who: &Who) -> bool {
    who.prio.is_none_or(|prio| prio < FAIR)
}

/// As which kind of occupant the kernel side has counted it.
fn kind_of(who: &Who, bits: u8) -> maps::Occupant {
    if is_real_time(who) {
        maps::Occupant::RealTime
    } else if bits & flags::STOLEN != 0 {
        if bits & flags::SERVER != 0 { maps::Occupant::FairServer } else { maps::Occupant::RtThrottled }
    } else if who.tid == 0 {
        maps::Occupant::Idle
    } else {
        maps::Occupant::Fair
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use guard_common::flight::{Entry, kind};
    use proptest::prelude::*;

    use super::super::testing::{flagged, switch, task, waking};
    use super::*;

    const MS: u64 = 1_000_000;
    const VICTIM: u32 = 80;

    /// The victim (FIFO 80) was late from `since` ms to `to` ms.
    fn record(kind: BreachKind, since: u64, waking: u64, to: u64) -> event::Breach {
        event::Breach {
            kind: kind as u32,
            since_ns: since * MS,
            slept_ns: since * MS,
            waking_ns: waking * MS,
            switched_in_ns: to * MS,
            tid: VICTIM,
            prio: 19,
            cpu: 1,
            waker_cpu: 1,
            wake_context: WakeContext::Task as u32,
            ..event::Breach::zeroed()
        }
    }

    fn accounted(record: &event::Breach, entries: &[Entry]) -> Account {
        let mut timeline = Timeline::default();
        timeline.add(entries);
        let account = account(record, &timeline).expect("the recorder reaches back");
        let sum: u64 = account.parts.iter().map(|part| part.ns).sum();
        assert_eq!(sum, record.switched_in_ns - record.since_ns, "{account:?}");
        account
    }

    fn ms(account: &Account, cause: Cause) -> u64 {
        account.parts.iter().filter(|part| part.cause == cause).map(|part| part.ns).sum::<u64>() / MS
    }

    #[test]
    fn a_wait_is_shared_out_among_those_who_had_the_cpu() {
        let irq = Entry { kind: kind::IRQ, arg: 24, took_ns: 2 * MS, ..waking(6 * MS, 0, 0, 0) };
        let entries = [
            switch(0, VICTIM, 90, 1),
            waking(MS, VICTIM, 90, 1),
            irq,
            switch(8 * MS, 90, task(10, 120), 0),
            switch(9 * MS, 10, VICTIM, 0),
        ];
        let account = accounted(&record(BreachKind::Wakeup, 1, 1, 9), &entries);
        assert_eq!((ms(&account, Cause::HigherPriority), ms(&account, Cause::Irq)), (5, 2), "{account:?}");
        // The scheduler chose a fair task though the victim could run.
        assert_eq!(ms(&account, Cause::RtThrottling), 1);
        assert_eq!(account.parts[0].by.as_ref().map(|who| who.comm.as_str()), Some("t90"));
    }

    #[test]
    fn a_thread_that_cannot_be_preempted_is_told_from_one_that_was_chosen() {
        let irq = Entry { kind: kind::IRQ, arg: 24, took_ns: MS, ..waking(5 * MS, 0, 0, 0) };
        let entries = [switch(0, VICTIM, task(10, 120), 1), irq, switch(9 * MS, 10, VICTIM, 0)];
        let account = accounted(&record(BreachKind::Wakeup, 1, 1, 9), &entries);
        assert_eq!((ms(&account, Cause::LowerPriorityBlocking), ms(&account, Cause::Irq)), (7, 1), "{account:?}");
    }

    #[test]
    fn a_soft_interrupt_whose_thread_had_to_leave_its_cpu_did_not_run_meanwhile() {
        // ktimers/1 is in a soft interrupt from 1 ms on, with a hard one of 1 ms in it, and leaves its CPU from 5 ms to 15 ms.
        let irq = Entry { kind: kind::IRQ, arg: 24, took_ns: MS, ..waking(3 * MS, 0, 0, 0) };
        let soft = Entry { kind: kind::SOFTIRQ, arg: 8, took_ns: 4 * MS, ..waking(16 * MS, 0, 0, 0) };
        let entries = [
            switch(0, VICTIM, task(3, 98), 1),
            irq,
            flagged(switch(5 * MS, 3, 90, 0), flags::PREEMPTED),
            waking(6 * MS, VICTIM, 90, 1),
            switch(14 * MS, 90, VICTIM, 1),
            switch(15 * MS, VICTIM, task(3, 98), 1),
            soft,
        ];
        let account = accounted(&record(BreachKind::Wakeup, 6, 6, 14), &entries);
        assert_eq!((ms(&account, Cause::HigherPriority), ms(&account, Cause::Softirq)), (8, 0), "{account:?}");
        // Another thread that waited all the time.
        let account = accounted(&record(BreachKind::Wakeup, 1, 1, 16), &entries);
        let parts = [Cause::HigherPriority, Cause::Softirq, Cause::Irq].map(|cause| ms(&account, cause));
        assert_eq!(parts, [10, 4, 1], "{account:?}");
    }

    #[test]
    fn what_is_taken_from_real_time_threads_is_not_called_blocking() {
        for (bits, cause) in [(flags::STOLEN, Cause::RtThrottling), (flags::STOLEN | flags::SERVER, Cause::FairServer)]
        {
            let taken = flagged(switch(2 * MS, 50, task(10, 120), 0), bits);
            let entries = [switch(0, VICTIM, task(50, 49), 1), taken, switch(9 * MS, 10, VICTIM, 0)];
            let account = accounted(&record(BreachKind::Wakeup, 3, 3, 9), &entries);
            assert_eq!(ms(&account, cause), 6, "{account:?}");
        }
    }

    #[test]
    fn what_was_forgotten_is_shared_out_by_the_totals_of_the_cpu() {
        // Of 8 ms the recorder has the last 4: the hog, of which the fair server takes 1 ms.
        let gap = Entry { kind: kind::GAP, ..switch(5 * MS, 0, 0, 0) };
        let server = flags::STOLEN | flags::SERVER;
        let entries = [
            switch(0, VICTIM, task(70, 9), 1),
            gap,
            switch(5 * MS, 0, task(70, 9), 0),
            flagged(switch(7 * MS, 70, task(10, 120), 0), server),
            switch(8 * MS, 10, task(70, 9), 0),
            switch(9 * MS, 70, VICTIM, 1),
        ];
        let mut record = record(BreachKind::Wakeup, 1, 1, 9);
        record.occupied_ns[maps::Occupant::RealTime as usize] = 6 * MS;
        record.occupied_ns[maps::Occupant::FairServer as usize] = 2 * MS;
        let account = accounted(&record, &entries);
        assert_eq!((ms(&account, Cause::HigherPriority), ms(&account, Cause::FairServer)), (6, 2), "{account:?}");
        assert_eq!(account.forgotten_ns, 4 * MS);
        // A sleep is not a wait for a CPU.
        let mut timeline = Timeline::default();
        timeline.add(&entries);
        let asleep = event::Breach { kind: BreachKind::Blocked as u32, ..record };
        assert_eq!(super::account(&asleep, &timeline), None);
        record.occupied_ns = [0; 8];
        assert_eq!(super::account(&record, &timeline), None);
    }

    #[test]
    fn a_task_that_became_real_time_while_it_ran_is_not_called_fair() {
        let entries = [
            switch(0, VICTIM, task(70, 120), 1),
            waking(MS, VICTIM, 70, 1),
            flagged(switch(9 * MS, 70, VICTIM, 1), flags::RT_LEAVES),
        ];
        let account = accounted(&record(BreachKind::Wakeup, 1, 1, 9), &entries);
        assert_eq!(ms(&account, Cause::HigherPriority), 8, "{account:?}");
    }

    #[test]
    fn a_fair_task_that_runs_while_real_time_ones_are_throttled_does_not_block() {
        for (bits, cause) in [(flags::RT_THROTTLED, Cause::RtThrottling), (0, Cause::LowerPriorityBlocking)] {
            let woken = flagged(waking(MS, VICTIM, 10, 1), bits);
            let entries = [switch(0, VICTIM, task(10, 120), 1), woken, switch(9 * MS, 10, VICTIM, 0)];
            assert_eq!(ms(&accounted(&record(BreachKind::Wakeup, 1, 1, 9), &entries), cause), 8);
        }
    }

    #[test]
    fn a_chain_is_followed_to_the_thread_that_a_quota_stopped() {
        // The victim waits for 20, which waits for 30, which is throttled for 70 ms.
        let mut record = record(BreachKind::Blocked, 2, 91, 92);
        (record.waker, record.slept_in) = (20, 202);
        let throttled = flagged(switch(20 * MS, task(30, 120), 0, 0), flags::THROTTLED);
        let entries = [
            switch(0, 0, task(20, 120), 0),
            switch(MS, 20, task(30, 120), 1),
            switch(MS + 1, 30, VICTIM, 0),
            switch(2 * MS, VICTIM, task(30, 120), 1),
            throttled,
            Entry { took_ns: 69 * MS, ..switch(90 * MS, 0, task(30, 120), 0) },
            waking(90 * MS + 1, 20, 30, 1),
            switch(90 * MS + 2, 30, task(20, 120), 0),
            waking(91 * MS, VICTIM, 20, 1),
            switch(92 * MS, 20, VICTIM, 0),
        ];
        let account = accounted(&record, &entries);
        assert_eq!(ms(&account, Cause::ThrottledLockHolder), 69, "{account:?}");
        let chain: Vec<_> = account.chain.iter().map(|link| (link.who.tid, link.did)).collect();
        assert_eq!(chain, [(20, Did::Waited), (30, Did::Throttled)]);
        assert_eq!(account.parts[0].by.as_ref().map(|who| who.tid), Some(30));
    }

    #[test]
    fn a_holder_that_has_to_leave_its_cpu_is_told_from_one_that_runs() {
        let mut record = record(BreachKind::Blocked, 2, 11, 11);
        (record.waker, record.slept_in) = (20, 202);
        let entries = [
            switch(0, 0, task(20, 120), 0),
            switch(MS, 20, task(50, 49), 0),
            switch(MS + 1, 50, VICTIM, 0),
            switch(2 * MS, VICTIM, task(50, 49), 1),
            switch(9 * MS, 50, task(20, 120), 1),
            waking(11 * MS, VICTIM, 20, 1),
            switch(11 * MS, 20, VICTIM, 0),
        ];
        let account = accounted(&record, &entries);
        assert_eq!((ms(&account, Cause::LockHolderPreempted), ms(&account, Cause::NonPiLock)), (7, 2), "{account:?}");
        assert_eq!(account.parts[0].by.as_ref().map(|who| who.tid), Some(50));
        record.slept_in = maps::NO_SYSCALL;
        assert_eq!(ms(&accounted(&record, &entries), Cause::PageFault), 2);
    }

    #[test]
    fn the_word_of_a_futex_names_its_holder_even_if_a_timer_ends_the_wait() {
        let asleep = |flags| event::Breach {
            slept_in: u32::try_from(libc::SYS_futex).unwrap(),
            wake_context: WakeContext::Hardirq as u32,
            lock_owner: 9,
            flags,
            ..record(BreachKind::Blocked, 2, 8, 8)
        };
        let entries = [switch(1, 0, VICTIM, 0), switch(2 * MS, VICTIM, task(9, 120), 1), switch(8 * MS, 9, VICTIM, 0)];
        let account = accounted(&asleep(breach_flags::FUTEX_OWNER), &entries);
        assert_eq!((ms(&account, Cause::NonPiLock), account.chain[0].who.tid), (6, 9), "{account:?}");
        let account = accounted(&asleep(0), &entries);
        assert_eq!((ms(&account, Cause::Unknown), account.chain.len()), (6, 0), "{account:?}");
    }

    #[test]
    fn a_move_is_told_from_the_mover_at_other_work() {
        let mover = Entry { comm: *b"migration/1\0\0\0\0\0", ..switch(2 * MS, VICTIM, task(21, 0), 0) };
        let away = Entry { kind: kind::MIGRATE, arg: 0, ..waking(8 * MS, VICTIM, 0, 0) };
        let mut record = record(BreachKind::Wakeup, 2, 2, 9);
        let stays = [switch(0, 0, VICTIM, 0), mover, switch(9 * MS, 21, VICTIM, 1)];
        assert_eq!(ms(&accounted(&record, &stays), Cause::HigherPriority), 7);
        record.cpu = 0;
        let elsewhere = |at, prev: u32, next: u32| Entry { cpu: 0, ..switch(at, prev, next, 0) };
        let goes = [elsewhere(0, 90, 0), switch(1, 0, VICTIM, 0), mover, away, elsewhere(9 * MS, 0, VICTIM)];
        let account = accounted(&record, &goes);
        assert_eq!(ms(&account, Cause::Migration), 7, "{account:?}");
    }

    #[test]
    fn a_late_timer_is_told_by_what_it_waited_for() {
        let entries = [
            switch(0, VICTIM, task(50, 49), 1),
            switch(8 * MS, 50, task(3, 98), 0),
            waking(9 * MS, VICTIM, 3, 2),
            switch(9 * MS, 3, VICTIM, 0),
        ];
        let mut late = record(BreachKind::Timer, 1, 9, 9);
        late.expired_ns = 9 * MS;
        for (bits, cause) in [
            (breach_flags::SOFT_TIMER, Cause::SoftTimer),
            (breach_flags::SOFT_TIMER | breach_flags::REMOTE_TIMER, Cause::RemoteTimer),
            (0, Cause::Unknown),
        ] {
            late.flags = bits;
            assert_eq!(ms(&accounted(&late, &entries), cause), 8);
        }
    }

    #[test]
    fn a_task_that_has_had_a_cpu_for_longer_than_events_are_kept_still_has_it() {
        let irq = Entry { kind: kind::IRQ, arg: 24, took_ns: MS, ..waking(700 * MS, 0, 0, 0) };
        let came = switch(0, VICTIM, task(10, 120), 1);
        let late = [irq, waking(5_500 * MS, VICTIM, 90, 1), switch(6_000 * MS, 10, VICTIM, 0)];
        let record = record(BreachKind::Wakeup, 5_500, 5_500, 6_000);
        let account = accounted(&record, &[&[came][..], &late].concat());
        assert_eq!(ms(&account, Cause::LowerPriorityBlocking), 500, "{account:?}");
        // Of what came before a gap nothing is known.
        let gap = Entry { kind: kind::GAP, ..waking(500 * MS, 0, 0, 0) };
        let account = accounted(&record, &[&[came, gap][..], &late].concat());
        assert_eq!(ms(&account, Cause::Unknown), 500, "{account:?}");
    }

    #[test]
    fn what_was_overwritten_is_not_guessed() {
        let gap = Entry { kind: kind::GAP, ..switch(5 * MS, 0, VICTIM, 0) };
        let mut timeline = Timeline::default();
        timeline.add(&[switch(0, 0, 90, 0), gap, switch(9 * MS, 90, VICTIM, 0)]);
        assert_eq!(account(&record(BreachKind::Wakeup, 1, 1, 9), &timeline), None);
    }

    proptest! {
        #[test]
        fn parts_add_up_whatever_happened(
            kind in prop::sample::select(vec![BreachKind::Timer, BreachKind::Wakeup, BreachKind::Blocked]),
            events in prop::collection::vec((0..40_u64, 0..6_u8, 0..5_u32, 0..5_u32, 0..16_u8, 0..9_u64), 0..40),
            (since, waking, to) in (2..20_u64, 0..30_u64, 20..40_u64),
            occupied in any::<[u32; 8]>(),
            gap in prop::option::of(0..30_u64),
            (waker, owner, bits, slept_in) in (0..5_u32, 0..5_u32, 0..128_u32, prop::sample::select(vec![0, 202, u32::MAX])),
        ) {
            let mut entries = vec![switch(0, 0, 1, 0), Entry { cpu: 1, ..switch(0, 0, 2, 0) }];
            for (at, what, tid, other, bits, took) in events {
                let entry = flagged(switch(at * MS, other, tid, u32::from(bits & 1)), bits);
                entries.push(Entry { kind: what, took_ns: took * MS, cpu: u16::from(bits & 2 != 0), ..entry });
            }
            entries.sort_by_key(|entry| entry.at_ns);
            entries.retain(|entry| entry.kind != kind::GAP);
            let mut record = record(kind, since, waking, to);
            (record.tid, record.waker, record.lock_owner, record.flags) = (3, waker, owner, bits);
            (record.slept_in, record.expired_ns) = (slept_in, waking * MS);
            record.occupied_ns = occupied.map(u64::from);
            if let Some(gap) = gap {
                let at = entries.partition_point(|entry| entry.at_ns < gap * MS);
                entries.insert(at, Entry { kind: kind::GAP, ..switch(gap * MS, 0, 0, 0) });
            }
            let mut timeline = Timeline::default();
            timeline.add(&entries);
            if let Some(account) = account(&record, &timeline) {
                let sum: u64 = account.parts.iter().map(|part| part.ns).sum();
                prop_assert_eq!(sum, record.switched_in_ns - record.since_ns);
                prop_assert!(account.chain.len() <= CHAIN);
            }
        }
    }
}
