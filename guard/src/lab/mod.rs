//! The lab reproduces known hazards on this node with cgroups and threads of its own, without and with guard, and says
//! whether guard keeps its promises. `scenario` is the catalogue, `workload` what runs, `cgroups` where, `child` and
//! `controller` the processes, `report` what was seen and its judgement. Everything that the lab makes is gone when it
//! returns, by whatever way. It knows nothing of BPF and nothing of how guard decides: guard runs as a child.

mod cgroups;
mod child;
mod condition;
mod controller;
mod error;
mod report;
mod scenario;
mod sys;
pub mod workload;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

pub use cgroups::PREFIX;
pub use child::SUBCOMMAND;
pub use condition::Condition;
pub use error::LabError;
pub use report::{Acted, LabReport, Row, ScenarioResult};
pub use scenario::Scenario;

use crate::cgroup::{Hierarchy, Version};
use crate::control;
use cgroups::LabCgroups;
use child::WorkloadProcess;
use controller::Controller;
use scenario::Setup;
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

/// Runs `scenarios` one after another, reports each when it is judged, and returns all of them.
///
/// # Errors
/// See [`LabError`]; what `report_each` returns ends the lab, too.
pub fn run<E: From<LabError>>(
    scenarios: &[Scenario],
    options: Options,
    mut report_each: impl FnMut(&ScenarioResult) -> Result<(), E>,
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
        let played = runtime.block_on(uninterrupted(reproduce(*scenario, &hierarchy, options)))?;
        report_each(&played)?;
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

async fn reproduce(scenario: Scenario, hierarchy: &Hierarchy, options: Options) -> Result<ScenarioResult, LabError> {
    let setup = scenario.setup();
    let interval = options.interval.unwrap_or_else(usual_interval);
    let interval = if setup.service { (20 * interval).min(SERVICE_INTERVAL) } else { interval };
    let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    // Emulated CPUs are slow: what takes ten times longer is watched for longer.
    let usual = Duration::from_secs(if emulated() { 20 } else { 5 });
    // What disturbs a service is shrunk step by step, a step per second.
    let duration = options.duration.unwrap_or(usual) * if setup.service { 4 } else { 1 };
    let part = ProcessPart {
        role: setup.role,
        interval_us,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        cpu: setup.pinned.then(last_cpu),
        held: true,
    };
    let mut rows = Vec::new();
    for (condition, name) in setup.steps.iter().filter(|(condition, _)| options.guard || *condition != Condition::With)
    {
        tracing::info!("{}: {name}", scenario.name());
        rows.push(perform(hierarchy, &setup, &part, *condition, name).await?);
    }
    let (kept, verdict) = report::judge(&setup, interval_us, &rows);
    Ok(ScenarioResult {
        name: scenario.name().to_owned(),
        summary: scenario.summary().to_owned(),
        interval_us,
        response: setup.response.to_owned(),
        rows,
        kept,
        verdict,
    })
}

/// One step. What is made first goes last, also when this future is dropped.
async fn perform(
    hierarchy: &Hierarchy,
    setup: &Setup,
    part: &ProcessPart,
    condition: Condition,
    name: &str,
) -> Result<Row, LabError> {
    let cgroups = LabCgroups::build(hierarchy)?;
    let plc = cgroups.fifo_cgroup("plc")?;
    let hazard = condition != Condition::Reference;
    let quota = setup.quota.filter(|_| hazard);
    if let Some(quota) = quota {
        cgroups.set_quota(&plc, quota)?;
    }
    let be = if setup.load && hazard { Some(cgroups.cgroup("be")?) } else { None };
    // guard is there before the workload, as on a node where it runs always: what is lost until it has reacted counts.
    let controller = match condition {
        Condition::With => Some(Controller::start(&cgroups, setup, &plc, be.as_deref()).await?),
        _ => None,
    };
    // The load outlasts what it disturbs, and is ended when it is dropped.
    let load = match &be {
        Some(be) => {
            let part = ProcessPart { role: Role::Load, cpu: None, duration_ms: 10 * part.duration_ms, ..part.clone() };
            let mut load = WorkloadProcess::enter(&cgroups, be, &part).await?;
            load.go_on()?;
            Some(load)
        }
        None => None,
    };
    let mut workload_process = WorkloadProcess::enter(&cgroups, &plc, part).await?;
    let before = cgroups.cpu_stat(&plc)?;
    workload_process.go_on()?;
    let PartOutcome { policy, cycles, lost, response, wakeup } = workload_process.outcome().await?;
    let after = cgroups.cpu_stat(&plc)?;
    drop(load);
    let guard = match controller {
        None => None,
        Some(controller) => {
            let mut acted = controller.stop().await?;
            acted.restored = cgroups.quota(&plc)? == quota;
            if let Some(be) = &be {
                acted.restored &= cgroups.quota(be)?.is_none();
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
