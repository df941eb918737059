//! What can be done about each cause.

use crate::snapshot::Cause;

impl Cause {
    /// What a person can do about it; `None` where nothing general can be said.
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
