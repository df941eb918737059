//! Checks of memory management and of the kernel's watchdogs: what moves, merges or faults pages behind a program's
//! back, and what looks at every CPU from time to time.

use super::facts::Facts;
use super::finding::{Check, Found};
use crate::snapshot::CpuList;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "memory.thp",
        looks_at: "transparent huge pages",
        why: "Collapsing and splitting huge pages moves memory and holds the address space's lock; a thread that touches \
              it meanwhile waits, locked memory or not.",
        link: "https://docs.kernel.org/admin-guide/mm/transhuge.html",
        rule: thp,
    },
    Check {
        id: "memory.ksm",
        looks_at: "merging of equal pages (KSM)",
        why: "A write to a merged page faults and copies it, also in locked memory, and ksmd itself runs on any CPU.",
        link: "https://docs.kernel.org/admin-guide/mm/ksm.html",
        rule: ksm,
    },
    Check {
        id: "memory.numa_balancing",
        looks_at: "automatic NUMA balancing",
        why: "It takes pages away from time to time only to see who touches them: each touch is a page fault, also in \
              locked memory.",
        link: "https://docs.kernel.org/admin-guide/sysctl/kernel.html#numa-balancing",
        rule: numa_balancing,
    },
    Check {
        id: "memory.swap",
        looks_at: "swap",
        why: "A page that was swapped out costs milliseconds when it is touched; only locked memory is safe.",
        link: "https://docs.kernel.org/admin-guide/sysctl/vm.html#swappiness",
        rule: swap,
    },
    Check {
        id: "kernel.nmi_watchdog",
        looks_at: "the hard lockup detector on the CPUs of real-time work",
        why: "It is driven by non-maskable interrupts, which nothing on the CPU can hold off, and takes a performance \
              counter.",
        link: "https://docs.kernel.org/admin-guide/lockup-watchdogs.html",
        rule: nmi_watchdog,
    },
    Check {
        id: "kernel.soft_watchdog",
        looks_at: "the soft lockup detector on the CPUs of real-time work",
        why: "Every few seconds it wakes the stopper thread of each CPU, which preempts every FIFO thread.",
        link: "https://docs.kernel.org/admin-guide/lockup-watchdogs.html",
        rule: soft_watchdog,
    },
];

/// Whether the node runs, or was set up for, real-time work.
fn serious(facts: &Facts) -> bool {
    facts.is_realtime() || facts.workload().next().is_some()
}

fn thp(facts: &Facts) -> Vec<Found> {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    match facts.text(path) {
        Some(text) if text.contains("[always]") => vec![
            Found::warning_if(serious(facts), "transparent huge pages are given to every program")
                .seen(path, text)
                .write(path, "madvise", "always")
                .by_hand(
                    "for every boot: transparent_hugepage=madvise on the kernel's command line",
                    "take it out again",
                ),
        ],
        Some(text) => vec![Found::ok("transparent huge pages only on request").seen(path, text)],
        None if facts.is_unreadable(path) => vec![Found::unknown(facts.reason(path))],
        None => vec![Found::ok("this kernel has no transparent huge pages")],
    }
}

fn ksm(facts: &Facts) -> Vec<Found> {
    let path = "/sys/kernel/mm/ksm/run";
    match facts.text(path) {
        // 2 takes the merged pages apart again, 0 would leave them merged.
        Some("1") => {
            vec![Found::warning_if(serious(facts), "equal pages are merged").seen(path, "1").write(path, "2", "1")]
        }
        Some(_) => vec![Found::ok("equal pages are not merged").file(facts, path)],
        None if facts.is_unreadable(path) => vec![Found::unknown(facts.reason(path))],
        None => vec![Found::ok("this kernel does not merge pages")],
    }
}

fn numa_balancing(facts: &Facts) -> Vec<Found> {
    let path = "/proc/sys/kernel/numa_balancing";
    let nodes = facts.cpus("/sys/devices/system/node/online").map_or(1, |nodes| nodes.len());
    match facts.number(path) {
        Some(0) => vec![Found::ok("NUMA balancing is off").seen(path, "0")],
        Some(_) if nodes < 2 => vec![Found::ok("there is only one NUMA node to balance").file(facts, path)],
        Some(on) => vec![
            Found::warning_if(serious(facts), format!("pages are moved between {nodes} NUMA nodes"))
                .seen(path, on.to_string())
                .command("sysctl -w kernel.numa_balancing=0", format!("sysctl -w kernel.numa_balancing={on}")),
        ],
        None if facts.is_unreadable(path) => vec![Found::unknown(facts.reason(path))],
        None => vec![Found::ok("this kernel has no NUMA balancing")],
    }
}

fn swap(facts: &Facts) -> Vec<Found> {
    let path = "/proc/swaps";
    let Some(text) = facts.text(path) else { return vec![Found::unknown(facts.reason(path))] };
    // Filename  Type  Size  Used  Priority
    let areas: Vec<&str> = text
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with("/dev/zram"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    if areas.is_empty() {
        return vec![
            Found::ok("nothing is swapped to a disk").seen(path, text.lines().skip(1).collect::<Vec<_>>().join(" | ")),
        ];
    }
    let unlocked = facts.workload().any(|process| process.locked_bytes == Some(0));
    let mut found = Found::warning_if(unlocked, "memory may be swapped out");
    for area in areas {
        // The kernel writes blanks in names as \040.
        let file = area.replace("\\040", " ");
        let file = super::finding::quoted(&file);
        found = found.seen(path, area).command(
            format!("if grep -qF {} /proc/swaps; then swapoff {file}; fi", super::finding::quoted(area)),
            format!("swapon {file}"),
        );
    }
    vec![found.by_hand("for every boot: take it out of /etc/fstab", "put it back")]
}

/// CPUs of real-time work that a watchdog looks at.
fn watched(facts: &Facts) -> CpuList {
    let watched = facts.cpus("/proc/sys/kernel/watchdog_cpumask").unwrap_or_else(|| facts.online());
    facts.rt_cpus().iter().filter(|cpu| watched.contains(*cpu)).collect()
}

fn nmi_watchdog(facts: &Facts) -> Vec<Found> {
    let path = "/proc/sys/kernel/nmi_watchdog";
    match facts.number(path) {
        Some(1) if !watched(facts).is_empty() => vec![
            Found::warning(format!("the hard lockup detector interrupts CPUs {}", watched(facts)))
                .seen(path, "1")
                .file(facts, "/proc/sys/kernel/watchdog_cpumask")
                .command("sysctl -w kernel.nmi_watchdog=0", "sysctl -w kernel.nmi_watchdog=1"),
        ],
        Some(1) => {
            vec![Found::info("the hard lockup detector is on; no CPU is kept for real-time work").seen(path, "1")]
        }
        Some(_) => vec![Found::ok("the hard lockup detector is off").file(facts, path)],
        None if facts.is_unreadable(path) => vec![Found::unknown(facts.reason(path))],
        None => vec![Found::ok("this kernel has no hard lockup detector")],
    }
}

fn soft_watchdog(facts: &Facts) -> Vec<Found> {
    let (path, mask) = ("/proc/sys/kernel/soft_watchdog", "/proc/sys/kernel/watchdog_cpumask");
    match facts.number(path) {
        Some(1) if !watched(facts).is_empty() => {
            let old = facts.text(mask).unwrap_or_default();
            let keep = facts.housekeeping();
            vec![
                Found::warning(format!("the soft lockup detector runs on CPUs {} of real-time work", watched(facts)))
                    .seen(path, "1")
                    .file(facts, mask)
                    .command(
                        format!("sysctl -w kernel.watchdog_cpumask={keep}"),
                        format!("sysctl -w kernel.watchdog_cpumask={old}"),
                    ),
            ]
        }
        Some(1) => {
            vec![Found::ok("the soft lockup detector keeps off real-time CPUs, or there are none").file(facts, mask)]
        }
        Some(_) => vec![Found::ok("the soft lockup detector is off").file(facts, path)],
        None if facts.is_unreadable(path) => vec![Found::unknown(facts.reason(path))],
        None => vec![Found::ok("this kernel has no soft lockup detector")],
    }
}
