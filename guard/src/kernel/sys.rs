//! The kernel room's unsafe code: memory shared with the maps, and the one bpf(2) query that aya does not offer.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
};

use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The values of a BPF array map, mapped into this process. The kernel side writes them at the same time, so every
/// access is volatile and word by word; counters that only grow need no more.
pub(super) struct Shared<T> {
    base: NonNull<T>,
    len: usize,
    bytes: usize,
    _values: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed through `&mut self` or volatile reads.
unsafe impl<T: Pod> Send for Shared<T> {}

impl<T: Pod> Shared<T> {
    /// Maps all `len` values of the array map `map`, which has been created with BPF_F_MMAPABLE.
    pub(super) fn new(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "array maps lay out values at multiples of eight bytes") };
        let len = len as usize;
        let bytes = (len * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address that the kernel chooses; length and map agree.
        let base =
            unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        Ok(Self { base, len, bytes, _values: PhantomData })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn at(&self, index: usize) -> NonNull<T> {
        assert!(index < self.len, "index {index} beyond a map of {} values", self.len);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.add(index) }
    }

    /// Copies the value at `index`; fields may be from different instants.
    pub(super) fn read(&self, index: usize) -> T {
        // SAFETY: valid for reads, aligned to a page plus multiples of eight, and any bytes are a valid `T`.
        unsafe { self.at(index).read_volatile() }
    }

    /// Reads the field of type `F` that begins `offset` bytes into the value at `index`.
    pub(super) fn read_field<F: Pod>(&self, index: usize, offset: usize) -> F {
        // SAFETY: valid for reads, see `field`; any bytes are a valid `F`.
        unsafe { self.field::<F>(index, offset).read_volatile() }
    }

    /// Writes the field of type `F` that begins `offset` bytes into the value at `index`.
    pub(super) fn write_field<F: Pod>(&mut self, index: usize, offset: usize, value: F) {
        // SAFETY: valid for writes, see `field`.
        unsafe { self.field::<F>(index, offset).write_volatile(value) }
    }

    fn field<F: Pod>(&self, index: usize, offset: usize) -> NonNull<F> {
        assert!(
            offset.is_multiple_of(align_of::<F>()) && offset + size_of::<F>() <= size_of::<T>(),
            "no field at {offset}"
        );
        // SAFETY: within the value, and aligned within it, as just checked.
        unsafe { self.at(index).byte_add(offset).cast() }
    }

    /// Overwrites the value at `index`.
    pub(super) fn write(&mut self, index: usize, value: T) {
        // SAFETY: valid for writes, see `read`.
        unsafe { self.at(index).write_volatile(value) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Gives shared records aya's mark for plain old data.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: bytemuck's Pod asks for all that aya's does: no padding, every bit pattern valid, 'static.
unsafe impl<T: Pod> aya::Pod for Raw<T> {}

/// struct bpf_prog_info up to the field wanted here.
/// <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h#L6553>
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable)]
struct ProgInfo {
    before: [u32; 5],
    xlated_prog_len: u32,
    between: [u8; 168],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    rest: [u32; 11],
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// What the kernel reports about a program.
pub(super) struct RunInfo {
    /// Only while run-time statistics are on.
    pub(super) run_time_ns: u64,
    /// The same.
    pub(super) run_count: u64,
    /// Events that it missed because it was already running on that CPU.
    pub(super) missed: u64,
    /// Instructions that the verifier went through, on all ways.
    pub(super) verified: u32,
    /// What it left of the program.
    pub(super) bytes: u32,
}

/// Asks the kernel about a loaded program.
pub(super) fn run_info(program: impl AsFd) -> io::Result<RunInfo> {
    let mut info: ProgInfo = bytemuck::Zeroable::zeroed();
    #[allow(clippy::cast_sign_loss, reason = "a valid descriptor is not negative")]
    #[allow(clippy::cast_possible_truncation, reason = "the struct has 256 bytes")]
    let mut attr = InfoAttr {
        fd: program.as_fd().as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: attr and info live across the call, and info_len says how much of info the kernel may write.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<InfoAttr>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(RunInfo {
        run_time_ns: info.run_time_ns,
        run_count: info.run_cnt,
        missed: info.recursion_misses,
        verified: info.verified_insns,
        bytes: info.xlated_prog_len,
    })
}
