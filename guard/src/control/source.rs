//! What the loop needs of whoever observes the node: the observer, or a test's stand-in for it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::ControlError;
use super::lane::Key;
use super::observe::Observer;
use super::run_loop::SAMPLE_EVERY;
use super::selection::Keep;
use crate::config::Config;
use crate::kernel::Event;
use crate::snapshot::{Cgroup, Snapshot};

/// Observes a node.
pub(super) trait Source {
    /// Takes what was counted into the current window.
    fn sample(&mut self) -> Result<(), ControlError>;
    /// Longest time between two samples.
    fn sample_every(&self) -> Duration {
        SAMPLE_EVERY
    }
    /// Ends the window. The Snapshot is of the whole node where policies need it; the other value says what to show. It
    /// takes a while, so events that need no more than what is known already are handed to `react` meanwhile.
    fn snapshot(&mut self, react: &mut dyn FnMut(&[Event])) -> Result<(Snapshot, Keep), ControlError>;
    /// Waits for what cannot wait for the end of the window.
    async fn events(&mut self) -> Result<Vec<Event>, ControlError>;
    /// Chooses the cgroups of which throttles are such events.
    fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError>;
    /// Chooses further ones.
    fn protect_also(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError>;
    /// Chooses the cgroups of which late fair tasks are such events, and from when on they are late, ns.
    fn judge(&mut self, budgets: &HashMap<u64, u64>) -> Result<(), ControlError>;
    /// Gets to know cgroups that turned out to have real-time threads. Returns those that are PLC, together with what may
    /// hold them back, as they are now.
    fn meet(&mut self, ids: &HashSet<u64>) -> Vec<Cgroup>;
    /// Says what is held, and which cgroups were written to.
    fn acted(&mut self, held: HashSet<Key>, touched: HashSet<u64>);
    /// Takes another configuration, or leaves everything as it is and says why.
    fn reconfigure(&mut self, config: &Config) -> Result<(), ControlError>;
    /// Whether there is nothing left of what the user named.
    fn all_named_ended(&self) -> bool;
}

impl Source for Observer {
    fn sample(&mut self) -> Result<(), ControlError> {
        Observer::sample(self)
    }

    fn sample_every(&self) -> Duration {
        Observer::sample_every(self)
    }

    fn snapshot(&mut self, react: &mut dyn FnMut(&[Event])) -> Result<(Snapshot, Keep), ControlError> {
        self.whole_snapshot(react)
    }

    async fn events(&mut self) -> Result<Vec<Event>, ControlError> {
        Observer::events(self).await
    }

    fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Observer::protect(self, ids)
    }

    fn protect_also(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Observer::protect_also(self, ids)
    }

    fn judge(&mut self, budgets: &HashMap<u64, u64>) -> Result<(), ControlError> {
        Observer::judge(self, budgets)
    }

    fn meet(&mut self, ids: &HashSet<u64>) -> Vec<Cgroup> {
        Observer::meet(self, ids)
    }

    fn acted(&mut self, held: HashSet<Key>, touched: HashSet<u64>) {
        Observer::acted(self, held, touched);
    }

    fn reconfigure(&mut self, config: &Config) -> Result<(), ControlError> {
        Observer::reconfigure(self, config)
    }

    fn all_named_ended(&self) -> bool {
        Observer::all_named_ended(self)
    }
}
