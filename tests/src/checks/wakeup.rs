//! Wake-ups per cgroup.

use std::{os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard::sched::now_ns;

use crate::{
    harness::{Cgroup, Find as _, GuardRun, Workload, patience},
    scenario::Verdict,
};

pub(super) fn cgroup_shows_wakeups() -> Result<Verdict> {
    let cgroup = Cgroup::create("wakeups")?;
    let mut workload = Workload::hold(&["cycle", "timerfd", "--interval-us", "5000", "--cycles", "400"])?;
    cgroup.add(workload.pid())?;
    let guard = GuardRun::report().measure()?;
    let before_ns = now_ns();
    workload.go()?;
    let own = workload.outcome(Duration::from_secs(30) * patience())?;
    let after_ns = now_ns();
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
    // Whoever waits for a CPU does not read the clock.
    let unread_ns = (own.counter("began_ns")? - before_ns).max(after_ns - own.counter("ended_ns")?);
    let longest_ns = own.counter("longest_ns")?.max(unread_ns);
    ensure!(
        fair.max_ns() <= longest_ns,
        "somebody waited {} ns for a CPU, but the clock was read at least every {longest_ns} ns",
        fair.max_ns()
    );
    Ok(Verdict::Passed(format!("{} wake-ups, {} waits", own.cycles, fair.count())))
}
