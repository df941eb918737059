//! What the lanes need of whoever writes: the executor, or a test's stand-in for it.

use crate::executor::{Change, Executor, Outcome};
use crate::knob::{Knob, Setting};

/// Writes knobs, and can take every write back.
pub(super) trait Writer: Send + 'static {
    /// Records the present values of knobs, so that the first write to them need not wait for the disk.
    fn prepare(&mut self, knobs: &[(String, u64, Knob)]);
    /// Makes changes, in an order in which the kernel takes them.
    fn apply(&mut self, changes: &[Change]) -> Vec<Outcome>;
    /// Looks whether somebody else has changed what is held.
    fn check_drift(&mut self) -> Vec<Outcome>;
    /// Puts everything back.
    fn restore_all(&mut self) -> Vec<Outcome>;
    /// What is held now: path and id of the cgroup, and the value.
    fn held(&self) -> Vec<(String, u64, Setting)>;
}

impl Writer for Executor {
    fn prepare(&mut self, knobs: &[(String, u64, Knob)]) {
        if let Err(error) = Executor::prepare(self, knobs) {
            // Nothing is lost: the write itself will try again, and say so.
            tracing::warn!("cannot write the undo journal: {error}");
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<Outcome> {
        Executor::apply(self, changes)
    }

    fn check_drift(&mut self) -> Vec<Outcome> {
        Executor::check_drift(self)
    }

    fn restore_all(&mut self) -> Vec<Outcome> {
        Executor::restore_all(self)
    }

    fn held(&self) -> Vec<(String, u64, Setting)> {
        Executor::held(self).map(|(path, id, _, setting)| (path.to_owned(), id, setting.clone())).collect()
    }
}
