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

/// Nice value of the threads between an event and its answer, where they are not real-time.
const URGENT_NICE: i32 = -20;

/// Lets this thread, but none that it starts, run before those of the fair class: as SCHED_FIFO with this priority, for a
/// nice value counts only among the threads of one cgroup. With 0, or where that is refused, by its nice value.
pub(super) fn hurry(priority: u8) {
    if priority > 0 {
        match real_time(priority) {
            Ok(()) => return,
            Err(error) => {
                tracing::info!(
                    "SCHED_FIFO {priority} for guard itself: {error}; it runs at nice {URGENT_NICE} instead"
                );
            }
        }
    }
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), URGENT_NICE) {
        tracing::warn!("setpriority to {URGENT_NICE}: {error}; guard may react late on a busy node");
    }
}

fn real_time(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: 0 is this thread, and the parameters are valid for the call.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
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
