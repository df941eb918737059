//! What the loop needs of whoever observes the node: the observer, or a test's stand-in for it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::error::ControlError;
use super::lane::CgroupKnob;
use super::selection::Keep;
use crate::config::Config;
use crate::kernel::Event;
use crate::snapshot::{Cgroup, Snapshot};

/// Longest time between two samples. Windows may be longer; see [`super::accumulate`].
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

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
    /// Sets the cgroups whose throttles raise an event.
    fn report_throttles_of(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError>;
    /// Adds cgroups to those.
    fn report_throttles_also_of(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError>;
    /// Sets, per cgroup, the wait in ns from which a late fair task raises an event.
    fn set_fair_budgets(&mut self, budgets: &HashMap<u64, u64>) -> Result<(), ControlError>;
    /// Marks cgroups that turned out to have real-time threads. Returns those that are PLC and everything that may hold them
    /// back (what contains them, what is below them, the rest of their containers), as they are now.
    fn discover(&mut self, ids: &HashSet<u64>) -> Vec<Cgroup>;
    /// Takes in which knobs guard holds, and which cgroups it has written to since the last Snapshot.
    fn acted(&mut self, held: HashSet<CgroupKnob>, touched: HashSet<u64>);
    /// Takes another configuration, or leaves everything as it is and says why.
    fn reconfigure(&mut self, config: &Config) -> Result<(), ControlError>;
    /// Whether there is nothing left of what the user named.
    fn all_named_ended(&self) -> bool;
}
