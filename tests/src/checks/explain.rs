//! `guard explain` names what was done to a real-time thread.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::{BreachFlag, Cause, Did};
use serde_json::Value;

use crate::{
    harness::{GuardRun, Workload, emulated, load_cpu, patience},
    inject::{Kernel, Scale, score, trial},
    scenario::Verdict,
    trace_events::Tracks,
    workload::inject::Hazard,
};

/// Hazards that one victim can have in turn: by threads, beside which an observer sees the machine stand still, and in the
/// kernel, which stops the observer, too.
const IN_TURN: [&[Hazard]; 2] = [
    &[
        Hazard::HigherPriority,
        Hazard::NonPiLock,
        Hazard::LockHolderPreempted,
        Hazard::ThrottledLockHolder,
        Hazard::PageFault,
    ],
    &[Hazard::LowerPriorityBlocking, Hazard::Irq, Hazard::Nmi, Hazard::CpuIdleExit],
];

/// Shots of each.
const ROUNDS: usize = 4;

pub(super) fn causes_are_named() -> Result<Verdict> {
    let (kernel, scale) = (Kernel::running()?, Scale::here());
    let (mut said, mut hurt_in_all, mut disturbed, mut seed) = (Vec::new(), 0, 0, 10);
    for hazards in IN_TURN {
        let hazards: Vec<Hazard> =
            hazards.iter().copied().filter(|hazard| kernel.impossible(*hazard).is_none()).collect();
        seed += 1;
        let trial = trial(&hazards, ROUNDS * hazards.len(), &scale, seed, true)?;
        let score = score(&trial, &kernel, &scale)?;
        ensure!(score.not_adding_up == 0, "the shares of {} breaches do not add up", score.not_adding_up);
        let (accused, unhurt) = (score.accused, score.unhurt);
        ensure!(accused * 100 <= unhurt, "{accused} of {unhurt} unhurt cycles are called late");
        disturbed += score.disturbed;
        for hazard in &hazards {
            let own = || score.hurt.iter().filter(|shot| shot.hazards == [*hazard]);
            let (right, hurt) = (own().filter(|shot| shot.right()).count(), own().count());
            // A busy machine makes the victim late in ways of its own, which do not cover half of the shots.
            let wrong = own().find(|shot| !shot.right()).and_then(|shot| shot.sentence.clone()).unwrap_or_default();
            ensure!(right * 2 >= hurt, "{hazard:?}: {right} of {hurt} named rightly; one of the others: {wrong}");
            said.push(format!("{hazard:?} {right}/{hurt}"));
            hurt_in_all += hurt;
        }
    }
    if hurt_in_all == 0 {
        return Ok(Verdict::Skipped(format!("nothing hurt; the machine stood still in {disturbed} shots")));
    }
    Ok(Verdict::Passed(format!("{}, {disturbed} disturbed", said.join(", "))))
}

pub(super) fn chain_is_whole() -> Result<Verdict> {
    let (kernel, scale) = (Kernel::running()?, Scale::here());
    let trial = trial(&[Hazard::LockChain], 3, &scale, 2, true)?;
    let score = score(&trial, &kernel, &scale)?;
    let far = trial.far.as_deref().context("there is no far cgroup")?;
    let own = trial.snapshot.breaches.iter().filter(|breach| breach.tid == trial.log.victim);
    let chains: Vec<_> = own
        .filter(|breach| breach.cause == Cause::ThrottledLockHolder && breach.evidence.chain.len() >= 2)
        .map(|breach| (&breach.evidence.chain, &breach.sentence, &breach.evidence.throttled_by))
        .collect();
    let sentences: Vec<_> = score.hurt.iter().filter_map(|shot| shot.sentence.as_deref()).collect();
    let (chain, sentence, by) = chains.first().with_context(|| format!("no chain in {sentences:?}"))?;
    let last = chain.last().context("an empty chain")?;
    ensure!(last.did == Did::Throttled && last.who.cgroup.as_deref() == Some(far), "{chain:?}");
    ensure!(chain[0].did == Did::Waited && chain[0].who.cgroup.as_deref() != Some(far), "{chain:?}");
    ensure!(by.as_ref().is_some_and(|by| by.cgroup == far), "{by:?}");
    ensure!(sentence.contains(far) && sentence.contains("which waited for"), "{sentence}");
    let inversion = trial.snapshot.inversions.iter().find(|inversion| inversion.by_cgroup.as_deref() == Some(far));
    ensure!(inversion.is_some(), "{:?}", trial.snapshot.inversions);
    Ok(Verdict::Passed((*sentence).clone()))
}

/// The kernel knows no owner of a plain mutex; its word does. And kernel stacks show where the two of them were.
pub(super) fn futex_owner() -> Result<Verdict> {
    let limit = Duration::from_secs(60) * patience();
    let (scale, cycles) = if emulated() { (5, "12") } else { (1, "40") };
    let (interval, hold) = ((20_000 * scale).to_string(), (15_000 * scale).to_string());
    let threshold = format!("{}us", 5_000 * scale);
    let mut said = Vec::new();
    for robust in [false, true] {
        let mut arguments = vec!["plain-mutex", "--cycles", cycles, "--interval-us", &interval, "--hold-us", &hold];
        if robust {
            arguments.push("--robust");
        }
        let mut workload = Workload::hold(&arguments)?;
        let [waiter, holder] = workload.tids() else { bail!("not two threads") };
        let (waiter, holder) = (*waiter, *holder);
        let report = GuardRun::report().tid(waiter).with(&["--stacks", "--threshold", &threshold]).measure()?;
        workload.go()?;
        let own = workload.outcome(limit)?;
        let snapshot = report.stop()?;
        let late: Vec<_> = snapshot
            .breaches
            .iter()
            .filter(|breach| {
                breach.tid == waiter && breach.cause == Cause::NonPiLock && !breach.evidence.parts.is_empty()
            })
            .collect();
        ensure!(!late.is_empty(), "none of {} waits, the longest of {} ns, is told", own.cycles, own.max_ns);
        for breach in &late {
            let evidence = &breach.evidence;
            ensure!(breach.culprit.as_ref().is_some_and(|by| by.tid == holder), "not by {holder}: {breach:?}");
            ensure!(evidence.has(BreachFlag::FutexOwner), "the word was not read: {breach:?}");
            ensure!(evidence.lock_owner == holder && breach.sentence.contains("held by"), "{breach:?}");
            let stacks = evidence.stacks.as_ref().context("no stacks")?;
            let futex = stacks.waking.iter().any(|frame| frame.starts_with("futex_wake"));
            ensure!(futex, "it was not woken through its futex: {stacks:?}");
            ensure!(stacks.leaving.iter().any(|frame| frame.contains("schedule")), "{stacks:?}");
        }
        said.push(format!("{}{} of {}", if robust { "robust " } else { "" }, late.len(), own.cycles));
    }
    Ok(Verdict::Passed(said.join(", ")))
}

/// What was recorded is explained without root and without the kernel, and a trace is one.
pub(super) fn replayed_and_traced() -> Result<Verdict> {
    let scratch = crate::harness::scratch_dir()?;
    let (report, trace) = (scratch.path().join("report.json"), scratch.path().join("trace.json"));
    let (report, trace) = (report.display().to_string(), trace.display().to_string());
    let limit = Duration::from_secs(60) * patience();
    let cycle = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--cycles", "1000000", "--cpu"];
    let cpu = load_cpu().to_string();
    let _cyclic = Workload::start(&[&cycle[..], &[cpu.as_str()]].concat())?;
    // So low a threshold that something is late on any machine.
    let live = ["explain", "--duration", "3s", "--threshold", "1us", "--format", "json", "--trace", &trace];
    let live = GuardRun::default().with(&live).finish(limit)?;
    live.expect_code(0)?;
    let said: Value = serde_json::from_str(&live.stdout)?;
    ensure!(said["findings"].as_array().is_some_and(|all| !all.is_empty()), "nothing was late: {said}");
    let tracks = Tracks::read(&serde_json::from_str(&std::fs::read_to_string(&trace)?)?)?;
    tracks.expect_drawable()?;
    for (process, name) in &tracks.processes {
        // On PREEMPT_RT there may be no soft interrupt in some ms.
        let slices = tracks.slices.keys().filter(|(own, _)| own == process).count();
        ensure!(slices > 0 || name == "Soft interrupts", "a trace without slices of \"{name}\"");
    }
    let slices: usize = tracks.slices.values().map(Vec::len).sum();
    let measure =
        ["report", "--explain", "--duration", "2s", "--threshold", "1us", "--format", "json", "--output", &report];
    GuardRun::default().with(&measure).finish(limit)?.expect_code(0)?;
    let replayed = GuardRun::default().with(&["explain", "--replay", &report]).finish(limit)?;
    replayed.expect_code(0)?;
    ensure!(replayed.stdout.contains("once, at") || replayed.stdout.contains(" times, "), "{}", replayed.stdout);
    Ok(Verdict::Passed(format!("{slices} slices on {} tracks", tracks.slices.len())))
}
