//! Breach records: a watched thread was on its CPU later than its budget allows. Written at the switch-in, when all
//! that is known of the wait is at hand; good wake-ups never come here beyond the first comparison.

use core::mem::offset_of;

use aya_ebpf::programs::BtfTracePointContext;
use guard_common::{
    event::{Breach, BreachKind, LateFair, REPORT_EVERY_NS, breach_flags},
    maps::{CgroupSlot, PERIOD_SURE, TaskRec, ThreadState, TimerKind, task_flags},
};

use crate::{
    config::config,
    stack,
    state::{Cpu, add, cgroup, place_in, reserve, send, thread},
    task::{MAX_RT_PRIO, Task},
};

/// A wait that has just ended.
pub(crate) struct Wait {
    /// Begin of the wait; 0 when it was not seen.
    pub(crate) since_ns: u64,
    /// The switch-in.
    pub(crate) now_ns: u64,
    /// Throttled part of it.
    pub(crate) throttled_ns: u64,
    /// How long the thread waited for a lock before.
    pub(crate) lock_wait_ns: u64,
    /// Requested expiry of the timer that woke the thread; 0 without one.
    pub(crate) on_timer: u64,
    /// CPU on which the thread ran before.
    pub(crate) cpu_before: u32,
}

/// Writes a record if the wait was over its budget.
#[inline(always)]
pub(crate) fn check(ctx: &BtfTracePointContext, prev: Task, next: Task, wait: &Wait, rec: &TaskRec) {
    let Some(thread) = thread(u32::from(rec.thread) - 1) else { return };
    let budget = if thread.budget_ns != 0 { thread.budget_ns } else { config!(breach_ns) };
    let (_, since) = begin(thread, wait);
    if since == 0 || wait.now_ns.saturating_sub(since) < budget {
        return;
    }
    // A fair thread without a budget of its own is watched, never late.
    if thread.budget_ns == 0 && next.prio() >= MAX_RT_PRIO {
        return;
    }
    thread.breaches += 1;
    report(prev, wait, rec);
    if config!(stacks) != 0 {
        let waking = if rec.flags & task_flags::PREEMPTED == 0 { u32::from(rec.thread) } else { 0 };
        stack::report(ctx, thread.tid, waking, wait.now_ns);
    }
}

/// Reports a fair task that was late by the budget of its cgroup, the one in `slot`.
#[inline(always)]
pub(crate) fn check_fair(prev: Task, slot: u32, wait_ns: u64, now: u64) {
    let Some(cgroup) = cgroup(slot) else { return };
    if cgroup.late_ns == 0 || wait_ns <= cgroup.late_ns {
        return;
    }
    add(&mut cgroup.late, 1);
    if now.saturating_sub(cgroup.late_reported_ns) >= REPORT_EVERY_NS {
        cgroup.late_reported_ns = now;
        report_fair(prev, cgroup, wait_ns, now);
    }
}

#[inline(never)]
fn report_fair(prev: Task, cgroup: &CgroupSlot, wait_ns: u64, now: u64) -> u32 {
    let Some(mut cpu) = Cpu::this() else { return 0 };
    let prev_cgroup_id = prev.css_set().cgroup_id();
    let record = LateFair { at_ns: now, cgroup_id: cgroup.id, wait_ns, late: cgroup.late, prev_cgroup_id };
    send(&mut cpu, record, now);
    0
}

/// What the wait is counted as, and since when. A thread that sleeps for a lock, or in the middle of a cycle, is kept from
/// its work; one that waits for events otherwise has nothing to do.
#[inline(always)]
fn begin(thread: &ThreadState, wait: &Wait) -> (BreachKind, u64) {
    if wait.on_timer != 0 {
        (BreachKind::Timer, wait.on_timer)
    } else if thread.slept_ns != 0 && (wait.lock_wait_ns != 0 || thread.period_hits >= PERIOD_SURE) {
        (BreachKind::Blocked, thread.slept_ns)
    } else {
        (BreachKind::Wakeup, wait.since_ns)
    }
}

/// Copies a name as two words; the compiler would call memmove, a loop over bytes here.
///
/// # Safety
/// Both are valid names in maps or records, which are aligned to words.
#[inline(always)]
unsafe fn copy(from: *const [u8; 16], to: *mut [u8; 16]) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    // SAFETY: the caller's promise.
    unsafe {
        to.write_volatile(from.read_volatile());
        to.add(1).write_volatile(from.add(1).read_volatile());
    }
}

#[inline(never)]
fn report(prev: Task, wait: &Wait, rec: &TaskRec) -> u32 {
    let Some(mut this) = Cpu::this() else { return 0 };
    let flags_of_submit = this.submit_flags(wait.now_ns);
    let Cpu { number: here, state: cpu } = this;
    let Some(thread) = thread(u32::from(rec.thread) - 1) else { return 0 };
    let Some(mut entry) = reserve::<Breach>(cpu) else { return 0 };
    let on_timer = wait.on_timer != 0;
    let (kind, since) = begin(thread, wait);
    let mut flags = 0;
    if rec.flags & task_flags::PREEMPTED != 0 {
        flags |= breach_flags::PREEMPTED;
    }
    if on_timer && thread.timer_cpu != here {
        flags |= breach_flags::REMOTE_TIMER;
    }
    if wait.cpu_before != here {
        flags |= breach_flags::MIGRATED;
    }
    if cpu.rt_stolen_until_ns >= since {
        flags |= breach_flags::RT_STOLEN;
        if cpu.rt_stolen_by_server != 0 {
            flags |= breach_flags::FAIR_SERVER;
        }
    }
    let mut lock_owner = thread.lock_owner;
    if wait.lock_wait_ns != 0 {
        flags |= breach_flags::LOCK;
    } else if thread.futex_owner != 0 && thread.slept_ns != 0 {
        flags |= breach_flags::FUTEX_OWNER;
        lock_owner = thread.futex_owner;
    }
    let soft =
        thread.timer_kind == TimerKind::CallbackSoft as u32 || thread.timer_kind == TimerKind::SleeperSoft as u32;
    if on_timer && soft {
        flags |= breach_flags::SOFT_TIMER;
    }
    // The totals are of this CPU: they say nothing of a wait for another one.
    let same_cpu = thread.wait_cpu == here + 1;
    let prev_cgroup_id = prev.css_set().cgroup_id();
    let breach = place_in(&mut entry);
    // SAFETY: the reserved record is valid for writes of a Breach, and every field is written before it is submitted.
    unsafe {
        (*breach).kind = kind as u32;
        (*breach).flags = flags;
        (*breach).switched_in_ns = wait.now_ns;
        (*breach).since_ns = since;
        (*breach).expired_ns = if on_timer { thread.expired_ns } else { 0 };
        (*breach).waking_ns = wait.since_ns;
        (*breach).tid = thread.tid;
        (*breach).tgid = thread.tgid;
        (*breach).prio = thread.prio;
        (*breach).policy = thread.policy;
        (*breach).cpu = here;
        (*breach).waker_cpu = if on_timer { thread.timer_cpu } else { thread.waker_cpu };
        (*breach).waker = thread.waker;
        (*breach).prev_tid = prev.tid();
        (*breach).prev_prio = prev.prio();
        (*breach).prev_state = prev.state();
        (*breach).timer_kind = thread.timer_kind;
        (*breach).lock_flags = thread.lock_flags;
        (*breach).lock = thread.lock;
        (*breach).lock_owner = lock_owner;
        (*breach).rt_priority = thread.rt_priority;
        (*breach).lock_wait_ns = wait.lock_wait_ns;
        (*breach).slept_ns = thread.slept_ns;
        (*breach).slept_in = thread.slept_in;
        (*breach).wake_context = thread.wake_context;
        (*breach).waker_prio = thread.waker_prio;
        (*breach).reserved = 0;
        (*breach).waker_cgroup_id = thread.waker_cgroup_id;
        (*breach).waker_throttled_until_ns = thread.waker_throttled_until_ns;
        (*breach).waker_throttled_ns = thread.waker_throttled_ns;
        (*breach).cgroup_id = thread.cgroup_id;
        (*breach).prev_cgroup_id = prev_cgroup_id;
        (*breach).hardirq_ns = if same_cpu { cpu.hardirq_ns.saturating_sub(thread.hardirq_at_wait_ns) } else { 0 };
        (*breach).softirq_ns = if same_cpu { cpu.softirq_ns.saturating_sub(thread.softirq_at_wait_ns) } else { 0 };
        for kind in 0..(*breach).occupied_ns.len() {
            let time = cpu.occupied_ns[kind].saturating_sub(thread.occupied_at_wait_ns[kind]);
            (*breach).occupied_ns[kind] = if same_cpu { time } else { 0 };
        }
        (*breach).prev_ran_ns = cpu.occupied_before_ns;
        (*breach).throttled_ns = wait.throttled_ns;
        copy(&raw const thread.comm, &raw mut (*breach).comm);
        copy(&raw const thread.waker_comm, &raw mut (*breach).waker_comm);
    }
    prev.comm_into(breach.wrapping_byte_add(offset_of!(Breach, prev_comm)).cast());
    entry.submit(flags_of_submit);
    0
}
