//! The one system call that no crate here wraps: switching on the kernel's statistics of BPF run times.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// BPF_ENABLE_STATS of enum bpf_cmd.
const BPF_ENABLE_STATS: libc::c_long = 32;
/// BPF_STATS_RUN_TIME of enum bpf_stats_type.
const BPF_STATS_RUN_TIME: u32 = 0;

/// Switches run-time statistics on (as kernel.bpf_stats_enabled does) until the descriptor is closed: also when this
/// program is killed.
pub(crate) fn enable_run_time_statistics() -> io::Result<OwnedFd> {
    let attr = BPF_STATS_RUN_TIME;
    // SAFETY: for this command the kernel reads four bytes, the type, from `attr`, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const attr, size_of_val(&attr)) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
