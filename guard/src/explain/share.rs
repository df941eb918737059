//! Cuts the time lost into shares, each with its cause. The largest share is the primary cause.

use std::collections::BTreeMap;

use super::sentence::sentence;
use super::task::{FAIR, MOVER, cause_of};
use crate::snapshot::{Breach, BreachFlag, BreachKind, Cause, Culprit, Evidence, TimePart, WokenBy};

/// Sets cause, culprit, shares and sentence of a breach by its evidence. The shares add up to its latency.
pub fn explain(breach: &mut Breach) {
    let mut shares = accounted(breach).unwrap_or_else(|| shares(breach));
    stolen(&mut shares, breach);
    // Of equal shares the one that is more than a guess.
    let primary = shares.iter().max_by_key(|(cause, ns)| (**ns, **cause != Cause::Unknown));
    let (cause, lost_ns) = primary.map_or((Cause::Unknown, 0), |(cause, ns)| (*cause, *ns));
    breach.culprit = if breach.evidence.parts.is_empty() {
        culprit(cause, &breach.evidence)
    } else {
        worst(cause, &breach.evidence)
    };
    breach.cause = cause.into();
    breach.sentence = sentence(breach, cause, lost_ns);
    breach.shares = shares.into_iter().map(|(cause, ns)| (cause.into(), ns)).collect();
}

/// Time per cause, ns, as it was accounted for; `None` when it was not.
fn accounted(breach: &Breach) -> Option<BTreeMap<Cause, u64>> {
    let parts = &breach.evidence.parts;
    let mut left = breach.latency_ns;
    let mut shares = BTreeMap::new();
    for part in parts {
        let ns = part.ns.min(left);
        left -= ns;
        *shares.entry(part.cause.known().unwrap_or(Cause::Unknown)).or_insert(0) += ns;
    }
    if left > 0 {
        *shares.entry(Cause::Unknown).or_insert(0) += left;
    }
    (!parts.is_empty()).then_some(shares)
}

/// In a virtual machine a CPU stands still while its host runs something else: an interrupt comes late then though nothing
/// of this machine delays it. Stolen time explains no more than that.
fn stolen(shares: &mut BTreeMap<Cause, u64>, breach: &Breach) {
    let mut left = breach.evidence.steal_ns.unwrap_or(0);
    if breach.kind != BreachKind::Timer {
        return;
    }
    for cause in [Cause::Unknown, Cause::CpuIdleExit] {
        let Some(share) = shares.get_mut(&cause) else { continue };
        let ns = left.min(*share);
        *share -= ns;
        left -= ns;
        if ns > 0 {
            *shares.entry(Cause::Steal).or_insert(0) += ns;
        }
    }
    shares.retain(|_, ns| *ns > 0);
}

/// Who is responsible for most of the time lost to `cause`.
fn worst(cause: Cause, evidence: &Evidence) -> Option<Culprit> {
    let mut parts = evidence.parts.iter().filter(|part| part.cause == cause);
    // Of what the recorder forgot nobody is known: a real-time thread that had the CPU later is likely to have had it before.
    let named = |part: &&TimePart| (cause == Cause::HigherPriority && part.by.is_some(), part.ns);
    parts.by_ref().max_by_key(named)?.by.clone()
}

/// Time per cause, ns, by the record alone.
fn shares(breach: &Breach) -> BTreeMap<Cause, u64> {
    let evidence = &breach.evidence;
    let mut left = breach.latency_ns;
    let mut shares = BTreeMap::new();
    let mut give = |cause: Cause, ns: u64| {
        let ns = ns.min(left);
        left -= ns;
        if ns > 0 {
            *shares.entry(cause).or_insert(0) += ns;
        }
    };
    // From the end backwards: the wait for the CPU, whose interrupts are known.
    let waited = evidence.wait_ns;
    let hardirq = evidence.hardirq_ns.min(waited);
    let softirq = evidence.softirq_ns.min(waited - hardirq);
    give(Cause::Irq, hardirq);
    give(Cause::Softirq, softirq);
    let throttled = evidence.throttled_ns.min(waited - hardirq - softirq);
    give(Cause::PolicyFallback, throttled);
    for (cause, ns) in occupants(evidence, waited - hardirq - softirq - throttled) {
        give(cause, ns);
    }
    // Before it, a sleep or the way from the expiry to the timer's interrupt.
    match breach.kind.known() {
        Some(BreachKind::Blocked) => {
            let blocked = evidence.blocked_ns.unwrap_or(0);
            let throttled = evidence.waker_throttled_ns.min(blocked);
            give(throttled_holder(evidence), throttled);
            give(sleep(evidence), blocked - throttled);
        }
        Some(BreachKind::Timer) => give(late_interrupt(evidence), u64::MAX),
        Some(BreachKind::Wakeup) | None => {}
    }
    give(Cause::Unknown, u64::MAX);
    shares
}

/// Why the thread did not have the CPU in `ns` of its wait, by the totals of that time. The last task on the CPU is known by
/// name, and speaks for the time that it ran.
fn occupants(evidence: &Evidence, ns: u64) -> Vec<(Cause, u64)> {
    let last = last_occupant(evidence);
    let Some(ran_ns) = evidence.prev_ran_ns else {
        // A record that does not say.
        return vec![(flagged(evidence).unwrap_or(last), ns)];
    };
    let ran_ns = ran_ns.min(ns);
    let Some(all) = evidence.occupied.filter(|_| evidence.prio < FAIR) else {
        let rest = if evidence.prio < FAIR { Cause::Unknown } else { Cause::PolicyFallback };
        return vec![(last, ran_ns), (rest, ns - ran_ns)];
    };
    // Interrupts are part of the totals, and not of `ns`.
    let in_all: u128 = [all.realtime_ns, all.fair_ns, all.idle_ns, all.rt_throttled_ns, all.fair_server_ns]
        .iter()
        .map(|ns| u128::from(*ns))
        .sum();
    let part = |of: u64| u64::try_from(u128::from(of) * u128::from(ns) / in_all.max(1)).unwrap_or(0);
    let (real_time, fair) = (part(all.realtime_ns), part(all.fair_ns));
    let by_last = |kind: u64, is_of_it: bool| if is_of_it { ran_ns.min(kind) } else { 0 };
    let last_is_real_time = evidence.prev_prio < FAIR;
    let (real_time_last, fair_last) =
        (by_last(real_time, last_is_real_time), by_last(fair, !last_is_real_time && evidence.prev_tid != 0));
    vec![
        (last, real_time_last + fair_last),
        // One of a lower priority has the CPU only as long as it cannot be preempted.
        (Cause::HigherPriority, real_time - real_time_last),
        (Cause::LowerPriorityBlocking, fair - fair_last),
        (Cause::CpuIdleExit, part(all.idle_ns)),
        (Cause::RtThrottling, part(all.rt_throttled_ns)),
        (Cause::FairServer, part(all.fair_server_ns)),
    ]
}

/// What the flags say: that it happened, and not for how long.
fn flagged(evidence: &Evidence) -> Option<Cause> {
    if evidence.has(BreachFlag::FairServer) {
        Some(Cause::FairServer)
    } else {
        evidence.has(BreachFlag::RtStolen).then_some(Cause::RtThrottling)
    }
}

/// Why the thread did not have the CPU while the task had it that left it last.
fn last_occupant(evidence: &Evidence) -> Cause {
    if evidence.prev_tid == 0 {
        Cause::CpuIdleExit
    } else if evidence.prio >= FAIR {
        Cause::PolicyFallback
    } else if let Some(cause) = cause_of(&evidence.prev_comm) {
        cause
    } else if evidence.prev_comm.starts_with(MOVER) && evidence.has(BreachFlag::Migrated) {
        Cause::Migration
    } else if evidence.prev_prio <= evidence.prio {
        Cause::HigherPriority
    } else {
        Cause::LowerPriorityBlocking
    }
}

/// Why the timer's interrupt came late.
fn late_interrupt(evidence: &Evidence) -> Cause {
    if evidence.has(BreachFlag::SoftTimer) {
        Cause::SoftTimer
    } else if evidence.has(BreachFlag::RemoteTimer) {
        Cause::RemoteTimer
    } else if evidence.waker == 0 {
        // The interrupt found its CPU idle.
        Cause::CpuIdleExit
    } else {
        Cause::Unknown
    }
}

/// Whether it slept for a lock: one that the kernel knows, or a futex.
fn for_lock(evidence: &Evidence) -> bool {
    evidence.has(BreachFlag::Lock) || evidence.blocked_in.as_deref() == Some("futex")
}

fn by_task(evidence: &Evidence) -> bool {
    evidence.woken_by.as_ref().is_some_and(|by| *by == WokenBy::Task)
}

/// What kept the thread from being woken while its waker was throttled.
fn throttled_holder(evidence: &Evidence) -> Cause {
    if for_lock(evidence) { Cause::ThrottledLockHolder } else { Cause::CoThreadThrottled }
}

/// Why it slept as long as its waker was not throttled.
fn sleep(evidence: &Evidence) -> Cause {
    if evidence.has(BreachFlag::Lock) {
        Cause::LockContention
    } else if evidence.has(BreachFlag::FutexOwner)
        || evidence.blocked_in.as_deref() == Some("futex") && by_task(evidence)
    {
        Cause::NonPiLock
    } else {
        Cause::Unknown
    }
}

/// Who did it, where somebody did.
fn culprit(cause: Cause, evidence: &Evidence) -> Option<Culprit> {
    let prev = || Culprit {
        tid: evidence.prev_tid,
        comm: evidence.prev_comm.clone(),
        cgroup: evidence.prev_cgroup.clone(),
        prio: Some(evidence.prev_prio),
    };
    let waker = || Culprit {
        tid: evidence.waker,
        comm: evidence.waker_comm.clone(),
        cgroup: evidence.waker_cgroup.clone(),
        prio: Some(evidence.waker_prio),
    };
    match cause {
        Cause::HigherPriority | Cause::LowerPriorityBlocking if last_occupant(evidence) == cause => Some(prev()),
        // The last one on the CPU was let by what took it.
        Cause::RtThrottling | Cause::FairServer if evidence.prev_prio >= FAIR && evidence.prev_tid != 0 => Some(prev()),
        Cause::PolicyFallback if evidence.throttled_ns == 0 => Some(prev()),
        Cause::Irq | Cause::Softirq if last_occupant(evidence) == cause => Some(prev()),
        Cause::LockContention | Cause::NonPiLock
            if evidence.lock_owner != 0 && evidence.lock_owner != evidence.waker =>
        {
            Some(Culprit {
                tid: evidence.lock_owner,
                comm: evidence.lock_owner_comm.clone().unwrap_or_default(),
                cgroup: evidence.lock_owner_cgroup.clone(),
                prio: None,
            })
        }
        Cause::ThrottledLockHolder | Cause::CoThreadThrottled => Some(waker()),
        Cause::LockContention | Cause::NonPiLock if by_task(evidence) => Some(waker()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::Occupied;

    fn breach(kind: &str, latency_ns: u64, evidence: Evidence) -> Breach {
        let mut breach = Breach {
            at: "2026-11-24T03:12:07Z".into(),
            tid: 7,
            comm: "cycle".into(),
            cgroup: "/plc".into(),
            kind: kind.into(),
            latency_ns,
            cause: Cause::Unknown.into(),
            culprit: None,
            shares: BTreeMap::new(),
            sentence: String::new(),
            evidence,
        };
        explain(&mut breach);
        breach
    }

    /// A FIFO 80 thread that waited 2 ms for the CPU behind `comm`.
    fn behind(comm: &str, prio: i32) -> Evidence {
        Evidence {
            prio: 19,
            wait_ns: 2_000_000,
            prev_tid: 9,
            prev_comm: comm.into(),
            prev_prio: prio,
            prev_cgroup: Some("/other".into()),
            irq_delay_ns: Some(0),
            waker: 9,
            ..Evidence::default()
        }
    }

    /// A FIFO 80 thread that slept 80 ms in a futex until mqtt woke it.
    fn asleep(flags: &[&str], throttled_ns: u64) -> Evidence {
        Evidence {
            prio: 19,
            wait_ns: 10_000,
            prev_tid: 12,
            prev_prio: 120,
            prev_comm: "mqtt".into(),
            blocked_ns: Some(80_000_000),
            blocked_in: Some("futex".into()),
            woken_by: Some(WokenBy::Task.into()),
            waker: 12,
            waker_comm: "mqtt".into(),
            waker_prio: 120,
            waker_cgroup: Some("/plc".into()),
            waker_throttled_ns: throttled_ns,
            flags: flags.iter().map(|flag| (*flag).into()).collect(),
            ..Evidence::default()
        }
    }

    #[test]
    fn who_had_the_cpu_is_the_cause() {
        let flagged = |flags: &[&str]| Evidence {
            flags: flags.iter().map(|flag| (*flag).into()).collect(),
            ..behind("burner", 120)
        };
        for (evidence, cause) in [
            (behind("rival", 9), "higher_priority"),
            (behind("rival", 19), "higher_priority"),
            (behind("burner", 120), "lower_priority_blocking"),
            (behind("irq/24-eth0", 49), "irq"),
            (behind("ksoftirqd/1", 120), "softirq"),
            (behind("ktimers/1", 98), "softirq"),
            (behind("migration/1", 0), "higher_priority"),
            (Evidence { flags: vec!["migrated".into()], ..behind("migration/1", 0) }, "migration"),
            (Evidence { prev_tid: 0, ..behind("swapper/1", 120) }, "cpu_idle_exit"),
            (Evidence { prio: 120, ..behind("burner", 120) }, "policy_fallback"),
            (Evidence { prio: 120, throttled_ns: 1_900_000, ..behind("burner", 120) }, "policy_fallback"),
            (Evidence { hardirq_ns: 1_500_000, ..behind("rival", 9) }, "irq"),
            (Evidence { softirq_ns: 1_500_000, ..behind("rival", 9) }, "softirq"),
            (flagged(&["rt_stolen"]), "rt_throttling"),
            (flagged(&["rt_stolen", "fair_server"]), "fair_server"),
        ] {
            let breach = breach("wakeup", 2_000_000, evidence.clone());
            assert_eq!(breach.cause.as_str(), cause, "{evidence:?}");
        }
    }

    #[test]
    fn no_flag_speaks_for_a_time_that_it_did_not_last() {
        // A FIFO 70 thread had the CPU, which the fair server took from it now and then; a fair thread had it last.
        let occupied = Occupied { realtime_ns: 4_700, fair_server_ns: 250, rt_throttled_ns: 50, ..Occupied::default() };
        let long = |prev: (&str, i32), prev_ran_ns| Evidence {
            wait_ns: 5_000,
            occupied: Some(occupied),
            prev_ran_ns: Some(prev_ran_ns),
            flags: vec!["rt_stolen".into(), "fair_server".into()],
            ..behind(prev.0, prev.1)
        };
        let by_fair = breach("wakeup", 5_000, long(("burner", 120), 50));
        let shares = |breach: &Breach| {
            [Cause::HigherPriority, Cause::FairServer, Cause::RtThrottling].map(|cause| breach.shares[cause.name()])
        };
        assert_eq!((by_fair.cause.known(), shares(&by_fair)), (Some(Cause::HigherPriority), [4_700, 250, 50]));
        assert_eq!(by_fair.culprit, None, "the last one did not have the CPU for that long");
        let by_hog = breach("wakeup", 5_000, long(("hog", 9), 900));
        assert_eq!((shares(&by_hog), by_hog.culprit.is_some()), ([4_700, 250, 50], true));
        assert!(
            by_hog.sentence.ends_with("hog (real-time priority 90, tid 9, in /other) in the end"),
            "{}",
            by_hog.sentence
        );
        // A thread of a lower priority, or of interrupts, speaks for as long as it ran.
        let low = breach("wakeup", 5_000, long(("low", 60), 900));
        assert_eq!((low.shares["lower_priority_blocking"], low.shares["higher_priority"]), (900, 3_800));
        // Where it waited for another CPU before, nobody knows.
        let elsewhere = Evidence { occupied: None, ..long(("burner", 120), 900) };
        let elsewhere = breach("wakeup", 5_000, elsewhere);
        assert_eq!((elsewhere.shares["lower_priority_blocking"], elsewhere.shares["unknown"]), (900, 4_100));
    }

    #[test]
    fn a_late_interrupt_is_told_from_a_busy_cpu() {
        let late = |waker: u32, flags: &[&str]| Evidence {
            irq_delay_ns: Some(5_000_000),
            waker,
            flags: flags.iter().map(|flag| (*flag).into()).collect(),
            ..behind("burner", 120)
        };
        for (evidence, cause) in [
            (late(9, &["soft_timer"]), "soft_timer"),
            (late(9, &["remote_timer"]), "remote_timer"),
            (late(0, &[]), "cpu_idle_exit"),
            (late(9, &[]), "unknown"),
        ] {
            let breach = breach("timer", 7_000_000, evidence);
            assert_eq!(breach.cause.as_str(), cause, "{}", breach.sentence);
            assert_eq!(breach.shares["lower_priority_blocking"], 2_000_000);
        }
    }

    #[test]
    fn what_the_host_took_explains_a_late_interrupt_and_no_more() {
        let stolen = |kind, steal_ns| {
            let evidence =
                Evidence { irq_delay_ns: Some(5_000_000), steal_ns: Some(steal_ns), ..behind("burner", 120) };
            breach(kind, 7_000_000, evidence)
        };
        assert_eq!(stolen("timer", 4_000_000).cause.known(), Some(Cause::Steal));
        assert_eq!(stolen("timer", 4_000_000).shares["unknown"], 1_000_000);
        assert_eq!(stolen("timer", 20_000_000).shares["lower_priority_blocking"], 2_000_000);
        assert_eq!(stolen("wakeup", 4_000_000).shares.get("steal"), None);
    }

    #[test]
    fn a_throttled_holder_is_told_from_a_slow_one() {
        for (evidence, cause) in [
            (asleep(&[], 75_000_000), "throttled_lock_holder"),
            (asleep(&["lock"], 75_000_000), "throttled_lock_holder"),
            (asleep(&[], 0), "non_pi_lock"),
            (asleep(&["lock"], 0), "lock_contention"),
            (Evidence { blocked_in: Some("read".into()), ..asleep(&[], 75_000_000) }, "co_thread_throttled"),
            (Evidence { blocked_in: Some("read".into()), ..asleep(&[], 0) }, "unknown"),
            (Evidence { woken_by: Some(WokenBy::Hardirq.into()), ..asleep(&[], 0) }, "unknown"),
        ] {
            let breach = breach("blocked", 80_010_000, evidence);
            assert_eq!(breach.cause.as_str(), cause, "{}", breach.sentence);
        }
        assert_eq!(
            breach("blocked", 80_010_000, asleep(&[], 75_000_000)).sentence,
            "cycle (tid 7) was kept from its work for 80.0 ms: for 75.0 ms the holder of the lock it waited for, mqtt \
             (fair, tid 12, same cgroup), could not run because of a CPU quota"
        );
    }

    #[test]
    fn an_owner_that_is_not_the_waker_is_named() {
        let evidence = Evidence {
            lock_owner: 31,
            lock_owner_comm: Some("logger".into()),
            lock_kind: Some("PI futex".into()),
            ..asleep(&["lock"], 0)
        };
        let breach = breach("blocked", 80_010_000, evidence);
        assert_eq!(breach.culprit.as_ref().map(|culprit| culprit.tid), Some(31));
        assert!(breach.sentence.contains("a PI futex held by logger (tid 31)"), "{}", breach.sentence);
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_latency(
            kind in prop::sample::select(vec!["timer", "wakeup", "blocked", "?"]),
            latency in 0..u64::MAX,
            [wait, hard, soft, throttled, asleep_ns, holder] in any::<[u64; 6]>(),
            [realtime_ns, fair_ns, idle_ns, rt_throttled_ns, fair_server_ns, ran] in any::<[u64; 6]>(),
            (totals, ran_known) in any::<(bool, bool)>(),
            prio in -1..140_i32,
            flags in prop::sample::subsequence(vec!["lock", "rt_stolen", "fair_server", "soft_timer"], 0..4),
        ) {
            let evidence = Evidence {
                prio,
                wait_ns: wait,
                hardirq_ns: hard,
                softirq_ns: soft,
                throttled_ns: throttled,
                waker_throttled_ns: holder,
                blocked_ns: Some(asleep_ns),
                occupied: totals.then_some(Occupied { realtime_ns, fair_ns, idle_ns, rt_throttled_ns, fair_server_ns }),
                prev_ran_ns: ran_known.then_some(ran),
                ..asleep(&flags, holder)
            };
            let breach = breach(kind, latency, evidence);
            let sum: u128 = breach.shares.values().map(|ns| u128::from(*ns)).sum();
            prop_assert_eq!(sum, u128::from(latency));
            prop_assert!(breach.cause.known().is_some());
            prop_assert!(!breach.sentence.is_empty());
        }
    }
}
