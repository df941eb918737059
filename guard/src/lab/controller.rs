//! guard beside the workload: `guard run --enforce` as a child of the lab, with a configuration that lets it change the
//! lab's cgroups and no other, and with a journal of its own.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::snapshot::Snapshot;

use super::cgroups::LabCgroups;
use super::child::{PATIENCE, Process};
use super::error::LabError;
use super::report::Acted;
use super::scenario::Setup;

/// Until the programs are loaded and the first window is over; reading the kernel's type information takes long where the
/// CPU is emulated.
const STARTING: Duration = Duration::from_secs(120);

/// Windows until guard is at work as it always is: at first it reads the names of all there is, which where the CPU is
/// emulated takes half of one.
const SETTLED: usize = 4;

/// guard at work.
#[derive(Debug)]
pub(super) struct Controller {
    process: Process,
    scratch: tempfile::TempDir,
}

impl Controller {
    /// Starts guard; returns when it has decided [`SETTLED`] times.
    pub(super) async fn start(
        cgroups: &LabCgroups,
        setup: &Setup,
        plc: &str,
        be: Option<&str>,
    ) -> Result<Self, LabError> {
        let scratch = scratch()?;
        let config = scratch.path().join("guard.toml");
        let node = format!(
            "[node]\nstate_dir = {:?}\naudit = {:?}\n\n",
            scratch.path().join("state"),
            scratch.path().join("audit.jsonl")
        );
        let text = node + &configuration(setup, &cgroups.pattern(), plc, be)?;
        fs::write(&config, text).map_err(LabError::io("write", &config))?;
        let mut process = Process::start("guard", Signal::TERM, |command| {
            command
                .args(["run", "--enforce", "--config"])
                .arg(&config)
                .arg("--output")
                .arg(scratch.path().join(SNAPSHOTS));
        })?;
        // The head, then the windows.
        for _ in 0..=SETTLED {
            process.line(STARTING).await?;
        }
        Ok(Self { process, scratch })
    }

    /// Stops guard and returns what it did. It has put back what it changed when this returns, or says that it could not.
    pub(super) async fn stop(mut self) -> Result<Acted, LabError> {
        self.process.signal(Signal::TERM)?;
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.status()? {
                break status;
            }
            if Instant::now() >= end {
                return Err(LabError::Silent { name: "guard", limit: PATIENCE });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        if !status.success() {
            return Err(LabError::Ended { name: "guard", status });
        }
        let path = self.scratch.path().join(SNAPSHOTS);
        let text = fs::read_to_string(&path).map_err(LabError::io("read", &path))?;
        let mut acted = Acted::default();
        for line in text.lines() {
            let snapshot: Snapshot = serde_json::from_str(line).map_err(LabError::Json)?;
            for cpu in &snapshot.cpus {
                for taken in [cpu.rt_throttle, cpu.fair_server] {
                    acted.taken += taken.count;
                    acted.taken_ns += taken.total_ns;
                }
            }
            for action in snapshot.actions {
                let (path, knob, reason, result) = (action.path, action.knob, action.reason, action.result);
                acted.changes.push(format!("{path}: {knob} {} -> {} ({reason}): {result}", action.old, action.new));
            }
        }
        Ok(acted)
    }
}

impl Drop for Controller {
    /// Interrupted: guard gets the time to put back what it changed before it is killed.
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        if matches!(self.process.status(), Ok(None)) && self.process.signal(Signal::TERM).is_ok() {
            while Instant::now() < end && matches!(self.process.status(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Name of the file with one Snapshot per line.
const SNAPSHOTS: &str = "snapshots.jsonl";

/// A directory in the place for temporary files, or in /run where only that can be written.
fn scratch() -> Result<tempfile::TempDir, LabError> {
    let named = |place: PathBuf| tempfile::Builder::new().prefix(super::cgroups::PREFIX).tempdir_in(place);
    let place = std::env::temp_dir();
    named(place.clone()).or_else(|_| named("/run".into())).map_err(LabError::io("make a directory in", &place))
}

/// What a service must keep: nine of ten waits for a CPU shorter than the time that the scheduler gives a neighbour at once.
const SERVICE_BUDGET: &str = "wakeup.p90 = \"2ms\"\n";

/// Of several workloads that match a cgroup the first counts.
fn configuration(setup: &Setup, pattern: &str, plc: &str, be: Option<&str>) -> Result<String, LabError> {
    let workload = |pattern: &str, rest: &str| format!("[[workload]]\nmatch.cgroup = \"{pattern}\"\n{rest}\n");
    let mut text = String::new();
    if let Some(class) = setup.class {
        // In quotes, as TOML has it, too.
        let class = serde_json::to_string(&class).map_err(LabError::Json)?;
        let budget = if setup.service { SERVICE_BUDGET } else { "" };
        text += &workload(plc, &format!("class = {class}\n{budget}"));
    }
    if let Some(be) = be {
        text += &workload(be, "class = \"BE\"");
    }
    Ok(text + &workload(pattern, "managed = true") + &workload("*", "managed = false"))
}
