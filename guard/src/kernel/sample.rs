//! What the kernel counted in one interval, before anybody is named. The control room joins it with the inventory
//! into a Snapshot. Plain data: no BPF here.

use guard_common::event::{Breach, Stacks};
use guard_common::flight::Entry;

use crate::snapshot::{Cpu, Histogram, Lost, Signal};

/// What the kernel side counted in one interval. Counts and times are of the interval, not since start.
#[derive(Clone, Debug, Default)]
pub struct KernelSample {
    /// CLOCK_MONOTONIC at the end of the interval, ns.
    pub at_ns: u64,
    /// Length of the interval, ns.
    pub seconds: f64,
    /// What can be seen.
    pub signals: Vec<Signal>,
    /// Cgroups with a slot, id 0 being "other". Only those with something counted.
    pub cgroups: Vec<CgroupSample>,
    /// Watched threads, those that exited in the interval included.
    pub threads: Vec<ThreadSample>,
    /// CPUs in order.
    pub cpus: Vec<Cpu>,
    /// Breach records, oldest first.
    pub breaches: Vec<Breach>,
    /// Their kernel stacks, where they were asked for.
    pub stacks: Vec<Stacks>,
    /// The flight recorder's entries of the interval, oldest first; none where it is off.
    pub flight: Vec<Entry>,
    /// What was lost.
    pub lost: Lost,
    /// Events and their mean run time in ns, when run-time statistics are on.
    pub events: Option<(u64, f64)>,
    /// Memory of the kernel maps, bytes.
    pub map_bytes: u64,
    /// Part of every user stage that no program sees: until the thread has read its clock; measured at start, ns.
    pub user_rest_ns: Option<u32>,
}

/// One cgroup in the interval.
#[derive(Clone, Debug, Default)]
pub struct CgroupSample {
    /// Cgroup id; 0 for "other".
    pub id: u64,
    /// Wake-ups of fair tasks.
    pub wake_fair: Histogram,
    /// Wake-ups of RT tasks.
    pub wake_rt: Histogram,
    /// Expiry to interrupt.
    pub timer_irq: Histogram,
    /// Expiry to switch-in.
    pub timer_thread: Histogram,
    /// Expiry to user space.
    pub timer_user: Histogram,
    /// Throttled part of fair waits.
    pub throttled_wait: Histogram,
    /// Throttles of the own quota.
    pub throttle: Histogram,
    /// Lock waits of RT threads.
    pub lock: Histogram,
    /// Throttle events.
    pub throttles: u64,
    /// Throttled time by the kernel's own counter, ns, where the period timer is the source.
    pub throttled_time_ns: Option<u64>,
    /// Boosts by priority inheritance.
    pub boosts: u64,
    /// Whether an RT thread was ever seen in it.
    pub rt_seen: bool,
    /// Those of `boosts` that a wait for a PI futex gave; absent where the kernel does not show which do.
    pub futex_boosts: Option<u64>,
}

/// One watched thread in the interval.
#[derive(Clone, Debug, Default)]
pub struct ThreadSample {
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name at the first switch-in.
    pub comm: String,
    /// Cgroup id at the last switch-in.
    pub cgroup_id: u64,
    /// SCHED_* of the last switch-in.
    pub policy: u32,
    /// rt_priority of the last switch-in.
    pub rt_priority: u32,
    /// Whether it has exited.
    pub exited: bool,
    /// Recognised period, ns.
    pub period_ns: Option<u64>,
    /// guard_common's TimerKind as a number; 0 for none.
    pub timer_kind: u32,
    /// Skipped cycles.
    pub missed: u64,
    /// User stages taken from the interrupt.
    pub user_estimated: u64,
    /// Runnable until on a CPU.
    pub wakeup: Histogram,
    /// Expiry to interrupt.
    pub timer_irq: Histogram,
    /// Expiry to switch-in.
    pub timer_thread: Histogram,
    /// Expiry to user space.
    pub timer_user: Histogram,
    /// Lock waits.
    pub lock: Histogram,
    /// Boosts.
    pub boosts: u64,
    /// Wake-ups over the budget.
    pub breaches: u64,
    /// Budget, ns; 0 for the default threshold.
    pub budget_ns: u64,
}
