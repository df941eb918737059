//! A late wake-up in one sentence that a person can act on.

use super::task::FAIR;
use crate::snapshot::{Breach, BreachFlag, BreachKind, Cause, ChainLink, Culprit, Evidence, Unaccounted, Word};

/// Says what happened: `lost_ns` of it by `cause`.
pub(super) fn sentence(breach: &Breach, cause: Cause, lost_ns: u64) -> String {
    let evidence = &breach.evidence;
    let late = match breach.kind.known() {
        Some(BreachKind::Timer) => format!("came on its CPU {} after its timer expired", time(breach.latency_ns)),
        Some(BreachKind::Blocked) => format!("was kept from its work for {}", time(breach.latency_ns)),
        Some(BreachKind::Wakeup) | None => {
            format!("came on its CPU {} after it became runnable", time(breach.latency_ns))
        }
    };
    let who = breach.culprit.as_ref().map_or_else(String::new, |culprit| named(culprit, &breach.cgroup));
    let lost = time(lost_ns);
    let lock = evidence.lock_kind.as_ref().map_or("lock", Word::as_str);
    let quota = evidence.throttled_by.as_ref().map_or_else(
        || "because of a CPU quota".to_owned(),
        |by| {
            format!("because of the CPU quota of {} ({} us in {} us)", by.cgroup, by.quota.quota_us, by.quota.period_us)
        },
    );
    let someone = if who.is_empty() { "something" } else { &who };
    // After the name of the last one that was waited for.
    let which = if evidence.chain.len() > 1 { ", which" } else { "," };
    let why = match cause {
        Cause::ThrottledLockHolder => {
            format!("for {lost} {}{who}{which} could not run {quota}", waits(&evidence.chain, lock, &breach.cgroup))
        }
        Cause::LockHolderPreempted => {
            let holder = evidence.chain.last().map_or_else(String::new, |link| named(&link.who, &breach.cgroup));
            let waits = waits(&evidence.chain, lock, &breach.cgroup);
            format!("{waits}{holder}{which} had to leave its CPU to {someone} for {lost}")
        }
        Cause::LockContention if who.is_empty() => format!("it waited {lost} for a {lock}"),
        Cause::LockContention => format!("it waited {lost} for a {lock} held by {who}"),
        Cause::NonPiLock if evidence.has(BreachFlag::FutexOwner) => {
            format!("it waited {lost} for a mutex without priority inheritance held by {who}, as the mutex itself says")
        }
        Cause::NonPiLock => {
            format!("it waited {lost} for a futex without priority inheritance until {who} woke it")
        }
        Cause::CoThreadThrottled => format!("for {lost} {who}, for which it waited, could not run {quota}"),
        Cause::PageFault if who.is_empty() => format!("it touched memory that was not there, and waited {lost} for it"),
        Cause::PageFault => format!("it touched memory that was not there, and waited {lost} until {who} brought it"),
        Cause::HigherPriority if who.is_empty() => {
            format!("real-time threads of its own priority or above had the CPU for {lost}")
        }
        Cause::HigherPriority if forgotten(evidence, cause, lost_ns) => {
            format!("real-time threads of its own priority or above had the CPU for {lost}, {who} in the end")
        }
        Cause::HigherPriority => format!("{someone} had the CPU for {lost}"),
        Cause::LowerPriorityBlocking => format!("{someone}, of lower priority, kept the CPU for {lost}"),
        Cause::Irq if who.is_empty() => format!("hard interrupts took {lost}"),
        Cause::Irq => format!("hard interrupts, most of it {who}, took {lost}"),
        Cause::Softirq if who.is_empty() => format!("soft interrupts took {lost}"),
        Cause::Softirq => format!("soft interrupts, most of it {who}, took {lost}"),
        Cause::Nmi => format!("non-maskable interrupts took {lost}"),
        Cause::RtThrottling if who.is_empty() => format!("RT throttling kept it from the CPU for {lost}"),
        Cause::RtThrottling => format!("RT throttling gave the CPU to {who} for {lost}"),
        Cause::FairServer if who.is_empty() => format!("the fair server kept it from the CPU for {lost}"),
        Cause::FairServer => format!("the fair server gave the CPU to {someone} for {lost}"),
        Cause::PolicyFallback if evidence.throttled_ns > 0 => {
            format!("it runs under a fair policy and could not run for {lost} {quota}")
        }
        Cause::PolicyFallback => format!("it runs under a fair policy, and {someone} had the CPU for {lost}"),
        Cause::RemoteTimer if who.is_empty() => {
            format!("its timer expired on CPU {}, where it was served {lost} late", evidence.waker_cpu)
        }
        Cause::RemoteTimer => {
            format!("its timer expired on CPU {}, where {who} had the CPU for {lost}", evidence.waker_cpu)
        }
        Cause::SoftTimer if who.is_empty() => format!("its timer runs in a soft interrupt, which came {lost} late"),
        Cause::SoftTimer => {
            format!("its timer runs in a soft interrupt, which had to wait {lost} because {who} had the CPU")
        }
        Cause::Migration => format!("it was being moved to CPU {} for {lost}", evidence.cpu),
        Cause::CpuIdleExit => format!("CPU {} needed {lost} to wake from idle", evidence.cpu),
        Cause::Steal => format!("the host of this virtual machine took CPU {} away for {lost}", evidence.waker_cpu),
        Cause::Unknown => match (breach.kind.known(), evidence.blocked_in.as_deref()) {
            (Some(BreachKind::Blocked), Some(call)) if !who.is_empty() => {
                format!("it waited in {call} for {lost} until {who} woke it")
            }
            (Some(BreachKind::Blocked), Some(call)) => {
                format!("it slept in {call} for {lost}; what for cannot be told")
            }
            (Some(BreachKind::Timer), _)
                if evidence.irq_delay_ns.is_some_and(|delay| delay * 2 > breach.latency_ns) =>
            {
                "the timer's interrupt itself came late: interrupts were off, or another machine had the CPU".to_owned()
            }
            _ => unknown(evidence.unaccounted.as_ref().and_then(Word::known)).to_owned(),
        },
    };
    format!("{} (tid {}) {late}: {why}", breach.comm, breach.tid)
}

/// Whether nobody is known for most of the `lost_ns` that `cause` took.
fn forgotten(evidence: &Evidence, cause: Cause, lost_ns: u64) -> bool {
    if evidence.parts.is_empty() {
        return evidence.prev_ran_ns.is_some_and(|ran_ns| ran_ns < lost_ns / 2);
    }
    let parts = || evidence.parts.iter().filter(|part| part.cause == cause);
    let named = parts().filter(|part| part.by.is_some()).map(|part| part.ns).max();
    let nobody: u64 = parts().filter(|part| part.by.is_none()).map(|part| part.ns).sum();
    nobody > named.unwrap_or(0)
}

/// Where nothing tells the cause: why not.
fn unknown(why: Option<Unaccounted>) -> &'static str {
    match why {
        None => "the cause is unknown",
        Some(Unaccounted::RecorderOff) => "the cause is not known without the flight recorder, which is turned off",
        Some(Unaccounted::NoMemory) => {
            "the cause is not known without the flight recorder, for which there is too little memory"
        }
        Some(Unaccounted::Overwritten) => "the cause is unknown: the flight recorder does not reach back so far",
        Some(Unaccounted::TooMany) => "the cause was not looked up: too many others were later at that moment",
        Some(Unaccounted::RecorderDegraded) => {
            "the cause is unknown; this kernel does not show the flight recorder everything"
        }
    }
}

/// "the holder of the lock it waited for, ", or the way to it: "it waited for a (…), which waited for ".
fn waits(chain: &[ChainLink], lock: &str, own_cgroup: &str) -> String {
    match chain {
        [] | [_] => format!("the holder of the {lock} it waited for, "),
        [between @ .., _] => {
            let names: Vec<String> = between.iter().map(|link| named(&link.who, own_cgroup)).collect();
            format!("it waited for {}, which waited for ", names.join(", which waited for "))
        }
    }
}

/// "mqtt (SCHED_OTHER, tid 12, in /kubepods/pod1)".
fn named(culprit: &Culprit, own_cgroup: &str) -> String {
    if culprit.tid == 0 && !culprit.comm.is_empty() {
        // An interrupt.
        return culprit.comm.clone();
    }
    let mut about = Vec::new();
    match culprit.prio {
        Some(-1) => about.push("SCHED_DEADLINE".to_owned()),
        Some(prio @ 0..FAIR) => about.push(format!("real-time priority {}", 99 - prio)),
        Some(_) => about.push("fair".to_owned()),
        None => {}
    }
    about.push(format!("tid {}", culprit.tid));
    match culprit.cgroup.as_deref() {
        Some(path) if path == own_cgroup => about.push("same cgroup".to_owned()),
        Some(path) => about.push(format!("in {path}")),
        None => {}
    }
    let comm = if culprit.comm.is_empty() { "a thread" } else { &culprit.comm };
    format!("{comm} ({})", about.join(", "))
}

fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1_000),
        _ => format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_cause_says_why_it_is_unknown() {
        let said = |unaccounted: Option<Unaccounted>| {
            let evidence = Evidence { unaccounted: unaccounted.map(Word::from), ..Evidence::default() };
            let mut breach = Breach {
                at: "2026-11-24T03:12:07Z".into(),
                tid: 7,
                comm: "cycle".into(),
                cgroup: "/plc".into(),
                kind: BreachKind::Wakeup.into(),
                latency_ns: 2_000_000,
                cause: Cause::Unknown.into(),
                culprit: None,
                shares: std::collections::BTreeMap::new(),
                sentence: String::new(),
                evidence,
            };
            crate::explain::explain(&mut breach);
            assert_eq!(breach.cause, Cause::Unknown);
            breach.sentence
        };
        assert!(said(None).ends_with(": the cause is unknown"), "{}", said(None));
        for (why, words) in [
            (Unaccounted::RecorderOff, "the flight recorder, which is turned off"),
            (Unaccounted::NoMemory, "the flight recorder, for which there is too little memory"),
            (Unaccounted::Overwritten, "the flight recorder does not reach back so far"),
            (Unaccounted::TooMany, "too many others were later at that moment"),
            (Unaccounted::RecorderDegraded, "this kernel does not show the flight recorder everything"),
        ] {
            assert!(said(Some(why)).ends_with(words), "{}", said(Some(why)));
        }
    }
}
