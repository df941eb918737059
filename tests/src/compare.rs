//! A latency by guard against the same latency by a peer that counts in bins of one us: percentiles, maximum, count.

use std::collections::BTreeMap;

use guard::snapshot::{Latency, Snapshot};
use serde::Serialize;

/// How far two figures may be apart: the larger of a number and a fraction of the peer's figure.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Always allowed, ns (or counts).
    pub absolute: u64,
    /// Allowed fraction of the peer's figure.
    pub fraction: f64,
}

impl Tolerance {
    /// For a count of wake-ups that `snapshot` should have seen all of: one at each end of the window, one in a thousand,
    /// and what guard itself says that the kernel did not show it. Losing silently is what must not happen.
    #[must_use]
    pub fn of_count(snapshot: &Snapshot) -> Self {
        Self { absolute: 2 + snapshot.overhead.lost.missed_events, fraction: 0.001 }
    }

    /// What is allowed around `figure`.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "latencies in ns and counts stay far below 2^53"
    )]
    pub fn around(self, figure: u64) -> u64 {
        self.absolute.max((figure as f64 * self.fraction) as u64)
    }
}

/// One compared figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// count, p50, p90, p99 or max.
    pub figure: String,
    /// By the peer; ns except for a count.
    pub peer: u64,
    /// By guard.
    pub guard: u64,
    /// By the peer if the latencies that guard was not shown were its largest.
    pub peer_at_least: u64,
    /// By the peer if they were its smallest.
    pub peer_at_most: u64,
    /// Largest difference allowed.
    pub allowed: u64,
    /// Whether they agree.
    pub agrees: bool,
}

impl Row {
    /// Compares one figure.
    #[must_use]
    pub fn new(figure: &str, peer: u64, guard: u64, tolerance: Tolerance) -> Self {
        Self::between(figure, [peer; 3], guard, tolerance)
    }

    /// Compares a figure of which the peer, had it missed what guard was not shown, would have said something between
    /// the first and the last of `peer`; in the middle stands what it did say.
    #[must_use]
    pub fn between(figure: &str, peer: [u64; 3], guard: u64, tolerance: Tolerance) -> Self {
        let [peer_at_least, peer, peer_at_most] = peer;
        let allowed = tolerance.around(peer);
        let agrees = guard.saturating_add(allowed) >= peer_at_least && guard <= peer_at_most.saturating_add(allowed);
        Self { figure: figure.to_owned(), peer, guard, peer_at_least, peer_at_most, allowed, agrees }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.agrees { "agrees" } else { "DIFFERS" };
        write!(f, "{}: peer {}", self.figure, self.peer)?;
        if self.peer_at_least != self.peer_at_most {
            write!(f, " ({} to {} without what guard was not shown)", self.peer_at_least, self.peer_at_most)?;
        }
        write!(f, ", guard {}, allowed ±{}: {verdict}", self.guard, self.allowed)
    }
}

/// Tolerances of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    /// For the number of latencies.
    pub count: Tolerance,
    /// For p50, p90 and p99.
    pub percentile: Tolerance,
    /// For the maximum.
    pub max: Tolerance,
}

impl Tolerances {
    /// What guard promises for a thread that times itself on real hardware.
    #[must_use]
    pub fn agreement(snapshot: &Snapshot) -> Self {
        Self {
            count: Tolerance::of_count(snapshot),
            percentile: Tolerance { absolute: 2_000, fraction: 0.05 },
            max: Tolerance { absolute: 5_000, fraction: 0.05 },
        }
    }
}

impl Tolerances {
    /// What must hold on any machine, however busy, and in any build: that both speak of the same thing. How close they
    /// come is for the bench to say.
    #[must_use]
    pub fn same_thing(snapshot: &Snapshot) -> Self {
        Self {
            count: Tolerance::of_count(snapshot),
            percentile: Tolerance { absolute: 20_000, fraction: 0.25 },
            max: Tolerance { absolute: 50_000, fraction: 0.25 },
        }
    }
}

/// The latency that a fraction `quantile` of a histogram in bins of one us (us, rounded down → count) does not exceed:
/// the upper edge of its bin in ns, as guard gives the upper edge of its bucket. 0 when empty.
#[must_use]
pub fn quantile_ns(histogram: &BTreeMap<u64, u64>, quantile: f64) -> u64 {
    quantile_without(histogram, quantile, 0, 0)
}

/// The same, without the `smallest` and the `largest` so many latencies.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts stay far below 2^53 and the quantile is a fraction"
)]
fn quantile_without(histogram: &BTreeMap<u64, u64>, quantile: f64, smallest: u64, largest: u64) -> u64 {
    let count = histogram.values().sum::<u64>().saturating_sub(smallest + largest);
    let wanted = smallest + ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
    let mut seen = 0;
    for (us, n) in histogram {
        seen += n;
        if seen >= wanted {
            return upper_ns(*us);
        }
    }
    0
}

fn upper_ns(us: u64) -> u64 {
    us * 1000 + 999
}

/// Compares a peer's histogram (us → count) with guard's latency. A kernel that shows guard less than there was (which
/// the count tells, and is held against it there) may have hidden the largest as well as the smallest.
#[must_use]
pub fn compare(peer: &BTreeMap<u64, u64>, guard: &Latency, tolerances: &Tolerances) -> Vec<Row> {
    let count: u64 = peer.values().sum();
    let hidden = count.saturating_sub(guard.count());
    let row = |figure, quantile, guard, tolerance| {
        let [low, all, high] =
            [(0, hidden), (0, 0), (hidden, 0)].map(|(small, large)| quantile_without(peer, quantile, small, large));
        Row::between(figure, [low, all, high], guard, tolerance)
    };
    let mut rows = vec![Row::new("count", count, guard.count(), tolerances.count)];
    for (figure, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        rows.push(row(figure, quantile, guard.quantile_ns(quantile), tolerances.percentile));
    }
    rows.push(row("max", 1.0, guard.max_ns(), tolerances.max));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_upper_edge_of_the_bin_that_reaches_it() {
        let histogram = BTreeMap::from([(5, 50), (6, 49), (90, 1)]);
        assert_eq!(quantile_ns(&histogram, 0.5), 5_999);
        assert_eq!(quantile_ns(&histogram, 0.51), 6_999);
        assert_eq!(quantile_ns(&histogram, 0.99), 6_999);
        assert_eq!(quantile_ns(&histogram, 1.0), 90_999);
        assert_eq!(quantile_ns(&BTreeMap::new(), 0.5), 0);
    }

    #[test]
    fn the_same_latencies_agree_and_shifted_ones_do_not() {
        let of = |shift_ns: u64| {
            let (mut bins, mut latency) = (BTreeMap::new(), Latency::default());
            for ns in (0..1000).map(|i| 5_000 + i * 20) {
                *bins.entry(ns / 1000).or_insert(0) += 1;
                latency.record(ns + shift_ns);
            }
            let tolerances = Tolerances {
                count: Tolerance { absolute: 0, fraction: 0.001 },
                percentile: Tolerance { absolute: 2_000, fraction: 0.05 },
                max: Tolerance { absolute: 5_000, fraction: 0.05 },
            };
            compare(&bins, &latency, &tolerances)
        };
        assert!(of(0).iter().all(|row| row.agrees), "{:?}", of(0));
        assert!(of(1_000).iter().all(|row| row.agrees), "{:?}", of(1_000));
        let far = of(4_000);
        assert!(far.iter().any(|row| row.figure == "p50" && !row.agrees), "{far:?}");
    }

    #[test]
    fn what_guard_was_not_shown_is_held_against_the_count_alone() {
        let peer = BTreeMap::from([(5, 90), (40, 8), (900, 2)]);
        let figures = |shown: &[(u64, u64)]| {
            let mut latency = Latency::default();
            shown.iter().for_each(|(us, n)| (0..*n).for_each(|_| latency.record(us * 1000 + 500)));
            let none = Tolerance { absolute: 1_000, fraction: 0.0 };
            let strict = Tolerances { count: Tolerance { absolute: 0, fraction: 0.0 }, percentile: none, max: none };
            let rows = compare(&peer, &latency, &strict);
            rows.into_iter().filter(|row| !row.agrees).map(|row| row.figure).collect::<Vec<_>>()
        };
        assert_eq!(figures(&[(5, 90), (40, 8), (900, 2)]), Vec::<String>::new());
        assert_eq!(figures(&[(5, 90), (40, 8)]), ["count"], "the two largest were hidden");
        assert_eq!(figures(&[(5, 88), (40, 8), (900, 2)]), ["count"], "two of the smallest were");
        assert_eq!(figures(&[(5, 92), (40, 8)]), ["p99", "max"], "nothing was hidden, and the largest are wrong");
        assert_eq!(figures(&[(5, 90), (40, 7)]), ["count"]);
        assert_eq!(figures(&[(5, 95), (20, 3)]), ["count", "p99", "max"], "two hidden ones do not excuse eight");
    }
}
