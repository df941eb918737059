//! Watches every write to cgroup files, whoever makes it: by fanotify on all cgroup mounts.

use std::{ffi::CString, fs, io::Read as _, os::fd::AsRawFd as _, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sys;

/// A write that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Process that made it.
    pub pid: u32,
    /// File.
    pub path: PathBuf,
}

/// Watches from its making on.
#[derive(Debug)]
pub struct Writes {
    events: fs::File,
}

/// Bytes of the head of an event: struct fanotify_event_metadata.
const HEAD: usize = 24;

impl Writes {
    /// Begins to watch all mounted cgroup hierarchies. None, with the reason, where the kernel has no fanotify.
    ///
    /// # Errors
    /// When a mount cannot be watched.
    pub fn watch() -> Result<std::result::Result<Self, String>> {
        let group = match sys::fanotify() {
            Ok(group) => group,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                return Ok(Err(format!("fanotify_init: {error}")));
            }
            Err(error) => return Err(error).context("fanotify_init"),
        };
        let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        let mut watched = 0;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, mount, "cgroup" | "cgroup2", ..] = fields[..] else { continue };
            sys::watch_writes(&group, &CString::new(mount)?).with_context(|| format!("fanotify_mark of {mount}"))?;
            watched += 1;
        }
        ensure!(watched > 0, "no cgroup file system is mounted");
        Ok(Ok(Self { events: fs::File::from(group) }))
    }

    /// The writes since the last call.
    ///
    /// # Errors
    /// When the kernel lost some, or says what this does not understand.
    pub fn seen(&mut self) -> Result<Vec<Write>> {
        let mut seen = Vec::new();
        let mut buffer = [0_u8; 4096];
        loop {
            let filled = match self.events.read(&mut buffer) {
                Ok(filled) => filled,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(seen),
                // The event's file cannot be opened any more, for its cgroup has gone: somebody else's, since those of a check
                // are there until its end.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => continue,
                Err(error) => return Err(error).context("read of fanotify events"),
            };
            let mut rest = &buffer[..filled];
            while rest.len() >= HEAD {
                // event_len u32, vers u8, reserved u8, metadata_len u16, mask u64, fd i32, pid i32
                let word = |at: usize| -> [u8; 4] { [rest[at], rest[at + 1], rest[at + 2], rest[at + 3]] };
                let length = u32::from_ne_bytes(word(0)) as usize;
                let (fd, pid) = (i32::from_ne_bytes(word(16)), i32::from_ne_bytes(word(20)));
                let Some(fd) = sys::adopt(fd) else { bail!("fanotify lost events") };
                let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).context("path of an event")?;
                seen.push(Write { pid: u32::try_from(pid).unwrap_or(0), path });
                ensure!((HEAD..=rest.len()).contains(&length), "a fanotify event of {length} bytes");
                rest = &rest[length..];
            }
        }
    }
}
