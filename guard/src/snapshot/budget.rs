//! Which latency of a cgroup a budget limits, by its name.

use std::fmt;
use std::str::FromStr;

use super::latency::Latency;
use super::words::Word;

/// A latency of a cgroup, as budgets name it: "wakeup.p999", "timer.max".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetMetric {
    /// Of what.
    pub of: BudgetOf,
    /// Where in its distribution.
    pub point: Point,
}

/// Whose latency a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetOf {
    /// RT tasks of a PLC cgroup, fair tasks of any other.
    Wakeup,
    /// The last timer stage that is seen.
    Timer,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// By the digits behind the point and their number: p999 is 999 of 3.
    Percentile(u32, u8),
    /// The maximum.
    Max,
}

impl Point {
    /// As a share of all; `None` for the maximum.
    #[must_use]
    pub fn quantile(self) -> Option<f64> {
        match self {
            Self::Percentile(digits, places) => Some(f64::from(digits) / 10_f64.powi(i32::from(places))),
            Self::Max => None,
        }
    }

    /// The latency there, ns.
    #[must_use]
    pub fn of(self, latency: &Latency) -> u64 {
        self.quantile().map_or_else(|| latency.max_ns(), |quantile| latency.quantile_ns(quantile))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percentile(digits, places) => write!(f, "p{digits:0places$}", places = usize::from(places)),
            Self::Max => f.write_str("max"),
        }
    }
}

impl fmt::Display for BudgetMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            BudgetOf::Wakeup => "wakeup",
            BudgetOf::Timer => "timer",
        };
        write!(f, "{of}.{}", self.point)
    }
}

impl From<BudgetMetric> for Word<BudgetMetric> {
    fn from(metric: BudgetMetric) -> Self {
        Self::Known(metric)
    }
}

/// A text that names no latency.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected wakeup or timer, a point, and max or a percentile such as p99 or p999, found {0:?}")]
pub struct BudgetMetricError(String);

impl BudgetMetricError {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.chars().take(80).collect())
    }
}

impl FromStr for BudgetMetric {
    type Err = BudgetMetricError;

    fn from_str(text: &str) -> Result<Self, BudgetMetricError> {
        let bad = || BudgetMetricError::new(text);
        let (of, point) = text.split_once('.').ok_or_else(bad)?;
        let of = match of {
            "wakeup" => BudgetOf::Wakeup,
            "timer" => BudgetOf::Timer,
            _ => return Err(bad()),
        };
        if point == "max" {
            return Ok(Self { of, point: Point::Max });
        }
        let digits = point.strip_prefix('p').filter(|digits| (2..=6).contains(&digits.len())).ok_or_else(bad)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let places = u8::try_from(digits.len()).map_err(|_| bad())?;
        Ok(Self { of, point: Point::Percentile(digits.parse().map_err(|_| bad())?, places) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_as_budgets_write_them() {
        for (text, of, quantile) in [
            ("wakeup.p50", BudgetOf::Wakeup, Some(0.5)),
            ("wakeup.p999", BudgetOf::Wakeup, Some(0.999)),
            ("timer.p9999", BudgetOf::Timer, Some(0.9999)),
            ("timer.max", BudgetOf::Timer, None),
        ] {
            let metric: BudgetMetric = text.parse().unwrap();
            assert_eq!((metric.of, metric.point.quantile(), metric.to_string().as_str()), (of, quantile, text));
        }
        for text in
            ["", "wakeup", "wakeup.", "wakeup.p", "wakeup.p9", "irq.p99", "timer.p9x", "timer.mean", "timer.p+9"]
        {
            assert!(text.parse::<BudgetMetric>().is_err(), "{text:?}");
        }
    }
}
