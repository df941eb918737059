//! Signal `wakeup`: from sched_waking, or from the preemption of a task that stays runnable, to its switch-in.
//!
//! A stamp is taken at the beginning of the wait and consumed at the switch-in. A stamp left by a wake-up of a task
//! that was still on its CPU is never consumed wrongly: whatever makes the task wait next overwrites it.

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use guard_common::{
    config::throttled_time,
    maps::{CgroupKind, TaskRec, ThreadKind, task_flags},
};

use crate::{
    breach, cgroups,
    config::config,
    flight, irq, lock, occupancy, stack,
    state::{self, Cpu, known_task, task_record},
    task::{CfsRq, MAX_RT_PRIO, Task, cfs_rq_of_group, probe_at},
    threads, throttle, timer,
};

/// `task` is being woken.
#[inline(always)]
pub(crate) fn waking(ctx: &BtfTracePointContext, task: Task) {
    let Some(mut cpu) = Cpu::this() else { return };
    let Some(rec) = task_record(task.tid()) else { return };
    let now = state::now();
    begin_wait(&cpu, task, rec, now, 0);
    if rec.thread != 0 {
        threads::woken(&cpu, task, rec, now);
        if config!(stacks) != 0 {
            stack::waking(ctx, u32::from(rec.thread));
        }
    }
    irq::note_waking(&mut cpu, task, now);
    flight::waking(&cpu, task, now);
}

/// A new `task` is being woken for the first time; whatever its tid's record held belongs to the past.
#[inline(always)]
pub(crate) fn waking_new(task: Task) {
    let tid = task.tid();
    let (Some(cpu), Some(rec)) = (Cpu::this(), task_record(tid)) else { return };
    if rec.thread != 0 {
        threads::forget(rec);
    }
    state::reset(rec, tid);
    begin_wait(&cpu, task, rec, state::now(), 0);
}

/// `prev` leaves its CPU.
#[inline(always)]
pub(crate) fn switched_out(cpu: &mut Cpu, prev: Task, state: u32, preempt: bool, now: u64) {
    let tid = prev.tid();
    let mut thread = cpu.state.running_thread;
    if cpu.state.running != tid + 1 {
        // guard has just begun, or the kernel did not show a switch.
        if cpu.state.running != 0 {
            cpu.state.lost_switches += 1;
            debug!((), "task {} leaves a CPU that task {} had: a switch was not shown", tid, cpu.state.running - 1);
        }
        thread = known_task(tid).map_or(0, |rec| u32::from(rec.thread));
    }
    // Usually a thread is known since its switch-in.
    if thread == 0 && prev.prio() < MAX_RT_PRIO && prev.counts_as_rt() {
        thread = threads::first_seen(cpu, prev);
    }
    if preempt || state == 0 {
        if let Some(slot) = thread.checked_sub(1) {
            if preempt {
                timer::left_cpu(cpu, slot, state);
            }
            occupancy::preempted(cpu, slot, now);
        }
        if tid != 0 {
            if let Some(rec) = task_record(tid) {
                begin_wait(cpu, prev, rec, now, task_flags::PREEMPTED);
                if config!(act) != 0 && cpu.state.quota_seen != 0 && prev.prio() >= MAX_RT_PRIO {
                    throttle::left_runnable(prev, u32::from(rec.cgroup_slot), now);
                }
            }
        }
    } else if let Some(slot) = thread.checked_sub(1) {
        threads::left(cpu, prev, slot);
        threads::sleeps(prev, slot, now);
        timer::left_cpu(cpu, slot, state);
        lock::blocked(prev, slot, now);
    }
}

#[inline(always)]
fn begin_wait(cpu: &Cpu, task: Task, rec: &mut TaskRec, now: u64, flag: u16) {
    rec.wait_ns = now;
    let mut flags = rec.flags & !(task_flags::PREEMPTED | task_flags::THROTTLE_STAMP) | flag;
    if config!(throttled_time) != throttled_time::NONE && cpu.state.quota_seen != 0 {
        if let Some(stamp) = state::throttle_stamp(rec.tid) {
            stamp.at_begin_ns = throttled_ns(task.cfs_rq(), now);
            flags |= task_flags::THROTTLE_STAMP;
        }
    }
    rec.flags = flags;
}

/// A task moves to the run queue of CPU `to`: the throttled time it has waited so far moves with it.
#[inline(always)]
pub(crate) fn migrating(task: Task, to: u32) {
    let Some(cpu) = Cpu::this() else { return };
    if cpu.state.quota_seen == 0 {
        return;
    }
    let Some(rec) = known_task(task.tid()) else { return };
    if rec.wait_ns == 0 || rec.flags & task_flags::THROTTLE_STAMP == 0 {
        return;
    }
    let now = state::now();
    let Some(stamp) = state::throttle_stamp(rec.tid) else { return };
    let so_far = throttled_ns(task.cfs_rq(), now).saturating_sub(stamp.at_begin_ns);
    let Some(to) = cfs_rq_of_group(task.task_group(), to) else { return };
    stamp.at_begin_ns = throttled_ns_at(to, now).wrapping_sub(so_far);
}

/// Time in ns that this cfs_rq or an ancestor has been throttled, the current throttle included.
#[inline(always)]
fn throttled_ns(cfs_rq: CfsRq, now: u64) -> u64 {
    throttled_ns_at(cfs_rq.address(), now)
}

#[inline(never)]
fn throttled_ns_at(address: u64, now: u64) -> u64 {
    match config!(throttled_time) {
        throttled_time::FIELD => throttled_ns_by_kernel(address),
        throttled_time::FENTRY => throttled_ns_by_fentry(address, now),
        _ => 0,
    }
}

#[inline(always)]
fn throttled_ns_by_fentry(address: u64, now: u64) -> u64 {
    let Some(state) = state::throttle_state(address) else { return 0 };
    // A cgroup that was removed while it was throttled leaves its mark at an address that is used again.
    let throttled =
        state.since_ns != 0 && probe_at::<u32>(address, config!(offsets.cfs_rq_throttle_count)).is_some_and(|n| n != 0);
    let current = if throttled { now.saturating_sub(state.since_ns) } else { 0 };
    state.total_ns + current
}

/// In units of the run queue's clock, whose last update the current throttle is measured against.
/// <https://elixir.bootlin.com/linux/v6.12/source/kernel/sched/fair.c#L5937>
#[inline(always)]
fn throttled_ns_by_kernel(address: u64) -> u64 {
    let total: u64 = probe_at(address, config!(offsets.cfs_rq_throttled_clock_self_time)).unwrap_or(0);
    let since: u64 = probe_at(address, config!(offsets.cfs_rq_throttled_clock_self)).unwrap_or(0);
    if since == 0 {
        return total;
    }
    let rq: u64 = probe_at(address, config!(offsets.cfs_rq_rq)).unwrap_or(0);
    let clock: u64 = probe_at(rq, config!(offsets.rq_clock)).unwrap_or(since);
    total + clock.saturating_sub(since)
}

/// `next` gets the CPU that `prev` leaves.
#[inline(always)]
pub(crate) fn switched_in(ctx: &BtfTracePointContext, cpu: &mut Cpu, prev: Task, next: Task, now: u64) {
    let tid = next.tid();
    cpu.state.running = tid + 1;
    cpu.state.running_thread = 0;
    if tid == 0 {
        return;
    }
    let prio = next.prio();
    let rt = prio < MAX_RT_PRIO && next.counts_as_rt();
    let Some(rec) = known_task(tid).or_else(|| if rt { task_record(tid) } else { None }) else { return };
    if rt && rec.thread == 0 && !state::never_watch(rec) {
        threads::watch(rec, tid);
    }
    let thread = u32::from(rec.thread);
    cpu.state.running_thread = thread;
    let since = rec.wait_ns;
    if since == 0 && thread == 0 {
        return;
    }
    rec.wait_ns = 0;
    let slot = cgroups::cgroup_slot(cpu, next, rec);
    let mut throttled = 0;
    if since != 0 {
        let wait = now.saturating_sub(since);
        if rt {
            cpu.count_cgroup(slot, CgroupKind::WakeRt, wait);
        } else {
            if rec.flags & task_flags::THROTTLE_STAMP != 0 {
                if let Some(stamp) = state::throttle_stamp(tid) {
                    throttled = throttled_ns(next.cfs_rq(), now).saturating_sub(stamp.at_begin_ns).min(wait);
                    if throttled != 0 {
                        cpu.count_cgroup(slot, CgroupKind::ThrottledWait, throttled);
                        stamp.ended_ns = now;
                        stamp.took_ns = throttled;
                    }
                }
            }
            cpu.count_cgroup(slot, CgroupKind::WakeFair, wait - throttled);
            if config!(act) != 0 {
                breach::check_fair(prev, slot, wait - throttled, now);
            }
        }
        if let Some(thread) = thread.checked_sub(1) {
            cpu.count_thread(thread, ThreadKind::Wake, wait - throttled);
        }
    }
    if let Some(thread) = thread.checked_sub(1) {
        let cpu_before = threads::seen(cpu, next, thread, prio, slot);
        let lock_wait_ns = lock::resumed(cpu, thread, slot, now);
        let on_timer = timer::switched_in(cpu, thread, slot, now);
        let wait =
            breach::Wait { since_ns: since, now_ns: now, throttled_ns: throttled, lock_wait_ns, on_timer, cpu_before };
        breach::check(ctx, prev, next, &wait, rec);
        threads::awake(thread);
    }
}
