//! The system calls of the lab that rustix does not wrap: scheduling policies, and what a child does between fork and
//! exec.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{io, mem};

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread SCHED_FIFO at `priority` (1..=99).
pub(super) fn set_fifo(priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: pid 0 names the calling thread and `param` outlives the call, which only reads it.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) })
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

/// Scheduling policy of the calling thread: one of SCHED_*.
pub(super) fn own_policy() -> io::Result<libc::c_int> {
    // SAFETY: pid 0 names the calling thread; no memory is passed.
    match unsafe { libc::sched_getscheduler(0) } {
        -1 => Err(io::Error::last_os_error()),
        policy => Ok(policy),
    }
}

/// Has the command's process get `signal` when the thread that started it ends, however it ends.
pub(super) fn signal_when_orphaned(command: &mut Command, signal: rustix::process::Signal) -> &mut Command {
    // SAFETY: the closure runs in the child between fork and exec and makes one system call: prctl(2) is safe there, and
    // neither memory is allocated nor a lock taken.
    unsafe {
        command
            .pre_exec(move || rustix::process::set_parent_process_death_signal(Some(signal)).map_err(io::Error::from))
    }
}
