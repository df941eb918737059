//! Waits that last longer than the flight recorder remembers, or in which it is overrun: what was forgotten is accounted for by
//! running totals, and no flag speaks for a time that it did not last.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::{Breach, Cause};

use crate::{
    harness::{Cgroup, GuardRun, Workload, emulated, load_cpu, patience},
    scenario::Verdict,
};

/// With the recorder, and by the record alone.
const WAYS: [&str; 2] = ["--explain", "--no-explain"];
const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";
/// RT time of the cgroup where each has its own, us of a second.
const RATION_US: u32 = 400_000;

/// A hog above the thread that waits, for longer than the recorder remembers: with RT throttling as it is, without it, and within
/// the RT time of a cgroup.
pub(super) fn behind_a_hog() -> Result<Verdict> {
    let mut said = Vec::new();
    for way in WAYS {
        said.push(format!("{way}: {}", hog(way, None)?));
        {
            let _off = Setting::set(RT_RUNTIME, "-1")?;
            said.push(format!("throttling off: {}", hog(way, None)?));
        }
        let cgroup = Cgroup::create("ration")?;
        if cgroup.dir().join("cpu.rt_runtime_us").exists() {
            cgroup.allow_rt(RATION_US)?;
            said.push(format!("rationed: {}", hog(way, Some(&cgroup))?));
        }
    }
    Ok(Verdict::Passed(said.join("; ")))
}

/// Threads above the thread that waits, which switch as fast as they can: more events than the recorder holds.
pub(super) fn behind_a_storm() -> Result<Verdict> {
    let cpu = load_cpu().to_string();
    let mut said = Vec::new();
    for way in WAYS {
        let storm = ["pingpong", "--seconds", "6", "--policy", "fifo:70", "--cpu", &cpu];
        let (breach, _) = kept_off(way, &storm, None)?;
        let events = format!("{:?}", breach.evidence.unaccounted.as_ref().map(ToString::to_string));
        expect_mostly(&breach, Cause::HigherPriority, 80)?;
        expect_little_blocking(&breach)?;
        said.push(format!("{way} ({events}): {}", breach.sentence));
    }
    Ok(Verdict::Passed(said.join("; ")))
}

fn hog(way: &str, cgroup: Option<&Cgroup>) -> Result<String> {
    let cpu = load_cpu().to_string();
    let hog = ["fifo-hog", "--seconds", "6", "--priority", "70", "--gap-us", "5000", "--cpu", &cpu];
    let (breach, taken_ns) = kept_off(way, &hog, cgroup)?;
    let share = |cause: Cause| breach.shares.get(cause.name()).copied().unwrap_or(0);
    let by_kernel = share(Cause::RtThrottling) + share(Cause::FairServer);
    let taken_ns = taken_ns.context("the hog does not say what was taken from it")?;
    expect_little_blocking(&breach)?;
    if cgroup.is_none() {
        expect_mostly(&breach, Cause::HigherPriority, 80)?;
    }
    // An emulated machine stands still now and then, which only the hog takes for a gap.
    let near = by_kernel.abs_diff(taken_ns) * 5 <= taken_ns.max(breach.latency_ns / 20);
    ensure!(
        near || emulated() && by_kernel <= taken_ns,
        "the hog lost its CPU for {taken_ns} ns, and guard says {by_kernel} ns: {breach:?}"
    );
    Ok(format!(
        "{} ms, of them {} ms higher_priority, {} ms taken (the hog: {} ms)",
        breach.latency_ns / 1_000_000,
        share(Cause::HigherPriority) / 1_000_000,
        by_kernel / 1_000_000,
        taken_ns / 1_000_000
    ))
}

/// Has a FIFO 50 thread wait for its CPU while `above` keeps it; the longest wait, and what was taken from `above`.
fn kept_off(way: &str, above: &[&str], cgroup: Option<&Cgroup>) -> Result<(Breach, Option<u64>)> {
    let limit = Duration::from_secs(60) * patience();
    let cpu = load_cpu().to_string();
    let cycle = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:50", "--interval-us", "50000", "--cycles", "40"];
    let mut waiter = Workload::hold(&[&cycle[..], &["--cpu", &cpu]].concat())?;
    let mut above = Workload::hold(above)?;
    if let Some(cgroup) = cgroup {
        cgroup.add(waiter.pid())?;
        cgroup.add(above.pid())?;
    }
    let tid = waiter.tid()?;
    let guard = GuardRun::report().tid(tid).with(&[way, "--threshold", "1s"]).measure()?;
    waiter.go()?;
    std::thread::sleep(Duration::from_secs(1));
    above.go()?;
    let taken_ns = above.outcome(limit)?.counter("taken_ns").ok();
    let own = waiter.outcome(limit)?;
    let snapshot = guard.stop()?;
    let all = snapshot.breaches.into_iter().filter(|breach| breach.tid == tid);
    let worst = all.max_by_key(|breach| breach.latency_ns).context("no late wake-up was seen")?;
    let sum: u64 = worst.shares.values().sum();
    ensure!(sum == worst.latency_ns, "the shares do not add up: {worst:?}");
    ensure!(worst.latency_ns >= 5_000_000_000, "late by {} ns only, itself {} ns", worst.latency_ns, own.max_ns);
    Ok((worst, taken_ns))
}

fn expect_mostly(breach: &Breach, cause: Cause, percent: u64) -> Result<()> {
    let ns = breach.shares.get(cause.name()).copied().unwrap_or(0);
    ensure!(breach.cause == cause && ns * 100 >= breach.latency_ns * percent, "not mostly {cause}: {breach:?}");
    Ok(())
}

fn expect_little_blocking(breach: &Breach) -> Result<()> {
    let ns = breach.shares.get(Cause::LowerPriorityBlocking.name()).copied().unwrap_or(0);
    ensure!(ns * 20 <= breach.latency_ns, "{ns} ns are called lower_priority_blocking: {breach:?}");
    Ok(())
}

/// A setting of the kernel that is as it was when this is dropped.
struct Setting(&'static str, String);

impl Setting {
    fn set(path: &'static str, value: &str) -> Result<Self> {
        let before = fs::read_to_string(path).with_context(|| path.to_owned())?;
        let setting = Self(path, before);
        fs::write(path, value).with_context(|| format!("write {value} to {path}"))?;
        Ok(setting)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.0, &self.1) {
            eprintln!("{} is not put back to {}: {error}", self.0, self.1.trim());
        }
    }
}
