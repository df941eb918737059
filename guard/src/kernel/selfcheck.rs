//! Checks at start what the programs read: wrong offsets corrupt silently, so guard first measures its own thread, about
//! which everything is known.

use std::time::Duration;

use guard_common::comm;
use guard_common::maps::{TaskRec, ThreadState, thread_state};

use super::{error::KernelError, handle::Kernel, options::LoadOptions, sys::Raw};
use crate::sched::{self, SchedPolicy};

/// Cycles slept to measure the rest of the user stage, and their length: that of a fast PLC, so that caches are as
/// cold and idle states as deep as in the threads that are watched.
const CYCLES: usize = 50;
const CYCLE: Duration = Duration::from_millis(1);

/// The thread that loads guard, watched.
pub(super) struct Own {
    tid: u32,
}

impl Own {
    /// Takes a thread slot for the calling thread.
    pub(super) fn watch(kernel: &mut Kernel) -> Result<Self, KernelError> {
        #[allow(clippy::cast_sign_loss, reason = "thread ids are positive")]
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        kernel.watch_thread(tid, u64::MAX)?;
        Ok(Self { tid })
    }

    /// With the programs attached: compares what they read of this thread with the truth, measures how much later than
    /// they see its return to user space it has read its clock, in ns, and gives the slot back. `None` where that
    /// return cannot be seen.
    pub(super) fn check(self, kernel: &mut Kernel, options: &LoadOptions) -> Result<Option<u32>, KernelError> {
        let rest = measure_rest(kernel, self.tid);
        let result = check(kernel, options, self.tid);
        forget(kernel, self.tid)?;
        result.map(|()| rest)
    }
}

/// Sleeps as cyclictest does, and compares each wake-up with what the programs counted for it. The median, because
/// now and then something runs in between.
fn measure_rest(kernel: &Kernel, tid: u32) -> Option<u32> {
    let slot = kernel.slot_of_thread(tid)?;
    let mut rests = Vec::with_capacity(CYCLES);
    let mut counted = kernel.user_stage_sum(slot);
    for _ in 0..CYCLES {
        let wanted = sched::now_ns() + u64::try_from(CYCLE.as_nanos()).unwrap_or(u64::MAX);
        // An interrupted sleep counts nothing and is passed over.
        let own = sched::sleep_and_read(wanted).saturating_sub(wanted);
        let now_counted = kernel.user_stage_sum(slot);
        if let Some(seen) = now_counted.wrapping_sub(counted).checked_sub(1) {
            rests.push(own.saturating_sub(seen));
        }
        counted = now_counted;
    }
    // A libc without restartable sequences leaves the stage unseen.
    if rests.len() < CYCLES / 2 {
        return None;
    }
    let middle = rests.len() / 2;
    u32::try_from(*rests.select_nth_unstable(middle).1).ok()
}

fn check(kernel: &Kernel, options: &LoadOptions, tid: u32) -> Result<(), KernelError> {
    let wrong = |field, read: &dyn std::fmt::Display, truth: &dyn std::fmt::Display| {
        Err(KernelError::SelfCheck { field, read: read.to_string(), truth: truth.to_string() })
    };
    let Some(slot) = kernel.slot_of_thread(tid) else {
        return wrong("tid", &"no thread", &tid);
    };
    let seen = kernel.threads.read(slot);
    if seen.state != thread_state::LIVE {
        return wrong("state", &"never switched in", &"asleep and awake many times");
    }
    if seen.tgid != std::process::id() {
        return wrong("tgid", &seen.tgid, &std::process::id());
    }
    let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    let seen_comm = comm::text(&seen.comm).to_string();
    if seen_comm != comm.trim_end_matches('\n') {
        return wrong("comm", &seen_comm, &comm.trim_end());
    }
    let policy = SchedPolicy::from_raw(seen.policy);
    if let Some(own) = sched::policy_of(0).filter(|own| *own != policy) {
        return wrong("policy", &policy.name(), &own.name());
    }
    if let Some(id) = options.own_cgroup.filter(|id| *id != seen.cgroup_id) {
        return wrong("cgroup id", &seen.cgroup_id, &id);
    }
    Ok(())
}

/// Stops watching this thread.
fn forget(kernel: &mut Kernel, tid: u32) -> Result<(), KernelError> {
    let Some(slot) = kernel.slot_of_thread(tid) else { return Ok(()) };
    let failed = |e| KernelError::bpf(format!("forgetting thread {tid}"), e);
    let blank: TaskRec = bytemuck::Zeroable::zeroed();
    kernel.tasks.set(tid & kernel.config.task_mask, Raw(blank), 0).map_err(failed)?;
    let free: ThreadState = bytemuck::Zeroable::zeroed();
    kernel.threads.write(slot, free);
    #[allow(clippy::cast_possible_truncation, reason = "there are at most 2^16 thread slots")]
    kernel.free_threads.push(slot as u32, 0).map_err(failed)
}
