//! More cgroups and threads than guard has room for, and cgroups that come and go all the time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    compare::{Row, Tolerance},
    harness::{Cgroup, Enforcing, Find as _, GuardRun, Workload, patience, until},
    scenario::Verdict,
};

const CGROUPS: usize = 2000;
const THREADS: usize = 10_000;

pub(super) fn crowd() -> Result<Verdict> {
    let limit = Duration::from_secs(60) * patience();
    let parent = Cgroup::create("crowd")?;
    let dir = parent.dir();
    let dir = dir.to_string_lossy();
    let cgroups = Workload::start(&["cgroups", &CGROUPS.to_string(), "--parent", &dir, "--interval-us", "500000"])?;
    let threads = Workload::start(&["threads", &THREADS.to_string(), "--interval-us", "1000000"])?;
    let guard = GuardRun::report().measure()?;
    // The crowd wakes all the time; a thread with an end of its own says when there was enough of it.
    let witness = Workload::start(&[
        "cycle",
        "clock-nanosleep-abs",
        "--policy",
        "fifo:80",
        "--interval-us",
        "2000",
        "--cycles",
        "2000",
    ])?;
    let tid = witness.tid()?;
    let own = witness.outcome(limit)?;
    let snapshot = guard.stop()?;
    threads.terminate()?;
    let woken = threads.outcome(limit)?;
    cgroups.terminate()?;
    cgroups.outcome(limit)?;
    until("an empty parent", limit, || Ok((!dir.is_empty() && count_dirs(&parent)? == 0).then_some(())))?;

    let named = snapshot.cgroups.iter().filter(|cgroup| cgroup.path.starts_with(parent.path())).count();
    let lost = &snapshot.overhead.lost;
    if named < CGROUPS {
        let other = snapshot.cgroup("(other)")?;
        ensure!(other.id == 0, "\"(other)\" has the id {}", other.id);
        ensure!(other.wakeup.fair.count() > 0, "cgroups without a slot and nothing under \"(other)\"");
        ensure!(lost.other_cgroups > 0, "cgroups without a slot and the report does not say so");
    }
    let seen = snapshot.thread(tid)?.timer.thread.count();
    let row = Row::new("cycles of the FIFO thread in the crowd", own.cycles, seen, Tolerance::of_count(&snapshot));
    ensure!(row.agrees, "{row}");
    Ok(Verdict::Passed(format!(
        "{named} of {CGROUPS} cgroups by name, {} wake-ups under other, {THREADS} threads woke {} times, lost {lost:?}",
        lost.other_cgroups, woken.cycles
    )))
}

fn count_dirs(cgroup: &Cgroup) -> Result<usize> {
    let entries = std::fs::read_dir(cgroup.dir())?;
    Ok(entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count())
}

/// Best-effort cgroups that come and go, in waves.
const WAVES: usize = 10;
const WAVE: usize = 200;
/// PLC cgroups that turn up meanwhile.
const PLCS: usize = 5;

/// The crowd has quotas, so that guard has to know each of them; in the middle of it new PLC cgroups are protected.
pub(super) fn churn() -> Result<Verdict> {
    let top = Cgroup::create("churn")?;
    top.allow_rt(100_000)?;
    let be = top.child("be")?;
    let mut guard = Enforcing::start(Some(&format!(
        "[[workload]]\nmatch.cgroup = \"{}*\"\nclass = \"BE\"\n\n[[workload]]\nmatch.cgroup = \"{}*\"\nmanaged = true\n\n\
         [[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n",
        be.path(),
        top.path()
    )))?;
    let crowd = thread::spawn(move || -> Result<()> {
        for _ in 0..WAVES {
            let wave: Vec<Cgroup> = (0..WAVE).map(|n| be.child(&format!("c{n}"))).collect::<Result<_>>()?;
            wave.iter().try_for_each(|cgroup| cgroup.set_quota(10_000, 100_000))?;
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    });
    let mut lifted_after = Vec::new();
    for n in 0..PLCS {
        let plc = top.child(&format!("plc{n}"))?;
        plc.allow_rt(10_000)?;
        plc.set_quota(20_000, 100_000)?;
        let quota = plc.quota_text()?;
        let cycle =
            ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", "10000", "--cycles", "1000000"];
        let mut cycle = Workload::hold(&cycle)?;
        plc.add(cycle.pid())?;
        let begin = Instant::now();
        cycle.go()?;
        until("a new PLC's lifted quota", Duration::from_secs(10) * patience(), || {
            Ok((plc.quota_text()? != quota).then_some(()))
        })?;
        lifted_after.push(begin.elapsed());
    }
    let made = crowd.join();
    let Ok(made) = made else { bail!("who makes the crowd panicked") };
    made.context("the crowd")?;
    guard.passed(2)?;
    let last = guard.snapshots()?.last().cloned().context("no Snapshot")?;
    let dearest = guard.snapshots()?.iter().map(|snapshot| snapshot.overhead.cpu_fraction).fold(0.0, f64::max);
    guard.stop()?;
    lifted_after.sort_unstable();
    let memory_mib = last.overhead.memory_bytes >> 20;
    ensure!(memory_mib < 128, "guard takes {memory_mib} MiB of memory after {} cgroups", WAVES * WAVE);
    Ok(Verdict::Passed(format!(
        "{} cgroups came and went; {PLCS} PLCs were lifted after {lifted_after:.1?}; guard took up to {:.0} % of a CPU, and \
         {memory_mib} MiB at the end",
        WAVES * WAVE,
        100.0 * dearest
    )))
}
