//! bpf(2) by hand, for programs of a few instructions that workloads write themselves: one map of one value, loading,
//! and the three ways in which they are run. Layouts: <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h#L1478>

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

/// Commands of bpf(2).
const MAP_CREATE: libc::c_int = 0;
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
}

impl Map {
    /// One whose value has so many bytes, which are zero.
    pub(crate) fn new(bytes: u32) -> io::Result<Self> {
        Self::with_flags(bytes, 0)
    }

    fn with_flags(bytes: u32, flags: u64) -> io::Result<Self> {
        let mut attr = Attr::default();
        attr[0] = pair(ARRAY, 4);
        attr[1] = pair(bytes, 1);
        attr[2] = flags;
        // SAFETY: no addresses; the command returns a descriptor.
        let fd = unsafe { open(MAP_CREATE, &mut attr) }?;
        Ok(Self { fd })
    }

    /// How instructions name it.
    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// That a map can be mapped into memory.
const MAPPABLE: u64 = 1 << 10;

/// A map whose value both this process and programs read and write: so many words, which are zero.
pub(crate) struct SharedMap {
    map: Map,
    words: NonNull<AtomicU64>,
}

impl SharedMap {
    /// Most words: those of the smallest page.
    const WORDS: usize = 512;

    pub(crate) fn new() -> io::Result<Self> {
        let bytes = Self::WORDS * size_of::<u64>();
        let map = Map::with_flags(u32::try_from(bytes).map_err(io::Error::other)?, MAPPABLE)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.fd.as_raw_fd(), 0) };
        let words = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { map, words })
    }

    /// How instructions name it.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// One of its words.
    pub(crate) fn word(&self, number: usize) -> &AtomicU64 {
        assert!(number < Self::WORDS, "word {number}");
        // SAFETY: the mapping has so many words, is aligned to a page and lives as long as `self`; programs access its words
        // as a whole.
        unsafe { self.words.add(number).as_ref() }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which no reference is left.
        unsafe { libc::munmap(self.words.as_ptr().cast(), Self::WORDS * size_of::<u64>()) };
    }
}

/// Registers: what a function returns, and its first arguments.
pub(crate) const R0: u64 = 0;
pub(crate) const R1: u64 = 1;
pub(crate) const R2: u64 = 2;
pub(crate) const R3: u64 = 3;

/// A function of the kernel, by its number: CLOCK_MONOTONIC.
pub(crate) const KTIME_GET_NS: i32 = 5;

/// One instruction: <https://www.kernel.org/doc/html/v6.12/bpf/standardization/instruction-set.html>
pub(crate) const fn instruction(code: u64, to: u64, from: u64, offset: i16, value: i32) -> u64 {
    code | to << 8 | from << 12 | (offset.cast_unsigned() as u64) << 16 | (value.cast_unsigned() as u64) << 32
}

pub(crate) const fn set(to: u64, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}

pub(crate) const fn copy(to: u64, from: u64) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

pub(crate) const fn call(function: i32) -> u64 {
    instruction(0x85, 0, 0, 0, function)
}

pub(crate) const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// Where a word of a map's value is.
pub(crate) const fn offset(word: usize) -> i16 {
    (word * size_of::<u64>()) as i16
}

/// The address of a map's value.
pub(crate) fn value_of(to: u64, map: &Map) -> [u64; 2] {
    [instruction(0x18, to, 2, 0, map.number()), 0]
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
pub(crate) fn run(program: &OwnedFd, on_cpu: Option<u32>) -> io::Result<u32> {
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
