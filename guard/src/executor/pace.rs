//! How often something may happen: a bucket of tokens that fills with time. Pure: the caller brings the instant.

use std::time::{Duration, Instant};

/// So many at once, and so many in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// At once.
    pub burst: u32,
    /// Time after which one more is allowed.
    pub every: Duration,
}

/// What is left of a pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    left: u32,
    /// When the last token was added.
    since: Instant,
}

impl Bucket {
    pub(super) fn full(pace: Pace, now: Instant) -> Self {
        Self { left: pace.burst, since: now }
    }

    /// Takes one if there is one.
    pub(super) fn take(&mut self, pace: Pace, now: Instant) -> bool {
        self.fill(pace, now);
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    /// Whether nothing is missing, so that nothing is lost with it.
    pub(super) fn is_full(&mut self, pace: Pace, now: Instant) -> bool {
        self.fill(pace, now);
        self.left >= pace.burst
    }

    fn fill(&mut self, pace: Pace, now: Instant) {
        let every = pace.every.max(Duration::from_nanos(1));
        let added = now.saturating_duration_since(self.since).as_nanos() / every.as_nanos();
        let missing = pace.burst.saturating_sub(self.left);
        if added >= u128::from(missing) {
            (self.left, self.since) = (pace.burst, now);
        } else if let Ok(added) = u32::try_from(added) {
            (self.left, self.since) = (self.left + added, self.since + every * added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_at_a_time() {
        let pace = Pace { burst: 3, every: Duration::from_millis(100) };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::full(pace, start);
        let taken: Vec<bool> = [0, 0, 0, 0, 99, 100, 150, 199, 200, 201].map(|ms| bucket.take(pace, at(ms))).into();
        assert_eq!(taken, [true, true, true, false, false, true, false, false, true, false]);
        assert!(!bucket.is_full(pace, at(499)));
        assert!(bucket.is_full(pace, at(500)));
    }
}
