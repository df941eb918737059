//! From the kernel's type information to the offsets that the programs read by. A member that a kernel lacks turns
//! one signal off; only a few are indispensable.

use guard_common::config::{NO_OFFSET, Offsets};

use super::{KernelError, offer::Offer};

/// How the cgroup of a task is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupSource {
    /// The default hierarchy (v2).
    Default,
    /// The hierarchy of the cpu controller (v1).
    CpuController,
}

/// Resolves all offsets of the running kernel.
///
/// # Errors
/// When a member is missing without which nothing can be measured.
pub(super) fn resolve(offer: &Offer<'_>, cgroups: CgroupSource) -> Result<Offsets, KernelError> {
    let need = |member: &str| offer.indispensable(member);
    let want = |member: &str| offer.offset(member);
    let registers = offer.registers();
    let css_set_cgroup = match cgroups {
        CgroupSource::Default => need("css_set.dfl_cgrp")?,
        // An array of pointers, one per controller.
        CgroupSource::CpuController => need("css_set.subsys")? + offer.enumerator("cgroup_subsys_id.cpu_cgrp_id")? * 8,
    };
    Ok(Offsets {
        task_pid: need("task_struct.pid")?,
        task_tgid: need("task_struct.tgid")?,
        task_comm: need("task_struct.comm")?,
        task_state: need("task_struct.__state")?,
        task_prio: need("task_struct.prio")?,
        task_policy: need("task_struct.policy")?,
        task_rt_priority: need("task_struct.rt_priority")?,
        task_cgroups: need("task_struct.cgroups")?,
        task_pi_blocked_on: want("task_struct.pi_blocked_on"),
        task_flags: need("task_struct.flags")?,
        task_sched_task_group: want("task_struct.sched_task_group"),
        task_cfs_rq: want("task_struct.se.cfs_rq"),
        task_dl: want("task_struct.dl"),
        task_dl_server: want("task_struct.dl_server"),
        dl_entity_timer: want("sched_dl_entity.dl_timer"),
        css_set_cgroup,
        css_cgroup: need("cgroup_subsys_state.cgroup")?,
        cgroup_kn: need("cgroup.kn")?,
        kernfs_node_id: need("kernfs_node.id")?,
        cfs_rq_tg: want("cfs_rq.tg"),
        cfs_rq_rq: want("cfs_rq.rq"),
        cfs_rq_throttle_count: want("cfs_rq.throttle_count"),
        cfs_rq_throttled_clock_self: want("cfs_rq.throttled_clock_self"),
        cfs_rq_throttled_clock_self_time: want("cfs_rq.throttled_clock_self_time"),
        rq_clock: want("rq.clock"),
        rq_cpu: want("rq.cpu"),
        rq_rt_nr_running: want("rq.rt.rt_nr_running"),
        task_rt_rq: want("task_struct.rt.rt_rq"),
        rt_rq_nr_running: want("rt_rq.rt_nr_running"),
        tg_cgroup: want("task_group.css.cgroup"),
        tg_cfs_bandwidth: want("task_group.cfs_bandwidth"),
        cfs_b_period_timer: want("cfs_bandwidth.period_timer"),
        cfs_b_nr_throttled: want("cfs_bandwidth.nr_throttled"),
        cfs_b_throttled_time: want("cfs_bandwidth.throttled_time"),
        timer_softexpires: want("hrtimer._softexpires"),
        timer_function: want("hrtimer.function"),
        timer_base: want("hrtimer.base"),
        timer_is_soft: want("hrtimer.is_soft"),
        timer_base_offset: want("hrtimer_clock_base.offset"),
        rt_mutex_waiter_lock: want("rt_mutex_waiter.lock"),
        rt_mutex_waiter_wake_state: want("rt_mutex_waiter.wake_state"),
        rt_mutex_owner: want("rt_mutex_base.owner"),
        tg_cfs_rq: want("task_group.cfs_rq"),
        regs_syscall: want(registers.number),
        regs_address: want(registers.first),
        regs_argument: match want(registers.second) {
            NO_OFFSET => NO_OFFSET,
            offset => offset + registers.second_at,
        },
    })
}
