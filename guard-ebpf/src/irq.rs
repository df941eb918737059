//! Signal `irq`: time of each CPU in hard and soft interrupts, and the part of it in which an RT task was runnable.
//! Softirq time is net: without the hard interrupts in it and, on PREEMPT_RT where softirqs run in threads, without
//! the time in which that thread was switched out.

use guard_common::flight::kind;

use crate::{
    config::config,
    flight,
    state::{self, Cpu},
    task::{MAX_RT_PRIO, Task},
};

/// Whether an RT task is runnable on this CPU. The interrupted task, whichever it is, hangs on this CPU's run queue.
#[inline(always)]
fn rt_runnable() -> u32 {
    u32::from(Task::current().cfs_rq().rt_nr_running() != 0)
}

/// Whether an RT task besides the current one is runnable on this CPU.
#[inline(always)]
fn rt_runnable_besides_current() -> u32 {
    let current = Task::current();
    let prio = current.prio();
    u32::from(current.cfs_rq().rt_nr_running() > u32::from(prio >= 0 && prio < MAX_RT_PRIO))
}

/// An RT task is being woken: from here on the interrupt that wakes it stands in its way.
#[inline(always)]
pub(crate) fn note_waking(cpu: &mut Cpu, task: Task, now: u64) {
    if config!(irq) != 0 && task.prio() < MAX_RT_PRIO {
        cpu.state.rt_wake_ns = now;
    }
}

/// A hard interrupt begins.
#[inline(always)]
pub(crate) fn hardirq_entry(number: u32) {
    let Some(Cpu { state: cpu, .. }) = Cpu::this() else { return };
    cpu.hardirq_depth += 1;
    if cpu.hardirq_depth == 1 {
        if config!(flight_mask) != 0 {
            cpu.hardirq_number = number;
        }
        cpu.hardirq_start_ns = state::now();
        cpu.hardirq_rt = rt_runnable();
    }
}

/// A hard interrupt ends.
#[inline(always)]
pub(crate) fn hardirq_exit() {
    let Some(Cpu { state: cpu, .. }) = Cpu::this() else { return };
    if cpu.hardirq_depth == 0 {
        // guard was attached in the middle of it.
        return;
    }
    cpu.hardirq_depth -= 1;
    if cpu.hardirq_depth != 0 {
        return;
    }
    let now = state::now();
    let time = now.saturating_sub(cpu.hardirq_start_ns);
    cpu.hardirq_count += 1;
    cpu.hardirq_ns += time;
    flight::interrupt(kind::IRQ, cpu.hardirq_number, now, time);
    cpu.hardirq_rt_ns += in_the_way(cpu.hardirq_rt, cpu.hardirq_start_ns, cpu.rt_wake_ns, now).min(time);
    if cpu.softirq_owner != 0 && cpu.softirq_out_ns == 0 {
        cpu.softirq_off_ns += time;
    }
    if cpu.epoch & 1 == 0 {
        cpu.hardirq_max_ns[0] = cpu.hardirq_max_ns[0].max(time);
    } else {
        cpu.hardirq_max_ns[1] = cpu.hardirq_max_ns[1].max(time);
    }
}

/// How much of the interval from `start` to `now` an RT task was runnable: all of it if one was at its start, else
/// from the wake-up of one on.
#[inline(always)]
fn in_the_way(rt_at_start: u32, start: u64, rt_wake: u64, now: u64) -> u64 {
    if rt_at_start != 0 {
        now.saturating_sub(start)
    } else if rt_wake >= start {
        now.saturating_sub(rt_wake)
    } else {
        0
    }
}

/// A softirq begins.
#[inline(always)]
pub(crate) fn softirq_entry() {
    let Some(Cpu { state: cpu, .. }) = Cpu::this() else { return };
    cpu.softirq_owner = Task::current().tid() + 1;
    // On PREEMPT_RT the thread that runs softirqs is real-time itself; it is not the one that waits.
    cpu.softirq_rt = rt_runnable_besides_current();
    cpu.softirq_off_ns = 0;
    cpu.softirq_out_ns = 0;
    cpu.softirq_start_ns = state::now();
}

/// A softirq ends.
#[inline(always)]
pub(crate) fn softirq_exit(vector: u32) {
    let Some(Cpu { state: cpu, .. }) = Cpu::this() else { return };
    if cpu.softirq_owner == 0 {
        return;
    }
    let now = state::now();
    let start = cpu.softirq_start_ns;
    let net = now.saturating_sub(start).saturating_sub(cpu.softirq_off_ns);
    cpu.softirq_owner = 0;
    cpu.softirq_count += 1;
    cpu.softirq_ns += net;
    flight::interrupt(kind::SOFTIRQ, vector, now, net);
    cpu.softirq_rt_ns += in_the_way(cpu.softirq_rt, start, cpu.rt_wake_ns, now).min(net);
    if cpu.epoch & 1 == 0 {
        cpu.softirq_max_ns[0] = cpu.softirq_max_ns[0].max(net);
    } else {
        cpu.softirq_max_ns[1] = cpu.softirq_max_ns[1].max(net);
    }
}

/// On PREEMPT_RT the thread that runs a softirq can be switched out in the middle of it.
#[inline(always)]
pub(crate) fn switched(cpu: &mut Cpu, prev: Task, next: Task, now: u64) {
    if config!(irq) == 0 || config!(preempt_rt) == 0 {
        return;
    }
    let cpu = &mut *cpu.state;
    let owner = cpu.softirq_owner;
    if owner == 0 {
        return;
    }
    if prev.tid() + 1 == owner {
        cpu.softirq_out_ns = now;
    } else if next.tid() + 1 == owner && cpu.softirq_out_ns != 0 {
        cpu.softirq_off_ns += now.saturating_sub(cpu.softirq_out_ns);
        cpu.softirq_out_ns = 0;
    }
}
