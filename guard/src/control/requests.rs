//! What Kubernetes asked for, in thousandths of a CPU, by what it wrote: shares on v1, a weight on v2. Pure.
//!
//! Two formulas make weights of shares, and one node may have both: the kubelet writes those of pods (linearly, up to 1.36
//! at least), the OCI runtime those of containers (by its version). So the formula is found for each level, by what agrees
//! with the other values of the same pods: a weight with the limit of a guaranteed pod, which is its request, and the
//! weights of containers with their pod's.

use std::ops::RangeInclusive;

use crate::knob::WeightFormula;

/// Shares of whoever asked for nothing.
const NO_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;
/// systemd rounds a quota up to so many thousandths of a CPU.
const ROUNDED_MILLI: u64 = 10;

/// A pod as it was written to v2.
#[derive(Clone, Debug, Default)]
pub(super) struct Pod {
    pub(super) weight: u64,
    /// What it may use, where that is also what it asked for.
    pub(super) guaranteed_milli: Option<u64>,
    /// Weights of its containers.
    pub(super) containers: Vec<u64>,
}

/// The formula of each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Formulas {
    pub(super) pods: WeightFormula,
    pub(super) containers: WeightFormula,
}

impl Default for Formulas {
    /// What to assume of a node where nothing shows it.
    fn default() -> Self {
        Self { pods: WeightFormula::Linear, containers: WeightFormula::Quadratic }
    }
}

impl Formulas {
    /// Learns from these pods; where they show nothing, or contradict each other, what was known stays.
    pub(super) fn learn(self, pods: &[Pod]) -> Self {
        let of_pods = pods.iter().filter_map(|pod| {
            let limit = guaranteed(pod)?;
            only(|formula| overlap(&milli(formula, pod.weight), &limit))
        });
        let pods_formula = majority(of_pods).unwrap_or(self.pods);
        let of_containers = pods.iter().filter_map(|pod| {
            let whole = guaranteed(pod).unwrap_or_else(|| milli(pods_formula, pod.weight));
            only(|formula| {
                let parts = pod.containers.iter().map(|weight| milli(formula, *weight));
                let sum = parts.fold((0, 0), |(least, most), part| (least + part.start(), most + part.end()));
                overlap(&(sum.0..=sum.1), &whole)
            })
        });
        Self { pods: pods_formula, containers: majority(of_containers).unwrap_or(self.containers) }
    }
}

/// The request that became this weight: of those that may have, the roundest. `None` for the least weight.
pub(super) fn request_milli(formula: WeightFormula, weight: u64) -> Option<u64> {
    let may = milli(formula, weight);
    let roundest = [1000, 500, 250, 100, 50, 25, 10, 5, 2, 1].map(|step| may.end() / step * step);
    roundest.into_iter().find(|request| *request > 0 && may.contains(request)).filter(|_| *may.start() > 0)
}

/// The request that v1 has exactly: 1024 shares per CPU.
pub(super) fn exact_milli(shares: u64) -> Option<u64> {
    (shares > NO_SHARES).then(|| shares * 1_000 / 1_024)
}

/// Requests that become this weight.
fn milli(formula: WeightFormula, weight: u64) -> RangeInclusive<u64> {
    let first = |wanted: u64| {
        let (mut low, mut high) = (NO_SHARES, MOST_SHARES + 1);
        while low < high {
            let middle = low.midpoint(high);
            if formula.weight(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        low
    };
    let (least, beyond) = (first(weight), first(weight + 1));
    // kubelet cuts milli * 1024 / 1000 to a whole number, and writes 2 for none.
    let from = if least <= NO_SHARES { 0 } else { (least * 1_000).div_ceil(1_024) };
    from..=(beyond * 1_000 - 1) / 1_024
}

fn guaranteed(pod: &Pod) -> Option<RangeInclusive<u64>> {
    pod.guaranteed_milli.map(|milli| (milli + 1).saturating_sub(ROUNDED_MILLI)..=milli)
}

fn overlap(a: &RangeInclusive<u64>, b: &RangeInclusive<u64>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

/// The formula that agrees, if only one does.
fn only(agrees: impl Fn(WeightFormula) -> bool) -> Option<WeightFormula> {
    match (agrees(WeightFormula::Linear), agrees(WeightFormula::Quadratic)) {
        (true, false) => Some(WeightFormula::Linear),
        (false, true) => Some(WeightFormula::Quadratic),
        _ => None,
    }
}

fn majority(votes: impl Iterator<Item = WeightFormula>) -> Option<WeightFormula> {
    let (mut linear, mut quadratic) = (0, 0);
    for vote in votes {
        *(if vote == WeightFormula::Linear { &mut linear } else { &mut quadratic }) += 1;
    }
    match linear.cmp(&quadratic) {
        std::cmp::Ordering::Greater => Some(WeightFormula::Linear),
        std::cmp::Ordering::Less => Some(WeightFormula::Quadratic),
        std::cmp::Ordering::Equal => None,
    }
}

#[cfg(test)]
mod tests {
    use WeightFormula::{Linear, Quadratic};

    use super::*;

    fn pod(weight: u64, guaranteed_milli: Option<u64>, containers: &[u64]) -> Pod {
        Pod { weight, guaranteed_milli, containers: containers.into() }
    }

    #[test]
    fn the_formulas_are_those_of_recorded_nodes() {
        // kubelet 1.36.2 with runc 1.1.15, and with crun 1.28 with and without quotas.
        let runc = [
            pod(39, Some(1000), &[39, 1]),
            pod(43, Some(1100), &[1, 4, 39]),
            pod(10, Some(250), &[1, 10]),
            pod(6, None, &[4, 2, 1, 1]),
            pod(1, None, &[1, 1, 1]),
            // Its container is not set up yet.
            pod(3, Some(60), &[100, 1]),
        ];
        let crun = [pod(39, None, &[1, 100]), pod(43, None, &[100, 17, 1]), pod(4, None, &[17, 1])];
        let small = [pod(3, Some(60), &[1, 12])];
        let learn = |pods: &[Pod]| Formulas::default().learn(pods);
        assert_eq!(learn(&runc), Formulas { pods: Linear, containers: Linear });
        assert_eq!(learn(&crun), Formulas { pods: Linear, containers: Quadratic });
        assert_eq!(learn(&small), Formulas { pods: Linear, containers: Quadratic });
        assert_eq!(learn(&[pod(100, Some(1000), &[100, 1])]), Formulas { pods: Quadratic, containers: Quadratic });
        let known = Formulas { pods: Quadratic, containers: Linear };
        assert_eq!(known.learn(&[pod(1, None, &[1, 1])]), known, "best-effort pods show nothing");
    }

    #[test]
    fn a_request_is_the_roundest_that_becomes_its_weight() {
        for milli in [50, 100, 250, 500, 1000, 1500, 2000, 4000, 16_000] {
            for formula in [Linear, Quadratic] {
                let weight = formula.weight(milli * 1024 / 1000);
                assert_eq!(request_milli(formula, weight), Some(milli), "{formula:?} {weight}");
            }
        }
        for formula in [Linear, Quadratic] {
            assert_eq!(request_milli(formula, 1), None);
            assert!(request_milli(formula, 10_000).is_some());
        }
        assert_eq!((exact_milli(2), exact_milli(256)), (None, Some(250)));
    }
}
