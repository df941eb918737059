//! The words of a Snapshot, as enums under the names that JSON has. A Snapshot may come from a recording or a socket of
//! another version: a word that this version does not know is kept as it was read.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One of a closed list of words.
pub trait Named: Copy {
    /// The word, as JSON has it.
    fn name(self) -> &'static str;
}

/// A word that this version knows, or one that it does not.
#[derive(Clone, Debug)]
pub enum Word<T> {
    /// Known.
    Known(T),
    /// As it was read.
    Other(Box<str>),
}

impl<T: Copy> Word<T> {
    /// The word, if this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(word) => Some(*word),
            Self::Other(_) => None,
        }
    }
}

impl<T: Named> Word<T> {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(word) => word.name(),
            Self::Other(text) => text,
        }
    }
}

impl<T> Default for Word<T> {
    fn default() -> Self {
        Self::Other(Box::default())
    }
}

impl<T: Named> From<T> for Word<T> {
    fn from(word: T) -> Self {
        Self::Known(word)
    }
}

impl<T: FromStr> From<&str> for Word<T> {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Other(text.into()), Self::Known)
    }
}

impl<T: fmt::Display> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(word) => word.fmt(f),
            Self::Other(text) => f.pad(text),
        }
    }
}

impl<T: PartialEq> PartialEq for Word<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => a == b,
            (Self::Other(a), Self::Other(b)) => a == b,
            _ => false,
        }
    }
}

impl<T: Eq> Eq for Word<T> {}

impl<T: Named> Hash for Word<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(word) if word == other)
    }
}

/// By text, as maps of JSON are sorted.
impl<T: Named + Eq> Ord for Word<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<T: Named + Eq> PartialOrd for Word<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Named> Borrow<str> for Word<T> {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl<T: fmt::Display> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Cow::<str>::deserialize(deserializer)?.as_ref().into())
    }
}

/// Any text, since readers of other versions must bear other words.
impl<T> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        String::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// An enum of words, each given once.
macro_rules! words {
    ($($(#[$about:meta])* enum $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$each])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word, as JSON has it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl $crate::snapshot::Named for $name {
            fn name(self) -> &'static str {
                self.name()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::snapshot::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err($crate::snapshot::UnknownWord) }
            }
        }
    )+};
}
pub(crate) use words;

/// A text that is none of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a word of this list")]
pub struct UnknownWord;

words! {
    /// A signal.
    enum SignalName {
        /// Runnable until on a CPU.
        Wakeup = "wakeup",
        /// Throttles of cgroups.
        Throttle = "throttle",
        /// Timer expiry to interrupt and to CPU.
        Timer = "timer",
        /// Timer expiry to user space.
        User = "user",
        /// The throttled part of a wait.
        ThrottledWait = "throttled_wait",
        /// CPU time taken from runnable real-time tasks.
        RtThrottle = "rt_throttle",
        /// Waits for contended locks.
        Lock = "lock",
        /// Time in interrupts.
        Irq = "irq",
        /// Late wake-ups.
        Breach = "breach",
        /// The flight recorder.
        Flight = "flight",
    }

    /// Where the count and the duration of throttles come from.
    enum ThrottleSource {
        /// The kernel's functions that throttle.
        Fentry = "fentry",
        /// Expiries of the period timer.
        PeriodTimer = "period_timer",
        /// The cgroup's file.
        CpuStat = "cpu.stat",
    }

    /// From when a late wake-up counts.
    enum BreachKind {
        /// The timer's expiry.
        Timer = "timer",
        /// sched_waking, or the preemption.
        Wakeup = "wakeup",
        /// Going to sleep for a lock, or in the middle of a cycle.
        Blocked = "blocked",
    }

    /// What else is known of a late wake-up.
    enum BreachFlag {
        /// It had been preempted.
        Preempted = "preempted",
        /// Its timer expired on another CPU.
        RemoteTimer = "remote_timer",
        /// It changed its CPU.
        Migrated = "migrated",
        /// RT throttling took the CPU.
        RtStolen = "rt_stolen",
        /// The fair server took the CPU.
        FairServer = "fair_server",
        /// It slept for a lock.
        Lock = "lock",
        /// Its timer expires in a soft interrupt.
        SoftTimer = "soft_timer",
        /// The lock's owner is what the futex's own word says.
        FutexOwner = "futex_owner",
    }

    /// Why what the CPUs did in a late wake-up is not known.
    enum Unaccounted {
        /// The flight recorder was turned off.
        RecorderOff = "recorder_off",
        /// It was off because there was too little memory for it.
        NoMemory = "no_memory",
        /// What happened had been overwritten.
        Overwritten = "overwritten",
        /// There were too many worse ones at once.
        TooMany = "too_many",
        /// It is known but for what this kernel does not show the recorder.
        RecorderDegraded = "recorder_degraded",
    }

    /// A kind of lock.
    enum LockKind {
        /// A futex with priority inheritance.
        PiFutex = "PI futex",
        /// Mutex of the kernel.
        Mutex = "mutex",
        /// Reader-writer lock.
        Rwlock = "rwlock",
        /// Per-CPU reader-writer lock.
        PerCpuRwlock = "per-CPU rwlock",
        /// rt_mutex, on PREEMPT_RT also what is a spinlock elsewhere.
        RtMutex = "rt_mutex",
        /// Spinlock.
        Spinlock = "spinlock",
        /// Any other.
        Semaphore = "semaphore",
    }

    /// Where a wake-up came from.
    enum WokenBy {
        /// A task.
        Task = "task",
        /// A soft interrupt.
        Softirq = "softirq",
        /// A hard interrupt.
        Hardirq = "hardirq",
    }

    /// A scheduling policy.
    enum SchedPolicy {
        /// SCHED_OTHER.
        Other = "OTHER",
        /// SCHED_FIFO.
        Fifo = "FIFO",
        /// SCHED_RR.
        Rr = "RR",
        /// SCHED_BATCH.
        Batch = "BATCH",
        /// SCHED_IDLE.
        Idle = "IDLE",
        /// SCHED_DEADLINE.
        Deadline = "DEADLINE",
        /// SCHED_EXT.
        Ext = "EXT",
        /// One that guard has no name for.
        Unknown = "UNKNOWN",
    }

    /// What kind of timer wakes a thread.
    enum TimerKind {
        /// A sleep, in the hard interrupt.
        Sleeper = "sleeper",
        /// A sleep, in the soft interrupt.
        SleeperSoft = "softirq-sleeper",
        /// The replenishment of SCHED_DEADLINE.
        Deadline = "deadline",
        /// Any other callback, in the hard interrupt.
        Callback = "callback",
        /// Any other callback, in the soft interrupt.
        CallbackSoft = "softirq-callback",
    }

    /// What made a wake-up late, after rtla's taxonomy.
    enum Cause {
        /// It waited for a lock whose holder could not run because of a quota.
        ThrottledLockHolder = "throttled_lock_holder",
        /// It waited for a thread, mostly for a lock of it, that could run and had to wait for its CPU.
        LockHolderPreempted = "lock_holder_preempted",
        /// It waited for a lock of the kernel or a futex with priority inheritance.
        LockContention = "lock_contention",
        /// It waited for a futex without priority inheritance.
        NonPiLock = "non_pi_lock",
        /// It waited for the data of a thread that could not run because of a quota.
        CoThreadThrottled = "co_thread_throttled",
        /// A thread of the same or a higher priority had the CPU.
        HigherPriority = "higher_priority",
        /// A thread of a lower priority had the CPU and could not be preempted.
        LowerPriorityBlocking = "lower_priority_blocking",
        /// Hard interrupts, or the threads that handle them, had the CPU.
        Irq = "irq",
        /// Soft interrupts, or the threads that run them, had the CPU.
        Softirq = "softirq",
        /// Non-maskable interrupts had the CPU.
        Nmi = "nmi",
        /// The kernel took the CPU from all real-time threads.
        RtThrottling = "rt_throttling",
        /// The kernel gave the CPU to a fair thread that would have starved.
        FairServer = "fair_server",
        /// It runs under a fair policy, although it has a budget.
        PolicyFallback = "policy_fallback",
        /// It waited for memory that it touched.
        PageFault = "page_fault",
        /// Its timer expired on another CPU.
        RemoteTimer = "remote_timer",
        /// Its timer had to wait for the thread that runs soft timers.
        SoftTimer = "soft_timer",
        /// It was being moved to another CPU.
        Migration = "migration",
        /// Its CPU had to wake from idle.
        CpuIdleExit = "cpu_idle_exit",
        /// The host of this virtual machine gave the CPU to somebody else.
        Steal = "steal",
        /// The evidence does not show it.
        Unknown = "unknown",
    }

    /// What came of a change.
    enum ActionState {
        /// guard does not write here: it would.
        Planned = "planned",
        /// A dry run: it would be written.
        Pending = "would be written",
        /// Written, and read back.
        Written = "written",
        /// The kernel takes the original no more; what comes nearest was written, and read back.
        Nearest = "written as near as the kernel takes it",
        /// It was so already; nothing was written.
        Unchanged = "unchanged",
        /// The cgroup was removed, or is another one now.
        Gone = "the cgroup has gone",
        /// The kernel does not take this value.
        Refused = "refused",
        /// Somebody else set another value, which stays.
        Foreign = "left to somebody else",
        /// Not tried now.
        Limited = "not tried",
        /// The kernel was busy with it.
        Busy = "busy",
        /// The node does not let guard.
        Failed = "failed",
    }

    /// What a thread did while it was waited for.
    enum Did {
        /// It ran.
        Ran = "ran",
        /// A quota stopped it.
        Throttled = "throttled",
        /// It could run, and others had its CPU.
        Preempted = "preempted",
        /// It waited for the next thread of the chain.
        Waited = "waited",
        /// It slept, until no thread woke it.
        Slept = "slept",
    }
}

impl Default for ThrottleSource {
    /// What every kernel has.
    fn default() -> Self {
        Self::CpuStat
    }
}

impl SchedPolicy {
    /// From the number of include/uapi/linux/sched.h.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Other,
            1 => Self::Fifo,
            2 => Self::Rr,
            3 => Self::Batch,
            5 => Self::Idle,
            6 => Self::Deadline,
            7 => Self::Ext,
            _ => Self::Unknown,
        }
    }

    /// Whether it is above the fair class: FIFO, RR or DEADLINE.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::Rr | Self::Deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_another_version_is_read_and_written_as_it_stands() {
        let known: Word<SignalName> = serde_json::from_str("\"rt_throttle\"").unwrap();
        assert_eq!(known, SignalName::RtThrottle);
        let other: Word<SignalName> = serde_json::from_str("\"net\\n\"").unwrap();
        assert_eq!((other.known(), other.as_str()), (None, "net\n"));
        for word in [known, other] {
            let text = serde_json::to_string(&word).unwrap();
            assert_eq!(serde_json::from_str::<Word<SignalName>>(&text).unwrap(), word);
        }
    }

    #[test]
    fn every_word_leads_back() {
        fn all<T: Named + FromStr + PartialEq + fmt::Debug>(words: &[T]) {
            for word in words {
                assert_eq!(word.name().parse().ok(), Some(*word));
            }
        }
        all(SignalName::ALL);
        all(ThrottleSource::ALL);
        all(BreachKind::ALL);
        all(BreachFlag::ALL);
        all(LockKind::ALL);
        all(WokenBy::ALL);
        all(Unaccounted::ALL);
        all(SchedPolicy::ALL);
        all(TimerKind::ALL);
        all(Cause::ALL);
        all(Did::ALL);
        all(ActionState::ALL);
    }
}
