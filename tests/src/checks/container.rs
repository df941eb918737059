//! A real container, run by podman with a root file system that holds one of our workloads and its libraries. What else
//! needs containers uses [`Podman`].

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::Class;

use crate::{
    harness::{GuardRun, Tool, Workload, binary, patience, until},
    scenario::Verdict,
};

const NAME: &str = "plc-1";

/// podman with its storage in a directory of ours, and a root file system that holds one program.
pub(super) struct Podman {
    scratch: tempfile::TempDir,
}

impl Podman {
    /// Why containers cannot be run here; none when they can.
    pub(super) fn obstacle() -> Option<String> {
        let missing = ["podman", "crun", "conmon"].into_iter().find(|program| binary(program).is_err());
        missing.map(|program| format!("{program} is not installed"))
    }

    /// Puts `program` and its libraries into a root file system, as /bin/workload.
    pub(super) fn with(program: &Path) -> Result<Self> {
        // podman's storage cannot lie on an overlay, which /tmp of a guest is.
        let scratch =
            tempfile::Builder::new().prefix("guard-test-").tempdir_in("/run").context("a directory in /run")?;
        let this = Self { scratch };
        install(program, &this.rootfs(), limit())?;
        Ok(this)
    }

    fn rootfs(&self) -> PathBuf {
        self.scratch.path().join("rootfs")
    }

    /// The command that runs `arguments` of the program in a container that may use SCHED_FIFO.
    pub(super) fn run(&self, name: &str, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.scratch.path().join("root"))
            .arg("--runroot")
            .arg(self.scratch.path().join("runroot"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"])
            .args(["run", "--rm", "--name", name, "--network", "none"])
            .args(options)
            .args(["--cap-add", "SYS_NICE", "--ulimit", "rtprio=99"])
            .args(["--security-opt", "seccomp=unconfined", "--security-opt", "label=disable"])
            .args(["--security-opt", "apparmor=unconfined", "--rootfs"])
            .arg(self.rootfs())
            .arg("/bin/workload")
            .args(arguments);
        command
    }
}

/// How long one command of a runtime may take.
pub(super) fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

pub(super) fn podman() -> Result<Verdict> {
    if let Some(reason) = Podman::obstacle() {
        return Ok(Verdict::Skipped(reason));
    }
    let limit = limit();
    let podman = Podman::with(&binary("guard-workload")?)?;
    let guard = GuardRun::report().measure()?;
    let cycle = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", "20000", "--cycles", "600"];
    let mut command = podman.run(NAME, &["--cpus", "0.5"], &cycle);
    let mut container = Tool::start(&mut command)?;
    until("the loop in the container", limit, || {
        if let Some(status) = container.ended()? {
            bail!("podman ended with {status}: {}", container.stderr()?);
        }
        Ok(container.stdout()?.contains("tids").then_some(()))
    })?;
    // Some hundred cycles, measured by a load with an end.
    Workload::start(&["spin", "--seconds", "4"])?.outcome(limit)?;
    let snapshot = guard.stop()?;
    container.success(limit)?;
    let found = snapshot
        .cgroups
        .iter()
        .find(|cgroup| cgroup.container.as_ref().is_some_and(|container| container.name.as_deref() == Some(NAME)))
        .with_context(|| {
            let known: Vec<_> = snapshot.cgroups.iter().map(|cgroup| (&cgroup.path, &cgroup.container)).collect();
            format!("no container {NAME} but {known:?}")
        })?;
    ensure!(found.class == Class::Plc, "class {:?}", found.class);
    let container = found.container.as_ref().context("no container")?;
    ensure!(container.runtime == "podman", "runtime {}", container.runtime);
    ensure!(found.timer.thread.count() >= 50, "{} cycles in 4 s", found.timer.thread.count());
    until("the container's cgroup gone", limit, || {
        Ok((!Path::new("/sys/fs/cgroup").join(found.path.trim_start_matches('/')).exists()).then_some(()))
    })?;
    Ok(Verdict::Passed(format!("{} is {} {}", found.path, container.runtime, NAME)))
}

/// Copies a program and its libraries, where its loader looks for them, into a new root file system.
pub(super) fn install(program: &Path, rootfs: &Path, limit: Duration) -> Result<()> {
    for dir in ["bin", "proc", "sys", "dev", "run", "tmp", "etc"] {
        let dir = rootfs.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    copy(program, &rootfs.join("bin/workload"))?;
    let libraries = Tool::start(Command::new("ldd").arg(program))?.success(limit)?;
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from) {
        let target = rootfs.join(path.strip_prefix("/").context("a path without its root")?);
        let dir = target.parent().context("a library without a directory")?;
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        copy(&path, &target)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
