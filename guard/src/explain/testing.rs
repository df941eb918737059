//! Events of the flight recorder for tests, all on CPU 1.

use bytemuck::Zeroable as _;
use guard_common::event::WakeContext;
use guard_common::flight::{Entry, kind};

/// A task by tid and effective kernel priority; plain tids have priority 9.
pub(crate) struct Task(u32, i32);

impl From<u32> for Task {
    fn from(tid: u32) -> Self {
        Self(tid, 9)
    }
}

pub(crate) fn task(tid: u32, prio: i32) -> Task {
    Task(tid, prio)
}

/// `prev` leaves in this state, `next` comes.
pub(crate) fn switch(at_ns: u64, prev: impl Into<Task>, next: impl Into<Task>, state: u32) -> Entry {
    let next = next.into();
    let mut comm = [0; 16];
    let name = format!("t{}", next.0);
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Entry {
        kind: kind::SWITCH,
        cpu: 1,
        at_ns,
        tid: next.0,
        prio: next.1,
        other: prev.into().0,
        arg: state,
        comm,
        ..Entry::zeroed()
    }
}

/// `waker` wakes `tid` in a context: 1 is its own, see [`WakeContext`].
pub(crate) fn waking(at_ns: u64, tid: u32, waker: u32, context: u32) -> Entry {
    assert!(WakeContext::Task as u32 == 1);
    Entry { kind: kind::WAKING, cpu: 1, at_ns, tid, other: waker, arg: context, ..Entry::zeroed() }
}

pub(crate) fn flagged(entry: Entry, flags: u8) -> Entry {
    Entry { flags: entry.flags | flags, ..entry }
}
