//! Memory that is taken away and brought when somebody touches it: a page under userfaultfd(2).

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use crate::sys::{self, Mapped};
use crate::workload::{now_ns, sleep_until, timespec};

/// How long to wait until somebody touches it.
const UNTOUCHED: Duration = Duration::from_secs(30);

/// One page.
pub(super) struct Page {
    memory: Mapped,
    faults: OwnedFd,
}

impl Page {
    pub(super) fn new() -> Result<Self> {
        let memory = Mapped::page().context("mmap")?;
        let faults = sys::userfaultfd().context("userfaultfd")?;
        sys::watch_faults(&faults, &memory).context("ioctl(UFFDIO_REGISTER)")?;
        let this = Self { memory, faults };
        sys::bring(&this.faults, &this.memory).context("ioctl(UFFDIO_ZEROPAGE)")?;
        Ok(this)
    }

    /// Reads it; whoever does while it is away waits until it is brought.
    pub(super) fn touch(&self) {
        self.memory.touch();
    }

    pub(super) fn take_away(&self) -> Result<()> {
        self.memory.discard().context("madvise(MADV_DONTNEED)")
    }

    /// Waits until somebody touches it, and brings it `late_ns` after.
    pub(super) fn bring_when_asked(&self, late_ns: u64) -> Result<()> {
        let limit = timespec(u64::try_from(UNTOUCHED.as_nanos()).unwrap_or(u64::MAX));
        let mut fds = [PollFd::new(&self.faults, PollFlags::IN)];
        ensure!(poll(&mut fds, Some(&limit)).context("poll")? > 0, "nobody touched the page");
        rustix::io::read(&self.faults, &mut [0_u8; 32]).context("read of a userfaultfd")?;
        sleep_until(now_ns() + late_ns)?;
        sys::bring(&self.faults, &self.memory).context("ioctl(UFFDIO_ZEROPAGE)")
    }
}
