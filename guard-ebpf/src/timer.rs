//! Signal `timer`: cyclictest's number for threads without instrumentation, in rtla's three stages, each counted
//! from the requested expiry: to the timer interrupt, to the switch-in, to the return to user space.
//!
//! One rule covers nanosleep, the time-outs of poll, select, epoll and futex, timerfd and POSIX timers: a thread that
//! is woken inside an hrtimer's callback was woken by that timer.

use guard_common::{
    hist::MAX_TRACKED_NS,
    maps::{CgroupKind, PERIOD_SURE, SKIP_SURE, ThreadKind, ThreadState, TimerKind, pending},
};

use crate::{
    config::config,
    state::{self, Cpu, known_task, thread},
    task::{SCHED_DEADLINE, TASK_RTLOCK_WAIT, Task, Timer, probe_at, task_of_deadline_timer},
    throttle,
};

/// Task states: <https://elixir.bootlin.com/linux/v6.12/source/include/linux/sched.h#L102>
const TASK_INTERRUPTIBLE: u32 = 0x1;
const TASK_WAKING: u32 = 0x200;

/// A timer's callback is about to run.
#[inline(always)]
pub(crate) fn expired(timer: Timer) {
    let Some(this) = Cpu::this() else { return };
    let soft = timer.is_soft();
    if !soft {
        this.state.hard_active = 1;
    }
    let function = timer.function();
    if function == config!(fn_tick) {
        return;
    }
    let now = state::now();
    if function == config!(fn_dl_task_timer) && function != 0 {
        replenished(&this, timer, now);
        return;
    }
    if function == config!(fn_cfs_period_timer) && function != 0 {
        throttle::period_elapsed(&this, timer.address());
        return;
    }
    let sleeper = function == config!(fn_hrtimer_wakeup) && function != 0;
    let cpu = this.state;
    if soft {
        cpu.soft_expiry_ns = timer.expiry_ns();
        cpu.soft_expired_ns = now;
        cpu.soft_kind = if sleeper { TimerKind::SleeperSoft } else { TimerKind::CallbackSoft } as u32;
        cpu.soft_tid = Task::current().tid();
    } else {
        cpu.hard_expiry_ns = timer.expiry_ns();
        cpu.hard_expired_ns = now;
        cpu.hard_kind = if sleeper { TimerKind::Sleeper } else { TimerKind::CallbackHard } as u32;
    }
}

/// The callback has run. A hard one can interrupt a soft one, never the other way round. The timer itself may be gone.
#[inline(always)]
pub(crate) fn callback_done() {
    let Some(Cpu { state: cpu, .. }) = Cpu::this() else { return };
    if cpu.hard_active != 0 {
        cpu.hard_active = 0;
        cpu.hard_expiry_ns = 0;
    } else {
        cpu.soft_expiry_ns = 0;
    }
}

/// The timer of a SCHED_DEADLINE task expired: a replenishment enqueues the thread without waking it.
#[inline(always)]
fn replenished(cpu: &Cpu, timer: Timer, now: u64) {
    let Some(task) = task_of_deadline_timer(timer.address()) else { return };
    if probe_at::<u32>(task, config!(offsets.task_policy)) != Some(SCHED_DEADLINE) {
        return;
    }
    let Some(tid) = probe_at::<u32>(task, config!(offsets.task_pid)) else { return };
    let Some(rec) = known_task(tid) else { return };
    let Some(slot) = u32::from(rec.thread).checked_sub(1) else { return };
    if !thread(slot).is_some_and(|t| t.policy == SCHED_DEADLINE) {
        return;
    }
    if rec.wait_ns != 0 {
        // Until now it was out of budget, not waiting for a CPU.
        rec.wait_ns = now;
    }
    hit(cpu, slot, timer.expiry_ns(), now, TimerKind::Deadline as u32);
}

/// A watched thread is being woken on `cpu`: if a timer callback does it, the timer is the thread's.
#[inline(always)]
pub(crate) fn woken_by_callback(this: &Cpu, task: Task, waker: Task, slot: u32) {
    // Woken to go on for a spinlock (PREEMPT_RT), whatever the thread itself waits for.
    if task.state() & TASK_RTLOCK_WAIT != 0 {
        return;
    }
    let cpu = &*this.state;
    if cpu.hard_expiry_ns != 0 {
        hit(this, slot, cpu.hard_expiry_ns, cpu.hard_expired_ns, cpu.hard_kind);
    } else if cpu.soft_expiry_ns != 0 && cpu.soft_tid == waker.tid() && cpu.hard_active == 0 && cpu.hardirq_depth == 0 {
        // A soft callback can be interrupted and, on PREEMPT_RT, preempted: only its own task's wake-ups are its.
        hit(this, slot, cpu.soft_expiry_ns, cpu.soft_expired_ns, cpu.soft_kind);
    }
}

/// A timer of the watched thread in `slot` expired.
#[inline(always)]
fn hit(cpu: &Cpu, slot: u32, expiry: u64, expired: u64, kind: u32) {
    let Some(thread) = thread(slot) else { return };
    if thread.pending & pending::THREAD != 0 {
        // Still waiting for the CPU since an earlier expiry: that one is the late cycle.
        return;
    }
    if expiry > expired || expired - expiry > MAX_TRACKED_NS || expiry < thread.expiry_ns {
        // Armed in the past, or its clock was set, or the machine slept: no thread was late.
        if let Some(cpu) = Cpu::this() {
            cpu.state.past_timers += 1;
        }
        return;
    }
    recognise_period(thread, expiry);
    let latency = expired.saturating_sub(expiry);
    cpu.count_thread(slot, ThreadKind::TimerIrq, latency);
    cpu.count_cgroup(thread.cgroup_slot, CgroupKind::TimerIrq, latency);
    thread.expiry_ns = expiry;
    thread.expired_ns = expired;
    thread.timer_kind = kind;
    thread.timer_cpu = cpu.number;
    thread.pending = pending::THREAD;
}

/// Finds the period of a cyclic thread in the distances of its expiries, and counts the cycles it skipped.
#[inline(always)]
fn recognise_period(thread: &mut ThreadState, expiry: u64) {
    let last = thread.expiry_ns;
    if last == 0 || expiry <= last {
        return;
    }
    let distance = expiry - last;
    let period = thread.period_ns;
    let tolerance = period >> 6;
    if period != 0 && distance.abs_diff(period) <= tolerance {
        if thread.period_hits < PERIOD_SURE {
            thread.period_hits += 1;
        }
        thread.skip_hits = 0;
        return;
    }
    if thread.period_hits >= PERIOD_SURE && distance > period {
        // A whole multiple of the period: the thread, or its timer, skipped what it could not keep.
        let cycles = (distance + period / 2).checked_div(period).unwrap_or(0);
        if cycles > 1 && distance.abs_diff(cycles * period) <= tolerance {
            if distance.abs_diff(thread.skip_ns) > tolerance {
                thread.skip_ns = distance;
                thread.skip_hits = 0;
            }
            thread.skip_hits += 1;
            if thread.skip_hits >= SKIP_SURE {
                // Always the same multiple: that is the period now.
                thread.period_ns = distance;
                thread.skip_hits = 0;
            } else {
                thread.missed += cycles - 1;
            }
            return;
        }
    }
    if thread.period_hits > 0 {
        thread.period_hits -= 1;
    } else {
        thread.period_ns = distance;
    }
}

/// The thread in `slot` blocks or is preempted. If its timer hit while it was still on the CPU, it never switched: its
/// thread stage was the interrupt's, and its return to user space could not be seen.
#[inline(always)]
pub(crate) fn left_cpu(cpu: &Cpu, slot: u32, state: u32) {
    let Some(thread) = thread(slot) else { return };
    if thread.pending == pending::USER && state & TASK_INTERRUPTIBLE != 0 {
        // Waits for the next event without having returned from the last: there is no user stage.
        thread.pending = 0;
        return;
    }
    if state == TASK_WAKING {
        // Woken on its way to sleep: it will be switched in.
        return;
    }
    if thread.pending & pending::THREAD == 0 {
        return;
    }
    let latency = thread.expired_ns.saturating_sub(thread.expiry_ns);
    cpu.count_thread(slot, ThreadKind::TimerThread, latency);
    cpu.count_cgroup(thread.cgroup_slot, CgroupKind::TimerThread, latency);
    // A thread whose returns are never seen (no restartable sequences) has no user stage at all.
    if thread.user_seen != 0 {
        cpu.count_thread(slot, ThreadKind::TimerUser, latency);
        cpu.count_cgroup(thread.cgroup_slot, CgroupKind::TimerUser, latency);
        thread.user_estimated += 1;
    }
    thread.pending = 0;
}

/// The thread in `slot` is on a CPU: ends its thread stage. Returns the expiry if a timer woke it, else 0.
#[inline(always)]
pub(crate) fn switched_in(cpu: &Cpu, slot: u32, cgroup_slot: u32, now: u64) -> u64 {
    let Some(thread) = thread(slot) else { return 0 };
    if thread.pending & pending::THREAD == 0 {
        return 0;
    }
    let latency = now.saturating_sub(thread.expiry_ns);
    cpu.count_thread(slot, ThreadKind::TimerThread, latency);
    cpu.count_cgroup(cgroup_slot, CgroupKind::TimerThread, latency);
    thread.pending = pending::USER;
    thread.expiry_ns
}

/// `task` returns to user space after it was switched out.
#[inline(always)]
pub(crate) fn back_in_user_space(task: Task) {
    let Some(cpu) = Cpu::this() else { return };
    let tid = task.tid();
    let thread_plus_one = if cpu.state.running == tid + 1 {
        cpu.state.running_thread
    } else {
        // The kernel did not show the switch-in.
        known_task(tid).map_or(0, |rec| u32::from(rec.thread))
    };
    let Some(slot) = thread_plus_one.checked_sub(1) else { return };
    let Some(thread) = thread(slot) else { return };
    thread.user_seen = 1;
    if thread.lock_ns != 0 {
        // Whatever lock it waited for in the kernel, it waits no more.
        thread.lock_ns = 0;
    }
    if thread.pending == 0 {
        return;
    }
    let latency = state::now().saturating_sub(thread.expiry_ns);
    if thread.pending & pending::THREAD != 0 {
        // The kernel did not show the switch-in. This is the latest that it can have been.
        cpu.count_thread(slot, ThreadKind::TimerThread, latency);
        cpu.count_cgroup(thread.cgroup_slot, CgroupKind::TimerThread, latency);
    }
    // The rest of the way, which user space has measured on a thread of its own.
    let latency = latency + u64::from(cpu.state.user_rest_ns);
    cpu.count_thread(slot, ThreadKind::TimerUser, latency);
    cpu.count_cgroup(thread.cgroup_slot, CgroupKind::TimerUser, latency);
    thread.pending = 0;
}
