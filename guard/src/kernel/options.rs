//! What the kernel side is asked for at load.

use super::{offsets::CgroupSource, pretence::Pretence};

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Latency from which on a wake-up of an RT thread without a budget is a breach, ns.
    pub breach_ns: u64,
    /// Which hierarchy names the cgroups.
    pub cgroups: CgroupSource,
    /// Slots for cgroups; see [`LoadOptions::slots_for`].
    pub cgroup_slots: u32,
    /// Slots for watched threads.
    pub thread_slots: u32,
    /// Cgroup id of guard's own process in that hierarchy, for the self-check.
    pub own_cgroup: Option<u64>,
    /// CPUs online.
    pub online_cpus: Vec<u32>,
    /// Whether the kernel is PREEMPT_RT.
    pub preempt_rt: bool,
    /// Whether guard acts on what happens: then it is woken for records; see [`super::Kernel::events`].
    pub act: bool,
    /// Whether late wake-ups are to be explained: then a flight recorder runs, which costs an entry for each event.
    pub flight: bool,
    /// Whether kernel stacks of late wake-ups are to be kept: each wake-up of a watched thread costs microseconds then.
    pub stacks: bool,
    /// Whether to count the programs' run time, which itself costs some 20 ns per event.
    pub run_time_stats: bool,
    /// What to take for missing, or refused.
    pub pretence: Pretence,
}

impl LoadOptions {
    /// Slots that hold `present` cgroups or threads with room to grow, within `least..=most`.
    #[must_use]
    pub fn slots_for(present: usize, least: u32, most: u32) -> u32 {
        let wanted = u32::try_from(present + present / 4 + 1).unwrap_or(most);
        wanted.checked_next_power_of_two().unwrap_or(most).clamp(least, most)
    }
}
