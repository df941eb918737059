//! The system calls of the probe that rustix does not wrap: waiting for signals.

use std::time::Duration;
use std::{io, mem, ptr};

/// Signals blocked in the calling thread and in threads that it starts later; [`Self::wait`] returns them.
pub(super) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks `signals`.
    pub(super) fn block(signals: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: sigset_t is plain data for which all zeroes is a value; sigemptyset then initialises it as libc wants.
        let mut set = unsafe { mem::zeroed::<libc::sigset_t>() };
        // SAFETY: `set` is valid for writes for the length of each call.
        let filled = unsafe {
            libc::sigemptyset(&raw mut set) == 0 && signals.iter().all(|one| libc::sigaddset(&raw mut set, *one) == 0)
        };
        if !filled {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } {
            0 => Ok(Self(set)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of them, for `limit` at most, and returns which came.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<Option<libc::c_int>> {
        let limit = libc::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: `self.0` is an initialised set, `limit` outlives the call, no siginfo is asked for.
        match unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const limit) } {
            -1 => match io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
                error => Err(error),
            },
            signal => Ok(Some(signal)),
        }
    }
}
