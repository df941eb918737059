//! Running totals of what kind of occupant each CPU had, and how they stood when a watched thread began to wait for it. So the
//! record of a late wake-up accounts for all of the wait, however long it was and whatever happened in it.

use guard_common::maps::{CpuState, Occupant, ThreadState};

use crate::{
    state::{self, Cpu, thread},
    task::{MAX_RT_PRIO, Task},
};

// The verifier sees that an index is within the totals.
const MASK: u32 = 7;

/// `prev` leaves the CPU: its time is counted.
#[inline(always)]
pub(crate) fn left(cpu: &mut Cpu, prev: Task, now: u64) {
    let cpu = &mut *cpu.state;
    let time = now.wrapping_sub(cpu.occupied_since_ns);
    // A task may have become real-time while it ran, and its own priority says so only now.
    let kind = if prev.prio() < MAX_RT_PRIO { Occupant::RealTime as u32 } else { cpu.occupant };
    cpu.occupied_ns[(kind & MASK) as usize] += time;
    cpu.occupied_before_ns = time;
    cpu.occupied_since_ns = now;
}

/// `next` has come, and whether it has because the CPU was taken from real-time tasks is known.
#[inline(always)]
pub(crate) fn came(cpu: &mut Cpu, next: Task) {
    let cpu = &mut *cpu.state;
    cpu.occupant = if next.prio() < MAX_RT_PRIO {
        Occupant::RealTime as u32
    } else if cpu.rt_stolen_since_ns != 0 {
        Occupant::RtThrottled as u32 + cpu.rt_stolen_by_server
    } else if next.tid() == 0 {
        Occupant::Idle as u32
    } else {
        Occupant::Fair as u32
    };
}

/// The watched thread in `slot` begins to wait for its CPU, woken from CPU `here`.
#[inline(always)]
pub(crate) fn woken(here: &Cpu, thread: &mut ThreadState, now: u64) {
    if thread.cpu == here.number {
        note(here.number, here.state, thread, now);
    } else {
        let there = thread.cpu;
        thread.wait_cpu = 0;
        if let Some(state) = state::cpu(there) {
            note(there, state, thread, now);
        }
    }
}

/// The watched thread in `slot` has to leave this CPU and waits for it.
#[inline(always)]
pub(crate) fn preempted(cpu: &Cpu, slot: u32, now: u64) {
    if let Some(thread) = thread(slot) {
        note(cpu.number, cpu.state, thread, now);
    }
}

#[inline(never)]
fn note(number: u32, cpu: &CpuState, thread: &mut ThreadState, now: u64) -> u32 {
    thread.wait_cpu = number + 1;
    thread.hardirq_at_wait_ns = cpu.hardirq_ns;
    thread.softirq_at_wait_ns = cpu.softirq_ns;
    thread.occupied_at_wait_ns = cpu.occupied_ns;
    // Of another CPU the instant may be a little later than now.
    let so_far = now.saturating_sub(cpu.occupied_since_ns);
    thread.occupied_at_wait_ns[(cpu.occupant & MASK) as usize] += so_far;
    0
}
