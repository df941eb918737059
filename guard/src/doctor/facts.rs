//! What doctor knows of a node: pure data, read once by [`super::collect()`] and kept as JSON by `guard doctor --facts`,
//! so that a node that was bad once is a test for ever. Files are kept as they were read, since their text is also the
//! evidence; processes and cgroups are kept as far as the checks need them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    inventory,
    snapshot::{CgroupLayout, Class, Container, CpuList, CpuListError, MAX_CPU, Quota},
};

/// Version of the recorded form.
pub const FACTS_SCHEMA: u32 = 1;

/// CAP_SYS_NICE, include/uapi/linux/capability.h.
const CAP_SYS_NICE: u32 = 23;
/// CAP_IPC_LOCK.
const CAP_IPC_LOCK: u32 = 14;

/// A text file of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Its text, without the white space at its end.
    Is(String),
    /// It is there, but could not be read.
    Unreadable {
        /// The kernel's answer.
        error: String,
    },
    /// There is no such file.
    Absent,
}

/// What doctor knows of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of this form.
    pub schema: u32,
    /// Text files by path.
    pub files: BTreeMap<String, Text>,
    /// The kernel's build configuration.
    pub kernel: KernelBuild,
    /// The hierarchy of the cpu controller.
    pub hierarchy: HierarchyFacts,
    /// Cgroups of containers and of real-time processes, with their ancestors, by path.
    pub cgroups: BTreeMap<String, CgroupFacts>,
    /// Processes of user space that have real-time threads, may have them by a limit, live in a container, may run on
    /// CPUs that are set apart, or are one of the daemons that matter here.
    pub processes: Vec<Process>,
    /// Real-time threads of the kernel.
    pub kernel_threads: Vec<KernelThread>,
    /// /dev/cpu_dma_latency.
    pub dma_latency: DmaLatency,
    /// System management interrupts since reset.
    pub smi: Smi,
    /// Programs that others have on scheduler hooks; `None` where they may not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooked: Option<Vec<HookedProgram>>,
    /// What could not be looked at as a whole, and why.
    pub unknown: Vec<String>,
}

/// Build options and functions of the running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBuild {
    /// Where the options come from.
    pub config_source: Option<String>,
    /// CONFIG_ options without that prefix; "n" when the file says that it is not set.
    pub options: BTreeMap<String, String>,
    /// Functions that show what the kernel can do, and whether it has them; empty when /proc/kallsyms says nothing.
    pub functions: BTreeMap<String, bool>,
}

/// The hierarchy of the cpu controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyFacts {
    /// How the hierarchies are mounted.
    pub layout: CgroupLayout,
    /// Where the cpu controller's is mounted.
    pub mount: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
    /// Cgroups with a CPU quota, on the whole node.
    pub quotas: usize,
    /// v2: cpuset partitions that keep the rest of the node off their CPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionFacts>,
}

/// A cpuset partition: CPUs that only one part of the cgroup tree may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFacts {
    /// The file that says so.
    pub file: String,
    /// What it says: "isolated", "root", or the list of all CPUs that are isolated this way.
    pub value: String,
    /// Its CPUs.
    pub cpus: CpuList,
}

/// A cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupFacts {
    /// Its directory.
    pub dir: String,
    /// CPU quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// Periods with a throttle since it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nr_throttled: Option<u64>,
    /// v2: controllers it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controllers: Option<Vec<String>>,
    /// v2: controllers it hands to its children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtree_control: Option<Vec<String>>,
    /// v1 with CONFIG_RT_GROUP_SCHED: time for FIFO and RR threads per period, us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rt_runtime_us: Option<i64>,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// What could not be read of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// A process of user space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// Class of that cgroup.
    pub class: Class,
    /// Container it lives in.
    pub container: Option<Container>,
    /// Effective capabilities, as in CapEff.
    pub capabilities: Option<u64>,
    /// RLIMIT_RTPRIO, soft.
    pub rtprio_limit: Option<u64>,
    /// RLIMIT_MEMLOCK, soft, bytes; the largest number for "unlimited".
    pub memlock_limit: Option<u64>,
    /// VmLck, bytes.
    pub locked_bytes: Option<u64>,
    /// Open timerfds; `None` when they may not be seen.
    pub timerfds: Option<usize>,
    /// POSIX timers; `None` when they may not be seen.
    pub posix_timers: Option<usize>,
    /// Real-time threads, and the first fair ones.
    pub threads: Vec<Thread>,
    /// Fair threads in all.
    pub fair_threads: usize,
    /// What a daemon was started with; `None` for others, and where it may not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// Those of a daemon's variables that a check looks at; `None` for others, and where they may not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<BTreeMap<String, String>>,
}

/// A thread of user space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Policy without SCHED_.
    pub policy: String,
    /// 1..99 for FIFO and RR.
    pub priority: u32,
    /// CPUs it may run on.
    pub affinity: CpuList,
    /// Timer slack, ns; `None` when it may not be seen.
    pub timer_slack_ns: Option<u64>,
}

/// A real-time thread of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelThread {
    /// Thread id.
    pub tid: u32,
    /// Its name, "ktimers/1".
    pub comm: String,
    /// Policy without SCHED_.
    pub policy: String,
    /// 1..99 for FIFO and RR.
    pub priority: u32,
}

/// /dev/cpu_dma_latency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaLatency {
    /// What the strictest request allows, us, or why it is not known.
    pub limit_us: Result<i32, String>,
    /// Processes that hold it open, `name[pid]`; incomplete without root.
    pub holders: Vec<String>,
}

/// A BPF program on a hook of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookedProgram {
    /// Who holds it, `name[pid]`.
    pub holder: String,
    /// The tracepoint.
    pub hook: String,
    /// Its id.
    pub program: u64,
    /// Time that its runs took while the kernel counted that, ns.
    pub run_time_ns: u64,
    /// Runs while the kernel counted them.
    pub runs: u64,
}

/// System management interrupts, counted by the processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Smi {
    /// Counted by CPU 0 since reset, at the beginning and at the end of doctor's look at the node.
    Counted {
        /// At the beginning.
        first: u64,
        /// At the end.
        last: u64,
    },
    /// Not known, and why.
    Unknown(String),
}

impl Facts {
    /// Text of a file; `None` when it is absent, unreadable or was not looked at.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.files.get(path)? {
            Text::Is(text) => Some(text),
            Text::Unreadable { .. } | Text::Absent => None,
        }
    }

    /// A file that holds one number.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<i64> {
        self.text(path)?.trim().parse().ok()
    }

    /// A file that holds a CPU list; "(null)", which older kernels print for none, is the empty one.
    #[must_use]
    pub fn cpus(&self, path: &str) -> Option<CpuList> {
        match self.text(path)? {
            "(null)" => Some(CpuList::default()),
            text => text.parse().ok(),
        }
    }

    /// Why a file shows nothing: "absent", the kernel's answer, or what it holds instead.
    #[must_use]
    pub fn reason(&self, path: &str) -> String {
        match self.files.get(path) {
            None => format!("{path} was not looked at"),
            Some(Text::Absent) => format!("there is no {path}"),
            Some(Text::Unreadable { error }) => format!("{path}: {error}"),
            Some(Text::Is(text)) => format!("{path} holds \"{text}\""),
        }
    }

    /// Whether a file is there but may not be read.
    #[must_use]
    pub fn is_unreadable(&self, path: &str) -> bool {
        matches!(self.files.get(path), Some(Text::Unreadable { .. }))
    }

    /// The files that match a pattern in which each `*` stands for a part of one path component, with what the `*`s
    /// stand for, in the order of the numbers in them.
    #[must_use]
    pub fn matching<'a>(&'a self, pattern: &str) -> Vec<(&'a str, Vec<&'a str>, &'a str)> {
        let mut found: Vec<_> = self
            .files
            .iter()
            .filter_map(|(path, text)| match text {
                Text::Is(text) => Some((path.as_str(), stars(pattern, path)?, text.as_str())),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(path, stars, _)| {
            (stars.iter().map(|star| star.parse::<u64>().unwrap_or(u64::MAX)).collect::<Vec<_>>(), *path)
        });
        found
    }

    /// CPUs that run tasks now.
    #[must_use]
    pub fn online(&self) -> CpuList {
        self.cpus("/sys/devices/system/cpu/online").unwrap_or_default()
    }

    /// CPUs set apart from the rest: without load balancing, without a tick, or in a cpuset partition.
    #[must_use]
    pub fn set_apart(&self) -> CpuList {
        self.set_apart_at_boot().iter().chain(self.isolated().iter()).collect()
    }

    /// CPUs onto which the scheduler balances no work of others: those of isolcpus=, and of cpuset partitions.
    #[must_use]
    pub fn isolated(&self) -> CpuList {
        let at_boot = self.cpus("/sys/devices/system/cpu/isolated").unwrap_or_default();
        at_boot.iter().chain(self.partitioned().iter()).collect()
    }

    /// CPUs that isolcpus= and nohz_full= set apart. Kernels that count isolated partitions among the former have them here
    /// too.
    #[must_use]
    pub fn set_apart_at_boot(&self) -> CpuList {
        let list = |name: &str| self.cpus(&format!("/sys/devices/system/cpu/{name}")).unwrap_or_default();
        list("isolated").iter().chain(list("nohz_full").iter()).collect()
    }

    /// CPUs of cpuset partitions.
    #[must_use]
    pub fn partitioned(&self) -> CpuList {
        self.hierarchy.partitions.iter().flat_map(|partition| partition.cpus.iter()).collect()
    }

    /// A list of CPUs as the kernel reads it on its command line.
    ///
    /// # Errors
    /// The kernel refuses it, see [`CpuList::from_boot_option`].
    pub fn boot_cpus(&self, list: &str) -> Result<CpuList, CpuListError> {
        let possible = self.cpus("/sys/devices/system/cpu/possible").unwrap_or_default();
        CpuList::from_boot_option(list, possible.iter().last().unwrap_or(MAX_CPU) + 1)
    }

    /// CPUs of real-time work: those set apart, else those that real-time threads of the workload are pinned to.
    #[must_use]
    pub fn rt_cpus(&self) -> CpuList {
        let apart = self.set_apart();
        if !apart.is_empty() {
            return apart;
        }
        let online = self.online();
        let pinned: BTreeSet<u32> = self
            .workload()
            .flat_map(Process::realtime)
            .map(|thread| thread.affinity.iter().filter(|cpu| online.contains(*cpu)).collect::<Vec<_>>())
            .filter(|cpus| cpus.len() < online.len())
            .flatten()
            .collect();
        // If together they use every CPU, none is theirs.
        if pinned.len() < online.len() { pinned.into_iter().collect() } else { CpuList::default() }
    }

    /// CPUs for everything else.
    #[must_use]
    pub fn housekeeping(&self) -> CpuList {
        let rt = self.rt_cpus();
        self.online().iter().filter(|cpu| !rt.contains(*cpu)).collect()
    }

    /// CPUs to look at for power saving: those of real-time work, else all.
    #[must_use]
    pub fn cpus_to_keep_awake(&self) -> CpuList {
        let rt = self.rt_cpus();
        if rt.is_empty() { self.online() } else { rt }
    }

    /// Processes with real-time threads that run the process: not the operating system's, nor a container runtime's.
    pub fn workload(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.is_ours() && process.realtime().next().is_some())
    }

    /// Whether a daemon runs, by its name.
    #[must_use]
    pub fn runs(&self, comm: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.comm == comm)
    }

    /// Whether the kernel has a function; `None` when that is not known.
    #[must_use]
    pub fn has_function(&self, name: &str) -> Option<bool> {
        self.kernel.functions.get(name).copied()
    }

    /// Whether the kernel is PREEMPT_RT.
    #[must_use]
    pub fn is_realtime(&self) -> bool {
        self.text("/sys/kernel/realtime") == Some("1")
            || self
                .text("/proc/sys/kernel/version")
                .is_some_and(|version| version.split_whitespace().any(|word| word == "PREEMPT_RT"))
    }

    /// Whether the kernel rations real-time time per cgroup (CONFIG_RT_GROUP_SCHED, and not turned off at boot); `None`
    /// when that is not known.
    #[must_use]
    pub fn rations_rt_groups(&self) -> Option<bool> {
        let built = match self.kernel.options.get("RT_GROUP_SCHED") {
            Some(value) => value == "y",
            None => self.has_function("sched_group_set_rt_runtime")?,
        };
        let off_by_default =
            self.kernel.options.get("RT_GROUP_SCHED_DEFAULT_DISABLED").is_some_and(|value| value == "y");
        let at_boot = self.boot_option("rt_group_sched");
        Some(built && at_boot.map_or(!off_by_default, |value| matches!(value, "1" | "y" | "on")))
    }

    /// Words of the kernel's command line. What stands behind "--" is for init.
    pub fn boot_options(&self) -> impl Iterator<Item = &str> {
        self.text("/proc/cmdline").unwrap_or_default().split_whitespace().take_while(|word| *word != "--")
    }

    /// Value of the last `name=` on the kernel's command line. The kernel takes "-" in a name for "_".
    #[must_use]
    pub fn boot_option(&self, name: &str) -> Option<&str> {
        let options = self.boot_options().filter_map(|word| word.split_once('='));
        options.filter(|(key, _)| key.replace('-', "_") == name).last().map(|(_, value)| value)
    }

    /// A cgroup and its ancestors as far as they are known, from the cgroup upwards, the root last.
    pub fn lineage<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a CgroupFacts)> {
        let mut next = Some(path);
        std::iter::from_fn(move || {
            let this = next?;
            next = match this.rsplit_once('/') {
                _ if this == "/" => None,
                Some(("", _)) => Some("/"),
                Some((parent, _)) => Some(parent),
                None => None,
            };
            Some(this)
        })
        .filter_map(|path| Some((path, self.cgroups.get(path)?)))
    }
}

impl Process {
    /// Its threads of policy FIFO, RR or DEADLINE.
    pub fn realtime(&self) -> impl Iterator<Item = &Thread> {
        self.threads.iter().filter(|thread| thread.is_realtime())
    }

    /// Whether it is neither the operating system's nor a container runtime's. Who is in the root cgroup was put nowhere, and
    /// counts.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        (self.class != Class::System || self.cgroup.as_deref() == Some("/")) && !inventory::is_runtime_name(&self.comm)
    }

    /// Whether it is a service or scope of the system manager that is none of the operating system's own, as far as known. It
    /// is SYSTEM only as long as it has no real-time threads.
    #[must_use]
    pub fn is_other_service(&self) -> bool {
        let unit = self.container.as_ref().filter(|container| container.runtime == "systemd");
        let in_system_slice = self.cgroup.as_ref().is_some_and(|path| path.starts_with("/system.slice/"));
        in_system_slice
            && unit.is_some_and(|unit| !inventory::is_of_the_system(&unit.id))
            && !inventory::is_runtime_name(&self.comm)
    }

    /// `name[pid]`, with its container where it has one.
    #[must_use]
    pub fn label(&self) -> String {
        match self.container.as_ref().filter(|container| container.runtime != "systemd") {
            Some(c) => format!("{}[{}] in {}", self.comm, self.pid, c.name.as_deref().unwrap_or(&c.id)),
            None => format!("{}[{}]", self.comm, self.pid),
        }
    }

    /// Whether it has CAP_SYS_NICE; `None` when its capabilities are not known.
    #[must_use]
    pub fn has_sys_nice(&self) -> Option<bool> {
        Some(self.capabilities? >> CAP_SYS_NICE & 1 == 1)
    }

    /// Whether it has CAP_IPC_LOCK.
    #[must_use]
    pub fn has_ipc_lock(&self) -> Option<bool> {
        Some(self.capabilities? >> CAP_IPC_LOCK & 1 == 1)
    }

    /// Whether CAP_SYS_NICE was given on purpose: it is there although not every capability is.
    #[must_use]
    pub fn was_given_sys_nice(&self) -> bool {
        // Bits 0..=40 exist since 5.9; CAP_SYS_ADMIN (21) is what nobody hands out by the way.
        self.has_sys_nice() == Some(true) && self.capabilities.is_some_and(|all| all >> 21 & 1 == 0)
    }
}

impl Thread {
    /// Whether it is of policy FIFO, RR or DEADLINE.
    #[must_use]
    pub fn is_realtime(&self) -> bool {
        matches!(self.policy.as_str(), "FIFO" | "RR" | "DEADLINE")
    }
}

/// What the `*`s of a pattern stand for in a path; `None` when it does not match.
pub(super) fn stars<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(found),
            (Some(wanted), Some(name)) => match wanted.split_once('*') {
                None if wanted == name => {}
                None => return None,
                Some((before, after)) => found.push(name.strip_prefix(before)?.strip_suffix(after)?),
            },
            _ => return None,
        }
    }
}
