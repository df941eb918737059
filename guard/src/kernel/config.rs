//! The configuration that is frozen into the programs: what of it follows from the node and from what was asked for. What
//! follows from the sources of the signals, [`super::signals::configure`] adds.

use std::fs;

use guard_common::{
    config::{Config, throttled_time},
    maps::hists_per_cpu,
};

use super::{
    error::KernelError,
    flight,
    offer::{CFS_PERIOD_TIMER, DL_TASK_TIMER, HRTIMER_WAKEUP, Offer},
    offsets::{self, CgroupSource},
    options::LoadOptions,
};

/// Records for tasks: where pid_max is larger, tids share records and collisions are counted.
const MAX_TASKS: u32 = 1 << 17;

/// For a node with `cpus` possible CPUs, with all that signals switch on off.
///
/// # Errors
/// When a member is missing without which nothing can be measured.
pub(super) fn config(offer: &Offer<'_>, options: &LoadOptions, cpus: u32) -> Result<Config, KernelError> {
    let pid_max: u32 =
        fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(1 << 15);
    Ok(Config {
        fn_hrtimer_wakeup: offer.address(HRTIMER_WAKEUP),
        fn_dl_task_timer: offer.address(DL_TASK_TIMER),
        fn_cfs_period_timer: offer.address(CFS_PERIOD_TIMER),
        fn_tick: offer.address(offer.tick()),
        breach_ns: options.breach_ns,
        offsets: offsets::resolve(offer, options.cgroups)?,
        cgroup_slots: options.cgroup_slots,
        hists_per_cpu: hists_per_cpu(options.cgroup_slots, options.thread_slots),
        cpus,
        task_mask: pid_max.next_power_of_two().min(MAX_TASKS) - 1,
        css_set_is_subsys: u32::from(options.cgroups == CgroupSource::CpuController),
        preempt_rt: u32::from(options.preempt_rt),
        throttled_time: throttled_time::NONE,
        irq: 0,
        throttle_by_period: 0,
        act: u32::from(options.act),
        futex: u32::try_from(libc::SYS_futex).unwrap_or(u32::MAX),
        own_tgid: if options.act { std::process::id() } else { 0 },
        flight_mask: if options.flight { flight::entries(cpus) - 1 } else { 0 },
        stacks: u32::from(options.stacks),
    })
}
