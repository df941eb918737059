//! Records in the ring buffer. A record is written only for a breach, for late fair tasks of a cgroup with a budget, for
//! a throttle of a protected cgroup, or for the first RT thread of a cgroup, never for a good wake-up. Each begins with a
//! number that says what it is, so that a reader counts what it does not know as lost instead of reading it as
//! something else.

/// What can be in the ring buffer.
pub trait Record {
    /// The number that it begins with there.
    const KIND: RecordKind;
}

/// Declares the kinds of record: a kind is one line, a number is never given again.
macro_rules! records {
    ($($record:ident = $number:literal,)+) => {
        /// What a record is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum RecordKind {
            $(
                #[doc = concat!("[`", stringify!($record), "`]")]
                $record = $number,
            )+
        }

        $(
            impl Record for $record {
                const KIND: RecordKind = RecordKind::$record;
            }
        )+
    };
}

records! {
    Breach = 1,
    Stacks = 2,
    Throttled = 3,
    LateFair = 4,
    NewRealTime = 5,
}

/// A record as it lies in the ring buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Framed<T> {
    /// [`RecordKind`].
    pub kind: u32,
    /// Unused.
    pub reserved: u32,
    /// The record itself.
    pub record: T,
}

/// What a breach record measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BreachKind {
    /// From the timer's requested expiry to the switch-in.
    Timer = 1,
    /// From sched_waking, or from a preemption, to the switch-in.
    Wakeup = 2,
    /// From going to sleep in the middle of a cycle, or for a lock, to the switch-in.
    Blocked = 3,
}

/// Where a wake-up came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WakeContext {
    /// Not seen.
    Unknown = 0,
    /// The waker itself did it.
    Task = 1,
    /// A soft interrupt, in the context of the task that is called the waker.
    Softirq = 2,
    /// A hard interrupt, likewise.
    Hardirq = 3,
}

/// A cgroup that user space protects was stopped by a quota: its own, or, when a task of it was seen to leave its CPU
/// because of it, an ancestor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Throttled {
    /// When it was seen, CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// The cgroup.
    pub cgroup_id: u64,
}

/// A cgroup without known real-time threads has one, of user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct NewRealTime {
    /// When it was seen, CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// The cgroup.
    pub cgroup_id: u64,
    /// The thread.
    pub tid: u32,
    /// Its policy (SCHED_*).
    pub policy: u32,
}

/// Fair tasks of a cgroup that has a budget waited for longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct LateFair {
    /// Switch-in of the last of them, CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// The cgroup.
    pub cgroup_id: u64,
    /// How long that one waited, without time in which it was throttled, ns.
    pub wait_ns: u64,
    /// All late waits of the cgroup so far.
    pub late: u64,
    /// Cgroup of the task that left the CPU.
    pub prev_cgroup_id: u64,
}

/// Least time between two [`Throttled`] or [`LateFair`] records of one cgroup, and between two wake-ups of user space by
/// one CPU, ns.
pub const REPORT_EVERY_NS: u64 = 2_000_000;

/// Bits of [`Breach::flags`].
pub mod breach_flags {
    /// The wait began with a preemption.
    pub const PREEMPTED: u32 = 1;
    /// The timer expired on another CPU than the thread then ran on.
    pub const REMOTE_TIMER: u32 = 2;
    /// The thread woke on another CPU than it ran on before.
    pub const MIGRATED: u32 = 4;
    /// The CPU was taken from RT tasks by RT throttling or the fair server during the wait.
    pub const RT_STOLEN: u32 = 8;
    /// The thread had been blocked on a PI lock or a contended lock before this wake-up.
    pub const LOCK: u32 = 16;
    /// The timer ran in soft interrupt context.
    pub const SOFT_TIMER: u32 = 32;
    /// With [`RT_STOLEN`]: it was the fair server, not RT throttling.
    pub const FAIR_SERVER: u32 = 64;
    /// The owner of the lock is what the word of a futex says, which only user space keeps.
    pub const FUTEX_OWNER: u32 = 128;
}

/// A wake-up over its budget, with all that was known at the switch-in. Instants are CLOCK_MONOTONIC in ns.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Breach {
    /// [`BreachKind`].
    pub kind: u32,
    /// [`breach_flags`].
    pub flags: u32,
    /// Switch-in.
    pub switched_in_ns: u64,
    /// Where the latency counts from: the requested expiry, or the wake-up.
    pub since_ns: u64,
    /// When the timer interrupt handled the expiry; 0 without a timer.
    pub expired_ns: u64,
    /// sched_waking or the preemption; 0 when unknown.
    pub waking_ns: u64,
    /// tid of the late thread.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its effective kernel priority.
    pub prio: i32,
    /// Its policy.
    pub policy: u32,
    /// CPU of the switch-in.
    pub cpu: u32,
    /// CPU on which the timer expired or the waker ran.
    pub waker_cpu: u32,
    /// tid of the waker (the interrupted task when an interrupt woke).
    pub waker: u32,
    /// tid of the task that left the CPU.
    pub prev_tid: u32,
    /// Effective kernel priority of the task that left the CPU.
    pub prev_prio: i32,
    /// Its state (0 is runnable).
    pub prev_state: u32,
    /// [`crate::maps::TimerKind`].
    pub timer_kind: u32,
    /// Flags of the lock that the thread waited for last, if [`breach_flags::LOCK`].
    pub lock_flags: u32,
    /// Address of that lock.
    pub lock: u64,
    /// tid of its owner when the wait began, where readable; with [`breach_flags::FUTEX_OWNER`] that of the futex.
    pub lock_owner: u32,
    /// rt_priority of the late thread.
    pub rt_priority: u32,
    /// How long it waited for the lock, ns.
    pub lock_wait_ns: u64,
    /// When it had gone to sleep; 0 if it had not.
    pub slept_ns: u64,
    /// System call in which it had; [`crate::maps::NO_SYSCALL`] when unknown.
    pub slept_in: u32,
    /// [`WakeContext`] of the wake-up.
    pub wake_context: u32,
    /// Effective kernel priority of the waker.
    pub waker_prio: i32,
    /// Unused.
    pub reserved: u32,
    /// Cgroup of the waker.
    pub waker_cgroup_id: u64,
    /// When the waker's last throttled wait ended; 0 for never.
    pub waker_throttled_until_ns: u64,
    /// How long it was throttled in that wait, ns.
    pub waker_throttled_ns: u64,
    /// Cgroup of the late thread.
    pub cgroup_id: u64,
    /// Cgroup of the task that left the CPU.
    pub prev_cgroup_id: u64,
    /// Time in hard interrupts on this CPU while the thread waited for it, ns.
    pub hardirq_ns: u64,
    /// The same for softirqs, ns.
    pub softirq_ns: u64,
    /// How this CPU was occupied in that time, ns, by [`crate::maps::Occupant`]; all 0 when the wait was for another CPU.
    pub occupied_ns: crate::maps::Occupied,
    /// How long the task that left the CPU had had it, ns.
    pub prev_ran_ns: u64,
    /// Part of the wait in which the thread's cfs_rq was throttled (fair threads), ns.
    pub throttled_ns: u64,
    /// comm of the late thread.
    pub comm: [u8; 16],
    /// comm of the task that left the CPU.
    pub prev_comm: [u8; 16],
    /// comm of the waker.
    pub waker_comm: [u8; 16],
}

/// Most frames of a stack that are kept.
pub const FRAMES: usize = 32;

/// Return addresses in the kernel, the innermost first; 0 from the end on.
pub type Frames = [u64; FRAMES];

/// Kernel stacks of a [`Breach`], where they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Stacks {
    /// Switch-in of the late thread: with its tid the name of the breach.
    pub switched_in_ns: u64,
    /// The late thread.
    pub tid: u32,
    /// Unused.
    pub reserved: u32,
    /// Stack of what ran when it was woken: the waker, or what an interrupt interrupted and the interrupt itself. All 0
    /// when no wake-up began the wait.
    pub waking: Frames,
    /// Stack of the task that left the CPU for it, as it left.
    pub leaving: Frames,
}
