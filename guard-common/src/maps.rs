//! Values in the maps. Every field says who writes it; readers in user space tolerate torn updates because each
//! counter only grows. All maps are preallocated (PREEMPT_RT: no allocation under the run-queue lock).

use crate::hist::BUCKETS;

/// A kind of histogram.
pub trait Kind: Copy + 'static {
    /// All kinds, in the order they lie in the map.
    const ALL: &'static [Self];

    /// Its place in that order.
    fn index(self) -> usize;
}

/// Declares an enum of kinds of histogram: a kind is one line, and its place in the map is its place here.
macro_rules! kinds {
    ($(#[$of:meta])* $name:ident { $($(#[$doc:meta])* $kind:ident,)+ }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$doc])* $kind,)+
        }

        impl Kind for $name {
            const ALL: &'static [Self] = &[$(Self::$kind),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

kinds! {
    /// Kinds of histogram that every cgroup slot has.
    CgroupKind {
        /// Runnable until on a CPU, tasks with a fair policy.
        WakeFair,
        /// Runnable until on a CPU, tasks with policy FIFO, RR or DEADLINE.
        WakeRt,
        /// Timer expiry until the timer interrupt handled it, watched threads.
        TimerIrq,
        /// Timer expiry until the thread was on a CPU, watched threads.
        TimerThread,
        /// Timer expiry until the thread was back in user space, watched threads.
        TimerUser,
        /// Part of a fair task's wait in which its cgroup or an ancestor was throttled.
        ThrottledWait,
        /// Throttles of this cgroup's own quota, per CPU run queue.
        Throttle,
        /// Waits of RT threads for a contended kernel lock or a PI futex.
        Lock,
    }
}

kinds! {
    /// Kinds of histogram that every watched thread has.
    ThreadKind {
        /// Runnable until on a CPU.
        Wake,
        /// See [`CgroupKind::TimerIrq`].
        TimerIrq,
        /// See [`CgroupKind::TimerThread`].
        TimerThread,
        /// See [`CgroupKind::TimerUser`].
        TimerUser,
        /// See [`CgroupKind::Lock`].
        Lock,
    }
}

/// Number of [`CgroupKind`]s.
pub const CGROUP_KINDS: u32 = CgroupKind::ALL.len() as u32;

/// Number of [`ThreadKind`]s.
pub const THREAD_KINDS: u32 = ThreadKind::ALL.len() as u32;

/// Index of a cgroup's histogram within one CPU's part of the histogram map.
#[inline(always)]
#[must_use]
pub const fn cgroup_hist(slot: u32, kind: CgroupKind) -> u32 {
    slot * CGROUP_KINDS + kind as u32
}

/// Index of a thread's histogram within one CPU's part of the histogram map, which holds `cgroup_slots` cgroups first.
#[inline(always)]
#[must_use]
pub const fn thread_hist(cgroup_slots: u32, slot: u32, kind: ThreadKind) -> u32 {
    cgroup_slots * CGROUP_KINDS + slot * THREAD_KINDS + kind as u32
}

/// Histograms in one CPU's part of the histogram map.
#[inline(always)]
#[must_use]
pub const fn hists_per_cpu(cgroup_slots: u32, thread_slots: u32) -> u32 {
    cgroup_slots * CGROUP_KINDS + thread_slots * THREAD_KINDS
}

/// One histogram of one CPU. Only programs on that CPU write it, so plain additions suffice.
///
/// Counts and sum only grow (the counts wrap at 2^32; user space takes differences at least once an hour).
/// Extremes are kept per epoch: user space flips the epoch's lowest bit, then reads and clears the half that no
/// program writes any more.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Hist {
    /// Sum of all latencies plus one ns for each, so that it changes with every one; written last. Tells a reader
    /// whether the buckets are worth reading.
    pub sum_ns: u64,
    /// Largest latency per half epoch, ns.
    pub max_ns: [u64; 2],
    /// Bitwise complement of the smallest latency per half epoch, so that zeroed memory means "none".
    pub not_min_ns: [u64; 2],
    /// Counts; see [`crate::hist`].
    pub buckets: [u32; BUCKETS],
}

/// What the kernel side remembers of a task, found by its tid (masked by the size of the map). Half a cache line.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct TaskRec {
    /// Since when the task waits for a CPU (CLOCK_MONOTONIC, ns); 0 while it does not.
    pub wait_ns: u64,
    /// Address of the task's css_set when `cgroup_slot` was looked up; 0 for "look it up".
    pub css_set: u64,
    /// Which task this is: several tids share a record where pid_max exceeds the map.
    pub tid: u32,
    /// Slot of the task's cgroup; valid only together with `css_set` and `generation`.
    pub cgroup_slot: u16,
    /// Lower half of the slot generation when `cgroup_slot` was looked up.
    pub generation: u16,
    /// Slot of the watched thread plus one; 0 for an unwatched task.
    pub thread: u16,
    /// [`task_flags`].
    pub flags: u16,
    /// Unused.
    pub reserved: u32,
}

/// Bits of [`TaskRec::flags`].
pub mod task_flags {
    /// The task passed sched_process_exit: never give it a thread slot again.
    pub const EXITED: u16 = 1;
    /// The wait began with a preemption, not with a wake-up.
    pub const PREEMPTED: u16 = 2;
    /// No thread slot was free for this RT task; it was counted once.
    pub const NO_SLOT: u16 = 4;
    /// The throttled time of the task's cfs_rq was noted when the wait began.
    pub const THROTTLE_STAMP: u16 = 8;
}

/// One cgroup slot. Slot 0 is "other": cgroups beyond the slots.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct CgroupSlot {
    /// Cgroup id (inode of its directory) in the hierarchy that holds the cpu controller; 0 for a free slot.
    pub id: u64,
    /// Times a thread of this cgroup was boosted by priority inheritance.
    pub boosts: u64,
    /// Throttle events of this cgroup's own quota.
    pub throttles: u64,
    /// nr_throttled that the period timer last saw, and the value before the first sight.
    pub nr_throttled: u64,
    /// throttled_time in ns that the period timer last saw.
    pub throttled_time_ns: u64,
    /// 1 when an RT thread was seen in this cgroup.
    pub rt_seen: u32,
    /// 1 once `nr_throttled` and `throttled_time_ns` hold a first reading.
    pub bandwidth_seen: u32,
    /// When a throttle was last reported to user space, ns.
    pub reported_ns: u64,
    /// Written by user space: 1 when throttles are to be reported to it.
    pub protected: u32,
    /// 1 once it was reported that this cgroup has RT threads; cleared by user space when there are none any more.
    pub rt_reported: u32,
    /// Those of `boosts` that a wait for a PI futex gave.
    pub futex_boosts: u64,
    /// Written by user space: wait from which on a fair task of this cgroup is late, ns; 0 for never.
    pub late_ns: u64,
    /// Fair tasks that were.
    pub late: u64,
    /// When that was last reported to user space, ns.
    pub late_reported_ns: u64,
}

/// A watched thread: every RT thread, and every thread that the user named.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct ThreadState {
    /// Thread id in the initial pid namespace; 0 for a free slot.
    pub tid: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// [`thread_state`].
    pub state: u32,
    /// Scheduling policy at the last switch-in (SCHED_*).
    pub policy: u32,
    /// Effective kernel priority at the last switch-in: -1 DEADLINE, 0..99 RT, 100.. fair.
    pub prio: i32,
    /// rt_priority at the last switch-in, 1..99; 0 for others.
    pub rt_priority: u32,
    /// Slot of its cgroup at the last switch-in.
    pub cgroup_slot: u32,
    /// CPU of the last switch-in.
    pub cpu: u32,
    /// Cgroup id at the last switch-in.
    pub cgroup_id: u64,
    /// comm, NUL-padded, at the first switch-in.
    pub comm: [u8; 16],

    /// Expiry (CLOCK_MONOTONIC, ns) of the timer that woke the thread last; 0 for none yet.
    pub expiry_ns: u64,
    /// When the timer interrupt handled that expiry, ns.
    pub expired_ns: u64,
    /// [`pending`] stages of that expiry.
    pub pending: u32,
    /// [`TimerKind`] of that expiry.
    pub timer_kind: u32,
    /// CPU on which the timer expired.
    pub timer_cpu: u32,
    /// Times the recognised period was confirmed, at most [`PERIOD_SURE`].
    pub period_hits: u32,
    /// Candidate or recognised period, ns.
    pub period_ns: u64,
    /// Periods skipped between two expiries of a recognised cyclic thread.
    pub missed: u64,
    /// Distance between the last two expiries that was a multiple of the period, ns.
    pub skip_ns: u64,
    /// How often in a row it came: a thread may have changed its period.
    pub skip_hits: u32,
    /// 1 once a return to user space was seen.
    pub user_seen: u32,
    /// User stages that could not be seen and were taken from the interrupt, because the thread never left its CPU.
    pub user_estimated: u64,

    /// When the thread began to wait for a contended lock; 0 while it does not.
    pub lock_ns: u64,
    /// Address of that lock.
    pub lock: u64,
    /// contention_begin's flags (LCB_F_*), or [`LOCK_PI_FUTEX`].
    pub lock_flags: u32,
    /// tid of the lock's owner where it could be read; 0 otherwise.
    pub lock_owner: u32,
    /// Times the thread was boosted by priority inheritance.
    pub boosts: u64,

    /// tid of the waker of the last wake-up.
    pub waker: u32,
    /// CPU on which the waker ran.
    pub waker_cpu: u32,
    /// comm of the waker.
    pub waker_comm: [u8; 16],
    /// The CPU that it waits for, plus one, as far as can be told when the wait begins; 0 for not known.
    pub wait_cpu: u32,
    /// Unused.
    pub reserved: u32,
    /// Hardirq time of that CPU when the wait began, ns.
    pub hardirq_at_wait_ns: u64,
    /// The same of softirqs, ns.
    pub softirq_at_wait_ns: u64,
    /// How that CPU had been occupied when the wait began.
    pub occupied_at_wait_ns: Occupied,

    /// When the thread last went to sleep; 0 while it has run or waited for a CPU since.
    pub slept_ns: u64,
    /// System call in which it went to sleep; [`NO_SYSCALL`] when unknown.
    pub slept_in: u32,
    /// [`crate::event::WakeContext`] of the last wake-up.
    pub wake_context: u32,
    /// Effective kernel priority of the waker.
    pub waker_prio: i32,
    /// Owner named by the word of the futex for which the thread went to sleep, not yet checked; 0 for none, and
    /// where late wake-ups are not explained.
    pub futex_owner: u32,
    /// Cgroup of the waker.
    pub waker_cgroup_id: u64,
    /// When the waker's last throttled wait ended, and how long it was throttled in it, ns; 0 for never.
    pub waker_throttled_until_ns: u64,
    /// See [`ThreadState::waker_throttled_until_ns`].
    pub waker_throttled_ns: u64,

    /// Latency from which on a wake-up of this thread is a breach, ns; written by user space; 0 takes the default.
    pub budget_ns: u64,
    /// Wake-ups over the budget.
    pub breaches: u64,
}

/// [`ThreadState::slept_in`] when the system call is unknown.
pub const NO_SYSCALL: u32 = u32::MAX;

/// Throttling of one task, apart from its [`TaskRec`] because it is touched only on nodes with quotas.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct ThrottleStamp {
    /// Throttled time of the task's cfs_rq when its wait began, ns.
    pub at_begin_ns: u64,
    /// When its last wait with throttled time in it ended, ns.
    pub ended_ns: u64,
    /// How long it was throttled in that wait, ns.
    pub took_ns: u64,
}

/// States of [`ThreadState::state`].
pub mod thread_state {
    /// The slot is free.
    pub const FREE: u32 = 0;
    /// User space or the kernel side has reserved the slot; the identity is not filled in yet.
    pub const NEW: u32 = 1;
    /// The thread was seen on a CPU; its identity is valid.
    pub const LIVE: u32 = 2;
    /// The thread has exited; user space takes its last counts and frees the slot.
    pub const DEAD: u32 = 3;
}

/// Bits of [`ThreadState::pending`].
pub mod pending {
    /// The timer expired; the thread is not on a CPU yet.
    pub const THREAD: u32 = 1;
    /// The thread is on a CPU; it is not back in user space yet.
    pub const USER: u32 = 2;
}

/// [`ThreadState::period_hits`] from which on the period is taken as recognised.
pub const PERIOD_SURE: u32 = 4;

/// [`ThreadState::skip_hits`] from which on the longer distance is taken as the new period.
pub const SKIP_SURE: u32 = 32;

/// [`ThreadState::lock_flags`] for a wait seen by `pi_blocked_on` only: a PI futex, which contention_begin does not report.
pub const LOCK_PI_FUTEX: u32 = 1 << 31;

/// What kind of timer woke a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TimerKind {
    /// None seen.
    None = 0,
    /// hrtimer_wakeup: nanosleep, clock_nanosleep, time-outs of poll, select, epoll and futex.
    Sleeper = 1,
    /// The same, expired in soft interrupt context: on PREEMPT_RT the sleepers of threads without a real-time policy.
    SleeperSoft = 2,
    /// dl_task_timer: a SCHED_DEADLINE thread's replenishment.
    Deadline = 3,
    /// Any other hrtimer callback that woke the thread, in hard interrupt context: timerfd, POSIX timers, drivers.
    CallbackHard = 4,
    /// The same in soft interrupt context: on PREEMPT_RT the ktimers thread.
    CallbackSoft = 5,
}

/// Time that each kind of occupant has had a CPU, ns, by [`Occupant`]; interrupts within it are part of it. It only grows.
/// As many as a masked index can reach.
pub type Occupied = [u64; 8];

/// What has a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Occupant {
    /// A real-time task, SCHED_DEADLINE included.
    RealTime = 0,
    /// A fair task, by its own right.
    Fair = 1,
    /// Nobody.
    Idle = 2,
    /// A fair task or nobody, while RT throttling keeps runnable real-time tasks off.
    RtThrottled = 3,
    /// The same, while the fair server does.
    FairServer = 4,
}

/// State and counters of one CPU; only programs on that CPU write it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct CpuState {
    /// The task that the last sched_switch put on this CPU, plus one; 0 before the first.
    pub running: u32,
    /// Slot of the watched thread that runs, plus one; 0 for an unwatched task.
    pub running_thread: u32,
    /// Written by user space: its lowest bit selects the half of the extremes that programs write; see [`Hist`].
    pub epoch: u32,
    /// Written by user space: raised whenever a cgroup slot changes its cgroup, so that remembered slots are looked
    /// up anew.
    pub generation: u32,
    /// 1 once a CFS period timer or a throttle was seen on any CPU: only then is throttled time looked at.
    pub quota_seen: u32,
    /// 1 while a hard-context hrtimer callback runs, whichever it is.
    pub hard_active: u32,
    /// Written by user space: time from where a program sees the return to user space until a thread there has read
    /// its clock, measured at start, ns.
    pub user_rest_ns: u32,
    /// Nesting depth of hard interrupts.
    pub hardirq_depth: u32,

    /// Since when it is occupied as it is: the last sched_switch, ns.
    pub occupied_since_ns: u64,
    /// How long it was occupied before, by the task that left last, ns.
    pub occupied_before_ns: u64,
    /// How it has been occupied until [`CpuState::occupied_since_ns`].
    pub occupied_ns: Occupied,
    /// [`Occupant`] since then.
    pub occupant: u32,
    /// Unused.
    pub reserved: u32,

    /// Expiry (CLOCK_MONOTONIC, ns) of the hard-context hrtimer callback now running; 0 for none.
    pub hard_expiry_ns: u64,
    /// When that callback was entered, ns.
    pub hard_expired_ns: u64,
    /// Expiry of the soft-context hrtimer callback now running, as [`CpuState::hard_expiry_ns`]; 0 for none.
    pub soft_expiry_ns: u64,
    /// When the soft-context callback was entered, ns.
    pub soft_expired_ns: u64,
    /// [`TimerKind`] of the hard-context callback.
    pub hard_kind: u32,
    /// [`TimerKind`] of the soft-context callback.
    pub soft_kind: u32,
    /// The task that runs the soft-context callback.
    pub soft_tid: u32,
    /// 1 when an RT task was runnable at the entry of the outermost hard interrupt.
    pub hardirq_rt: u32,

    /// Entry of the outermost hard interrupt, ns.
    pub hardirq_start_ns: u64,
    /// The task in whose context the current softirq runs, plus one; 0 for none.
    pub softirq_owner: u32,
    /// 1 when another RT task was runnable at the softirq's entry.
    pub softirq_rt: u32,
    /// Entry of the current softirq, ns.
    pub softirq_start_ns: u64,
    /// Time to be taken off the current softirq: hard interrupts within it, time switched out (PREEMPT_RT), ns.
    pub softirq_off_ns: u64,
    /// When the softirq's task was switched out; 0 while it runs.
    pub softirq_out_ns: u64,
    /// 1 when the fair server (dl_server) took the CPU from an RT task, 0 when RT throttling did.
    pub rt_stolen_by_server: u32,
    /// Which the outermost hard interrupt is, as [`crate::flight::Entry::arg`]; kept for the flight recorder only.
    pub hardirq_number: u32,
    /// Address of the rt_rq of the RT task that lost this CPU last, where the kernel rations RT time per cgroup; else 0.
    pub rt_stolen_from: u64,
    /// Last wake-up of an RT task by this CPU, ns.
    pub rt_wake_ns: u64,

    /// Hard interrupts counted.
    pub hardirq_count: u64,
    /// Time in hard interrupts, ns.
    pub hardirq_ns: u64,
    /// Part of it in which an RT task was runnable, ns.
    pub hardirq_rt_ns: u64,
    /// Softirqs counted.
    pub softirq_count: u64,
    /// Net time in softirqs, ns.
    pub softirq_ns: u64,
    /// Part of it in which an RT task was runnable, ns.
    pub softirq_rt_ns: u64,
    /// Longest hard interrupt per half epoch, ns.
    pub hardirq_max_ns: [u64; 2],
    /// Longest softirq per half epoch, ns.
    pub softirq_max_ns: [u64; 2],

    /// When a runnable RT task lost this CPU to a fair task or to idle; 0 for not now.
    pub rt_stolen_since_ns: u64,
    /// When the last such loss ended.
    pub rt_stolen_until_ns: u64,
    /// Times RT throttling took the CPU.
    pub rt_throttle_count: u64,
    /// Time it took, ns.
    pub rt_throttle_ns: u64,
    /// Times the fair server took the CPU.
    pub fair_server_count: u64,
    /// Time it took, ns.
    pub fair_server_ns: u64,

    /// Switches that the kernel did not show: the task that left was not the one that last came.
    pub lost_switches: u64,
    /// Wake-ups not counted because two tids share a record.
    pub lost_collisions: u64,
    /// Wake-ups counted under "other" because no cgroup slot was free.
    pub other_cgroups: u64,
    /// RT threads that found no thread slot.
    pub unwatched_threads: u64,
    /// Records that did not fit into the ring buffer.
    pub lost_events: u64,
    /// Kernel reads that failed.
    pub failed_reads: u64,
    /// Timers that were not counted because they were armed in the past or their clock was set.
    pub past_timers: u64,
    /// Throttles that were not followed because their map was full.
    pub lost_throttles: u64,
    /// When user space was last woken for a record, ns.
    pub reader_woken_ns: u64,
}

/// Throttle bookkeeping of one cfs_rq (one cgroup on one CPU), where fentry programs keep it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct ThrottleState {
    /// Since when the cfs_rq's own quota throttles it, ns; 0 for not now.
    pub own_since_ns: u64,
    /// Since when it or an ancestor is throttled, ns; 0 for not now.
    pub since_ns: u64,
    /// Time it or an ancestor was throttled, without the current throttle, ns.
    pub total_ns: u64,
}
