//! From a task to the slot of its cgroup. User space frees the slots of cgroups that have gone.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_log_ebpf::debug;
use guard_common::maps::{TaskRec, task_flags};

use crate::{
    state::{CGROUPS, Cpu, FREE_CGROUPS, cgroup},
    task::Task,
};

/// The slot of the task's cgroup: remembered with the task while its css_set and the slots stay the same.
#[inline(always)]
pub(crate) fn cgroup_slot(cpu: &mut Cpu, task: Task, rec: &mut TaskRec) -> u32 {
    let css_set = task.css_set();
    let generation = cpu.state.generation as u16;
    if rec.css_set == css_set.address() && rec.generation == generation {
        if rec.cgroup_slot == 0 {
            cpu.state.other_cgroups += 1;
        }
        return u32::from(rec.cgroup_slot);
    }
    // The task came from elsewhere: its throttled time there means nothing here. Or slots became free.
    rec.flags &= !(task_flags::THROTTLE_STAMP | task_flags::NO_SLOT);
    let slot = slot_of_cgroup(css_set.cgroup_id());
    rec.cgroup_slot = slot as u16;
    rec.generation = generation;
    rec.css_set = css_set.address();
    slot
}

/// The slot of the cgroup with this id, taking a free one at first sight; 0 ("other") when there is none.
#[inline(never)]
pub(crate) fn slot_of_cgroup(id: u64) -> u32 {
    // SAFETY: values are whole words that only user space removes.
    if let Some(slot) = unsafe { CGROUPS.get(id) } {
        return *slot;
    }
    if let Ok(Some(slot)) = FREE_CGROUPS.pop() {
        if CGROUPS.insert(id, slot, u64::from(BPF_NOEXIST)).is_ok() {
            if let Some(cgroup) = cgroup(slot) {
                cgroup.id = id;
            }
            return slot;
        }
        // Another CPU saw it first, or the bucket was busy.
        let _ = FREE_CGROUPS.push(slot, 0);
        // SAFETY: as above.
        if let Some(slot) = unsafe { CGROUPS.get(id) } {
            return *slot;
        }
    }
    if let Some(cpu) = Cpu::this() {
        cpu.state.other_cgroups += 1;
    }
    debug!((), "no slot for cgroup {}", id);
    0
}
