//! The system calls that rustix does not wrap.

/// Scheduling policy of a thread of guard's own pid namespace, as SCHED_* without flags; None when it has ended.
pub(super) fn scheduling_policy(tid: u32) -> Option<u32> {
    let tid = libc::pid_t::try_from(tid).ok()?;
    // SAFETY: sched_getscheduler takes a number and touches no memory of ours; an unknown tid gives -1.
    let policy = unsafe { libc::sched_getscheduler(tid) };
    u32::try_from(policy & !libc::SCHED_RESET_ON_FORK).ok()
}

/// Period of a thread of guard's own pid namespace with policy SCHED_DEADLINE, ns; None for any other, and when it has
/// ended.
pub(super) fn deadline_period_ns(tid: u32) -> Option<u64> {
    let tid = libc::pid_t::try_from(tid).ok()?;
    let size = libc::c_uint::try_from(size_of::<libc::sched_attr>()).ok()?;
    // SAFETY: all fields of sched_attr are numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to `attributes`, which lives until the call is over.
    let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attributes, size, 0) };
    let is_deadline = u32::try_from(libc::SCHED_DEADLINE).is_ok_and(|policy| policy == attributes.sched_policy);
    (failed == 0 && is_deadline).then_some(attributes.sched_period)
}
