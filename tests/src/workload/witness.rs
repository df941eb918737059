//! When the kernel lets a thread back into its own code, seen by a program of a few instructions on the tracepoint
//! `rseq_update`. What lies between that and the thread's own clock reading is nobody's but an interrupt's there, or the host's
//! of a virtual machine: a thread that looks at its clock only cannot tell it from having come late.

use std::{
    os::fd::OwnedFd,
    sync::atomic::Ordering::{Relaxed, Release},
};

use anyhow::{Context as _, Result};

use super::Outcome;
use crate::sys::bpf::{
    self, EXIT, KTIME_GET_NS, Kind, R0, R1, R2, SharedMap, call, instruction, offset, set, value_of,
};

/// The program, attached.
pub(super) struct Witness {
    shared: SharedMap,
    _place: OwnedFd,
    _program: OwnedFd,
}

/// Words that are shared: the instant from which on a return is wanted, and the first return since, 0 before.
const WANTED: usize = 0;
const RETURNED: usize = 1;

impl Witness {
    /// Of this thread.
    pub(super) fn prepare() -> Result<Self> {
        let shared = SharedMap::new().context("bpf(BPF_MAP_CREATE)")?;
        let program = program(super::tid().cast_signed(), &shared);
        let program = bpf::load(Kind::RawTracepoint, &program).context("bpf(BPF_PROG_LOAD)")?;
        let place = bpf::on_tracepoint(c"rseq_update", &program).context("attach to rseq_update")?;
        Ok(Self { shared, _place: place, _program: program })
    }

    /// Wants the first return from this instant on, ns.
    pub(super) fn want(&self, from_ns: u64) {
        // In this order, so that a return in between is not taken for the one that is wanted.
        self.shared.word(WANTED).store(from_ns, Relaxed);
        self.shared.word(RETURNED).store(0, Release);
    }

    /// That return; none when this thread has not been away from its CPU.
    pub(super) fn returned_ns(&self) -> Option<u64> {
        Some(self.shared.word(RETURNED).load(Relaxed)).filter(|ns| *ns > 0)
    }
}

/// A register that outlives calls.
const SHARED: u64 = 6;
/// Functions of the kernel, by their numbers.
const GET_CURRENT_PID_TGID: i32 = 14;

fn program(tid: i32, shared: &SharedMap) -> Vec<u64> {
    let mut all = value_of(SHARED, shared.map()).to_vec();
    all.extend([
        // If the lower half, the thread's id, is another's, to the end.
        call(GET_CURRENT_PID_TGID),
        instruction(0x56, R0, 0, 6, tid),
        // r0 = now; if it is earlier than wanted, or there was a return before, to the end.
        call(KTIME_GET_NS),
        instruction(0x79, R1, SHARED, offset(WANTED), 0),
        instruction(0xad, R0, R1, 3, 0),
        instruction(0x79, R2, SHARED, offset(RETURNED), 0),
        instruction(0x55, R2, 0, 1, 0),
        instruction(0x7b, SHARED, R0, offset(RETURNED), 0),
        set(R0, 0),
        EXIT,
    ]);
    all
}

/// A cycle as its thread and the witness saw it, ns after the requested expiry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The thread's clock reading.
    pub(super) own_ns: u64,
    /// The return to its own code, if it was away.
    pub(super) returned_ns: Option<u64>,
}

/// Adds to `outcome` how much of its largest latencies came before the return: `returned_max_ns`; from there to the clock
/// reading at the median, `rest_ns`, and at most, `rest_max_ns`; and the largest latency of cycles in which the thread was not
/// away, `unseen_max_ns`.
pub(super) fn add_to(outcome: Outcome, seen: &[Seen]) -> Outcome {
    let mut rests_ns: Vec<u64> =
        seen.iter().filter_map(|one| Some(one.own_ns.saturating_sub(one.returned_ns?))).collect();
    rests_ns.sort_unstable();
    let unseen = seen.iter().filter(|one| one.returned_ns.is_none());
    outcome
        .with("returned_max_ns", seen.iter().filter_map(|one| one.returned_ns).max().unwrap_or(0))
        .with("rest_ns", rests_ns.get(rests_ns.len() / 2).copied().unwrap_or(0))
        .with("rest_max_ns", rests_ns.last().copied().unwrap_or(0))
        .with("unseen_max_ns", unseen.map(|one| one.own_ns).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_the_return_is_told_apart() {
        let seen = |own_ns, returned_ns| Seen { own_ns, returned_ns };
        let all = [seen(12, Some(10)), seen(291, Some(209)), seen(53, Some(50)), seen(33, None)];
        let outcome = add_to(Outcome::default(), &all);
        let figures = ["returned_max_ns", "rest_ns", "rest_max_ns", "unseen_max_ns"].map(|name| outcome.counters[name]);
        assert_eq!(figures, [209, 3, 82, 33]);
    }
}
