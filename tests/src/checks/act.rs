//! Acting: nothing without --enforce; with it a quota is lifted off a PLC cgroup, and comes back however guard ends.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::{Action, ActionState, Snapshot};
use rustix::process::Signal;

use crate::{
    harness::{Cgroup, Tool, Version, Workload, Writes, binary, finish, patience, scratch_dir, until},
    scenario::Verdict,
};

const QUOTA_US: u64 = 20_000;
const PERIOD_US: u64 = 100_000;

/// A PLC with a quota, and a place for what guard leaves on disk.
pub(super) struct Scene {
    // Ends before its cgroup does.
    _workload: Workload,
    cgroup: Cgroup,
    scratch: tempfile::TempDir,
}

impl Scene {
    pub(super) fn set(name: &str) -> Result<Self> {
        let cgroup = Cgroup::create(name)?;
        cgroup.allow_rt(100_000)?;
        cgroup.set_quota(QUOTA_US, PERIOD_US)?;
        let loops =
            ["cycle", "clock-nanosleep-abs", "--policy", "fifo:10", "--interval-us", "10000", "--cycles", "1000000"];
        // Already real-time when it is moved in.
        let mut workload = Workload::hold(&loops)?;
        cgroup.add(workload.pid())?;
        workload.go()?;
        let scratch = scratch_dir()?;
        // Everything else on the machine is none of a test's business.
        let text = format!(
            "[[workload]]\nmatch.cgroup = \"{}\"\nmanaged = true\n[[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n",
            cgroup.path()
        );
        fs::write(scratch.path().join("guard.toml"), text).context("write of guard.toml")?;
        Ok(Self { _workload: workload, cgroup, scratch })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn guard(&self) -> Result<Command> {
        let mut command = Command::new(binary("guard")?);
        command.args(["run", "--config"]).arg(self.file("guard.toml"));
        command.arg("--output").arg(self.file("snapshots.jsonl"));
        Ok(command)
    }

    /// guard that enforces, with further arguments.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.guard()?;
        command.arg("--enforce").arg("--state-dir").arg(self.file("state"));
        command.arg("--audit").arg(self.file("audit.jsonl")).args(arguments);
        Ok(command)
    }

    fn enforcing(&self) -> Result<Tool> {
        Tool::start(&mut self.command(&[])?)
    }

    /// The audit log.
    pub(super) fn audit(&self) -> Result<Vec<Action>> {
        let audit = fs::read_to_string(self.file("audit.jsonl")).context("read of the audit log")?;
        audit.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("audit log")
    }

    /// Waits until guard has written a Snapshot that `found` is true of.
    fn snapshot(&self, guard: &mut Tool, what: &str, found: impl Fn(&Snapshot) -> bool) -> Result<()> {
        until(what, Duration::from_secs(60) * patience(), || {
            if let Some(status) = guard.ended()? {
                bail!("guard ended with {status}: {}", guard.stderr()?.trim_end());
            }
            let text = fs::read_to_string(self.file("snapshots.jsonl")).unwrap_or_default();
            let mut snapshots = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            Ok(snapshots.any(|snapshot: Snapshot| found(&snapshot)).then_some(()))
        })
    }

    /// Whether an action is of the PLC's quota.
    pub(super) fn is_about(&self, action: &Action) -> bool {
        action.path == self.cgroup.path() && action.knob == "quota"
    }

    pub(super) fn quota(&self) -> Result<String> {
        let name = match self.cgroup.version() {
            Version::V1 => "cpu.cfs_quota_us",
            Version::V2 => "cpu.max",
        };
        let text = fs::read_to_string(self.cgroup.dir().join(name)).with_context(|| format!("read {name}"))?;
        Ok(text.trim().to_owned())
    }

    pub(super) fn is_lifted(&self) -> Result<bool> {
        Ok(match self.cgroup.version() {
            Version::V1 => self.quota()? == "-1",
            Version::V2 => self.quota()?.starts_with("max"),
        })
    }

    pub(super) fn wait_until_lifted(&self, guard: &mut Tool) -> Result<()> {
        until("the quota is lifted", Duration::from_secs(60) * patience(), || {
            if let Some(status) = guard.ended()? {
                bail!("guard ended with {status}: {}", guard.stderr()?.trim_end());
            }
            Ok(self.is_lifted()?.then_some(()))
        })
    }
}

/// Every write to a cgroup file is watched, by whoever it is made. The same watch sees guard's write with --enforce.
pub(super) fn nothing_is_written_without_enforce() -> Result<Verdict> {
    let scene = Scene::set("plan")?;
    let mut writes = match Writes::watch()? {
        Ok(writes) => writes,
        Err(reason) => return Ok(Verdict::Skipped(reason)),
    };
    let before = scene.quota()?;
    let mut guard = Tool::start(&mut scene.guard()?)?;
    scene.snapshot(&mut guard, "the lift is planned", |snapshot| {
        snapshot.actions.iter().any(|action| scene.is_about(action) && action.result.state == ActionState::Planned)
    })?;
    guard.signal(Signal::TERM)?;
    let status = guard.wait(Duration::from_secs(20) * patience())?;
    ensure!(status.success(), "guard ended with {status}: {}", guard.stderr()?);
    let seen = writes.seen()?;
    let own: Vec<_> = seen.iter().filter(|write| write.pid == guard.pid()).collect();
    ensure!(own.is_empty(), "without --enforce guard wrote {own:?}");
    ensure!(scene.quota()? == before, "the quota went from {before} to {}", scene.quota()?);

    let mut guard = scene.enforcing()?;
    scene.wait_until_lifted(&mut guard)?;
    // The value is there before guard closes the file, upon which the watch is told.
    let mut watched = 0;
    until("the watch sees guard's write", Duration::from_secs(20) * patience(), || {
        watched += writes.seen()?.iter().filter(|write| write.pid == guard.pid()).count();
        Ok((watched > 0).then_some(()))
    })
    .context("the watch does not see guard's writes, so it proves nothing")?;
    guard.signal(Signal::TERM)?;
    guard.wait(Duration::from_secs(40) * patience())?;
    Ok(Verdict::Passed(format!("0 writes without --enforce, {watched} with it; {} by others", seen.len())))
}

pub(super) fn a_stop_puts_the_quota_back() -> Result<Verdict> {
    let scene = Scene::set("stop")?;
    let before = scene.quota()?;
    let mut guard = scene.enforcing()?;
    scene.wait_until_lifted(&mut guard)?;
    guard.signal(Signal::TERM)?;
    let status = guard.wait(Duration::from_secs(40) * patience())?;
    ensure!(status.success(), "guard ended with {status}: {}", guard.stderr()?);
    ensure!(scene.quota()? == before, "the quota is {} instead of {before}", scene.quota()?);
    let actions = scene.audit()?;
    let own: Vec<&Action> = actions.iter().filter(|action| scene.is_about(action)).collect();
    let [lifted, back] = own[..] else { bail!("{} changes of the quota in the audit log: {own:?}", own.len()) };
    let both_written = [lifted, back].iter().all(|action| action.result == ActionState::Written.into());
    ensure!(both_written, "{own:?}");
    ensure!(!lifted.evidence.is_empty() && !lifted.reason.is_empty(), "no reason or evidence: {lifted:?}");
    ensure!(actions.len() == own.len(), "guard also changed what is unmanaged: {actions:?}");
    Ok(Verdict::Passed(format!("{} -> {} -> {}", lifted.old, lifted.new, back.new)))
}

pub(super) fn a_kill_leaves_what_restore_puts_back() -> Result<Verdict> {
    let scene = Scene::set("kill")?;
    let before = scene.quota()?;
    let mut guard = scene.enforcing()?;
    scene.wait_until_lifted(&mut guard)?;
    guard.signal(Signal::KILL)?;
    guard.wait(Duration::from_secs(20) * patience())?;
    ensure!(scene.is_lifted()?, "the quota came back by itself, so this check proves nothing");
    let mut restore = Command::new(binary("guard")?);
    restore.args(["restore", "--state-dir"]).arg(scene.file("state"));
    let restored = finish(&mut restore, Duration::from_secs(20) * patience())?;
    restored.expect_code(0)?;
    ensure!(scene.quota()? == before, "the quota is {} instead of {before}: {}", scene.quota()?, restored.stdout);
    Ok(Verdict::Passed(format!("back to {before}")))
}
