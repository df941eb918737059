//! What the latency that a budget limits was in an interval.

use super::budget::{BudgetMetric, BudgetOf};
use super::latency::Latency;
use super::parts::{Cgroup, Class};

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
