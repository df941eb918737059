//! What user space knows and the programs need: struct offsets of the running kernel, addresses of timer callbacks,
//! sizes of the maps, switches. Placed in read-only data before load, so that the verifier sees constants and
//! removes the branches of signals that are off.

/// A struct offset that this kernel does not have.
pub const NO_OFFSET: u32 = u32::MAX;

/// Byte offsets into the running kernel's structs, from its BTF. [`NO_OFFSET`] where the kernel lacks the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
#[allow(missing_docs, reason = "each field is named after the struct and member it locates")]
pub struct Offsets {
    pub task_pid: u32,
    pub task_tgid: u32,
    pub task_comm: u32,
    pub task_state: u32,
    pub task_prio: u32,
    pub task_policy: u32,
    pub task_rt_priority: u32,
    pub task_cgroups: u32,
    pub task_pi_blocked_on: u32,
    pub task_flags: u32,
    pub task_sched_task_group: u32,
    /// task_struct.se.cfs_rq
    pub task_cfs_rq: u32,
    /// task_struct.dl
    pub task_dl: u32,
    pub task_dl_server: u32,
    /// sched_dl_entity.dl_timer
    pub dl_entity_timer: u32,
    /// css_set.dfl_cgrp on v2; css_set.subsys[cpu] on v1 (then `css_set_is_subsys` is 1)
    pub css_set_cgroup: u32,
    /// cgroup_subsys_state.cgroup
    pub css_cgroup: u32,
    pub cgroup_kn: u32,
    pub kernfs_node_id: u32,
    pub cfs_rq_tg: u32,
    pub cfs_rq_rq: u32,
    pub cfs_rq_throttle_count: u32,
    pub cfs_rq_throttled_clock_self: u32,
    pub cfs_rq_throttled_clock_self_time: u32,
    pub rq_clock: u32,
    pub rq_cpu: u32,
    /// rq.rt.rt_nr_running
    pub rq_rt_nr_running: u32,
    /// task_struct.rt.rt_rq, only where RT time is rationed per cgroup
    pub task_rt_rq: u32,
    /// rt_rq.rt_nr_running
    pub rt_rq_nr_running: u32,
    /// task_group.css.cgroup
    pub tg_cgroup: u32,
    pub tg_cfs_bandwidth: u32,
    /// cfs_bandwidth.period_timer
    pub cfs_b_period_timer: u32,
    pub cfs_b_nr_throttled: u32,
    pub cfs_b_throttled_time: u32,
    pub timer_softexpires: u32,
    pub timer_function: u32,
    pub timer_base: u32,
    pub timer_is_soft: u32,
    /// hrtimer_clock_base.offset
    pub timer_base_offset: u32,
    pub rt_mutex_waiter_lock: u32,
    pub rt_mutex_waiter_wake_state: u32,
    pub rt_mutex_owner: u32,
    /// task_group.cfs_rq (array of pointers, one per CPU)
    pub tg_cfs_rq: u32,
    /// Number of the system call in pt_regs: orig_ax on x86-64, syscallno on aarch64
    pub regs_syscall: u32,
    /// First argument of the system call in pt_regs
    pub regs_address: u32,
    /// Second argument of the system call in pt_regs
    pub regs_argument: u32,
}

/// Everything the programs take as constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(C)]
pub struct Config {
    /// Address of `hrtimer_wakeup`; 0 when unknown.
    pub fn_hrtimer_wakeup: u64,
    /// Address of `dl_task_timer`; 0 when unknown.
    pub fn_dl_task_timer: u64,
    /// Address of `sched_cfs_period_timer`; 0 when unknown.
    pub fn_cfs_period_timer: u64,
    /// Address of the scheduler tick's callback, which wakes nobody's cycle; 0 when unknown.
    pub fn_tick: u64,
    /// Latency from which on a wake-up of a watched thread without a budget of its own is a breach, ns.
    pub breach_ns: u64,
    /// Offsets of the running kernel.
    pub offsets: Offsets,
    /// Slots for cgroups, "other" included.
    pub cgroup_slots: u32,
    /// Histograms in one CPU's part of the histogram map; see [`crate::maps::hists_per_cpu`].
    pub hists_per_cpu: u32,
    /// CPUs that the maps have room for.
    pub cpus: u32,
    /// Entries of the task map minus one; the map's size is a power of two.
    pub task_mask: u32,
    /// 1 when the cgroup is found by its cpu controller's css (v1), 0 by the default hierarchy (v2).
    pub css_set_is_subsys: u32,
    /// 1 on PREEMPT_RT: softirqs run in preemptible threads.
    pub preempt_rt: u32,
    /// [`throttled_time`].
    pub throttled_time: u32,
    /// 1 when the interrupt programs are attached.
    pub irq: u32,
    /// 1 when the period timer is the source of throttles, because no fentry program is.
    pub throttle_by_period: u32,
    /// 1 when user space acts on what happens: it is woken for records, and told of throttles of protected cgroups and
    /// of cgroups that turn out to be real-time.
    pub act: u32,
    /// Number of the system call futex.
    pub futex: u32,
    /// Process whose real-time threads do not count as such: guard's own, where it acts; else 0.
    pub own_tgid: u32,
    /// Entries of one CPU's part of the flight recorder minus one, the part's size being a power of two; 0 when it is
    /// off.
    pub flight_mask: u32,
    /// 1 when kernel stacks are kept.
    pub stacks: u32,
}

/// Where the time a cfs_rq was throttled comes from.
pub mod throttled_time {
    /// It is not known on this kernel.
    pub const NONE: u32 = 0;
    /// `cfs_rq.throttled_clock_self_time` (6.6 and later).
    pub const FIELD: u32 = 1;
    /// Kept by fentry programs on tg_throttle_down and tg_unthrottle_up.
    pub const FENTRY: u32 = 2;
}
