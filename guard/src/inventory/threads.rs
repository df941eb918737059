//! Threads by /proc: policy, priority, affinity, cgroup. Made for 10,000 threads: a scan asks only for the policy of
//! each and reads more of the real-time ones; everything else is read for the thread that is asked for. A thread that
//! ends meanwhile is passed over.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use super::thread_files::{Stat, Status};
use crate::cgroup::Hierarchy;
use crate::sched::{self, SchedPolicy};
use crate::snapshot::CpuList;

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub tgid: u32,
    /// Name; bytes that are no UTF-8 are replaced.
    pub comm: String,
    /// Scheduling policy.
    pub policy: SchedPolicy,
    /// 1..99 for FIFO and RR, 0 otherwise.
    pub rt_priority: u32,
    /// -20..19.
    pub nice: i32,
    /// Whether it is a kernel thread.
    pub kernel: bool,
    /// When it was started, in clock ticks since boot: with the tid it tells a thread from a later one.
    pub start_ticks: u64,
    /// Path of its cgroup; `None` when it ended before that was read, or lies outside of what can be seen.
    pub cgroup: Option<String>,
}

/// A thread and what is worth reading for one thread only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadDetail {
    /// The thread.
    pub thread: ThreadInfo,
    /// CPUs it may run on.
    pub affinity: CpuList,
    /// Its tid in each pid namespace, from guard's inwards.
    pub namespace_tids: Vec<u32>,
    /// Locked memory of its process, bytes; `None` for kernel threads.
    pub locked_bytes: Option<u64>,
    /// Period that it asked for, ns; `None` unless its policy is SCHED_DEADLINE.
    pub deadline_period_ns: Option<u64>,
}

/// What a scan of all threads found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadScan {
    /// Threads of policy FIFO, RR or DEADLINE, kernel threads included, by process and tid.
    pub realtime: Vec<ThreadInfo>,
    /// Processes seen.
    pub processes: usize,
    /// Threads seen.
    pub threads: usize,
}

/// The threads below a /proc.
#[derive(Debug)]
pub(super) struct Threads {
    proc: PathBuf,
    /// Whether its ids are those of guard's own pid namespace, so that system calls can be used on them.
    own: bool,
}

impl Threads {
    pub(super) fn new(root: &Path) -> Self {
        let proc = root.join("proc");
        let own = root == Path::new("/")
            && fs::read_link(proc.join("self"))
                .is_ok_and(|pid| pid.as_os_str() == std::process::id().to_string().as_str());
        Self { proc, own }
    }

    /// Looks at every thread.
    ///
    /// # Errors
    /// /proc cannot be listed.
    pub(super) fn scan(&self, hierarchy: &Hierarchy) -> std::io::Result<ThreadScan> {
        let mut scan = ThreadScan::default();
        let mut buffer = Vec::with_capacity(1024);
        for tgid in ids_in(&self.proc)? {
            // A process that ended meanwhile has no threads.
            let Ok(tids) = ids_in(&self.proc.join(format!("{tgid}/task"))) else { continue };
            scan.processes += 1;
            for tid in tids {
                scan.threads += 1;
                if self.own && !sched::policy_of(tid).is_some_and(SchedPolicy::is_realtime) {
                    continue;
                }
                let dir = self.proc.join(format!("{tgid}/task/{tid}"));
                let thread = self.read(&dir, tgid, hierarchy, &mut buffer, |stat| stat.policy.is_realtime());
                scan.realtime.extend(thread);
            }
        }
        scan.realtime.sort_unstable_by_key(|thread| (thread.tgid, thread.tid));
        Ok(scan)
    }

    /// One thread; `None` when there is none of that id.
    pub(super) fn detail(&self, tid: u32, hierarchy: &Hierarchy) -> Option<ThreadDetail> {
        // /proc/TID is there for every thread, although a listing shows only processes.
        let status = fs::read(self.proc.join(format!("{tid}/status"))).ok()?;
        let status = Status::parse(&status)?;
        let dir = self.proc.join(format!("{}/task/{tid}", status.tgid));
        let thread = self.read(&dir, status.tgid, hierarchy, &mut Vec::new(), |_| true)?;
        Some(ThreadDetail {
            thread,
            affinity: status.affinity,
            namespace_tids: status.namespace_tids,
            locked_bytes: status.locked_bytes,
            deadline_period_ns: self.own.then(|| sched::deadline_period_ns(tid)).flatten(),
        })
    }

    /// Whether the real-time threads that are in a cgroup now are all guard's own or a container runtime's. Not so when
    /// there is none: what was real-time a moment ago may have ended.
    pub(super) fn only_others(&self, hierarchy: &Hierarchy, path: &str) -> bool {
        let mut others = false;
        for tid in hierarchy.threads(path).unwrap_or_default() {
            if self.proc.join(format!("self/task/{tid}")).exists() {
                others = true;
            } else if self.is_realtime(tid) {
                if !self.is_of_runtime(tid) {
                    return false;
                }
                others = true;
            }
        }
        others
    }

    fn is_realtime(&self, tid: u32) -> bool {
        let policy = if self.own {
            sched::policy_of(tid)
        } else {
            let stat = fs::read(self.proc.join(format!("{tid}/stat"))).ok();
            stat.and_then(|stat| Stat::parse(&stat).map(|stat| stat.policy))
        };
        policy.is_some_and(SchedPolicy::is_realtime)
    }

    /// Whether a process, or the process of a thread, runs a container runtime's program. By the program's file, else by its
    /// name: whoever calls his own program like that gives up protection and gains nothing.
    pub(super) fn is_of_runtime(&self, id: u32) -> bool {
        let dir = self.proc.join(id.to_string());
        match fs::read_link(dir.join("exe")) {
            Ok(program) => program.to_str().is_some_and(is_runtime_program),
            Err(_) => fs::read_to_string(dir.join("comm")).is_ok_and(|comm| is_runtime_name(comm.trim_end())),
        }
    }

    fn read(
        &self,
        dir: &Path,
        tgid: u32,
        hierarchy: &Hierarchy,
        buffer: &mut Vec<u8>,
        wanted: impl Fn(&Stat<'_>) -> bool,
    ) -> Option<ThreadInfo> {
        buffer.clear();
        File::open(dir.join("stat")).ok()?.read_to_end(buffer).ok()?;
        let stat = Stat::parse(buffer).filter(wanted)?;
        let cgroup = fs::read(dir.join("cgroup")).ok();
        Some(ThreadInfo {
            tid: stat.tid,
            tgid,
            comm: String::from_utf8_lossy(stat.comm).into_owned(),
            policy: stat.policy,
            rt_priority: stat.rt_priority,
            nice: stat.nice,
            kernel: stat.kernel,
            start_ticks: stat.start_ticks,
            cgroup: cgroup.and_then(|bytes| hierarchy.path_in(&String::from_utf8_lossy(&bytes))),
        })
    }
}

/// Programs that start containers and watch over them. Names are cut off as the kernel cuts those of processes.
const RUNTIME_PROGRAMS: &[&str] = &[
    "balena-engine",
    "balenad",
    "buildkitd",
    "conmon",
    "conmonrs",
    "containerd",
    "crio",
    "crun",
    "docker",
    "docker-proxy",
    "dockerd",
    "isulad",
    // kubelet is part of these.
    "k3s",
    "k3s-agent",
    "k3s-server",
    "kubelet",
    "kubelite",
    "lxc-monitord",
    "lxc-start",
    "nerdctl",
    "podman",
    "rootlesskit",
    "rootlessport",
    "runc",
    "slirp4netns",
    "systemd-nspawn",
    "pasta",
    "youki",
    "[lxc monitor]",
];

/// Whether this is the path of a container runtime's program, as /proc/PID/exe shows it.
fn is_runtime_program(path: &str) -> bool {
    // runc runs from a copy of itself in memory, so that no container can overwrite it.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.starts_with("/memfd:runc_cloned") || path.rsplit('/').next().is_some_and(is_runtime_name)
}

/// Whether a process of this name runs a container runtime's program.
#[must_use]
pub fn is_runtime_name(name: &str) -> bool {
    // Shims have a name for each runtime: containerd-shim-runc-v2, containerd-shim-kata-v2.
    RUNTIME_PROGRAMS.contains(&name) || name.starts_with("containerd-shim") || name.starts_with("runc:[")
}

/// The entries of a directory that are numbers.
pub(super) fn ids_in(dir: &Path) -> std::io::Result<Vec<u32>> {
    Ok(fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::cgroup::Version;
    use crate::inventory::thread_files::tests::{KTHREADD, STAT, STATUS};

    /// A /proc with one process of two threads, one of them FIFO, and one that vanishes: its task directory is empty.
    fn recorded() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, bytes: &[u8]| {
            let path = root.path().join("proc").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("208/task/208/stat", STAT);
        write("208/task/208/cgroup", b"0::/libpod_parent/x\n");
        write(
            "208/task/209/stat",
            b"209 (worker) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 5 2 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n",
        );
        write("208/status", STATUS);
        write("2/task/2/stat", KTHREADD);
        write("self/unrelated", b"");
        fs::create_dir_all(root.path().join("proc/300/task/300")).unwrap();
        root
    }

    #[test]
    fn a_scan_returns_the_realtime_threads_and_counts_all() {
        let root = recorded();
        let scan = Threads::new(root.path()).scan(&Hierarchy::for_test(root.path(), Version::V2)).unwrap();
        assert_eq!((scan.processes, scan.threads), (3, 4));
        assert_eq!(scan.realtime.len(), 1);
        let thread = &scan.realtime[0];
        assert_eq!((thread.tid, thread.tgid, thread.kernel), (208, 208, false));
        assert_eq!(thread.cgroup.as_deref(), Some("/libpod_parent/x"));
        assert_eq!(thread.comm, "a) b \u{fffd}(c");
    }

    #[test]
    fn a_thread_that_is_not_there_is_none() {
        let root = recorded();
        let threads = Threads::new(root.path());
        let hierarchy = Hierarchy::for_test(root.path(), Version::V2);
        assert_eq!(threads.detail(300, &hierarchy), None);
        assert_eq!(threads.detail(208, &hierarchy).unwrap().thread.policy, SchedPolicy::Fifo);
    }

    #[test]
    fn a_thread_of_this_process_is_seen_as_it_is() {
        let (to_main, from_thread) = mpsc::channel();
        let (to_thread, from_main) = mpsc::channel::<()>();
        let worker = std::thread::Builder::new()
            .name("a) worker (".to_owned())
            .spawn(move || {
                to_main.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
                // Ends when the other side is dropped.
                let _ = from_main.recv();
            })
            .unwrap();
        let tid = from_thread.recv().unwrap();
        let threads = Threads::new(Path::new("/"));
        let hierarchy = Hierarchy::for_test(Path::new("/"), Version::V2);
        let detail = threads.detail(tid, &hierarchy).unwrap();
        assert_eq!((detail.thread.tid, detail.thread.tgid), (tid, std::process::id()));
        assert_eq!(detail.thread.comm, "a) worker (");
        assert_eq!(detail.thread.policy, SchedPolicy::Other);
        assert!(!detail.thread.kernel);
        assert!(!detail.affinity.is_empty());
        let scan = threads.scan(&hierarchy).unwrap();
        assert!(scan.threads >= 2 && scan.processes >= 1);
        drop(to_thread);
        worker.join().unwrap();
        // The tid may linger for a moment after the join, but it never comes back as something else's thread of ours.
        let later = threads.detail(tid, &hierarchy);
        assert!(later.is_none_or(|later| later.thread.start_ticks >= detail.thread.start_ticks));
    }
}
