//! Locks that real-time threads wait for.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard::snapshot::Snapshot;

use crate::{
    compare::{Row, Tolerance, quantile_ns},
    harness::{Cgroup, Find as _, GuardRun, Workload, emulated, load_cpu, patience},
    scenario::Verdict,
    workload::Outcome,
};

fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

/// Lets a held workload run beside guard: its thread, what it says of itself, what guard says.
fn observed(mut workload: Workload) -> Result<(u32, Outcome, Snapshot)> {
    let tid = workload.tid()?;
    let guard = GuardRun::report().measure()?;
    workload.go()?;
    let own = workload.outcome(limit())?;
    Ok((tid, own, guard.stop()?))
}

pub(super) fn pi_boosts() -> Result<Verdict> {
    let cgroup = Cgroup::create("pi")?;
    cgroup.allow_rt(700_000)?;
    let (interval, hold) = if emulated() { ("50000", "20000") } else { ("5000", "2000") };
    let cpu = load_cpu().to_string();
    let workload =
        Workload::hold(&["pi-mutex", "--cycles", "200", "--interval-us", interval, "--hold-us", hold, "--cpu", &cpu])?;
    cgroup.add(workload.pid())?;
    let (tid, own, snapshot) = observed(workload)?;
    if let Some(reason) = snapshot.unavailable("lock")? {
        return Ok(Verdict::Skipped(reason));
    }
    let waits = own.counter("waits")?;
    ensure!(waits >= 20, "the lock was contended only {waits} times");
    let waited = &snapshot.thread(tid)?.lock.wait;
    // A lock that is released between the look at it and the wait for it is not waited for. On PREEMPT_RT the lock inside
    // the kernel that guards the futex is waited for, too.
    let fewest = waits - waits / 10;
    let most = if snapshot.node.realtime { 3 * waits } else { waits + waits / 10 };
    ensure!((fewest..=most).contains(&waited.count()), "{} lock waits seen of {waits}", waited.count());
    // The workload's own time includes its way into the kernel and back, on which an emulated CPU may stand still, and any other
    // may once be taken away: of the longest waits one in a hundred may be so much longer than what the lock took of it.
    let fraction = if emulated() { 0.5 } else { 0.2 };
    let peer = [quantile_ns(&own.histogram, 0.99), own.max_ns, own.max_ns];
    let row = Row::between("longest lock wait", peer, waited.max_ns(), Tolerance { absolute: 100_000, fraction });
    ensure!(row.agrees, "{row}");
    let boosts = snapshot.cgroup(cgroup.path())?.lock.boosts;
    ensure!((waits / 2..=waits * 4).contains(&boosts), "{boosts} boosts for {waits} contended locks");
    Ok(Verdict::Passed(format!("{waits} waits, {} counted, {boosts} boosts", waited.count())))
}

pub(super) fn kernel_lock() -> Result<Verdict> {
    let cpu = load_cpu().to_string();
    let workload = Workload::hold(&["pipe-mutex", "--cycles", "3000", "--cpu", &cpu])?;
    let (tid, own, snapshot) = observed(workload)?;
    if let Some(reason) = snapshot.unavailable("lock")? {
        return Ok(Verdict::Skipped(reason));
    }
    let waited = &snapshot.thread(tid)?.lock.wait;
    // A kernel that does not preempt the holder lets nobody wait for long.
    if waited.is_empty() && own.max_ns < 100_000 {
        return Ok(Verdict::Skipped(format!("no write had to wait: the longest took {} ns", own.max_ns)));
    }
    ensure!(!waited.is_empty(), "no lock wait in {} writes into a contended pipe", own.cycles);
    ensure!(waited.count() <= 2 * own.cycles, "{} lock waits in {} writes", waited.count(), own.cycles);
    ensure!(
        waited.max_ns() <= own.max_ns + 1_000_000,
        "a lock wait of {} ns where no write took longer than {} ns",
        waited.max_ns(),
        own.max_ns
    );
    Ok(Verdict::Passed(format!("{} lock waits in {} writes", waited.count(), own.cycles)))
}
