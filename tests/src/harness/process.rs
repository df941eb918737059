//! Processes of ours: workloads that announce themselves, and tools of others. Dropping one ends it by its pid.

use std::{
    env,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::workload::{Outcome, Ready};

/// Finds a program: beside this one (or one directory up, where cargo puts tests), then on PATH.
///
/// # Errors
/// When it is nowhere; the message says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("the path of this program")?;
    let beside = own.ancestors().skip(1).take(2).map(PathBuf::from);
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    beside
        .chain(on_path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is neither beside {} nor on PATH; for ours: cargo build", own.display()))
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    child: Child,
    ready: Ready,
    lines: Receiver<String>,
}

impl Workload {
    /// Starts a workload that holds until [`Self::go`]; returns when its threads exist.
    ///
    /// # Errors
    /// When it cannot be started or does not announce itself.
    pub fn hold(arguments: &[&str]) -> Result<Self> {
        let program = binary("guard-workload")?;
        let mut child = Command::new(&program)
            .args(arguments)
            .arg("--hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start of {}", program.display()))?;
        let stdout = child.stdout.take().context("stdout of a workload")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut this = Self { child, ready: Ready { pid: 0, tids: Vec::new() }, lines };
        this.ready = this.next_line(Duration::from_secs(30)).with_context(|| format!("{arguments:?}"))?;
        Ok(this)
    }

    /// Starts a workload at once.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut this = Self::hold(arguments)?;
        this.go()?;
        Ok(this)
    }

    /// Lets it begin.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go(&mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("the workload was already let go")?;
        stdin.write_all(b"\n").context("a line to the workload")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// Its thread ids, the measured one first.
    #[must_use]
    pub fn tids(&self) -> &[u32] {
        &self.ready.tids
    }

    /// The thread it measures.
    ///
    /// # Errors
    /// When it announced none.
    pub fn tid(&self) -> Result<u32> {
        self.ready.tids.first().copied().context("the workload announced no thread")
    }

    /// Asks it to stop (SIGTERM).
    ///
    /// # Errors
    /// When it is gone.
    pub fn terminate(&self) -> Result<()> {
        signal(&self.child, Signal::TERM)
    }

    /// Stops it for good (SIGSTOP): its threads stay, and do nothing any more.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> Result<()> {
        signal(&self.child, Signal::STOP)
    }

    /// Waits for its end and returns what it saw.
    ///
    /// # Errors
    /// When it fails, or is not done after `limit`.
    pub fn outcome(self, limit: Duration) -> Result<Outcome> {
        self.last(limit)
    }

    /// The same for a workload whose last line is something else.
    ///
    /// # Errors
    /// As [`Self::outcome`].
    pub fn last<T: serde::de::DeserializeOwned>(mut self, limit: Duration) -> Result<T> {
        let last = self.next_line(limit)?;
        let status = self.child.wait().context("wait for a workload")?;
        ensure!(status.success(), "the workload ended with {status}");
        Ok(last)
    }

    fn next_line<T: serde::de::DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => serde_json::from_str(&line).with_context(|| format!("output of a workload: {line}")),
            Err(RecvTimeoutError::Timeout) => bail!("the workload said nothing within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the workload ended with {}", self.child.wait()?),
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child and waits for it; nothing happens when it has ended.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        // Both fail only when the child is gone already, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_child(child);
    rustix::process::kill_process(pid, signal).with_context(|| format!("kill({}, {signal:?})", child.id()))
}

/// A program of somebody else, its output collected in files.
#[derive(Debug)]
pub struct Tool {
    name: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Tool {
    /// Starts a program. Its output goes to files, so it never waits for a reader.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let scratch = super::scratch_dir()?;
        let file = |name: &str| {
            let path = scratch.path().join(name);
            File::options()
                .read(true)
                .append(true)
                .create_new(true)
                .open(&path)
                .with_context(|| format!("open of {}", path.display()))
        };
        let (stdout, stderr) = (file("stdout")?, file("stderr")?);
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().context("dup")?)
            .stderr(stderr.try_clone().context("dup")?)
            .spawn()
            .with_context(|| format!("start of {name}"))?;
        Ok(Self { name, child, stdout, stderr })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(&self.child, which).with_context(|| self.name.clone())
    }

    /// What it has printed on stdout so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        contents(&self.stdout)
    }

    /// What it has printed on stderr so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        contents(&self.stderr)
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        super::until(&format!("end of {name}"), limit, || self.ended())
    }

    /// Waits for its successful end and returns its stdout.
    ///
    /// # Errors
    /// When it fails or takes longer than `limit`; the message has its stderr.
    pub fn success(mut self, limit: Duration) -> Result<String> {
        let status = self.wait(limit)?;
        let (stdout, stderr) = (self.stdout()?, self.stderr()?);
        ensure!(status.success(), "{} ended with {status}: {stderr}{stdout}", self.name);
        Ok(stdout)
    }

    /// The ids of its threads, ascending.
    ///
    /// # Errors
    /// When it is gone.
    pub fn tids(&self) -> Result<Vec<u32>> {
        let path = format!("/proc/{}/task", self.pid());
        let entries = std::fs::read_dir(&path).with_context(|| format!("read {path}"))?;
        let mut tids: Vec<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        tids.sort_unstable();
        Ok(tids)
    }
}

fn contents(file: &File) -> Result<String> {
    // The child writes through a descriptor of the same open file in append mode, so moving the offset is harmless.
    let mut file = file.try_clone().context("dup")?;
    file.rewind().context("lseek")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("read")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Drop for Tool {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
