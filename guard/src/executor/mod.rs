//! The only writer: journal, write, read back, with pacing, drift and restore. It brings knobs to the values that somebody
//! wants, in an order that the kernel takes, and puts everything back. It knows no class, no container and no policy.

mod apply;
mod around;
mod journal;
mod outcome;
mod pace;
mod place;
mod report;
mod restore;
mod store;
mod systemd;
#[cfg(test)]
mod tests;
mod trouble;
mod write;

pub use apply::{Executor, ExecutorOptions};
pub use outcome::{Change, Outcome, Restored, RestoredProperty, What, WriteResult};
pub use pace::Pace;
pub use report::{Report, RestoreError};
pub use restore::restore;
pub use store::{DEFAULT_STATE_DIR, StateError};
pub use systemd::{Units, UnitsOptions, adopt_units, restore_units};
