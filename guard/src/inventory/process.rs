//! Processes as doctor needs them: what they may do (capabilities, limits) and which timers they use. Read for a few
//! processes at a time, on demand.

use std::{fs, io};

use super::thread_files::field;
use super::threads::ids_in;
use super::{Inventory, ThreadDetail};

/// What a process may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessDetail {
    /// Process id.
    pub pid: u32,
    /// Name; bytes that are no UTF-8 are replaced.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// Effective capabilities, one bit each.
    pub capabilities: Option<u64>,
    /// RLIMIT_RTPRIO, soft.
    pub rtprio_limit: Option<u64>,
    /// RLIMIT_MEMLOCK, soft, bytes; [`u64::MAX`] for "unlimited".
    pub memlock_limit: Option<u64>,
    /// Locked memory, bytes.
    pub locked_bytes: Option<u64>,
}

/// Timers that a process holds. None: they may not be seen, or the kernel does not show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// Open timerfds.
    pub timerfds: Option<usize>,
    /// POSIX timers.
    pub posix: Option<usize>,
}

impl Inventory {
    /// The processes of user space. One that ends meanwhile is passed over.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessDetail> {
        let mut pids = ids_in(&self.proc).unwrap_or_default();
        pids.sort_unstable();
        pids.into_iter().filter_map(|pid| self.process(pid)).collect()
    }

    /// A process of user space; `None` when there is none of that id.
    fn process(&self, pid: u32) -> Option<ProcessDetail> {
        let dir = self.proc.join(pid.to_string());
        // The name may be any bytes.
        let status = String::from_utf8_lossy(&fs::read(dir.join("status")).ok()?).into_owned();
        let field = |key| field(status.as_bytes(), key);
        // Threads of the kernel have no address space.
        let locked = field("VmLck")?;
        let limits = fs::read_to_string(dir.join("limits")).unwrap_or_default();
        let cgroup = fs::read(dir.join("cgroup")).ok();
        Some(ProcessDetail {
            pid,
            comm: field("Name")?.to_owned(),
            cgroup: cgroup.and_then(|bytes| self.hierarchy.path_in(&String::from_utf8_lossy(&bytes))),
            capabilities: field("CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()),
            rtprio_limit: soft_limit(&limits, "Max realtime priority"),
            memlock_limit: soft_limit(&limits, "Max locked memory"),
            locked_bytes: locked.strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok()?.checked_mul(1024)),
        })
    }

    /// The threads of a process, by tid.
    #[must_use]
    pub fn threads_of(&self, pid: u32) -> Vec<ThreadDetail> {
        let mut tids = ids_in(&self.proc.join(format!("{pid}/task"))).unwrap_or_default();
        tids.sort_unstable();
        tids.into_iter().filter_map(|tid| self.thread(tid)).collect()
    }

    /// Timer slack of a thread, ns; `None` without CAP_SYS_NICE for threads of other users.
    #[must_use]
    pub fn timer_slack_ns(&self, tid: u32) -> Option<u64> {
        fs::read_to_string(self.proc.join(format!("{tid}/timerslack_ns"))).ok()?.trim().parse().ok()
    }

    /// Timers that a process holds.
    #[must_use]
    pub fn timers_of(&self, pid: u32) -> Timers {
        let dir = self.proc.join(pid.to_string());
        let descriptors = fs::read_dir(dir.join("fd")).ok();
        Timers {
            timerfds: descriptors.map(|all| {
                all.flatten()
                    .filter(|entry| {
                        fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[timerfd]")
                    })
                    .count()
            }),
            posix: fs::read_to_string(dir.join("timers"))
                .ok()
                .map(|text| text.lines().filter(|line| line.starts_with("ID:")).count()),
        }
    }

    /// What a process was started with; `None` where that may not be seen.
    #[must_use]
    pub fn arguments_of(&self, pid: u32) -> Option<Vec<String>> {
        self.strings_of(pid, "cmdline").filter(|arguments| !arguments.is_empty())
    }

    /// The variables that a process was started with; `None` for other users' without root.
    #[must_use]
    pub fn environment_of(&self, pid: u32) -> Option<Vec<(String, String)>> {
        let split = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Some(self.strings_of(pid, "environ")?.into_iter().filter_map(split).collect())
    }

    /// The NUL-terminated texts of a file of a process.
    fn strings_of(&self, pid: u32, file: &str) -> Option<Vec<String>> {
        let bytes = fs::read(self.proc.join(pid.to_string()).join(file)).ok()?;
        let texts = bytes.split(|byte| *byte == 0).filter(|text| !text.is_empty());
        Some(texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect())
    }

    /// What /proc says of the open descriptors of these kinds (`anon_inode:[timerfd]`), each with its process as
    /// `name[pid]` and its kind; `None` without root, who alone sees those of others.
    #[must_use]
    pub fn descriptors(&self, kinds: &[&str]) -> Option<Vec<(String, String, String)>> {
        if fs::read_dir(self.proc.join("1/fd")).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return None;
        }
        let mut pids = ids_in(&self.proc).unwrap_or_default();
        pids.sort_unstable();
        let mut found = Vec::new();
        for pid in pids {
            let dir = self.proc.join(pid.to_string());
            let Ok(descriptors) = fs::read_dir(dir.join("fd")) else { continue };
            for descriptor in descriptors.flatten() {
                let kind = fs::read_link(descriptor.path()).unwrap_or_default().display().to_string();
                if kinds.contains(&kind.as_str())
                    && let Ok(info) = fs::read_to_string(dir.join("fdinfo").join(descriptor.file_name()))
                {
                    let comm = fs::read_to_string(dir.join("comm")).unwrap_or_default();
                    found.push((format!("{}[{pid}]", comm.trim_end()), kind, info));
                }
            }
        }
        Some(found)
    }

    /// Processes that hold a file open, as `name[pid]`; only those of guard's user without root.
    #[must_use]
    pub fn holders_of(&self, file: &str) -> Vec<String> {
        let mut pids = ids_in(&self.proc).unwrap_or_default();
        pids.sort_unstable();
        pids.into_iter()
            .filter(|pid| {
                let Ok(descriptors) = fs::read_dir(self.proc.join(format!("{pid}/fd"))) else { return false };
                descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == file))
            })
            .map(|pid| {
                let comm = fs::read_to_string(self.proc.join(format!("{pid}/comm"))).unwrap_or_default();
                format!("{}[{pid}]", comm.trim_end())
            })
            .collect()
    }
}

/// Soft limit in the text of /proc/PID/limits, see proc_pid_limits(5).
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    match limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cgroup::{Hierarchy, Version};

    // Lines of /proc/PID/limits, 6.18.
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max locked memory         8388608              unlimited            bytes     \n\
        Max realtime priority     95                   95                   \n\
        Max realtime timeout      unlimited            unlimited            us        \n";

    #[test]
    fn limits_are_read() {
        assert_eq!(soft_limit(LIMITS, "Max locked memory"), Some(8 << 20));
        assert_eq!(soft_limit(LIMITS, "Max realtime priority"), Some(95));
        assert_eq!(soft_limit(LIMITS, "Max realtime timeout"), Some(u64::MAX));
        assert_eq!(soft_limit(LIMITS, "Max open files"), None);
    }

    #[test]
    fn this_process_is_seen_with_its_threads_and_limits() {
        let hierarchy = Hierarchy::for_test(Path::new("/"), Version::V2);
        let inventory = Inventory::new(Path::new("/"), hierarchy, Vec::new());
        let own = inventory.process(std::process::id()).unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Rtprio).current.unwrap_or(u64::MAX);
        assert_eq!(own.rtprio_limit, Some(limit));
        assert!(own.capabilities.is_some() && own.locked_bytes.is_some());
        assert!(inventory.threads_of(own.pid).iter().any(|thread| thread.thread.tid == own.pid));
        assert_eq!(inventory.arguments_of(own.pid).unwrap().len(), std::env::args().count());
        let path = std::env::var("PATH").unwrap();
        assert!(inventory.environment_of(own.pid).unwrap().contains(&("PATH".to_owned(), path)));
        assert_eq!((inventory.arguments_of(u32::MAX), inventory.environment_of(u32::MAX)), (None, None));
        let before = inventory.timers_of(own.pid).timerfds.unwrap();
        let clock = rustix::time::TimerfdClockId::Monotonic;
        let timer = rustix::time::timerfd_create(clock, rustix::time::TimerfdFlags::CLOEXEC).unwrap();
        // Other tests run beside this one.
        assert!(inventory.timers_of(own.pid).timerfds.unwrap() > 0, "{before}");
        drop(timer);
        let file = std::fs::File::open("/dev/full").unwrap();
        assert!(inventory.holders_of("/dev/full").iter().any(|holder| holder.ends_with(&format!("[{}]", own.pid))));
        drop(file);
    }
}
