//! Watched threads: every thread with a real-time policy from its first switch-in on, and those that user space
//! named. User space frees the slots of those that exited, after taking their last counts.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_log_ebpf::{debug, trace};
use guard_common::{
    event::{NewRealTime, REPORT_EVERY_NS, WakeContext},
    maps::{CgroupSlot, TaskRec, ThreadState, task_flags, thread_state},
};

use crate::{
    cgroups,
    config::config,
    occupancy,
    state::{self, Cpu, known_task, place_in, reserve, thread},
    task::Task,
    timer,
};

/// Gives the RT task of `rec` a thread slot.
#[inline(never)]
pub(crate) fn watch(rec: &mut TaskRec, tid: u32) -> u32 {
    let Some(slot) = state::take_thread_slot() else {
        rec.flags |= task_flags::NO_SLOT;
        if let Some(cpu) = Cpu::this() {
            cpu.state.unwatched_threads += 1;
        }
        debug!((), "no slot for thread {}", tid);
        return 0;
    };
    let Some(thread) = thread(slot) else { return 0 };
    thread.tid = tid;
    thread.state = thread_state::NEW;
    rec.thread = slot as u16 + 1;
    trace!((), "thread {} has slot {}", tid, slot);
    0
}

/// The RT task `prev` leaves its CPU and is not watched: its policy changed while it ran, or the kernel did not show
/// its switch-in. Returns its thread slot plus one, or 0.
#[inline(never)]
pub(crate) fn first_seen(cpu: &mut Cpu, prev: Task) -> u32 {
    let tid = prev.tid();
    let Some(rec) = state::task_record(tid) else { return 0 };
    if rec.thread == 0 && !state::never_watch(rec) {
        watch(rec, tid);
    }
    if let Some(slot) = u32::from(rec.thread).checked_sub(1) {
        left(cpu, prev, slot);
    }
    u32::from(rec.thread)
}

/// The thread in `slot` leaves its CPU: notes who it is, if its switch-in has not.
#[inline(always)]
pub(crate) fn left(cpu: &mut Cpu, task: Task, slot: u32) {
    let Some(thread) = thread(slot) else { return };
    if thread.state == thread_state::NEW {
        let Some(rec) = known_task(task.tid()) else { return };
        thread.prio = task.prio();
        thread.cpu = cpu.number;
        identify(task, thread, cgroups::cgroup_slot(cpu, task, rec));
    }
}

/// The thread in `slot` goes to sleep.
#[inline(always)]
pub(crate) fn sleeps(task: Task, slot: u32, now: u64) {
    let Some(thread) = thread(slot) else { return };
    thread.slept_ns = now;
    thread.slept_in = task.system_call();
    thread.futex_owner = 0;
    if config!(flight_mask) != 0 && thread.slept_in == config!(futex) {
        thread.futex_owner = task.futex_owner();
    }
}

/// The thread in `slot` is on a CPU, and its sleep is accounted for.
#[inline(always)]
pub(crate) fn awake(slot: u32) {
    if let Some(thread) = thread(slot) {
        thread.slept_ns = 0;
    }
}

/// The thread in `slot` was switched in: refresh its identity. Returns the CPU on which it ran before.
#[inline(always)]
pub(crate) fn seen(cpu: &Cpu, task: Task, slot: u32, prio: i32, cgroup_slot: u32) -> u32 {
    let here = cpu.number;
    let Some(thread) = thread(slot) else { return here };
    let before = thread.cpu;
    let prio_changed = thread.prio != prio;
    thread.prio = prio;
    thread.cpu = here;
    if prio_changed
        || thread.state == thread_state::NEW
        || thread.cgroup_slot != cgroup_slot
        || thread.policy != task.policy()
    {
        identify(task, thread, cgroup_slot);
    }
    before
}

#[inline(never)]
fn identify(task: Task, thread: &mut ThreadState, cgroup_slot: u32) -> u32 {
    thread.tid = task.tid();
    thread.tgid = task.tgid();
    thread.policy = task.policy();
    thread.rt_priority = task.rt_priority();
    thread.cgroup_slot = cgroup_slot;
    thread.cgroup_id = task.css_set().cgroup_id();
    task.comm_into(&raw mut thread.comm);
    thread.state = thread_state::LIVE;
    if task.counts_as_rt() {
        if let Some(cgroup) = state::cgroup(cgroup_slot) {
            cgroup.rt_seen = 1;
            if config!(act) != 0 && !task.is_kernel_thread() {
                report_realtime(cgroup, cgroup_slot, thread);
            }
        }
    }
    0
}

/// Reports once that there is a real-time thread in `cgroup`. Cgroups without a slot of their own share slot 0, which is
/// reported again and again, but not too often.
#[inline(always)]
fn report_realtime(cgroup: &mut CgroupSlot, cgroup_slot: u32, thread: &ThreadState) {
    let now = state::now();
    let known = if cgroup_slot == 0 {
        now.saturating_sub(cgroup.reported_ns) < REPORT_EVERY_NS
    } else {
        cgroup.rt_reported != 0
    };
    if known {
        return;
    }
    let Some(cpu) = Cpu::this() else { return };
    let Some(mut entry) = reserve::<NewRealTime>(cpu.state) else { return };
    cgroup.rt_reported = 1;
    if cgroup_slot == 0 {
        cgroup.reported_ns = now;
    }
    let record = NewRealTime { at_ns: now, cgroup_id: thread.cgroup_id, tid: thread.tid, policy: thread.policy };
    // SAFETY: the reserved room is valid for writes.
    unsafe { place_in(&mut entry).write(record) };
    // Seldom enough to wake user space for each.
    cpu.state.reader_woken_ns = now;
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}

/// The watched thread of `rec` is being woken by the task that this program runs in, or by an interrupt of it.
#[inline(always)]
pub(crate) fn woken(cpu: &Cpu, task: Task, rec: &TaskRec, now: u64) {
    let slot = u32::from(rec.thread) - 1;
    let Some(thread) = thread(slot) else { return };
    let waker = Task::current();
    thread.waker = waker.tid();
    thread.waker_cpu = cpu.number;
    waker.comm_into(&raw mut thread.waker_comm);
    thread.waker_prio = waker.prio();
    thread.waker_cgroup_id = waker.css_set().cgroup_id();
    thread.wake_context = context(cpu, waker) as u32;
    (thread.waker_throttled_until_ns, thread.waker_throttled_ns) = (0, 0);
    if cpu.state.quota_seen != 0 && known_task(waker.tid()).is_some() {
        if let Some(stamp) = state::throttle_stamp(waker.tid()) {
            (thread.waker_throttled_until_ns, thread.waker_throttled_ns) = (stamp.ended_ns, stamp.took_ns);
        }
    }
    occupancy::woken(cpu, thread, now);
    timer::woken_by_callback(cpu, task, waker, slot);
}

/// In which context `current` is.
#[inline(always)]
pub(crate) fn context(cpu: &Cpu, current: Task) -> WakeContext {
    if cpu.state.hardirq_depth != 0 || cpu.state.hard_active != 0 {
        WakeContext::Hardirq
    } else if cpu.state.softirq_owner == current.tid() + 1 {
        WakeContext::Softirq
    } else {
        WakeContext::Task
    }
}

/// The task exits: its slot waits for user space, and its last switches open no new one.
#[inline(always)]
pub(crate) fn exited(task: Task) {
    let Some(rec) = known_task(task.tid()) else { return };
    rec.flags |= task_flags::EXITED;
    if rec.thread != 0 {
        forget(rec);
        let tid = rec.tid;
        stop_running(tid);
    }
}

/// `task` executed a new program; it was `old_tid` before if it was not its process's leader.
#[inline(always)]
pub(crate) fn executed(task: Task, old_tid: u32) {
    let tid = task.tid();
    if tid == old_tid {
        return;
    }
    if let Some(rec) = known_task(old_tid) {
        if rec.thread != 0 {
            forget(rec);
        }
    }
    // The leader's record says that it exited; its tid goes on with another thread.
    if let Some(rec) = known_task(tid) {
        state::reset(rec, tid);
    }
    stop_running(old_tid);
}

/// The slot of the thread that runs here as `tid` is no longer its own.
#[inline(always)]
fn stop_running(tid: u32) {
    if let Some(cpu) = Cpu::this() {
        if cpu.state.running == tid + 1 {
            cpu.state.running_thread = 0;
        }
    }
}

/// Hands the slot of `rec` back to user space.
#[inline(always)]
pub(crate) fn forget(rec: &mut TaskRec) {
    if let Some(thread) = thread(u32::from(rec.thread) - 1) {
        thread.state = thread_state::DEAD;
    }
    rec.thread = 0;
}
