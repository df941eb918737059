//! The only room that knows BPF: what this kernel offers, struct offsets from its BTF, load, attach, map reading.
//! It knows neither policy nor view and names nobody: cgroups are ids and threads are tids here.

pub mod btf;
mod collect;
mod flight;
mod load;
pub mod offer;
pub mod offsets;
pub mod pretence;
mod programs;
mod records;
mod refusal;
pub mod sample;
mod selfcheck;
mod signals;
mod sources;
pub mod symbols;
mod sys;

use std::{
    collections::{BTreeMap, HashMap as StdHashMap, HashSet},
    io,
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, Queue, RingBuf},
};
use guard_common::event::{Breach, Stacks};
use guard_common::maps::{CgroupSlot, CpuState, Hist, TaskRec, ThreadState, thread_state};
pub use load::{LoadOptions, Verified};
pub use records::Event;

use crate::snapshot::{Signal, ThrottleSource};

/// Why the kernel side could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process lacks the privileges.
    #[error("guard needs root, or CAP_BPF and CAP_PERFMON, to load its programs: {what} was refused. Run it with sudo")]
    NoPrivilege {
        /// The refused operation.
        what: String,
    },
    /// The kernel was built without type information.
    #[error("{path} cannot be read: {source}. guard needs a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// File.
        path: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// Type information that cannot be understood.
    #[error("{path}: {source}")]
    BadBtf {
        /// File.
        path: &'static str,
        /// Cause.
        source: btf::BtfError,
    },
    /// Something does not exist without which nothing can be measured.
    #[error("{0}: guard needs Linux 5.19 or later with CONFIG_TRACEPOINTS=y")]
    Lacking(String),
    /// What is to be taken for missing cannot be understood.
    #[error(transparent)]
    Pretence(#[from] pretence::NoPretence),
    /// The kernel refused an indispensable program.
    #[error(
        "the kernel refused the program {program}, without which nothing can be measured: {reason}. Lockdown in mode \"confidentiality\" refuses such programs"
    )]
    Refused {
        /// Program.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The object could not be loaded, or a map could not be made or read.
    #[error("{what}: {source}")]
    Bpf {
        /// Operation and object.
        what: String,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the programs read about guard itself is wrong: the offsets cannot be trusted.
    #[error(
        "self-check failed: the programs read {field} of guard's own thread as {read}, but it is {truth}; refusing to measure"
    )]
    SelfCheck {
        /// Field.
        field: &'static str,
        /// What BPF read.
        read: String,
        /// What is true.
        truth: String,
    },
    /// A thread that was to be watched does not exist.
    #[error("no thread with tid {0} exists")]
    NoThread(u32),
    /// All thread slots are taken.
    #[error("cannot watch thread {tid}: all {slots} thread slots are taken")]
    NoThreadSlot {
        /// Thread.
        tid: u32,
        /// Slots.
        slots: usize,
    },
}

impl KernelError {
    /// Whether the node cannot do it (exit code 3), rather than a defect of guard or a wrong argument.
    #[must_use]
    pub fn is_node(&self) -> bool {
        !matches!(
            self,
            Self::SelfCheck { .. } | Self::BadBtf { .. } | Self::NoThread(_) | Self::Pretence(_) | Self::Bpf { .. }
        )
    }

    fn bpf(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Bpf { what: what.into(), source: Box::new(source) }
    }
}

/// The loaded and attached kernel side. Dropping it detaches every program and frees every map.
pub struct Kernel {
    /// Keeps programs and links alive.
    ebpf: Ebpf,
    signals: Vec<Signal>,
    throttle_source: ThrottleSource,
    attached: Vec<&'static str>,
    /// What the kernel was asked for, and whether it has it.
    asked: BTreeMap<String, offer::Asked>,
    hists: sys::Shared<Hist>,
    /// On only where late wake-ups are explained.
    flight: Option<flight::Flight>,
    cgroup_slots: sys::Shared<CgroupSlot>,
    threads: sys::Shared<ThreadState>,
    cpus: sys::Shared<CpuState>,
    tasks: Array<MapData, load::Raw<TaskRec>>,
    cgroups: HashMap<MapData, u64, u32>,
    free_cgroups: Queue<MapData, u32>,
    free_threads: Queue<MapData, u32>,
    ring: RingBuf<MapData>,
    config: guard_common::config::Config,
    online_cpus: Vec<u32>,
    map_bytes: u64,
    /// As written to every CPU's state.
    epoch: u32,
    /// Whether RT threads found no slot in the last interval.
    slots_wanted: bool,
    generation: u32,
    /// Run-time statistics stay on while this is open.
    run_time_stats: Option<OwnedFd>,
    /// Records that were taken out of the ring buffer since the last sample.
    breaches: Vec<Breach>,
    /// Passes on to guard's own log what the programs have said.
    say: Box<dyn FnMut() + Send>,
    /// Kernel stacks of those.
    stacks: Vec<Stacks>,
    /// Records for which there was no room, or that are not known.
    lost_records: u64,
    before: collect::Before,
    user_rest_ns: Option<u32>,
}

impl Kernel {
    /// Wants every wake-up of thread `tid` counted, whatever its policy, and a breach recorded from `budget_ns` on
    /// (0 for the default threshold).
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

    fn slot_of_thread(&self, tid: u32) -> Option<usize> {
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
            .set(index, load::Raw(rec), 0)
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

    /// Wants an [`Event::Throttled`] from now on whenever a quota stops one of these cgroups, and for no others. Needs
    /// [`LoadOptions::act`].
    ///
    /// # Errors
    /// When the map refuses an entry.
    pub fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), KernelError> {
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

    /// As [`Self::protect`], for further cgroups.
    ///
    /// # Errors
    /// When the map refuses an entry.
    pub fn protect_also(&mut self, ids: &HashSet<u64>) -> Result<(), KernelError> {
        for id in ids {
            self.reserve_cgroup(*id)?;
            if let Ok(slot) = self.cgroups.get(id, 0) {
                self.cgroup_slots.write_field(slot as usize, offset_of!(CgroupSlot, protected), 1u32);
            }
        }
        Ok(())
    }

    /// Wants an [`Event::LateFair`] from now on whenever a fair task of one of these cgroups waits for a CPU for longer
    /// than this, ns, and for no others. Needs [`LoadOptions::act`].
    ///
    /// # Errors
    /// When the map refuses an entry.
    pub fn judge(&mut self, budgets: &StdHashMap<u64, u64>) -> Result<(), KernelError> {
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

    /// Wants an [`Event::NewRealTime`] of each cgroup that is not one of these when it next shows a new real-time thread.
    pub fn known_realtime(&mut self, ids: &HashSet<u64>) {
        for slot in 1..self.cgroup_slots.len() {
            let id: u64 = self.cgroup_slots.read_field(slot, offset_of!(CgroupSlot, id));
            if id != 0 && !ids.contains(&id) {
                self.cgroup_slots.write_field(slot, offset_of!(CgroupSlot, rt_reported), 0u32);
            }
        }
    }

    /// Slots that tasks remember are void from here on.
    fn renew_slots(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for cpu in 0..self.cpus.len() {
            self.cpus.write_field(cpu, offset_of!(CpuState, generation), self.generation);
        }
    }

    /// What can be seen on this kernel, and by which means.
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
    pub fn asked(&self) -> &BTreeMap<String, offer::Asked> {
        &self.asked
    }

    /// Names of the programs that are attached.
    #[must_use]
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }
}

/// The ring buffer's: readable when something happened and [`LoadOptions::act`] was asked for.
impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

fn slot_error<E: std::error::Error + Send + Sync + 'static>(id: u64) -> impl Fn(E) -> KernelError {
    move |e| KernelError::bpf(format!("slot of cgroup {id}"), e)
}
