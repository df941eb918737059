//! Doctor on recorded nodes. `guard/tests/nodes/` holds what `guard doctor --facts` printed on real kernels; its README
//! says how each was set up. The table of single faults changes one thing at a time of the node that is well set up.

use std::collections::BTreeSet;

use super::{
    facts::{CgroupFacts, DmaLatency, HierarchyFacts, KernelThread, Smi},
    interrupts::{from_mask, to_mask},
    *,
};
use crate::snapshot::{Class, Container, Quota};

macro_rules! node {
    ($name:literal) => {
        serde_json::from_str::<Facts>(include_str!(concat!("../../tests/nodes/", $name, ".json"))).unwrap()
    };
}

fn good() -> Facts {
    node!("rt-6.12-good")
}

/// Ids of what must be acted on.
fn to_act_on(facts: &Facts) -> BTreeSet<String> {
    let report = examine(facts);
    report.findings.into_iter().filter(|finding| finding.severity.must_act()).map(|finding| finding.id).collect()
}

fn set(facts: &mut Facts, path: &str, text: &str) {
    facts.files.insert(path.to_owned(), Text::Is(text.to_owned()));
}

#[track_caller]
fn expect(facts: &Facts, ids: &[&str]) {
    let expected: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(to_act_on(facts), expected);
}

#[test]
fn a_node_that_is_well_set_up_needs_nothing() {
    expect(&good(), &[]);
    assert_eq!(good().rt_cpus().to_string(), "2-3");
    assert_eq!(good().workload().count(), 1);
}

#[test]
fn isolcpus_alone_leaves_interrupts_callbacks_and_watchdog() {
    expect(
        &node!("rt-6.12-isolcpus-only"),
        &[
            "cgroup.quota",
            "cpu.isolation_agrees",
            "irq.affinity",
            "irq.default_affinity",
            "kernel.known_faults",
            "kernel.soft_watchdog",
            "task.memory_locked",
            "task.soft_timers",
        ],
    );
}

#[test]
fn a_container_that_may_be_fifo_and_is_not_is_found() {
    let facts = node!("rt-6.12-podman");
    expect(&facts, &["task.policy", "task.timer_slack"]);
    let report = examine(&facts);
    let policy = report.findings.iter().find(|finding| finding.id == "task.policy").unwrap();
    assert!(policy.title.contains("plc-soft") && !policy.title.contains("logger"), "{}", policy.title);
    let rights = report.findings.iter().find(|finding| finding.id == "runtime.rights").unwrap();
    assert!(rights.evidence[0].value.contains("logger"), "{:?}", rights.evidence);
    assert!(rights.remedy.as_ref().unwrap().by_hand[0].change.contains("podman run --cap-add=SYS_NICE"));
}

#[test]
fn a_node_spoilt_at_run_time_on_6_1() {
    expect(
        &node!("rt-6.1-spoilt"),
        &[
            "cpu.clocksource",
            "cpu.isolation",
            "irq.affinity",
            "irq.default_affinity",
            "kernel.rt_throttling",
            "kernel.soft_watchdog",
            "kthread.ksoftirqd",
            "kthread.rcuc",
            "memory.ksm",
            "net.rps",
            "task.memory_locked",
            "task.priority",
            "task.soft_timers",
        ],
    );
}

#[test]
fn advice_that_does_nothing_is_reported() {
    let facts = node!("rt-6.12-bad-advice");
    expect(&facts, &["kernel.boot_options", "runtime.containerd", "runtime.docker"]);
    let report = examine(&facts);
    let titles: Vec<&str> =
        report.findings.iter().filter(|f| f.severity.must_act()).map(|f| f.title.as_str()).collect();
    for part in [
        "isolcpus=managed_irq,quiet,nohz,domain names no CPUs",
        "no option sched_uclamp",
        "cgroup v1 has the same CPU quotas",
        "no feature cgroupv2",
        "must name a slice",
        "cpu-rt-runtime needs cgroup v1",
        "io.containerd.runtime.v1.linux",
    ] {
        assert!(titles.iter().any(|title| title.contains(part)), "{part}: {titles:#?}");
    }
}

#[test]
fn a_kernel_without_preempt_rt_is_critical_and_the_rest_of_it_is_not_invented() {
    let facts = node!("6.18-hybrid");
    expect(&facts, &["kernel.preempt_rt"]);
    let report = examine(&facts);
    // Locked down: debugfs is there and may not be read.
    assert!(report.findings.iter().any(|f| f.id == "kernel.fair_server" && f.severity == Severity::Unknown));
}

/// Makes one thing worse.
type Spoil = fn(&mut Facts);

#[test]
fn one_fault_makes_one_finding() {
    const CPU: &str = "/sys/devices/system/cpu";
    let faults: &[(&str, Spoil)] = &[
        ("cpu.governor", |f| set(f, &format!("{CPU}/cpu3/cpufreq/scaling_governor"), "powersave")),
        ("cpu.idle", |f| {
            set(f, &format!("{CPU}/cpu2/cpuidle/state3/latency"), "133");
            set(f, &format!("{CPU}/cpu2/cpuidle/state3/disable"), "0");
            f.dma_latency = DmaLatency { limit_us: Ok(2_000_000_000), holders: Vec::new() };
        }),
        ("cpu.smt", |f| {
            set(f, &format!("{CPU}/cpu3/topology/thread_siblings_list"), "1,3");
            set(f, &format!("{CPU}/smt/control"), "on");
        }),
        ("cpu.clocksource", |f| {
            set(f, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
        }),
        ("cpu.smi", |f| f.smi = Smi::Counted { first: 40, last: 41 }),
        ("memory.thp", |f| set(f, "/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")),
        ("memory.ksm", |f| set(f, "/sys/kernel/mm/ksm/run", "1")),
        ("memory.numa_balancing", |f| {
            set(f, "/proc/sys/kernel/numa_balancing", "1");
            set(f, "/sys/devices/system/node/online", "0-1");
        }),
        ("kernel.nmi_watchdog", |f| {
            set(f, "/proc/sys/kernel/nmi_watchdog", "1");
            set(f, "/proc/sys/kernel/soft_watchdog", "0");
            set(f, "/proc/sys/kernel/watchdog_cpumask", "0-3");
        }),
        ("kernel.soft_watchdog", |f| set(f, "/proc/sys/kernel/watchdog_cpumask", "0-3")),
        ("irq.default_affinity", |f| set(f, "/proc/irq/default_smp_affinity", "f")),
        ("net.rps", |f| set(f, "/sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,0000000c")),
        ("kernel.fair_server", |f| set(f, "/sys/kernel/debug/sched/fair_server/cpu1/runtime", "0")),
        ("kernel.rt_groups", |f| {
            f.kernel.options.insert("RT_GROUP_SCHED".to_owned(), "y".to_owned());
        }),
        ("kernel.rt_throttling", |f| {
            f.kernel.functions.insert("sched_rt_period_timer".to_owned(), true);
            set(f, "/proc/sys/kernel/sched_rt_runtime_us", "-1");
        }),
        ("kernel.boot_options", |f| {
            let old = f.text("/proc/cmdline").unwrap().to_owned();
            set(f, "/proc/cmdline", &format!("{old} rcu_nocbs=2-9 rcu_nocbs=2-3"));
        }),
        ("cpu.isolation_agrees", |f| set(f, &format!("{CPU}/isolated"), "3")),
        ("task.memory_locked", |f| f.processes[0].locked_bytes = Some(0)),
        ("task.soft_timers", |f| f.processes[0].timerfds = Some(1)),
        ("task.affinity", |f| realtime_thread(f).affinity = "0-3".parse().unwrap()),
        ("task.priority", |f| realtime_thread(f).priority = 99),
        ("kthread.ksoftirqd", |f| kernel_thread(f, "ksoftirqd/3", 85)),
        ("kthread.rcuc", |f| {
            f.kernel_threads.retain(|thread| thread.comm != "rcuc/3");
            kernel_thread(f, "rcuc/3", 90);
        }),
        ("kthread.ktimers", |f| {
            f.kernel_threads.retain(|thread| thread.comm != "ktimers/3");
            kernel_thread(f, "ktimers/3", 90);
        }),
        ("cgroup.quota", |f| {
            f.cgroups.get_mut("/plc").unwrap().quota = Some(Quota { quota_us: 20_000, period_us: 100_000 });
        }),
        ("runtime.docker", |f| set(f, "/etc/docker/daemon.json", r#"{"realtime": true}"#)),
        ("runtime.docker", |f| set(f, "/etc/docker/daemon.json", r#"{"exec-opts": ["native.cgroupdriver=v2"]}"#)),
        ("runtime.docker", |f| set(f, "/etc/docker/daemon.json", "{")),
        ("runtime.podman", |f| {
            set(f, "/etc/containers/containers.conf", "[engine]\ncgroup_manager = \"cgroupfs2\"\n");
        }),
        ("runtime.containerd", |f| {
            set(f, "/etc/containerd/config.toml", &containerd(3, "io.containerd.grpc.v1.cri", "SystemdCgroup = true"));
        }),
        ("runtime.containerd", |f| {
            set(f, "/etc/containerd/config.toml", &containerd(2, "io.containerd.grpc.v1.cri", "RealtimePriority = 99"));
        }),
        ("runtime.containerd", |f| {
            set(
                f,
                "/etc/containerd/config.toml",
                &containerd(2, "io.containerd.cri.v1.runtime", "SystemdCgroup = true"),
            );
        }),
        ("runtime.kubelet", |f| {
            set(f, "/var/lib/kubelet/config.yaml", "cgroupDriver: systemd # default\ncpuManagerPolicy: static\n");
            set(f, "/etc/containerd/config.toml", &containerd(2, "io.containerd.grpc.v1.cri", "SystemdCgroup = false"));
        }),
    ];
    for (id, spoil) in faults {
        let mut facts = good();
        spoil(&mut facts);
        let mut expected = BTreeSet::from([(*id).to_owned()]);
        if *id == "cgroup.quota" {
            // The quota itself is known to the fault of this version only by their number.
            facts.hierarchy.quotas = 1;
            expected.insert("kernel.known_faults".to_owned());
        }
        assert_eq!(to_act_on(&facts), expected, "{id}");
        let report = examine(&facts);
        let finding = report.findings.iter().find(|finding| finding.id == *id && finding.severity.must_act()).unwrap();
        assert!(!finding.evidence.is_empty() && finding.remedy.is_some(), "{id}: {finding:?}");
    }
}

fn containerd(version: u32, plugin: &str, option: &str) -> String {
    format!(
        "version = {version}\n[plugins.\"{plugin}\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"{plugin}\".containerd.runtimes.runc.options]\n{option}\n"
    )
}

fn realtime_thread(facts: &mut Facts) -> &mut facts::Thread {
    facts.processes[0].threads.iter_mut().find(|thread| thread.is_realtime()).unwrap()
}

fn kernel_thread(facts: &mut Facts, comm: &str, priority: u32) {
    facts.kernel_threads.push(KernelThread { tid: 9999, comm: comm.to_owned(), policy: "FIFO".to_owned(), priority });
}

#[test]
fn good_configurations_of_runtimes_bring_no_complaint() {
    for (path, text) in [
        ("/etc/docker/daemon.json", r#"{"exec-opts": ["native.cgroupdriver=systemd"], "cgroup-parent": "plc.slice"}"#),
        (
            "/etc/docker/daemon.json",
            r#"{"features": {"containerd-snapshotter": true}, "default-ulimits": {"rtprio": {"Name": "rtprio", "Hard": 99, "Soft": 99}}}"#,
        ),
        ("/etc/docker/daemon.json", ""),
        ("/etc/containerd/config.toml", &containerd(3, "io.containerd.cri.v1.runtime", "SystemdCgroup = true")),
        ("/etc/containerd/config.toml", &containerd(2, "io.containerd.grpc.v1.cri", "SystemdCgroup = true")),
        ("/etc/containers/containers.conf", "[engine]\ncgroup_manager = \"systemd\"\n"),
    ] {
        let mut facts = good();
        set(&mut facts, path, text);
        assert_eq!(to_act_on(&facts), BTreeSet::new(), "{text}");
    }
}

#[test]
fn what_holds_the_processor_awake_counts() {
    let mut facts = good();
    set(&mut facts, "/sys/devices/system/cpu/cpu2/cpuidle/state3/latency", "133");
    facts.dma_latency = DmaLatency { limit_us: Ok(0), holders: vec!["cyclictest[7]".to_owned()] };
    expect(&facts, &[]);
    facts.dma_latency = DmaLatency { limit_us: Err("Permission denied".to_owned()), holders: Vec::new() };
    expect(&facts, &[]);
    let report = examine(&facts);
    assert!(report.findings.iter().any(|f| f.id == "cpu.idle" && f.severity == Severity::Unknown));
    set(&mut facts, "/sys/devices/system/cpu/cpu2/power/pm_qos_resume_latency_us", "n/a");
    let report = examine(&facts);
    assert!(report.findings.iter().any(|f| f.id == "cpu.idle" && f.severity == Severity::Ok));
}

#[test]
fn irqbalance_keeps_off_isolated_cpus_by_itself() {
    let mut facts = good();
    let mut daemon = facts.processes[0].clone();
    daemon.comm = "irqbalance".to_owned();
    daemon.class = Class::System;
    daemon.threads.clear();
    facts.processes.push(daemon);
    expect(&facts, &[]);
    for list in ["isolated", "nohz_full"] {
        set(&mut facts, &format!("/sys/devices/system/cpu/{list}"), "");
    }
    // Now only the thread's own pinning to CPU 3 shows it.
    assert!(to_act_on(&facts).contains("irq.irqbalance"));
    set(&mut facts, "/etc/default/irqbalance", "IRQBALANCE_BANNED_CPULIST=\"3\"");
    assert!(!to_act_on(&facts).contains("irq.irqbalance"));
}

#[test]
fn rt_groups_on_v1_are_given_time_from_the_top_down() {
    let mut facts = node!("6.18-hybrid");
    let base = good().processes.swap_remove(0);
    facts.hierarchy = HierarchyFacts { layout: CgroupLayout::V1, ..facts.hierarchy };
    for path in ["/docker", "/docker/a", "/docker/b"] {
        let cgroup =
            CgroupFacts { dir: format!("/sys/fs/cgroup/cpu{path}"), rt_runtime_us: Some(0), ..CgroupFacts::default() };
        facts.cgroups.insert(path.to_owned(), cgroup);
    }
    for (pid, path) in [(1, "/docker/a"), (2, "/docker/b")] {
        let container = Container { runtime: "docker".to_owned(), id: path.to_owned(), ..Container::default() };
        let mut process = base.clone();
        process.pid = pid;
        process.cgroup = Some(path.to_owned());
        process.container = Some(container);
        process.rtprio_limit = Some(99);
        process.threads.clear();
        facts.processes.push(process);
    }
    let report = examine(&facts);
    let groups: Vec<&Finding> = report.findings.iter().filter(|finding| finding.id == "kernel.rt_groups").collect();
    assert_eq!(groups.len(), 2);
    let commands: Vec<&str> =
        groups[0].remedy.as_ref().unwrap().commands.iter().map(|step| step.change.as_str()).collect();
    // A third of the root's time each, so the parent needs two thirds.
    assert_eq!(
        commands,
        [
            "echo 633332 > /sys/fs/cgroup/cpu/docker/cpu.rt_runtime_us",
            "echo 316666 > /sys/fs/cgroup/cpu/docker/a/cpu.rt_runtime_us"
        ]
    );
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_fine() {
    let empty = collect(tempfile::tempdir().unwrap().path());
    let report = examine(&empty);
    let severity = |id: &str| report.findings.iter().find(|finding| finding.id == id).unwrap().severity;
    for id in [
        "kernel.preempt_rt",
        "kernel.rt_throttling",
        "kernel.fair_server",
        "kernel.rt_groups",
        "kernel.boot_options",
        "kernel.known_faults",
        "cgroup.quota",
        "cgroup.layout",
        "cpu.clocksource",
        "cpu.smi",
        "memory.swap",
    ] {
        assert_eq!(severity(id), Severity::Unknown, "{id}");
    }
    assert!(!report.must_act());
}

#[test]
fn a_directory_tree_is_read_as_a_node() {
    let root = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    // A v2 node of two CPUs with a FIFO thread pinned to CPU 1 below a slice with a quota.
    write("proc/self/mountinfo", "32 26 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu\n");
    write("sys/fs/cgroup/cgroup.subtree_control", "cpu\n");
    write("sys/fs/cgroup/plant.slice/cpu.max", "50000 100000\n");
    write("sys/fs/cgroup/plant.slice/plc.scope/cgroup.procs", "208\n");
    write("sys/devices/system/cpu/online", "0-1\n");
    write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "schedutil\n");
    write("proc/sys/kernel/version", "#1 SMP PREEMPT_RT Debian 6.1.0\n");
    write("boot/config-6.1.0", "CONFIG_PREEMPT_RT=y\n# CONFIG_RT_GROUP_SCHED is not set\nCONFIG_HZ=250\n");
    write("proc/sys/kernel/osrelease", "6.1.0\n");
    write("proc/kallsyms", "0 T schedule\n0 t sched_rt_period_timer.cold\n");
    let stat = "208 (plc) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 -51 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 50 1 0\n";
    let status = "Name:\tplc\nTgid:\t208\nPid:\t208\nNSpid:\t208\nVmLck:\t0 kB\nCapEff:\t0\nCpus_allowed_list:\t1\n";
    for dir in ["proc/208", "proc/208/task/208"] {
        write(&format!("{dir}/stat"), stat);
        write(&format!("{dir}/status"), status);
        write(&format!("{dir}/cgroup"), "0::/plant.slice/plc.scope\n");
    }
    let facts = collect(root.path());
    assert_eq!(facts.rt_cpus().to_string(), "1");
    assert_eq!(facts.kernel.config_source.as_deref(), Some("/boot/config-6.1.0"));
    assert_eq!(facts.rations_rt_groups(), Some(false));
    assert_eq!(facts.has_function("sched_rt_period_timer"), Some(true));
    let back: Facts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
    assert_eq!(back, facts);
    let report = examine(&facts);
    let quota = report.findings.iter().find(|finding| finding.id == "cgroup.quota").unwrap();
    assert_eq!(quota.severity, Severity::Critical);
    let step = &quota.remedy.as_ref().unwrap().commands[0];
    assert_eq!(step.change, "echo 'max 100000' > /sys/fs/cgroup/plant.slice/cpu.max");
    assert_eq!(step.undo, "echo '50000 100000' > /sys/fs/cgroup/plant.slice/cpu.max");
    let acted = to_act_on(&facts);
    for id in ["cpu.governor", "task.memory_locked", "cpu.isolation"] {
        assert!(acted.contains(id), "{id}: {acted:?}");
    }
    let root_dir = root.path().to_str().unwrap();
    assert!(
        !serde_json::to_string(&facts).unwrap().contains(root_dir),
        "the facts name the directory they were read at"
    );
}

#[test]
fn masks_are_read_and_written_as_the_kernel_does() {
    for (mask, list) in [("f", "0-3"), ("00000001,00000000", "32"), ("3", "0-1"), ("80000000,00000001", "0,63")] {
        let cpus: CpuList = list.parse().unwrap();
        assert_eq!(from_mask(mask), Some(cpus.clone()), "{mask}");
        assert_eq!(from_mask(&to_mask(&cpus)), Some(cpus));
    }
    assert_eq!(to_mask(&CpuList::default()), "0");
    assert_eq!(from_mask("nothing"), None);
}

#[test]
fn checks_have_names_of_their_own_and_say_where_it_is_written() {
    let ids: BTreeSet<&str> = checks().iter().map(|check| check.id).collect();
    assert_eq!(ids.len(), checks().len());
    for check in checks() {
        assert!(check.link.starts_with("https://") && !check.why.is_empty(), "{}", check.id);
    }
}

#[test]
fn handing_down_cpuset_is_no_command_where_the_kernel_then_forgets_affinities() {
    let mut facts = good();
    facts.cgroups.get_mut("/").unwrap().subtree_control = Some(vec!["cpu".to_owned()]);
    let remedy = |facts: &Facts| {
        let report = examine(facts);
        report.findings.into_iter().find(|finding| finding.id == "cgroup.controllers").unwrap().remedy.unwrap()
    };
    assert_eq!(remedy(&facts).commands[0].change, "echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control");
    set(&mut facts, "/proc/sys/kernel/osrelease", "6.1.0-56-rt-amd64");
    assert!(remedy(&facts).commands.is_empty() && remedy(&facts).by_hand[0].change.contains("pin them again"));
}

/// A node whose only real-time process is in this cgroup.
fn with_plc_at(path: &str, class: Class, container: Option<Container>) -> Facts {
    let mut facts = good();
    let cgroup = CgroupFacts {
        dir: format!("/sys/fs/cgroup{path}"),
        quota: Some(Quota { quota_us: 20_000, period_us: 100_000 }),
        container: container.clone(),
        ..CgroupFacts::default()
    };
    facts.cgroups.insert(path.to_owned(), cgroup);
    let process = &mut facts.processes[0];
    (process.cgroup, process.class, process.container) = (Some(path.to_owned()), class, container);
    facts
}

fn unit(name: &str) -> Option<Container> {
    Some(Container { runtime: "systemd".to_owned(), id: name.to_owned(), ..Container::default() })
}

#[test]
fn a_plc_that_systemd_starts_is_looked_at_like_one_in_a_container() {
    let path = "/system.slice/codesyscontrol.service";
    let facts = with_plc_at(path, Class::Plc, unit("codesyscontrol.service"));
    assert_eq!(facts.workload().count(), 1);
    expect(&facts, &["cgroup.quota"]);
    // One that was refused FIFO is SYSTEM, since nothing shows what it is but the limit that it was given.
    let mut facts = with_plc_at(path, Class::System, unit("codesyscontrol.service"));
    facts.processes[0].threads.iter_mut().for_each(|thread| thread.policy = "OTHER".to_owned());
    facts.processes[0].rtprio_limit = Some(99);
    let titles = |facts: &Facts| {
        let found = examine(facts).findings.into_iter().filter(|finding| finding.id == "task.policy");
        found.map(|finding| finding.title).collect::<Vec<_>>().join("; ")
    };
    assert!(titles(&facts).contains("may be real-time, but all threads are SCHED_OTHER"), "{}", titles(&facts));
    for (rtprio, name) in [(0, "codesyscontrol.service"), (99, "rtkit-daemon.service")] {
        facts.processes[0].rtprio_limit = Some(rtprio);
        facts.processes[0].container = unit(name);
        assert!(titles(&facts).starts_with("no process of this node"), "{}", titles(&facts));
    }
}

#[test]
fn neither_daemons_of_the_system_nor_runtimes_are_real_time_processes() {
    let path = "/system.slice/chrony.service";
    assert_eq!(with_plc_at(path, Class::System, unit("chrony.service")).workload().count(), 0);
    let mut facts = with_plc_at("/", Class::System, None);
    assert_eq!(facts.workload().count(), 1);
    facts.processes[0].comm = "conmon".to_owned();
    assert_eq!(facts.workload().count(), 0);
}

#[test]
fn what_mends_a_unit_of_a_guest_is_for_inside() {
    let guest = |unit: Option<&str>| {
        let (runtime, id) = ("lxc".to_owned(), "plc1".to_owned());
        Some(Container { name: Some(id.clone()), unit: unit.map(str::to_owned), runtime, id, ..Container::default() })
    };
    let by_hand = |path: &str, container| {
        let report = examine(&with_plc_at(path, Class::Plc, container));
        let quota = report.findings.into_iter().find(|finding| finding.id == "cgroup.quota").unwrap();
        quota.remedy.unwrap().by_hand.swap_remove(0).change
    };
    assert_eq!(
        by_hand("/lxc.payload.plc1/system.slice/codesys.service", guest(Some("codesys.service"))),
        "for good, inside of lxc plc1: systemctl set-property codesys.service CPUQuota="
    );
    let of_guest = by_hand("/lxc.payload.plc1", guest(None));
    assert!(of_guest.contains("configuration of plc1") && !of_guest.contains("systemctl"), "{of_guest}");
}
