//! guard as its users run it: a command line, an exit code, a JSON report.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::{Cgroup, Cpu, Signal, SignalState, Snapshot, Thread};
use rustix::process::Signal as KillSignal;

use super::{Tool, binary, patience, scratch_dir, until};

/// Measuring ends by a signal; this is only how long guard would go on if that never came.
const LONGER_THAN_ANY_CHECK: &str = "30m";

/// Arguments for guard.
#[derive(Clone, Debug, Default)]
pub struct GuardRun {
    arguments: Vec<String>,
}

/// guard measuring.
#[derive(Debug)]
pub struct Measuring {
    tool: Tool,
    output: PathBuf,
    _scratch: tempfile::TempDir,
}

/// guard after its end.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Finished {
    /// Checks the exit code.
    ///
    /// # Errors
    /// When it is another; the message has what guard said.
    pub fn expect_code(&self, code: i32) -> Result<()> {
        ensure!(
            self.status.code() == Some(code),
            "guard ended with {} instead of exit code {code}; stderr: {}; stdout: {}",
            self.status,
            self.stderr.trim_end(),
            self.stdout.trim_end()
        );
        Ok(())
    }

    /// Checks that stderr names `what`.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect_message(&self, what: &str) -> Result<()> {
        ensure!(self.stderr.contains(what), "guard does not say \"{what}\" but: {}", self.stderr.trim_end());
        Ok(())
    }
}

impl GuardRun {
    /// `guard report` as JSON until it is told to stop.
    #[must_use]
    pub fn report() -> Self {
        Self::default().with(&["report", "--format", "json", "--duration", LONGER_THAN_ANY_CHECK])
    }

    /// Adds arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// Names a thread.
    #[must_use]
    pub fn tid(self, tid: u32) -> Self {
        self.with(&["--tid", &tid.to_string()])
    }

    /// The command, for whoever wants to run it differently.
    ///
    /// # Errors
    /// When guard is not built.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary("guard")?);
        command.args(&self.arguments);
        Ok(command)
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// When guard cannot be started or does not end within `limit`.
    pub fn finish(&self, limit: Duration) -> Result<Finished> {
        finish(&mut self.command()?, limit)
    }

    /// Starts a report and returns when all that happens from then on is counted.
    ///
    /// # Errors
    /// When guard ends before or attaches nothing in time; the message has its stderr.
    pub fn measure(&self) -> Result<Measuring> {
        let scratch = scratch_dir()?;
        let output = scratch.path().join("report.json");
        let mut command = self.command()?;
        command.arg("--output").arg(&output);
        let mut tool = Tool::start(&mut command)?;
        until("guard measures", Duration::from_secs(60) * patience(), || {
            if let Some(status) = tool.ended()? {
                bail!("guard ended with {status}: {}", tool.stderr()?.trim_end());
            }
            Ok(tool.stderr()?.contains("Measuring for").then_some(()))
        })?;
        Ok(Measuring { tool, output, _scratch: scratch })
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or does not end within `limit`.
pub fn finish(command: &mut Command, limit: Duration) -> Result<Finished> {
    let mut tool = Tool::start(command)?;
    let status = tool.wait(limit)?;
    Ok(Finished { status, stdout: tool.stdout()?, stderr: tool.stderr()? })
}

impl Measuring {
    /// guard's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.tool.pid()
    }

    /// The process.
    pub fn tool(&mut self) -> &mut Tool {
        &mut self.tool
    }

    /// Stops measuring (SIGINT) and returns the report.
    ///
    /// # Errors
    /// When guard fails, or its output is no Snapshot.
    pub fn stop(mut self) -> Result<Snapshot> {
        self.tool.signal(KillSignal::INT)?;
        let limit = Duration::from_secs(10) * patience();
        let status = self.tool.wait(limit)?;
        let stderr = self.tool.stderr()?;
        ensure!(status.success(), "guard ended with {status}: {stderr}");
        let text = fs::read_to_string(&self.output).with_context(|| format!("read {}", self.output.display()))?;
        serde_json::from_str(&text).context("guard's output as a Snapshot")
    }
}

/// System calls in which tools wait once they have attached their programs.
#[derive(Clone, Copy, Debug)]
pub enum WaitsIn {
    /// guard's event loop.
    Epoll,
    /// The sleep between two reports of libbpf-tools.
    Sleep,
}

impl WaitsIn {
    /// Whether the main thread of a process waits there now.
    fn is_waiting(self, pid: u32) -> bool {
        let calls = match self {
            Self::Epoll => [libc::SYS_epoll_pwait, EPOLL_WAIT],
            Self::Sleep => [libc::SYS_nanosleep, libc::SYS_clock_nanosleep],
        };
        let number = fs::read_to_string(format!("/proc/{pid}/syscall"));
        number.is_ok_and(|text| text.split(' ').next().and_then(|n| n.parse().ok()).is_some_and(|n| calls.contains(&n)))
    }
}

/// Newer architectures have only epoll_pwait.
#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: libc::c_long = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: libc::c_long = libc::SYS_epoll_pwait;

/// Waits until a tool has attached its BPF programs: it holds links to some, and waits for time to pass.
///
/// # Errors
/// When it ends before or does not get there in time; the message has its stderr.
pub fn attached(tool: &mut Tool, waits_in: WaitsIn) -> Result<()> {
    until("BPF programs attached", Duration::from_secs(30) * patience(), || {
        if let Some(status) = tool.ended()? {
            bail!("it ended with {status}: {}", tool.stderr()?.trim_end());
        }
        Ok((waits_in.is_waiting(tool.pid()) && holds_links(tool.pid())).then_some(()))
    })
}

/// Whether a process holds BPF links.
fn holds_links(pid: u32) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    entries
        .filter_map(Result::ok)
        .any(|entry| fs::read_to_string(entry.path()).is_ok_and(|info| info.contains("link_type:")))
}

/// Looking things up in a Snapshot, with an error that says what there was instead.
pub trait Find {
    /// The cgroup with this path.
    ///
    /// # Errors
    /// When there is none.
    fn cgroup(&self, path: &str) -> Result<&Cgroup>;
    /// The thread with this id.
    ///
    /// # Errors
    /// When there is none.
    fn thread(&self, tid: u32) -> Result<&Thread>;
    /// The CPU with this number.
    ///
    /// # Errors
    /// When there is none.
    fn cpu(&self, number: u32) -> Result<&Cpu>;
    /// The signal with this name.
    ///
    /// # Errors
    /// When there is none.
    fn signal(&self, name: &str) -> Result<&Signal>;
    /// Why a signal cannot be seen here; none when it can.
    ///
    /// # Errors
    /// When there is no such signal, or it is unavailable without a reason.
    fn unavailable(&self, name: &str) -> Result<Option<String>>;
}

impl Find for Snapshot {
    fn cgroup(&self, path: &str) -> Result<&Cgroup> {
        self.cgroups.iter().find(|cgroup| cgroup.path == path).with_context(|| {
            let paths: Vec<&str> = self.cgroups.iter().map(|cgroup| cgroup.path.as_str()).take(20).collect();
            format!("the report has no cgroup {path} but {paths:?}")
        })
    }

    fn thread(&self, tid: u32) -> Result<&Thread> {
        self.threads.iter().find(|thread| thread.tid == tid).with_context(|| {
            let tids: Vec<u32> = self.threads.iter().map(|thread| thread.tid).take(50).collect();
            format!("the report has no thread {tid} but {tids:?}")
        })
    }

    fn cpu(&self, number: u32) -> Result<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.cpu == number).with_context(|| format!("the report has no CPU {number}"))
    }

    fn signal(&self, name: &str) -> Result<&Signal> {
        self.signals.iter().find(|signal| signal.name.as_str() == name).with_context(|| {
            let names: Vec<&str> = self.signals.iter().map(|signal| signal.name.as_str()).collect();
            format!("the report has no signal {name} but {names:?}")
        })
    }

    fn unavailable(&self, name: &str) -> Result<Option<String>> {
        let signal = Find::signal(self, name)?;
        if signal.state != SignalState::Unavailable {
            return Ok(None);
        }
        let reason = signal.reason.clone().with_context(|| format!("{name} is unavailable and nobody says why"))?;
        Ok(Some(format!("guard cannot see {name} here: {reason}")))
    }
}
