//! Between v1's cpu.shares (2..262144, 1024 by default) and v2's cpu.weight (1..10000, 100 by default). Two formulas are
//! in use, and on one node both may be: kubelet's copy, koordlet and runtimes up to 2025 map the ranges linearly, newer
//! runtimes (opencontainers/cgroups 0.0.3, crun 1.23) map the defaults onto each other. Pure.

use serde::{Deserialize, Serialize};

/// Range of cpu.shares.
pub(super) const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// Range of cpu.weight.
pub(super) const WEIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;

/// How shares become a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormula {
    /// weight = 1 + (shares - 2) * 9999 / 262142: 1024 shares are 39, half of what a cgroup gets without asking.
    Linear,
    /// weight = ceil(10^((l^2 + 125 l) / 612 - 7/34)) with l = log2(shares): 1024 shares are 100.
    #[default]
    Quadratic,
}

impl WeightFormula {
    /// The weight for shares, which are first brought into their range.
    #[must_use]
    pub fn weight(self, shares: u64) -> u64 {
        let shares = shares.clamp(*SHARES.start(), *SHARES.end());
        match self {
            Self::Linear => 1 + (shares - 2) * 9_999 / 262_142,
            // The ends are exact in the formula, but not in floating point.
            Self::Quadratic if shares == *SHARES.start() => *WEIGHT.start(),
            Self::Quadratic if shares == *SHARES.end() => *WEIGHT.end(),
            Self::Quadratic => {
                let l = as_f64(shares).log2();
                let exact = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
                // 1024 shares give 100 and not a trifle more.
                as_u64((exact - 1e-9).ceil()).clamp(*WEIGHT.start(), *WEIGHT.end())
            }
        }
    }

    /// Shares that this formula maps onto the weight: the most for [`Self::Quadratic`], kubelet's own inverse for
    /// [`Self::Linear`].
    #[must_use]
    pub fn shares(self, weight: u64) -> u64 {
        let weight = weight.clamp(*WEIGHT.start(), *WEIGHT.end());
        match self {
            Self::Linear => 2 + (weight - 1) * 262_142 / 9_999,
            Self::Quadratic => {
                // l^2 + 125 l - 612 (log10(weight) + 7/34) = 0
                let c = 612.0 * (as_f64(weight).log10() + 7.0 / 34.0);
                let l = (-125.0 + (125.0 * 125.0 + 4.0 * c).sqrt()) / 2.0;
                as_u64((l.exp2() + 1e-6).floor()).clamp(*SHARES.start(), *SHARES.end())
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "shares and weights are below 2^18")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below 2^19")]
fn as_u64(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::WeightFormula::{Linear, Quadratic};
    use super::*;

    #[test]
    fn both_formulas_give_what_their_users_publish() {
        // Shares, weight by kubelet and older runtimes, weight by opencontainers/cgroups since 0.0.3.
        for (shares, linear, quadratic) in [
            (0, 1, 1),
            (2, 1, 1),
            (3, 1, 2),
            (10, 1, 4),
            (51, 2, 11),
            (102, 4, 17),
            (256, 10, 35),
            (512, 20, 59),
            (1023, 39, 100),
            (1024, 39, 100),
            (2048, 79, 174),
            (4096, 157, 303),
            (8192, 313, 532),
            (16_384, 625, 942),
            (32_768, 1_250, 1_681),
            (65_536, 2_500, 3_023),
            (131_072, 5_000, 5_478),
            (262_143, 9_999, 10_000),
            (262_144, 10_000, 10_000),
            (u64::MAX, 10_000, 10_000),
        ] {
            assert_eq!((Linear.weight(shares), Quadratic.weight(shares)), (linear, quadratic), "{shares} shares");
        }
    }

    #[test]
    fn weights_become_shares_and_the_same_weights_again() {
        assert_eq!(Quadratic.shares(100), 1024);
        assert_eq!(Linear.shares(100), 2597);
        for formula in [Linear, Quadratic] {
            assert_eq!((formula.shares(0), formula.shares(u64::MAX)), (2, 262_144));
            for weight in WEIGHT {
                let back = formula.weight(formula.shares(weight));
                // kubelet's inverse loses up to one.
                let least = if formula == Linear { weight.saturating_sub(1).max(1) } else { weight };
                assert!((least..=weight).contains(&back), "{formula:?} {weight} became {back}");
            }
        }
    }

    #[test]
    fn more_shares_are_never_a_smaller_weight() {
        for formula in [Linear, Quadratic] {
            let weights: Vec<u64> = SHARES.map(|shares| formula.weight(shares)).collect();
            assert!(weights.is_sorted());
            assert!(weights.iter().all(|weight| WEIGHT.contains(weight)));
        }
    }
}
