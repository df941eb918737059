//! The system calls that the workloads need and rustix does not wrap: POSIX timers, waiting for blocked signals, being
//! told of writes, and in a file of its own bpf(2). All unsafe code of this crate is here.

pub(crate) mod bpf;

use std::{
    cell,
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

/// A thread's real-time priority.
pub(crate) fn priority(tid: u32) -> io::Result<libc::c_int> {
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is valid for writes for the length of the call.
    check(unsafe { libc::sched_getparam(tid.cast_signed(), &raw mut param) })?;
    Ok(param.sched_priority)
}

/// A mutex of the C library without priority inheritance.
pub(crate) struct PlainMutex(Box<cell::UnsafeCell<libc::pthread_mutex_t>>);

// SAFETY: a pthread mutex is made to be used by several threads; the box keeps it in its place.
unsafe impl Send for PlainMutex {}
// SAFETY: as above.
unsafe impl Sync for PlainMutex {}

impl PlainMutex {
    /// A free one; a robust one keeps its owner in the word that waiters sleep on.
    pub(crate) fn new(robust: bool) -> io::Result<Self> {
        let mutex = Self(Box::new(cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)));
        // SAFETY: attributes are plain data, initialised by the first call and then used by the others; nobody else has the
        // mutex yet.
        unsafe {
            let mut attributes = mem::zeroed::<libc::pthread_mutexattr_t>();
            errno(libc::pthread_mutexattr_init(&raw mut attributes))?;
            let kind = if robust { libc::PTHREAD_MUTEX_ROBUST } else { libc::PTHREAD_MUTEX_STALLED };
            errno(libc::pthread_mutexattr_setrobust(&raw mut attributes, kind))?;
            errno(libc::pthread_mutex_init(mutex.0.get(), &raw const attributes))?;
        }
        Ok(mutex)
    }

    /// Waits for it and takes it.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // SAFETY: it is initialised and stays in its place.
        errno(unsafe { libc::pthread_mutex_lock(self.0.get()) })
    }

    /// Gives it back; for the thread that has it.
    pub(crate) fn unlock(&self) -> io::Result<()> {
        // SAFETY: as above.
        errno(unsafe { libc::pthread_mutex_unlock(self.0.get()) })
    }
}

/// The result of a pthread function.
fn errno(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(returned)) }
}

/// Allows this process so many open files.
pub(crate) fn allow_files(most: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes, then for reads, for the length of the calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        if limit.rlim_cur >= most {
            return Ok(());
        }
        let limit = libc::rlimit { rlim_cur: most, rlim_max: limit.rlim_max.max(most) };
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))
    }
}

/// Gives the calling thread, and those it starts later, a network of their own.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: a call with a number.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

fn udp_socket() -> io::Result<OwnedFd> {
    // SAFETY: a call with numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd.min(0))?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Turns the loopback device on.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = udp_socket()?;
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request = unsafe { mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is initialised and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// A socket that shares a UDP port with others, looks at every datagram for some microseconds, and then drops it.
pub(crate) fn shared_port(port: u16) -> io::Result<OwnedFd> {
    let socket = udp_socket()?;
    let set = |option, value: *const libc::c_void, length: usize| {
        // SAFETY: the callers' values are as long as they say and outlive the call, which only reads them.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length as libc::socklen_t)
        })
    };
    let reuse = 1_i32;
    set(libc::SO_REUSEADDR, (&raw const reuse).cast(), mem::size_of_val(&reuse))?;
    // The longest filter that there may be: multiplications, then "drop".
    let multiply = libc::sock_filter { code: (libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K) as u16, jt: 0, jf: 0, k: 3 };
    let mut filter = vec![multiply; 4095];
    filter.push(libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 });
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    set(libc::SO_ATTACH_FILTER, (&raw const program).cast(), mem::size_of_val(&program))?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    let length = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` outlives the call, which only reads it.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// A page of memory of its own.
pub(crate) struct Mapped {
    at: ptr::NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, and is only read, volatilely, or discarded as a whole.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps it.
    pub(crate) fn page() -> io::Result<Self> {
        let length = rustix::param::page_size();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = ptr::NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        Ok(Self { at, length })
    }

    /// Reads a byte of it.
    pub(crate) fn touch(&self) {
        // SAFETY: within the mapping.
        unsafe { self.at.as_ptr().read_volatile() };
    }

    /// Takes away what is behind it.
    pub(crate) fn discard(&self) -> io::Result<()> {
        // SAFETY: the whole mapping; what it holds is of no use to anybody.
        check(unsafe { libc::madvise(self.at.as_ptr().cast(), self.length, libc::MADV_DONTNEED) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping of `page`; nothing refers to it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.length) };
    }
}

/// Begin of what every ioctl of userfaultfd(2) works on, and room for the rest.
#[repr(C)]
struct FaultRange {
    start: u64,
    length: u64,
    mode: u64,
    result: u64,
}

/// <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/userfaultfd.h>
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// Opens a userfaultfd(2).
pub(crate) fn userfaultfd() -> io::Result<OwnedFd> {
    // SAFETY: a call with a number.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    check(fd.min(0))?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut api = [UFFD_API, 0, 0];
    // SAFETY: `api` is as large as the call says and valid for reads and writes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) })?;
    Ok(fd)
}

/// Wants to be told when somebody touches `memory` where nothing is behind it.
pub(crate) fn watch_faults(faults: &OwnedFd, memory: &Mapped) -> io::Result<()> {
    fault_call(faults, memory, UFFDIO_REGISTER, UFFDIO_REGISTER_MODE_MISSING)
}

/// Puts zeroes behind `memory` and wakes whoever waits for that.
pub(crate) fn bring(faults: &OwnedFd, memory: &Mapped) -> io::Result<()> {
    fault_call(faults, memory, UFFDIO_ZEROPAGE, 0)
}

fn fault_call(faults: &OwnedFd, memory: &Mapped, call: libc::c_ulong, mode: u64) -> io::Result<()> {
    let mut range = FaultRange { start: memory.at.as_ptr() as u64, length: memory.length as u64, mode, result: 0 };
    // SAFETY: `range` has the layout of the call's argument and is valid for reads and writes.
    check(unsafe { libc::ioctl(faults.as_raw_fd(), call, &raw mut range) })
}
