//! The lab reproduces known hazards on this node with cgroups and threads of its own, without and with guard, and says
//! whether guard keeps its promises. `scenario` is the catalogue, `workload` what runs, `stage` the cgroups, `child` and
//! `controller` the processes, `report` what was seen and its judgement. Everything that the lab makes is gone when it
//! returns, by whatever way. It knows nothing of BPF and nothing of how guard decides: guard runs as a child.

mod child;
mod condition;
mod controller;
mod error;
mod report;
mod scenario;
mod stage;
mod sys;
pub mod workload;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

pub use child::SUBCOMMAND;
pub use condition::Condition;
pub use error::LabError;
pub use report::{Acted, LabReport, Played, Row};
pub use scenario::Scenario;
pub use stage::PREFIX;

use crate::cgroup::{Hierarchy, Version};
use crate::control;
use child::Player;
use controller::Controller;
use scenario::Scene;
use stage::Stage;
use workload::{PartOutcome, ProcessPart, Role};

/// How the lab runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of a step: each scenario has two or three. Four times as long for a service.
    pub duration: Option<Duration>,
    /// Length of a cycle; the cycle of a service is twenty times as long, but at most 100 ms.
    pub interval: Option<Duration>,
    /// Whether the step with guard is played.
    pub guard: bool,
}

/// Runs `scenarios` one after another, hands over each as it is judged, and returns all of them.
///
/// # Errors
/// See [`LabError`]; what `told` returns ends the lab, too.
pub fn run<E: From<LabError>>(
    scenarios: &[Scenario],
    options: Options,
    mut told: impl FnMut(&Played) -> Result<(), E>,
) -> Result<LabReport, E> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot.into());
    }
    let hierarchy = Hierarchy::detect(Path::new("/")).map_err(LabError::from)?;
    let uname = rustix::system::uname();
    let mut report = LabReport {
        schema: report::SCHEMA,
        kernel: uname.release().to_string_lossy().into_owned(),
        realtime: uname.version().to_string_lossy().contains("PREEMPT_RT"),
        cgroup_version: if hierarchy.version() == Version::V1 { 1 } else { 2 },
        scenarios: Vec::new(),
    };
    let runtime = control::runtime().map_err(LabError::Signals)?;
    for scenario in scenarios {
        let played = runtime.block_on(uninterrupted(play(*scenario, &hierarchy, options)))?;
        told(&played)?;
        report.scenarios.push(played);
    }
    Ok(report)
}

/// What `work` returns, unless a signal comes first. Then it is dropped, and with it what it has made.
async fn uninterrupted<T>(work: impl Future<Output = Result<T, LabError>>) -> Result<T, LabError> {
    let listen = |kind| signal(kind).map_err(LabError::Signals);
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        biased;
        _ = interrupt.recv() => Err(LabError::Interrupted),
        _ = terminate.recv() => Err(LabError::Interrupted),
        _ = hangup.recv() => Err(LabError::Interrupted),
        result = work => result,
    }
}

async fn play(scenario: Scenario, hierarchy: &Hierarchy, options: Options) -> Result<Played, LabError> {
    let scene = scenario.scene();
    let interval = options.interval.unwrap_or_else(usual_interval);
    let interval = if scene.service { (20 * interval).min(SERVICE_INTERVAL) } else { interval };
    let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    // Emulated CPUs are slow: what takes ten times longer is watched for longer.
    let usual = Duration::from_secs(if emulated() { 20 } else { 5 });
    // What disturbs a service is shrunk step by step, a step per second.
    let duration = options.duration.unwrap_or(usual) * if scene.service { 4 } else { 1 };
    let part = ProcessPart {
        role: scene.role,
        interval_us,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        cpu: scene.pinned.then(last_cpu),
        held: true,
    };
    let mut rows = Vec::new();
    for (condition, name) in scene.steps.iter().filter(|(condition, _)| options.guard || *condition != Condition::With)
    {
        tracing::info!("{}: {name}", scenario.name());
        rows.push(perform(hierarchy, &scene, &part, *condition, name).await?);
    }
    let (kept, verdict) = report::judge(&scene, interval_us, &rows);
    Ok(Played {
        name: scenario.name().to_owned(),
        summary: scenario.summary().to_owned(),
        interval_us,
        response: scene.response.to_owned(),
        rows,
        kept,
        verdict,
    })
}

/// One step. What is made first goes last, also when this future is dropped.
async fn perform(
    hierarchy: &Hierarchy,
    scene: &Scene,
    part: &ProcessPart,
    condition: Condition,
    name: &str,
) -> Result<Row, LabError> {
    let stage = Stage::build(hierarchy)?;
    let plc = stage.fifo_cgroup("plc")?;
    let hazard = condition != Condition::Reference;
    let quota = scene.quota.filter(|_| hazard);
    if let Some(quota) = quota {
        stage.set_quota(&plc, quota)?;
    }
    let be = if scene.load && hazard { Some(stage.cgroup("be")?) } else { None };
    // guard is there before the workload, as on a node where it runs always: what is lost until it has reacted counts.
    let controller = match condition {
        Condition::With => Some(Controller::start(&stage, scene, &plc, be.as_deref()).await?),
        _ => None,
    };
    // The load outlasts what it disturbs, and is ended when it is dropped.
    let load = match &be {
        Some(be) => {
            let part = ProcessPart { role: Role::Load, cpu: None, duration_ms: 10 * part.duration_ms, ..part.clone() };
            let mut load = Player::enter(&stage, be, &part).await?;
            load.cue()?;
            Some(load)
        }
        None => None,
    };
    let mut player = Player::enter(&stage, &plc, part).await?;
    let before = stage.cpu_stat(&plc)?;
    player.cue()?;
    let PartOutcome { policy, cycles, lost, response, wakeup } = player.outcome().await?;
    let after = stage.cpu_stat(&plc)?;
    drop(load);
    let guard = match controller {
        None => None,
        Some(controller) => {
            let mut acted = controller.stop().await?;
            acted.restored = stage.quota(&plc)? == quota;
            if let Some(be) = &be {
                acted.restored &= stage.quota(be)?.is_none();
            }
            Some(acted)
        }
    };
    Ok(Row {
        step: condition,
        name: name.to_owned(),
        policy,
        cycles,
        lost,
        response,
        wakeup,
        nr_throttled: after.nr_throttled - before.nr_throttled,
        throttled_ns: after.throttled_ns - before.throttled_ns,
        guard,
    })
}

/// Longest cycle of a service: a period in which a quota takes effect.
const SERVICE_INTERVAL: Duration = Duration::from_millis(100);

/// The last CPU: interrupts and guard itself prefer others where there are any.
fn last_cpu() -> usize {
    std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1)
}

/// A cycle that a machine of its kind keeps when nothing disturbs it: 1 ms, and 20 ms on an emulated CPU, whose idle noise
/// reaches 10 ms.
fn usual_interval() -> Duration {
    Duration::from_millis(if emulated() { 20 } else { 1 })
}

fn emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}
