//! Checks of the kernel itself: how it was built, how it rations real-time time, what it was booted with, and which
//! faults its version is known for.

use super::facts::Facts;
use super::finding::{Check, Found};
use crate::snapshot::{CgroupLayout, CpuList};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "kernel.preempt_rt",
        looks_at: "whether the kernel is PREEMPT_RT",
        why: "Without PREEMPT_RT a real-time thread waits for every lock, interrupt and softirq that the kernel is busy \
              with: milliseconds under load, without bound.",
        link: "https://wiki.linuxfoundation.org/realtime/start",
        rule: preempt_rt,
    },
    Check {
        id: "kernel.rt_throttling",
        looks_at: "RT throttling (kernel.sched_rt_runtime_us), where the kernel has it",
        why: "Kernels that have it stop all FIFO and RR threads of a CPU that used up their share of the period, those \
              that run timers and interrupts too. It is also what keeps a node alive when a FIFO thread runs away.",
        link: "https://docs.kernel.org/scheduler/sched-rt-group.html",
        rule: rt_throttling,
    },
    Check {
        id: "kernel.fair_server",
        looks_at: "the fair server's share on each CPU, where the kernel has it",
        why: "It takes a CPU from FIFO threads when fair threads starved there for almost a second, by default for up \
              to 50 ms of each second. At 0 a FIFO thread that runs away takes the node with it.",
        link: "https://docs.kernel.org/scheduler/sched-deadline.html",
        rule: fair_server,
    },
    Check {
        id: "kernel.rt_groups",
        looks_at: "CONFIG_RT_GROUP_SCHED together with the cgroup version, and cpu.rt_runtime_us on v1",
        why: "With it a thread becomes FIFO or RR only in a cgroup that was given real-time time; new cgroups have none, \
              and on v2 none can be given. The program gets EPERM, often only logs it, and runs on as SCHED_OTHER.",
        link: "https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu",
        rule: rt_groups,
    },
    Check {
        id: "kernel.boot_options",
        looks_at: "boot options that do not exist, say nothing, or do not help",
        why: "The kernel ignores what it does not know without a word that anybody sees: the node is believed to be set \
              up, and is not.",
        link: "https://docs.kernel.org/admin-guide/kernel-parameters.html",
        rule: boot_options,
    },
    Check {
        id: "kernel.known_faults",
        looks_at: "faults known for this version",
        why: "A fault of the kernel cannot be configured away, but whoever knows it can stay out of its way. The version \
              tells only what it was made from: a distribution may have the fix.",
        link: "https://docs.kernel.org/scheduler/sched-bwc.html",
        rule: known_faults,
    },
];

const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";
const RT_PERIOD: &str = "/proc/sys/kernel/sched_rt_period_us";
const DEFAULT_RT_RUNTIME_US: i64 = 950_000;
/// The fair server's own default, kernel/sched/deadline.c, ns.
const FAIR_SERVER_NS: &str = "50000000";

fn preempt_rt(facts: &Facts) -> Vec<Found> {
    let version = "/proc/sys/kernel/version";
    if facts.is_realtime() {
        return vec![Found::ok("the kernel is PREEMPT_RT").file(facts, version)];
    }
    if facts.text(version).is_none() {
        return vec![Found::unknown(facts.reason(version))];
    }
    let (change, undo) = match distribution(facts) {
        "debian" => {
            let arch = match facts.text("/proc/sys/kernel/arch") {
                Some("aarch64") => "arm64",
                Some("x86_64") | None => "amd64",
                Some(other) => other,
            };
            let package = format!("linux-image-rt-{arch}");
            (format!("apt-get install {package}"), format!("apt-get remove {package}"))
        }
        "ubuntu" => ("pro enable realtime-kernel".to_owned(), "pro disable realtime-kernel".to_owned()),
        "rhel" => ("dnf install kernel-rt".to_owned(), "dnf remove kernel-rt".to_owned()),
        _ => (
            "install your distribution's real-time kernel, or build one with CONFIG_PREEMPT_RT=y".to_owned(),
            "boot the old kernel".to_owned(),
        ),
    };
    vec![
        Found::critical("the kernel is not PREEMPT_RT")
            .file(facts, version)
            .file(facts, "/sys/kernel/realtime")
            .by_hand(change, undo)
            .reboot(),
    ]
}

fn distribution(facts: &Facts) -> &str {
    let text = facts.text("/etc/os-release").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("ID=")).unwrap_or_default().trim_matches('"')
}

fn rt_throttling(facts: &Facts) -> Vec<Found> {
    let Some(exists) = facts.has_function("sched_rt_period_timer") else {
        return vec![Found::unknown("/proc/kallsyms does not tell whether this kernel has RT throttling")];
    };
    let (Some(runtime), Some(period)) = (facts.number(RT_RUNTIME), facts.number(RT_PERIOD)) else {
        return vec![Found::unknown(facts.reason(RT_RUNTIME))];
    };
    let with_files = |found: Found| found.file(facts, RT_RUNTIME).file(facts, RT_PERIOD);
    if !exists {
        let found = if runtime < 0 {
            Found::info(
                "sched_rt_runtime_us is -1: this kernel has no RT throttling; it only turned off the admission test of SCHED_DEADLINE",
            )
        } else {
            Found::ok("this kernel has no RT throttling")
        };
        return vec![with_files(found).seen("/proc/kallsyms", "no sched_rt_period_timer")];
    }
    // What a period of another length leaves to fair threads by default.
    let usual = i64::min(DEFAULT_RT_RUNTIME_US, period / 20 * 19);
    let back = |found: Found| {
        with_files(found).command(
            format!("sysctl -w kernel.sched_rt_runtime_us={usual}"),
            format!("sysctl -w kernel.sched_rt_runtime_us={runtime}"),
        )
    };
    vec![if runtime < 0 {
        back(Found::warning("RT throttling is off: a FIFO thread that runs away takes its CPU with it"))
    } else if runtime < usual {
        back(Found::warning(format!("FIFO and RR threads get only {runtime} of {period} us on each CPU")))
    } else {
        with_files(Found::info(format!(
            "FIFO and RR threads that use more than {runtime} of {period} us on a CPU are stopped until the period ends"
        )))
    }]
}

fn fair_server(facts: &Facts) -> Vec<Found> {
    let dir = "/sys/kernel/debug/sched/fair_server";
    let shares = facts.matching(&format!("{dir}/cpu*/runtime"));
    if shares.is_empty() {
        // Root may be refused as well: a kernel that is locked down hides what debugfs says.
        let hidden = facts.files.keys().find(|path| path.starts_with(dir) && facts.is_unreadable(path));
        if let Some(hidden) = hidden.filter(|path| path.as_str() != dir) {
            return vec![Found::unknown(facts.reason(hidden))];
        }
        return match facts.has_function("fair_server_init") {
            Some(false) => vec![Found::ok("this kernel has no fair server")],
            Some(true) if facts.is_unreadable(dir) => {
                vec![Found::unknown(format!("{}: run guard doctor as root", facts.reason(dir)))]
            }
            Some(true) => vec![Found::unknown(format!(
                "{}: mount -t debugfs debugfs /sys/kernel/debug, and run guard doctor as root",
                facts.reason(dir)
            ))],
            None => vec![Found::unknown("/proc/kallsyms does not tell whether this kernel has a fair server")],
        };
    }
    let number = |text: &str| text.parse::<u64>().unwrap_or_default();
    let mut wrong = Vec::new();
    for (path, stars, runtime) in shares {
        let cpu = stars.first().copied().unwrap_or_default();
        let period = facts.text(&format!("{dir}/cpu{cpu}/period")).map(number).unwrap_or_default();
        if number(runtime) == 0 {
            wrong.push((
                path,
                runtime,
                format!("CPU {cpu}: the fair server is off: a FIFO thread that runs away takes the CPU with it"),
            ));
        } else if number(runtime) > period / 20 {
            wrong.push((
                path,
                runtime,
                format!("CPU {cpu}: the fair server may take {runtime} of {period} ns from FIFO threads"),
            ));
        }
    }
    if wrong.is_empty() {
        return vec![Found::ok(
            "the fair server takes at most 5 % of a CPU from FIFO threads, and only if fair ones starve",
        )];
    }
    wrong
        .into_iter()
        .map(|(path, runtime, title)| Found::warning(title).seen(path, runtime).write(path, FAIR_SERVER_NS, runtime))
        .collect()
}

fn rt_groups(facts: &Facts) -> Vec<Found> {
    let source = facts.kernel.config_source.as_deref().unwrap_or("/proc/kallsyms");
    match facts.rations_rt_groups() {
        None => return vec![Found::unknown("neither the kernel's configuration nor /proc/kallsyms can be read")],
        Some(false) => {
            return vec![
                Found::ok("real-time time is not rationed per cgroup").seen(source, "no RT_GROUP_SCHED in force"),
            ];
        }
        Some(true) => {}
    }
    let evidence = |found: Found| found.seen(source, "CONFIG_RT_GROUP_SCHED=y");
    if facts.hierarchy.layout == CgroupLayout::V2 {
        let found = evidence(Found::critical(
            "no cgroup but the root can have FIFO or RR threads: RT_GROUP_SCHED with cgroup v2",
        ))
        .seen(facts.hierarchy.mount.as_deref().unwrap_or("cgroup"), "cgroup v2");
        // Where the option for the default exists, so does the boot option.
        return vec![if facts.kernel.options.contains_key("RT_GROUP_SCHED_DEFAULT_DISABLED") {
            found.boot_option("rt_group_sched=0")
        } else {
            found
                .by_hand(
                    "boot a kernel without CONFIG_RT_GROUP_SCHED; Debian's, Red Hat's and Fedora's are",
                    "boot the old one",
                )
                .reboot()
        }];
    }
    let starved: Vec<&str> = facts
        .cgroups
        .iter()
        .filter(|(path, cgroup)| path.as_str() != "/" && cgroup.rt_runtime_us == Some(0))
        .filter(|(path, _)| {
            facts
                .processes
                .iter()
                .any(|process| process.is_ours() && process.cgroup.as_ref() == Some(path) && may_be_rt(process))
        })
        .map(|(path, _)| path.as_str())
        .collect();
    if starved.is_empty() {
        return vec![evidence(Found::info(
            "real-time time is rationed per cgroup: a new cgroup has none until cpu.rt_runtime_us is written, from the top down",
        ))];
    }
    // Together they must stay below what the root has.
    let share = DEFAULT_RT_RUNTIME_US / i64::try_from(starved.len() + 1).unwrap_or(i64::MAX);
    starved
        .iter()
        .map(|path| {
            let title = format!("{path}: processes may be real-time, but the cgroup has no real-time time: FIFO and RR are refused");
            let mut found = evidence(Found::critical(title));
            let mut up: Vec<_> = facts.lineage(path).filter(|(above, _)| *above != "/").collect();
            up.reverse();
            for (above, cgroup) in up {
                let Some(old) = cgroup.rt_runtime_us else { continue };
                let file = format!("{}/cpu.rt_runtime_us", cgroup.dir);
                found = found.seen(&file, old.to_string());
                let below = starved.iter().filter(|one| facts.lineage(one).any(|(path, _)| path == above)).count();
                let needed = share * i64::try_from(below).unwrap_or(1);
                if (0..needed).contains(&old) {
                    found = found.write(&file, &needed.to_string(), &old.to_string());
                }
            }
            found.by_hand(
                "docker: dockerd --cpu-rt-runtime=950000, then docker run --cpu-rt-runtime=100000 --cap-add=SYS_NICE --ulimit rtprio=99",
                "run the container without --cpu-rt-runtime",
            )
        })
        .collect()
}

/// Whether a process was given the right to be real-time.
fn may_be_rt(process: &super::facts::Process) -> bool {
    process.was_given_sys_nice() || process.rtprio_limit.is_some_and(|limit| limit > 0)
}

fn boot_options(facts: &Facts) -> Vec<Found> {
    let cmdline = "/proc/cmdline";
    if facts.text(cmdline).is_none() {
        return vec![Found::unknown(facts.reason(cmdline))];
    }
    let possible = facts.cpus("/sys/devices/system/cpu/possible").unwrap_or_default();
    let mut found = Vec::new();
    for word in facts.boot_options() {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let complaint = match name {
            "isolcpus" => isolcpus(value, &possible),
            "nohz_full" | "rcu_nocbs" | "irqaffinity" => cpu_list(name, value, &possible).or_else(|| {
                (name == "nohz_full" && facts.text("/sys/devices/system/cpu/nohz_full").is_none())
                    .then(|| "the kernel lacks CONFIG_NO_HZ_FULL: nohz_full= has no effect".to_owned())
            }),
            "sched_uclamp" => Some("the kernel has no option sched_uclamp; utilisation clamping never takes FIFO threads out of their class".to_owned()),
            "systemd.unified_cgroup_hierarchy" if matches!(value, "0" | "no" | "false") => Some(
                "cgroup v1 has the same CPU quotas as v2, so this mends no throttling; systemd 258 and later refuse to boot with v1".to_owned(),
            ),
            _ => None,
        };
        if let Some(complaint) = complaint {
            found.push(
                Found::warning(complaint)
                    .seen(cmdline, word)
                    .by_hand(format!("take {word} out of the kernel's command line"), format!("put {word} back"))
                    .reboot(),
            );
        }
    }
    found
}

/// What is wrong with the value of isolcpus=, kernel/sched/isolation.c: flags, each with a comma behind it, and then
/// the CPUs.
fn isolcpus(value: &str, possible: &CpuList) -> Option<String> {
    let mut rest = value;
    let mut unknown = Vec::new();
    while rest.starts_with(|first: char| first.is_ascii_alphabetic()) {
        let Some((flag, after)) = rest.split_once(',') else {
            return Some(format!(
                "isolcpus={value} names no CPUs: \"{rest}\" stands where they belong, so none is isolated"
            ));
        };
        if !matches!(flag, "nohz" | "domain" | "managed_irq") {
            unknown.push(flag);
        }
        rest = after;
    }
    if rest.is_empty() {
        return Some(format!("isolcpus={value} names no CPUs: none is isolated"));
    }
    if !unknown.is_empty() {
        return Some(format!("isolcpus= has no flag {}: only nohz, domain and managed_irq", unknown.join(", ")));
    }
    cpu_list("isolcpus", rest, possible)
}

fn cpu_list(name: &str, value: &str, possible: &CpuList) -> Option<String> {
    // Forms that only the kernel's own parser knows ("all", "N" for the last CPU, "0-7:1/2") are its business.
    if value == "all" || value.contains(['N', ':']) {
        return None;
    }
    let Ok(cpus) = value.parse::<CpuList>() else {
        return Some(format!("{name}={value}: \"{value}\" is no CPU list"));
    };
    let beyond: CpuList = cpus.iter().filter(|cpu| !possible.contains(*cpu)).collect();
    (!possible.is_empty() && !beyond.is_empty())
        .then(|| format!("{name}={value}: there is no CPU {beyond} on this machine"))
}

/// Kernel version as (major, minor), from "6.12.117+deb12-rt-amd64".
pub(super) fn version(facts: &Facts) -> Option<(u32, u32)> {
    let mut numbers = facts.text("/proc/sys/kernel/osrelease")?.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn known_faults(facts: &Facts) -> Vec<Found> {
    let path = "/proc/sys/kernel/osrelease";
    let Some(version) = version(facts) else { return vec![Found::unknown(facts.reason(path))] };
    let mut found = Vec::new();
    let quotas = facts.hierarchy.quotas;
    if version < (6, 18) && quotas > 0 {
        let title = format!(
            "before 6.18 a fair thread can be throttled while it holds a lock in the kernel; readers of such locks are \
             not boosted, so a real-time thread may wait for the next quota period ({quotas} cgroups have a quota)"
        );
        let serious = facts.is_realtime() && facts.workload().next().is_some();
        found.push(
            Found::warning_if(serious, title)
                .file(facts, path)
                .seen("cgroups with a CPU quota", quotas.to_string())
                .by_hand("keep quotas away from whatever shares files, pipes or memory with real-time processes, or use 6.18 or later", "boot the old kernel"),
        );
    }
    if ((6, 12)..(7, 0)).contains(&version) && facts.has_function("fair_server_init") != Some(false) {
        found.push(
            Found::info("the fair server of 6.12 to 6.19 can get stuck or start late (fixed in 7.0 by 115135422562 and 02640d8886a1; stable releases may have the fixes): do not rely on it as a safety net")
                .file(facts, path),
        );
    }
    found
}
