//! The same control loop, a cyclic SCHED_FIFO thread that shares a lock with a fair sibling, under a CPU quota, started in
//! every way in which a node starts its workloads.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use guard::lab::workload;

use super::{
    cri,
    picture::{cgroup_of, quotas},
    shell::{attempt, limit, run},
};
use crate::{
    checks::container::install,
    harness::{Tool, binary, until},
};

/// The loop's program.
const PROGRAM: &str = "guard-loop";
/// Where the root file system of containers is put together.
const ROOTFS: &str = "/var/tmp/guard-field/rootfs";
/// The same for containers of a user.
const USER: &str = "plc";
const USER_ROOTFS: &str = "/home/plc/rootfs";
/// The image made of it, by its name in every runtime.
const IMAGE: &str = "localhost/plc:1";
/// A best-effort neighbour: the quality of service that it has in Kubernetes is in its slice's name.
pub(super) const BEST_EFFORT: &str = "kubepods-besteffort.slice";
const POD: &str = "7d9b2a54-0f5e-4c3a-9f6e-1a2b3c4d5e6f";
const POD_SLICE: &str = "kubepods-burstable-pod7d9b2a54_0f5e_4c3a_9f6e_1a2b3c4d5e6f.slice";

/// How a control loop is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A service with a unit file.
    Service,
    /// An instance of a template, with an escaped name, in a slice that has the quota.
    Template,
    /// A transient scope.
    Scope,
    /// `docker run --cpus`.
    Docker,
    /// `ctr run --cpus`.
    Ctr,
    /// A pod over the Container Runtime Interface, with quotas on container and pod.
    Pod,
    /// `podman run --cpus` by crun, cgroups by systemd.
    PodmanCrun,
    /// By runc.
    PodmanRunc,
    /// Cgroups by podman itself.
    PodmanCgroupfs,
    /// `podman run --cgroups=split` in a service.
    PodmanSplit,
    /// A service that podman's generator makes of a `.container` file.
    Quadlet,
    /// podman of a user who is not root.
    Rootless,
}

/// A control loop that runs until this is dropped.
pub(super) struct Plc {
    pub(super) kind: Kind,
    /// The cgroup of its threads.
    pub(super) cgroup: String,
    /// Where it is ours to wait for.
    _process: Option<Tool>,
}

impl Kind {
    /// The name that people give it.
    fn name(self) -> &'static str {
        match self {
            Self::Service => "plc-service.service",
            Self::Template => "plc@line\\x2d1.service",
            Self::Scope => "plc-scope.scope",
            Self::Docker => "plc-docker",
            Self::Ctr => "plc-ctr",
            Self::Pod => "motion",
            Self::PodmanCrun => "plc-crun",
            Self::PodmanRunc => "plc-runc",
            Self::PodmanCgroupfs => "plc-cgroupfs",
            Self::PodmanSplit => "plc-split",
            Self::Quadlet => "plc-quadlet",
            Self::Rootless => "plc-rootless",
        }
    }

    /// What guard is to say of it: runtime, name (of a unit: its id), image, pod.
    pub(super) fn expected(self) -> (&'static str, &'static str, Option<&'static str>, Option<&'static str>) {
        let name = self.name();
        match self {
            Self::Service | Self::Template | Self::Scope => ("systemd", name, None, None),
            Self::Docker => ("docker", name, Some(IMAGE), None),
            Self::Ctr => ("containerd", name, None, None),
            Self::Pod => ("containerd", name, Some(IMAGE), Some("factory/line-1")),
            Self::Rootless => ("podman", name, None, None),
            Self::PodmanCrun | Self::PodmanRunc | Self::PodmanCgroupfs | Self::PodmanSplit | Self::Quadlet => {
                ("podman", name, Some(IMAGE), None)
            }
        }
    }
}

/// How much of the time the loop's fair thread works: more than any quota here allows, and little enough for three loops on
/// an emulated CPU.
const BUSY_PERCENT: u8 = 35;

/// The loop's part as the argument of its program.
fn part() -> Result<String> {
    let part = workload::ProcessPart {
        role: workload::Role::Lock { inherit: false, busy_percent: BUSY_PERCENT },
        interval_us: 100_000,
        duration_ms: 3_600_000,
        cpu: None,
        held: false,
    };
    Ok(serde_json::to_string(&part)?)
}

/// Starts a control loop of this kind; returns when it runs and its quota is in force.
pub(super) fn start(kind: Kind) -> Result<Plc> {
    started(kind).with_context(|| format!("start of a control loop as {kind:?}"))
}

fn started(kind: Kind) -> Result<Plc> {
    let part = part()?;
    let program = binary(PROGRAM)?;
    let program = program.to_str().context("the path of the loop's program")?;
    let name = kind.name();
    let mut process = None;
    let pid = match kind {
        Kind::Service => {
            let text = format!("[Service]\nCPUQuota=20%\nExecStart={program} '{part}'\n");
            service(name, &[("plc-service.service", &text)])?
        }
        Kind::Template => {
            let text = format!("[Service]\nSlice=plc.slice\nCPUWeight=200\nExecStart={program} '{part}'\n");
            service(name, &[("plc.slice", "[Slice]\nCPUQuota=30%\n"), ("plc@.service", &text)])?
        }
        Kind::Scope => {
            let mut command = Command::new("systemd-run");
            command.args(["--scope", "--unit", name, "--property", "CPUQuota=20%", program, &part]);
            let tool = process.insert(Tool::start(&mut command)?);
            let pid = tool.pid();
            until("the scope", limit(), || Ok(cgroup_of(pid)?.ends_with(name).then_some(())))?;
            pid
        }
        Kind::Docker => docker(name, &part)?,
        Kind::Ctr => ctr(name, &part)?,
        Kind::Pod => pod(name, &part)?,
        Kind::PodmanCrun => podman(name, &["--runtime", "crun", "--cgroup-manager", "systemd"], &part)?,
        Kind::PodmanRunc => podman(name, &["--runtime", "runc", "--cgroup-manager", "systemd"], &part)?,
        Kind::PodmanCgroupfs => podman(name, &["--runtime", "crun", "--cgroup-manager", "cgroupfs"], &part)?,
        Kind::PodmanSplit => split(name, &part)?,
        Kind::Quadlet => quadlet(name, &part)?,
        Kind::Rootless => rootless(name, &part)?,
    };
    let cgroup = until("threads of SCHED_FIFO", limit(), || {
        if let Some(tool) = &mut process
            && let Some(status) = tool.ended()?
        {
            bail!("it ended with {status}: {}", tool.stderr()?);
        }
        Ok(if has_fifo(pid)? { Some(cgroup_of(pid)?) } else { None })
    })?;
    let limited = quotas(&cgroup).iter().any(|(_, text)| !text.starts_with("max"));
    ensure!(limited, "no quota is in force: {:?}", quotas(&cgroup));
    Ok(Plc { kind, cgroup, _process: process })
}

impl Drop for Plc {
    fn drop(&mut self) {
        let name = self.kind.name();
        match self.kind {
            Kind::Service | Kind::Template | Kind::Scope => attempt(&["systemctl", "stop", name]),
            Kind::Docker => attempt(&["docker", "rm", "--force", name]),
            Kind::Ctr => {
                attempt(&["ctr", "task", "kill", "--signal", "SIGKILL", name]);
                attempt(&["ctr", "task", "rm", "--force", name]);
                attempt(&["ctr", "container", "rm", name]);
            }
            Kind::Pod => {
                let stopped = sandbox().and_then(|id| {
                    let request = format!("pod_sandbox_id: \"{id}\"");
                    cri::call("StopPodSandbox", &request)?;
                    cri::call("RemovePodSandbox", &request)
                });
                if let Err(error) = stopped {
                    eprintln!("    {error:#}");
                }
                attempt(&["systemctl", "stop", POD_SLICE]);
            }
            Kind::PodmanCrun | Kind::PodmanRunc | Kind::PodmanCgroupfs => {
                attempt(&["podman", "rm", "--force", "--time", "0", name]);
            }
            Kind::PodmanSplit | Kind::Quadlet => {
                attempt(&["podman", "kill", name]);
                attempt(&["systemctl", "stop", name]);
            }
            Kind::Rootless => attempt(&as_user(&["systemctl", "--user", "stop", name])),
        }
    }
}

fn write(path: &str, text: &str) -> Result<()> {
    let parent = Path::new(path).parent().with_context(|| format!("directory of {path}"))?;
    fs::create_dir_all(parent).with_context(|| format!("mkdir {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("write {path}"))
}

fn number(text: &str) -> Result<u32> {
    text.trim().parse().with_context(|| format!("a process id: \"{text}\""))
}

/// A number that is there once something runs: 0 and errors are "not yet".
fn running(what: &str, words: &[&str]) -> Result<u32> {
    until(what, limit(), || Ok(run(words).ok().and_then(|text| number(&text).ok()).filter(|pid| *pid != 0)))
}

/// Installs unit files and starts a service.
fn service(name: &str, files: &[(&str, &str)]) -> Result<u32> {
    for (file, text) in files {
        write(&format!("/etc/systemd/system/{file}"), text)?;
    }
    run(&["systemctl", "daemon-reload"])?;
    run(&["systemctl", "start", name])?;
    number(&run(&["systemctl", "show", "--property", "MainPID", "--value", name])?)
}

/// Whether a thread of the process is SCHED_FIFO: the 41st field of its stat, proc(5).
fn has_fifo(pid: u32) -> Result<bool> {
    let dir = format!("/proc/{pid}/task");
    for task in fs::read_dir(&dir).with_context(|| format!("read {dir}"))?.flatten() {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let policy = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(38));
        if policy == Some("1") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The root file system with the loop's program, made once.
fn rootfs() -> Result<PathBuf> {
    let path = PathBuf::from(ROOTFS);
    if !path.exists() {
        let partial = path.with_extension("part");
        install(&binary(PROGRAM)?, &partial, limit())?;
        // What holds a pod's namespaces does nothing; it is this image, too.
        fs::copy("/usr/bin/busybox", partial.join("bin/sleep")).context("copy of busybox")?;
        fs::rename(&partial, &path).with_context(|| format!("rename to {ROOTFS}"))?;
    }
    Ok(path)
}

/// The same as an archive.
fn archive() -> Result<String> {
    let tar = format!("{ROOTFS}.tar");
    if !Path::new(&tar).exists() {
        rootfs()?;
        run(&["tar", "--create", "--file", &tar, "--directory", ROOTFS, "."])?;
    }
    Ok(tar)
}

const CONTAINERD: &str = "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'localhost/plc:1'\n\
     [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
     [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n";

/// Starts Docker, which brings its containerd along, and gives it the image.
fn dockerd() -> Result<()> {
    if run(&["systemctl", "is-active", "docker"]).is_ok() {
        return Ok(());
    }
    write("/etc/containerd/config.toml", CONTAINERD)?;
    run(&["systemctl", "start", "docker"])?;
    // The pod's own container runs the image's entry point.
    run(&["docker", "import", "--change", "ENTRYPOINT [\"/bin/sleep\", \"1000000\"]", &archive()?, IMAGE])?;
    Ok(())
}

/// What every container gets: a quota, and leave to be real-time.
const LIMITED: [&str; 6] = ["--network", "none", "--cpus", "0.2", "--cap-add", "SYS_NICE"];

fn docker(name: &str, part: &str) -> Result<u32> {
    dockerd()?;
    let (run_as, how) = (["docker", "run", "--detach", "--name", name], ["--ulimit", "rtprio=99"]);
    run(&[&run_as[..], &LIMITED, &how, &["--entrypoint", "/bin/workload", IMAGE, part]].concat())?;
    running("docker's process", &["docker", "inspect", "--format", "{{.State.Pid}}", name])
}

/// Gives containerd's other clients the image in their namespace.
fn imported(namespace: &str) -> Result<()> {
    dockerd()?;
    let images = run(&["ctr", "--namespace", namespace, "images", "list", "--quiet"])?;
    if images.lines().any(|image| image == IMAGE) {
        return Ok(());
    }
    let saved = format!("{ROOTFS}.docker.tar");
    if !Path::new(&saved).exists() {
        run(&["docker", "save", "--output", &saved, IMAGE])?;
    }
    run(&["ctr", "--namespace", namespace, "images", "import", &saved])?;
    Ok(())
}

fn ctr(name: &str, part: &str) -> Result<u32> {
    imported("default")?;
    run(&["ctr", "run", "--detach", "--cpus", "0.2", "--cap-add", "CAP_SYS_NICE", IMAGE, name, "/bin/workload", part])?;
    task("default", name)
}

/// The process of a containerd task.
fn task(namespace: &str, id: &str) -> Result<u32> {
    until("containerd's task", limit(), || {
        let tasks = run(&["ctr", "--namespace", namespace, "task", "list"])?;
        let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(lines.find(|words| words.first() == Some(&id)).and_then(|words| number(words.get(1)?).ok()))
    })
}

fn sandbox_config() -> String {
    format!(
        "metadata {{ name: \"line-1\" namespace: \"factory\" uid: \"{POD}\" }}\n\
         log_directory: \"/var/log/pods/line-1\"\n\
         linux {{ cgroup_parent: \"{POD_SLICE}\" security_context {{ namespace_options {{ network: NODE }} }} }}\n"
    )
}

fn sandbox() -> Result<String> {
    let listed = cri::call("ListPodSandbox", "")?;
    Ok(cri::field(&listed, "id")?.to_owned())
}

fn pod(name: &str, part: &str) -> Result<u32> {
    imported("k8s.io")?;
    fs::create_dir_all("/var/log/pods/line-1").context("mkdir of the pod's logs")?;
    let config = sandbox_config();
    let answer = cri::call("RunPodSandbox", &format!("config {{ {config} }}"))?;
    let sandbox = cri::field(&answer, "pod_sandbox_id")?.to_owned();
    // As a kubelet does for a pod whose containers all have limits.
    run(&["systemctl", "set-property", "--runtime", POD_SLICE, "CPUQuota=30%"])?;
    let request = format!(
        "pod_sandbox_id: \"{sandbox}\"\n\
         config {{ metadata {{ name: \"{name}\" }} image {{ image: \"{IMAGE}\" user_specified_image: \"{IMAGE}\" }}\n\
           command: \"/bin/workload\" args: \"{}\" log_path: \"{name}.log\"\n\
           labels {{ key: \"io.kubernetes.container.name\" value: \"{name}\" }}\n\
           linux {{ resources {{ cpu_period: 100000 cpu_quota: 20000 cpu_shares: 204 }}\n\
             security_context {{ capabilities {{ add_capabilities: \"SYS_NICE\" }} namespace_options {{ network: NODE }} }} }} }}\n\
         sandbox_config {{ {config} }}",
        part.replace('"', "\\\"")
    );
    let answer = cri::call("CreateContainer", &request)?;
    let id = cri::field(&answer, "container_id")?.to_owned();
    cri::call("StartContainer", &format!("container_id: \"{id}\""))?;
    task("k8s.io", &id)
}

/// Gives root's podman the image.
fn podman_image() -> Result<()> {
    if run(&["podman", "image", "exists", IMAGE]).is_err() {
        run(&["podman", "import", &archive()?, IMAGE])?;
    }
    Ok(())
}

/// What podman's containers have besides.
const OF_PODMAN: [&str; 6] =
    ["--ulimit", "rtprio=99:99", "--security-opt", "seccomp=unconfined", "--security-opt", "label=disable"];

fn podman_pid(name: &str) -> Result<u32> {
    running("podman's process", &["podman", "inspect", "--format", "{{.State.Pid}}", name])
}

fn podman(name: &str, how: &[&str], part: &str) -> Result<u32> {
    podman_run(name, &[&["podman"], how, &["run", "--detach"]].concat(), part)
}

fn split(name: &str, part: &str) -> Result<u32> {
    let service = ["systemd-run", "--unit", name, "--property", "Delegate=yes"];
    podman_run(name, &[&service[..], &["podman", "run", "--rm", "--cgroups", "split"]].concat(), part)
}

/// Runs the loop in a container; `command` ends with podman's `run` and its further options.
fn podman_run(name: &str, command: &[&str], part: &str) -> Result<u32> {
    podman_image()?;
    let words = [command, &["--name", name], &LIMITED, &OF_PODMAN, &[IMAGE, "/bin/workload", part]];
    run(&words.concat())?;
    podman_pid(name)
}

fn quadlet(name: &str, part: &str) -> Result<u32> {
    podman_image()?;
    let text = format!(
        "[Container]\nContainerName={name}\nImage={IMAGE}\nNetwork=none\nAddCapability=SYS_NICE\nUlimit=rtprio=99:99\n\
         PodmanArgs=--cpus 0.2 --security-opt seccomp=unconfined\nExec=/bin/workload '{part}'\n"
    );
    write(&format!("/etc/containers/systemd/{name}.container"), &text)?;
    run(&["systemctl", "daemon-reload"])?;
    run(&["systemctl", "start", name])?;
    podman_pid(name)
}

/// A command of the user, with the user's own systemd.
fn as_user<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let prefix = [
        "runuser",
        "--user",
        USER,
        "--",
        "env",
        "HOME=/home/plc",
        "XDG_RUNTIME_DIR=/run/user/1000",
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus",
    ];
    [&prefix[..], words].concat()
}

fn rootless(name: &str, part: &str) -> Result<u32> {
    run(&["systemctl", "start", "user@1000.service"])?;
    if !Path::new(USER_ROOTFS).exists() {
        rootfs()?;
        run(&["cp", "--recursive", ROOTFS, USER_ROOTFS])?;
        run(&["chown", "--recursive", "plc:plc", USER_ROOTFS])?;
    }
    let words = [
        &["systemd-run", "--user", "--unit", name, "podman", "run", "--rm", "--name", name][..],
        &["--network", "none", "--cpus", "0.2", "--ulimit", "host", "--security-opt", "seccomp=unconfined"],
        &["--rootfs", USER_ROOTFS, "/bin/workload", part],
    ];
    run(&as_user(&words.concat()))?;
    running("podman's process", &as_user(&["podman", "inspect", "--format", "{{.State.Pid}}", name]))
}
