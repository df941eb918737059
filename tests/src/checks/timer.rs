//! Timer wake-ups of single threads.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::{BreachKind, Class, SchedPolicy, Snapshot, Thread, TimerKind, Word};

use crate::{
    compare::{self, Row, Tolerance, Tolerances},
    harness::{Cgroup, Find as _, GuardRun, Workload, emulated, patience},
    scenario::Verdict,
    workload::Outcome,
};

fn limit() -> Duration {
    Duration::from_secs(60) * patience()
}

/// An interval that this machine keeps up with, us.
fn interval_us() -> u64 {
    if emulated() { 20_000 } else { 1000 }
}

fn cycles() -> u64 {
    if emulated() { 200 } else { 2000 }
}

/// A cyclic thread that has run, and what it saw.
struct Ran {
    tid: u32,
    own: Outcome,
}

/// Runs each of the loops in `all`, one after another, for [`cycles`] of [`interval_us`] beside one guard. It is told
/// the threads if `named`.
fn observed(all: &[&[&str]], cgroup: Option<&Cgroup>, named: bool) -> Result<(Vec<Ran>, Snapshot)> {
    let (interval, cycles) = (interval_us().to_string(), cycles().to_string());
    let mut run = GuardRun::report();
    let mut workloads = Vec::new();
    for arguments in all {
        let mut all = vec!["cycle"];
        all.extend(*arguments);
        all.extend(["--interval-us", &interval, "--cycles", &cycles, "--mlockall"]);
        let workload = Workload::hold(&all)?;
        if let Some(cgroup) = cgroup {
            cgroup.add(workload.pid())?;
        }
        if named {
            run = run.tid(workload.tid()?);
        }
        workloads.push(workload);
    }
    let guard = run.measure()?;
    let mut ran = Vec::new();
    for mut workload in workloads {
        let tid = workload.tid()?;
        workload.go()?;
        ran.push(Ran { tid, own: workload.outcome(limit())? });
    }
    Ok((ran, guard.stop()?))
}

fn expect_count(what: &str, own: u64, guard: u64, snapshot: &Snapshot) -> Result<()> {
    let row = Row::new(what, own, guard, Tolerance::of_count(snapshot));
    ensure!(row.agrees, "{row}; lost {:?}", snapshot.overhead.lost);
    Ok(())
}

fn expect_period(thread: &Thread) -> Result<()> {
    let period_ns = thread.period_ns.context("no period recognised")?;
    let row = Row::new("period", interval_us() * 1000, period_ns, Tolerance { absolute: 0, fraction: 0.02 });
    ensure!(row.agrees, "{row}");
    Ok(())
}

pub(super) fn cyclic_thread_is_found() -> Result<Verdict> {
    let cgroup = Cgroup::create("cyclic")?;
    cgroup.allow_rt(100_000)?;
    let (ran, snapshot) = observed(&[&["clock-nanosleep-abs", "--policy", "fifo:80"]], Some(&cgroup), false)?;
    let [Ran { tid, own }] = ran.as_slice() else { bail!("{} loops instead of one", ran.len()) };
    let thread = snapshot.thread(*tid)?;
    ensure!(
        (thread.policy.known(), thread.prio) == (Some(SchedPolicy::Fifo), 80),
        "policy {} {}",
        thread.policy,
        thread.prio
    );
    ensure!(thread.pid == *tid, "process {} instead of {tid}", thread.pid);
    ensure!(thread.comm == "guard-workload", "comm {}", thread.comm);
    ensure!(thread.cgroup == cgroup.path(), "cgroup {} instead of {}", thread.cgroup, cgroup.path());
    ensure!(thread.timer_kind == Some(TimerKind::Sleeper.into()), "timer kind {:?}", thread.timer_kind);
    expect_period(thread)?;
    expect_count("thread stage", own.cycles, thread.timer.thread.count(), &snapshot)?;
    expect_count("irq stage", own.cycles, thread.timer.irq.count(), &snapshot)?;
    if snapshot.unavailable("user")?.is_none() {
        expect_count("user stage", own.cycles, thread.timer.user.count(), &snapshot)?;
    }
    let group = snapshot.cgroup(cgroup.path())?;
    ensure!(group.class == Class::Plc, "class {:?}", group.class);
    expect_count("thread stage of the cgroup", own.cycles, group.timer.thread.count(), &snapshot)?;
    let lost = snapshot.overhead.lost.missed_events;
    let waits = group.wakeup.rt.count();
    ensure!(waits + lost >= own.cycles, "{waits} RT waits for {} cycles, {lost} events lost", own.cycles);
    Ok(Verdict::Passed(format!("{} cycles, {} counted", own.cycles, thread.timer.thread.count())))
}

/// Ways to wait, policies, and the kinds of timer that they are: on other kernels, on PREEMPT_RT.
const WAITS: [(&str, &str, [&str; 2]); 11] = [
    ("clock-nanosleep-abs", "fifo:80", ["sleeper", "sleeper"]),
    ("clock-nanosleep-rel", "fifo:80", ["sleeper", "sleeper"]),
    ("ppoll", "fifo:80", ["sleeper", "sleeper"]),
    ("epoll-timeout", "fifo:80", ["sleeper", "sleeper"]),
    ("futex", "fifo:80", ["sleeper", "sleeper"]),
    ("timerfd", "fifo:80", ["callback", "softirq-callback"]),
    ("timerfd-epoll", "fifo:80", ["callback", "softirq-callback"]),
    ("posix-timer", "fifo:80", ["callback", "softirq-callback"]),
    ("clock-nanosleep-abs", "other", ["sleeper", "softirq-sleeper"]),
    ("clock-nanosleep-abs", DEADLINE, ["sleeper", "sleeper"]),
    ("sched-yield", DEADLINE, ["deadline", "deadline"]),
];

/// SCHED_DEADLINE with so much run time that it is never used up, which would add replenishments to the expiries.
const DEADLINE: &str = "deadline";

pub(super) fn every_wait_is_seen() -> Result<Verdict> {
    let deadline = format!("deadline:{}", interval_us() / 2);
    let of = |policy| if policy == DEADLINE { deadline.as_str() } else { policy };
    let arguments = WAITS.map(|(wait, policy, _)| [wait, "--policy", of(policy)]);
    let arguments: Vec<&[&str]> = arguments.iter().map(<[&str; 3]>::as_slice).collect();
    let (ran, snapshot) = observed(&arguments, None, true)?;
    let (mut counted, mut wrong) = (Vec::new(), Vec::new());
    for ((wait, policy, kinds), Ran { tid, own }) in WAITS.iter().zip(&ran) {
        let thread = snapshot.thread(*tid)?;
        let replenished = *wait != "sched-yield" && thread.timer_kind == Some(TimerKind::Deadline.into());
        if *policy == DEADLINE && (replenished || thread.timer.thread.count() > own.cycles) {
            // A machine so slow that the run time was used up after all: the replenishments are timers too.
            counted.push(format!("{wait} {policy} replenished, {} in all", thread.timer.thread.count()));
            continue;
        }
        let kind = kinds[usize::from(snapshot.node.realtime)];
        let seen = thread.timer.thread.count();
        let outcome = || -> Result<()> {
            ensure!(
                thread.timer_kind.as_ref().map(Word::as_str) == Some(kind),
                "kind {:?} instead of {kind}",
                thread.timer_kind
            );
            expect_count("thread stage", own.cycles, seen, &snapshot)?;
            ensure!(thread.timer.irq.count() == seen, "{} irq stages", thread.timer.irq.count());
            ensure!(
                thread.timer.irq.mean_ns() <= thread.timer.thread.mean_ns(),
                "the interrupt comes after the thread: {} ns, {} ns",
                thread.timer.irq.mean_ns(),
                thread.timer.thread.mean_ns()
            );
            // A relative wait drifts by what it takes to come back, so its period is not its interval.
            if !matches!(*wait, "clock-nanosleep-rel" | "epoll-timeout") {
                expect_period(thread)?;
            }
            Ok(())
        };
        if let Err(error) = outcome() {
            wrong.push(format!("{wait} {policy}: {error:#}"));
        }
        counted.push(format!("{wait} {policy} {seen}/{}", own.cycles));
    }
    ensure!(wrong.is_empty(), "{}; counted: {}", wrong.join("; "), counted.join(", "));
    Ok(Verdict::Passed(counted.join(", ")))
}

pub(super) fn missed_cycles_are_counted() -> Result<Verdict> {
    let stall_us = (interval_us() * 7 / 2).to_string();
    let waits = ["clock-nanosleep-abs", "timerfd"];
    let arguments = waits.map(|wait| [wait, "--policy", "fifo:80", "--stall-every", "50", "--stall-us", &stall_us]);
    let arguments: Vec<&[&str]> = arguments.iter().map(<[&str; 7]>::as_slice).collect();
    let (ran, snapshot) = observed(&arguments, None, true)?;
    let mut counted = Vec::new();
    for (wait, Ran { tid, own }) in waits.iter().zip(&ran) {
        let stalls = cycles() / 50;
        // The last stall has no cycle after it. On PREEMPT_RT the first of the three is waited for after all: its timer
        // could not expire before the thread let go of the CPU.
        ensure!(own.missed >= 2 * (stalls - 1), "the workload itself missed only {} cycles", own.missed);
        // A wake-up so late that it passes the next expiry may count either way.
        let tolerance = Tolerance { absolute: 3 + snapshot.overhead.lost.missed_events, fraction: 0.02 };
        let row = Row::new("missed", own.missed, snapshot.thread(*tid)?.timer.missed, tolerance);
        ensure!(row.agrees, "{wait}: {row}");
        counted.push(format!("{wait} {}/{}", row.guard, row.peer));
    }
    Ok(Verdict::Passed(counted.join(", ")))
}

/// Only on real hardware: an emulated machine's noise is larger than what is compared.
///
/// An interrupt, or the host of a virtual machine, now and then takes the CPU between a thread's return to its own code and its
/// clock reading. No program sees that; in a thousand cycles it makes the largest latency and nothing else. So the largest is
/// compared as far as the kernel's part goes, which a witness beside the thread has timed cycle by cycle.
pub(super) fn agreement() -> Result<Verdict> {
    let waits = ["clock-nanosleep-abs", "timerfd", "timerfd-epoll", "ppoll"];
    let arguments = waits.map(|wait| [wait, "--policy", "fifo:95", "--witness"]);
    let arguments: Vec<&[&str]> = arguments.iter().map(<[&str; 4]>::as_slice).collect();
    let (ran, snapshot) = observed(&arguments, None, true)?;
    if let Some(reason) = snapshot.unavailable("user")? {
        return Ok(Verdict::Skipped(reason));
    }
    let tolerances = Tolerances::same_thing(&snapshot);
    let (mut figures, mut differences) = (Vec::new(), Vec::new());
    for (wait, Ran { tid, own }) in waits.iter().zip(&ran) {
        let seen = &snapshot.thread(*tid)?.timer.user;
        let mut rows = compare::compare(&own.histogram, seen, &tolerances);
        rows.retain(|row| row.figure != "max");
        rows.push(largest(own, seen.max_ns())?);
        for row in rows {
            let told = format!("{wait} {row}");
            if row.agrees { figures.push(told) } else { differences.push(told) }
        }
        figures.push(format!(
            "{wait} own max {}, up to {} of it after the return",
            own.max_ns,
            own.counter("rest_max_ns")?
        ));
    }
    ensure!(differences.is_empty(), "{}; what agrees: {}", differences.join("; "), figures.join("; "));
    Ok(Verdict::Passed(figures.join("; ")))
}

/// The largest latency up to the return, and what is ordinary from there on. A cycle in which the thread was not away has no
/// return, and ends at its interrupt for guard.
fn largest(own: &Outcome, guard_ns: u64) -> Result<Row> {
    let returned_ns = own.counter("returned_max_ns")? + own.counter("rest_ns")?;
    let at_most_ns = returned_ns.max(own.counter("unseen_max_ns")?);
    let tolerance = Tolerance { absolute: 20_000, fraction: 0.05 };
    Ok(Row::between("max up to the return", [returned_ns, returned_ns, at_most_ns], guard_ns, tolerance))
}

pub(super) fn stages_differ() -> Result<Verdict> {
    let (interval, cycles) = (interval_us().to_string(), cycles().to_string());
    // So low a threshold that every wake-up is told, with where it came from.
    let mut run = GuardRun::report().with(&["--threshold", "1us"]);
    let mut loops = Vec::new();
    for wait in ["clock-nanosleep-abs", "timerfd"] {
        let arguments =
            ["cycle", wait, "--policy", "fifo:80", "--interval-us", &interval, "--cycles", &cycles, "--mlockall"];
        let workload = Workload::hold(&arguments)?;
        run = run.tid(workload.tid()?);
        loops.push(workload);
    }
    let guard = run.measure()?;
    loops.iter_mut().try_for_each(Workload::go)?;
    let mut tids = Vec::new();
    for workload in loops {
        tids.push(workload.tid()?);
        workload.outcome(limit())?;
    }
    let snapshot = guard.stop()?;
    if !snapshot.node.realtime {
        return Ok(Verdict::Skipped(format!("{} is not PREEMPT_RT", snapshot.node.kernel)));
    }
    let mut said = Vec::new();
    for (tid, kind, context) in [(tids[0], "sleeper", "hardirq"), (tids[1], "softirq-callback", "softirq")] {
        let thread = snapshot.thread(tid)?;
        ensure!(
            thread.timer_kind.as_ref().map(Word::as_str) == Some(kind),
            "{:?} instead of {kind}",
            thread.timer_kind
        );
        let by_timer = snapshot.breaches.iter().filter(|breach| breach.tid == tid && breach.kind == BreachKind::Timer);
        let contexts: Vec<_> = by_timer.map(|breach| breach.evidence.woken_by.as_ref().map(Word::as_str)).collect();
        let right = contexts.iter().filter(|seen| **seen == Some(context)).count();
        ensure!(!contexts.is_empty(), "no wake-up of the {kind} is told");
        ensure!(right == contexts.len(), "{right} of {} wake-ups of the {kind} in {context}", contexts.len());
        said.push(format!(
            "{kind}: {right} of {} in {context}, p50 of the irq stage {} us",
            contexts.len(),
            thread.timer.irq.quantile_ns(0.5) / 1000
        ));
    }
    Ok(Verdict::Passed(said.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_the_return_is_not_guards_to_see_and_what_came_before_is() {
        // 291 us by the thread's clock, of which the kernel's part were 209.
        let counters = [("returned_max_ns", 209_000), ("rest_ns", 3_000), ("unseen_max_ns", 12_000)];
        let counters = counters.map(|(name, ns)| (name.to_owned(), ns)).into();
        let own = Outcome { max_ns: 291_000, counters, ..Outcome::default() };
        let agrees = [120_000, 191_000, 211_000, 233_000, 291_000].map(|ns| largest(&own, ns).unwrap().agrees);
        assert_eq!(agrees, [false, false, true, false, false]);
        assert!(largest(&Outcome::default(), 0).is_err(), "without a witness");
    }
}
