//! The system calls that rustix does not wrap. A thread is named by its id in guard's own pid namespace; 0 is the caller.

use std::{io, mem};

use crate::snapshot::SchedPolicy;

/// Gives a thread a policy (SCHED_*, with flags) and a priority.
///
/// # Errors
/// When the kernel refuses: no privilege, no such thread, or no real-time time for the thread's cgroup
/// (CONFIG_RT_GROUP_SCHED).
pub fn set_scheduler(tid: u32, policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` outlives the call, which only reads it.
    match unsafe { libc::sched_setscheduler(tid.cast_signed(), policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the calling thread SCHED_DEADLINE with deadline = period, both in ns.
pub(super) fn set_deadline(runtime_ns: u64, period_ns: u64) -> io::Result<()> {
    let attr = libc::sched_attr {
        size: mem::size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_DEADLINE as u32,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: runtime_ns,
        sched_deadline: period_ns,
        sched_period: period_ns,
    };
    // SAFETY: pid 0 names the calling thread; the kernel reads `attr.size` bytes of `attr`, which outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Scheduling policy of a thread; `None` when it has ended.
#[must_use]
pub fn policy_of(tid: u32) -> Option<SchedPolicy> {
    let tid = libc::pid_t::try_from(tid).ok()?;
    // SAFETY: sched_getscheduler takes a number and touches no memory of ours; an unknown tid gives -1.
    let policy = unsafe { libc::sched_getscheduler(tid) };
    u32::try_from(policy & !libc::SCHED_RESET_ON_FORK).ok().map(SchedPolicy::from_raw)
}

/// Period of a thread with policy SCHED_DEADLINE, ns; `None` for any other, and when it has ended.
#[must_use]
pub fn deadline_period_ns(tid: u32) -> Option<u64> {
    let tid = libc::pid_t::try_from(tid).ok()?;
    let size = libc::c_uint::try_from(size_of::<libc::sched_attr>()).ok()?;
    // SAFETY: all fields of sched_attr are numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to `attributes`, which lives until the call is over.
    let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attributes, size, 0) };
    let is_deadline = u32::try_from(libc::SCHED_DEADLINE).is_ok_and(|policy| policy == attributes.sched_policy);
    (failed == 0 && is_deadline).then_some(attributes.sched_period)
}

/// Sleeps until `wanted_ns` on CLOCK_MONOTONIC and reads that clock at once, with as little around both calls as
/// cyclictest has, also in a build that is not optimised. Returns the reading in ns; an interrupted sleep ends early.
#[must_use]
pub fn sleep_and_read(wanted_ns: u64) -> u64 {
    let request = libc::timespec {
        tv_sec: (wanted_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (wanted_ns % 1_000_000_000).cast_signed(),
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both structs live across the calls; without a remainder wanted the last pointer may be null.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const request, std::ptr::null_mut());
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
