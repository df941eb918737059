//! More cgroups and threads than guard has room for.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    compare::{Row, Tolerance},
    harness::{Cgroup, Find as _, GuardRun, Workload, patience, until},
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
