//! Signal `rt_throttle`: a CPU taken from runnable RT tasks, seen by its effect at sched_switch: an RT task that stays
//! runnable gives way to a fair task or to idle. That is RT throttling, or the fair server (6.12 and later) where
//! one runs the fair task. The version decides nothing; the effect does. A task that is migrated away while it runs
//! gives way to the stopper thread, and one that loses its RT policy or its boost shows its new priority here already,
//! so neither is mistaken for this. Where it goes to sleep while another one is runnable, that one has lost the CPU.

use crate::{
    state::Cpu,
    task::{MAX_RT_PRIO, Task, rt_nr_running_of},
};

/// `prev` gives way to `next`.
#[inline(always)]
pub(crate) fn switched(cpu: &mut Cpu, prev: Task, prev_runnable: bool, next: Task, now: u64) {
    let prev_prio = prev.prio();
    let prev_rt = prev_prio < MAX_RT_PRIO;
    let next_rt = next.prio() < MAX_RT_PRIO;
    if prev_rt == next_rt {
        if !prev_rt && cpu.state.rt_stolen_since_ns != 0 && !is_wanted(cpu, next) {
            // The RT task was moved to another CPU, or is gone.
            given_back(cpu, now);
        }
        return;
    }
    if prev_rt {
        // A SCHED_DEADLINE task (below zero) that used up its budget or yielded stays runnable too, by its own will.
        if prev_runnable && prev_prio >= 0 {
            cpu.state.rt_stolen_from = prev.rt_rq();
            taken(cpu, next, now);
            return;
        }
        // It sleeps, and yet another RT task of its group may be runnable, or one of the group that lost the CPU before: those
        // would follow if they were let.
        if cpu.state.rt_stolen_from == 0 {
            cpu.state.rt_stolen_from = prev.rt_rq();
        }
        if is_wanted(cpu, next) {
            taken(cpu, next, now);
        } else {
            cpu.state.rt_stolen_from = 0;
        }
    } else {
        given_back(cpu, now);
        if next.rt_rq() == cpu.state.rt_stolen_from {
            cpu.state.rt_stolen_from = 0;
        }
    }
}

/// Whether an RT task still waits for the CPU that was taken. Where the kernel rations RT time per cgroup, the tasks of
/// a group that has used up its share do not count as runnable on the CPU, but they do on the group's own queue.
#[inline(always)]
fn is_wanted(cpu: &Cpu, next: Task) -> bool {
    match cpu.state.rt_stolen_from {
        0 => next.cfs_rq().rt_nr_running() != 0,
        group => rt_nr_running_of(group) != 0,
    }
}

#[inline(always)]
fn taken(cpu: &mut Cpu, next: Task, now: u64) {
    cpu.state.rt_stolen_since_ns = now;
    cpu.state.rt_stolen_by_server = u32::from(next.on_dl_server());
}

#[inline(always)]
fn given_back(cpu: &mut Cpu, now: u64) {
    let cpu = &mut *cpu.state;
    let since = cpu.rt_stolen_since_ns;
    if since == 0 {
        return;
    }
    cpu.rt_stolen_since_ns = 0;
    cpu.rt_stolen_until_ns = now;
    let time = now.saturating_sub(since);
    if cpu.rt_stolen_by_server != 0 {
        cpu.fair_server_count += 1;
        cpu.fair_server_ns += time;
    } else {
        cpu.rt_throttle_count += 1;
        cpu.rt_throttle_ns += time;
    }
}
