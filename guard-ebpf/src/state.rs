//! The maps and the few operations on them that every signal shares: the clock, the histogram, records for user space. It
//! knows no kernel structs.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, Queue, RingBuf, ring_buf::RingBufEntry},
};
use guard_common::{
    event::{Framed, REPORT_EVERY_NS, Record},
    hist::{BUCKETS, bucket_of},
    maps::{CgroupKind, CgroupSlot, CpuState, Hist, TaskRec, ThreadKind, ThreadState, ThrottleStamp, ThrottleState},
    maps::{cgroup_hist, task_flags, thread_hist},
};

use crate::config::config;

// The sizes are set by user space at load; the numbers here are the smallest that load.
const SIZED_AT_LOAD: u32 = 1;

/// tid & task_mask → record. Written by the wake-up programs under the task's pi_lock or run-queue lock.
#[map]
static TASKS: Array<TaskRec> = Array::with_max_entries(SIZED_AT_LOAD, 0);
/// tid & task_mask → throttling of the task.
#[map]
static THROTTLE_STAMPS: Array<ThrottleStamp> = Array::with_max_entries(SIZED_AT_LOAD, 0);
/// CPU-major histograms; see `guard_common::maps`. Each CPU writes its own part only.
#[map]
static HISTS: Array<Hist> = Array::with_max_entries(SIZED_AT_LOAD, BPF_F_MMAPABLE);
/// Cgroup id → slot. Preallocated; inserted here at first sight, removed by user space.
#[map]
pub(crate) static CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(SIZED_AT_LOAD, 0);
/// Slot → cgroup.
#[map]
static CGROUP_SLOTS: Array<CgroupSlot> = Array::with_max_entries(SIZED_AT_LOAD, BPF_F_MMAPABLE);
/// Cgroup slots that user space has cleared. Taken here at first sight of a cgroup.
#[map]
pub(crate) static FREE_CGROUPS: Queue<u32> = Queue::with_max_entries(SIZED_AT_LOAD, 0);
/// Slot → watched thread.
#[map]
static THREADS: Array<ThreadState> = Array::with_max_entries(SIZED_AT_LOAD, BPF_F_MMAPABLE);
/// Thread slots that user space has cleared. Taken here at first sight of an RT thread.
#[map]
static FREE_THREADS: Queue<u32> = Queue::with_max_entries(SIZED_AT_LOAD, 0);
/// CPU → state and counters. Each CPU writes its own entry only.
#[map]
static CPUS: Array<CpuState> = Array::with_max_entries(SIZED_AT_LOAD, BPF_F_MMAPABLE);
/// Address of a cfs_rq → when it was throttled. Preallocated; written under its run-queue lock.
#[map]
static THROTTLES: HashMap<u64, ThrottleState> = HashMap::with_max_entries(SIZED_AT_LOAD, 0);
/// Records for user space; see `guard_common::event`.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// CLOCK_MONOTONIC in ns, as cyclictest reads it.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// This CPU's number.
#[inline(always)]
pub(crate) fn this_cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// The CPU that a program runs on: looked up once for each event.
pub(crate) struct Cpu {
    pub(crate) number: u32,
    pub(crate) state: &'static mut CpuState,
}

impl Cpu {
    #[inline(always)]
    pub(crate) fn this() -> Option<Self> {
        let number = this_cpu();
        // SAFETY: the verifier proves the entry valid; only this CPU writes it.
        CPUS.get_ptr_mut(number).map(|p| Self { number, state: unsafe { &mut *p } })
    }

    /// Counts a latency for a cgroup.
    #[inline(always)]
    pub(crate) fn count_cgroup(&self, slot: u32, kind: CgroupKind, ns: u64) {
        self.count(cgroup_hist(slot, kind), ns);
    }

    /// Counts a latency for a watched thread.
    #[inline(always)]
    pub(crate) fn count_thread(&self, slot: u32, kind: ThreadKind, ns: u64) {
        self.count(thread_hist(config!(cgroup_slots), slot, kind), ns);
    }

    /// Counts `ns` in histogram `index`.
    #[inline(always)]
    fn count(&self, index: u32, ns: u64) {
        // SAFETY: the verifier proves the entry valid; only this CPU writes it.
        let hist = HISTS.get_ptr_mut(self.number * config!(hists_per_cpu) + index).map(|p| unsafe { &mut *p });
        let Some(hist) = hist else { return };
        // The compiler knows that the bucket exists and would drop the comparison; the verifier has to see it.
        let bucket = opaque(bucket_of(ns));
        if bucket < BUCKETS {
            hist.buckets[bucket] += 1;
        }
        if self.state.epoch & 1 == 0 {
            extremes(&mut hist.max_ns[0], &mut hist.not_min_ns[0], ns);
        } else {
            extremes(&mut hist.max_ns[1], &mut hist.not_min_ns[1], ns);
        }
        // Last: a reader that sees the new sum sees the new bucket.
        hist.sum_ns += ns + 1;
    }

    /// Flags for submitting a record at `now`. Waking the reader costs an interrupt on this CPU: only where it acts on what
    /// it reads, and not for every record of a flood. Otherwise it looks for records on its own.
    #[inline(always)]
    pub(crate) fn submit_flags(&mut self, now: u64) -> u64 {
        if config!(act) == 0 || now.saturating_sub(self.state.reader_woken_ns) < REPORT_EVERY_NS {
            return u64::from(BPF_RB_NO_WAKEUP);
        }
        self.state.reader_woken_ns = now;
        u64::from(BPF_RB_FORCE_WAKEUP)
    }

    /// From now on throttled time is looked at, on every CPU.
    #[inline(always)]
    pub(crate) fn note_quota(&self) {
        if self.state.quota_seen == 0 {
            note_quota_everywhere();
        }
    }
}

#[inline(never)]
fn note_quota_everywhere() -> u32 {
    // A bound that the verifier can see; the map ends it earlier.
    for number in 0..8192 {
        if number >= config!(cpus) {
            break;
        }
        // SAFETY: the verifier proves the entry valid; the word is only ever set to one.
        if let Some(state) = CPUS.get_ptr_mut(number).map(|p| unsafe { &mut *p }) {
            state.quota_seen = 1;
        }
    }
    0
}

/// Another CPU's state, to be read only.
#[inline(always)]
pub(crate) fn cpu(number: u32) -> Option<&'static CpuState> {
    // SAFETY: the verifier proves the entry valid; its CPU may write to it meanwhile, a word at a time.
    CPUS.get_ptr(number).map(|p| unsafe { &*p })
}

/// The watched thread in `slot`.
#[inline(always)]
pub(crate) fn thread(slot: u32) -> Option<&'static mut ThreadState> {
    // SAFETY: the verifier proves the entry valid; writers are ordered by the thread's own pi_lock and run-queue lock.
    unsafe { THREADS.get_ptr_mut(slot).map(|p| &mut *p) }
}

/// The cgroup in `slot`.
#[inline(always)]
pub(crate) fn cgroup(slot: u32) -> Option<&'static mut CgroupSlot> {
    // SAFETY: the verifier proves the entry valid; its counters are added to atomically.
    unsafe { CGROUP_SLOTS.get_ptr_mut(slot).map(|p| &mut *p) }
}

/// The record that `tid` falls on, perhaps another task's.
#[inline(always)]
fn record(tid: u32) -> Option<&'static mut TaskRec> {
    // SAFETY: the verifier proves the entry valid; writers are ordered by the task's pi_lock and run-queue lock.
    unsafe { TASKS.get_ptr_mut(tid & config!(task_mask)).map(|p| &mut *p) }
}

/// Throttling of the task `tid`.
#[inline(always)]
pub(crate) fn throttle_stamp(tid: u32) -> Option<&'static mut ThrottleStamp> {
    // SAFETY: as for `record`.
    unsafe { THROTTLE_STAMPS.get_ptr_mut(tid & config!(task_mask)).map(|p| &mut *p) }
}

/// The record of `tid`, if it has one.
#[inline(always)]
pub(crate) fn known_task(tid: u32) -> Option<&'static mut TaskRec> {
    record(tid).filter(|r| r.tid == tid)
}

/// The record of `tid`; takes it over from another task unless that one is watched.
#[inline(always)]
pub(crate) fn task_record(tid: u32) -> Option<&'static mut TaskRec> {
    let rec = record(tid)?;
    if rec.tid != tid {
        // This task's wait goes uncounted, or another's does.
        if rec.thread != 0 || rec.wait_ns != 0 && rec.tid != 0 {
            if let Some(cpu) = Cpu::this() {
                cpu.state.lost_collisions += 1;
            }
        }
        if rec.thread != 0 {
            return None;
        }
        reset(rec, tid);
    }
    Some(rec)
}

/// Makes `rec` the blank record of `tid`. Volatile, because the compiler would call memset, a loop over bytes here.
#[inline(always)]
pub(crate) fn reset(rec: &mut TaskRec, tid: u32) {
    // SAFETY: the fields of a valid record.
    unsafe {
        (&raw mut rec.wait_ns).write_volatile(0);
        (&raw mut rec.css_set).write_volatile(0);
        (&raw mut rec.tid).write_volatile(tid);
        (&raw mut rec.thread).write_volatile(0);
        (&raw mut rec.flags).write_volatile(0);
    }
}

/// The same value, about which the compiler knows nothing.
#[inline(always)]
fn opaque(value: usize) -> usize {
    let mut value = value;
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

#[inline(always)]
fn extremes(max_ns: &mut u64, not_min_ns: &mut u64, ns: u64) {
    if ns > *max_ns {
        *max_ns = ns;
    }
    if !ns > *not_min_ns {
        *not_min_ns = !ns;
    }
}

/// Room for a record in the ring buffer, with its kind written; `None`, and counted as lost, where there is none.
#[inline(always)]
pub(crate) fn reserve<T: Record + 'static>(cpu: &mut CpuState) -> Option<RingBufEntry<Framed<T>>> {
    let Some(mut entry) = EVENTS.reserve::<Framed<T>>(0) else {
        cpu.lost_events += 1;
        return None;
    };
    let framed = entry.as_mut_ptr();
    // SAFETY: the reserved room is valid for writes.
    unsafe {
        (*framed).kind = T::KIND as u32;
        (*framed).reserved = 0;
    }
    Some(entry)
}

/// Where in the reserved room the record itself is written.
#[inline(always)]
pub(crate) fn place_in<T: Record + 'static>(entry: &mut RingBufEntry<Framed<T>>) -> *mut T {
    // SAFETY: within the reserved room.
    unsafe { &raw mut (*entry.as_mut_ptr()).record }
}

/// Sends a record of what was seen at `now`.
#[inline(always)]
pub(crate) fn send<T: Record + 'static>(cpu: &mut Cpu, record: T, now: u64) {
    let Some(mut entry) = reserve::<T>(cpu.state) else { return };
    // SAFETY: the reserved room is valid for writes.
    unsafe { place_in(&mut entry).write(record) };
    entry.submit(cpu.submit_flags(now));
}

/// Adds to a counter that several CPUs write. The target has no atomic type in `core`, but the instruction exists.
#[inline(always)]
pub(crate) fn add(counter: &mut u64, n: u64) {
    // SAFETY: a valid, aligned word of a map value.
    unsafe { core::arch::asm!("lock *(u64 *)({p} + 0) += {n}", p = in(reg) &raw mut *counter, n = in(reg) n) };
}

/// Takes a free thread slot.
#[inline(always)]
pub(crate) fn take_thread_slot() -> Option<u32> {
    FREE_THREADS.pop().ok().flatten()
}

/// Throttle bookkeeping of the cfs_rq at `address`.
#[inline(always)]
pub(crate) fn throttle_state(address: u64) -> Option<&'static mut ThrottleState> {
    // SAFETY: the verifier proves the entry valid; writers hold the run-queue lock.
    THROTTLES.get_ptr_mut(address).map(|p| unsafe { &mut *p })
}

/// The same, made at first sight.
#[inline(always)]
pub(crate) fn throttle_state_or_new(address: u64) -> Option<&'static mut ThrottleState> {
    if throttle_state(address).is_none() {
        let blank = ThrottleState { own_since_ns: 0, since_ns: 0, total_ns: 0 };
        let _ = THROTTLES.insert(address, blank, u64::from(BPF_NOEXIST));
    }
    throttle_state(address)
}

/// Whether the task passed its exit or found no thread slot before.
#[inline(always)]
pub(crate) fn never_watch(rec: &TaskRec) -> bool {
    rec.flags & (task_flags::EXITED | task_flags::NO_SLOT) != 0
}
