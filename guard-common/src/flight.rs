//! The flight recorder: what each CPU did lately, entry by entry, the oldest overwritten. It is on only where late
//! wake-ups are to be explained. User space looks into it after a breach: who ran while a thread waited, and what the
//! thread that it waited for did meanwhile.

/// One entry, a cache line. Instants are CLOCK_MONOTONIC in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Entry {
    /// Its number on its CPU plus one, lowest 32 bits; 0 while it is being written.
    pub seq: u32,
    /// [`kind`].
    pub kind: u8,
    /// [`flags`].
    pub flags: u8,
    /// The CPU.
    pub cpu: u16,
    /// When it happened; of an interrupt, when it ended.
    pub at_ns: u64,
    /// Interrupts: how long it took, without what interrupted it. Switches: how long the task that comes was throttled
    /// in the wait that ends.
    pub took_ns: u64,
    /// Cgroup of the task `tid` (switches).
    pub cgroup_id: u64,
    /// The task that comes, is woken, faults or moves; 0 for a CPU's idle task.
    pub tid: u32,
    /// Switches: the task that leaves. Wake-ups: the task that wakes, or was interrupted by what wakes.
    pub other: u32,
    /// Effective kernel priority of the task `tid`.
    pub prio: i32,
    /// Switches: state of the task that leaves (0 is runnable). Wake-ups: [`crate::event::WakeContext`]. Interrupts:
    /// their number, for a vector with [`VECTOR`]. Softirqs: their vector. Moves: the CPU.
    pub arg: u32,
    /// Name of the task `tid` (switches).
    pub comm: [u8; 16],
}

/// Kinds of [`Entry`].
pub mod kind {
    /// `other` leaves the CPU, `tid` comes.
    pub const SWITCH: u8 = 1;
    /// `tid` is woken.
    pub const WAKING: u8 = 2;
    /// A hard interrupt, the outermost, has ended.
    pub const IRQ: u8 = 3;
    /// A soft interrupt has ended.
    pub const SOFTIRQ: u8 = 4;
    /// A handler of a non-maskable interrupt has ended.
    pub const NMI: u8 = 5;
    /// `tid`, a watched thread, faults on a page in its own code.
    pub const FAULT: u8 = 6;
    /// `tid` moves to the run queue of the CPU in `arg`.
    pub const MIGRATE: u8 = 7;
    /// Made by user space: what this CPU did before `at_ns` was overwritten before it was read.
    pub const GAP: u8 = 8;
}

/// Bits of [`Entry::flags`].
pub mod flags {
    /// The task that leaves was preempted, whatever its state says.
    pub const PREEMPTED: u8 = 1;
    /// A quota weighs on the task that leaves (switches) or is woken.
    pub const THROTTLED: u8 = 2;
    /// The task that comes is run by a deadline server, which is the fair server.
    pub const SERVER: u8 = 4;
    /// The CPU is taken from a real-time task that stays runnable.
    pub const STOLEN: u8 = 8;
    /// RT throttling holds back the real-time task that is woken.
    pub const RT_THROTTLED: u8 = 16;
    /// The task that leaves is real-time, whatever it was when it came.
    pub const RT_LEAVES: u8 = 32;
}

/// Marks [`Entry::arg`] of an interrupt that has a vector of its own instead of a number; the rest is [`vector`].
pub const VECTOR: u32 = 1 << 31;

/// Interrupts with vectors of their own.
pub mod vector {
    /// The CPU's own timer.
    pub const LOCAL_TIMER: u32 = 1;
    /// Another CPU has this one call a function.
    pub const CALL_FUNCTION: u32 = 2;
    /// The same, of a single CPU.
    pub const CALL_FUNCTION_SINGLE: u32 = 3;
    /// Work that could not be done where it arose.
    pub const IRQ_WORK: u32 = 4;
}

/// Where a CPU writes next.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Head {
    /// Entries written so far.
    pub count: u64,
    /// Keeps the heads of two CPUs off one cache line.
    pub reserved: [u64; 7],
}
