//! Signal `lock`: how long watched threads wait for contended locks, and who is boosted by priority inheritance.
//!
//! contention_begin and contention_end cover the kernel's own locks. A wait for a PI futex shows only as
//! `pi_blocked_on` of the task that blocks, so it is taken from there. A futex without priority inheritance has no
//! owner that the kernel knows; it is an ordinary sleep here.

use guard_common::maps::{CgroupKind, LOCK_PI_FUTEX, ThreadKind};

use crate::{
    cgroups,
    config::config,
    state::{self, Cpu, add, cgroup, thread},
    task::{MAX_RT_PRIO, TASK_RTLOCK_WAIT, Task, probe_at},
};

/// contention_begin flags: <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/lock.h>
const LCB_F_READ: u32 = 2;
const LCB_F_RT: u32 = 8;

/// The current task begins to wait for `lock`.
#[inline(always)]
pub(crate) fn begin(lock: u64, flags: u32) {
    if Task::current().prio() >= MAX_RT_PRIO {
        return;
    }
    let Some((_, slot)) = watched_current() else { return };
    let Some(thread) = thread(slot) else { return };
    if thread.lock_ns != 0 {
        return;
    }
    thread.lock_ns = state::now();
    thread.lock = lock;
    thread.lock_flags = flags;
    // Only a write-locked rt_mutex begins with its owner; a reader-held rwbase has none.
    thread.lock_owner = if flags & LCB_F_RT != 0 && flags & LCB_F_READ == 0 { owner_of(lock) } else { 0 };
}

/// The current task got `lock`, or gave up.
#[inline(always)]
pub(crate) fn end(lock: u64) {
    let Some((cpu, slot)) = watched_current() else { return };
    let Some(thread) = thread(slot) else { return };
    if thread.lock_ns != 0 && thread.lock == lock {
        let wait = state::now().saturating_sub(thread.lock_ns);
        thread.lock_ns = 0;
        cpu.count_thread(slot, ThreadKind::Lock, wait);
        cpu.count_cgroup(thread.cgroup_slot, CgroupKind::Lock, wait);
    }
}

/// Thread slot of the current task if it is watched; all others leave here quickly.
#[inline(always)]
fn watched_current() -> Option<(Cpu, u32)> {
    let cpu = Cpu::this()?;
    let slot = cpu.state.running_thread.checked_sub(1)?;
    // After a switch that the kernel did not show, another task runs.
    if cpu.state.running == Task::current().tid() + 1 { Some((cpu, slot)) } else { None }
}

/// The watched thread in `slot` blocks: on a PI futex, unless another lock is noted.
#[inline(always)]
pub(crate) fn blocked(task: Task, slot: u32, now: u64) {
    let waiter = task.pi_blocked_on();
    if waiter == 0 {
        return;
    }
    let Some(thread) = thread(slot) else { return };
    if thread.lock_ns != 0 {
        return;
    }
    thread.lock_ns = now;
    thread.lock_flags = LOCK_PI_FUTEX;
    thread.lock = probe_at(waiter, config!(offsets.rt_mutex_waiter_lock)).unwrap_or(0);
    thread.lock_owner = if thread.lock == 0 { 0 } else { owner_of(thread.lock) };
}

/// The watched thread in `slot` is on a CPU again: ends a wait for a PI futex. Returns the time waited, or since when
/// the thread has waited for a kernel lock that it is about to get; 0 without a lock.
#[inline(always)]
pub(crate) fn resumed(cpu: &Cpu, slot: u32, cgroup_slot: u32, now: u64) -> u64 {
    let Some(thread) = thread(slot) else { return 0 };
    if thread.lock_ns == 0 {
        return 0;
    }
    let wait = now.saturating_sub(thread.lock_ns);
    if thread.lock_flags == LOCK_PI_FUTEX {
        thread.lock_ns = 0;
        cpu.count_thread(slot, ThreadKind::Lock, wait);
        cpu.count_cgroup(cgroup_slot, CgroupKind::Lock, wait);
    }
    wait
}

/// tid of the owner of the rt_mutex_base at `lock`; 0 when it is free or unreadable. Bit 0 says that it has waiters.
#[inline(always)]
fn owner_of(lock: u64) -> u32 {
    let Some(owner) = probe_at::<u64>(lock, config!(offsets.rt_mutex_owner)) else { return 0 };
    let owner = owner & !1;
    if owner == 0 {
        return 0;
    }
    probe_at(owner, config!(offsets.task_pid)).unwrap_or(0)
}

/// Whether `task` waits for a futex with priority inheritance, so that whom it boosts holds a lock of user space. On
/// PREEMPT_RT most boosts are for locks of the kernel's own: a thread in a futex operation that waits for one of these
/// has the wake state of a spinlock, or another operation than those that wait for such a futex.
#[inline(always)]
fn waits_for_pi_futex(task: Task) -> bool {
    let waiter = task.pi_blocked_on();
    if waiter == 0 || !task.is_in_pi_futex() {
        return false;
    }
    probe_at::<u32>(waiter, config!(offsets.rt_mutex_waiter_wake_state))
        .is_some_and(|state| state & TASK_RTLOCK_WAIT == 0)
}

/// `owner` is boosted on behalf of `waiter`.
#[inline(always)]
pub(crate) fn boosted(owner: Task, waiter: Task) {
    let (Some(mut cpu), Some(rec)) = (Cpu::this(), state::task_record(owner.tid())) else { return };
    if rec.thread != 0 {
        if let Some(thread) = thread(u32::from(rec.thread) - 1) {
            thread.boosts += 1;
        }
    }
    let slot = cgroups::cgroup_slot(&mut cpu, owner, rec);
    if let Some(cgroup) = cgroup(slot) {
        add(&mut cgroup.boosts, 1);
        if waits_for_pi_futex(waiter) {
            add(&mut cgroup.futex_boosts, 1);
        }
    }
}
