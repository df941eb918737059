//! What a profile is given, and what it says.

use super::targets::Why;

/// What a profile says.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// Best-effort work may use this much, in thousandths of a CPU; `None` for all. Not yet bounded.
    Allow { milli: Option<u64>, why: Why },
    /// What it may use already.
    Stay,
    /// Nothing can be said, for this reason: what holds stays.
    Keep(String),
}

/// How best-effort work stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// CPU that it uses, in thousandths, where it was read.
    pub used: Option<u64>,
    /// The least that it is left.
    pub floor: u64,
    /// What it may use now; `None` for all.
    pub budget: Option<u64>,
}

impl Load {
    /// What it takes part of the node with: its allowance, or what it uses where that is less.
    pub(super) fn level(&self, capacity: u64) -> u64 {
        let budget = self.budget.unwrap_or(capacity).min(capacity);
        // Next to no use says nothing of what it did when the wake-up was late.
        self.used.filter(|used| *used > self.floor).map_or(budget, |used| used.min(budget))
    }
}
