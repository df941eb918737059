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

/// Gives memory that was freed back to the kernel: the kernel's type information, read at start, takes tens of MiB for a
/// moment, and the allocator would keep them.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions and locks the arenas it walks.
    unsafe {
        libc::malloc_trim(0);
    }
}
