//! Kernel stacks of late wake-ups, where they were asked for: of what ran when a watched thread was woken, and of the task
//! that left the CPU for it. Walking a stack takes microseconds, so nothing here runs otherwise.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, helpers::generated, macros::map, maps::Array, programs::BtfTracePointContext};
use guard_common::event::{Frames, Stacks};

use crate::state::{Cpu, place_in, reserve};

const BYTES: u32 = size_of::<Frames>() as u32;

/// Thread slot → stack at its last wake-up. User space sets its size: as many as there are slots, or one.
#[map]
static STACKS: Array<Frames> = Array::with_max_entries(1, 0);

/// The watched thread in slot `thread` minus one is being woken.
#[inline(always)]
pub(crate) fn waking(ctx: &BtfTracePointContext, thread: u32) {
    if let Some(to) = STACKS.get_ptr_mut(thread - 1) {
        walk(ctx, to);
    }
}

/// Writes a record for the late thread `tid`, switched in at `now` and woken in slot `waking` minus one; 0 when no wake-up
/// began its wait.
#[inline(always)]
pub(crate) fn report(ctx: &BtfTracePointContext, tid: u32, waking: u32, now: u64) {
    let Some(mut cpu) = Cpu::this() else { return };
    let Some(mut entry) = reserve::<Stacks>(cpu.state) else { return };
    let stacks = place_in(&mut entry);
    // SAFETY: the reserved record is valid for writes of Stacks, and all of it is written before it is submitted.
    unsafe {
        (*stacks).switched_in_ns = now;
        (*stacks).tid = tid;
        (*stacks).reserved = 0;
        let to = (&raw mut (*stacks).waking).cast::<c_void>();
        // A null pointer is refused by the helper, which then clears what it should have filled.
        let from = STACKS.get_ptr(waking.wrapping_sub(1)).unwrap_or(core::ptr::null());
        let _ = generated::bpf_probe_read_kernel(to, BYTES, from.cast());
        walk(ctx, &raw mut (*stacks).leaving);
    }
    entry.submit(cpu.submit_flags(now));
}

/// Writes the current kernel stack to `to`; zeros where it ends, or cannot be walked.
#[inline(always)]
fn walk(ctx: &BtfTracePointContext, to: *mut Frames) {
    // SAFETY: `to` is valid for the bytes, which the verifier checks.
    let _ = unsafe { generated::bpf_get_stack(ctx.as_ptr(), to.cast(), BYTES, 0) };
}
