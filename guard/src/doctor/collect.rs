//! Reads the [`Facts`] of a node. It opens files and changes nothing; without root it sees less, and says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::facts::{
    CgroupFacts, DmaLatency, FACTS_SCHEMA, Facts, HierarchyFacts, HookedProgram, KernelBuild, KernelThread,
    PartitionFacts, Process, Smi, Text, Thread,
};
use crate::{
    cgroup::{CgroupError, Hierarchy},
    inventory::{Inventory, ProcessDetail, ThreadDetail},
    snapshot::{Class, Container, CpuList},
};

/// Text files that the checks look at; `*` stands for a part of one path component.
const FILES: &[&str] = &[
    "/etc/conf.d/irqbalance",
    "/etc/containerd/conf.d/*.toml",
    "/etc/containerd/config.toml",
    "/etc/containers/containers.conf",
    "/etc/crio/crio.conf",
    "/etc/crio/crio.conf.d/*.conf",
    "/etc/default/irqbalance",
    "/etc/default/kubelet",
    "/etc/default/kubeletconfig.json",
    "/etc/docker/daemon.json",
    "/etc/irqbalance.env",
    "/etc/k0s/containerd.toml",
    "/etc/kubernetes/kubelet-config.yaml",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/kubelet.conf.d/*.conf",
    "/etc/kubernetes/kubelet.yaml",
    "/etc/kubernetes/kubelet/config.json",
    "/etc/kubernetes/kubelet/config.json.d/*.conf",
    "/etc/kubernetes/kubelet/kubelet-config.json",
    "/etc/openshift/kubelet.conf.d/*.conf",
    "/etc/os-release",
    "/etc/rancher/k3s/config.yaml",
    "/etc/rancher/rke2/config.yaml",
    "/etc/sysconfig/irqbalance",
    "/etc/sysconfig/kubelet",
    "/home/kubernetes/kubelet-config.yaml",
    "/proc/cmdline",
    "/proc/interrupts",
    "/proc/irq/*/effective_affinity_list",
    "/proc/irq/*/smp_affinity_list",
    "/proc/irq/default_smp_affinity",
    "/proc/swaps",
    "/proc/sys/kernel/bpf_stats_enabled",
    "/proc/sys/kernel/arch",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/nmi_watchdog",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/sched_rt_period_us",
    "/proc/sys/kernel/sched_rt_runtime_us",
    "/proc/sys/kernel/soft_watchdog",
    "/proc/sys/kernel/version",
    "/proc/sys/kernel/watchdog_cpumask",
    "/sys/class/net/*/queues/rx-*/rps_cpus",
    "/sys/devices/system/clocksource/clocksource0/available_clocksource",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_available_governors",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/cpu*/cpuidle/state*/disable",
    "/sys/devices/system/cpu/cpu*/cpuidle/state*/latency",
    "/sys/devices/system/cpu/cpu*/cpuidle/state*/name",
    "/sys/devices/system/cpu/cpu*/topology/thread_siblings_list",
    "/sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/devices/system/cpu/cpuidle/current_driver",
    "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "/sys/devices/system/cpu/isolated",
    "/sys/devices/system/cpu/nohz_full",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/smt/active",
    "/sys/devices/system/cpu/smt/control",
    "/sys/devices/system/node/online",
    "/sys/kernel/debug/sched/fair_server/cpu*/period",
    "/sys/kernel/debug/sched/fair_server/cpu*/runtime",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/realtime",
    "/usr/lib/irqbalance/defaults.env",
    "/usr/share/containers/containers.conf",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/*.conf",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d/*.conf",
    "/var/snap/microk8s/current/args/containerd.toml",
    "/var/snap/microk8s/current/args/kubelet",
];

/// Build options that the checks look at.
const OPTIONS: [&str; 6] =
    ["PREEMPT_RT", "RT_GROUP_SCHED", "RT_GROUP_SCHED_DEFAULT_DISABLED", "NO_HZ_FULL", "RCU_NOCB_CPU", "CFS_BANDWIDTH"];

/// Functions that show what a kernel does, which its version does not: distributions build and backport as they like.
const FUNCTIONS: [&str; 3] = ["sched_rt_period_timer", "fair_server_init", "sched_group_set_rt_runtime"];

/// Daemons that matter to a check. kubelet has other names where it is part of a larger program.
const DAEMONS: [&str; 9] =
    ["irqbalance", "dockerd", "containerd", "kubelet", "kubelite", "k3s-server", "k3s-agent", "crio", "tuned"];

/// Arguments of daemons that a check looks at. Facts are shown to others, and other arguments may be secrets.
const ARGUMENTS: [&str; 8] = [
    "--cgroup-driver",
    "--config",
    "--config-dir",
    "--cpu-cfs-quota",
    "--cpu-manager-policy",
    "--kubelet-arg",
    "--kubelet-args-file",
    "--reserved-cpus",
];

/// Beginning of the names of variables that a check looks at.
const VARIABLES: &str = "IRQBALANCE_";

/// Others that are kept of those that may run on isolated CPUs; with more of them these CPUs are hardly isolated.
const STRANGERS: usize = 64;

/// Fair threads that are kept of each process.
const FAIR_THREADS: usize = 16;
/// A longer file is no configuration.
const MAX_BYTES: u64 = 4 << 20;
/// MSR_SMI_COUNT, arch/x86/include/asm/msr-index.h; only Intel's processors have it.
const MSR_SMI_COUNT: u64 = 0x34;

/// Looks at the node below `root`, which is "/" except for a recorded directory tree or an agent that sees the node's
/// file system elsewhere.
#[must_use]
pub fn collect(root: &Path) -> Facts {
    let reader = Reader { root };
    let smi_before = reader.smi();
    let mut facts = Facts {
        schema: FACTS_SCHEMA,
        files: reader.files(),
        kernel: KernelBuild::default(),
        hierarchy: HierarchyFacts::default(),
        cgroups: BTreeMap::new(),
        processes: Vec::new(),
        kernel_threads: Vec::new(),
        dma_latency: DmaLatency { limit_us: reader.dma_latency(), holders: Vec::new() },
        smi: Smi::Unknown(String::new()),
        hooked: None,
        unknown: Vec::new(),
    };
    facts.kernel = reader.kernel(facts.text("/proc/sys/kernel/osrelease"));
    match Hierarchy::detect(root) {
        Ok(hierarchy) => look_at_tasks(root, &hierarchy, &mut facts),
        Err(error) => {
            facts.hierarchy.error = Some(reader.without_root(&error.to_string()));
            facts.unknown.push(format!("processes and cgroups: {error}"));
        }
    }
    reader.files_of_kubelet(&mut facts);
    facts.smi = match (smi_before, reader.smi()) {
        (Ok(first), Ok(last)) => Smi::Counted { first, last },
        (Err(reason), _) | (_, Err(reason)) => Smi::Unknown(reason),
    };
    facts
}

struct Reader<'a> {
    root: &'a Path,
}

impl Reader<'_> {
    fn real(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A message as it would read if the node's root were ours.
    fn without_root(&self, text: &str) -> String {
        match self.root.to_str().map(|root| root.trim_end_matches('/')) {
            Some(root) if !root.is_empty() => text.replace(root, ""),
            _ => text.to_owned(),
        }
    }

    fn files(&self) -> BTreeMap<String, Text> {
        let mut files = BTreeMap::new();
        for pattern in FILES {
            if pattern.contains('*') {
                self.add_matching(pattern, &mut files);
            } else {
                files.insert((*pattern).to_owned(), self.text(pattern));
            }
        }
        for (path, text) in &mut files {
            without_secrets(path, text);
        }
        // Without a file of its own a directory that may not be entered looks like one that is not there.
        let fair_server = "/sys/kernel/debug/sched/fair_server";
        if let Err(error) = fs::read_dir(self.real(fair_server)) {
            files.insert(fair_server.to_owned(), text_of_error(&error));
        }
        files
    }

    fn add_matching(&self, pattern: &str, files: &mut BTreeMap<String, Text>) {
        for path in self.expand(pattern) {
            let text = self.text(&path);
            // A cpuidle state, a queue or an interrupt may go meanwhile.
            if text != Text::Absent {
                files.insert(path, text);
            }
        }
    }

    /// The files that running kubelets were told to read. Anybody may call a process kubelet and name any file, so of them
    /// only what is a kubelet's is kept.
    fn files_of_kubelet(&self, facts: &mut Facts) {
        let named = |arguments: &[String], name: &str| -> Vec<String> {
            let values = arguments.iter().filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
            values.filter(|path| path.starts_with('/')).map(str::to_owned).collect()
        };
        let mut arguments: Vec<String> =
            facts.processes.iter().flat_map(|one| one.arguments.clone()).flatten().collect();
        for path in named(&arguments, "--kubelet-args-file") {
            let mut text = self.text(&path);
            if let Text::Is(inner) = &mut text {
                let wanted = wanted_arguments(inner.split_whitespace().map(str::to_owned));
                *inner = wanted.join("\n");
                arguments.extend(wanted);
            }
            facts.files.insert(path, text);
        }
        let mut paths = named(&arguments, "--config");
        for dir in named(&arguments, "--config-dir") {
            paths.extend(self.expand(&format!("{}/*.conf", dir.trim_end_matches('/'))));
        }
        for path in paths {
            let text = match self.text(&path) {
                Text::Is(text) if !text.contains("KubeletConfiguration") => {
                    Text::Unreadable { error: "it is no KubeletConfiguration".to_owned() }
                }
                text => text,
            };
            facts.files.insert(path, text);
        }
    }

    /// Paths that match a pattern.
    fn expand(&self, pattern: &str) -> Vec<String> {
        let mut paths = vec![String::new()];
        for component in pattern.split('/').skip(1) {
            let Some((before, after)) = component.split_once('*') else {
                paths.iter_mut().for_each(|path| *path = format!("{path}/{component}"));
                continue;
            };
            paths = paths
                .into_iter()
                .flat_map(|path| {
                    let names = fs::read_dir(self.real(&path)).into_iter().flatten().flatten();
                    names
                        .filter_map(|entry| entry.file_name().into_string().ok())
                        .filter(|name| name.starts_with(before) && name.ends_with(after))
                        .map(|name| format!("{path}/{name}"))
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        paths
    }

    fn text(&self, path: &str) -> Text {
        let read = || {
            let mut bytes = Vec::new();
            File::open(self.real(path))?.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok(decoded(&bytes).trim_end().to_owned())
        };
        match read() {
            Ok(text) => Text::Is(text),
            Err(error) => text_of_error(&error),
        }
    }

    fn kernel(&self, release: Option<&str>) -> KernelBuild {
        let (config_source, options) = match self.config(release) {
            Some((source, text)) => (Some(source), options(&text)),
            None => (None, BTreeMap::new()),
        };
        KernelBuild { config_source, options, functions: self.functions() }
    }

    /// The kernel's configuration and the file that it stands in.
    fn config(&self, release: Option<&str>) -> Option<(String, String)> {
        let packed = "/proc/config.gz";
        if let Ok(file) = File::open(self.real(packed)) {
            let mut text = String::new();
            if flate2::read::GzDecoder::new(file).take(MAX_BYTES).read_to_string(&mut text).is_ok() {
                return Some((packed.to_owned(), text));
            }
        }
        let release = release?;
        [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")]
            .into_iter()
            .find_map(|path| Some((fs::read_to_string(self.real(&path)).ok()?, path)))
            .map(|(text, path)| (path, text))
    }

    fn functions(&self) -> BTreeMap<String, bool> {
        // Addresses are hidden from most readers; names are not.
        let Ok(symbols) = fs::read_to_string(self.real("/proc/kallsyms")) else { return BTreeMap::new() };
        let names: BTreeSet<&str> = symbols
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(2))
            // The compiler's copies: "sched_rt_period_timer.cold".
            .map(|name| name.split('.').next().unwrap_or(name))
            .filter(|name| FUNCTIONS.contains(name) || *name == "schedule")
            .collect();
        // A list without the scheduler is not the kernel's.
        if !names.contains("schedule") {
            return BTreeMap::new();
        }
        FUNCTIONS.iter().map(|name| ((*name).to_owned(), names.contains(name))).collect()
    }

    /// The strictest request for wake-up latency. Opening the file for reading adds a request that asks for nothing.
    fn dma_latency(&self) -> Result<i32, String> {
        let path = "/dev/cpu_dma_latency";
        let mut bytes = [0; 4];
        let read = File::open(self.real(path)).and_then(|mut file| file.read_exact(&mut bytes));
        read.map(|()| i32::from_ne_bytes(bytes)).map_err(|error| format!("{path}: {error}"))
    }

    fn smi(&self) -> Result<u64, String> {
        let path = "/dev/cpu/0/msr";
        let mut bytes = [0; 8];
        let read = File::open(self.real(path)).and_then(|file| file.read_exact_at(&mut bytes, MSR_SMI_COUNT));
        read.map(|()| u64::from_ne_bytes(bytes)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no {path}: load it with modprobe msr"),
            _ if error.raw_os_error() == Some(libc::EIO) => "this processor has no counter of them".to_owned(),
            _ => format!("{path}: {error}"),
        })
    }
}

fn text_of_error(error: &io::Error) -> Text {
    match error.kind() {
        io::ErrorKind::NotFound => Text::Absent,
        // /proc/irq of an interrupt whose controller has no affinity, sysfs of a driver that is going.
        _ => Text::Unreadable { error: error.to_string() },
    }
}

/// The text of a file. Editors of Windows write UTF-16 and say so by a byte order mark, and dockerd reads that.
fn decoded(bytes: &[u8]) -> String {
    let units = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> String {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Takes out of a file what is nobody's business: kubeadm keeps keys under a name under which others keep kubelet's
/// configuration, and that of k3s and RKE2 has the cluster's token beside kubelet's arguments.
fn without_secrets(path: &str, text: &mut Text) {
    let Text::Is(inner) = text else { return };
    if path == "/etc/kubernetes/kubelet.conf" && !inner.contains("KubeletConfiguration") {
        *text = Text::Absent;
    } else if path.starts_with("/etc/rancher/") {
        let mut in_list = false;
        let kept = inner.lines().filter(|line| {
            let is_item = line.trim_start().starts_with('-');
            in_list = if is_item { in_list } else { line.contains("kubelet-arg") };
            in_list
        });
        *inner = kept.collect::<Vec<_>>().join("\n");
    }
}

/// Those of [`ARGUMENTS`] among a daemon's arguments, each as "--name=value".
fn wanted_arguments(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut arguments = arguments.peekable();
    let mut wanted = Vec::new();
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if !ARGUMENTS.contains(&name) {
            continue;
        }
        let has_value = argument.len() > name.len();
        let value = (!has_value).then(|| arguments.next_if(|next| !next.starts_with('-'))).flatten();
        wanted.push(value.map_or_else(|| argument.clone(), |value| format!("{argument}={value}")));
    }
    wanted
}

/// The options of [`OPTIONS`] in a kernel configuration.
fn options(config: &str) -> BTreeMap<String, String> {
    config
        .lines()
        .filter_map(|line| match line.strip_prefix("# CONFIG_") {
            Some(unset) => Some((unset.strip_suffix(" is not set")?, "n")),
            None => line.strip_prefix("CONFIG_")?.split_once('='),
        })
        .filter(|(name, _)| OPTIONS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn look_at_tasks(root: &Path, hierarchy: &Hierarchy, facts: &mut Facts) {
    let reader = Reader { root };
    facts.hierarchy = HierarchyFacts {
        layout: hierarchy.layout(),
        mount: Some(reader.without_root(&hierarchy.mount_point().display().to_string())),
        error: None,
        quotas: 0,
        partitions: Vec::new(),
    };
    let mut inventory = Inventory::new(root, hierarchy.clone(), Vec::new());
    if let Err(error) = inventory.scan_threads() {
        facts.unknown.push(format!("threads: {}", reader.without_root(&error.to_string())));
        return;
    }
    facts.hierarchy.quotas =
        inventory.cgroups().filter(|cgroup| matches!(hierarchy.quota(&cgroup.path), Ok(Some(_)))).count();
    facts.hierarchy.partitions = partitions(&reader, hierarchy, &inventory);
    facts.dma_latency.holders = inventory.holders_of("/dev/cpu_dma_latency");
    facts.hooked = hooked(&inventory);
    facts.kernel_threads = kernel_threads(&inventory);
    facts.processes = processes(&inventory, &facts.isolated());
    let paths: BTreeSet<&str> = facts.processes.iter().filter_map(|process| process.cgroup.as_deref()).collect();
    let mut wanted: BTreeSet<&str> = BTreeSet::from(["/"]);
    for path in paths {
        wanted.extend(path.match_indices('/').skip(1).map(|(end, _)| &path[..end]));
        wanted.insert(path);
    }
    // On v1 whoever has real-time time takes it from the others.
    let has_rt_time = |path: &str| matches!(hierarchy.rt_runtime_us(path), Ok(Some(1..)));
    wanted.extend(inventory.cgroups().map(|cgroup| cgroup.path.as_str()).filter(|path| has_rt_time(path)));
    for path in wanted {
        match hierarchy.dir(path) {
            Ok(dir) if dir.is_dir() => {
                let container = inventory.cgroup_by_path(path).and_then(|cgroup| cgroup.container.clone());
                let dir = reader.without_root(dir.display().to_string().trim_end_matches('/'));
                facts.cgroups.insert(path.to_owned(), cgroup(hierarchy, path, dir, container));
            }
            Ok(_) => {}
            Err(error) => facts.unknown.push(reader.without_root(&error.to_string())),
        }
    }
}

fn cgroup(hierarchy: &Hierarchy, path: &str, dir: String, container: Option<Container>) -> CgroupFacts {
    let mut facts = CgroupFacts { dir, container, ..CgroupFacts::default() };
    let mut errors = Vec::new();
    facts.quota = value_or_error(hierarchy.quota(path), &mut errors);
    facts.nr_throttled = value_or_error(hierarchy.cpu_stat(path), &mut errors).map(|stat| stat.nr_throttled);
    facts.controllers = value_or_error(hierarchy.controllers(path), &mut errors);
    facts.subtree_control = value_or_error(hierarchy.subtree_control(path), &mut errors);
    facts.rt_runtime_us = value_or_error(hierarchy.rt_runtime_us(path), &mut errors);
    facts.errors = errors;
    facts
}

fn value_or_error<T>(read: Result<Option<T>, CgroupError>, errors: &mut Vec<String>) -> Option<T> {
    read.unwrap_or_else(|error| {
        // A cgroup that went meanwhile is no fault of the node.
        if !error.is_vanished() {
            errors.push(error.to_string());
        }
        None
    })
}

/// Programs on tracepoints of the scheduler, by what /proc says of their links and of the programs themselves. A guard that
/// runs beside this one is no other.
fn hooked(inventory: &Inventory) -> Option<Vec<HookedProgram>> {
    let (link, program) = ("anon_inode:bpf_link", "anon_inode:bpf-prog");
    let descriptors = inventory.descriptors(&[link, program])?;
    let field = |info: &str, key: &str| -> Option<String> {
        info.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
    };
    let number = |info: &str, key: &str| field(info, key).and_then(|text| text.parse::<u64>().ok());
    let mut found = Vec::new();
    for (holder, _, info) in descriptors.iter().filter(|(_, kind, _)| kind == link) {
        let (Some(hook), Some(id)) = (field(info, "tp_name"), number(info, "prog_id")) else { continue };
        if !hook.starts_with("sched_") || holder.starts_with("guard[") {
            continue;
        }
        let itself = descriptors.iter().find(|(_, kind, info)| kind == program && number(info, "prog_id") == Some(id));
        let count = |key: &str| itself.and_then(|(_, _, info)| number(info, key)).unwrap_or(0);
        let (run_time_ns, runs) = (count("run_time_ns"), count("run_cnt"));
        found.push(HookedProgram { holder: holder.clone(), hook, program: id, run_time_ns, runs });
    }
    found.sort_by_key(|one| (one.program, one.holder.clone()));
    found.dedup_by_key(|one| one.program);
    Some(found)
}

/// The cpuset partitions, and what the root says of all isolated ones.
fn partitions(reader: &Reader<'_>, hierarchy: &Hierarchy, inventory: &Inventory) -> Vec<PartitionFacts> {
    let file = |path: &str, name: &str| {
        let dir = hierarchy.dir(path).map(|dir| dir.join(name).display().to_string()).unwrap_or_default();
        reader.without_root(&dir)
    };
    let isolated = hierarchy.isolated().ok().flatten().filter(|cpus| !cpus.is_empty());
    let mut found: Vec<PartitionFacts> = isolated
        .map(|cpus| PartitionFacts { file: file("/", "cpuset.cpus.isolated"), value: cpus.to_string(), cpus })
        .into_iter()
        .collect();
    for cgroup in inventory.cgroups().filter(|cgroup| cgroup.path != "/") {
        let Ok(Some(value)) = hierarchy.partition(&cgroup.path) else { continue };
        if matches!(value.as_str(), "isolated" | "root")
            && let Ok(Some(cpuset)) = hierarchy.cpuset(&cgroup.path)
        {
            let file = file(&cgroup.path, "cpuset.cpus.partition");
            found.push(PartitionFacts { file, value, cpus: cpuset.effective });
        }
    }
    found
}

fn kernel_threads(inventory: &Inventory) -> Vec<KernelThread> {
    let of_kernel = inventory.rt_threads().iter().filter(|thread| thread.kernel);
    of_kernel
        .map(|thread| KernelThread {
            tid: thread.tid,
            comm: thread.comm.clone(),
            policy: thread.policy.name().to_owned(),
            priority: thread.rt_priority,
        })
        .collect()
}

fn processes(inventory: &Inventory, isolated: &CpuList) -> Vec<Process> {
    let realtime: BTreeSet<u32> = inventory.rt_threads().iter().map(|thread| thread.tgid).collect();
    let own = std::process::id();
    let mut kept = Vec::new();
    let mut strangers = 0;
    for detail in inventory.processes() {
        let cgroup = detail.cgroup.as_deref().and_then(|path| inventory.cgroup_by_path(path));
        let container = cgroup.and_then(|cgroup| cgroup.container.clone());
        let in_container = container.as_ref().is_some_and(|container| container.runtime != "systemd");
        let may = detail.rtprio_limit.is_some_and(|limit| limit > 0);
        let daemon = DAEMONS.contains(&detail.comm.as_str());
        let of_interest = realtime.contains(&detail.pid) || may || in_container || daemon;
        if detail.pid == own {
            continue;
        }
        if !of_interest {
            let may_run_there = || {
                let thread = inventory.thread(detail.pid);
                thread.is_some_and(|thread| thread.affinity.iter().any(|cpu| isolated.contains(cpu)))
            };
            if strangers == STRANGERS || isolated.is_empty() || !may_run_there() {
                continue;
            }
            strangers += 1;
        }
        let class = cgroup.map(|cgroup| cgroup.class).unwrap_or_default();
        kept.push(process(inventory, detail, class, container));
    }
    kept
}

fn process(inventory: &Inventory, detail: ProcessDetail, class: Class, container: Option<Container>) -> Process {
    let mut fair_threads = 0;
    let threads: Vec<Thread> = inventory
        .threads_of(detail.pid)
        .into_iter()
        .filter(|thread| {
            fair_threads += usize::from(!thread.thread.policy.is_realtime());
            thread.thread.policy.is_realtime() || fair_threads <= FAIR_THREADS
        })
        .map(|thread| self::thread(inventory, &thread))
        .collect();
    let timers = inventory.timers_of(detail.pid);
    let daemon = DAEMONS.contains(&detail.comm.as_str());
    let arguments = daemon.then(|| inventory.arguments_of(detail.pid)).flatten();
    let environment = daemon.then(|| inventory.environment_of(detail.pid)).flatten();
    Process {
        pid: detail.pid,
        comm: detail.comm,
        cgroup: detail.cgroup,
        class,
        container,
        capabilities: detail.capabilities,
        rtprio_limit: detail.rtprio_limit,
        memlock_limit: detail.memlock_limit,
        locked_bytes: detail.locked_bytes,
        timerfds: timers.timerfds,
        posix_timers: timers.posix,
        threads,
        fair_threads,
        arguments: arguments.map(|all| wanted_arguments(all.into_iter())),
        environment: environment.map(|all| all.into_iter().filter(|(name, _)| name.starts_with(VARIABLES)).collect()),
    }
}

fn thread(inventory: &Inventory, detail: &ThreadDetail) -> Thread {
    let thread = &detail.thread;
    Thread {
        tid: thread.tid,
        comm: thread.comm.clone(),
        policy: thread.policy.name().to_owned(),
        priority: thread.rt_priority,
        affinity: detail.affinity.clone(),
        timer_slack_ns: inventory.timer_slack_ns(thread.tid),
    }
}
