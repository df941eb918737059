//! Checks of the CPUs: which are set apart, and whether they are always awake, at one speed and undisturbed.

use std::collections::BTreeSet;

use super::facts::{Facts, Process, Smi};
use super::finding::{Check, Found};
use super::runtimes;
use crate::snapshot::CpuList;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "cpu.isolation",
        looks_at: "whether CPUs are set apart for real-time work",
        why: "On a CPU that is not set apart the scheduler balances other work onto it, timers and RCU callbacks of \
              others run there, and the tick never stops.",
        link: "https://docs.kernel.org/admin-guide/kernel-parameters.html",
        rule: isolation,
    },
    Check {
        id: "cpu.isolation_agrees",
        looks_at: "whether isolcpus, nohz_full, rcu_nocbs and irqaffinity name the same CPUs",
        why: "Each moves one kind of disturbance away. A CPU that is in one list and not in the others is quiet most of \
              the time, which is worse to find than one that never is.",
        link: "https://docs.kernel.org/admin-guide/kernel-per-CPU-kthreads.html",
        rule: isolation_agrees,
    },
    Check {
        id: "cpu.others",
        looks_at: "who else may run on the CPUs that are set apart, by affinity",
        why: "Lists at boot say where nobody goes by himself. A container gets its CPUs from its runtime and is let onto these, \
              and once it woke up there nothing moves it away.",
        link: "https://docs.kernel.org/admin-guide/cgroup-v2.html#cpuset",
        rule: others,
    },
    Check {
        id: "cpu.governor",
        looks_at: "the frequency governor of the CPUs of real-time work",
        why: "A CPU that was clocked down works slowly until the governor notices, and changing the clock itself takes \
              tens of microseconds.",
        link: "https://docs.kernel.org/admin-guide/pm/cpufreq.html",
        rule: governor,
    },
    Check {
        id: "cpu.idle",
        looks_at: "idle states with an exit latency above 20 us on the CPUs of real-time work",
        why: "Leaving a deep idle state delays every wake-up from it by the state's exit latency, which the kernel itself \
              states in the file shown.",
        link: "https://docs.kernel.org/admin-guide/pm/cpuidle.html",
        rule: idle,
    },
    Check {
        id: "cpu.smt",
        looks_at: "hardware threads that share a core with a CPU of real-time work",
        why: "Two hardware threads share one core's units and caches: what runs on the sibling slows the loop down, and \
              no scheduler setting helps.",
        link: "https://docs.kernel.org/admin-guide/kernel-parameters.html",
        rule: smt,
    },
    Check {
        id: "cpu.turbo",
        looks_at: "turbo and boost frequencies",
        why: "They come and go with temperature and with what the other cores do, so the same cycle takes a different \
              time.",
        link: "https://docs.kernel.org/admin-guide/pm/intel_pstate.html",
        rule: turbo,
    },
    Check {
        id: "cpu.clocksource",
        looks_at: "the clock source",
        why: "With hpet, acpi_pm or jiffies each reading of the clock takes a microsecond or more and a system call, and \
              all CPUs share one register.",
        link: "https://docs.kernel.org/timers/timekeeping.html",
        rule: clocksource,
    },
    Check {
        id: "cpu.smi",
        looks_at: "system management interrupts, where the processor counts them",
        why: "The firmware stops all CPUs for as long as it likes, up to milliseconds, and no kernel can see or prevent \
              it.",
        link: "https://docs.kernel.org/trace/hwlat_detector.html",
        rule: smi,
    },
];

const CPU: &str = "/sys/devices/system/cpu";
/// Exit latency above which an idle state matters, us: C1 and C1E of common processors are below.
const DEEP_US: i64 = 20;

/// CPUs that a boot option names; `None` when it is not there, or the kernel refuses its list, see kernel.boot_options.
fn boot_list(facts: &Facts, name: &str) -> Option<CpuList> {
    facts.boot_cpus(facts.boot_option(name)?).ok()
}

/// CPUs whose RCU callbacks were moved at boot. Of a list that it refuses the kernel takes all (rcu_nocb_setup()).
fn without_callbacks(facts: &Facts) -> CpuList {
    match facts.boot_option("rcu_nocbs") {
        Some(list) => facts.boot_cpus(list).unwrap_or_else(|_| facts.online()),
        None => CpuList::default(),
    }
}

fn isolation(facts: &Facts) -> Vec<Found> {
    let apart = facts.set_apart();
    if !apart.is_empty() {
        let found = Found::ok(format!("CPUs {apart} are set apart"))
            .file(facts, &format!("{CPU}/isolated"))
            .file(facts, &format!("{CPU}/nohz_full"));
        let partitions = facts.hierarchy.partitions.iter();
        return vec![partitions.fold(found, |found, one| {
            let cpus = if one.file.ends_with(".isolated") { String::new() } else { format!(" (CPUs {})", one.cpus) };
            found.seen(&one.file, format!("{}{cpus}", one.value))
        })];
    }
    let online = facts.online();
    if online.is_empty() {
        return vec![Found::unknown(facts.reason(&format!("{CPU}/online")))];
    }
    if online.len() < 2 {
        return vec![Found::info("there is only one CPU: real-time work shares it with everything else")];
    }
    let rt = facts.rt_cpus();
    // Where threads are pinned, those; else the last CPU.
    let wanted: CpuList = if rt.is_empty() { online.iter().last().into_iter().collect() } else { rt };
    let keep: CpuList = online.iter().filter(|cpu| !wanted.contains(*cpu)).collect();
    let mut options = format!("isolcpus=managed_irq,domain,{wanted} irqaffinity={keep}");
    // Only what this kernel was built for.
    if facts.text(&format!("{CPU}/nohz_full")).is_some() {
        options += &format!(" nohz_full={wanted}");
    }
    if facts.kernel.options.get("RCU_NOCB_CPU").is_none_or(|value| value == "y") {
        options += &format!(" rcu_nocbs={wanted}");
    }
    vec![
        Found::warning_if(facts.workload().next().is_some(), "no CPU is set apart for real-time work")
            .file(facts, &format!("{CPU}/isolated"))
            .file(facts, &format!("{CPU}/nohz_full"))
            .boot_option(&options),
    ]
}

fn isolation_agrees(facts: &Facts) -> Vec<Found> {
    let apart = facts.set_apart();
    if apart.is_empty() {
        return vec![Found::ok("no CPU is set apart, see cpu.isolation")];
    }
    let (isolated_file, nohz_file) = (format!("{CPU}/isolated"), format!("{CPU}/nohz_full"));
    let at_boot = facts.set_apart_at_boot();
    let isolated = facts.isolated();
    let nohz = facts.cpus(&nohz_file).unwrap_or_default();
    let online = facts.online();
    let mut found = Vec::new();
    let both = |one: Found| one.file(facts, &isolated_file).file(facts, &nohz_file);
    if facts.housekeeping().is_empty() {
        found.push(
            both(Found::critical(format!("all CPUs ({online}) are set apart: none is left for everything else")))
                .by_hand(
                    "leave CPU 0 at least out of isolcpus=, nohz_full= and rcu_nocbs= on the kernel's command line",
                    "the old command line",
                )
                .reboot(),
        );
    }
    let without = |list: &CpuList| -> CpuList { apart.iter().filter(|cpu| !list.contains(*cpu)).collect() };
    let not_isolated = without(&isolated);
    if !not_isolated.is_empty() {
        found.push(
            both(Found::warning(format!(
                "CPUs {not_isolated} have no tick, but the scheduler still balances work onto them"
            )))
            .boot_option(&format!("isolcpus=managed_irq,domain,{apart}")),
        );
    }
    let ticking = without(&nohz);
    if !ticking.is_empty() {
        let one = both(Found::info(format!("CPUs {ticking} are isolated, but the tick goes on there")));
        found.push(if facts.text(&nohz_file).is_some() { one.boot_option(&format!("nohz_full={apart}")) } else { one });
    }
    // nohz_full implies rcu_nocbs for its CPUs.
    let nocbs = without_callbacks(facts);
    let callbacks: CpuList = apart.iter().filter(|cpu| !nocbs.contains(*cpu) && !nohz.contains(*cpu)).collect();
    if !callbacks.is_empty() {
        let offered = facts.kernel.options.get("RCU_NOCB_CPU").is_none_or(|value| value == "y");
        // Whoever makes a partition at run time may not want to boot for the rest.
        let serious = offered && callbacks.iter().any(|cpu| at_boot.contains(cpu));
        found.push(
            Found::warning_if(serious, format!("RCU callbacks still run on CPUs {callbacks}"))
                .seen(
                    "/proc/cmdline",
                    facts
                        .boot_option("rcu_nocbs")
                        .map_or("no rcu_nocbs=".to_owned(), |list| format!("rcu_nocbs={list}")),
                )
                .boot_option(&format!("rcu_nocbs={apart}")),
        );
    }
    if let Some(irqs) = boot_list(facts, "irqaffinity") {
        let mixed: CpuList = irqs.iter().filter(|cpu| apart.contains(*cpu)).collect();
        if !mixed.is_empty() {
            found.push(
                Found::warning(format!("irqaffinity= sends interrupts to CPUs {mixed}, which are set apart"))
                    .seen("/proc/cmdline", format!("irqaffinity={irqs}"))
                    .boot_option(&format!("irqaffinity={}", facts.housekeeping())),
            );
        }
    }
    found
}

/// Others on the isolated CPUs. Where only the tick was taken away everybody may run there, see cpu.isolation_agrees.
fn others(facts: &Facts) -> Vec<Found> {
    let apart = facts.isolated();
    if apart.is_empty() {
        return vec![Found::ok("no CPU is isolated, see cpu.isolation")];
    }
    let strangers: Vec<(&Process, &CpuList)> =
        facts.processes.iter().filter_map(|process| Some((process, lets_onto(facts, process, &apart)?))).collect();
    if strangers.is_empty() {
        return vec![Found::ok(format!("nobody else who was looked at may run on CPUs {apart}"))];
    }
    let names: Vec<String> = strangers.iter().take(3).map(|(process, _)| process.label()).collect();
    let more = if strangers.len() > 3 { format!(" and {} more", strangers.len() - 3) } else { String::new() };
    let title = format!("{}{more} may run on CPUs {apart}, which are set apart for real-time work", names.join(", "));
    let mut found = Found::warning_if(facts.workload().next().is_some(), title);
    let keep = facts.housekeeping();
    let mut for_good = BTreeSet::new();
    for (process, cpus) in strangers {
        let pid = process.pid;
        let whose = process.cgroup.as_deref().unwrap_or("?");
        found = found.seen(format!("/proc/{pid}/status ({whose})"), format!("Cpus_allowed_list {cpus}"));
        if !keep.is_empty() {
            let taskset = |cpus: &CpuList| format!("taskset -a -p -c {cpus} {pid}");
            found = found.command(taskset(&keep), taskset(cpus));
            for_good.extend(runtimes::keep_off(process.container.as_ref(), &keep));
        }
    }
    if keep.is_empty() {
        for_good
            .insert(("leave a CPU for everybody else, see cpu.isolation_agrees".to_owned(), "none needed".to_owned()));
    }
    vec![for_good.into_iter().fold(found, |found, (change, undo)| found.by_hand(change, undo))]
}

/// The CPU list that lets a process onto CPUs where only real-time work belongs.
fn lets_onto<'a>(facts: &Facts, process: &'a Process, apart: &CpuList) -> Option<&'a CpuList> {
    let has_rt = |process: &Process| process.realtime().next().is_some();
    let was_meant_to = process.was_given_sys_nice() || process.rtprio_limit.is_some_and(|limit| limit > 0);
    // What shares a cgroup with real-time threads belongs to them.
    let belongs = || facts.workload().any(|ours| ours.cgroup == process.cgroup);
    if has_rt(process) || was_meant_to || belongs() {
        return None;
    }
    let online = facts.online();
    let in_use = |cpu: u32| facts.workload().flat_map(Process::realtime).any(|thread| thread.affinity.contains(cpu));
    let mut affinities = process.threads.iter().map(|thread| &thread.affinity);
    affinities.find(|affinity| {
        let there: Vec<u32> = affinity.iter().filter(|cpu| online.contains(*cpu) && apart.contains(*cpu)).collect();
        // Whoever was bound to such CPUs alone, and to none that a real-time thread uses, was meant to be there.
        let anywhere = affinity.iter().any(|cpu| online.contains(cpu) && !apart.contains(cpu));
        !there.is_empty() && (anywhere || there.into_iter().any(in_use))
    })
}

fn governor(facts: &Facts) -> Vec<Found> {
    let awake = facts.cpus_to_keep_awake();
    let all = facts.matching(&format!("{CPU}/cpu*/cpufreq/scaling_governor"));
    if all.is_empty() {
        return vec![Found::ok("the kernel does not scale frequencies here")];
    }
    let slow: Vec<_> = all
        .into_iter()
        .filter(|(_, stars, governor)| {
            of_cpu(stars).is_some_and(|cpu| awake.contains(cpu)) && *governor != "performance"
        })
        .collect();
    let Some((_, _, first)) = slow.first() else {
        return vec![Found::ok("the governor of these CPUs is performance")];
    };
    let serious = facts.is_realtime() || facts.workload().next().is_some();
    let mut found = Found::warning_if(serious, format!("{} CPUs of real-time work are clocked by {first}", slow.len()));
    for (path, _, governor) in &slow {
        found = found.seen(*path, *governor).write(path, "performance", governor);
    }
    vec![found]
}

fn of_cpu(stars: &[&str]) -> Option<u32> {
    stars.first()?.parse().ok()
}

fn idle(facts: &Facts) -> Vec<Found> {
    let awake = facts.cpus_to_keep_awake();
    let limit = facts.dma_latency.limit_us.as_ref().ok().copied().map(i64::from);
    let mut deep = Vec::new();
    let latencies = facts.matching(&format!("{CPU}/cpu*/cpuidle/state*/latency"));
    if latencies.is_empty() {
        return vec![Found::ok("the kernel offers no idle states here")];
    }
    for (path, stars, latency) in latencies {
        let (Some(cpu), Ok(us)) = (of_cpu(&stars), latency.parse::<i64>()) else { continue };
        let dir = path.trim_end_matches("/latency");
        let disabled = facts.number(&format!("{dir}/disable")) == Some(1);
        // "n/a" forbids any latency, 0 forbids none.
        let own = match facts.text(&format!("{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us")) {
            Some("n/a") => Some(0),
            Some(text) => text.parse::<i64>().ok().filter(|us| *us > 0),
            None => None,
        };
        let forbidden = own.is_some_and(|own| own < us) || limit.is_some_and(|limit| limit < us);
        if awake.contains(cpu) && us > DEEP_US && !disabled && !forbidden {
            deep.push((dir, us));
        }
    }
    let holders = facts.dma_latency.holders.join(", ");
    if deep.is_empty() {
        let ok = Found::ok("no deep idle state is used on these CPUs");
        return vec![if holders.is_empty() {
            ok
        } else {
            ok.seen("/dev/cpu_dma_latency", format!("held by {holders}"))
        }];
    }
    let worst = deep.iter().map(|(_, us)| *us).max().unwrap_or_default();
    if let Err(reason) = &facts.dma_latency.limit_us
        && holders.is_empty()
    {
        return vec![Found::unknown(format!(
            "idle states of up to {worst} us are enabled; whether a process forbids them cannot be seen ({reason}): run guard doctor as root"
        ))];
    }
    let serious = facts.is_realtime() || facts.workload().next().is_some();
    let title = format!("leaving idle may take {worst} us on CPUs of real-time work");
    let mut found = Found::warning_if(serious, title);
    if let Some(limit) = limit {
        found = found.seen(
            "/dev/cpu_dma_latency",
            format!("{limit} us{}", if holders.is_empty() { String::new() } else { format!(", held by {holders}") }),
        );
    }
    for (dir, us) in deep {
        found = found.seen(format!("{dir}/latency"), us.to_string()).write(&format!("{dir}/disable"), "1", "0");
    }
    vec![found.by_hand(
        "or let the program hold /dev/cpu_dma_latency open with the value 0 written to it, as cyclictest does",
        "close it",
    )]
}

fn smt(facts: &Facts) -> Vec<Found> {
    let active = format!("{CPU}/smt/active");
    let online = facts.online();
    let rt = facts.rt_cpus();
    let shared: Vec<_> = facts
        .matching(&format!("{CPU}/cpu*/topology/thread_siblings_list"))
        .into_iter()
        .filter(|(_, stars, list)| {
            let siblings = list.parse::<CpuList>().unwrap_or_default();
            of_cpu(stars).is_some_and(|cpu| {
                (rt.is_empty() || rt.contains(cpu)) && siblings.iter().any(|one| one != cpu && online.contains(one))
            })
        })
        .collect();
    let Some((path, _, list)) = shared.first() else {
        return vec![Found::ok("no CPU of real-time work shares its core").file(facts, &active)];
    };
    let mut found = Found::warning_if(
        !rt.is_empty(),
        format!("{} CPUs share their core with another hardware thread", shared.len()),
    )
    .seen(*path, *list)
    .file(facts, &active);
    let control = format!("{CPU}/smt/control");
    if facts.text(&control) == Some("on") {
        found = found.write(&control, "off", "on");
    }
    vec![found.by_hand(
        "for every boot: nosmt on the kernel's command line, or turn hardware threads off in the firmware",
        "take it out again",
    )]
}

fn turbo(facts: &Facts) -> Vec<Found> {
    let (no_turbo, boost) = (format!("{CPU}/intel_pstate/no_turbo"), format!("{CPU}/cpufreq/boost"));
    if facts.text(&no_turbo) == Some("0") {
        return vec![Found::info("turbo frequencies are used").seen(&no_turbo, "0").write(&no_turbo, "1", "0")];
    }
    if facts.text(&boost) == Some("1") {
        return vec![Found::info("boost frequencies are used").seen(&boost, "1").write(&boost, "0", "1")];
    }
    match [&no_turbo, &boost].into_iter().find(|path| facts.is_unreadable(path)) {
        Some(path) => vec![Found::unknown(facts.reason(path))],
        None => vec![Found::ok("no turbo frequencies are used")],
    }
}

fn clocksource(facts: &Facts) -> Vec<Found> {
    let dir = "/sys/devices/system/clocksource/clocksource0";
    let (path, others) = (format!("{dir}/current_clocksource"), format!("{dir}/available_clocksource"));
    let Some(current) = facts.text(&path) else { return vec![Found::unknown(facts.reason(&path))] };
    if !matches!(current, "hpet" | "acpi_pm" | "pit" | "jiffies" | "refined-jiffies") {
        return vec![Found::ok(format!("the clock source is {current}")).seen(&path, current)];
    }
    let available = facts.text(&others).unwrap_or_default();
    let found = Found::warning(format!("the clock source is {current}")).seen(&path, current).seen(&others, available);
    vec![if available.split_whitespace().any(|name| name == "tsc") {
        found.write(&path, "tsc", current)
    } else {
        found.by_hand(
            "look for \"clocksource\" and \"tsc\" in the kernel's log: why it was given up; update the firmware",
            "none needed",
        )
    }]
}

fn smi(facts: &Facts) -> Vec<Found> {
    let source = "/dev/cpu/0/msr, MSR_SMI_COUNT";
    vec![match &facts.smi {
        Smi::Unknown(reason) => Found::unknown(format!("system management interrupts are not counted here: {reason}")),
        Smi::Counted { last: 0, .. } => Found::ok("no system management interrupt since reset").seen(source, "0"),
        Smi::Counted { first, last } if last > first => {
            Found::warning(format!("{} system management interrupts while guard doctor looked", last - first))
                .seen(source, format!("{first}, then {last}"))
                .by_hand(
                    "firmware setup: turn off USB legacy support, power and temperature management by the firmware; see with: hwlatdetect",
                    "turn them on again",
                )
        }
        Smi::Counted { last, .. } => {
            Found::info(format!("{last} system management interrupts since reset, none while guard doctor looked")).seen(source, last.to_string())
        }
    }]
}
