//! Budgets: which latency of a cgroup is meant, and what it was in an interval.

use std::str::FromStr;

use super::model::rounded;
use crate::snapshot::{Cgroup, Class, Latency};

/// A latency of a cgroup, as budgets name it: "wakeup.p999", "timer.max".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    of: Of,
    /// `None` for the maximum.
    quantile: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Wakeup,
    Timer,
}

/// A text that names no latency.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected wakeup or timer, a point, and max or a percentile such as p99 or p999, found {0:?}")]
pub struct MetricError(String);

impl FromStr for Metric {
    type Err = MetricError;

    fn from_str(text: &str) -> Result<Self, MetricError> {
        let bad = || MetricError(text.chars().take(80).collect());
        let (of, figure) = text.split_once('.').ok_or_else(bad)?;
        let of = match of {
            "wakeup" => Of::Wakeup,
            "timer" => Of::Timer,
            _ => return Err(bad()),
        };
        if figure == "max" {
            return Ok(Self { of, quantile: None });
        }
        // p50 is 0.50, p999 is 0.999.
        let digits = figure.strip_prefix('p').filter(|digits| (2..=6).contains(&digits.len())).ok_or_else(bad)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let quantile = format!("0.{digits}").parse().map_err(|_| bad())?;
        Ok(Self { of, quantile: Some(quantile) })
    }
}

impl Metric {
    /// Its value for a cgroup, ns; `None` when nothing was counted. "wakeup" is that of RT tasks in a PLC cgroup and that
    /// of fair tasks in any other.
    #[must_use]
    pub fn value_ns(self, cgroup: &Cgroup) -> Option<u64> {
        let latency = self.latency(cgroup)?;
        Some(self.quantile.map_or_else(|| latency.max_ns(), |quantile| latency.quantile_ns(quantile)))
    }

    /// How many wake-ups of an interval with as many as were counted may be over a limit that this keeps.
    #[must_use]
    pub fn spare(self, cgroup: &Cgroup) -> u64 {
        let count = self.latency(cgroup).map_or(0, |latency| latency.count());
        let within = self.quantile.map_or(count, |quantile| rounded((quantile * count as f64).ceil()));
        count.saturating_sub(within)
    }

    /// Whether it is one of fair tasks.
    #[must_use]
    pub fn is_of_fair_tasks(self, cgroup: &Cgroup) -> bool {
        self.of == Of::Wakeup && cgroup.class != Class::Plc
    }

    fn latency(self, cgroup: &Cgroup) -> Option<&Latency> {
        let latency = match self.of {
            Of::Wakeup if cgroup.class == Class::Plc => &cgroup.wakeup.rt,
            Of::Wakeup => &cgroup.wakeup.fair,
            Of::Timer => cgroup.timer.last_stage()?.1,
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
            ("wakeup.p50", Of::Wakeup, Some(0.5)),
            ("wakeup.p999", Of::Wakeup, Some(0.999)),
            ("timer.p9999", Of::Timer, Some(0.9999)),
            ("timer.max", Of::Timer, None),
        ] {
            assert_eq!(text.parse(), Ok(Metric { of, quantile }), "{text}");
        }
        for text in
            ["", "wakeup", "wakeup.", "wakeup.p", "wakeup.p9", "irq.p99", "timer.p9x", "timer.mean", "timer.p+9"]
        {
            assert!(text.parse::<Metric>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn wakeups_of_a_plc_are_those_of_its_rt_tasks_and_others_those_of_fair_ones() {
        let metric: Metric = "wakeup.max".parse().unwrap();
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
            assert_eq!(text.parse::<Metric>().unwrap().spare(&cgroup), spare, "{text}");
        }
    }
}
