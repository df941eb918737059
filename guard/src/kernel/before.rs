//! What the maps held at the last sample: counts only grow, so a sample is what they grew by.

use guard_common::{
    hist::BUCKETS,
    maps::{CgroupSlot, CpuState},
};

use crate::sched::now_ns;

/// What the maps held at the last sample.
pub(super) struct Before {
    pub(super) at_ns: u64,
    pub(super) hists: Vec<HistBefore>,
    pub(super) cpus: Vec<CpuState>,
    pub(super) cgroups: Vec<CgroupSlot>,
    pub(super) threads: Vec<ThreadBefore>,
    pub(super) missed: u64,
    pub(super) run: (u64, u64),
}

/// One histogram, summed over CPUs. The buckets come with the first count: most histograms never get one.
#[derive(Clone, Default)]
pub(super) struct HistBefore {
    /// As in the maps: one ns more for each latency.
    pub(super) sum_ns: u64,
    pub(super) buckets: Option<Box<[u32; BUCKETS]>>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct ThreadBefore {
    pub(super) missed: u64,
    pub(super) user_estimated: u64,
    pub(super) boosts: u64,
    pub(super) breaches: u64,
}

impl Before {
    pub(super) fn new(cpus: usize, hists: usize) -> Self {
        Self {
            at_ns: now_ns(),
            hists: vec![HistBefore::default(); hists],
            cpus: vec![bytemuck::Zeroable::zeroed(); cpus],
            cgroups: Vec::new(),
            threads: Vec::new(),
            missed: 0,
            run: (0, 0),
        }
    }

    /// The slot begins anew with its next cgroup; the histograms' counts go on.
    pub(super) fn forget_cgroup(&mut self, slot: usize) {
        if let Some(before) = self.cgroups.get_mut(slot) {
            *before = bytemuck::Zeroable::zeroed();
        }
    }
}
