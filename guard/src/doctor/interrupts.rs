//! Checks of interrupts, and of the network work that follows them, on the CPUs of real-time work.

use std::collections::BTreeMap;

use super::facts::Facts;
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
        why: "It moves interrupts every ten seconds, also back to where they were taken from. It leaves out CPUs of \
              isolcpus= and nohz_full= by itself, and no others.",
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

/// Names of devices by interrupt number, of the interrupts that have a handler. /proc/interrupts has one column per CPU,
/// then chip, line and names.
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
            (words.len() >= 3).then(|| Some((number.trim().parse().ok()?, (*name).to_owned())))?
        })
        .collect()
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
    let banned: CpuList = ["/etc/default/irqbalance", "/etc/sysconfig/irqbalance"]
        .into_iter()
        .filter_map(|path| facts.text(path))
        .flat_map(str::lines)
        .filter_map(|line| line.trim().strip_prefix("IRQBALANCE_BANNED_CPULIST="))
        .filter_map(|value| value.trim_matches(['"', '\'']).parse::<CpuList>().ok())
        .next_back()
        .unwrap_or_default();
    let apart = facts.set_apart();
    let open: CpuList = rt.iter().filter(|cpu| !apart.contains(*cpu) && !banned.contains(*cpu)).collect();
    if open.is_empty() {
        return vec![Found::ok(format!("irqbalance runs and keeps off CPUs {rt}"))];
    }
    vec![
        Found::warning(format!("irqbalance moves interrupts to CPUs {open} of real-time work"))
            .seen(process.label(), "runs")
            .seen(
                "/etc/default/irqbalance",
                if banned.is_empty() {
                    "no IRQBALANCE_BANNED_CPULIST".to_owned()
                } else {
                    format!("IRQBALANCE_BANNED_CPULIST={banned}")
                },
            )
            .command("systemctl disable --now irqbalance", "systemctl enable --now irqbalance")
            .by_hand(
                format!("or keep it, with IRQBALANCE_BANNED_CPULIST={rt} in /etc/default/irqbalance"),
                "take the line out again",
            ),
    ]
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
