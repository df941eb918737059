//! The one system call that rustix does not wrap.

/// Scheduling policy of a thread of guard's own pid namespace, as SCHED_* without flags; None when it has ended.
pub(super) fn scheduling_policy(tid: u32) -> Option<u32> {
    let tid = libc::pid_t::try_from(tid).ok()?;
    // SAFETY: sched_getscheduler takes a number and touches no memory of ours; an unknown tid gives -1.
    let policy = unsafe { libc::sched_getscheduler(tid) };
    u32::try_from(policy & !libc::SCHED_RESET_ON_FORK).ok()
}
