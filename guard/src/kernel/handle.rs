//! The loaded kernel side: its maps, and the slots of threads and cgroups in them.

use std::{
    collections::{BTreeMap, HashMap as StdHashMap, HashSet},
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, Queue, RingBuf},
};
use guard_common::event::{Breach, Stacks};
use guard_common::maps::{CgroupSlot, CpuState, Hist, TaskRec, ThreadState, thread_state};

use super::{
    before::Before,
    error::KernelError,
    flight::Flight,
    offer::Asked,
    sys::{Raw, Shared},
};
use crate::snapshot::{Signal, ThrottleSource};

/// The loaded and attached kernel side. Dropping it detaches every program and frees every map.
pub struct Kernel {
    /// Brings what the programs log to guard's own log.
    pub(super) flush_log: Box<dyn FnMut() + Send>,
    /// Keeps programs and links alive.
    pub(super) ebpf: Ebpf,
    pub(super) signals: Vec<Signal>,
    pub(super) throttle_source: ThrottleSource,
    pub(super) attached: Vec<&'static str>,
    /// What the kernel was asked for, and whether it has it.
    pub(super) asked: BTreeMap<String, Asked>,
    pub(super) hists: Shared<Hist>,
    /// On only where late wake-ups are explained.
    pub(super) flight: Option<Flight>,
    pub(super) cgroup_slots: Shared<CgroupSlot>,
    pub(super) threads: Shared<ThreadState>,
    pub(super) cpus: Shared<CpuState>,
    pub(super) tasks: Array<MapData, Raw<TaskRec>>,
    pub(super) cgroups: HashMap<MapData, u64, u32>,
    pub(super) free_cgroups: Queue<MapData, u32>,
    pub(super) free_threads: Queue<MapData, u32>,
    pub(super) ring: RingBuf<MapData>,
    pub(super) config: guard_common::config::Config,
    pub(super) online_cpus: Vec<u32>,
    pub(super) map_bytes: u64,
    /// As written to every CPU's state.
    pub(super) epoch: u32,
    /// Whether RT threads found no slot in the last interval.
    pub(super) slots_wanted: bool,
    pub(super) generation: u32,
    /// Run-time statistics stay on while this is open.
    pub(super) run_time_stats: Option<OwnedFd>,
    /// Records that were taken out of the ring buffer since the last sample.
    pub(super) breaches: Vec<Breach>,
    /// Kernel stacks of those.
    pub(super) stacks: Vec<Stacks>,
    /// Records for which there was no room, or that are not known.
    pub(super) lost_records: u64,
    pub(super) before: Before,
    pub(super) user_rest_ns: Option<u32>,
}

impl Kernel {
    /// Has every wake-up of thread `tid` counted, whatever its policy, and a breach recorded from `budget_ns` on (0 for the
    /// default threshold).
    ///
    /// # Errors
    /// When there is no such thread or no free slot.
    pub fn watch_thread(&mut self, tid: u32, budget_ns: u64) -> Result<(), KernelError> {
        if !std::path::Path::new("/proc").join(tid.to_string()).exists() {
            return Err(KernelError::NoThread(tid));
        }
        let slot = match self.slot_of_thread(tid) {
            Some(slot) => slot,
            None => self.open_slot(tid)?,
        };
        self.threads.write_field(slot, offset_of!(ThreadState, budget_ns), budget_ns);
        Ok(())
    }

    pub(super) fn slot_of_thread(&self, tid: u32) -> Option<usize> {
        (0..self.threads.len()).find(|slot| {
            let state: u32 = self.threads.read_field(*slot, offset_of!(ThreadState, state));
            matches!(state, thread_state::NEW | thread_state::LIVE)
                && self.threads.read_field::<u32>(*slot, offset_of!(ThreadState, tid)) == tid
        })
    }

    fn open_slot(&mut self, tid: u32) -> Result<usize, KernelError> {
        let full = KernelError::NoThreadSlot { tid, slots: self.threads.len() };
        let Ok(slot) = self.free_threads.pop(0) else { return Err(full) };
        let mut thread: ThreadState = bytemuck::Zeroable::zeroed();
        thread.tid = tid;
        thread.state = thread_state::NEW;
        self.threads.write(slot as usize, thread);
        let index = tid & self.config.task_mask;
        let read = |e| KernelError::bpf(format!("reading the record of thread {tid}"), e);
        let mut rec = self.tasks.get(&index, 0).map_err(read)?.0;
        if rec.tid != tid {
            if rec.thread != 0 {
                // Another watched thread has the record that both share.
                self.threads.write(slot as usize, bytemuck::Zeroable::zeroed());
                let _ = self.free_threads.push(slot, 0);
                return Err(full);
            }
            rec = bytemuck::Zeroable::zeroed();
            rec.tid = tid;
        }
        #[allow(clippy::cast_possible_truncation, reason = "there are at most 65534 thread slots")]
        {
            rec.thread = slot as u16 + 1;
        }
        self.tasks
            .set(index, Raw(rec), 0)
            .map_err(|e| KernelError::bpf(format!("writing the record of thread {tid}"), e))?;
        Ok(slot as usize)
    }

    /// Gives the cgroup a slot before its tasks are seen, so that it is not counted under "other" on a crowded node.
    /// Does nothing when it has one or none is free.
    ///
    /// # Errors
    /// When the map refuses the entry.
    pub fn reserve_cgroup(&mut self, id: u64) -> Result<(), KernelError> {
        if self.cgroups.get(&id, 0).is_ok() {
            return Ok(());
        }
        let Ok(slot) = self.free_cgroups.pop(0) else { return Ok(()) };
        let no_exist = 1; // BPF_NOEXIST
        if self.cgroups.insert(id, slot, no_exist).is_err() {
            // The kernel side saw it first.
            return self.free_cgroups.push(slot, 0).map_err(slot_error(id));
        }
        self.cgroup_slots.write_field(slot as usize, offset_of!(CgroupSlot, id), id);
        self.renew_slots();
        Ok(())
    }

    /// Frees the slot of a cgroup that no longer exists. Call it after a sample that came after its end.
    ///
    /// # Errors
    /// When the map refuses the removal.
    pub fn release_cgroup(&mut self, id: u64) -> Result<(), KernelError> {
        let Ok(slot) = self.cgroups.get(&id, 0) else { return Ok(()) };
        self.cgroups.remove(&id).map_err(slot_error(id))?;
        self.cgroup_slots.write(slot as usize, bytemuck::Zeroable::zeroed());
        self.before.forget_cgroup(slot as usize);
        self.free_cgroups.push(slot, 0).map_err(slot_error(id))?;
        self.renew_slots();
        Ok(())
    }

    /// Sets the cgroups whose throttles raise an [`super::Event::Throttled`]. Needs [`super::LoadOptions::act`].
    ///
    /// # Errors
    /// When the map refuses an entry.
    pub fn report_throttles_of(&mut self, ids: &HashSet<u64>) -> Result<(), KernelError> {
        for id in ids {
            self.reserve_cgroup(*id)?;
        }
        for slot in 1..self.cgroup_slots.len() {
            let id: u64 = self.cgroup_slots.read_field(slot, offset_of!(CgroupSlot, id));
            let protected = u32::from(id != 0 && ids.contains(&id));
            self.cgroup_slots.write_field(slot, offset_of!(CgroupSlot, protected), protected);
        }
        Ok(())
    }

    /// Adds to the cgroups of [`Self::report_throttles_of`].
    ///
    /// # Errors
    /// When the map refuses an entry.
    pub fn report_throttles_also_of(&mut self, ids: &HashSet<u64>) -> Result<(), KernelError> {
        for id in ids {
            self.reserve_cgroup(*id)?;
            if let Ok(slot) = self.cgroups.get(id, 0) {
                self.cgroup_slots.write_field(slot as usize, offset_of!(CgroupSlot, protected), 1u32);
            }
        }
        Ok(())
    }

    /// Sets, per cgroup, the wait in ns from which a late fair task raises an [`super::Event::LateFair`]. Needs
    /// [`super::LoadOptions::act`].
    ///
    /// # Errors
    /// When the map refuses an entry.
    pub fn set_fair_budgets(&mut self, budgets: &StdHashMap<u64, u64>) -> Result<(), KernelError> {
        for id in budgets.keys() {
            self.reserve_cgroup(*id)?;
        }
        for slot in 1..self.cgroup_slots.len() {
            let id: u64 = self.cgroup_slots.read_field(slot, offset_of!(CgroupSlot, id));
            let late_ns = budgets.get(&id).copied().filter(|_| id != 0).unwrap_or(0);
            self.cgroup_slots.write_field(slot, offset_of!(CgroupSlot, late_ns), late_ns);
        }
        Ok(())
    }

    /// Has each cgroup but these raise an [`super::Event::NewRealTime`] when it next shows a new real-time thread.
    pub fn report_realtime_except(&mut self, ids: &HashSet<u64>) {
        for slot in 1..self.cgroup_slots.len() {
            let id: u64 = self.cgroup_slots.read_field(slot, offset_of!(CgroupSlot, id));
            if id != 0 && !ids.contains(&id) {
                self.cgroup_slots.write_field(slot, offset_of!(CgroupSlot, rt_reported), 0u32);
            }
        }
    }

    /// Voids the slots that tasks remember.
    pub(super) fn renew_slots(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for cpu in 0..self.cpus.len() {
            self.cpus.write_field(cpu, offset_of!(CpuState, generation), self.generation);
        }
    }

    /// What can be seen on this kernel, and by which source.
    #[must_use]
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// Where throttles are counted.
    #[must_use]
    pub fn throttle_source(&self) -> ThrottleSource {
        self.throttle_source
    }

    /// What the kernel was asked for, by name.
    #[must_use]
    pub fn asked(&self) -> &BTreeMap<String, Asked> {
        &self.asked
    }

    /// Names of the programs that are attached.
    #[must_use]
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }
}

/// The ring buffer's: readable when something happened and [`super::LoadOptions::act`] was asked for.
impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

fn slot_error<E: std::error::Error + Send + Sync + 'static>(id: u64) -> impl Fn(E) -> KernelError {
    move |e| KernelError::bpf(format!("slot of cgroup {id}"), e)
}
