//! What the lab measured, and its verdict on guard: a pure function over the steps of a scenario.

use serde::{Deserialize, Serialize};

use crate::snapshot::{Latency, Quota};

use super::condition::Condition;
use super::scenario::{Promise, Setup};

/// Version of the JSON form.
pub(super) const SCHEMA: u32 = 1;

/// A hazard that costs less than this share of the cycles more than the reference did not show itself.
const LEAST_HARM: f64 = 0.1;
/// Where harm is promised to be absent, this share of the cycles may be lost by chance.
const CHANCE: f64 = 0.02;

/// What the lab measured on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabReport {
    /// Version of this form.
    pub schema: u32,
    /// Kernel release.
    pub kernel: String,
    /// Whether the kernel is PREEMPT_RT.
    pub realtime: bool,
    /// Version of the hierarchy with the cpu controller: 1 or 2.
    pub cgroup_version: u32,
    /// What was run.
    pub scenarios: Vec<ScenarioResult>,
}

/// A scenario that was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub summary: String,
    /// Length of a cycle, us.
    pub interval_us: u64,
    /// What was measured as response.
    pub response: String,
    /// One row each.
    pub rows: Vec<Row>,
    /// Whether guard kept what the scenario promises.
    pub kept: bool,
    /// Why, in one line.
    pub verdict: String,
}

/// What the workload measured in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which step.
    pub step: Condition,
    /// Its name in this scenario.
    pub name: String,
    /// Policy of the cyclic thread.
    pub policy: String,
    /// Cycles that were due.
    pub cycles: u64,
    /// Those of them that were not done in time, were skipped for that reason, or had no new data.
    pub lost: u64,
    /// See [`ScenarioResult::response`].
    pub response: Latency,
    /// From when a cycle was due to when the thread was awake.
    pub wakeup: Latency,
    /// Periods in which the workload's cgroup was throttled.
    pub nr_throttled: u64,
    /// For how long in all, summed over CPUs, ns.
    pub throttled_ns: u64,
    /// What guard did; absent where it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Acted>,
}

/// What guard did in one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Acted {
    /// Changes that it wrote, as "path: knob old -> new (reason)", in order.
    pub changes: Vec<String>,
    /// Whether every quota of the lab's cgroups was what the lab had set after guard ended.
    pub restored: bool,
    /// Runnable real-time tasks that lost their CPU to RT throttling or the fair server: how often, as guard saw it.
    pub taken: u64,
    /// For how long, ns.
    pub taken_ns: u64,
}

impl Row {
    fn share(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "cycles stay far below 2^53")]
        let share = self.lost as f64 / self.cycles.max(1) as f64;
        share
    }

    /// Lost cycles of 100.
    #[must_use]
    pub fn lost_percent(&self) -> f64 {
        100.0 * self.share()
    }

    /// "12 of 5000 cycles (0.2 %)".
    fn loss(&self) -> String {
        format!("{} of {} cycles ({:.1} %)", self.lost, self.cycles, self.lost_percent())
    }
}

/// Whether guard kept the scene's promise, and why.
pub(super) fn judge(setup: &Setup, interval_us: u64, rows: &[Row]) -> (bool, String) {
    let row = |step| rows.iter().find(|row| row.step == step);
    let (before, with) = match (row(Condition::Before), row(Condition::With)) {
        (Some(before), Some(with)) => (before, with),
        (Some(before), None) => return (true, format!("{} lost; guard was left out", before.loss())),
        (None, _) => return (false, "not judged: the hazard was left out".to_owned()),
    };
    if with.guard.as_ref().is_some_and(|acted| !acted.restored) {
        return (false, "guard ended without putting back what it had changed".to_owned());
    }
    if with.cycles == 0 || before.cycles == 0 {
        return (false, "not judged: no cycle was due in the time given; want a longer --duration".to_owned());
    }
    let reference = row(Condition::Reference).unwrap_or(before);
    let harm = before.share() - reference.share();
    match setup.promise {
        Promise::Harmless => harmless(setup, reference, before, with),
        Promise::Healed | Promise::Halved if harm < LEAST_HARM => {
            let verdict =
                format!("the hazard did not show itself: {} lost with it, {} without", before.loss(), reference.loss());
            (false, verdict)
        }
        Promise::Healed => {
            let (allowed, reaction) = (harm / 10.0, reaction(setup.quota, interval_us, with.cycles));
            helped(reference, before, with, allowed.max(reaction))
        }
        Promise::Halved => helped(reference, before, with, harm / 2.0),
        Promise::Reported => reported(before, with),
    }
}

/// The share of the cycles that are due in the one period that guard may take until it has lifted a quota.
fn reaction(quota: Option<Quota>, interval_us: u64, cycles: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "cycles and microseconds of a period stay far below 2^53")]
    let share = quota.map_or(0.0, |quota| quota.period_us.div_ceil(interval_us.max(1)) as f64 / cycles.max(1) as f64);
    share
}

fn harmless(setup: &Setup, reference: &Row, before: &Row, with: &Row) -> (bool, String) {
    let most = reference.share().max(before.share()) + CHANCE;
    let kept = with.share() <= most && before.share() <= reference.share() + CHANCE;
    let why = match (setup.quota.is_some(), kept) {
        (true, true) => "the lock itself keeps the harm away",
        (false, true) => "there is nothing to do, and guard does no harm",
        (_, false) => "more is lost than without",
    };
    (kept, format!("{why}: {} lost without guard, {} with it", before.loss(), with.loss()))
}

fn helped(reference: &Row, before: &Row, with: &Row, allowed: f64) -> (bool, String) {
    let kept = with.share() <= reference.share() + allowed;
    let verdict = format!(
        "{}: {} lost without guard, {} with it, {} without the hazard",
        if kept { "guard helps" } else { "guard does not help enough" },
        before.loss(),
        with.loss(),
        reference.loss()
    );
    (kept, verdict)
}

fn reported(before: &Row, with: &Row) -> (bool, String) {
    let acted = with.guard.clone().unwrap_or_default();
    let own_ns = with.response.sum_ns();
    if own_ns == 0 {
        let verdict = if before.lost == 0 {
            "nothing was taken from the thread: this node neither throttles RT threads nor serves fair ones"
        } else {
            "nothing was taken from the thread while guard watched"
        };
        return (true, verdict.to_owned());
    }
    let verdict = format!(
        "guard takes no action here: {} times, {} ms in all, were taken from the thread; guard saw {} times, {} ms",
        with.response.count(),
        own_ns / 1_000_000,
        acted.taken,
        acted.taken_ns / 1_000_000
    );
    // Both look at the same CPU over the same time.
    (acted.taken > 0 && 2 * acted.taken_ns >= own_ns, verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario::Scenario;

    fn row(step: Condition, cycles: u64, lost: u64) -> Row {
        Row {
            step,
            name: String::new(),
            policy: "SCHED_FIFO 80".into(),
            cycles,
            lost,
            response: Latency::default(),
            wakeup: Latency::default(),
            nr_throttled: 0,
            throttled_ns: 0,
            guard: (step == Condition::With).then(|| Acted { restored: true, ..Acted::default() }),
        }
    }

    fn verdict(scenario: Scenario, lost: [u64; 3]) -> (bool, String) {
        let steps = [Condition::Reference, Condition::Before, Condition::With];
        let rows: Vec<Row> = steps.into_iter().zip(lost).map(|(step, lost)| row(step, 5000, lost)).collect();
        judge(&scenario.setup(), 1000, &rows)
    }

    #[test]
    fn a_healed_hazard_may_cost_one_quota_period_of_cycles() {
        // One period is 100 cycles of 1 ms; a tenth of the harm is 250.
        for (lost, kept) in
            [([0, 2500, 0], true), ([0, 2500, 250], true), ([0, 2500, 251], false), ([40, 2500, 280], true)]
        {
            assert_eq!(verdict(Scenario::QuotaLock, lost).0, kept, "{lost:?}");
        }
        assert!(verdict(Scenario::QuotaLock, [0, 600, 100]).0);
        assert!(!verdict(Scenario::QuotaLock, [0, 600, 101]).0);
    }

    #[test]
    fn a_hazard_that_does_not_show_itself_is_no_success() {
        let (kept, verdict) = verdict(Scenario::QuotaLock, [10, 300, 10]);
        assert!(!kept && verdict.contains("did not show itself"), "{verdict}");
    }

    #[test]
    fn half_of_the_harm_is_enough_where_the_neighbour_keeps_a_share() {
        assert!(verdict(Scenario::NoisyBe, [100, 4100, 2100]).0);
        assert!(!verdict(Scenario::NoisyBe, [100, 4100, 2101]).0);
    }

    #[test]
    fn a_lock_with_priority_inheritance_must_not_be_harmed_at_all() {
        assert!(verdict(Scenario::QuotaPi, [0, 50, 0]).0);
        assert!(!verdict(Scenario::QuotaPi, [0, 2500, 0]).0);
        assert!(!verdict(Scenario::QuotaPi, [0, 0, 2500]).0);
    }

    #[test]
    fn what_is_not_put_back_is_no_success() {
        let mut rows =
            vec![row(Condition::Reference, 5000, 0), row(Condition::Before, 5000, 2500), row(Condition::With, 5000, 0)];
        rows[2].guard = Some(Acted::default());
        let (kept, verdict) = judge(&Scenario::QuotaLock.setup(), 1000, &rows);
        assert!(!kept && verdict.contains("without putting back"), "{verdict}");
    }

    #[test]
    fn rt_throttling_must_be_seen_by_guard_when_the_thread_saw_it() {
        let setup = Scenario::RtThrottle.setup();
        let mut rows = vec![row(Condition::Before, 5000, 250), row(Condition::With, 5000, 250)];
        rows[1].response.record(50_000_000);
        assert!(!judge(&setup, 1000, &rows).0);
        rows[1].guard = Some(Acted { restored: true, taken: 1, taken_ns: 50_000_000, ..Acted::default() });
        assert!(judge(&setup, 1000, &rows).0);
    }

    #[test]
    fn the_report_survives_its_way_through_json() {
        let played = ScenarioResult {
            name: "quota-lock".into(),
            summary: "s".into(),
            interval_us: 1000,
            response: "r".into(),
            rows: vec![row(Condition::With, 10, 1)],
            kept: true,
            verdict: "v".into(),
        };
        let report = LabReport { schema: SCHEMA, scenarios: vec![played], ..LabReport::default() };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<LabReport>(&text).unwrap(), report);
    }
}
