//! Checks of the cgroups that real-time processes live in.

use std::collections::BTreeMap;

use super::facts::{CgroupFacts, Facts, Process};
use super::finding::{Check, Found, echo};
use super::kernel::version;
use super::runtimes;
use crate::snapshot::{CgroupLayout, Quota};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "cgroup.quota",
        looks_at: "CPU quotas on the cgroups of real-time processes and on every cgroup above",
        why: "A quota never stops a FIFO thread itself. It stops the fair threads beside it, up to the end of the period: \
              with a lock held that the FIFO thread needs, or with data that it waits for.",
        link: "https://docs.kernel.org/scheduler/sched-bwc.html",
        rule: quota,
    },
    Check {
        id: "cgroup.controllers",
        looks_at: "whether the cpu and cpuset controllers reach the cgroups of real-time processes (v2)",
        why: "Without them the cgroup has no weight, quota or CPUs of its own: neither a runtime nor guard can protect it.",
        link: "https://docs.kernel.org/admin-guide/cgroup-v2.html#controlling-controllers",
        rule: controllers,
    },
    Check {
        id: "cgroup.layout",
        looks_at: "the cgroup version",
        why: "v1 has the same CPU quotas as v2. It lacks isolated cpuset partitions and pressure figures per cgroup, and \
              systemd and container runtimes give it up.",
        link: "https://docs.kernel.org/admin-guide/cgroup-v2.html",
        rule: layout,
    },
];

fn quota(facts: &Facts) -> Vec<Found> {
    if let Some(error) = &facts.hierarchy.error {
        return vec![Found::unknown(error.clone())];
    }
    let mut below: BTreeMap<&str, (&CgroupFacts, Vec<&Process>)> = BTreeMap::new();
    let mut errors = Vec::new();
    for process in facts.workload() {
        let Some(path) = process.cgroup.as_deref() else {
            errors.push(Found::unknown(format!("{}: its cgroup cannot be seen from here", process.label())));
            continue;
        };
        for (above, cgroup) in facts.lineage(path) {
            if cgroup.quota.is_some() {
                below.entry(above).or_insert((cgroup, Vec::new())).1.push(process);
            }
            errors.extend(cgroup.errors.iter().map(|error| Found::unknown(error.clone())));
        }
    }
    let found = below
        .into_iter()
        .filter_map(|(path, (cgroup, processes))| Some(limited(facts, path, cgroup, cgroup.quota?, &processes)));
    let mut found: Vec<Found> = found.collect();
    found.extend(errors);
    if found.is_empty() && facts.workload().next().is_none() {
        found.push(Found::ok("no real-time process to look at"));
    }
    found
}

fn limited(facts: &Facts, path: &str, cgroup: &CgroupFacts, quota: Quota, processes: &[&Process]) -> Found {
    let names: Vec<String> = processes.iter().take(3).map(|process| process.label()).collect();
    let Quota { quota_us, period_us } = quota;
    let title =
        format!("{path}: quota of {quota_us} us per {period_us} us above the real-time process {}", names.join(", "));
    let mut found = Found::critical(title);
    let v2 = facts.hierarchy.layout == CgroupLayout::V2;
    if v2 {
        let file = format!("{}/cpu.max", cgroup.dir);
        let old = format!("{quota_us} {period_us}");
        found = found.seen(&file, &old).write(&file, &format!("max {period_us}"), &old);
    } else {
        let file = format!("{}/cpu.cfs_quota_us", cgroup.dir);
        found = found.seen(&file, quota_us.to_string()).write(&file, "-1", &quota_us.to_string());
    }
    if let Some(throttled) = cgroup.nr_throttled {
        found = found.seen(format!("{}/cpu.stat", cgroup.dir), format!("nr_throttled {throttled}"));
    }
    let (change, undo) = runtimes::lift_quota(cgroup.container.as_ref(), quota);
    found.by_hand(change, undo)
}

fn controllers(facts: &Facts) -> Vec<Found> {
    if facts.hierarchy.layout != CgroupLayout::V2 {
        return vec![Found::ok("on v1 every cgroup has its controller's files")];
    }
    // Missing controller and the cgroup that does not hand it down.
    let mut missing: BTreeMap<(&str, &str), (&CgroupFacts, &Process)> = BTreeMap::new();
    for process in facts.workload() {
        let Some(path) = process.cgroup.as_deref().filter(|path| *path != "/") else { continue };
        let up: Vec<_> = facts.lineage(path).collect();
        for controller in ["cpu", "cpuset"] {
            let has = |list: &Option<Vec<String>>| {
                list.as_ref().is_some_and(|list| list.iter().any(|name| name == controller))
            };
            // The highest cgroup that has it and does not hand it on.
            let gap =
                up.iter().skip(1).rev().find(|(_, above)| has(&above.controllers) && !has(&above.subtree_control));
            if let Some((above, cgroup)) = gap {
                missing.insert((controller, *above), (cgroup, process));
            }
        }
    }
    missing
        .into_iter()
        .map(|((controller, above), (cgroup, process))| {
            let file = format!("{}/cgroup.subtree_control", cgroup.dir);
            let list = cgroup.subtree_control.clone().unwrap_or_default().join(" ");
            let found = Found::info(format!("{above} does not hand the {controller} controller down to {}", process.label()))
                .seen(&file, list);
            let (on, off) = (format!("+{controller}"), format!("-{controller}"));
            // Since 6.2 (8f9ea86fdf99) a thread keeps the affinity that it asked for.
            if controller == "cpuset" && version(facts).is_none_or(|version| version < (6, 2)) {
                found.by_hand(
                    format!("{}; before 6.2 the kernel forgets the affinity of every thread below when it does this: pin them again", echo(&file, &on)),
                    echo(&file, &off),
                )
            } else {
                found.write(&file, &on, &off)
            }
        })
        .collect()
}

fn layout(facts: &Facts) -> Vec<Found> {
    let mount = facts.hierarchy.mount.as_deref().unwrap_or("no mount");
    vec![match (facts.hierarchy.layout, &facts.hierarchy.error) {
        (CgroupLayout::V2, _) => Found::ok("cgroup v2").seen(mount, "cgroup2"),
        (CgroupLayout::V1, _) => Found::info("the cpu controller is on cgroup v1").seen(mount, "cgroup v1"),
        (CgroupLayout::Hybrid, _) => {
            Found::info("the cpu controller is on cgroup v1, with v2 mounted beside it").seen(mount, "cgroup v1")
        }
        (CgroupLayout::None, Some(error)) => Found::unknown(error.clone()),
        (CgroupLayout::None, None) => Found::unknown("no cgroup hierarchy was looked at"),
    }]
}
