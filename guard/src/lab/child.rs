//! The lab's child processes: workloads in its cgroups. Each is this very program, is in a process group of its own (Ctrl-C
//! is for the lab alone), and is ended by its pid when it is dropped.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;

use super::cgroups::LabCgroups;
use super::error::LabError;
use super::sys;
use super::workload::{PartOutcome, ProcessPart, Ready};

/// The hidden subcommand that runs a workload.
pub const SUBCOMMAND: &str = "lab-workload";

/// Time allowed for what takes milliseconds on a CPU that is not emulated.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A process of the lab. Its stdout is read line by line.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<Receiver>>,
}

impl Process {
    /// Starts this program with other arguments. The kernel sends the child `orphaned` should the lab die before it.
    pub(super) fn start(
        name: &'static str,
        orphaned: Signal,
        arrange: impl FnOnce(&mut Command),
    ) -> Result<Self, LabError> {
        use std::os::unix::process::CommandExt as _;
        let failed = |source| LabError::Start { name, source };
        let mut command = Command::new("/proc/self/exe");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        arrange(sys::signal_when_orphaned(&mut command, orphaned));
        let mut child = command.spawn().map_err(failed)?;
        let receiver = match child.stdout.take() {
            Some(stdout) => Receiver::from_owned_fd(OwnedFd::from(stdout)),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        match receiver {
            Ok(receiver) => Ok(Self { name, child, lines: BufReader::new(receiver).lines() }),
            Err(error) => {
                end(&mut child);
                Err(failed(error))
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line, within `limit`.
    pub(super) async fn line(&mut self, limit: Duration) -> Result<String, LabError> {
        let name = self.name;
        match tokio::time::timeout(limit, self.lines.next_line()).await {
            Err(_) => Err(LabError::Silent { name, limit }),
            Ok(Err(source)) => Err(LabError::Start { name, source }),
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(self.ended()),
        }
    }

    /// The error of a child that closed its stdout without having said what it should.
    fn ended(&mut self) -> LabError {
        match self.child.wait() {
            Ok(status) => LabError::Ended { name: self.name, status },
            Err(source) => LabError::Start { name: self.name, source },
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), LabError> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .map_err(|error| LabError::Start { name: self.name, source: error.into() })
    }

    /// Whether it has ended, and how.
    pub(super) fn status(&mut self) -> Result<Option<std::process::ExitStatus>, LabError> {
        self.child.try_wait().map_err(|source| LabError::Start { name: self.name, source })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child at once; nothing happens when it has ended.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        // Both fail only when the child is gone already, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A workload that has its threads and waits until it may begin.
#[derive(Debug)]
pub(super) struct WorkloadProcess {
    process: Process,
    stdin: ChildStdin,
    length: Duration,
}

impl WorkloadProcess {
    /// Starts a workload in a cgroup; returns when its threads exist and have their policies.
    pub(super) async fn enter(cgroups: &LabCgroups, cgroup: &str, part: &ProcessPart) -> Result<Self, LabError> {
        let part = ProcessPart { held: true, ..part.clone() };
        let text = serde_json::to_string(&part).map_err(LabError::Json)?;
        let mut process = Process::start("a workload", Signal::KILL, |command| {
            command.args([SUBCOMMAND, &text]).stdin(Stdio::piped());
        })?;
        cgroups.enter(cgroup, process.pid())?;
        let stdin = process.child.stdin.take().ok_or_else(|| process.ended())?;
        let mut this = Self { process, stdin, length: Duration::from_millis(part.duration_ms) };
        this.go_on()?;
        let _: Ready = this.next(PATIENCE).await?;
        Ok(this)
    }

    /// Lets it go on.
    pub(super) fn go_on(&mut self) -> Result<(), LabError> {
        self.stdin.write_all(b"\n").map_err(|source| LabError::Start { name: self.process.name, source })
    }

    /// Waits for its end and returns what it saw.
    pub(super) async fn outcome(mut self) -> Result<PartOutcome, LabError> {
        let limit = self.length + PATIENCE;
        self.next(limit).await
    }

    async fn next<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, LabError> {
        let line = self.process.line(limit).await?;
        serde_json::from_str(&line).map_err(LabError::Json)
    }
}
