//! Doctor on recorded nodes. `guard/tests/nodes/` holds what `guard doctor --facts` printed on real kernels; its README
//! says how each was set up. The table of single faults changes one thing at a time of the node that is well set up.

use std::{collections::BTreeSet, path::Path};

use super::{
    facts::{CgroupFacts, DmaLatency, HierarchyFacts, KernelThread, PartitionFacts, Smi},
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

/// Writes a file below what stands for a node's root.
fn put(root: &Path, file: &str, text: &[u8]) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
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
        ("kernel.boot_options", |f| {
            let old = f.text("/proc/cmdline").unwrap().to_owned();
            set(f, "/proc/cmdline", &format!("{old} threadirq"));
        }),
        ("cpu.others", |f| {
            let mut other = f.processes[0].clone();
            (other.pid, other.cgroup, other.class) = (31, Some("/shop".to_owned()), Class::Ls);
            other.threads.retain(|thread| !thread.is_realtime());
            other.threads[0].affinity = "0-3".parse().unwrap();
            f.processes.push(other);
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
        ("runtime.docker", |f| set(f, "/etc/docker/daemon.json", r#"{"exec-opt": []}"#)),
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
        ("runtime.containerd", |f| {
            let table = containerd(2, "io.containerd.grpc.v1.cri", "SystemdCgroup = true");
            set(f, "/etc/containerd/config.toml", table.trim_start_matches("version = 2\n"));
        }),
        ("runtime.containerd", |f| {
            set(f, "/etc/containerd/config.toml", &containerd(3, "cri", "SystemdCgroup = true"));
        }),
        ("runtime.containerd", |f| {
            let table = containerd(3, "io.containerd.cri.v1.runtime", "SystemdCgroup = true");
            let other = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.vision]\nruntime_type = \"io.containerd.runc.v2\"\n";
            set(f, "/etc/containerd/config.toml", &(table + other));
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
        ("/etc/docker/daemon.json", "\u{feff}{\"log-driver\": \"local\"}\n"),
        ("/etc/docker/daemon.json", r#"{"nri-opts": {"enable": false}, "option-of-tomorrow": 1}"#),
        ("/etc/containerd/config.toml", "[plugins.cri.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"),
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

/// A daemon of the system.
fn daemon<'a>(facts: &'a mut Facts, comm: &str, arguments: Option<&[&str]>) -> &'a mut facts::Process {
    let mut daemon = facts.processes[0].clone();
    (daemon.pid, daemon.comm, daemon.class) = (77, comm.to_owned(), Class::System);
    daemon.cgroup = Some(format!("/system.slice/{comm}.service"));
    daemon.container = unit(&format!("{comm}.service"));
    daemon.arguments = arguments.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
    daemon.threads.clear();
    facts.processes.push(daemon);
    facts.processes.last_mut().unwrap()
}

fn finding(facts: &Facts, id: &str) -> Finding {
    examine(facts).findings.into_iter().find(|finding| finding.id == id).unwrap()
}

#[test]
fn what_irqbalance_was_told_replaces_what_it_leaves_out_by_itself() {
    // The CPUs of real-time work are 2-3.
    for (file, text, warning) in [
        ("/etc/default/irqbalance", "IRQBALANCE_BANNED_CPUS=c\n", None),
        ("/etc/default/irqbalance", "# keep off\nexport IRQBALANCE_BANNED_CPUS=\"0000000e\" # three\n", None),
        ("/etc/default/irqbalance", "IRQBALANCE_BANNED_CPUS=\nIRQBALANCE_BANNED_CPULIST=2-3 # both\n", None),
        ("/etc/default/irqbalance", "#IRQBALANCE_BANNED_CPULIST=1\nIRQBALANCE_ONESHOT=\n", None),
        ("/etc/sysconfig/irqbalance", "IRQBALANCE_BANNED_CPULIST='1-3'\n", None),
        ("/etc/irqbalance.env", "IRQBALANCE_BANNED_CPULIST=2,3\n", None),
        (
            "/etc/irqbalance.env",
            "IRQBALANCE_BANNED_CPULIST=3\n",
            Some("CPUs 2 of real-time work: IRQBALANCE_BANNED_CPULIST=3 replaces"),
        ),
        (
            "/etc/default/irqbalance",
            "IRQBALANCE_BANNED_CPUS=4\nIRQBALANCE_BANNED_CPULIST=2-3\n",
            Some("CPUs 3 of real-time work: IRQBALANCE_BANNED_CPUS=4 replaces"),
        ),
        (
            "/etc/default/irqbalance",
            "IRQBALANCE_BANNED_CPUS=0xc\n",
            Some("does not understand IRQBALANCE_BANNED_CPUS=0xc"),
        ),
    ] {
        let mut facts = good();
        daemon(&mut facts, "irqbalance", None);
        set(&mut facts, file, text);
        let found = finding(&facts, "irq.irqbalance");
        assert_eq!(found.severity.must_act(), warning.is_some(), "{text}: {}", found.title);
        assert!(found.title.contains(warning.unwrap_or("keeps off CPUs 2-3")), "{text}: {}", found.title);
    }
    // What it was started with counts, and a file that was written since does not.
    let mut facts = good();
    set(&mut facts, "/etc/default/irqbalance", "IRQBALANCE_BANNED_CPULIST=2-3\n");
    daemon(&mut facts, "irqbalance", None).environment =
        Some([("IRQBALANCE_BANNED_CPULIST".to_owned(), "1".to_owned())].into());
    let found = finding(&facts, "irq.irqbalance");
    assert!(found.title.contains("CPUs 2-3 of real-time work") && found.evidence[1].source == "/proc/77/environ");
    // CPUs that only a partition sets apart are none that it leaves out.
    let mut facts = partitioned();
    daemon(&mut facts, "irqbalance", None);
    assert!(finding(&facts, "irq.irqbalance").title.ends_with("CPUs 2-3 of real-time work"));
}

/// The good node with a partition in the place of boot options.
fn partitioned() -> Facts {
    let mut facts = good();
    for list in ["isolated", "nohz_full"] {
        set(&mut facts, &format!("/sys/devices/system/cpu/{list}"), "");
    }
    set(&mut facts, "/proc/cmdline", "quiet irqaffinity=0-1");
    let dir = "/sys/fs/cgroup";
    let partition = |file: &str, value: &str| PartitionFacts {
        file: format!("{dir}/{file}"),
        value: value.to_owned(),
        cpus: "2-3".parse().unwrap(),
    };
    facts.hierarchy.partitions =
        vec![partition("cpuset.cpus.isolated", "2-3"), partition("plc/cpuset.cpus.partition", "isolated")];
    facts
}

#[test]
fn cpus_of_a_cpuset_partition_are_set_apart() {
    let facts = partitioned();
    expect(&facts, &[]);
    let report = examine(&facts);
    assert_eq!(report.node.rt_cpus.to_string(), "2-3");
    let isolation = finding(&facts, "cpu.isolation");
    assert_eq!((isolation.severity, isolation.title.as_str()), (Severity::Ok, "CPUs 2-3 are set apart"));
    assert!(isolation.evidence.iter().any(|seen| seen.value == "isolated (CPUs 2-3)"), "{:?}", isolation.evidence);
    // Its tick and RCU's callbacks go on.
    let notes: Vec<Finding> =
        report.findings.into_iter().filter(|finding| finding.id == "cpu.isolation_agrees").collect();
    assert_eq!(notes.iter().map(|note| note.severity).collect::<Vec<_>>(), [Severity::Info; 2]);
    let mut facts = partitioned();
    facts.processes[0].threads.iter_mut().for_each(|thread| thread.affinity = "1".parse().unwrap());
    assert_eq!(finding(&facts, "task.affinity").severity, Severity::Info);
}

#[test]
fn whoever_else_may_run_on_isolated_cpus_is_named_with_what_keeps_him_off() {
    let facts = good();
    let pod = Container {
        runtime: "containerd".to_owned(),
        id: "shop-1".to_owned(),
        name: Some("shop".to_owned()),
        pod: Some("site/shop".to_owned()),
        qos: Some("burstable".to_owned()),
        ..Container::default()
    };
    let mut other = facts.processes[0].clone();
    other.threads.retain(|thread| !thread.is_realtime());
    (other.pid, other.comm, other.cgroup) = (41, "shop".to_owned(), Some("/kubepods/burstable/pod1/shop".to_owned()));
    (other.class, other.container) = (Class::Ls, Some(pod));
    let of = |affinity: &str| {
        let mut facts = facts.clone();
        let mut other = other.clone();
        other.threads[0].affinity = affinity.parse().unwrap();
        facts.processes.push(other);
        finding(&facts, "cpu.others")
    };
    let found = of("1-2");
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(found.title, "shop[41] in shop may run on CPUs 2-3, which are set apart for real-time work");
    let remedy = found.remedy.unwrap();
    assert_eq!(remedy.commands[0].change, "taskset -a -p -c 0-1 41");
    assert_eq!(remedy.commands[0].undo, "taskset -a -p -c 1-2 41");
    assert!(remedy.by_hand[0].change.contains("kubepods.slice AllowedCPUs=0-1"), "{:?}", remedy.by_hand);
    // The real-time thread is on CPU 3.
    assert_eq!(of("3").severity, Severity::Warning);
    for affinity in ["0-1", "2"] {
        assert_eq!(of(affinity).severity, Severity::Ok, "{affinity}");
    }
    other.cgroup = facts.processes[0].cgroup.clone();
    let mut facts = facts.clone();
    other.threads[0].affinity = "0-3".parse().unwrap();
    facts.processes.push(other);
    assert_eq!(finding(&facts, "cpu.others").severity, Severity::Ok);
}

#[test]
fn lists_on_the_command_line_are_read_as_the_kernel_reads_them() {
    for (options, ids) in [
        ("isolcpus=managed_irq,domain,2-N nohz_full=2-N rcu_nocbs=2-N irqaffinity=0-1", &[][..]),
        ("isolcpus=2-N:2/2 nohz_full=2,3 rcu-nocbs=all irqaffinity=0-1", &[]),
        ("isolcpus=2-3 rcu_nocbs irqaffinity=0-2:2/4", &[]),
        ("isolcpus=2-3 irqaffinity=all", &["cpu.isolation_agrees"]),
        ("isolcpus=2-3 rcu_nocbs=2..3", &["kernel.boot_options"]),
        ("isolcpus=2-3 irqaffinity=0-N:1", &["kernel.boot_options"]),
        ("isolcpus=all nohz_full=2-3", &["kernel.boot_options"]),
        ("isolcpus=2-3 quiet -- isolcpu=2", &[]),
    ] {
        let mut facts = good();
        set(&mut facts, "/proc/cmdline", options);
        expect(&facts, ids);
    }
    // Without a tick there are no callbacks of RCU either, so this one only shows with it.
    let mut facts = good();
    set(&mut facts, "/sys/devices/system/cpu/nohz_full", "");
    for (options, ids) in [
        ("isolcpus=2-3 rcu_nocbs=1-N", &[][..]),
        ("isolcpus=2-3 rcu_nocbs=0-N:2/4", &["cpu.isolation_agrees"]),
        ("isolcpus=2-3", &["cpu.isolation_agrees"]),
    ] {
        set(&mut facts, "/proc/cmdline", options);
        expect(&facts, ids);
    }
}

#[test]
fn a_misspelt_boot_option_is_named_with_the_right_word() {
    for (option, right) in [
        ("isolcpu=2-3", "isolcpus=2-3"),
        ("iso_lcpus=2-3", "isolcpus=2-3"),
        ("rcu_nocb=2-3", "rcu_nocbs=2-3"),
        ("irqafinity=0-1", "irqaffinity=0-1"),
        ("nohzfull=2-3", "nohz_full=2-3"),
        ("no-soft-lockup", "nosoftlockup"),
        ("skew_ticks=1", "skew_tick=1"),
        ("intel_idle.max_cstates=0", "intel_idle.max_cstate=0"),
        ("isolcpus=managed_irq,1-3", "isolcpus=managed_irq,domain,1-3"),
        ("isolcpus=nohz,managed_irq,0,3", "isolcpus=nohz,managed_irq,domain,0,3"),
    ] {
        let mut facts = good();
        set(&mut facts, "/proc/cmdline", &format!("quiet {option}"));
        let found = finding(&facts, "kernel.boot_options");
        assert_eq!(found.severity, Severity::Warning, "{option}");
        let change = &found.remedy.unwrap().by_hand[0].change;
        assert!(change.contains(&format!("write {right} instead of {option}")), "{change}");
    }
    let mut facts = partitioned();
    set(
        &mut facts,
        "/proc/cmdline",
        "quiet nosmp maxcpus=4 nohz=on isolcpus=managed_irq,2-3 hugepages=2 plc.mode=isolcpu",
    );
    assert_eq!(finding(&facts, "kernel.boot_options").severity, Severity::Ok);
}

#[test]
fn interrupts_that_each_cpu_has_of_its_own_are_no_device_interrupts() {
    let mut facts = good();
    let lines = [
        (11, "GICv3  26 Level     arch_timer"),
        (12, "GICv2  27 Level     kvm guest vtimer"),
        (13, "GICv2  60 Level     arm-pmu"),
        (14, "RISC-V INTC   5 Edge      riscv-timer"),
        (15, "GICv2m-PCI-MSI-0000:01:00.0   0 Edge      disk0"),
        (16, "GICv3  74 Level     can0"),
    ];
    let rows: Vec<String> = lines.iter().map(|(irq, rest)| format!(" {irq}:  7 7 7 7  {rest}")).collect();
    set(
        &mut facts,
        "/proc/interrupts",
        &format!("  CPU0 CPU1 CPU2 CPU3\n{}\nIPI0: 1 2 3 4  Rescheduling", rows.join("\n")),
    );
    for (irq, _) in lines {
        set(&mut facts, &format!("/proc/irq/{irq}/smp_affinity_list"), "0-3");
        set(&mut facts, &format!("/proc/irq/{irq}/effective_affinity_list"), "3");
    }
    let found = finding(&facts, "irq.affinity");
    let commands: Vec<String> = found.remedy.unwrap().commands.into_iter().map(|step| step.change).collect();
    assert_eq!(commands, ["echo 0-1 > /proc/irq/15/smp_affinity_list", "echo 0-1 > /proc/irq/16/smp_affinity_list"]);
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

/// A node on cgroup v1 that rations real-time time, with the cgroups that have some of it or none.
fn rationed(cgroups: &[(&str, i64)]) -> Facts {
    let mut facts = node!("6.18-hybrid");
    facts.hierarchy = HierarchyFacts { layout: CgroupLayout::V1, ..facts.hierarchy };
    facts.cgroups.entry("/".to_owned()).or_default();
    for (path, us) in cgroups {
        let cgroup = CgroupFacts {
            dir: format!("/sys/fs/cgroup/cpu{path}"),
            rt_runtime_us: Some(*us),
            ..CgroupFacts::default()
        };
        facts.cgroups.insert((*path).to_owned(), cgroup);
    }
    facts
}

/// Somebody without real-time threads.
fn idle_in<'a>(facts: &'a mut Facts, path: &str, container: Option<Container>) -> &'a mut facts::Process {
    let mut process = good().processes.swap_remove(0);
    (process.cgroup, process.container, process.rtprio_limit) = (Some(path.to_owned()), container, Some(0));
    (process.capabilities, process.class) = (Some(0), Class::Ls);
    process.threads.clear();
    facts.processes.push(process);
    facts.processes.last_mut().unwrap()
}

fn writes(facts: &Facts) -> Vec<String> {
    let found = finding(facts, "kernel.rt_groups");
    let commands = found.remedy.unwrap_or_default().commands.into_iter();
    commands.map(|step| step.change.replace("/sys/fs/cgroup/cpu", "").replace("/cpu.rt_runtime_us", "")).collect()
}

#[test]
fn a_service_without_real_time_time_is_critical_and_gets_it_from_the_top_down() {
    let mut facts = rationed(&[("/system.slice", 0), ("/system.slice/press.service", 0), ("/other", 150_000)]);
    let service = idle_in(&mut facts, "/system.slice/press.service", unit("press.service"));
    (service.class, service.rtprio_limit) = (Class::System, Some(80));
    let found = finding(&facts, "kernel.rt_groups");
    assert_eq!(found.severity, Severity::Critical);
    assert!(found.title.starts_with("/system.slice/press.service") && found.title.contains("cpu.rt_runtime_us"));
    // Half of what /other leaves.
    assert_eq!(writes(&facts), ["echo 400000 > /system.slice", "echo 400000 > /system.slice/press.service"]);
    assert!(found.remedy.unwrap().by_hand[0].change.contains("systemctl edit press.service"));
    // One of the operating system's is not meant to be real-time.
    facts.processes.last_mut().unwrap().container = unit("rtkit-daemon.service");
    assert_eq!(finding(&facts, "kernel.rt_groups").severity, Severity::Info);
}

#[test]
fn whoever_has_all_capabilities_may_be_real_time_too() {
    let docker = Container { runtime: "docker".to_owned(), id: "cell".to_owned(), ..Container::default() };
    let mut facts = rationed(&[("/docker", 800_000), ("/docker/cell", 0), ("/docker/line", 500_000)]);
    idle_in(&mut facts, "/docker/cell", Some(docker)).capabilities = Some((1 << 41) - 1);
    assert_eq!(finding(&facts, "kernel.rt_groups").severity, Severity::Critical);
    // The parent has enough for both.
    assert_eq!(writes(&facts), ["echo 225000 > /docker/cell"]);
    facts.processes.last_mut().unwrap().capabilities = Some(0);
    assert_eq!(finding(&facts, "kernel.rt_groups").severity, Severity::Info);
}

#[test]
fn real_time_time_that_is_all_given_away_is_said_and_not_written() {
    let mut facts = rationed(&[("/a", 950_000), ("/b", 0)]);
    idle_in(&mut facts, "/b", None).rtprio_limit = Some(50);
    assert_eq!(writes(&facts), Vec::<String>::new());
    let by_hand = finding(&facts, "kernel.rt_groups").remedy.unwrap().by_hand;
    assert!(by_hand[0].change.contains("they have 950000 of the root's 950000 us"), "{by_hand:?}");
}

#[test]
fn kubelets_configuration_is_found_wherever_it_is() {
    const JSON: &str =
        r#"{"kind":"KubeletConfiguration","cgroupDriver":"systemd","cpuManagerPolicy":"static","cpuCFSQuota":false}"#;
    const YAML: &str = "---\nkind: KubeletConfiguration\n\"cgroupDriver\": systemd\ncpuManagerPolicy : 'static' # whole\ncpuCFSQuota: false\nmemorySwap:\n  cpuManagerPolicy: none\n";
    type Kubelet<'a> = Option<(&'a str, Option<&'a [&'a str]>)>;
    let nodes: &[(Kubelet<'_>, &[(&str, &str)])] = &[
        (None, &[("/var/lib/kubelet/config.yaml", JSON)]),
        (None, &[("/var/lib/kubelet/config.yaml", YAML)]),
        (None, &[("/etc/kubernetes/kubelet.conf", JSON)]),
        (
            None,
            &[("/etc/kubernetes/kubelet/config.json", "{}"), ("/etc/kubernetes/kubelet/config.json.d/40-x.conf", JSON)],
        ),
        // The last file by name counts, and arguments count more.
        (
            Some(("kubelet", Some(&["--config=/opt/k/k.yaml", "--config-dir=/opt/k/d/", "--cpu-cfs-quota=false"]))),
            &[
                ("/opt/k/k.yaml", "cgroupDriver: cgroupfs\ncpuCFSQuota: true\n"),
                ("/opt/k/d/10-a.conf", "cgroupDriver: systemd\ncpuManagerPolicy: none\n"),
                ("/opt/k/d/9-b.conf", "cpuManagerPolicy: static\n"),
                ("/var/lib/kubelet/config.yaml", "cgroupDriver: cgroupfs\n"),
            ],
        ),
        (
            Some(("kubelite", Some(&["--kubelet-args-file=/var/snap/k/args"]))),
            &[("/var/snap/k/args", "--cgroup-driver=systemd\n--cpu-manager-policy=static\n--cpu-cfs-quota=false\n")],
        ),
        (
            Some(("k3s-server", Some(&["--kubelet-arg=cpu-cfs-quota=false"]))),
            &[
                ("/etc/rancher/k3s/config.yaml", "kubelet-arg:\n  - \"cpu-manager-policy=static\"\n"),
                ("/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/00-k3s.conf", "cgroupDriver: systemd\n"),
            ],
        ),
        (
            None,
            &[(
                "/var/snap/microk8s/current/args/kubelet",
                "--cgroup-driver=systemd\n--cpu-manager-policy=static\n--cpu-cfs-quota=false\n",
            )],
        ),
        (Some(("k3s-agent", None)), &[("/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/10.conf", YAML)]),
    ];
    for (kubelet, files) in nodes {
        let mut facts = good();
        if let Some((comm, arguments)) = kubelet {
            daemon(&mut facts, comm, *arguments);
        }
        for (path, text) in *files {
            set(&mut facts, path, text);
        }
        let found = finding(&facts, "runtime.kubelet");
        assert_eq!((found.severity, found.title.as_str()), (Severity::Ok, "nothing wrong"), "{files:?} {found:?}");
        set(&mut facts, "/etc/crio/crio.conf", "[crio.runtime]\ncgroup_manager = \"systemd\"\n");
        assert_eq!(finding(&facts, "runtime.kubelet").severity, Severity::Ok);
        set(&mut facts, "/etc/crio/crio.conf.d/50-x.conf", "[crio.runtime]\ncgroup_manager = \"cgroupfs\"\n");
        let found = finding(&facts, "runtime.kubelet");
        assert_eq!(
            found.title, "kubelet uses the cgroup driver systemd, CRI-O the cgroup manager cgroupfs",
            "{files:?}"
        );
        assert_eq!(found.severity, Severity::Warning);
    }
}

#[test]
fn a_kubelet_whose_configuration_is_not_seen_is_unknown_and_never_fine() {
    let mut facts = good();
    assert_eq!(finding(&facts, "runtime.kubelet").severity, Severity::Ok);
    // kubeadm's keys are no configuration.
    set(&mut facts, "/etc/kubernetes/kubelet.conf", "apiVersion: v1\nkind: Config\n");
    assert_eq!(finding(&facts, "runtime.kubelet").severity, Severity::Ok);
    for arguments in [None, Some(&["--config=/opt/kubelet.yaml"][..])] {
        let mut facts = facts.clone();
        daemon(&mut facts, "kubelet", arguments);
        assert_eq!(finding(&facts, "runtime.kubelet").severity, Severity::Unknown);
    }
    // One that was started without any has kubelet's defaults.
    let mut defaults = facts.clone();
    daemon(&mut defaults, "kubelet", Some(&[]));
    assert!(finding(&defaults, "runtime.kubelet").title.contains("no container CPUs of its own"));
    let pod = Some("7".to_owned());
    let container = Container { pod, qos: Some("guaranteed".to_owned()), ..Container::default() };
    facts.processes[0].container = Some(container);
    assert_eq!(finding(&facts, "runtime.kubelet").severity, Severity::Unknown);
    set(&mut facts, "/var/lib/kubelet/config.yaml", "{kind: KubeletConfiguration, cpuManagerPolicy: static}");
    assert_eq!(finding(&facts, "runtime.kubelet").severity, Severity::Unknown);
}

#[test]
fn every_runtime_of_runcs_kind_has_a_driver_of_its_own() {
    let vision = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"vision\"\n\
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.vision]\nruntime_type = \"io.containerd.runc.v2\"\n\
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.vm]\nruntime_type = \"io.containerd.kata.v2\"\n";
    let mut facts = good();
    set(&mut facts, "/etc/containerd/config.toml", vision);
    let found = finding(&facts, "runtime.containerd");
    assert!(found.severity == Severity::Info && found.title.contains("runtime vision makes plain"), "{}", found.title);
    set(&mut facts, "/var/lib/kubelet/config.yaml", "cgroupDriver: systemd\ncpuManagerPolicy: static\n");
    let found = finding(&facts, "runtime.kubelet");
    assert_eq!(found.title, "kubelet uses the cgroup driver systemd, containerd's runtime vision cgroupfs");
    // A file that is left over.
    daemon(&mut facts, "crio", None);
    assert!(!finding(&facts, "runtime.kubelet").severity.must_act());
}

#[test]
fn what_the_node_keeps_secret_is_no_fact() {
    let root = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &[u8]| put(root.path(), file, text);
    write("proc/self/mountinfo", b"32 26 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("sys/fs/cgroup/cgroup.controllers", b"cpuset cpu\n");
    write("sys/fs/cgroup/cgroup.procs", b"");
    write("sys/fs/cgroup/cpuset.cpus.isolated", b"5-6\n");
    write("sys/fs/cgroup/mill/cpuset.cpus.partition", b"isolated\n");
    write("sys/fs/cgroup/mill/cpuset.cpus.effective", b"5-6\n");
    write("sys/fs/cgroup/mill/cpuset.cpus", b"5-6\n");
    write("sys/fs/cgroup/yard/cpuset.cpus.partition", b"isolated invalid (no CPUs)\n");
    write("etc/rancher/k3s/config.yaml", b"token: hush\nkubelet-arg:\n- cpu-manager-policy=static\ntls-san:\n- hush\n");
    write("etc/kubernetes/kubelet.conf", b"kind: Config\nclient-key-data: hush\n");
    write("opt/k.yaml", b"kind: KubeletConfiguration\ncgroupDriver: systemd\n");
    write("opt/d/1.conf", b"kind: KubeletConfiguration\ncpuManagerPolicy: static\n");
    write("opt/d/2.conf", b"password: hush\n");
    // In UTF-16, as Windows' editors do it.
    let daemon_json: Vec<u8> = "\u{feff}{\"debug\":true}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    write("etc/docker/daemon.json", &daemon_json);
    let status = |name: &str, cpus: &str| {
        format!("Name:\t{name}\nTgid:\t9\nPid:\t9\nNSpid:\t9\nVmLck:\t0 kB\nCapEff:\t0\nCpus_allowed_list:\t{cpus}\n")
    };
    for (pid, name, cpus) in
        [(9, "kubelet", "0-4"), (10, "irqbalance", "0-4"), (11, "shop", "4-5"), (12, "bystander", "0-4")]
    {
        for dir in [format!("proc/{pid}"), format!("proc/{pid}/task/{pid}")] {
            let stat = format!(
                "{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            );
            write(&format!("{dir}/stat"), stat.as_bytes());
            write(&format!("{dir}/status"), status(name, cpus).replace("\t9\n", &format!("\t{pid}\n")).as_bytes());
            write(&format!("{dir}/cgroup"), b"0::/\n");
        }
    }
    write("proc/9/cmdline", b"/usr/bin/kubelet\0--token\0hush\0--config\0/opt/k.yaml\0--config-dir=/opt/d\0");
    write("proc/10/environ", b"SECRET=hush\0IRQBALANCE_BANNED_CPULIST=5\0");
    let facts = collect(root.path());
    let text = serde_json::to_string(&facts).unwrap();
    assert!(!text.contains("hush"), "{text}");
    let arguments = facts.runs("kubelet").unwrap().arguments.clone().unwrap();
    assert_eq!(arguments, ["--config=/opt/k.yaml", "--config-dir=/opt/d"]);
    assert_eq!(facts.text("/opt/d/1.conf"), Some("kind: KubeletConfiguration\ncpuManagerPolicy: static"));
    assert!(facts.is_unreadable("/opt/d/2.conf"));
    assert_eq!(facts.text("/etc/rancher/k3s/config.yaml"), Some("kubelet-arg:\n- cpu-manager-policy=static"));
    assert_eq!(facts.text("/etc/docker/daemon.json"), Some("{\"debug\":true}"));
    let environment = facts.runs("irqbalance").unwrap().environment.clone().unwrap();
    assert_eq!(environment.into_iter().collect::<Vec<_>>(), [("IRQBALANCE_BANNED_CPULIST".to_owned(), "5".to_owned())]);
    assert_eq!(facts.isolated().to_string(), "5-6");
    assert_eq!(facts.hierarchy.partitions[1].file, "/sys/fs/cgroup/mill/cpuset.cpus.partition");
    assert_eq!(facts.hierarchy.partitions.len(), 2);
    assert!(facts.runs("shop").is_some() && facts.runs("bystander").is_none());
}

#[test]
fn programs_of_others_on_scheduler_hooks_are_named_with_what_they_take() {
    let root = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| put(root.path(), file, text.as_bytes());
    write("proc/self/mountinfo", "32 26 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("sys/fs/cgroup/cgroup.controllers", "cpu\n");
    write("proc/sys/kernel/bpf_stats_enabled", "0\n");
    let link = "link_type:\traw_tracepoint\nlink_id:\t4\nprog_tag:\t0a\nprog_id:\t";
    for (pid, comm, fd, kind, info) in [
        (61, "tracerd", 5, "bpf_link", format!("{link}70\ntp_name:\tsched_waking\n")),
        (61, "tracerd", 6, "bpf-prog", "prog_type:\t17\nprog_id:\t70\nrun_time_ns:\t90000\nrun_cnt:\t300\n".to_owned()),
        (62, "agent", 7, "bpf_link", format!("{link}71\ntp_name:\tsched_switch\n")),
        (62, "agent", 8, "bpf_link", format!("{link}72\ntp_name:\tsys_enter\n")),
        (63, "guard", 9, "bpf_link", format!("{link}73\ntp_name:\tsched_switch\n")),
    ] {
        write(&format!("proc/{pid}/comm"), comm);
        write(&format!("proc/{pid}/fdinfo/{fd}"), &info);
        std::fs::create_dir_all(root.path().join(format!("proc/{pid}/fd"))).unwrap();
        let descriptor = root.path().join(format!("proc/{pid}/fd/{fd}"));
        std::os::unix::fs::symlink(format!("anon_inode:{kind}"), descriptor).unwrap();
    }
    let facts = collect(root.path());
    let found = finding(&facts, "kernel.hooked_programs");
    assert_eq!(found.severity, Severity::Info);
    assert_eq!(found.title, "2 programs run at each switch or wake-up: of tracerd[61], agent[62]");
    let seen: Vec<String> = found.evidence.iter().map(|one| format!("{}: {}", one.source, one.value)).collect();
    assert_eq!(seen[0], "tracerd[61], program 70 on sched_waking: 300 ns a run, 300 runs");
    assert_eq!(seen[1], "agent[62], program 71 on sched_switch: its runs were not counted");
    assert!(found.remedy.unwrap().by_hand[0].change.ends_with("sysctl -w kernel.bpf_stats_enabled=1"));
    let mut dear = good();
    dear.hooked = facts.hooked;
    dear.hooked.as_mut().unwrap()[0].run_time_ns = 600_000;
    expect(&dear, &["kernel.hooked_programs"]);
    dear.hooked = None;
    assert_eq!(finding(&dear, "kernel.hooked_programs").severity, Severity::Unknown);
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
        "cpu.isolation",
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
    let write = |file: &str, text: &str| put(root.path(), file, text.as_bytes());
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
