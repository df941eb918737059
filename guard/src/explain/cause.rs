//! The vocabulary of causes, after rtla's taxonomy, and what can be done about each.

/// What made a wake-up late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It waited for a lock whose holder could not run because of a quota.
    ThrottledLockHolder,
    /// It waited for a thread, mostly for a lock of it, that could run and had to wait for its CPU.
    LockHolderPreempted,
    /// It waited for a lock of the kernel or a futex with priority inheritance.
    LockContention,
    /// It waited for a futex without priority inheritance.
    NonPiLock,
    /// It waited for the data of a thread that could not run because of a quota.
    CoThreadThrottled,
    /// A thread of the same or a higher priority had the CPU.
    HigherPriority,
    /// A thread of a lower priority had the CPU and could not be preempted.
    LowerPriorityBlocking,
    /// Hard interrupts, or the threads that handle them, had the CPU.
    Irq,
    /// Soft interrupts, or the threads that run them, had the CPU.
    Softirq,
    /// Non-maskable interrupts had the CPU.
    Nmi,
    /// The kernel took the CPU from all real-time threads.
    RtThrottling,
    /// The kernel gave the CPU to a fair thread that would have starved.
    FairServer,
    /// It runs under a fair policy, although it has a budget.
    PolicyFallback,
    /// It waited for memory that it touched.
    PageFault,
    /// Its timer expired on another CPU.
    RemoteTimer,
    /// Its timer had to wait for the thread that runs soft timers.
    SoftTimer,
    /// It was being moved to another CPU.
    Migration,
    /// Its CPU had to wake from idle.
    CpuIdleExit,
    /// The host of this virtual machine gave the CPU to somebody else.
    Steal,
    /// What was seen does not tell.
    Unknown,
}

impl Cause {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ThrottledLockHolder => "throttled_lock_holder",
            Self::LockHolderPreempted => "lock_holder_preempted",
            Self::LockContention => "lock_contention",
            Self::NonPiLock => "non_pi_lock",
            Self::CoThreadThrottled => "co_thread_throttled",
            Self::HigherPriority => "higher_priority",
            Self::LowerPriorityBlocking => "lower_priority_blocking",
            Self::Irq => "irq",
            Self::Softirq => "softirq",
            Self::Nmi => "nmi",
            Self::RtThrottling => "rt_throttling",
            Self::FairServer => "fair_server",
            Self::PolicyFallback => "policy_fallback",
            Self::PageFault => "page_fault",
            Self::RemoteTimer => "remote_timer",
            Self::SoftTimer => "soft_timer",
            Self::Migration => "migration",
            Self::CpuIdleExit => "cpu_idle_exit",
            Self::Steal => "steal",
            Self::Unknown => "unknown",
        }
    }

    /// The cause of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }

    /// Every cause.
    pub const ALL: [Self; 20] = [
        Self::ThrottledLockHolder,
        Self::LockHolderPreempted,
        Self::LockContention,
        Self::NonPiLock,
        Self::CoThreadThrottled,
        Self::HigherPriority,
        Self::LowerPriorityBlocking,
        Self::Irq,
        Self::Softirq,
        Self::Nmi,
        Self::RtThrottling,
        Self::FairServer,
        Self::PolicyFallback,
        Self::PageFault,
        Self::RemoteTimer,
        Self::SoftTimer,
        Self::Migration,
        Self::CpuIdleExit,
        Self::Steal,
        Self::Unknown,
    ];

    /// What a person can do about it; None where nothing general can be said.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::ThrottledLockHolder | Self::CoThreadThrottled => {
                "remove the CPU quota of that cgroup (cpu.max = max), or let guard lift it: guard run --enforce"
            }
            Self::LockHolderPreempted => {
                "give the lock priority inheritance, or let no thread of another priority run on the CPU of its holder"
            }
            Self::LockContention => "hold the lock for a shorter time, or keep lower-priority threads away from it",
            Self::NonPiLock => "give the mutex priority inheritance (PTHREAD_PRIO_INHERIT)",
            Self::HigherPriority => "move one of the two to another CPU, or set their priorities anew",
            Self::LowerPriorityBlocking => {
                "find what keeps preemption off; on a kernel without PREEMPT_RT this is the kernel itself"
            }
            Self::Irq => "move the interrupt away from the CPUs of the real-time threads (/proc/irq/N/smp_affinity)",
            Self::Softirq => "keep network and timer load off the CPUs of the real-time threads (RPS, irqaffinity=)",
            Self::Nmi => "turn off what raises them: the watchdogs (kernel.watchdog = 0), perf on these CPUs",
            Self::RtThrottling => {
                "let the real-time threads sleep in every period, or set kernel.sched_rt_runtime_us = -1"
            }
            Self::FairServer => "let the real-time threads sleep in every second, or take fair threads off their CPUs",
            Self::PolicyFallback => "let it have its real-time policy: CAP_SYS_NICE or --ulimit rtprio=99",
            Self::PageFault => "lock its memory (mlockall) and touch all of it before the cycles begin",
            Self::RemoteTimer => "pin the thread to one CPU before it arms its timer",
            Self::SoftTimer => {
                "wait by clock_nanosleep instead of a timerfd or POSIX timer, or raise the priority of the ktimers threads"
            }
            Self::Migration => "pin the thread to one CPU",
            Self::Steal => "give the virtual machine CPUs of its own on its host",
            Self::CpuIdleExit => "keep the CPU from deep idle states: hold /dev/cpu_dma_latency open at 0",
            Self::Unknown => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        let names: HashSet<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|cause| Cause::from_name(cause.name()) == Some(*cause)));
        assert_eq!(Cause::from_name("weather"), None);
    }
}
