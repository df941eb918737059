//! Logs how long each phase of the start takes; `cargo xtask bench start` reads it.

use std::time::Instant;

/// The phase under way.
pub(crate) struct Phases(Instant);

impl Phases {
    /// The first begins.
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// `what` is done, and the next phase begins.
    pub(crate) fn end(&mut self, what: &str) {
        let took_us = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(took_us, "start: {what}");
        self.0 = Instant::now();
    }
}
