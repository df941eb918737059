//! deploy/guard.service as it is shipped, under systemd itself.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::{SignalState, Snapshot};

use super::{
    no_field,
    picture::{Picture, quotas},
    plc::{self, Kind},
    shell::{attempt, limit, run},
};
use crate::{
    harness::{binary, until},
    scenario::Verdict,
};

const UNIT: &str = include_str!("../../../../deploy/guard.service");
const SNAPSHOTS: &str = "/var/log/guard/snapshots.jsonl";

/// The unit, installed as its head says.
struct Installed;

impl Installed {
    fn new() -> Result<Self> {
        fs::write("/etc/systemd/system/guard.service", UNIT).context("write of the unit")?;
        fs::copy(binary("guard")?, "/usr/bin/guard").context("copy to /usr/bin/guard")?;
        // What a check needs to see; nothing else of the unit is changed.
        let start =
            UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("no ExecStart= in the unit")?;
        let text = format!("[Service]\nExecStart=\nExecStart={start} --output {SNAPSHOTS}\n");
        fs::create_dir_all("/etc/systemd/system/guard.service.d").context("mkdir of the drop-in")?;
        fs::write("/etc/systemd/system/guard.service.d/output.conf", text).context("write of the drop-in")?;
        run(&["systemctl", "daemon-reload"])?;
        Ok(Self)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        attempt(&["systemctl", "stop", "guard"]);
        for path in ["/etc/systemd/system/guard.service.d/output.conf", "/etc/systemd/system/guard.service"] {
            let _ = fs::remove_file(path);
        }
        attempt(&["systemctl", "daemon-reload"]);
        attempt(&["systemctl", "reset-failed", "guard"]);
    }
}

fn show(property: &str) -> Result<String> {
    run(&["systemctl", "show", "--property", property, "--value", "guard"])
}

pub(super) fn as_shipped() -> Result<Verdict> {
    if let Some(reason) = no_field() {
        return Ok(Verdict::Skipped(reason));
    }
    let plc = plc::start(Kind::Service)?;
    let before = Picture::take()?;
    let _unit = Installed::new()?;
    let lifted = || quotas(&plc.cgroup).iter().all(|(_, text)| text.starts_with("max"));

    run(&["systemctl", "start", "guard"])?;
    wait("the quota lifted by the unit", &lifted)?;
    let snapshot = wait_for_snapshot()?;
    for signal in &snapshot.signals {
        // A field guest's kernels show everything to root.
        ensure!(signal.state == SignalState::Active, "within the unit {} is {:?}", signal.name, signal);
    }
    let main = show("MainPID")?;
    run(&["systemctl", "reload", "guard"])?;
    let so_far = fs::metadata(SNAPSHOTS).context("size of guard's output")?.len();
    wait("an interval after the reload", &|| fs::metadata(SNAPSHOTS).is_ok_and(|file| file.len() > so_far))?;
    ensure!(show("MainPID")? == main && lifted(), "guard did not survive its reload");

    // The guard alone, as the OOM killer does it: `guard restore` runs after it.
    let (by_restore, by_next) = killed("main", &lifted)?;
    ensure!(by_restore && !by_next, "guard restore did not run after SIGKILL: {}", said()?);
    // All that runs in the unit's cgroup: 7.2 kills what systemd starts there afterwards, too, and so `guard restore`. Then
    // the next guard does what it would have done.
    let (by_restore, by_next) = killed("all", &lifted)?;
    ensure!(
        by_restore != by_next,
        "restored by guard restore: {by_restore}, by the next guard: {by_next}: {}",
        said()?
    );

    run(&["systemctl", "stop", "guard"])?;
    let (result, state) = (show("Result")?, show("ActiveState")?);
    ensure!(result == "success" && state == "inactive", "after a stop the unit is {state}, {result}");
    Picture::take()?.expect_as_in(&before).context("after the unit's stop")?;
    ensure!(Path::new("/var/lib/guard").is_dir(), "the unit has no state directory");
    Ok(Verdict::Passed(format!("{} signals active within the unit's sandbox", snapshot.signals.len())))
}

/// Waits for something that guard or systemd is to do.
fn wait(what: &str, is: &dyn Fn() -> bool) -> Result<()> {
    until(what, limit(), || Ok(is().then_some(()))).with_context(|| {
        let log = run(&["journalctl", "--unit", "guard", "--no-pager", "--lines", "30", "--output", "cat"]);
        format!("state {:?}; {}", show("ActiveState"), log.unwrap_or_default())
    })
}

/// Kills the unit's guard, or all processes of the unit, and waits until it is started again and at work. Returns whether what
/// it had changed was put back by `guard restore`, and whether by the next guard.
fn killed(whom: &str, lifted: &dyn Fn() -> bool) -> Result<(bool, bool)> {
    let (main, so_far) = (show("MainPID")?, said()?.len());
    run(&["systemctl", "kill", "--kill-whom", whom, "--signal", "SIGKILL", "guard"])?;
    wait("the restart after SIGKILL", &|| show("MainPID").is_ok_and(|pid| pid != main && pid != "0"))?;
    let since = || said().map(|log| log.get(so_far..).unwrap_or_default().to_owned());
    let (by_restore, by_next) = (|log: &str| log.contains("cpu.max"), |log: &str| log.contains("did not end cleanly"));
    wait("what was changed is put back", &|| since().is_ok_and(|log| by_restore(&log) || by_next(&log)))?;
    wait("the quota lifted again", lifted)?;
    let log = since()?;
    Ok((by_restore(&log), by_next(&log)))
}

/// All that the unit's processes have said so far.
fn said() -> Result<String> {
    // The journal may be behind on a busy node.
    run(&["journalctl", "--sync"])?;
    run(&["journalctl", "--unit", "guard", "--no-pager", "--output", "cat"])
}

fn wait_for_snapshot() -> Result<Snapshot> {
    until("a Snapshot of the unit", limit(), || {
        let text = fs::read_to_string(SNAPSHOTS).unwrap_or_default();
        let line = text.split_inclusive('\n').rfind(|line| line.ends_with('\n'));
        line.map(|line| serde_json::from_str(line).context("a line of guard's output")).transpose()
    })
}
