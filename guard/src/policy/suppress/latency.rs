//! Profile "latency": best-effort work is cut when a PLC or LS cgroup breaks its latency budget, and gets more again
//! while all keep theirs with room to spare. Down by a factor and at once, up by steps. The allowance at which a breach
//! came is remembered, so that growth stops below it instead of running into it again and again; it is forgotten
//! after a while, and after a longer one each time that proves wrong.

use std::collections::{BTreeMap, HashMap};

use super::decision::{Decision, Load};
use super::memory::Memory;
use super::settings::{LatencySettings, SuppressSettings};
use super::targets::Why;
use crate::policy::model::{Model, rounded};
use crate::snapshot::{BudgetMetric, Cgroup, Class, SignalName, Snapshot, Word};

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct LatencyState {
    /// Until the allowance may grow, s.
    hold_s: f64,
    memory: Memory,
    /// Whether there was a cut since the last Snapshot: its interval is then not yet one under the new allowance.
    cut: bool,
    /// When the last cut between two Snapshots was made, by the clock of what is late, ns.
    cut_at_ns: Option<u64>,
    /// Who is judged, by cgroup id: for what happens before the next Snapshot.
    watched: BTreeMap<u64, Vec<Watched>>,
}

/// How long a cut takes to show: the kernel hands out a new quota at once, and stops who has used it up only then. A wait
/// that began within one period of a cut says nothing of it yet, ns.
const SETTLES_NS: u64 = 100_000_000;

/// One limit of a cgroup.
#[derive(Clone, Copy, Debug)]
struct Watched {
    limit_ns: u64,
    /// Whether fair tasks are judged, which nobody watches one by one.
    fair: bool,
    /// So many wake-ups may yet be later than that until the next Snapshot without breaking the budget, judged by how
    /// many there were in the last interval.
    spare: u64,
}

/// A late wake-up between two Snapshots.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct LateWakeup {
    pub id: u64,
    pub at_ns: u64,
    pub latency_ns: u64,
    pub times: u64,
    pub by: u64,
}

/// A latency against its limit.
struct Judged {
    name: String,
    value_ns: u64,
    limit_ns: u64,
}

impl Judged {
    fn ratio(&self) -> f64 {
        self.value_ns as f64 / self.limit_ns as f64
    }

    fn evidence(&self) -> [(String, f64); 2] {
        [(format!("{}_ns", self.name), self.value_ns as f64), (format!("{}.limit_ns", self.name), self.limit_ns as f64)]
    }
}

/// The limits of a cgroup: its budgets, else its class's default. Those of best-effort work are not judged.
fn limits(cgroup: &Cgroup, settings: &LatencySettings) -> Vec<(BudgetMetric, u64)> {
    let default = match cgroup.class {
        Class::Be => return Vec::new(),
        Class::Plc => (&settings.plc_metric, settings.plc_limit_us),
        Class::Lse | Class::Lsr | Class::Ls => (&settings.ls_metric, settings.ls_limit_us),
        Class::System => (&settings.ls_metric, 0),
    };
    let own = cgroup.budgets.iter().map(|budget| (&budget.metric, budget.limit_ns));
    let default = (default.0, default.1.saturating_mul(1000));
    let all: Vec<(&Word<BudgetMetric>, u64)> = if cgroup.budgets.is_empty() { vec![default] } else { own.collect() };
    all.into_iter()
        .filter(|(_, limit_ns)| *limit_ns > 0)
        .filter_map(|(metric, limit_ns)| Some((metric.known()?, limit_ns)))
        .collect()
}

/// Takes note of who is judged until the next Snapshot.
pub(super) fn watch(snapshot: &Snapshot, settings: &LatencySettings, state: &mut LatencyState) {
    let watched = |cgroup: &Cgroup| {
        let limits = limits(cgroup, settings);
        limits
            .into_iter()
            .map(|(metric, limit_ns)| Watched {
                limit_ns,
                fair: metric.is_of_fair_tasks(cgroup),
                spare: metric.spare(cgroup),
            })
            .collect()
    };
    state.watched = snapshot
        .cgroups
        .iter()
        .filter(|cgroup| cgroup.id != 0)
        .map(|cgroup| (cgroup.id, watched(cgroup)))
        .filter(|(_, watched): &(u64, Vec<Watched>)| !watched.is_empty())
        .collect();
}

pub(super) fn decide(
    snapshot: &Snapshot,
    model: &Model,
    load: Load,
    settings: &SuppressSettings,
    state: &mut LatencyState,
    notes: &mut Vec<String>,
) -> Decision {
    watch(snapshot, &settings.latency, state);
    state.memory.pass(model.seconds);
    state.hold_s = (state.hold_s - model.seconds).max(0.0);
    let cut = std::mem::take(&mut state.cut);
    if state.watched.is_empty() {
        notes.push("suppress: no cgroup has a latency budget".into());
    } else if !snapshot.sees(SignalName::Wakeup) && !snapshot.sees(SignalName::Timer) {
        return Decision::Keep("neither wake-ups nor timers were seen".into());
    }
    let judged = snapshot.cgroups.iter().filter(|cgroup| cgroup.id != 0).flat_map(|cgroup| {
        limits(cgroup, &settings.latency).into_iter().filter_map(|(metric, limit_ns)| {
            let name = format!("cgroups[{}].{metric}", cgroup.path);
            Some(Judged { name, value_ns: metric.value_ns(cgroup)?, limit_ns })
        })
    });
    let Some(worst) = judged.max_by(|a, b| a.ratio().total_cmp(&b.ratio())) else {
        return state.grow(model, load, settings, None);
    };
    if worst.ratio() <= 1.0 {
        let calm = worst.ratio() * 100.0 < settings.latency.calm_percent as f64;
        return if calm { state.grow(model, load, settings, Some(&worst)) } else { Decision::Stay };
    }
    if load.budget.is_some_and(|budget| budget <= load.floor) {
        state.breach(load.floor, settings);
        notes.push(format!(
            "suppress: {} is {} ns, over its {} ns, although best-effort work is at its floor: something else makes it late",
            worst.name, worst.value_ns, worst.limit_ns
        ));
        return Decision::Stay;
    }
    if load.used.is_some_and(|used| used <= load.floor) {
        notes.push(format!(
            "suppress: {} is {} ns, over its {} ns, but best-effort work used no CPU to speak of",
            worst.name, worst.value_ns, worst.limit_ns
        ));
        return Decision::Stay;
    }
    if cut || model.seconds <= 0.0 {
        return Decision::Stay;
    }
    let level = load.level(model.capacity_milli());
    let milli = state.breach(level, settings);
    let reason = format!(
        "{} is {} ns, over its {} ns: best-effort work goes from {level} to {milli} mCPU",
        worst.name, worst.value_ns, worst.limit_ns
    );
    Decision::Allow { milli: Some(milli), why: Why { reason, evidence: worst.evidence().into() } }
}

/// What best-effort work may use after a late wake-up; `None` where the wake-up breaks no budget or was answered already.
pub(super) fn react(
    model: &Model,
    late: LateWakeup,
    load: Load,
    settings: &SuppressSettings,
    state: &mut LatencyState,
) -> Option<(u64, Why)> {
    let mut broken = None;
    for watched in state.watched.get_mut(&late.id)? {
        if late.latency_ns > watched.limit_ns {
            match watched.spare.checked_sub(late.times) {
                Some(left) => watched.spare = left,
                None => {
                    watched.spare = 0;
                    broken = Some(watched.limit_ns);
                }
            }
        }
    }
    let limit_ns = broken?;
    let began_ns = late.at_ns.saturating_sub(late.latency_ns);
    let answered = state.cut_at_ns.is_some_and(|cut_at_ns| began_ns < cut_at_ns.saturating_add(SETTLES_NS));
    if answered || load.budget.is_some_and(|budget| budget <= load.floor) {
        return None;
    }
    (state.cut, state.cut_at_ns) = (true, Some(late.at_ns));
    let level = load.level(model.capacity_milli());
    let milli = state.breach(level, settings).max(load.floor);
    let path = |id: u64| model.by_id(id).map_or_else(|| format!("cgroup {id}"), |node| node.path.clone());
    let (victim, by) = (path(late.id), path(late.by));
    let reason = format!(
        "A wake-up in {victim} was {} ns late, over its {limit_ns} ns, after {by} had the CPU: best-effort work goes from {level} to {milli} mCPU",
        late.latency_ns
    );
    let evidence = [
        (format!("breaches[{victim}].latency_ns"), late.latency_ns as f64),
        (format!("cgroups[{victim}].limit_ns"), limit_ns as f64),
    ];
    Some((milli, Why { reason, evidence: evidence.into() }))
}

/// From when on a fair task is late, by cgroup, ns: the smallest limit.
pub(super) fn late_from(state: &LatencyState) -> HashMap<u64, u64> {
    let least = |watched: &[Watched]| watched.iter().filter(|w| w.fair).map(|w| w.limit_ns).min();
    state.watched.iter().filter_map(|(id, watched)| Some((*id, least(watched)?))).collect()
}

impl LatencyState {
    /// Best-effort work broke a budget at this allowance: what is allowed now.
    fn breach(&mut self, level: u64, settings: &SuppressSettings) -> u64 {
        self.memory.harm(level, settings);
        self.hold_s = settings.latency.hold_s;
        level * settings.latency.cut_percent / 100
    }

    fn grow(&self, model: &Model, load: Load, settings: &SuppressSettings, worst: Option<&Judged>) -> Decision {
        let Some(budget) = load.budget else { return Decision::Stay };
        let capacity = model.capacity_milli();
        let step = rounded((capacity * settings.latency.rise_percent) as f64 / 100.0 * model.second());
        let most = self.memory.most(settings).unwrap_or(capacity);
        let next = (budget + step).min(most);
        if self.hold_s > 0.0 || next <= budget {
            return Decision::Stay;
        }
        let evidence = worst.map(|worst| worst.evidence().into()).unwrap_or_default();
        let reason = match worst {
            Some(worst) => format!(
                "{} is {} ns, well within its {} ns: best-effort work goes from {budget} to {next} mCPU",
                worst.name, worst.value_ns, worst.limit_ns
            ),
            None => format!("No wake-up with a budget was seen: best-effort work goes from {budget} to {next} mCPU"),
        };
        Decision::Allow { milli: Some(next), why: Why { reason, evidence } }
    }
}
