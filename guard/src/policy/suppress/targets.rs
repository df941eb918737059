//! Which best-effort cgroups may be shrunk, and how one allowance becomes a quota or a set of CPUs for each.

use std::collections::{BTreeMap, BTreeSet};

use super::settings::{Form, SuppressSettings};
use crate::knob::Setting;
use crate::policy::model::{CgroupModel, Model};
use crate::policy::plan::{Direction, Origin, Want, bandwidth};
use crate::snapshot::{Bandwidth, Class, Snapshot};

/// Best-effort cgroups that share a lock with a PLC, by id.
pub(super) type Shared = BTreeMap<u64, Sharing>;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    pub path: String,
    /// What shows it.
    why: String,
    /// For how long it is remembered yet, s.
    left_s: f64,
}

impl Sharing {
    pub(super) fn note(&self) -> String {
        format!("suppress: {} is never throttled, because it shares a lock with a PLC: {}", self.path, self.why)
    }
}

/// Remembers who shares a lock with a PLC, and forgets it after a while.
pub(super) fn remember_sharing(shared: &mut Shared, snapshot: &Snapshot, model: &Model, settings: &SuppressSettings) {
    for sharing in shared.values_mut() {
        sharing.left_s -= model.seconds;
    }
    shared.retain(|_, sharing| sharing.left_s > 0.0);
    let plcs: BTreeSet<&str> =
        model.cgroups.values().filter(|node| node.class == Class::Plc).map(|node| node.path.as_str()).collect();
    if plcs.is_empty() {
        return;
    }
    let mut add = |path: &str, why: String| {
        if let Some(node) = model.cgroups.get(path).filter(|node| node.class == Class::Be) {
            let sharing = Sharing { path: path.to_owned(), why, left_s: settings.shared_lock_memory_s };
            shared.insert(node.id, sharing);
        }
    };
    for cgroup in &snapshot.cgroups {
        // Only locks of user space: those of the kernel boost whoever holds them, above all on PREEMPT_RT, and a thread
        // that is throttled holds none of them for long.
        let boosts = cgroup.lock.futex_boosts.unwrap_or(0);
        if settings.shared_lock_boosts > 0 && boosts >= settings.shared_lock_boosts {
            add(
                &cgroup.path,
                format!("its threads were boosted {boosts} times in an interval for a lock of user space"),
            );
        }
    }
    for breach in snapshot.breaches.iter().filter(|b| b.evidence.lock_wait_ns > 0 && plcs.contains(b.cgroup.as_str())) {
        let why = format!("{} of {} waited {} ns for one", breach.comm, breach.cgroup, breach.evidence.lock_wait_ns);
        for path in owners(breach, snapshot) {
            add(&path, why.clone());
        }
    }
}

/// The cgroups of those that may have held the lock of a breach.
fn owners(breach: &crate::snapshot::Breach, snapshot: &Snapshot) -> Vec<String> {
    let (evidence, owner) = (&breach.evidence, breach.evidence.lock_owner);
    let culprit = breach.culprit.as_ref().and_then(|culprit| culprit.cgroup.clone());
    let of_tid = |tid: u32, path: Option<String>| path.filter(|_| owner != 0 && tid == owner);
    let watched = snapshot.threads.iter().filter(|thread| owner != 0 && thread.tid == owner);
    culprit
        .into_iter()
        .chain(of_tid(evidence.prev_tid, evidence.prev_cgroup.clone()))
        .chain(watched.map(|thread| thread.cgroup.clone()))
        .collect()
}

/// The topmost cgroups that are best-effort through and through and may be throttled: none that holds other work, is unmanaged or
/// shares a lock with a PLC, nor an ancestor of one.
pub(super) fn targets<'a>(model: &'a Model, shared: &Shared) -> Vec<&'a CgroupModel> {
    let may = |node: &CgroupModel| {
        node.class == Class::Be && !node.unmanaged && !shared.contains_key(&node.id) && node.path != "/"
    };
    let mut blocked = BTreeSet::new();
    for node in model.cgroups.values().filter(|node| !may(node)) {
        blocked.extend(model.ancestors(&node.path).map(|above| above.id));
    }
    model.topmost(|node| may(node) && !blocked.contains(&node.id))
}

/// CPU used by the targets, in thousandths of a CPU; `None` where one was not read.
pub(super) fn used_milli(targets: &[&CgroupModel]) -> Option<u64> {
    targets.iter().map(|node| node.used_milli).sum()
}

/// The least that best-effort work as a whole is left, in thousandths of a CPU.
pub(super) fn floor_milli(model: &Model, settings: &SuppressSettings) -> u64 {
    let least = match settings.form {
        Form::Quota => settings.min_quota_milli,
        Form::Cpuset => settings.min_cpus * 1000,
    };
    least.max(model.capacity_milli() * settings.min_percent / 100)
}

/// Why, for all wants of one decision.
#[derive(Clone, Debug, Default)]
pub(super) struct Why {
    pub reason: String,
    pub evidence: BTreeMap<String, f64>,
}

impl Why {
    pub(super) fn want(&self, node: &CgroupModel, setting: Setting) -> Want {
        Want {
            path: node.path.clone(),
            id: node.id,
            setting,
            origin: Origin::Suppress,
            direction: Direction::Reduce,
            reason: self.reason.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

/// A quota for each target, by its weight; none for one that had less before.
pub(super) fn quotas(targets: &[&CgroupModel], budget_milli: u64, settings: &SuppressSettings, why: &Why) -> Vec<Want> {
    let parties: Vec<Party> = targets
        .iter()
        .map(|node| Party { weight: node.shares.unwrap_or(1024), most: node.quota.and_then(Bandwidth::milli) })
        .collect();
    let shares = share(budget_milli, &parties);
    let mut wants = Vec::new();
    for (node, milli) in targets.iter().zip(shares) {
        let Some(original) = node.quota else { continue };
        let quota = bandwidth(milli.max(settings.min_quota_milli), original.period_us);
        if !quota.covers(original) {
            wants.push(why.want(node, Setting::Quota(quota)));
        }
    }
    wants
}

/// One of those that share an allowance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub weight: u64,
    /// It can use no more than this.
    pub most: Option<u64>,
}

/// Shares `total` by weight. What one cannot use is shared among the others.
pub(super) fn share(total: u64, parties: &[Party]) -> Vec<u64> {
    let mut given: Vec<Option<u64>> = vec![None; parties.len()];
    loop {
        let open: Vec<usize> = (0..parties.len()).filter(|i| given[*i].is_none()).collect();
        let left = total.saturating_sub(given.iter().flatten().sum());
        let weights: u128 = open.iter().map(|i| u128::from(parties[*i].weight.max(1))).sum();
        let part = |i: usize| {
            let part = u128::from(left) * u128::from(parties[i].weight.max(1)) / weights.max(1);
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let sated: Vec<(usize, u64)> = open
            .iter()
            .filter_map(|i| parties[*i].most.filter(|most| *most <= part(*i)).map(|most| (*i, most)))
            .collect();
        if sated.is_empty() {
            let parts: BTreeMap<usize, u64> = open.iter().map(|i| (*i, part(*i))).collect();
            return given
                .iter()
                .enumerate()
                .map(|(i, g)| g.unwrap_or_else(|| parts.get(&i).copied().unwrap_or(0)))
                .collect();
        }
        for (i, most) in sated {
            given[i] = Some(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_allowance_is_shared_by_weight_and_what_is_not_needed_goes_to_the_others() {
        let party = |weight, most| Party { weight, most };
        for (total, parties, shares) in [
            (1000, vec![party(1024, None)], vec![1000]),
            (900, vec![party(1024, None), party(2048, None)], vec![300, 600]),
            (900, vec![party(1024, Some(100)), party(1024, None)], vec![100, 800]),
            (900, vec![party(1024, Some(100)), party(1024, Some(200))], vec![100, 200]),
            // One that is sated only after another was.
            (900, vec![party(1, Some(100)), party(1, Some(350)), party(1, None)], vec![100, 350, 450]),
            (900, vec![party(0, None), party(0, None)], vec![450, 450]),
            (0, vec![party(2, None)], vec![0]),
            (5, vec![], vec![]),
        ] {
            assert_eq!(share(total, &parties), shares, "{total} {parties:?}");
        }
    }

    proptest! {
        #[test]
        fn no_more_than_the_allowance_is_shared(
            total in 0_u64..1_000_000,
            parties in prop::collection::vec((0_u64..300_000, prop::option::of(0_u64..100_000)), 0..8),
        ) {
            let parties: Vec<Party> = parties.into_iter().map(|(weight, most)| Party { weight, most }).collect();
            let shares = share(total, &parties);
            prop_assert!(shares.iter().sum::<u64>() <= total);
            prop_assert!(shares.iter().zip(&parties).all(|(share, party)| party.most.is_none_or(|most| *share <= most)));
        }
    }
}
