//! Checks of interrupts, and of the network work that follows them, on the CPUs of real-time work.

use std::collections::BTreeMap;

use super::facts::{Facts, Process};
use super::finding::{Check, Found};
use crate::snapshot::CpuList;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "irq.affinity",
        looks_at: "device interrupts that are delivered to CPUs of real-time work",
        why: "Each one interrupts the loop, and its softirqs and threads run there too.",
        link: "https://docs.kernel.org/core-api/irq/irq-affinity.html",
        rule: affinity,
    },
    Check {
        id: "irq.default_affinity",
        looks_at: "where interrupts of devices that come later will go",
        why: "A device that is plugged in or reset gets this affinity for its interrupts.",
        link: "https://docs.kernel.org/core-api/irq/irq-affinity.html",
        rule: default_affinity,
    },
    Check {
        id: "irq.irqbalance",
        looks_at: "irqbalance, and which CPUs it keeps off",
        why: "It moves interrupts every ten seconds, also back to where they were taken from. By itself it leaves out CPUs \
              of isolcpus= and nohz_full=; IRQBALANCE_BANNED_CPULIST, or the older mask IRQBALANCE_BANNED_CPUS, replaces \
              that and does not add to it.",
        link: "https://github.com/Irqbalance/irqbalance/blob/master/irqbalance.1",
        rule: irqbalance,
    },
    Check {
        id: "net.rps",
        looks_at: "receive packet steering onto CPUs of real-time work",
        why: "It hands received packets to these CPUs by an interrupt and a softirq, wherever the device's own interrupt \
              went.",
        link: "https://docs.kernel.org/networking/scaling.html",
        rule: rps,
    },
];

/// Names of devices by interrupt number, of the interrupts that have a handler and can be moved. /proc/interrupts has one
/// column per CPU, then chip, line and names.
fn handlers(facts: &Facts) -> BTreeMap<u32, String> {
    let text = facts.text("/proc/interrupts").unwrap_or_default();
    let cpus = text.lines().next().map_or(0, |line| line.split_whitespace().count());
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let words: Vec<&str> = rest.split_whitespace().skip(cpus).collect();
            let name = words.last()?;
            // "IO-APIC 2-edge timer": with fewer words there is no handler.
            let wanted = words.len() >= 3 && !is_each_cpus_own(&words);
            wanted.then(|| Some((number.trim().parse().ok()?, (*name).to_owned())))?
        })
        .collect()
}

/// Whether each CPU has an interrupt of this kind of its own, which cannot be moved. x86 has no numbers for these. Arm's
/// controller numbers them 16 to 31, and 1056 to 1119 (GICv3.1); RISC-V and LoongArch have a controller in each CPU. A
/// performance counter's is bound by its driver, also where each CPU's has a number of its own.
fn is_each_cpus_own(words: &[&str]) -> bool {
    let line = words.get(1).and_then(|line| line.parse::<u32>().ok());
    let of_gic = matches!(words[0], "GIC" | "GIC-0" | "GICv2" | "GICv3")
        && line.is_some_and(|line| matches!(line, 0..=31 | 1056..=1119));
    let of_cpu = words.contains(&"INTC") || words[0] == "CPUINTC";
    let named =
        |name: &&str| name.starts_with("arch_timer") || name.starts_with("arm-pmu") || name.starts_with("arm_pmu");
    of_gic || of_cpu || words.iter().any(named)
}

fn affinity(facts: &Facts) -> Vec<Found> {
    let rt = facts.rt_cpus();
    if rt.is_empty() {
        return vec![Found::ok("no CPU is kept for real-time work, see cpu.isolation")];
    }
    if facts.text("/proc/interrupts").is_none() {
        return vec![Found::unknown(facts.reason("/proc/interrupts"))];
    }
    let keep = facts.housekeeping();
    let mut there = Vec::new();
    for (number, name) in handlers(facts) {
        // The x86 boot timer cannot be moved and is silent once the local timers run.
        if name == "timer" {
            continue;
        }
        let asked = format!("/proc/irq/{number}/smp_affinity_list");
        let Some(old) = facts.text(&asked) else { continue };
        let effective = format!("/proc/irq/{number}/effective_affinity_list");
        let (file, cpus) = match facts.cpus(&effective).filter(|cpus| !cpus.is_empty()) {
            Some(cpus) => (effective, cpus),
            None => (asked.clone(), facts.cpus(&asked).unwrap_or_default()),
        };
        // The kernel carries a new affinity out at the next interrupt; until then the effective one is the old one.
        let wanted = facts.cpus(&asked).unwrap_or_default();
        if cpus.iter().any(|cpu| rt.contains(cpu)) && wanted.iter().any(|cpu| rt.contains(cpu)) {
            there.push((number, name, file, cpus, asked, old.to_owned()));
        }
    }
    if there.is_empty() {
        return vec![Found::ok(format!("no device interrupt goes to CPUs {rt}"))];
    }
    let mut found = Found::warning(format!("{} device interrupts go to CPUs {rt} of real-time work", there.len()));
    let keep_list = keep.to_string();
    for (number, name, file, cpus, asked, old) in there {
        found = found.seen(format!("{file} ({number}: {name})"), cpus.to_string());
        if !keep.is_empty() {
            found = found.write(&asked, &keep_list, &old);
        }
    }
    vec![found.by_hand(
        format!("interrupts that the kernel spreads itself refuse this; for them, boot with isolcpus=managed_irq,domain,{rt}"),
        "take it out again",
    )]
}

fn default_affinity(facts: &Facts) -> Vec<Found> {
    let path = "/proc/irq/default_smp_affinity";
    let rt = facts.rt_cpus();
    if rt.is_empty() {
        return vec![Found::ok("no CPU is kept for real-time work, see cpu.isolation")];
    }
    let Some(text) = facts.text(path) else { return vec![Found::unknown(facts.reason(path))] };
    let Some(mask) = from_mask(text) else { return vec![Found::unknown(facts.reason(path))] };
    if !mask.iter().any(|cpu| rt.contains(cpu)) {
        return vec![Found::ok(format!("interrupts of new devices keep off CPUs {rt}")).seen(path, text)];
    }
    let found =
        Found::warning(format!("interrupts of new devices may go to CPUs {rt} of real-time work")).seen(path, text);
    let keep = facts.housekeeping();
    vec![if keep.is_empty() { found } else { found.write(path, &to_mask(&keep), text) }]
}

fn irqbalance(facts: &Facts) -> Vec<Found> {
    let Some(process) = facts.runs("irqbalance") else {
        return vec![Found::ok("irqbalance does not run")];
    };
    let rt = facts.rt_cpus();
    if rt.is_empty() {
        return vec![
            Found::info("irqbalance moves interrupts to all CPUs; none is kept for real-time work")
                .seen(process.label(), "runs"),
        ];
    }
    let apart = facts.set_apart_at_boot();
    let banned = banned(facts, process);
    let kept_off = banned.as_ref().map_or(&apart, |banned| &banned.cpus);
    let open: CpuList = rt.iter().filter(|cpu| !kept_off.contains(*cpu)).collect();
    if open.is_empty() {
        return vec![Found::ok(format!("irqbalance runs and keeps off CPUs {rt}"))];
    }
    let mut title = format!("irqbalance moves interrupts to CPUs {open} of real-time work");
    if let Some(banned) = &banned {
        if !banned.understood {
            title += &format!(": it does not understand {}", banned.assignment);
        } else if open.iter().any(|cpu| apart.contains(cpu)) {
            title += &format!(": {} replaces what it leaves out by itself", banned.assignment);
        }
    }
    let usual = IRQBALANCE_FILES.into_iter().rev().find(|file| facts.text(file).is_some());
    let file = usual.unwrap_or("/etc/default/irqbalance");
    let found = Found::warning(title).seen(process.label(), "runs");
    let found = match &banned {
        Some(banned) => found.seen(&banned.source, &banned.assignment),
        None => found.seen(file, "neither IRQBALANCE_BANNED_CPULIST nor IRQBALANCE_BANNED_CPUS"),
    };
    let all: CpuList = rt.iter().chain(apart.iter()).collect();
    vec![
        found
            .command("systemctl disable --now irqbalance", "systemctl enable --now irqbalance")
            .by_hand(
                format!("or keep it, with IRQBALANCE_BANNED_CPULIST={all} in {file} and without IRQBALANCE_BANNED_CPUS, then: systemctl restart irqbalance"),
                "the old file",
            ),
    ]
}

/// Where distributions keep irqbalance's variables: upstream's own defaults, then Gentoo, Arch, Fedora and SUSE, Debian.
const IRQBALANCE_FILES: [&str; 5] = [
    "/usr/lib/irqbalance/defaults.env",
    "/etc/conf.d/irqbalance",
    "/etc/irqbalance.env",
    "/etc/sysconfig/irqbalance",
    "/etc/default/irqbalance",
];

/// The CPUs that somebody told irqbalance to leave out.
struct Banned {
    source: String,
    assignment: String,
    cpus: CpuList,
    understood: bool,
}

/// What irqbalance was told, its setup_banned_cpus(): the mask counts before the list, an empty value does not count, and
/// one that it does not understand bans nothing. What the running one was started with counts before files.
fn banned(facts: &Facts, process: &Process) -> Option<Banned> {
    let set = |name: &str| -> Option<(String, String)> {
        let (source, value) = match &process.environment {
            Some(environment) => (format!("/proc/{}/environ", process.pid), environment.get(name)?.as_str()),
            None => {
                let mut files = IRQBALANCE_FILES.into_iter().rev();
                files.find_map(|file| Some((file.to_owned(), variable(facts.text(file)?, name)?)))?
            }
        };
        (!value.is_empty()).then(|| (source, value.to_owned()))
    };
    let of = |name: &str, parse: fn(&str) -> Option<CpuList>| {
        let (source, value) = set(name)?;
        let cpus = parse(&value);
        let understood = cpus.is_some();
        Some(Banned { source, assignment: format!("{name}={value}"), cpus: cpus.unwrap_or_default(), understood })
    };
    of("IRQBALANCE_BANNED_CPUS", from_mask).or_else(|| of("IRQBALANCE_BANNED_CPULIST", |list| list.parse().ok()))
}

/// The last value of a variable in a file that a shell or systemd reads: perhaps after `export`, perhaps in quotes, perhaps
/// with a comment behind it.
fn variable<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut assignments = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        line.strip_prefix(name)?.strip_prefix('=').map(str::trim_start)
    });
    let value = |text: &'a str| match text.strip_prefix(['"', '\'']) {
        Some(quoted) => quoted.split(['"', '\'']).next().unwrap_or_default().trim(),
        None => text.split([' ', '\t', ';', '#']).next().unwrap_or_default(),
    };
    assignments.next_back().map(value)
}

fn rps(facts: &Facts) -> Vec<Found> {
    let rt = facts.rt_cpus();
    if rt.is_empty() {
        return vec![Found::ok("no CPU is kept for real-time work, see cpu.isolation")];
    }
    let steered: Vec<_> = facts
        .matching("/sys/class/net/*/queues/rx-*/rps_cpus")
        .into_iter()
        .filter(|(_, _, mask)| from_mask(mask).is_some_and(|cpus| cpus.iter().any(|cpu| rt.contains(cpu))))
        .collect();
    if steered.is_empty() {
        return vec![Found::ok(format!("no received packets are steered to CPUs {rt}"))];
    }
    let mut found =
        Found::warning(format!("{} receive queues steer packets to CPUs {rt} of real-time work", steered.len()));
    for (path, _, mask) in steered {
        let kept: CpuList = from_mask(mask).unwrap_or_default().iter().filter(|cpu| !rt.contains(*cpu)).collect();
        found = found.seen(path, mask).write(path, &to_mask(&kept), mask);
    }
    vec![found]
}

/// CPUs of a mask in the kernel's form: hexadecimal, 32 bits between commas, the highest first.
pub(super) fn from_mask(text: &str) -> Option<CpuList> {
    let mut cpus = Vec::new();
    for (group, word) in text.trim().rsplit(',').enumerate() {
        let bits = u32::from_str_radix(word, 16).ok()?;
        let first = u32::try_from(group).ok()?.checked_mul(32)?;
        cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| first + bit));
    }
    Some(cpus.into_iter().collect())
}

/// The mask of a set of CPUs.
pub(super) fn to_mask(cpus: &CpuList) -> String {
    let groups = cpus.iter().last().map_or(1, |last| last / 32 + 1);
    let word = |group: u32| {
        let bits = (0..32).filter(|bit| cpus.contains(group * 32 + bit)).fold(0u32, |bits, bit| bits | 1 << bit);
        if group + 1 == groups { format!("{bits:x}") } else { format!("{bits:08x}") }
    };
    (0..groups).rev().map(word).collect::<Vec<_>>().join(",")
}
