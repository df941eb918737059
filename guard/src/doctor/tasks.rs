//! Checks of the processes that run the plant: whether their threads are what they were meant to be, where they may
//! run, and what their timers and their memory depend on.

use std::collections::BTreeMap;

use super::facts::{Facts, KernelThread, Process, Thread};
use super::finding::{Check, Found};
use super::runtimes;
use crate::snapshot::CpuList;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "task.policy",
        looks_at: "processes that may be real-time and have no real-time thread",
        why: "A program that is refused FIFO often only logs \"Operation not permitted\" and runs its cycle as \
              SCHED_OTHER: behind everything else, with timer slack, and stopped by CPU quotas.",
        link: "https://man7.org/linux/man-pages/man7/sched.7.html",
        rule: policy,
    },
    Check {
        id: "task.memory_locked",
        looks_at: "real-time processes without locked memory",
        why: "Memory that is not locked can be dropped or swapped; touching it then is a page fault, which waits for a \
              disk or for a lock that any thread of the process may hold.",
        link: "https://man7.org/linux/man-pages/man2/mlockall.2.html",
        rule: memory_locked,
    },
    Check {
        id: "task.soft_timers",
        looks_at: "timerfds and POSIX timers of real-time processes against the priority of ktimers/N",
        why: "On PREEMPT_RT these timers expire in the kernel thread ktimers/N, not in the interrupt: any FIFO thread \
              above its priority delays them. clock_nanosleep of a FIFO thread does not depend on it.",
        link: "https://docs.kernel.org/timers/hrtimers.html",
        rule: soft_timers,
    },
    Check {
        id: "task.timer_slack",
        looks_at: "timer slack of fair threads in processes that are, or may be, real-time",
        why: "A fair thread's sleep may last longer than it asked by its slack, 50 us by default. FIFO, RR and DEADLINE \
              threads have none.",
        link: "https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html",
        rule: timer_slack,
    },
    Check {
        id: "task.affinity",
        looks_at: "real-time threads that may run outside of the CPUs set apart for them",
        why: "On a housekeeping CPU they meet interrupts, timers and kernel work that were moved there to be out of \
              their way.",
        link: "https://docs.kernel.org/admin-guide/kernel-per-CPU-kthreads.html",
        rule: affinity,
    },
    Check {
        id: "task.priority",
        looks_at: "priorities of real-time threads against those of the kernel's own",
        why: "Threaded interrupts run at FIFO 50 and preempt what is below; at 99 a thread competes with migration and \
              RCU work that the whole node waits for.",
        link: "https://docs.kernel.org/scheduler/sched-rt-group.html",
        rule: priority,
    },
];

/// Priority proposed for a thread that had 99.
const BELOW_THE_KERNEL: u32 = 90;
/// Priority of threaded interrupts unless somebody changed it, kernel/irq/manage.c.
const IRQ_THREADS: u32 = 50;

fn may_be_realtime(process: &Process) -> bool {
    process.was_given_sys_nice() || process.rtprio_limit.is_some_and(|limit| limit > 0)
}

fn lives_in_container(process: &Process) -> bool {
    process.container.as_ref().is_some_and(|container| container.runtime != "systemd")
}

/// Processes that may be real-time, by cgroup, where nobody in that cgroup is.
fn fallen_back(facts: &Facts) -> BTreeMap<&str, Vec<&Process>> {
    let mut by_cgroup: BTreeMap<&str, Vec<&Process>> = BTreeMap::new();
    for process in &facts.processes {
        if let Some(path) = process.cgroup.as_deref() {
            by_cgroup.entry(path).or_default().push(process);
        }
    }
    by_cgroup.retain(|_, all| all.iter().all(|process| process.realtime().next().is_none()));
    for all in by_cgroup.values_mut() {
        // The system's services are root's, so only a limit that was given on purpose says what one of them is for.
        let was_meant_to = |process: &Process| process.rtprio_limit.is_some_and(|limit| limit > 0);
        all.retain(|process| {
            process.is_ours() && may_be_realtime(process) || process.is_other_service() && was_meant_to(process)
        });
    }
    by_cgroup.retain(|_, all| !all.is_empty());
    by_cgroup
}

fn policy(facts: &Facts) -> Vec<Found> {
    let mut found = Vec::new();
    for (path, processes) in fallen_back(facts) {
        let in_container = processes.iter().any(|process| lives_in_container(process));
        let names: Vec<String> = processes.iter().take(3).map(|process| process.label()).collect();
        let title = format!("{}: may be real-time, but all threads are SCHED_OTHER", names.join(", "));
        let mut one = Found::warning_if(in_container, title).seen("cgroup", path);
        for process in processes.iter().take(3) {
            let pid = process.pid;
            one = one
                .seen(format!("/proc/{pid}/limits"), format!("Max realtime priority {}", number(process.rtprio_limit)))
                .seen(
                    format!("/proc/{pid}/status"),
                    format!("CapEff {:016x}", process.capabilities.unwrap_or_default()),
                );
        }
        let pid = processes[0].pid;
        found.push(
            one.by_hand(
                "look into the program's log for sched_setscheduler, pthread_create or \"Operation not permitted\"; its \
                 configuration may have to name a real-time priority",
                "none needed",
            )
            .by_hand(
                format!("to try it on a running thread: ps -L -o tid,cls,rtprio,comm -p {pid}; then chrt -f -p 80 TID"),
                "chrt -o -p 0 TID",
            ),
        );
    }
    if found.is_empty() {
        return vec![match facts.workload().count() {
            0 => Found::info(
                "no process of this node has real-time threads; the operating system's daemons and container runtimes are not counted",
            ),
            count => Found::ok(format!("{count} processes have real-time threads")),
        }];
    }
    found
}

fn number(limit: Option<u64>) -> String {
    match limit {
        None => "unknown".to_owned(),
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(limit) => limit.to_string(),
    }
}

/// What a check of real-time processes says when there are none.
fn no_workload(facts: &Facts) -> Option<Vec<Found>> {
    facts.workload().next().is_none().then(|| vec![Found::ok("no real-time process to look at")])
}

fn memory_locked(facts: &Facts) -> Vec<Found> {
    if let Some(none) = no_workload(facts) {
        return none;
    }
    let mut found = Vec::new();
    for process in facts.workload() {
        let status = format!("/proc/{}/status", process.pid);
        match process.locked_bytes {
            Some(0) => {}
            Some(_) => continue,
            None => {
                found.push(Found::unknown(format!("{}: {status} shows no VmLck", process.label())));
                continue;
            }
        }
        let title = format!("{}: real-time, but its memory is not locked", process.label());
        let mut one = Found::warning(title)
            .seen(status, "VmLck 0 kB")
            .seen(
                format!("/proc/{}/limits", process.pid),
                format!("Max locked memory {}", number(process.memlock_limit)),
            )
            .by_hand("the program has to call mlockall(MCL_CURRENT | MCL_FUTURE) at its start", "munlockall()");
        if process.has_ipc_lock() != Some(true) && process.memlock_limit != Some(u64::MAX) {
            let (change, undo) = runtimes::may_lock_memory(process.container.as_ref());
            one = one.by_hand(change, undo);
        }
        found.push(one);
    }
    found
}

/// Number of the CPU in the name of a kernel thread, "ktimers/1".
pub(super) fn cpu_of(comm: &str, name: &str) -> Option<u32> {
    comm.strip_prefix(name)?.strip_prefix('/')?.parse().ok()
}

/// The highest priority of FIFO and RR threads that may run on a CPU, of the processes that `which` takes.
pub(super) fn highest_on(facts: &Facts, cpu: u32, which: impl Fn(&Process) -> bool) -> Option<(&Process, &Thread)> {
    facts
        .workload()
        .filter(|process| which(process))
        .flat_map(|process| process.realtime().map(move |thread| (process, thread)))
        .filter(|(_, thread)| thread.affinity.contains(cpu))
        .max_by_key(|(_, thread)| thread.priority)
}

fn soft_timers(facts: &Facts) -> Vec<Found> {
    if let Some(none) = no_workload(facts) {
        return none;
    }
    if !facts.is_realtime() {
        return vec![Found::ok("without PREEMPT_RT these timers expire in the interrupt")];
    }
    let uses = |process: &Process| process.timerfds.unwrap_or(0) + process.posix_timers.unwrap_or(0) > 0;
    let mut below: BTreeMap<u32, (&Process, u32, Vec<&KernelThread>)> = BTreeMap::new();
    let mut ktimers = 0;
    for kernel in &facts.kernel_threads {
        let Some(cpu) = cpu_of(&kernel.comm, "ktimers") else { continue };
        ktimers += 1;
        let Some((process, thread)) = highest_on(facts, cpu, uses) else { continue };
        if thread.priority > kernel.priority {
            let entry = below.entry(process.pid).or_insert((process, 0, Vec::new()));
            entry.1 = entry.1.max(thread.priority);
            entry.2.push(kernel);
        }
    }
    let mut found: Vec<Found> =
        below.into_values().map(|(process, priority, kernels)| below_its_timers(process, priority, &kernels)).collect();
    let hidden: Vec<String> =
        facts.workload().filter(|process| process.timerfds.is_none()).map(Process::label).collect();
    if !hidden.is_empty() {
        found.push(Found::unknown(format!("timerfds of {} are hidden: run guard doctor as root", hidden.join(", "))));
    }
    if ktimers == 0 && facts.workload().any(uses) {
        found.push(Found::unknown(
            "no ktimers/N is seen: this kernel runs soft timers elsewhere, or guard cannot see kernel threads",
        ));
    }
    found
}

fn below_its_timers(process: &Process, priority: u32, kernels: &[&KernelThread]) -> Found {
    let pid = process.pid;
    let names: Vec<String> = kernels.iter().map(|kernel| format!("{} ({})", kernel.comm, kernel.priority)).collect();
    let title = format!(
        "{}: its timerfds or POSIX timers depend on threads below its own priority {priority}: {}",
        process.label(),
        names.join(", ")
    );
    let mut found = Found::warning(title)
        .seen(format!("/proc/{pid}/fd"), format!("{} timerfds", process.timerfds.unwrap_or(0)))
        .seen(format!("/proc/{pid}/timers"), format!("{} POSIX timers", process.posix_timers.unwrap_or(0)));
    // task.priority lowers what is above.
    let target = priority.min(BELOW_THE_KERNEL);
    for kernel in kernels.iter().filter(|kernel| kernel.priority < target) {
        found = found
            .seen(
                format!("/proc/{}/stat", kernel.tid),
                format!("{} {} priority {}", kernel.comm, kernel.policy, kernel.priority),
            )
            .command(
                format!("chrt -f -p {target} {}", kernel.tid),
                format!("chrt -f -p {} {}", kernel.priority, kernel.tid),
            );
    }
    found
        .by_hand("or let the program wait with clock_nanosleep(), whose timers do not depend on ktimers", "none needed")
}

fn timer_slack(facts: &Facts) -> Vec<Found> {
    let fallen_back = fallen_back(facts);
    let suspects = fallen_back.values().flatten().copied().filter(|process| lives_in_container(process));
    let mut found = Vec::new();
    for (process, cycle_is_fair) in
        suspects.map(|process| (process, true)).chain(facts.workload().map(|process| (process, false)))
    {
        let slack = |thread: &&Thread| !thread.is_realtime() && thread.timer_slack_ns.is_some_and(|ns| ns > 1000);
        let slow: Vec<&Thread> = process.threads.iter().filter(slack).collect();
        if slow.is_empty() {
            if process.threads.iter().any(|thread| !thread.is_realtime() && thread.timer_slack_ns.is_none()) {
                found.push(Found::unknown(format!(
                    "timer slack of {} is hidden: run guard doctor as root",
                    process.label()
                )));
            }
            continue;
        }
        let title = format!("{}: {} of its fair threads sleep with timer slack", process.label(), slow.len());
        let mut one = Found::warning_if(cycle_is_fair, title);
        for thread in slow {
            let file = format!("/proc/{}/timerslack_ns", thread.tid);
            let old = thread.timer_slack_ns.unwrap_or_default().to_string();
            one = one.seen(&file, &old).write(&file, "1", &old);
        }
        found.push(one);
    }
    found
}

fn affinity(facts: &Facts) -> Vec<Found> {
    if let Some(none) = no_workload(facts) {
        return none;
    }
    let apart = facts.set_apart();
    if apart.is_empty() {
        return vec![Found::ok("no CPU is set apart, see cpu.isolation")];
    }
    let online = facts.online();
    let mut found = Vec::new();
    for process in facts.workload() {
        let mut outside = Vec::new();
        let mut elsewhere = Vec::new();
        for thread in process.realtime() {
            let allowed: Vec<u32> = thread.affinity.iter().filter(|cpu| online.contains(*cpu)).collect();
            let inside = allowed.iter().filter(|cpu| apart.contains(**cpu)).count();
            if inside == 0 {
                elsewhere.push(thread);
            } else if inside < allowed.len() {
                outside.push(thread);
            }
        }
        if !outside.is_empty() {
            let title = format!(
                "{}: {} real-time threads may also run outside of CPUs {apart}",
                process.label(),
                outside.len()
            );
            let mut one = Found::warning(title);
            for thread in outside {
                let target: CpuList = thread.affinity.iter().filter(|cpu| apart.contains(*cpu)).collect();
                one = one
                    .seen(format!("/proc/{}/status", thread.tid), format!("Cpus_allowed_list {}", thread.affinity))
                    .command(
                        format!("taskset -p -c {target} {}", thread.tid),
                        format!("taskset -p -c {} {}", thread.affinity, thread.tid),
                    );
            }
            if let Some((change, undo)) = runtimes::pin_container(process.container.as_ref(), &apart) {
                one = one.by_hand(change, undo);
            }
            found.push(one);
        }
        for thread in elsewhere {
            found.push(
                Found::info(format!(
                    "{}: thread {} stays on CPUs {}, none of which is set apart",
                    process.label(),
                    thread.comm,
                    thread.affinity
                ))
                .seen(format!("/proc/{}/status", thread.tid), format!("Cpus_allowed_list {}", thread.affinity)),
            );
        }
    }
    found
}

fn priority(facts: &Facts) -> Vec<Found> {
    if let Some(none) = no_workload(facts) {
        return none;
    }
    let mut found = Vec::new();
    for process in facts.workload() {
        for thread in process.realtime() {
            let option = match thread.policy.as_str() {
                "FIFO" => "-f",
                "RR" => "-r",
                _ => continue,
            };
            let seen = |one: Found| {
                one.seen(
                    format!("/proc/{}/stat", thread.tid),
                    format!("{} priority {}", thread.policy, thread.priority),
                )
            };
            if thread.priority == 99 {
                let title = format!(
                    "{}: thread {} has priority 99, as the kernel's most urgent threads",
                    process.label(),
                    thread.comm
                );
                found.push(seen(Found::warning(title)).command(
                    format!("chrt {option} -p {BELOW_THE_KERNEL} {}", thread.tid),
                    format!("chrt {option} -p 99 {}", thread.tid),
                ));
            } else if thread.priority <= IRQ_THREADS && irq_threads_on(facts, thread) {
                let title = format!(
                    "{}: thread {} has priority {}: threaded interrupts ({IRQ_THREADS}) preempt it",
                    process.label(),
                    thread.comm,
                    thread.priority
                );
                found.push(seen(Found::info(title)));
            }
        }
    }
    found
}

/// Whether threaded interrupts of at least this thread's priority exist and the thread is on a CPU that is not set
/// apart, where they run.
fn irq_threads_on(facts: &Facts, thread: &Thread) -> bool {
    let apart = facts.set_apart();
    thread.affinity.iter().any(|cpu| !apart.contains(cpu))
        && facts
            .kernel_threads
            .iter()
            .any(|kernel| kernel.comm.starts_with("irq/") && kernel.priority >= thread.priority)
}
