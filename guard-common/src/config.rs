//! What user space knows and the programs need: struct offsets of the running kernel, addresses of timer callbacks,
//! sizes of the maps, switches. Placed in read-only data before load, so that the verifier sees constants and
//! removes the branches of signals that are off.

/// A struct offset that this kernel does not have.
pub const NO_OFFSET: u32 = u32::MAX;

/// What an offset of [`Offsets`] locates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// A member without which nothing can be measured ("task_struct.pid").
    Needed(&'static str),
    /// A member that a kernel may lack.
    Wanted(&'static str),
    /// css_set.dfl_cgrp on v2; css_set.subsys\[cpu\] on v1 (then [`Config::css_set_is_subsys`] is 1).
    CgroupOfSet,
    /// Number of the system call in pt_regs.
    SystemCall,
    /// First argument of the system call in pt_regs.
    FirstArgument,
    /// Second argument of the system call in pt_regs.
    SecondArgument,
}

/// Declares [`Offsets`] and how they are resolved: a member is one line.
macro_rules! offsets {
    ($($how:ident $field:ident $(= $member:literal)?;)+) => {
        /// Byte offsets into the running kernel's structs, from its BTF. [`NO_OFFSET`] where the kernel lacks the member.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "pod", derive(bytemuck::Pod, bytemuck::Zeroable))]
        #[repr(C)]
        pub struct Offsets {
            $(
                #[doc = concat!(stringify!($how) $(, ": ", $member)?)]
                pub $field: u32,
            )+
        }

        impl Offsets {
            /// Finds each member.
            ///
            /// # Errors
            /// The first that `find` returns.
            pub fn resolve<E>(mut find: impl FnMut(Member) -> Result<u32, E>) -> Result<Self, E> {
                Ok(Self { $($field: find(Member::$how $(($member))?)?,)+ })
            }
        }
    };
}

offsets! {
    Needed task_pid = "task_struct.pid";
    Needed task_tgid = "task_struct.tgid";
    Needed task_comm = "task_struct.comm";
    Needed task_state = "task_struct.__state";
    Needed task_prio = "task_struct.prio";
    Needed task_policy = "task_struct.policy";
    Needed task_rt_priority = "task_struct.rt_priority";
    Needed task_cgroups = "task_struct.cgroups";
    Wanted task_pi_blocked_on = "task_struct.pi_blocked_on";
    Needed task_flags = "task_struct.flags";
    Wanted task_sched_task_group = "task_struct.sched_task_group";
    Wanted task_cfs_rq = "task_struct.se.cfs_rq";
    Wanted task_dl = "task_struct.dl";
    Wanted task_dl_server = "task_struct.dl_server";
    Wanted dl_entity_timer = "sched_dl_entity.dl_timer";
    CgroupOfSet css_set_cgroup;
    Needed css_cgroup = "cgroup_subsys_state.cgroup";
    Needed cgroup_kn = "cgroup.kn";
    Needed kernfs_node_id = "kernfs_node.id";
    Wanted cfs_rq_tg = "cfs_rq.tg";
    Wanted cfs_rq_rq = "cfs_rq.rq";
    Wanted cfs_rq_throttle_count = "cfs_rq.throttle_count";
    Wanted cfs_rq_throttled_clock_self = "cfs_rq.throttled_clock_self";
    Wanted cfs_rq_throttled_clock_self_time = "cfs_rq.throttled_clock_self_time";
    Wanted rq_clock = "rq.clock";
    Wanted rq_cpu = "rq.cpu";
    Wanted rq_rt_nr_running = "rq.rt.rt_nr_running";
    // Only where RT time is rationed per cgroup.
    Wanted task_rt_rq = "task_struct.rt.rt_rq";
    Wanted rt_rq_nr_running = "rt_rq.rt_nr_running";
    // Only where there is RT throttling.
    Wanted rq_rt_throttled = "rq.rt.rt_throttled";
    Wanted rt_rq_throttled = "rt_rq.rt_throttled";
    Wanted tg_cgroup = "task_group.css.cgroup";
    Wanted tg_cfs_bandwidth = "task_group.cfs_bandwidth";
    Wanted cfs_b_period_timer = "cfs_bandwidth.period_timer";
    Wanted cfs_b_nr_throttled = "cfs_bandwidth.nr_throttled";
    Wanted cfs_b_throttled_time = "cfs_bandwidth.throttled_time";
    Wanted timer_softexpires = "hrtimer._softexpires";
    Wanted timer_function = "hrtimer.function";
    Wanted timer_base = "hrtimer.base";
    Wanted timer_is_soft = "hrtimer.is_soft";
    Wanted timer_base_offset = "hrtimer_clock_base.offset";
    Wanted rt_mutex_waiter_lock = "rt_mutex_waiter.lock";
    Wanted rt_mutex_waiter_wake_state = "rt_mutex_waiter.wake_state";
    Wanted rt_mutex_owner = "rt_mutex_base.owner";
    // An array of pointers, one per CPU.
    Wanted tg_cfs_rq = "task_group.cfs_rq";
    SystemCall regs_syscall;
    FirstArgument regs_address;
    SecondArgument regs_argument;
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
    /// Address of the scheduler tick's callback, which begins no thread's cycle; 0 when unknown.
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
    /// 1 when user space acts on what happens: it is woken for records, and throttles of protected cgroups and cgroups
    /// that turn out to be real-time are reported to it.
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
    /// Unknown on this kernel.
    pub const NONE: u32 = 0;
    /// `cfs_rq.throttled_clock_self_time` (6.6 and later).
    pub const FIELD: u32 = 1;
    /// Kept by fentry programs on tg_throttle_down and tg_unthrottle_up.
    pub const FENTRY: u32 = 2;
}
