//! The flight recorder: what this CPU did lately, in a ring of its own that only user space reads. Off unless late
//! wake-ups are to be explained; then each event costs one entry, and off nothing, because the verifier removes it.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use guard_common::flight::{Entry, Head, flags, kind};

use crate::{
    config::config,
    state::{self, Cpu, known_task, this_cpu},
    task::{MAX_RT_PRIO, Task},
    threads,
};

// Sized by user space at load, as the other maps.
/// CPU-major entries.
#[map]
static FLIGHT: Array<Entry> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// CPU → where it writes next.
#[map]
static FLIGHT_HEADS: Array<Head> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// An entry without the name.
struct Line {
    kind: u8,
    flags: u8,
    at_ns: u64,
    took_ns: u64,
    cgroup_id: u64,
    tid: u32,
    other: u32,
    prio: i32,
    arg: u32,
}

impl Line {
    #[inline(always)]
    fn of(kind: u8, at_ns: u64) -> Self {
        Self { kind, flags: 0, at_ns, took_ns: 0, cgroup_id: 0, tid: 0, other: 0, prio: 0, arg: 0 }
    }
}

#[inline(always)]
fn on() -> bool {
    config!(flight_mask) != 0
}

/// Writes an entry, with the name of `named` if there is one. An interrupt may write between: each has a place of its
/// own.
#[inline(always)]
fn write(line: &Line, named: Option<Task>) {
    let cpu = this_cpu();
    // SAFETY: the verifier proves the entry valid; only this CPU writes it.
    let Some(head) = FLIGHT_HEADS.get_ptr_mut(cpu).map(|p| unsafe { &mut *p }) else { return };
    let number = take_number(&mut head.count);
    let mask = config!(flight_mask);
    let Some(entry) = FLIGHT.get_ptr_mut(cpu * (mask + 1) + (number as u32 & mask)) else { return };
    // SAFETY: valid as above. Volatile: the reader sees no number before what it belongs to, and no memset is called.
    unsafe {
        (&raw mut (*entry).seq).write_volatile(0);
        (&raw mut (*entry).kind).write_volatile(line.kind);
        (&raw mut (*entry).flags).write_volatile(line.flags);
        (&raw mut (*entry).cpu).write_volatile(cpu as u16);
        (&raw mut (*entry).at_ns).write_volatile(line.at_ns);
        (&raw mut (*entry).took_ns).write_volatile(line.took_ns);
        (&raw mut (*entry).cgroup_id).write_volatile(line.cgroup_id);
        (&raw mut (*entry).tid).write_volatile(line.tid);
        (&raw mut (*entry).other).write_volatile(line.other);
        (&raw mut (*entry).prio).write_volatile(line.prio);
        (&raw mut (*entry).arg).write_volatile(line.arg);
    }
    if let Some(task) = named {
        // SAFETY: the name's place in the entry.
        task.comm_into(unsafe { &raw mut (*entry).comm });
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*entry).seq).write_volatile((number as u32).wrapping_add(1)) };
}

/// Takes the next number. One instruction, so that an interrupt takes another one.
#[inline(always)]
fn take_number(count: &mut u64) -> u64 {
    let mut number = 1_u64;
    // SAFETY: a valid, aligned word of a map value.
    unsafe {
        core::arch::asm!("{n} = atomic_fetch_add((u64 *)({p} + 0), {n})", p = in(reg) &raw mut *count, n = inout(reg) number)
    };
    number
}

/// `prev` gives way to `next`, and all that the other programs make of it is done.
#[inline(always)]
pub(crate) fn switched(cpu: &Cpu, prev: Task, next: Task, prev_state: u32, preempt: bool, now: u64) {
    if on() {
        let preempted = if preempt { flags::PREEMPTED } else { 0 };
        let stolen = if cpu.state.rt_stolen_since_ns != 0 { flags::STOLEN } else { 0 };
        let real_time = if prev.prio() < MAX_RT_PRIO { flags::RT_LEAVES } else { 0 };
        switch(prev, next, prev_state, u32::from(preempted | stolen | real_time), now);
    }
}

/// At most five arguments, or the compiler puts them where BPF has nothing.
#[inline(never)]
fn switch(prev: Task, next: Task, prev_state: u32, known: u32, now: u64) -> u32 {
    let mut line = Line::of(kind::SWITCH, now);
    line.flags = known as u8;
    line.tid = next.tid();
    line.other = prev.tid();
    line.prio = next.prio();
    line.arg = prev_state;
    line.cgroup_id = next.css_set().cgroup_id();
    if prev.prio() >= MAX_RT_PRIO && prev.cfs_rq().throttle_count() != 0 {
        line.flags |= flags::THROTTLED;
    }
    if line.prio >= MAX_RT_PRIO {
        if next.on_dl_server() {
            line.flags |= flags::SERVER;
        }
        if known_task(line.tid).is_some() {
            // A throttled wait of `next` that ended is one of this very switch.
            if let Some(stamp) = state::throttle_stamp(line.tid) {
                if stamp.ended_ns == now {
                    line.took_ns = stamp.took_ns;
                }
            }
        }
    }
    write(&line, Some(next));
    0
}

/// `task` is being woken.
#[inline(always)]
pub(crate) fn waking(cpu: &Cpu, task: Task, now: u64) {
    if !on() {
        return;
    }
    let current = Task::current();
    let mut line = Line::of(kind::WAKING, now);
    line.tid = task.tid();
    line.other = current.tid();
    line.prio = task.prio();
    line.arg = threads::context(cpu, current) as u32;
    if line.prio >= MAX_RT_PRIO {
        if task.cfs_rq().throttle_count() != 0 {
            line.flags |= flags::THROTTLED;
        }
    } else if task.is_rt_throttled() {
        line.flags |= flags::RT_THROTTLED;
    }
    write(&line, None);
}

/// `task` moves to the run queue of CPU `to`.
#[inline(always)]
pub(crate) fn migrating(task: Task, to: u32) {
    if !on() {
        return;
    }
    let mut line = Line::of(kind::MIGRATE, state::now());
    line.tid = task.tid();
    line.prio = task.prio();
    line.arg = to;
    write(&line, None);
}

/// An interrupt of this kind and number ended.
#[inline(always)]
pub(crate) fn interrupt(kind: u8, number: u32, now: u64, took_ns: u64) {
    if !on() {
        return;
    }
    let mut line = Line::of(kind, now);
    line.took_ns = took_ns;
    line.arg = number;
    write(&line, None);
}

/// A handler of a non-maskable interrupt took this long.
#[inline(always)]
pub(crate) fn nmi(took_ns: u64) {
    if !on() {
        return;
    }
    interrupt(kind::NMI, 0, state::now(), took_ns);
}

/// The current task faults on a page in its own code.
#[inline(always)]
pub(crate) fn fault() {
    if !on() {
        return;
    }
    let Some(cpu) = Cpu::this() else { return };
    // Faults are many; those of other threads explain nothing.
    if cpu.state.running_thread == 0 {
        return;
    }
    let mut line = Line::of(kind::FAULT, state::now());
    line.tid = Task::current().tid();
    write(&line, None);
}
