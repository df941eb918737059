//! Why a wake-up was late: from what was known at the switch-in, and from the flight recorder where it runs, to one
//! primary cause, the shares of the time lost, who did it, a sentence and a remedy. Pure: a recorded Snapshot can be
//! explained again.

mod account;
mod cause;
mod course;
mod finding;
mod sentence;
mod share;

pub use account::{Account, Did, Link, Part, account};
pub use cause::Cause;
pub use course::{Course, Who};
pub use finding::{Finding, findings};
pub use share::explain;
