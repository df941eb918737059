//! The threads of the samples, and those that the user named, by what /proc says of them.

use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::time::{Duration, Instant};

use crate::control::error::ControlError;
use crate::control::known::KnownThread;
use crate::control::selection::Selection;
use crate::inventory::{Inventory, ThreadDetail};
use crate::kernel::sample::ThreadSample;

/// Time after which what /proc says of a thread is read again.
const REREAD_EVERY: Duration = Duration::from_secs(10);
/// Real-time threads that are named when the one that was asked for does not exist.
const THREADS_NAMED: usize = 5;

/// The threads in the samples, by what /proc says of them.
pub(super) struct WatchedThreads {
    known: HashMap<u32, (Instant, KnownThread)>,
}

impl WatchedThreads {
    /// Those that the user named.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub(super) fn named(tids: &[u32], inventory: &Inventory) -> Result<Self, ControlError> {
        let mut known = HashMap::new();
        for tid in tids {
            let Some(detail) = inventory.thread(*tid) else {
                let user = inventory.rt_threads().iter().filter(|thread| !thread.kernel);
                let threads =
                    user.take(THREADS_NAMED).map(|thread| format!("{} {}", thread.comm, thread.tid)).collect();
                return Err(ControlError::NoThread { tid: *tid, threads });
            };
            known.insert(*tid, (Instant::now(), known_thread(detail)));
        }
        Ok(Self { known })
    }

    /// Reads the sampled threads that are new or were read long ago, and marks those that have ended.
    pub(super) fn refresh(&mut self, sampled: &[ThreadSample], selection: &Selection, inventory: &Inventory) {
        let now = Instant::now();
        let mut wanted: HashSet<u32> = selection.tids.iter().copied().collect();
        for thread in sampled {
            match self.known.get_mut(&thread.tid) {
                Some((_, known)) if thread.exited => known.ended = true,
                _ if thread.exited => {}
                _ => {
                    wanted.insert(thread.tid);
                }
            }
        }
        self.known.retain(|tid, _| wanted.contains(tid));
        for tid in wanted {
            let named = selection.tids.contains(&tid);
            match self.known.get_mut(&tid) {
                // A named thread that has ended stays ended, whoever has its tid now.
                Some((_, known)) if known.ended && named => {}
                Some((read_at, known)) if !known.ended && !named && now.duration_since(*read_at) < REREAD_EVERY => {}
                Some((read_at, known)) => match inventory.thread(tid) {
                    Some(detail) if !named || detail.thread.start_ticks == known.info.start_ticks => {
                        (*read_at, *known) = (now, known_thread(detail));
                    }
                    _ => known.ended = true,
                },
                None => {
                    if let Some(detail) = inventory.thread(tid) {
                        self.known.insert(tid, (now, known_thread(detail)));
                    }
                }
            }
        }
    }

    pub(super) fn has_ended(&self, tid: u32) -> bool {
        self.known.get(&tid).is_none_or(|(_, known)| known.ended)
    }

    /// The sampled threads, and those of `others` that are still there.
    pub(super) fn known_with(&self, others: &HashSet<u32>, inventory: &Inventory) -> HashMap<u32, KnownThread> {
        let mut all: HashMap<_, _> = self.known.iter().map(|(tid, (_, known))| (*tid, known.clone())).collect();
        for tid in others.iter().filter(|tid| **tid != 0) {
            if let Entry::Vacant(entry) = all.entry(*tid)
                && let Some(detail) = inventory.thread(*tid)
            {
                entry.insert(known_thread(detail));
            }
        }
        all
    }
}

fn known_thread(detail: ThreadDetail) -> KnownThread {
    KnownThread {
        affinity: Some(detail.affinity.to_string()),
        deadline_period_ns: detail.deadline_period_ns,
        info: detail.thread,
        ended: false,
    }
}
