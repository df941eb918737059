//! `guard explain` names what was done to a real-time thread.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    harness::{GuardRun, Workload, load_cpu, patience},
    inject::{Kernel, Scale, score, trial},
    scenario::Verdict,
    trace_events::Tracks,
    workload::inject::Hazard,
};

/// Hazards that one victim can have in turn.
const IN_TURN: [Hazard; 5] = [
    Hazard::HigherPriority,
    Hazard::NonPiLock,
    Hazard::LockHolderPreempted,
    Hazard::ThrottledLockHolder,
    Hazard::PageFault,
];

/// Shots of each.
const ROUNDS: usize = 4;

pub(super) fn causes_are_named() -> Result<Verdict> {
    let (kernel, scale) = (Kernel::running()?, Scale::here());
    let hazards: Vec<Hazard> = IN_TURN.into_iter().filter(|hazard| kernel.impossible(*hazard).is_none()).collect();
    let trial = trial(&hazards, ROUNDS * hazards.len(), &scale, 1)?;
    let score = score(&trial, &kernel, &scale)?;
    ensure!(score.not_adding_up == 0, "the shares of {} breaches do not add up", score.not_adding_up);
    ensure!(score.accused * 100 <= score.unhurt, "{} of {} unhurt cycles are called late", score.accused, score.unhurt);
    if score.hurt.is_empty() {
        return Ok(Verdict::Skipped(format!("the machine stood still in all of {} shots", score.disturbed)));
    }
    let mut said = Vec::new();
    for hazard in &hazards {
        let own = || score.hurt.iter().filter(|shot| shot.hazards == [*hazard]);
        let (right, hurt) = (own().filter(|shot| shot.right()).count(), own().count());
        // A busy machine makes the victim late in ways of its own, which do not cover half of the shots.
        let wrong = own().find(|shot| !shot.right()).and_then(|shot| shot.sentence.clone()).unwrap_or_default();
        ensure!(right * 2 >= hurt, "{hazard:?}: {right} of {hurt} named rightly; one of the others: {wrong}");
        said.push(format!("{hazard:?} {right}/{hurt}"));
    }
    Ok(Verdict::Passed(format!("{}, {} disturbed", said.join(", "), score.disturbed)))
}

pub(super) fn chain_is_whole() -> Result<Verdict> {
    let (kernel, scale) = (Kernel::running()?, Scale::here());
    let trial = trial(&[Hazard::LockChain], 3, &scale, 2)?;
    let score = score(&trial, &kernel, &scale)?;
    let far = trial.far.as_deref().context("there is no far cgroup")?;
    let own = trial.snapshot.breaches.iter().filter(|breach| breach.tid == trial.log.victim);
    let chains: Vec<_> = own
        .filter(|breach| breach.cause == "throttled_lock_holder" && breach.evidence.chain.len() >= 2)
        .map(|breach| (&breach.evidence.chain, &breach.sentence, &breach.evidence.throttled_by))
        .collect();
    let sentences: Vec<_> = score.hurt.iter().filter_map(|shot| shot.sentence.as_deref()).collect();
    let (chain, sentence, by) = chains.first().with_context(|| format!("no chain in {sentences:?}"))?;
    let last = chain.last().context("an empty chain")?;
    ensure!(last.did == "throttled" && last.who.cgroup.as_deref() == Some(far), "{chain:?}");
    ensure!(chain[0].did == "waited" && chain[0].who.cgroup.as_deref() != Some(far), "{chain:?}");
    ensure!(by.as_ref().is_some_and(|by| by.cgroup == far), "{by:?}");
    ensure!(sentence.contains(far) && sentence.contains("which waited for"), "{sentence}");
    let inversion = trial.snapshot.inversions.iter().find(|inversion| inversion.by_cgroup.as_deref() == Some(far));
    ensure!(inversion.is_some(), "{:?}", trial.snapshot.inversions);
    Ok(Verdict::Passed((*sentence).clone()))
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
