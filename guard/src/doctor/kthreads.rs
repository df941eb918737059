//! Checks of kernel threads that share a CPU with real-time work.

use super::facts::{Facts, KernelThread};
use super::finding::{Check, Found};
use super::tasks::{cpu_of, highest_on};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "kthread.ksoftirqd",
        looks_at: "ksoftirqd/N above the priority of real-time threads on the same CPU",
        why: "All softirqs that nobody handled at once, network receive among them, then run before the control loop.",
        link: "https://docs.kernel.org/admin-guide/kernel-per-CPU-kthreads.html",
        rule: ksoftirqd,
    },
    Check {
        id: "kthread.rcuc",
        looks_at: "rcuc/N above the priority of real-time threads on the same CPU",
        why: "RCU callbacks then run before the control loop, as many as have come together; rcutree.kthread_prio= sets \
              this priority at boot.",
        link: "https://docs.kernel.org/admin-guide/kernel-per-CPU-kthreads.html",
        rule: rcuc,
    },
    Check {
        id: "kthread.ktimers",
        looks_at: "ktimers/N above the priority of real-time threads that use no timer of theirs",
        why: "Timers of everybody else on that CPU then expire before the control loop goes on.",
        link: "https://docs.kernel.org/timers/hrtimers.html",
        rule: ktimers,
    },
];

fn ksoftirqd(facts: &Facts) -> Vec<Found> {
    above(facts, "ksoftirqd", |thread| format!("chrt -o -p 0 {}", thread.tid))
}

fn rcuc(facts: &Facts) -> Vec<Found> {
    above(facts, "rcuc", |thread| format!("chrt -f -p 1 {}", thread.tid))
}

fn above(facts: &Facts, name: &str, lower: impl Fn(&KernelThread) -> String) -> Vec<Found> {
    if facts.workload().next().is_none() {
        return vec![Found::ok("no real-time process to look at")];
    }
    let mut found = Vec::new();
    for kernel in &facts.kernel_threads {
        let Some(cpu) = cpu_of(&kernel.comm, name) else { continue };
        let Some((process, thread)) = highest_on(facts, cpu, |_| true) else { continue };
        // The kernel's own default, and nobody can be below it.
        if kernel.priority < thread.priority || kernel.priority <= 1 {
            continue;
        }
        let title = format!(
            "{} runs at {} {} and is not below {} ({})",
            kernel.comm,
            kernel.policy,
            kernel.priority,
            process.label(),
            thread.priority
        );
        found.push(
            Found::warning(title)
                .seen(format!("/proc/{}/stat", kernel.tid), format!("{} priority {}", kernel.policy, kernel.priority))
                .command(lower(kernel), format!("chrt -f -p {} {}", kernel.priority, kernel.tid)),
        );
    }
    found
}

fn ktimers(facts: &Facts) -> Vec<Found> {
    if facts.workload().next().is_none() {
        return vec![Found::ok("no real-time process to look at")];
    }
    let mut found = Vec::new();
    for kernel in &facts.kernel_threads {
        let Some(cpu) = cpu_of(&kernel.comm, "ktimers") else { continue };
        let Some((process, thread)) = highest_on(facts, cpu, |_| true) else { continue };
        let needs = highest_on(facts, cpu, |process| {
            process.timerfds.is_none_or(|count| count > 0) || process.posix_timers.is_some_and(|count| count > 0)
        });
        if needs.is_none() && kernel.priority > thread.priority && kernel.priority > 1 {
            let title = format!(
                "{} runs at {} {}, above {} ({}), which uses none of its timers",
                kernel.comm,
                kernel.policy,
                kernel.priority,
                process.label(),
                thread.priority
            );
            found.push(
                Found::warning(title)
                    .seen(
                        format!("/proc/{}/stat", kernel.tid),
                        format!("{} priority {}", kernel.policy, kernel.priority),
                    )
                    .command(
                        format!("chrt -f -p 1 {}", kernel.tid),
                        format!("chrt -f -p {} {}", kernel.priority, kernel.tid),
                    ),
            );
        }
    }
    found
}
