//! Why a wake-up was late: from what was known at the switch-in to one primary cause, the shares of the time lost, who
//! did it, a sentence and a remedy. Pure: a recorded Snapshot can be explained again.

mod cause;
mod finding;
mod share;

pub use cause::Cause;
pub use finding::{Finding, findings};
pub use share::explain;
