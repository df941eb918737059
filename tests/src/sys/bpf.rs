//! bpf(2) by hand, for programs of a few instructions that the injectors write themselves: one map of one value, loading,
//! and the three ways in which they are run. Layouts: <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h#L1478>

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Commands of bpf(2).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;

const ARRAY: u32 = 2;
const TEST_RUN_ON_CPU: u32 = 1;
/// The kernel gives programs under other licences no helper that reads its memory.
const LICENCE: &CStr = c"Dual MIT/GPL";

/// What a program may be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first instruction of a function of the kernel.
    Kprobe = 2,
    /// A tracepoint; such a program can also be called by hand.
    RawTracepoint = 17,
}

/// An argument of bpf(2): a union, of which no member that is used here is longer. Two neighbours of 32 bits are one word.
type Attr = [u64; 16];

/// A word of two fields of 32 bits.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// What an open file is to the kernel.
fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
///
/// Addresses in `attr` must be those of memory as long as `command` takes it to be, valid for the length of the call.
unsafe fn bpf(command: libc::c_int, attr: &mut Attr) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is as long as the call says and valid for reads and writes; the rest is the caller's promise.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of::<Attr>()) };
    match returned {
        -1 => Err(io::Error::last_os_error()),
        returned => libc::c_int::try_from(returned).map_err(io::Error::other),
    }
}

/// # Safety
///
/// As of [`bpf`]; `command` must be one that returns a new descriptor.
unsafe fn open(command: libc::c_int, attr: &mut Attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A map with a single value.
pub(crate) struct Map {
    fd: OwnedFd,
    bytes: u32,
}

impl Map {
    /// One whose value has so many bytes, which are zero.
    pub(crate) fn new(bytes: u32) -> io::Result<Self> {
        let mut attr = Attr::default();
        attr[0] = pair(ARRAY, 4);
        attr[1] = pair(bytes, 1);
        // SAFETY: no addresses; the command returns a descriptor.
        let fd = unsafe { open(MAP_CREATE, &mut attr) }?;
        Ok(Self { fd, bytes })
    }

    /// How instructions name it.
    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Sets its value, all of it.
    pub(crate) fn set(&self, value: &[u64]) -> io::Result<()> {
        if size_of_val(value) != self.bytes as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let key = 0_u32;
        let mut attr = Attr::default();
        attr[0] = pair(number(&self.fd), 0);
        attr[1] = (&raw const key) as u64;
        attr[2] = value.as_ptr() as u64;
        // SAFETY: the key has the 4 bytes of every map's here, the value as many as the map's; both outlive the call.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }
}

/// Loads a program; the kernel checks that it ends and touches nothing that is not its own.
pub(crate) fn load(kind: Kind, instructions: &[u64]) -> io::Result<OwnedFd> {
    let count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    let mut attr = Attr::default();
    attr[0] = pair(kind as u32, count);
    attr[1] = instructions.as_ptr() as u64;
    attr[2] = LICENCE.as_ptr() as u64;
    // SAFETY: the instructions are as many as said, the licence ends with NUL; the command returns a descriptor.
    unsafe { open(PROG_LOAD, &mut attr) }
}

/// Attaches a program to a tracepoint, until the result is closed.
pub(crate) fn on_tracepoint(name: &CStr, program: &OwnedFd) -> io::Result<OwnedFd> {
    let mut attr = Attr::default();
    attr[0] = name.as_ptr() as u64;
    attr[1] = pair(number(program), 0);
    // SAFETY: the name ends with NUL; the command returns a descriptor.
    unsafe { open(RAW_TRACEPOINT_OPEN, &mut attr) }
}

/// Calls a program of a raw tracepoint that does not look at its context, and returns what it returned: here, or in an
/// interrupt of `on_cpu`.
pub(crate) fn call(program: &OwnedFd, on_cpu: Option<u32>) -> io::Result<u32> {
    let mut attr = Attr::default();
    attr[0] = pair(number(program), 0);
    attr[8] = on_cpu.map_or(0, |cpu| pair(TEST_RUN_ON_CPU, cpu));
    // SAFETY: no addresses.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    Ok((attr[0] >> 32) as u32)
}

/// <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/perf_event.h#L546>
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// Attaches a program to the begin of a function of the kernel, until the result is closed. `source` is the number of the
/// event source "kprobe".
pub(crate) fn on_function(source: u32, name: &CStr, program: &OwnedFd) -> io::Result<OwnedFd> {
    // perf_event_attr as it was before it grew: type and size, six words, the function, the offset into it.
    let mut event = [0_u64; 9];
    event[0] = pair(source, size_of_val(&event) as u32);
    event[7] = name.as_ptr() as u64;
    // Of all threads, opened on a CPU that is there; the program runs on every CPU.
    let (thread, cpu, group) = (-1, 0, -1);
    // SAFETY: `event` is as long as it says, and the name in it ends with NUL; both outlive the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, event.as_ptr(), thread, cpu, group, PERF_FLAG_FD_CLOEXEC) };
    let fd = match fd {
        -1 => return Err(io::Error::last_os_error()),
        fd => libc::c_int::try_from(fd).map_err(io::Error::other)?,
    };
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a call with numbers.
    super::check(unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) })?;
    Ok(event)
}
