//! `guard lab`: the acceptance tests of acting. Each scenario shows its hazard and what is left of it with guard, counted
//! by the threads themselves, and leaves nothing behind, by whatever way it ends.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::lab::{Condition, LabReport, PREFIX, Row, SUBCOMMAND, Scenario, ScenarioResult, workload};
use guard::snapshot::{ActionState, Snapshot};
use rustix::process::Signal;

use super::container::Podman;
use crate::{
    harness::{Enforcing, GuardRun, Hierarchy, Tool, binary, emulated, finish, patience, until},
    scenario::Verdict,
};

/// As the lab sets it, and `podman run --cpus 0.2`.
const PERIOD_US: u64 = 100_000;

fn limit() -> Duration {
    Duration::from_secs(120) * patience().min(5)
}

/// Length of a step: some hundred cycles. In noisy-be it is four times as long.
fn step(scenario: Scenario) -> &'static str {
    match (emulated(), scenario) {
        (true, _) => "10s",
        (false, Scenario::NoisyBe) => "2s",
        (false, _) => "3s",
    }
}

/// What a lab could leave behind: its cgroups, its processes, and what the root hands down.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    cgroups: BTreeSet<PathBuf>,
    processes: BTreeSet<u32>,
    handed_down: Option<String>,
}

impl Traces {
    fn look() -> Result<Self> {
        let mount = Hierarchy::find()?.mount;
        let mut cgroups = BTreeSet::new();
        for entry in fs::read_dir(&mount).with_context(|| format!("read {}", mount.display()))? {
            let path = entry.with_context(|| format!("read {}", mount.display()))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
                cgroups.insert(path);
            }
        }
        Ok(Self {
            cgroups,
            processes: processes()?,
            handed_down: fs::read_to_string(mount.join("cgroup.subtree_control")).ok(),
        })
    }

    fn expect_unchanged(&self) -> Result<()> {
        let as_before =
            until("no trace of the lab", Duration::from_secs(10), || Ok((Self::look()? == *self).then_some(())));
        as_before.with_context(|| format!("before {self:?}, now {:?}", Self::look()))
    }
}

/// Processes of any lab: its workloads, and guard beside them.
fn processes() -> Result<BTreeSet<u32>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let of_lab = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split('\0').any(|word| word == SUBCOMMAND || word.contains(PREFIX)))
    };
    Ok(pids.filter(of_lab).collect())
}

fn lab(arguments: &[&str]) -> GuardRun {
    GuardRun::default().with(&["lab", "--format", "json"]).with(arguments)
}

/// Runs one scenario: guard keeps its promise, and `holds`.
fn played(scenario: Scenario, holds: impl Fn(&ScenarioResult) -> Result<()>) -> Result<ScenarioResult> {
    let played = play(scenario)?;
    // An emulated machine loses cycles to whatever others and guard itself do, by the hundred in ten seconds. What counts
    // there is that the quota stops nobody, which `holds` sees to.
    ensure!(played.kept || emulated(), "{}; {}", played.verdict, figures(&played));
    holds(&played)?;
    Ok(played)
}

fn play(scenario: Scenario) -> Result<ScenarioResult> {
    let before = Traces::look()?;
    let finished = lab(&[scenario.name(), "--duration", step(scenario)]).finish(limit())?;
    before.expect_unchanged()?;
    // The verdict stands in the report; without one, the message says why.
    let report: LabReport = serde_json::from_str(&finished.stdout)
        .with_context(|| format!("guard lab {}: {}", scenario.name(), finished.stderr.trim_end()))?;
    let played = report.scenarios.into_iter().next().context("a report without a scenario")?;
    let figures = figures(&played);
    finished.expect_code(if played.kept { 0 } else { 1 })?;
    for row in played.rows.iter().filter(|row| row.step == Condition::With) {
        ensure!(row.guard.as_ref().is_some_and(|acted| acted.restored), "guard put not everything back: {figures}");
    }
    Ok(played)
}

fn figures(played: &ScenarioResult) -> String {
    let row = |row: &Row| {
        format!(
            "{}: {} of {} lost, max {} us, throttled in {} periods",
            row.name,
            row.lost,
            row.cycles,
            row.response.max_ns() / 1000,
            row.nr_throttled
        )
    };
    played.rows.iter().map(row).collect::<Vec<_>>().join("; ")
}

fn row(played: &ScenarioResult, step: Condition) -> Result<&Row> {
    played.rows.iter().find(|row| row.step == step).with_context(|| format!("no row {step:?}"))
}

/// Runs a scenario that has nothing more to show than its own verdict.
fn kept(scenario: Scenario) -> Result<Verdict> {
    let played = played(scenario, |_| Ok(()))?;
    Ok(Verdict::Passed(format!("{}; {}", played.verdict, figures(&played))))
}

/// The cycles that may be lost beyond those of the reference: those due in one quota period, which is what guard may take
/// until it has lifted the quota, and a twentieth of all, for the tenth of the harm that chance moves between two rows.
fn margin(cycles: u64, interval_us: u64) -> u64 {
    PERIOD_US.div_ceil(interval_us) + cycles / 20
}

/// The seed's hazard.
pub(super) fn quota_lock() -> Result<Verdict> {
    let played = played(Scenario::QuotaLock, |played| {
        let (before, with) = (row(played, Condition::Before)?, row(played, Condition::With)?);
        let figures = figures(played);
        ensure!(before.policy.starts_with("SCHED_FIFO"), "the loop ran under {}", before.policy);
        ensure!(4 * before.lost > before.cycles, "less than a quarter lost to the quota: {figures}");
        lifted_at_once(before, with).context(figures)
    })?;
    Ok(Verdict::Passed(figures(&played)))
}

/// guard has lifted the quota within a few of its periods.
fn lifted_at_once(before: &Row, with: &Row) -> Result<()> {
    ensure!(
        10 * with.nr_throttled <= before.nr_throttled,
        "throttled in {} periods with guard, in {} without",
        with.nr_throttled,
        before.nr_throttled
    );
    let lifted = with.guard.as_ref().is_some_and(|acted| acted.changes.iter().any(|change| change.contains("quota")));
    ensure!(lifted, "guard's report names no change of a quota: {:?}", with.guard);
    Ok(())
}

/// Without a quota guard has nothing to do.
pub(super) fn quota_none() -> Result<Verdict> {
    let played = played(Scenario::QuotaNone, |played| {
        let acted = row(played, Condition::With)?.guard.as_ref().context("no guard")?;
        ensure!(acted.changes.is_empty(), "guard changed something: {:?}", acted.changes);
        Ok(())
    })?;
    Ok(Verdict::Passed(figures(&played)))
}

pub(super) fn quota_pi() -> Result<Verdict> {
    kept(Scenario::QuotaPi)
}

pub(super) fn quota_fallback() -> Result<Verdict> {
    let played = played(Scenario::QuotaFallback, |played| {
        ensure!(played.rows.iter().all(|row| row.policy == "SCHED_OTHER"), "the loop was not refused SCHED_FIFO");
        lifted_at_once(row(played, Condition::Before)?, row(played, Condition::With)?)
    })?;
    Ok(Verdict::Passed(figures(&played)))
}

/// The thread itself wakes in time all along: what is late is its data.
pub(super) fn quota_co_thread() -> Result<Verdict> {
    let played = played(Scenario::QuotaCoThread, |played| {
        let (reference, before) = (row(played, Condition::Reference)?, row(played, Condition::Before)?);
        let late = |row: &Row| row.wakeup.quantile_ns(0.5);
        ensure!(
            late(before) < late(reference) + played.interval_us * 1000,
            "the loop itself woke late: {} ns at the median",
            late(before)
        );
        lifted_at_once(before, row(played, Condition::With)?)
    })?;
    Ok(Verdict::Passed(figures(&played)))
}

pub(super) fn noisy_be() -> Result<Verdict> {
    kept(Scenario::NoisyBe)
}

pub(super) fn rt_throttle() -> Result<Verdict> {
    kept(Scenario::RtThrottle)
}

/// Starts a lab that would run for long, and waits until its workload is on stage.
fn long_lab() -> Result<(Tool, PathBuf)> {
    let run = GuardRun::default().with(&["lab", "quota-lock", "--no-guard", "--duration", "10m"]);
    let mut tool = Tool::start(&mut run.command()?)?;
    let stage = Hierarchy::find()?.mount.join(format!("{PREFIX}{}", tool.pid()));
    let threads = stage.join("plc/cgroup.procs");
    until("the lab's workload", limit(), || {
        if let Some(status) = tool.ended()? {
            bail!("guard lab ended with {status}: {}", tool.stderr()?.trim_end());
        }
        Ok(fs::read_to_string(&threads).is_ok_and(|text| !text.trim().is_empty()).then_some(()))
    })?;
    Ok((tool, stage))
}

pub(super) fn interrupted() -> Result<Verdict> {
    if let Some(reason) = no_root() {
        return Ok(Verdict::Skipped(reason));
    }
    let before = Traces::look()?;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut tool, stage) = long_lab()?;
        tool.signal(signal)?;
        let status = tool.wait(limit())?;
        ensure!(status.code() == Some(1), "after {signal:?} guard lab ended with {status}: {}", tool.stderr()?);
        ensure!(tool.stderr()?.contains("interrupted"), "{signal:?}: {}", tool.stderr()?);
        ensure!(!stage.exists(), "{} is left after {signal:?}", stage.display());
        before.expect_unchanged()?;
    }
    Ok(Verdict::Passed("SIGINT, SIGTERM and SIGHUP end it with nothing left".to_owned()))
}

/// SIGKILL leaves no time to clear up: the processes end with the lab, the cgroups go with the next one.
pub(super) fn killed() -> Result<Verdict> {
    if let Some(reason) = no_root() {
        return Ok(Verdict::Skipped(reason));
    }
    let before = Traces::look()?;
    let (mut tool, stage) = long_lab()?;
    tool.signal(Signal::KILL)?;
    tool.wait(limit())?;
    until("the workload's end", limit(), || Ok((processes()? == before.processes).then_some(())))?;
    ensure!(stage.exists(), "{} went by itself, so nothing is tried here", stage.display());
    let next = lab(&["quota-none", "--no-guard", "--duration", "200ms"]).finish(limit())?;
    next.expect_code(0)?;
    ensure!(!stage.exists(), "{} is left", stage.display());
    // On v2 the root goes on handing the controller down: the killed lab alone knew that it had not.
    let now = Traces::look()?;
    ensure!(now.cgroups == before.cgroups && now.processes == before.processes, "before {before:?}, now {now:?}");
    Ok(Verdict::Passed("the next lab removed what was left".to_owned()))
}

pub(super) fn not_root() -> Result<Verdict> {
    let finished = finish(&mut super::limits::as_nobody(lab(&["quota-none"]).command()?), limit())?;
    if finished.status.code() == Some(127) || finished.stderr.contains("setpriv: failed to execute") {
        return Ok(Verdict::Skipped(format!("nobody may not execute guard here: {}", finished.stderr.trim_end())));
    }
    finished.expect_code(3)?;
    finished.expect_message("needs root")?;
    Ok(Verdict::Passed(finished.stderr.trim_end().to_owned()))
}

fn no_root() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned())
}

/// The seed's hazard in a container that nobody told guard about: without a quota, with `--cpus 0.2`, and with guard.
pub(super) fn container() -> Result<Verdict> {
    if let Some(reason) = Podman::obstacle() {
        return Ok(Verdict::Skipped(reason));
    }
    let podman = Podman::with(&binary("guard")?)?;
    let interval_us = if emulated() { 20_000 } else { 1_000 };
    let part = workload::ProcessPart {
        role: workload::Role::Lock { inherit: false, busy_percent: 100 },
        interval_us,
        duration_ms: if emulated() { 10_000 } else { 4_000 },
        cpu: Some(usize::try_from(crate::harness::load_cpu())?),
        held: false,
    };
    let part = serde_json::to_string(&part)?;
    let contained = |name: &str, options: &[&str]| -> Result<workload::PartOutcome> {
        let mut command = podman.run(name, options, &[SUBCOMMAND, &part]);
        let stdout = Tool::start(&mut command)?.success(limit())?;
        let line = stdout.lines().last().context("the workload said nothing")?;
        serde_json::from_str(line).with_context(|| format!("output of the workload: {line}"))
    };
    let fifth = ["--cpus", "0.2"];
    let reference = contained("plc-reference", &[])?;
    let before = contained("plc-before", &fifth)?;
    ensure!(before.policy.starts_with("SCHED_FIFO"), "the loop ran under {}", before.policy);
    ensure!(
        4 * before.lost > before.cycles,
        "less than a quarter lost to the quota: {} of {}",
        before.lost,
        before.cycles
    );
    let mut guard = Enforcing::start(None)?;
    let with = contained("plc-with", &fifth);
    let throttles = throttles_after_the_lift(guard.snapshots()?);
    let said = guard.stop()?;
    let with = with?;
    let throttles = throttles.with_context(|| format!("guard lifted no container's quota: {said}"))?;
    let figures = format!(
        "lost without quota {} of {}, with --cpus 0.2 {} of {}, with guard {} of {}, {throttles} throttles after the lift",
        reference.lost, reference.cycles, before.lost, before.cycles, with.lost, with.cycles
    );
    ensure!(throttles == 0, "the quota still stops it: {figures}; guard said: {said}");
    // As in `played`.
    let kept = emulated() || with.lost <= reference.lost + margin(with.cycles, interval_us);
    ensure!(kept, "more lost with guard than without a quota: {figures}; guard said: {said}");
    Ok(Verdict::Passed(figures))
}

/// Throttles of the container whose quota was lifted, by its cpu.stat, in the windows after the one with the lift.
fn throttles_after_the_lift(snapshots: &[Snapshot]) -> Option<u64> {
    let lifts = |snapshot: &Snapshot| -> Option<String> {
        let lift = snapshot.actions.iter().find(|a| a.path.contains("libpod") && a.new.starts_with("max"))?;
        (lift.result.state == ActionState::Written).then(|| lift.path.clone())
    };
    let at = snapshots.iter().position(|snapshot| lifts(snapshot).is_some())?;
    let path = lifts(&snapshots[at])?;
    let later = snapshots[at + 1..].iter().flat_map(|snapshot| &snapshot.cgroups).filter(|cgroup| cgroup.path == path);
    Some(later.filter_map(|cgroup| cgroup.throttle.cpu_stat).map(|stat| stat.nr_throttled).sum())
}
