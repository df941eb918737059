//! What the gate says: an outcome, and a sentence for every figure it looked at.

use schemars::JsonSchema;
use serde::Serialize;

use super::facts::{Difference, Fact};
use super::metric::{LatencySignal, Metric};
use crate::snapshot::Word;

/// How the gate ends. The exit codes are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Outcome")]
pub enum GateOutcome {
    /// Within the budgets and not slower than the baseline.
    Pass,
    /// Over a budget, or slower than the baseline.
    Regression,
    /// The runs are not of the same node, or were not made alike.
    NotComparable,
    /// Nothing speaks against the candidate, but not everything that should be judged could be.
    TooLittleData,
}

impl GateOutcome {
    /// Its exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Regression => 1,
            Self::NotComparable => 3,
            Self::TooLittleData => 4,
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Regression => "regression",
            Self::NotComparable => "not comparable",
            Self::TooLittleData => "too little data",
        }
    }
}

/// What came of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Within its budget, or not slower by as much as matters.
    Pass,
    /// Over its budget.
    OverBudget,
    /// Slower by as much as matters, and not by chance.
    Regression,
    /// The sides counted so differently that this figure cannot be compared.
    NotComparable,
    /// It should be judged, but too few runs have it.
    TooLittleData,
    /// It was not asked for by name, and the baseline does not have it.
    NotJudged,
}

impl Status {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::OverBudget => "over budget",
            Self::Regression => "regression",
            Self::NotComparable => "not comparable",
            Self::TooLittleData => "too little data",
            Self::NotJudged => "not judged",
        }
    }

    /// The outcome that it alone would lead to.
    #[must_use]
    pub fn outcome(self) -> GateOutcome {
        match self {
            Self::Pass | Self::NotJudged => GateOutcome::Pass,
            Self::OverBudget | Self::Regression => GateOutcome::Regression,
            Self::NotComparable => GateOutcome::NotComparable,
            Self::TooLittleData => GateOutcome::TooLittleData,
        }
    }
}

/// The whole verdict.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Verdict {
    /// The outcome.
    pub outcome: GateOutcome,
    /// The same as an exit code.
    pub exit_code: u8,
    /// Why, in one sentence.
    pub sentence: String,
    /// Whether the runs can be compared.
    pub comparison: Comparison,
    /// Budgets, in the order of their file.
    pub budgets: Vec<Budgeted>,
    /// Figures compared with the baseline, worst first.
    pub metrics: Vec<Judged>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// Which runs were compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Comparison {
    /// Runs of the candidate.
    pub candidate_runs: usize,
    /// Runs of the baseline that can be compared with them.
    pub baseline_runs: usize,
    /// Runs of the baseline that were made otherwise, and were left out.
    pub set_aside: usize,
    /// In what runs differ that should not.
    pub differences: Vec<Difference>,
    /// What one of the sides, or both, does not say.
    pub unknown: Vec<Fact>,
}

/// A budget and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Budgeted {
    /// Workload; the pattern of the budget when nothing matched.
    pub workload: String,
    /// Signal.
    pub signal: Word<LatencySignal>,
    /// Figure.
    pub metric: Metric,
    /// What came of it.
    pub status: Status,
    /// The limit, ns.
    pub limit_ns: u64,
    /// The worst of the candidate's runs, ns; absent when no run has the figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_ns: Option<u64>,
    /// Line of the budget file.
    pub line: usize,
    /// For people.
    pub sentence: String,
}

/// A figure of a workload on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Judged {
    /// Workload.
    pub workload: String,
    /// Signal.
    pub signal: Word<LatencySignal>,
    /// Figure.
    pub metric: Metric,
    /// What came of it.
    pub status: Status,
    /// Runs of the baseline and of the candidate that have it.
    pub runs: (usize, usize),
    /// Median of the runs of each side, ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medians_ns: Option<(f64, f64)>,
    /// How much slower the candidate is, as a fraction: 0.1 is 10 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// Bounds of the shift (95 %).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<(f64, f64)>,
    /// The shift, ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference_ns: Option<f64>,
    /// Probability of such a shift by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// The same, corrected for the number of figures judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_corrected: Option<f64>,
    /// For people.
    pub sentence: String,
}

/// The published JSON schema of [`Verdict`].
#[must_use]
pub fn json_schema() -> schemars::Schema {
    schemars::schema_for!(Verdict)
}

/// A time for people: three digits and a unit.
#[must_use]
pub(super) fn time(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        ns if ns < 999.5 => (1.0, "ns"),
        ns if ns < 999_500.0 => (1e3, "us"),
        ns if ns < 999_500_000.0 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = ns / value;
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

/// A shift for people: "+9.8 %".
#[must_use]
pub(super) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    // Without "-0.0".
    if percent.abs() < 0.05 { "0.0 %".to_owned() } else { format!("{percent:+.1} %") }
}

/// A probability for people.
#[must_use]
pub(super) fn chance(p: f64) -> String {
    if p < 0.000_1 {
        "p < 0.0001".to_owned()
    } else if p < 0.1 {
        format!("p = {p:.4}")
    } else {
        format!("p = {p:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (ns, said) in [
            (0.0, "0.00 ns"),
            (999.0, "999 ns"),
            (999.9, "1.00 us"),
            (52_340.0, "52.3 us"),
            (999_499.0, "999 us"),
            (1_234_567.0, "1.23 ms"),
            (2e9, "2.00 s"),
            (-1_500.0, "-1.50 us"),
        ] {
            assert_eq!(time(ns), said);
        }
    }

    #[test]
    fn shifts_and_chances_are_short() {
        assert_eq!([percent(0.098), percent(-0.2), percent(-0.000_1)], ["+9.8 %", "-20.0 %", "0.0 %"]);
        assert_eq!([chance(0.5), chance(0.012_34), chance(1e-9)], ["p = 0.50", "p = 0.0123", "p < 0.0001"]);
    }

    #[test]
    fn exit_codes_are_the_contracted_ones() {
        let all = [GateOutcome::Pass, GateOutcome::Regression, GateOutcome::NotComparable, GateOutcome::TooLittleData];
        assert_eq!(all.map(GateOutcome::code), [0, 1, 3, 4]);
    }
}
