//! Instants of the kernel side (CLOCK_MONOTONIC) as wall time.

use jiff::Timestamp;

use crate::sched::now_ns;

/// The distance from CLOCK_MONOTONIC to wall time at one moment.
///
/// It is taken anew for every Snapshot, so a step of the wall clock shifts the instants of a whole Snapshot together
/// and never the latencies in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    offset_ns: i128,
}

/// Times that both clocks are read. Whoever is interrupted or loses its CPU between two readings takes that time for distance.
const READINGS: usize = 5;

impl WallClock {
    /// The distance now, by the two readings that were closest to each other.
    pub(super) fn now() -> Self {
        let readings = (0..READINGS).map(|_| {
            let (before_ns, wall_ns, after_ns) = (now_ns(), Timestamp::now().as_nanosecond(), now_ns());
            (after_ns.saturating_sub(before_ns), wall_ns - i128::from(before_ns.midpoint(after_ns)))
        });
        Self { offset_ns: readings.min().map_or(0, |(_, offset_ns)| offset_ns) }
    }

    /// A given distance.
    #[cfg(test)]
    pub(super) fn with_offset_ns(offset_ns: i128) -> Self {
        Self { offset_ns }
    }

    /// A CLOCK_MONOTONIC instant in RFC 3339, to the microsecond.
    pub(super) fn rfc3339(self, monotonic_ns: u64) -> String {
        let ns = i128::from(monotonic_ns) + self.offset_ns;
        // An instant outside of jiff's years cannot come from a clock; the epoch then says "no time" in a valid form.
        let at = Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{at:.6}")
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_monotonic_instant_becomes_an_rfc_3339_instant() {
        let clock = WallClock::with_offset_ns(1_700_000_000_000_000_000);
        assert_eq!(clock.rfc3339(1_234_567_890), "2023-11-14T22:13:21.234567Z");
        assert_eq!(clock.rfc3339(0), "2023-11-14T22:13:20.000000Z");
    }

    #[test]
    fn now_is_now() {
        let before = Timestamp::now();
        let shown: Timestamp = WallClock::now().rfc3339(now_ns()).parse().unwrap();
        let took = Timestamp::now().duration_since(before);
        // Between the two clocks of which it is made as much time may have passed, and instants are cut to whole us.
        let apart = shown.duration_since(before).abs();
        assert!(apart <= took * 2 + SignedDuration::from_micros(1), "{apart} in {took}");
    }

    #[test]
    fn no_instant_panics() {
        assert_eq!(
            WallClock::with_offset_ns(i128::from(i64::MAX) * 1_000).rfc3339(u64::MAX),
            "1970-01-01T00:00:00.000000Z"
        );
    }
}
