//! Budgets: which latency of a cgroup is meant, and what it was in an interval.

use std::fmt;
use std::str::FromStr;

use super::{Cgroup, Class, Latency, Word};

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

impl BudgetMetric {
    /// Its value for a cgroup, ns; `None` when nothing was counted. "wakeup" is that of RT tasks in a PLC cgroup and that
    /// of fair tasks in any other.
    #[must_use]
    pub fn value_ns(self, cgroup: &Cgroup) -> Option<u64> {
        self.latency(cgroup).map(|latency| self.point.of(latency))
    }

    /// How many wake-ups of an interval with as many as were counted may be over a limit that this keeps.
    #[must_use]
    pub fn spare(self, cgroup: &Cgroup) -> u64 {
        let count = self.latency(cgroup).map_or(0, |latency| latency.count());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "counts of an interval stay far below 2^53"
        )]
        let within = self.point.quantile().map_or(count, |quantile| (quantile * count as f64).ceil() as u64);
        count.saturating_sub(within)
    }

    /// Whether it is one of fair tasks.
    #[must_use]
    pub fn is_of_fair_tasks(self, cgroup: &Cgroup) -> bool {
        self.of == BudgetOf::Wakeup && cgroup.class != Class::Plc
    }

    fn latency(self, cgroup: &Cgroup) -> Option<&Latency> {
        let latency = match self.of {
            BudgetOf::Wakeup if cgroup.class == Class::Plc => &cgroup.wakeup.rt,
            BudgetOf::Wakeup => &cgroup.wakeup.fair,
            BudgetOf::Timer => cgroup.timer.last_stage()?.1,
        };
        (!latency.is_empty()).then_some(latency)
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

    #[test]
    fn wakeups_of_a_plc_are_those_of_its_rt_tasks_and_others_those_of_fair_ones() {
        let metric: BudgetMetric = "wakeup.max".parse().unwrap();
        let mut cgroup = Cgroup { class: Class::Plc, ..Cgroup::default() };
        assert_eq!(metric.value_ns(&cgroup), None, "nothing counted is no figure");
        cgroup.wakeup.rt.record(10_000);
        cgroup.wakeup.fair.record(90_000);
        assert_eq!(metric.value_ns(&cgroup), Some(10_000));
        cgroup.class = Class::Ls;
        assert_eq!(metric.value_ns(&cgroup), Some(90_000));
    }

    #[test]
    fn as_many_wakeups_may_be_late_as_the_percentile_leaves_out() {
        let mut cgroup = Cgroup { class: Class::Plc, ..Cgroup::default() };
        (0..1050).for_each(|_| cgroup.wakeup.rt.record(1000));
        for (text, spare) in
            [("wakeup.p99", 10), ("wakeup.p50", 525), ("wakeup.p999", 1), ("wakeup.max", 0), ("timer.p50", 0)]
        {
            assert_eq!(text.parse::<BudgetMetric>().unwrap().spare(&cgroup), spare, "{text}");
        }
    }
}
