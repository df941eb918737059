//! What a child of the lab does between fork and exec.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has the command's process get `signal` when the thread that started it ends, however it ends.
pub(super) fn signal_when_orphaned(command: &mut Command, signal: rustix::process::Signal) -> &mut Command {
    // SAFETY: the closure runs in the child between fork and exec and makes one system call: prctl(2) is safe there, and
    // neither memory is allocated nor a lock taken.
    unsafe {
        command
            .pre_exec(move || rustix::process::set_parent_process_death_signal(Some(signal)).map_err(io::Error::from))
    }
}
