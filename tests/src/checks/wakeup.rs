//! Wake-ups per cgroup.

use std::{os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    harness::{Cgroup, Find as _, GuardRun, Workload, patience},
    scenario::Verdict,
};

pub(super) fn cgroup_shows_wakeups() -> Result<Verdict> {
    let cgroup = Cgroup::create("wakeups")?;
    let mut workload = Workload::hold(&["cycle", "timerfd", "--interval-us", "5000", "--cycles", "400"])?;
    cgroup.add(workload.pid())?;
    let guard = GuardRun::report().measure()?;
    workload.go()?;
    let own = workload.outcome(Duration::from_secs(30) * patience())?;
    let snapshot = guard.stop()?;
    let seen = snapshot.cgroup(cgroup.path())?;
    let inode = std::fs::metadata(cgroup.dir()).context("stat of our cgroup")?.ino();
    ensure!(seen.id == inode, "id {} instead of inode {inode}", seen.id);
    let fair = &seen.wakeup.fair;
    // A preempted thread waits again without having slept, so more is possible, but not twice as much.
    let lost = snapshot.overhead.lost.missed_events;
    ensure!(
        (own.cycles.saturating_sub(lost)..own.cycles * 2).contains(&fair.count()),
        "{} fair waits for {} wake-ups, {lost} events lost",
        fair.count(),
        own.cycles
    );
    ensure!(seen.wakeup.rt.count() == 0, "{} waits of RT threads where there are none", seen.wakeup.rt.count());
    ensure!(
        fair.max_ns() <= own.max_ns.max(1_000_000) * 2,
        "a wake-up waited {} ns for a CPU, but none was later than {} ns",
        fair.max_ns(),
        own.max_ns
    );
    Ok(Verdict::Passed(format!("{} wake-ups, {} waits", own.cycles, fair.count())))
}
