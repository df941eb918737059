//! The Plan: which knobs should have which values, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::{CgroupModel, Model, original};
use crate::knob::{Knob, Setting};
use crate::snapshot::Bandwidth;

/// Which policy wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Lifting quotas off PLC cgroups.
    Protect,
    /// Exclusive CPUs.
    Cpuset,
    /// Shrinking best-effort work.
    Suppress,
    /// Bursting latency-sensitive work.
    Burst,
}

/// The two directions that must never be confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Shrinks what disturbs.
    Reduce,
    /// Raises what strangles.
    Lift,
}

/// One knob of one cgroup that should have a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// Path of the cgroup.
    pub path: String,
    /// Its id: a cgroup that was made anew under the same path is another one.
    pub id: u64,
    /// Knob and value.
    pub setting: Setting,
    /// Which policy wants it.
    pub origin: Origin,
    /// Which way it goes.
    pub direction: Direction,
    /// One sentence for people.
    pub reason: String,
    /// The Snapshot's values that led to it, by their names there.
    pub evidence: BTreeMap<String, f64>,
}

/// What the policies want. It is complete: a knob that guard holds and that no want names is to be put back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// At most one per cgroup and knob, ordered by path.
    pub wants: Vec<Want>,
    /// What a policy did not do, and why: one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// The want for a knob of a cgroup.
    #[must_use]
    pub fn want(&self, id: u64, knob: Knob) -> Option<&Want> {
        self.wants.iter().find(|want| want.id == id && want.setting.knob() == knob)
    }
}

/// The kernel's smallest quota and period, us.
pub(super) const MIN_CFS_US: u64 = 1000;
/// The kernel's largest period, us.
pub(super) const MAX_PERIOD_US: u64 = 1_000_000;

/// One knob of one cgroup: the order of a Plan.
type Key = (String, Knob);

/// Makes of what the policies want what may be written, by these rules, in this order:
///
/// 1. Nothing is wanted of the root, of an unmanaged cgroup, or of a knob that was not read.
/// 2. A knob has one owner: protect before cpuset before suppress before burst. Two that shrink the same set of CPUs
///    both get their way: what is left is the intersection, unless that is empty.
/// 3. A cgroup is given no more than each of its ancestors has or is given. What cannot be raised stays as it was.
/// 4. Where a quota shrinks, the quotas below it that are larger shrink with it.
/// 5. A burst is never above its quota.
/// 6. What a knob held already before guard came is not wanted.
pub(super) fn merge(wants: Vec<Want>, model: &Model, notes: &mut Vec<String>) -> Vec<Want> {
    let mut plan: BTreeMap<Key, Want> = BTreeMap::new();
    for want in wants {
        let knob = want.setting.knob();
        let Some(node) = model.cgroups.get(&want.path).filter(|node| node.id == want.id && want.path != "/") else {
            continue;
        };
        if node.unmanaged {
            notes.push(format!("{}: {} is unmanaged and stays as it is", want.origin.name(), want.path));
        } else if original(node, knob).is_some() {
            own(&mut plan, want, notes);
        }
    }
    shrink_children(&mut plan, model);
    bound_by_parents(&mut plan, model);
    bound_bursts(&mut plan, model);
    plan.retain(|(path, knob), want| {
        model.cgroups.get(path).and_then(|node| original(node, *knob)).is_some_and(|original| original != want.setting)
    });
    plan.into_values().collect()
}

impl Origin {
    /// Its name: that of its section in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Cpuset => "cpuset",
            Self::Suppress => "suppress",
            Self::Burst => "burst",
        }
    }
}

/// Rule 2.
fn own(plan: &mut BTreeMap<Key, Want>, want: Want, notes: &mut Vec<String>) {
    let key = (want.path.clone(), want.setting.knob());
    let Some(held) = plan.remove(&key) else {
        plan.insert(key, want);
        return;
    };
    let (mut winner, loser) = if want.origin < held.origin { (want, held) } else { (held, want) };
    let both_shrink = winner.direction == Direction::Reduce && loser.direction == Direction::Reduce;
    if let Some(both) = winner.setting.join(&loser.setting).filter(|_| both_shrink) {
        winner.reason = format!("{}; {}", winner.reason, loser.reason);
        winner.evidence.extend(loser.evidence);
        winner.setting = both;
    } else if winner.origin != loser.origin {
        let (winner, loser) = (winner.origin.name(), loser.origin.name());
        notes.push(format!("{loser}: the {} of {} is {winner}'s", key.1, key.0));
    }
    plan.insert(key, winner);
}

/// The quota that a cgroup will have: what is wanted, else what it had.
fn planned(plan: &BTreeMap<Key, Want>, node: &CgroupModel) -> Option<Bandwidth> {
    match plan.get(&(node.path.clone(), Knob::Quota)).map(|want| &want.setting) {
        Some(Setting::Quota(quota)) => Some(*quota),
        _ => node.quota,
    }
}

/// Rule 4.
fn shrink_children(plan: &mut BTreeMap<Key, Want>, model: &Model) {
    let shrunk: Vec<(Want, Bandwidth)> = plan
        .values()
        .filter(|want| want.direction == Direction::Reduce)
        .filter_map(|want| match want.setting {
            Setting::Quota(quota) if quota.quota_us.is_some() => Some((want.clone(), quota)),
            _ => None,
        })
        .collect();
    for (parent, quota) in shrunk {
        for node in model.below(&parent.path).filter(|node| !node.unmanaged) {
            let larger = planned(plan, node).filter(|child| child.quota_us.is_some() && !quota.covers(*child));
            let Some(child) = larger else { continue };
            let mut want =
                Want { path: node.path.clone(), id: node.id, setting: Setting::Quota(quota), ..parent.clone() };
            want.reason =
                format!("Its quota of {} is above the {} that {} is given", shown(child), shown(quota), parent.path);
            plan.insert((node.path.clone(), Knob::Quota), want);
        }
    }
}

/// Rule 3. Parents stand before their children in the Plan, so that their own bounds are settled first.
fn bound_by_parents(plan: &mut BTreeMap<Key, Want>, model: &Model) {
    let raised: Vec<Key> = plan.keys().filter(|(_, knob)| *knob == Knob::Quota).cloned().collect();
    for key in raised {
        let Some((node, wanted)) = model.cgroups.get(&key.0).and_then(|node| Some((node, planned(plan, node)?))) else {
            continue;
        };
        if wanted.quota_us.is_none() {
            continue;
        }
        let smallest = model
            .ancestors(&key.0)
            .filter_map(|above| planned(plan, above))
            .filter(|above| !above.covers(wanted))
            .reduce(|smallest, above| if smallest.covers(above) { above } else { smallest });
        let Some(bound) = smallest else { continue };
        let shrinks = plan.get(&key).is_some_and(|want| want.direction == Direction::Reduce);
        let gains = node.quota.is_some_and(|original| !original.covers(bound));
        if shrinks || gains {
            if let Some(want) = plan.get_mut(&key) {
                want.setting = Setting::Quota(bound);
            }
        } else {
            plan.remove(&key);
        }
    }
}

/// Rule 5.
fn bound_bursts(plan: &mut BTreeMap<Key, Want>, model: &Model) {
    let touched: std::collections::BTreeSet<String> = plan
        .keys()
        .filter(|(_, knob)| matches!(knob, Knob::Quota | Knob::Burst))
        .map(|(path, _)| path.clone())
        .collect();
    for path in touched {
        let Some(node) = model.cgroups.get(&path) else { continue };
        let key = (path.clone(), Knob::Burst);
        let wanted = match plan.get(&key).map(|want| &want.setting) {
            Some(Setting::Burst(us)) => Some(*us),
            _ => None,
        };
        let Some(burst_us) = wanted.or(node.burst_us) else { continue };
        let Some(quota_us) = planned(plan, node).and_then(|quota| quota.quota_us) else {
            // Without a quota nothing is saved up for a burst.
            plan.remove(&key);
            continue;
        };
        if burst_us <= quota_us {
            continue;
        }
        let Some(like) = plan.get(&key).or_else(|| plan.get(&(path.clone(), Knob::Quota))).cloned() else { continue };
        let reason = match wanted {
            Some(_) => like.reason,
            None => format!("Its burst of {burst_us} us is above the quota of {quota_us} us that it is given"),
        };
        plan.insert(key, Want { setting: Setting::Burst(quota_us), reason, ..like });
    }
}

/// `milli` thousandths of a CPU in a period; never less than the kernel takes. A period outside the kernel's range
/// becomes its default.
pub(super) fn bandwidth(milli: u64, period_us: u64) -> Bandwidth {
    let period_us =
        if (MIN_CFS_US..=MAX_PERIOD_US).contains(&period_us) { period_us } else { Bandwidth::UNLIMITED.period_us };
    Bandwidth { quota_us: Some((milli.saturating_mul(period_us) / 1000).max(MIN_CFS_US)), period_us }
}

/// A quota for people.
pub(super) fn shown(quota: Bandwidth) -> String {
    match quota.quota_us {
        Some(us) => format!("{us} us per {} us", quota.period_us),
        None => "no limit".into(),
    }
}
