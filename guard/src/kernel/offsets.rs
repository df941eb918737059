//! From the kernel's type information to the offsets that the programs read by. A member that a kernel lacks turns
//! one signal off; only a few are indispensable.

use guard_common::config::{NO_OFFSET, Offsets};

use super::btf::Btf;

/// How the cgroup of a task is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupSource {
    /// The default hierarchy (v2).
    Default,
    /// The hierarchy of the cpu controller (v1).
    CpuController,
}

/// A member that every signal needs does not exist on this kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this kernel's type information has no {structure}.{member}: guard needs Linux 5.19 or later")]
pub struct MissingMember {
    /// Struct.
    pub structure: &'static str,
    /// Member.
    pub member: &'static str,
}

/// Resolves all offsets of the running kernel.
///
/// # Errors
/// When a member is missing without which nothing can be measured.
pub fn resolve(btf: &Btf, cgroups: CgroupSource) -> Result<Offsets, MissingMember> {
    let need = |structure: &'static str, member: &'static str| {
        btf.offset_of(structure, member).ok_or(MissingMember { structure, member })
    };
    let want = |structure: &str, member: &str| btf.offset_of(structure, member).unwrap_or(NO_OFFSET);
    let css_set_cgroup = match cgroups {
        CgroupSource::Default => need("css_set", "dfl_cgrp")?,
        CgroupSource::CpuController => {
            let id = btf
                .enumerator("cpu_cgrp_id")
                .and_then(|v| u32::try_from(v).ok())
                .ok_or(MissingMember { structure: "cgroup_subsys_id", member: "cpu_cgrp_id" })?;
            // An array of pointers, one per controller.
            need("css_set", "subsys")? + id * 8
        }
    };
    Ok(Offsets {
        task_pid: need("task_struct", "pid")?,
        task_tgid: need("task_struct", "tgid")?,
        task_comm: need("task_struct", "comm")?,
        task_state: need("task_struct", "__state")?,
        task_prio: need("task_struct", "prio")?,
        task_policy: need("task_struct", "policy")?,
        task_rt_priority: need("task_struct", "rt_priority")?,
        task_cgroups: need("task_struct", "cgroups")?,
        task_pi_blocked_on: want("task_struct", "pi_blocked_on"),
        task_flags: need("task_struct", "flags")?,
        task_sched_task_group: want("task_struct", "sched_task_group"),
        task_cfs_rq: want("task_struct", "se.cfs_rq"),
        task_dl: want("task_struct", "dl"),
        task_dl_server: want("task_struct", "dl_server"),
        dl_entity_timer: want("sched_dl_entity", "dl_timer"),
        css_set_cgroup,
        css_cgroup: need("cgroup_subsys_state", "cgroup")?,
        cgroup_kn: need("cgroup", "kn")?,
        kernfs_node_id: need("kernfs_node", "id")?,
        cfs_rq_tg: want("cfs_rq", "tg"),
        cfs_rq_rq: want("cfs_rq", "rq"),
        cfs_rq_throttle_count: want("cfs_rq", "throttle_count"),
        cfs_rq_throttled_clock_self: want("cfs_rq", "throttled_clock_self"),
        cfs_rq_throttled_clock_self_time: want("cfs_rq", "throttled_clock_self_time"),
        rq_clock: want("rq", "clock"),
        rq_cpu: want("rq", "cpu"),
        rq_rt_nr_running: want("rq", "rt.rt_nr_running"),
        task_rt_rq: want("task_struct", "rt.rt_rq"),
        rt_rq_nr_running: want("rt_rq", "rt_nr_running"),
        tg_cgroup: want("task_group", "css.cgroup"),
        tg_cfs_bandwidth: want("task_group", "cfs_bandwidth"),
        cfs_b_period_timer: want("cfs_bandwidth", "period_timer"),
        cfs_b_nr_throttled: want("cfs_bandwidth", "nr_throttled"),
        cfs_b_throttled_time: want("cfs_bandwidth", "throttled_time"),
        timer_softexpires: want("hrtimer", "_softexpires"),
        timer_function: want("hrtimer", "function"),
        timer_base: want("hrtimer", "base"),
        timer_is_soft: want("hrtimer", "is_soft"),
        timer_base_offset: want("hrtimer_clock_base", "offset"),
        rt_mutex_waiter_lock: want("rt_mutex_waiter", "lock"),
        rt_mutex_waiter_wake_state: want("rt_mutex_waiter", "wake_state"),
        rt_mutex_owner: want("rt_mutex_base", "owner"),
        tg_cfs_rq: want("task_group", "cfs_rq"),
        regs_syscall: match want("pt_regs", "orig_ax") {
            NO_OFFSET => want("pt_regs", "syscallno"),
            x86 => x86,
        },
        regs_address: match want("pt_regs", "di") {
            // The first of its general registers.
            NO_OFFSET => want("pt_regs", "regs"),
            x86 => x86,
        },
        regs_argument: match want("pt_regs", "si") {
            // The second of its general registers.
            NO_OFFSET => btf.offset_of("pt_regs", "regs").map_or(NO_OFFSET, |regs| regs + 8),
            x86 => x86,
        },
    })
}

/// Whether all of these offsets exist.
#[must_use]
pub fn all_present(offsets: &[u32]) -> bool {
    offsets.iter().all(|o| *o != NO_OFFSET)
}
