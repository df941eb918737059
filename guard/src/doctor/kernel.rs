//! Checks of the kernel itself: how it was built, how it rations real-time time, what it was booted with, and which
//! faults its version is known for.

use super::facts::{Facts, HookedProgram, Process};
use super::finding::{Check, Found};
use super::{runtimes, spelling};
use crate::snapshot::{CgroupLayout, CpuList, MAX_CPU};

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
        looks_at: "boot options that do not exist, are misspelt, say nothing, or do not help",
        why: "The kernel ignores what it does not know without a word that anybody sees: the node is believed to be set \
              up, and is not.",
        link: "https://docs.kernel.org/admin-guide/kernel-parameters.html",
        rule: boot_options,
    },
    Check {
        id: "kernel.hooked_programs",
        looks_at: "BPF programs of others on tracepoints of the scheduler, and what a run of them takes",
        why: "They run at every switch or wake-up on every CPU, isolated or not, under the run-queue lock: what they take is \
              added to each latency.",
        link: "https://docs.kernel.org/admin-guide/sysctl/kernel.html#bpf-stats-enabled",
        rule: hooked_programs,
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
/// What a program may take of each switch before it is a warning, ns: more than a switch itself takes on common processors.
const DEAR_NS: u64 = 1000;
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
    let starved = starved(facts);
    if starved.is_empty() {
        return vec![evidence(Found::info(
            "real-time time is rationed per cgroup: a new cgroup has none until cpu.rt_runtime_us is written, from the top down",
        ))];
    }
    // Together they must stay below what the root has, less what others were given.
    let whole = facts.cgroups.get("/").and_then(|root| root.rt_runtime_us).or_else(|| facts.number(RT_RUNTIME));
    let whole = whole.filter(|us| *us > 0).unwrap_or(DEFAULT_RT_RUNTIME_US);
    let given = given(facts, &starved);
    let mut share = (whole - given) / i64::try_from(starved.len() + 1).unwrap_or(i64::MAX);
    // What is above a starved cgroup may have more than it needs, and keeps it.
    while share > 0 && needed(facts, &starved, share, "/") > whole {
        share /= 2;
    }
    starved
        .iter()
        .map(|path| {
            let title =
                format!("{path}: processes may be real-time, but its cpu.rt_runtime_us is 0: FIFO and RR are refused");
            let mut found = evidence(Found::critical(title));
            let mut up: Vec<_> = facts.lineage(path).filter(|(above, _)| *above != "/").collect();
            up.reverse();
            for (above, cgroup) in up {
                let Some(old) = cgroup.rt_runtime_us else { continue };
                let file = format!("{}/cpu.rt_runtime_us", cgroup.dir);
                found = found.seen(&file, old.to_string());
                let needed = needed(facts, &starved, share, above);
                if share > 0 && (0..needed).contains(&old) {
                    found = found.write(&file, &needed.to_string(), &old.to_string());
                }
            }
            if share <= 0 {
                found = found.by_hand(
                    format!("lower cpu.rt_runtime_us of other cgroups: they have {given} of the root's {whole} us"),
                    "the old values",
                );
            }
            let container = facts.processes.iter().find(|one| one.cgroup.as_deref() == Some(*path));
            let container = container.and_then(|one| one.container.as_ref());
            let (change, undo) = runtimes::give_rt_time(container, whole, share);
            found.by_hand(change, undo)
        })
        .collect()
}

/// The cgroups without real-time time that hold processes which may be real-time, the operating system's own left out.
fn starved(facts: &Facts) -> Vec<&str> {
    let was_meant_to = |process: &Process| process.rtprio_limit.is_some_and(|limit| limit > 0);
    // Whoever has all capabilities may, too; but services that run as root have them all.
    let may = |process: &Process| {
        process.is_ours() && (process.has_sys_nice() == Some(true) || was_meant_to(process))
            || process.is_other_service() && was_meant_to(process)
    };
    let without_time = facts.cgroups.iter().filter(|(path, cgroup)| *path != "/" && cgroup.rt_runtime_us == Some(0));
    without_time
        .map(|(path, _)| path.as_str())
        .filter(|path| facts.processes.iter().any(|one| one.cgroup.as_deref() == Some(*path) && may(one)))
        .collect()
}

/// The cgroup above, for all but the root.
fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

/// Real-time time that others beside the starved cgroups and beside what is above them have, us.
fn given(facts: &Facts, starved: &[&str]) -> i64 {
    let on_the_way = |path: &str| starved.iter().any(|one| facts.lineage(one).any(|(above, _)| above == path));
    let beside = facts.cgroups.iter().filter(|(path, _)| !on_the_way(path) && parent(path).is_some_and(on_the_way));
    beside.filter_map(|(_, cgroup)| cgroup.rt_runtime_us).filter(|us| *us > 0).sum()
}

/// Real-time time that a cgroup needs so that each starved one in it can have `share`, us: the kernel lets no cgroup's
/// children have more together than it has.
fn needed(facts: &Facts, starved: &[&str], share: i64, path: &str) -> i64 {
    let below: i64 = facts
        .cgroups
        .iter()
        .filter(|(child, _)| parent(child) == Some(path))
        .map(|(child, cgroup)| {
            let has = cgroup.rt_runtime_us.unwrap_or(0).max(0);
            has.max(needed(facts, starved, share, child))
        })
        .sum();
    below + if starved.contains(&path) { share } else { 0 }
}

fn hooked_programs(facts: &Facts) -> Vec<Found> {
    let Some(programs) = &facts.hooked else {
        return vec![Found::unknown("programs on scheduler hooks are hidden: run guard doctor as root")];
    };
    if programs.is_empty() {
        return vec![Found::ok("nobody who can be seen has a program on a tracepoint of the scheduler")];
    }
    let mean = |one: &HookedProgram| one.run_time_ns.checked_div(one.runs);
    let dear = programs.iter().any(|one| mean(one).is_some_and(|ns| ns >= DEAR_NS));
    let mut holders: Vec<&str> = Vec::new();
    for one in programs {
        if !holders.contains(&one.holder.as_str()) {
            holders.push(&one.holder);
        }
    }
    let title = format!("{} programs run at each switch or wake-up: of {}", programs.len(), holders.join(", "));
    let mut found = Found::warning_if(dear && facts.workload().next().is_some(), title);
    for one in programs {
        let cost = match mean(one) {
            Some(ns) => format!("{ns} ns a run, {} runs", one.runs),
            None => "its runs were not counted".to_owned(),
        };
        found = found.seen(format!("{}, program {} on {}", one.holder, one.program, one.hook), cost);
    }
    let switch = "/proc/sys/kernel/bpf_stats_enabled";
    if facts.text(switch) == Some("0") {
        found = found.file(facts, switch).by_hand(
            "to see what they take, for a while since counting takes time itself: sysctl -w kernel.bpf_stats_enabled=1",
            "sysctl -w kernel.bpf_stats_enabled=0",
        );
    }
    vec![
        found
            .by_hand(format!("stop {} while the plant runs, or let them trace less", holders.join(", ")), "start them"),
    ]
}

fn boot_options(facts: &Facts) -> Vec<Found> {
    let cmdline = "/proc/cmdline";
    if facts.text(cmdline).is_none() {
        return vec![Found::unknown(facts.reason(cmdline))];
    }
    let mut found = Vec::new();
    for word in facts.boot_options() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        // The kernel takes one for the other.
        let name = name.replace('-', "_");
        let Some((complaint, instead)) = complaint_of(facts, &name, value) else { continue };
        let one = Found::warning(complaint).seen(cmdline, word);
        let one = match instead {
            Some(right) => one.by_hand(
                format!("write {right} instead of {word} on the kernel's command line"),
                format!("write {word} again"),
            ),
            None => one.by_hand(format!("take {word} out of the kernel's command line"), format!("put {word} back")),
        };
        found.push(one.reboot());
    }
    found
}

/// What is wrong with a boot option, and what it should be where that is known.
fn complaint_of(facts: &Facts, name: &str, value: Option<&str>) -> Option<(String, Option<String>)> {
    let plain = |complaint: String| (complaint, None);
    match name {
        "isolcpus" => isolcpus(facts, value.unwrap_or_default()),
        "nohz_full" if facts.text("/sys/devices/system/cpu/nohz_full").is_none() => {
            Some(plain("the kernel lacks CONFIG_NO_HZ_FULL: nohz_full= has no effect".to_owned()))
        }
        // rcu_nocbs without a list is an option, too.
        "nohz_full" | "rcu_nocbs" | "irqaffinity" => cpu_list(facts, name, value?).map(plain),
        "sched_uclamp" => Some(plain(
            "the kernel has no option sched_uclamp; utilisation clamping never takes FIFO threads out of their class"
                .to_owned(),
        )),
        "systemd.unified_cgroup_hierarchy" if matches!(value, Some("0" | "no" | "false")) => Some(plain(
            "cgroup v1 has the same CPU quotas as v2, so this mends no throttling; systemd 258 and later refuse to boot with v1".to_owned(),
        )),
        _ => {
            let right = spelling::meant(name, OPTIONS)?;
            let instead = value.map_or_else(|| right.to_owned(), |value| format!("{right}={value}"));
            Some((format!("the kernel has no option {name}, and ignores it: {right} is the right word"), Some(instead)))
        }
    }
}

/// Options that nodes for real-time work are booted with.
const OPTIONS: &[&str] = &[
    "amd_pstate",
    "clocksource",
    "cpuidle.off",
    "default_hugepagesz",
    "hugepages",
    "hugepagesz",
    "intel_idle.max_cstate",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "nmi_watchdog",
    "nohz_full",
    "nosoftlockup",
    "numa_balancing",
    "processor.max_cstate",
    "rcu_nocb_poll",
    "rcu_nocbs",
    "rcutree.kthread_prio",
    "skew_tick",
    "threadirqs",
    "transparent_hugepage",
    "workqueue.unbound_cpus",
];

/// What is wrong with the value of isolcpus=, kernel/sched/isolation.c: flags, each with a comma behind it, and then
/// the CPUs.
fn isolcpus(facts: &Facts, value: &str) -> Option<(String, Option<String>)> {
    let mut rest = value;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    while rest.starts_with(|first: char| first.is_ascii_alphabetic()) {
        let Some((flag, after)) = rest.split_once(',') else {
            let complaint =
                format!("isolcpus={value} names no CPUs: \"{rest}\" stands where they belong, so none is isolated");
            return Some((complaint, None));
        };
        let is_known = matches!(flag, "nohz" | "domain" | "managed_irq");
        (if is_known { &mut known } else { &mut unknown }).push(flag);
        rest = after;
    }
    if rest.is_empty() {
        return Some((format!("isolcpus={value} names no CPUs: none is isolated"), None));
    }
    if !unknown.is_empty() {
        let complaint = format!("isolcpus= has no flag {}: only nohz, domain and managed_irq", unknown.join(", "));
        return Some((complaint, None));
    }
    if let Some(complaint) = cpu_list(facts, "isolcpus", rest) {
        return Some((complaint, None));
    }
    // Without any flag domain is meant. A partition may do its part, or a second option.
    let partitioned = facts.partitioned();
    let cpus = facts.boot_cpus(rest).unwrap_or_default();
    let shared: CpuList = cpus.iter().filter(|cpu| !partitioned.contains(*cpu)).collect();
    let again = facts.boot_options().filter(|word| word.starts_with("isolcpus=")).count() > 1;
    if known.is_empty() || known.contains(&"domain") || shared.is_empty() || again {
        return None;
    }
    let flags = known.join(",");
    let complaint = format!(
        "isolcpus={value} lacks the flag domain: with {flags} alone the scheduler still balances work onto CPUs {shared}"
    );
    Some((complaint, Some(format!("isolcpus={flags},domain,{rest}"))))
}

fn cpu_list(facts: &Facts, name: &str, value: &str) -> Option<String> {
    if facts.boot_cpus(value).is_ok_and(|cpus| !cpus.is_empty()) {
        return None;
    }
    let possible = facts.cpus("/sys/devices/system/cpu/possible").unwrap_or_default();
    let beyond = CpuList::from_boot_option(value, MAX_CPU + 1).unwrap_or_default();
    let beyond: CpuList = beyond.iter().filter(|cpu| !possible.contains(*cpu)).collect();
    Some(if beyond.is_empty() || possible.is_empty() {
        format!("{name}={value}: \"{value}\" is no CPU list")
    } else {
        format!("{name}={value}: there is no CPU {beyond} on this machine")
    })
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
