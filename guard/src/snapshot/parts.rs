//! The Snapshot and its parts, as JSON has them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::budget::BudgetMetric;
use super::cpulist::CpuList;
use super::knob::Knobs;
use super::latency::Latency;
use super::words::{
    BreachFlag, BreachKind, Cause, Did, LockKind, SchedPolicy, SignalName, ThrottleSource, TimerKind, Unaccounted,
    WokenBy, Word,
};

/// Version of the JSON form. Fields are added without changing it; a rename or a changed meaning raises it.
pub const SCHEMA: u32 = 1;

/// What this node was like in one interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Version of this form.
    pub schema: u32,
    /// The machine.
    pub node: Node,
    /// The interval.
    pub window: Window,
    /// What could be seen and by which means, one entry per signal.
    pub signals: Vec<Signal>,
    /// What guard cost and lost.
    pub overhead: Overhead,
    /// Cgroups with anything counted, worst first.
    pub cgroups: Vec<Cgroup>,
    /// Watched threads, worst first.
    pub threads: Vec<Thread>,
    /// CPUs in order.
    pub cpus: Vec<Cpu>,
    /// Wake-ups over their budget in this interval, oldest first.
    pub breaches: Vec<Breach>,
    /// Who of the urgent waited for whom of the less urgent, as far as late wake-ups tell: the largest loss first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inversions: Vec<Inversion>,
    /// What guard changed, oldest first.
    pub actions: Vec<Action>,
}

impl Snapshot {
    /// Whether the signal `name` was seen, in full or by a weaker source. Figures of an unseen signal are absent.
    #[must_use]
    pub fn sees(&self, name: SignalName) -> bool {
        sees(&self.signals, name)
    }
}

/// Whether the signal `name` is among those that were seen, in full or by a weaker source.
pub(crate) fn sees(signals: &[Signal], name: SignalName) -> bool {
    signals.iter().any(|s| s.name == name && matches!(s.state, SignalState::Active | SignalState::Degraded))
}

/// The machine a Snapshot was taken on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Host name.
    pub hostname: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Whether the kernel is PREEMPT_RT.
    pub realtime: bool,
    /// Machine (`uname -m`).
    pub arch: String,
    /// CPUs online, in the kernel's list form ("0-3").
    pub cpus: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Cgroup layout.
    pub cgroup: CgroupLayout,
    /// CPUs kept for the system by the configuration: no workload is given them exclusively, and their capacity is
    /// reserved.
    #[serde(default, skip_serializing_if = "CpuList::is_empty")]
    pub reserved_cpus: CpuList,
    /// Pressure stall information for cpu of the whole node in the interval, where the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure: Option<Pressure>,
    /// CPU model, where the kernel tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// CPU frequency governor; several, separated by commas, where CPUs differ; absent without frequency scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// What the user called the load on the node (`guard report --label`), for comparing reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Why guard must not write on this node, where it must not: another agent manages the same files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hands_off: Option<String>,
}

/// How the cpu controller is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CgroupLayout {
    /// Only version 1.
    V1,
    /// Only version 2.
    V2,
    /// Version 2 is mounted, the cpu controller is on version 1.
    Hybrid,
    /// No cgroup hierarchy with a cpu controller is mounted.
    #[default]
    None,
}

/// The interval of a Snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// Its start, RFC 3339.
    pub start: String,
    /// Its length by CLOCK_MONOTONIC, s.
    pub seconds: f64,
}

/// One signal: where it comes from and whether it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    /// wakeup, timer, user, throttle, throttled_wait, rt_throttle, lock, irq, breach or flight.
    pub name: Word<SignalName>,
    /// The kernel interface it is read from.
    pub source: String,
    /// How far it can be seen.
    pub state: SignalState,
    /// Why it is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a signal can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignalState {
    /// In full.
    Active,
    /// By a weaker source; the reason says what is missing.
    Degraded,
    /// Not on this node; the reason says why. Its figures are absent, not zero.
    Unavailable,
    /// Turned off by the user.
    Off,
}

/// What guard cost and lost in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Overhead {
    /// Mean run time of guard's programs per event, ns; absent unless run-time statistics were on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_per_event: Option<f64>,
    /// Events handled by guard's programs; absent unless run-time statistics were on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// CPU time of guard's own process over the interval, as a fraction of one CPU.
    pub cpu_fraction: f64,
    /// Resident memory of guard's own process, bytes.
    pub memory_bytes: u64,
    /// Memory of the kernel maps, bytes.
    pub map_bytes: u64,
    /// What was not counted, or not where it belongs.
    pub lost: Lost,
    /// What was added to every `user` stage: the time from where the kernel shows the return to user space until a
    /// thread there has read its clock, as guard's own thread measured it at start, ns. Absent where that stage cannot
    /// be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_rest_ns: Option<u32>,
}

/// Events that were missed, or counted under "other".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// Events that guard's programs never got: the kernel skipped them because the program was already running on
    /// that CPU, or a switch was missing between two that it showed.
    pub missed_events: u64,
    /// Wake-ups of tasks that share a record with another tid.
    pub collisions: u64,
    /// Wake-ups counted under "other" because more cgroups than slots exist.
    pub other_cgroups: u64,
    /// RT threads that found no free slot.
    pub unwatched_threads: u64,
    /// Breach records that did not fit into the ring buffer.
    pub breaches: u64,
    /// Failed reads of kernel memory.
    pub failed_reads: u64,
    /// Timers that were not counted, because they had been armed in the past, their clock was set, or the machine
    /// slept: nobody was late for them.
    #[serde(default)]
    pub past_timers: u64,
    /// Threads that ended and are not in `threads`, because many that ended were worse. What they counted stands in
    /// their cgroups, except their number of late wake-ups.
    #[serde(default)]
    pub dropped_threads: u64,
}

impl Lost {
    /// Whether anything was lost.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Class of a cgroup. PLC is guard's, the others are Koordinator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Class {
    /// Holds SCHED_FIFO, RR or DEADLINE threads that run the process.
    Plc,
    /// Latency sensitive, exclusive CPUs.
    Lse,
    /// Latency sensitive, reserved CPUs.
    Lsr,
    /// Latency sensitive.
    #[default]
    Ls,
    /// Best effort.
    Be,
    /// Belongs to the system.
    System,
}

/// A cgroup in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    /// Path in the hierarchy of the cpu controller; "(other)" for all that found no slot.
    pub path: String,
    /// Cgroup id; 0 for "(other)".
    pub id: u64,
    /// Its class.
    pub class: Class,
    /// The container, pod or unit it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Runnable until on a CPU.
    pub wakeup: WakeupPair,
    /// Timer wake-ups of its watched threads.
    pub timer: Timer,
    /// CFS bandwidth throttling.
    pub throttle: Throttle,
    /// Waits of its RT threads for contended locks.
    pub lock: Lock,
    /// Pressure stall information for cpu, where the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure: Option<Pressure>,
    /// CPU time that it and everything below it used in the interval, ns; absent where it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    /// Its cpu knobs at the end of the interval; absent where they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knobs: Option<Knobs>,
    /// Threads of user space with policy FIFO, RR or DEADLINE in the cgroup itself; absent where they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rt_threads: Option<u32>,
    /// CPU that was asked for it, in thousandths of a CPU, by the configuration or by what Kubernetes wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_milli: Option<u64>,
    /// CPU that it may use at most, in thousandths of a CPU, from the same source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_milli: Option<u64>,
    /// Latencies that it must keep, from the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
    /// Whether the configuration forbids changing it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
}

/// A latency that a workload must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Which figure: "wakeup" (RT tasks of the cgroup) or "timer" (last stage that is seen), a point, and a percentile
    /// or "max", as in "wakeup.p999" and "timer.max".
    pub metric: Word<BudgetMetric>,
    /// Its limit, ns.
    pub limit_ns: u64,
}

/// Wake-up latencies apart for real-time and fair tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WakeupPair {
    /// Tasks with policy FIFO, RR or DEADLINE.
    pub rt: Latency,
    /// Tasks with a fair policy, without the time in `throttled`.
    pub fair: Latency,
    /// Time in which a woken or preempted fair task could not run because its cgroup or an ancestor was throttled.
    pub throttled: Latency,
}

/// Timer wake-ups in rtla's three stages, each counted from the requested expiry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timer {
    /// To the timer interrupt.
    pub irq: Latency,
    /// To the switch-in of the thread.
    pub thread: Latency,
    /// To the return to user space.
    pub user: Latency,
    /// Cycles that recognised cyclic threads skipped.
    pub missed: u64,
}

impl Timer {
    /// The last stage that was seen, with its name: `user`, or `thread` where no return to user space was seen.
    #[must_use]
    pub fn last_stage(&self) -> Option<(&'static str, &Latency)> {
        [("user", &self.user), ("thread", &self.thread)].into_iter().find(|(_, latency)| !latency.is_empty())
    }
}

/// CFS bandwidth throttling of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Throttle {
    /// Throttles of this cgroup's own quota; see `source` for what one is.
    pub count: u64,
    /// Time throttled by its own quota, summed over CPUs, ns.
    pub total_ns: u64,
    /// Durations of single throttles.
    pub duration: Latency,
    /// The nearest cgroup, itself or an ancestor, that was throttled in this interval: whose quota did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Where count and duration come from: "fentry", "period_timer" or "cpu.stat".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Word<ThrottleSource>>,
    /// The same interval by the cgroup's cpu.stat, for reconciliation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_stat: Option<CpuStat>,
    /// Quota and period in force; absent when there is no quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// Differences of cpu.stat over the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CpuStat {
    /// Periods elapsed while the quota was in use.
    pub nr_periods: u64,
    /// Periods in which the cgroup was throttled on at least one CPU.
    pub nr_throttled: u64,
    /// Time throttled, summed over CPUs, ns.
    pub throttled_ns: u64,
}

/// A CFS quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    /// CPU time per period, us.
    pub quota_us: u64,
    /// Period, us.
    pub period_us: u64,
}

/// Waits for contended locks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lock {
    /// From the begin of the contention to the acquisition.
    pub wait: Latency,
    /// Times a thread was boosted by priority inheritance.
    pub boosts: u64,
    /// Those of them for a futex, that is for a lock of user space; absent for threads and where this is not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub futex_boosts: Option<u64>,
}

/// Pressure stall information: stalled time in the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    /// Some task waited, ns.
    pub some_ns: u64,
    /// All tasks waited, ns; absent where the kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_ns: Option<u64>,
}

/// What a cgroup belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// podman, docker, containerd, crio, balena, nomad, or runc and crun used by hand; kubernetes for a pod; lxc or nspawn
    /// for a guest with an operating system of its own; systemd for a unit; unknown where only a container's id is known.
    pub runtime: String,
    /// Container id, unit name, or the guest's name.
    pub id: String,
    /// Name that people gave it, where readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image, where readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Kubernetes pod ("namespace/name", or its uid).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Kubernetes QoS class, from the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// Unit of systemd inside of the container or guest: not one of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// A watched thread in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name of the thread.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// OTHER, FIFO, RR, BATCH, IDLE, DEADLINE or EXT.
    pub policy: Word<SchedPolicy>,
    /// rt_priority, 1..99 for FIFO and RR, 0 otherwise.
    pub prio: u32,
    /// CPUs it may run on, in the kernel's list form; absent when it ended before they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Whether it ended in this interval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exited: bool,
    /// Recognised period, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_ns: Option<u64>,
    /// What kind of timer wakes it: sleeper, softirq-sleeper, deadline, callback or softirq-callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer_kind: Option<Word<TimerKind>>,
    /// Timer wake-ups.
    pub timer: Timer,
    /// `user` samples whose thread never left its CPU; counted with the time of the interrupt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub user_estimated: u64,
    /// Runnable until on a CPU.
    pub wakeup: Latency,
    /// Waits for contended locks.
    pub lock: Lock,
    /// Wake-ups over the budget.
    pub breaches: u64,
    /// Budget, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ns: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A CPU in the interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    /// Number.
    pub cpu: u32,
    /// Where it sits; absent where sysfs does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<CpuPlace>,
    /// Whether it is kept from load balancing (isolcpus=, isolated partitions) or from the tick (nohz_full=).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Time in which it was not idle, ns; absent where it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_ns: Option<u64>,
    /// Hard interrupts.
    pub hardirq: Interrupt,
    /// Soft interrupts, net of hard interrupts and of preemption.
    pub softirq: Interrupt,
    /// Runnable RT tasks that lost the CPU to RT throttling.
    pub rt_throttle: Stolen,
    /// Runnable RT tasks that lost the CPU to the fair server.
    pub fair_server: Stolen,
}

/// Where a CPU sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct CpuPlace {
    /// NUMA node.
    pub node: u32,
    /// Physical package.
    pub package: u32,
    /// The lowest CPU that shares this one's core: hardware threads of one core have the same.
    pub core: u32,
}

/// Interrupt time of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interrupt {
    /// How many.
    pub count: u64,
    /// Time in them, ns.
    pub total_ns: u64,
    /// Part of it in which an RT thread was runnable, ns.
    pub while_rt_ns: u64,
    /// The longest, ns.
    pub max_ns: u64,
}

/// CPU time taken from runnable RT tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stolen {
    /// How often.
    pub count: u64,
    /// How long in all, ns.
    pub total_ns: u64,
}

/// A wake-up over its budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Breach {
    /// When the thread was on a CPU at last, RFC 3339.
    pub at: String,
    /// Late thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// timer (counted from the expiry), wakeup (from sched_waking, or from the preemption) or blocked (from going to sleep
    /// for a lock, or in the middle of a cycle).
    pub kind: Word<BreachKind>,
    /// How late, ns.
    pub latency_ns: u64,
    /// What made it late, in the words of `guard explain`; "unknown" where it cannot be told.
    pub cause: Word<Cause>,
    /// Who made it late, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Culprit>,
    /// Time per cause, ns; together the latency.
    pub shares: BTreeMap<Word<Cause>, u64>,
    /// One sentence for people.
    pub sentence: String,
    /// What was known at the switch-in.
    pub evidence: Evidence,
}

/// A task or interrupt that made a wake-up late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Culprit {
    /// tid; 0 for what is no task.
    pub tid: u32,
    /// Name.
    pub comm: String,
    /// Path of its cgroup, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Effective kernel priority, where known: -1 DEADLINE, 0..=99 real-time (99 is FIFO 0, 0 is FIFO 99), 100.. fair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prio: Option<i32>,
}

/// What was known of a breach at the switch-in. Parts are ns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// CPU of the switch-in.
    pub cpu: u32,
    /// Effective kernel priority of the late thread: -1 DEADLINE, 0..=99 real-time, 100.. fair.
    #[serde(default)]
    pub prio: i32,
    /// CPU where the timer expired or the waker ran.
    pub waker_cpu: u32,
    /// Expiry to interrupt; absent without a timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_delay_ns: Option<u64>,
    /// Wake-up, or preemption, to switch-in.
    pub wait_ns: u64,
    /// Hard interrupts in that wait.
    pub hardirq_ns: u64,
    /// Softirqs in that wait.
    pub softirq_ns: u64,
    /// What had the CPU in that wait, interrupts in it included; absent where the thread waited for another CPU, and in
    /// recordings of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occupied: Option<Occupied>,
    /// How long the task that left the CPU had had it; absent in recordings of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_ran_ns: Option<u64>,
    /// Throttled part of that wait (fair threads).
    pub throttled_ns: u64,
    /// Wait for a lock that ended with this wake-up.
    pub lock_wait_ns: u64,
    /// Owner of that lock when the wait began; 0 when unknown.
    pub lock_owner: u32,
    /// Its name, if it was still there to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_owner_comm: Option<String>,
    /// Path of its cgroup, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_owner_cgroup: Option<String>,
    /// What kind of lock that was: "PI futex", "rt_mutex", "rwlock", "mutex", "spinlock", "semaphore".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_kind: Option<Word<LockKind>>,
    /// Time asleep before the wake-up; absent when it had not slept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_ns: Option<u64>,
    /// System call in which it slept, by name or by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_in: Option<String>,
    /// Task that left the CPU for the late thread.
    pub prev_tid: u32,
    /// Its name.
    pub prev_comm: String,
    /// Its effective kernel priority.
    pub prev_prio: i32,
    /// Path of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_cgroup: Option<String>,
    /// Waker, or the task that the waking interrupt interrupted.
    pub waker: u32,
    /// Its name.
    pub waker_comm: String,
    /// Its effective kernel priority.
    #[serde(default)]
    pub waker_prio: i32,
    /// Path of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waker_cgroup: Option<String>,
    /// Where the wake-up came from: task, softirq or hardirq; then the waker is only who was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub woken_by: Option<Word<WokenBy>>,
    /// Part of `blocked_ns` in which the waker could not run because of a quota.
    #[serde(default)]
    pub waker_throttled_ns: u64,
    /// preempted, remote_timer, migrated, rt_stolen, fair_server, lock, soft_timer, futex_owner (the owner is what the
    /// futex's own word says).
    pub flags: Vec<Word<BreachFlag>>,
    /// Whose quota stopped the thread that was waited for, or the late one itself: the nearest cgroup, itself or an
    /// ancestor, that was throttled in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_by: Option<ThrottledBy>,
    /// Time that the host of this virtual machine took from the CPU between the two samples around it, in steps of 10 ms; absent
    /// where late wake-ups were not accounted for, or the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_ns: Option<u64>,
    /// The whole time lost, part by part, by what every CPU did meanwhile; the largest first, together the latency.
    /// Absent where it was not accounted for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TimePart>,
    /// Why `parts` are absent, or less than they could be: recorder_off, no_memory (the flight recorder was off), overwritten
    /// (it did not reach back so far), too_many (only the 200 worst of a moment are looked up) or recorder_degraded (this kernel
    /// does not show it everything).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unaccounted: Option<Word<Unaccounted>>,
    /// Threads that were waited for: the first by the late thread, each other one by the one before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ChainLink>,
    /// Kernel stacks; absent unless they were asked for (`--stacks`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks: Option<Stacks>,
}

impl Evidence {
    /// Whether `flag` is among its flags.
    #[must_use]
    pub fn has(&self, flag: BreachFlag) -> bool {
        self.flags.iter().any(|own| *own == flag)
    }
}

/// What had a CPU, and for how long, by running totals of the kernel side: whatever was forgotten of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Occupied {
    /// Real-time tasks, ns.
    pub realtime_ns: u64,
    /// Fair tasks by their own right, ns.
    pub fair_ns: u64,
    /// Nobody, ns.
    pub idle_ns: u64,
    /// Fair tasks or nobody, while RT throttling kept runnable real-time tasks off, ns.
    pub rt_throttled_ns: u64,
    /// The same, while the fair server did, ns.
    pub fair_server_ns: u64,
}

/// Kernel stacks of a late wake-up, as "function+0x1a", the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stacks {
    /// What ran when it was woken: the waker, or what an interrupt interrupted, below the interrupt itself. Empty when no
    /// wake-up began its wait.
    pub waking: Vec<String>,
    /// The task that left the CPU for it, as it left; of a task that was preempted, where.
    pub leaving: Vec<String>,
}

/// A quota that stopped somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThrottledBy {
    /// Path of the cgroup that has it.
    pub cgroup: String,
    /// The quota.
    pub quota: Quota,
}

/// A part of the time lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimePart {
    /// Why, in the words of `guard explain`.
    pub cause: Word<Cause>,
    /// How long, ns.
    pub ns: u64,
    /// Because of whom, as far as known; an interrupt has a name and no tid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Culprit>,
}

/// A thread that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainLink {
    /// Which.
    pub who: Culprit,
    /// What it did most of that time: ran, throttled, preempted, waited (for the next one) or slept.
    pub did: Word<Did>,
    /// For how long it was waited for, ns.
    pub ns: u64,
}

/// Time that one thread, or several of one name, lost to less urgent ones of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inversion {
    /// Who waited.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// Class of that, where it is in the Snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Who was waited for, or had the CPU.
    pub by_comm: String,
    /// Path of its cgroup, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_cgroup: Option<String>,
    /// Class of that, where it is in the Snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_class: Option<Class>,
    /// In how many late wake-ups.
    pub count: u64,
    /// Time lost in all of them, ns.
    pub lost_ns: u64,
    /// Most time lost in one of them, ns.
    pub worst_ns: u64,
    /// Time per cause, ns; together `lost_ns`.
    pub causes: BTreeMap<Word<Cause>, u64>,
}

/// The published JSON schema of [`Snapshot`].
#[must_use]
pub fn json_schema() -> schemars::Schema {
    schemars::schema_for!(Snapshot)
}
