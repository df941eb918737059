//! The control room's raw calls.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for a file descriptor to become readable.
///
/// # Errors
/// The event loop refuses it.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open until it is dropped, answers with the same descriptor all that time, and here it is
    // dropped together with the AsyncFd that takes it; nobody else has it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// Makes this thread SCHED_FIFO with this priority, or, with none, an ordinary thread; not so those that it starts.
///
/// # Errors
/// The kernel refuses it: no privilege, or no real-time time for the thread's cgroup (CONFIG_RT_GROUP_SCHED).
pub(super) fn set_real_time(priority: Option<u8>) -> io::Result<()> {
    let policy = if priority.is_some() { libc::SCHED_FIFO } else { libc::SCHED_OTHER };
    let parameters = libc::sched_param { sched_priority: priority.unwrap_or(0).into() };
    // SAFETY: 0 is this thread, and the parameters are valid for the call.
    let result = unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives memory that was freed back to the kernel: the kernel's type information, read at start, takes tens of MiB for a
/// moment, and the allocator would keep them.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions and locks the arenas it walks.
    unsafe {
        libc::malloc_trim(0);
    }
}
