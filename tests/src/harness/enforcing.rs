//! `guard run --enforce` beside a check or a bench.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::Snapshot;
use rustix::process::Signal;

use super::{GuardRun, Tool, binary, finish, patience, scratch_dir, until};

/// guard at work, with a journal and a log of its own.
#[derive(Debug)]
pub struct Enforcing {
    tool: Tool,
    scratch: tempfile::TempDir,
    /// What it has shown, and how many bytes of its output that are.
    shown: Vec<Snapshot>,
    read: u64,
}

const SNAPSHOTS: &str = "snapshots.jsonl";

fn limit() -> Duration {
    Duration::from_secs(60) * patience().min(5)
}

impl Enforcing {
    /// Starts it with this configuration, or with none; returns when the first interval is over.
    ///
    /// # Errors
    /// When it ends before; the message has its stderr.
    pub fn start(configuration: Option<&str>) -> Result<Self> {
        Self::start_at(configuration, None)
    }

    /// The same with another system bus, by its address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(configuration: Option<&str>, bus: Option<&str>) -> Result<Self> {
        let scratch = scratch_dir()?;
        let mut command = GuardRun::default().with(&["run", "--enforce"]).command()?;
        command.arg("--state-dir").arg(scratch.path().join("state"));
        command.arg("--audit").arg(scratch.path().join("audit.jsonl"));
        command.arg("--output").arg(scratch.path().join(SNAPSHOTS));
        command.envs(bus.map(|address| ("DBUS_SYSTEM_BUS_ADDRESS", address)));
        if let Some(text) = configuration {
            let path = scratch.path().join("guard.toml");
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            command.arg("--config").arg(path);
        }
        let mut this = Self { tool: Tool::start(&mut command)?, scratch, shown: Vec::new(), read: 0 };
        this.passed(1)?;
        Ok(this)
    }

    /// The Snapshots so far.
    ///
    /// # Errors
    /// When guard has ended, or a line is no Snapshot.
    pub fn snapshots(&mut self) -> Result<&[Snapshot]> {
        if let Some(status) = self.tool.ended()? {
            bail!("guard ended with {status}: {}", self.tool.stderr()?.trim_end());
        }
        // Each is read once: whoever waits for something asks again and again.
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.scratch.path().join(SNAPSHOTS)) {
            file.seek(SeekFrom::Start(self.read)).context("seek in guard's output")?;
            file.read_to_string(&mut text).context("read of guard's output")?;
        }
        // The last line may still be being written.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            self.shown.push(serde_json::from_str(line).context("a line of guard's output")?);
            self.read += u64::try_from(line.len())?;
        }
        Ok(&self.shown)
    }

    /// Waits until `intervals` more are over.
    ///
    /// # Errors
    /// When guard ends, or takes too long.
    pub fn passed(&mut self, intervals: usize) -> Result<()> {
        let before = self.snapshots()?.len();
        until("guard's next interval", limit(), || Ok((self.snapshots()?.len() >= before + intervals).then_some(())))
    }

    /// Stops it (SIGTERM) and returns what it said.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> Result<String> {
        self.tool.signal(Signal::TERM)?;
        let status = self.tool.wait(limit())?;
        ensure!(status.success(), "guard ended with {status}: {}", self.tool.stderr()?);
        Ok(self.tool.stdout()? + &self.tool.stderr()?)
    }

    /// Kills it (SIGKILL) and puts back by `guard restore` what it left, as a service manager does; returns what that said.
    ///
    /// # Errors
    /// When something was not put back.
    pub fn kill_and_restore(mut self) -> Result<String> {
        self.tool.signal(Signal::KILL)?;
        self.tool.wait(limit())?;
        let mut restore = Command::new(binary("guard")?);
        restore.args(["restore", "--state-dir"]).arg(self.scratch.path().join("state"));
        let finished = finish(&mut restore, limit())?;
        finished.expect_code(0)?;
        Ok(finished.stdout)
    }
}
