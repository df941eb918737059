//! The control room's raw calls.

/// Gives memory that was freed back to the kernel: the kernel's type information, read at start, takes tens of MiB for a
/// moment, and the allocator would keep them.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions and locks the arenas it walks.
    unsafe {
        libc::malloc_trim(0);
    }
}
