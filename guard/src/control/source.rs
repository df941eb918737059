//! What the loop needs of whoever observes the node: the observer, or a test's stand-in for it.

use std::collections::HashSet;
use std::time::Duration;

use super::ControlError;
use super::lane::Key;
use super::observe::Observer;
use super::run_loop::SAMPLE_EVERY;
use super::selection::Keep;
use crate::config::Config;
use crate::kernel::Event;
use crate::snapshot::Snapshot;

/// Observes a node.
pub(super) trait Source {
    /// Takes what was counted into the current window.
    fn sample(&mut self) -> Result<(), ControlError>;
    /// Longest time between two samples.
    fn sample_every(&self) -> Duration {
        SAMPLE_EVERY
    }
    /// Ends the window. The Snapshot is of the whole node where policies need it; the other value says what to show.
    fn snapshot(&mut self) -> Result<(Snapshot, Keep), ControlError>;
    /// Waits for what cannot wait for the end of the window.
    async fn events(&mut self) -> Result<Vec<Event>, ControlError>;
    /// Chooses the cgroups of which throttles are such events.
    fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError>;
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

    fn snapshot(&mut self) -> Result<(Snapshot, Keep), ControlError> {
        self.whole_snapshot()
    }

    async fn events(&mut self) -> Result<Vec<Event>, ControlError> {
        Observer::events(self).await
    }

    fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Observer::protect(self, ids)
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
