//! Between whoever writes files and the agent: what is wanted of systemd, what it was sent, and the result of restoring it.
//! Posting never waits for the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    executor::outcome::RestoredProperty,
    knob::{Knob, Setting},
};

/// What guard holds of a unit's own cgroup: the cgroup's id, and the value.
pub(super) type Wanted = BTreeMap<Knob, (u64, Setting)>;

/// What is posted and what came of it.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) mailbox: Mutex<Mailbox>,
    pub(super) posted: Notify,
    pub(super) reported: Condvar,
}

#[derive(Default)]
pub(super) struct Mailbox {
    /// By the path of the unit's cgroup.
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// Paths of which something else is wanted now.
    pub(super) changed: BTreeSet<String>,
    /// What systemd may know of guard's.
    pub(super) sent: BTreeMap<(String, Knob), Vec<Setting>>,
    pub(super) end: Option<Instant>,
    pub(super) is_alone: bool,
    pub(super) report: Option<Vec<RestoredProperty>>,
}

/// What the agent finds in the mailbox.
pub(super) struct Post {
    pub(super) changed: BTreeSet<String>,
    pub(super) end: Option<Instant>,
    pub(super) is_alone: bool,
}

impl Shared {
    pub(super) fn open(&self) -> MutexGuard<'_, Mailbox> {
        // Nothing is left half done under the lock.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Post {
        let mut mailbox = self.open();
        let changed = std::mem::take(&mut mailbox.changed);
        Post { changed, end: mailbox.end, is_alone: mailbox.is_alone }
    }

    pub(super) fn has_post(&self) -> bool {
        let mailbox = self.open();
        !mailbox.changed.is_empty() || mailbox.end.is_some()
    }

    pub(super) fn wanted(&self, path: &str) -> Wanted {
        self.open().wanted.get(path).cloned().unwrap_or_default()
    }

    /// systemd is about to be sent this.
    pub(super) fn sending(&self, path: &str, wanted: &Wanted) {
        let mut mailbox = self.open();
        for (knob, (_, setting)) in wanted {
            let sent = mailbox.sent.entry((path.to_owned(), *knob)).or_default();
            if !sent.contains(setting) {
                sent.push(setting.clone());
            }
        }
    }

    /// systemd knows this, and nothing else of guard's.
    pub(super) fn sent(&self, path: &str, wanted: Wanted) {
        let mut mailbox = self.open();
        mailbox.sent.retain(|(of, _), _| of != path);
        let sent = wanted.into_iter().map(|(knob, (_, setting))| ((path.to_owned(), knob), vec![setting]));
        mailbox.sent.extend(sent);
    }

    pub(super) fn report(&self, put_back: Vec<RestoredProperty>) {
        self.open().report = Some(put_back);
        self.reported.notify_all();
    }
}
