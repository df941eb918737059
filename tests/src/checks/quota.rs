//! CFS quotas: throttles, whose quota it was, and waits that are no waits for a CPU.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::{Quota, Throttle, ThrottleSource, Word};

use crate::{
    compare::{Row, Tolerance},
    harness::{Cgroup, Find as _, GuardRun, Workload, load_cpu, patience},
    scenario::Verdict,
};

const QUOTA_US: u64 = 20_000;
const PERIOD_US: u64 = 100_000;
const SPIN_SECONDS: &str = "5";

fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

/// A cgroup that gets so much of its CPU, however busy the machine is, that its quota is what stops it.
fn limited(name: &str) -> Result<Cgroup> {
    let cgroup = Cgroup::create(name)?;
    cgroup.outweigh()?;
    cgroup.set_quota(QUOTA_US, PERIOD_US)?;
    Ok(cgroup)
}

fn spinner() -> Result<Workload> {
    Workload::hold(&["spin", "--seconds", SPIN_SECONDS, "--cpu", &load_cpu().to_string()])
}

/// In how many periods cpu.stat counts these throttles, at least and at most. It counts periods: where the period's timer
/// came late by a whole one, which an emulated machine under load is capable of, one throttle counts twice.
fn throttled_periods(throttle: &Throttle) -> RangeInclusive<u64> {
    if throttle.source != Some(ThrottleSource::Fentry.into()) {
        return throttle.count..=throttle.count;
    }
    let period_ns = PERIOD_US * 1000;
    let mut range = (0, 0);
    for (upper_ns, n) in throttle.duration.buckets() {
        // A bucket is at most 6.25 % wide.
        let lower_ns = upper_ns - upper_ns / 16;
        range.0 += n * (lower_ns / period_ns + 1);
        range.1 += n * (upper_ns / period_ns + 1);
    }
    range.0..=range.1
}

pub(super) fn throttles_reconcile() -> Result<Verdict> {
    let cgroup = limited("quota")?;
    let mut workload = spinner()?;
    cgroup.add(workload.pid())?;
    let guard = GuardRun::report().measure()?;
    let before = cgroup.cpu_stat()?;
    workload.go()?;
    workload.outcome(limit())?;
    let own = cgroup.cpu_stat()?.since(before);
    let snapshot = guard.stop()?;
    if let Some(reason) = snapshot.unavailable("throttle")? {
        return Ok(Verdict::Skipped(reason));
    }
    ensure!(own.nr_throttled > 10, "the quota throttled only {} times", own.nr_throttled);
    let throttle = &snapshot.cgroup(cgroup.path())?.throttle;
    let by_cpu_stat = throttle.cpu_stat.context("no cpu.stat in the report")?;
    let one = Tolerance { absolute: 1, fraction: 0.0 };
    let close = Tolerance { absolute: 0, fraction: 0.05 };
    let rows = [
        Row::new("cpu_stat.nr_throttled", own.nr_throttled, by_cpu_stat.nr_throttled, one),
        Row::new("cpu_stat.throttled_ns", own.throttled_ns, by_cpu_stat.throttled_ns, close),
        Row::new("throttle.total_ns", own.throttled_ns, throttle.total_ns, close),
    ];
    for row in &rows {
        ensure!(row.agrees, "{row} (source {:?})", throttle.source);
    }
    let counted = throttled_periods(throttle);
    let near = counted.start().saturating_sub(1)..=counted.end() + 1;
    ensure!(
        near.contains(&own.nr_throttled),
        "{} throttles in {counted:?} periods, cpu.stat says {} (source {:?})",
        throttle.count,
        own.nr_throttled,
        throttle.source
    );
    if !throttle.duration.is_empty() {
        let row = Row::new("sum of throttle.duration", own.throttled_ns, throttle.duration.sum_ns(), close);
        ensure!(row.agrees, "{row} (source {:?})", throttle.source);
    }
    let quota = Quota { quota_us: QUOTA_US, period_us: PERIOD_US };
    ensure!(throttle.quota == Some(quota), "quota {:?}", throttle.quota);
    ensure!(throttle.by.as_deref() == Some(cgroup.path()), "throttled by {:?}", throttle.by);
    Ok(Verdict::Passed(format!(
        "{} of {} throttles, {} of {} ms, {} durations, source {}",
        throttle.count,
        own.nr_throttled,
        throttle.total_ns / 1_000_000,
        own.throttled_ns / 1_000_000,
        throttle.duration.count(),
        throttle.source.as_ref().map_or("unknown", Word::as_str)
    )))
}

pub(super) fn ancestor_is_named() -> Result<Verdict> {
    let parent = limited("ancestor")?;
    let child = parent.child("child")?;
    let mut workload = spinner()?;
    child.add(workload.pid())?;
    let guard = GuardRun::report().measure()?;
    workload.go()?;
    workload.outcome(limit())?;
    let snapshot = guard.stop()?;
    if let Some(reason) = snapshot.unavailable("throttle")? {
        return Ok(Verdict::Skipped(reason));
    }
    let throttled = &snapshot.cgroup(child.path())?.throttle;
    ensure!(throttled.by.as_deref() == Some(parent.path()), "throttled by {:?}", throttled.by);
    ensure!(throttled.count == 0, "{} throttles of a quota that the child does not have", throttled.count);
    let throttling = &snapshot.cgroup(parent.path())?.throttle;
    ensure!(throttling.count > 10, "the parent shows {} throttles", throttling.count);
    Ok(Verdict::Passed(format!("{} throttles by {}", throttling.count, parent.path())))
}

/// A lone periodic task and a spinner under a 20 % quota: nobody else wants their CPU for long, so what they wait for
/// is the next period.
pub(super) fn throttled_wait_is_apart() -> Result<Verdict> {
    let cgroup = limited("wait")?;
    let cpu = load_cpu().to_string();
    let mut periodic =
        Workload::hold(&["cycle", "timerfd", "--interval-us", "10000", "--cycles", "100000", "--cpu", &cpu])?;
    let mut spinner = spinner()?;
    cgroup.add(periodic.pid())?;
    cgroup.add(spinner.pid())?;
    let guard = GuardRun::report().measure()?;
    let before = cgroup.cpu_stat()?;
    periodic.go()?;
    spinner.go()?;
    spinner.outcome(limit())?;
    let own = cgroup.cpu_stat()?.since(before);
    drop(periodic);
    let snapshot = guard.stop()?;
    if let Some(reason) = snapshot.unavailable("throttled_wait")? {
        return Ok(Verdict::Skipped(reason));
    }
    let wakeup = &snapshot.cgroup(cgroup.path())?.wakeup;
    let (throttled_ns, fair_ns) = (wakeup.throttled.sum_ns(), wakeup.fair.sum_ns());
    ensure!(
        throttled_ns >= own.throttled_ns / 2,
        "{} ms of waiting for quota where cpu.stat says {} ms",
        throttled_ns / 1_000_000,
        own.throttled_ns / 1_000_000
    );
    ensure!(
        fair_ns <= throttled_ns / 2,
        "{} ms of waiting for a CPU beside {} ms of waiting for quota",
        fair_ns / 1_000_000,
        throttled_ns / 1_000_000
    );
    Ok(Verdict::Passed(format!(
        "for quota {} ms, for a CPU {} ms, cpu.stat {} ms",
        throttled_ns / 1_000_000,
        fair_ns / 1_000_000,
        own.throttled_ns / 1_000_000
    )))
}
