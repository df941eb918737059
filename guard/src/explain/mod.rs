//! Why a wake-up was late: from what was known at the switch-in, and from the flight recorder where it runs, to one
//! primary cause, the shares of the time lost, the culprit, a sentence and a remedy. Pure: a recorded Snapshot can be
//! explained again.

mod account;
mod coupling;
mod finding;
mod interrupt;
pub mod inversion;
mod remedy;
mod sentence;
mod share;
mod task;
#[cfg(test)]
pub(crate) mod testing;
mod timeline;

pub use account::{Account, CauseShare, Link, account};
pub use coupling::{CoupledPair, Coupling, Couplings};
pub use finding::{Explanation, LateFinding, findings};
pub use interrupt::Interrupts;
pub(crate) use interrupt::softirq_name;
pub use share::explain;
pub use task::Who;
pub use timeline::Timeline;

/// What happened around a late wake-up; instants are CLOCK_MONOTONIC in ns.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Who was late.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Since when its lateness counts.
    pub from_ns: u64,
    /// When it was on its CPU.
    pub to_ns: u64,
    /// What all CPUs did meanwhile, and a little before and after, in order of time.
    pub entries: Vec<guard_common::flight::Entry>,
    /// Names of the interrupts among it.
    pub interrupts: Interrupts,
}
