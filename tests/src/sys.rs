//! The system calls that the workloads need and rustix does not wrap: POSIX timers, waiting for blocked signals, being
//! told of writes. All unsafe code of this crate is here.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    time::Duration,
};

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How often the calling thread has left its CPU, willingly or not.
pub(crate) fn switches() -> i64 {
    // SAFETY: rusage is plain data for which all zeroes is a value.
    let mut usage = unsafe { mem::zeroed::<libc::rusage>() };
    // SAFETY: `usage` is valid for writes for the length of the call, which cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw + usage.ru_nivcsw
}

/// Signals that the calling thread (and threads it starts later) has blocked in order to wait for them.
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks `signals`.
    pub(crate) fn block(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: sigset_t is plain data for which all zeroes is a value; sigemptyset then initialises it as libc wants.
        let mut set = unsafe { mem::zeroed::<libc::sigset_t>() };
        // SAFETY: `set` is valid for writes for the length of each call.
        unsafe {
            check(libc::sigemptyset(&raw mut set))?;
            for signal in signals {
                check(libc::sigaddset(&raw mut set, *signal))?;
            }
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } {
            0 => Ok(Self(set)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of them, for `limit` at most; false when none came.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<bool> {
        let limit = libc::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: `self.0` is an initialised set, `limit` outlives the call, no siginfo is asked for.
        match unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const limit) } {
            -1 => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(false),
                    _ => Err(error),
                }
            }
            _ => Ok(true),
        }
    }

    /// Waits for one of them without end.
    fn wait_forever(&self) -> io::Result<()> {
        let mut signal = 0;
        // SAFETY: `self.0` is an initialised set and `signal` is valid for writes.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A periodic POSIX timer on CLOCK_MONOTONIC whose signal the creating thread takes with sigwait.
pub(crate) struct PosixTimer {
    id: libc::timer_t,
    signals: Signals,
}

impl PosixTimer {
    /// A timer that first expires at `first_ns` (CLOCK_MONOTONIC) and then every `period_ns`.
    pub(crate) fn start(first_ns: u64, period_ns: u64) -> io::Result<Self> {
        let signal = libc::SIGRTMIN();
        let signals = Signals::block(&[signal])?;
        // SAFETY: sigevent is plain data for which all zeroes is a value.
        let mut event = unsafe { mem::zeroed::<libc::sigevent>() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_pid();
        let mut id = ptr::null_mut();
        // SAFETY: `event` is initialised and `id` is valid for writes.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) })?;
        let this = Self { id, signals };
        let spec = libc::itimerspec { it_interval: timespec(period_ns), it_value: timespec(first_ns) };
        // SAFETY: `this.id` is a live timer; `spec` outlives the call; the old setting is not asked for.
        check(unsafe { libc::timer_settime(this.id, libc::TIMER_ABSTIME, &raw const spec, ptr::null_mut()) })?;
        Ok(this)
    }

    /// Waits for an expiry and returns how many expiries this signal stands for.
    pub(crate) fn wait(&self) -> io::Result<u64> {
        self.signals.wait_forever()?;
        self.expiries()
    }

    /// How many expiries the pending signal stands for; none when no signal is pending.
    pub(crate) fn take_pending(&self) -> io::Result<Option<u64>> {
        if self.signals.wait(Duration::ZERO)? { self.expiries().map(Some) } else { Ok(None) }
    }

    /// Expiries that the signal taken last stands for.
    fn expiries(&self) -> io::Result<u64> {
        // SAFETY: `self.id` is a live timer of this process.
        let overrun = unsafe { libc::timer_getoverrun(self.id) };
        match u64::try_from(overrun) {
            Ok(overrun) => Ok(1 + overrun),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for PosixTimer {
    fn drop(&mut self) {
        // SAFETY: `self.id` came from timer_create and is deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}

fn timespec(ns: u64) -> libc::timespec {
    #[allow(clippy::cast_possible_wrap, reason = "seconds since boot and a remainder below 10^9 fit")]
    libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}

/// Opens a fanotify group (fanotify(7)) that is told of writes and blocks nobody.
pub(crate) fn fanotify() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    let fd = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) };
    check(fd.min(0))?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wants to be told of every write to a file below a mount point.
pub(crate) fn watch_writes(fanotify: &OwnedFd, mount: &CStr) -> io::Result<()> {
    let (flags, mask) = (libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT, libc::FAN_MODIFY);
    // SAFETY: `mount` is a string that ends with NUL and outlives the call, which only reads it.
    check(unsafe { libc::fanotify_mark(fanotify.as_raw_fd(), flags, mask, libc::AT_FDCWD, mount.as_ptr()) })
}

/// Takes over a descriptor that the kernel passed in an event.
pub(crate) fn adopt(fd: i32) -> Option<OwnedFd> {
    // SAFETY: a descriptor in a fanotify event is a new one of this process, which nobody else has.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}
