//! How large the kernel side is made for a node, and what of it is loaded.

use guard_common::maps::{CGROUP_KINDS, Hist, THREAD_KINDS};

use crate::cgroup::Version;
use crate::control::watch::{Recorder, Watch};
use crate::inventory::{Inventory, Topology};
use crate::kernel::offsets::CgroupSource;
use crate::kernel::pretence::Pretence;
use crate::kernel::{KernelError, LoadOptions};
use crate::snapshot::Node;

/// Kernel memory that the histograms of cgroups, and those of threads, may take, bytes.
const HISTOGRAM_BYTES: usize = 64 << 20;
/// Least and most slots. A node with more cgroups, or more real-time threads, counts the rest as lost.
const SLOTS: (u32, u32) = (64, 1024);
/// Slots allowed even where [`HISTOGRAM_BYTES`] would hold fewer (many CPUs).
const SLOTS_MANY_CPUS: u32 = 256;

/// What to load for `watch` on this node.
pub(super) fn load_options(
    watch: &Watch,
    node: &Node,
    topology: &Topology,
    inventory: &Inventory,
) -> Result<LoadOptions, KernelError> {
    let hierarchy = inventory.hierarchy();
    let own_cgroup = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| hierarchy.path_in(&text))
        .and_then(|path| hierarchy.id(&path).ok());
    let cpus = topology.possible.len();
    Ok(LoadOptions {
        breach_ns: u64::try_from(watch.threshold.as_nanos()).unwrap_or(u64::MAX),
        cgroups: match hierarchy.version() {
            Version::V1 => CgroupSource::CpuController,
            Version::V2 => CgroupSource::Default,
        },
        cgroup_slots: slots(inventory.cgroups().count(), CGROUP_KINDS, cpus),
        thread_slots: slots(inventory.rt_threads().len() + watch.selection.tids.len(), THREAD_KINDS, cpus),
        own_cgroup,
        online_cpus: topology.online.iter().collect(),
        preempt_rt: node.realtime,
        act: watch.act,
        flight: watch.recorder != Recorder::Off,
        stacks: watch.stacks,
        run_time_stats: watch.run_time_stats,
        pretence: Pretence::from_environment()?,
    })
}

/// Slots for `present` cgroups or threads of `kinds` histograms each.
fn slots(present: usize, kinds: u32, cpus: usize) -> u32 {
    let slot_bytes = cpus.max(1) * size_of::<Hist>() * usize::try_from(kinds).unwrap_or(1);
    let affordable = u32::try_from(HISTOGRAM_BYTES / slot_bytes).unwrap_or(u32::MAX);
    // A power of two stays one when it is rounded up again.
    let most = if affordable == 0 { 0 } else { 1 << affordable.ilog2() };
    LoadOptions::slots_for(present, SLOTS.0, most.clamp(SLOTS_MANY_CPUS, SLOTS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_node_and_the_memory() {
        assert_eq!(slots(10, CGROUP_KINDS, 2), 64);
        assert_eq!(slots(200, CGROUP_KINDS, 4), 256);
        assert_eq!(slots(2_000, CGROUP_KINDS, 4), 1024);
        assert_eq!(slots(2_000, CGROUP_KINDS, 256), 256);
        assert_eq!(slots(usize::MAX / 8, CGROUP_KINDS, usize::MAX >> 32), 256);
    }
}
