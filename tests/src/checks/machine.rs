//! The machine itself changes while guard measures: its clock is set, a CPU goes and comes back. Only in guests, whose
//! clock and CPUs nobody else needs.

use std::{
    fs,
    path::Path,
    sync::mpsc,
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::Snapshot;
use rustix::{
    thread::{clock_nanosleep_absolute, gettid},
    time::{ClockId, Timespec, clock_gettime, clock_settime},
};

use super::limits;
use crate::{
    compare::{Row, Tolerance},
    harness::{Find as _, GuardRun, Measuring, Workload, patience},
    scenario::Verdict,
};

const STEP_SECONDS: i64 = 2 * 3600;
/// Long enough for the loop to be under way before, between and after what is done to the machine.
const CYCLES: u64 = 300;
const INTERVAL_US: u64 = 20_000;

fn limit() -> Duration {
    Duration::from_secs(60) * patience()
}

/// A part of the loop's run.
fn a_while() {
    sleep(Duration::from_micros(CYCLES * INTERVAL_US / 6));
}

fn cyclic() -> Result<Workload> {
    let (interval, cycles) = (INTERVAL_US.to_string(), CYCLES.to_string());
    Workload::hold(&[
        "cycle",
        "clock-nanosleep-abs",
        "--policy",
        "fifo:80",
        "--interval-us",
        &interval,
        "--cycles",
        &cycles,
        "--mlockall",
    ])
}

/// What must hold of the loop whatever happened to the machine. Returns what was counted.
fn expect_loop(workload: Workload, guard: Measuring) -> Result<(Snapshot, String)> {
    let tid = workload.tid()?;
    let own = workload.outcome(limit())?;
    let snapshot = guard.stop()?;
    let thread = snapshot.thread(tid)?;
    for (stage, latency) in [("irq", &thread.timer.irq), ("thread", &thread.timer.thread)] {
        let row = Row::new(stage, own.cycles, latency.count(), Tolerance::of_count(&snapshot));
        ensure!(row.agrees, "{row}; lost {:?}", snapshot.overhead.lost);
    }
    limits::expect_no_absurd_latency(&snapshot)?;
    let told = format!("{} of {} cycles", thread.timer.thread.count(), own.cycles);
    Ok((snapshot, told))
}

/// CLOCK_REALTIME, moved by so many seconds.
fn step_clock(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec { tv_sec: now.tv_sec + seconds, ..now };
    clock_settime(ClockId::Realtime, then).context("clock_settime")
}

/// A loop on the monotonic clock, and a thread that waits for a time of day which the step jumps over.
pub(super) fn clock_steps() -> Result<Verdict> {
    let mut workload = cyclic()?;
    let (announce, announced) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let now = clock_gettime(ClockId::Realtime);
        // Nobody hears it only if the check has failed already.
        let _ = announce.send(gettid().as_raw_nonzero().get());
        let wanted = Timespec { tv_sec: now.tv_sec + STEP_SECONDS / 2, ..now };
        clock_nanosleep_absolute(ClockId::Realtime, &wanted)
    });
    let sleeper_tid = announced.recv_timeout(limit()).context("the tid of the sleeper")?.unsigned_abs();
    let guard = GuardRun::report().tid(workload.tid()?).tid(sleeper_tid).measure()?;
    workload.go()?;
    a_while();
    step_clock(STEP_SECONDS)?;
    // Set back whatever happens next: whoever looks at the clock later finds it right.
    let woken = sleeper.join();
    a_while();
    step_clock(-STEP_SECONDS)?;
    woken.map_err(|_| anyhow::anyhow!("the sleeper panicked"))?.context("clock_nanosleep to a time of day")?;
    let (snapshot, told) = expect_loop(workload, guard)?;
    let past = snapshot.overhead.lost.past_timers;
    let sleeper = snapshot.thread(sleeper_tid)?;
    ensure!(
        past >= 1 && sleeper.timer.thread.is_empty(),
        "a timer that a clock step made expire is late by nobody's fault: {past} told, {} counted, at most {} ns",
        sleeper.timer.thread.count(),
        sleeper.timer.thread.max_ns()
    );
    Ok(Verdict::Passed(format!("{told}, {past} timers that the step jumped over")))
}

/// The last CPU goes while the loop runs, and comes back.
pub(super) fn hotplug() -> Result<Verdict> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let online = format!("/sys/devices/system/cpu/cpu{}/online", cpus - 1);
    if cpus < 2 || !Path::new(&online).exists() {
        return Ok(Verdict::Skipped(format!("no CPU to take away: {cpus} CPUs, no {online}")));
    }
    let switch = |to: &str| fs::write(&online, to).with_context(|| format!("writing {to} to {online}"));
    let mut workload = cyclic()?;
    let guard = GuardRun::report().tid(workload.tid()?).measure()?;
    workload.go()?;
    a_while();
    switch("0")?;
    a_while();
    switch("1")?;
    let (snapshot, told) = expect_loop(workload, guard)?;
    let seen = u32::try_from(cpus - 1).ok().and_then(|cpu| snapshot.cpu(cpu).ok()).is_some();
    ensure!(seen, "CPU {} counted before and after it was away, and is not in the report", cpus - 1);
    Ok(Verdict::Passed(format!("{told}, CPU {} away for a third of them", cpus - 1)))
}
