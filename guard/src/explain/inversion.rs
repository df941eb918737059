//! Inversions: who of the urgent waited for whom of the less urgent, across cgroups and classes, repeated ones merged.

use std::collections::{BTreeMap, HashMap};

use crate::snapshot::{Breach, Cause, Cgroup, Class, Culprit, Inversion, TimePart, Word};

/// The inversions in `breaches`, the largest loss first. `cgroups` give the classes.
#[must_use]
pub fn inversions(breaches: &[Breach], cgroups: &[Cgroup]) -> Vec<Inversion> {
    let classes: HashMap<&str, Class> = cgroups.iter().map(|cgroup| (cgroup.path.as_str(), cgroup.class)).collect();
    let class = |path: Option<&str>| path.and_then(|path| classes.get(path).copied());
    let mut merged: Vec<Inversion> = Vec::new();
    for breach in breaches {
        for (by, causes) in less_urgent(breach) {
            let lost_ns = causes.values().copied().fold(0, u64::saturating_add);
            Inversion::merge(
                &mut merged,
                Inversion {
                    comm: breach.comm.clone(),
                    cgroup: breach.cgroup.clone(),
                    class: class(Some(&breach.cgroup)),
                    by_comm: by.comm.clone(),
                    by_cgroup: by.cgroup.clone(),
                    by_class: class(by.cgroup.as_deref()),
                    count: 1,
                    lost_ns,
                    worst_ns: lost_ns,
                    causes,
                },
            );
        }
    }
    Inversion::sort(&mut merged);
    merged
}

/// Each less urgent thread that the late one lost time to, with the time per cause.
fn less_urgent(breach: &Breach) -> Vec<(Culprit, BTreeMap<Word<Cause>, u64>)> {
    let own = breach.evidence.prio;
    let alone;
    let parts: &[TimePart] = if breach.evidence.parts.is_empty() {
        let ns = breach.shares.get(&breach.cause).copied().unwrap_or(0);
        alone = [TimePart { cause: breach.cause.clone(), ns, by: breach.culprit.clone() }];
        &alone
    } else {
        &breach.evidence.parts
    };
    let mut found: Vec<(Culprit, BTreeMap<Word<Cause>, u64>)> = Vec::new();
    for part in parts {
        let Some(by) = part.by.as_ref().filter(|by| by.tid != 0 && by.tid != breach.tid) else { continue };
        if by.prio.is_none_or(|prio| prio <= own) || part.ns == 0 {
            continue;
        }
        let index = found.iter().position(|(other, _)| other.tid == by.tid).unwrap_or_else(|| {
            found.push((by.clone(), BTreeMap::new()));
            found.len() - 1
        });
        let sum = found[index].1.entry(part.cause.clone()).or_insert(0);
        *sum = sum.saturating_add(part.ns);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    fn part(cause: Cause, ns: u64, comm: &str, prio: i32) -> TimePart {
        let by =
            Culprit { tid: prio.unsigned_abs() + 1, comm: comm.into(), cgroup: Some("/be".into()), prio: Some(prio) };
        TimePart { cause: cause.into(), ns, by: Some(by) }
    }

    #[test]
    fn only_less_urgent_threads_count_and_repeated_ones_are_merged() {
        let snapshot = samples::full();
        let mut breach = snapshot.breaches[0].clone();
        breach.evidence.prio = 19;
        breach.evidence.parts = vec![
            part(Cause::ThrottledLockHolder, 700, "mqtt", 120),
            part(Cause::LockHolderPreempted, 200, "mqtt", 120),
            part(Cause::HigherPriority, 100, "rival", 9),
        ];
        let found = inversions(&[breach.clone(), breach], &snapshot.cgroups);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].by_comm.as_str(), found[0].count, found[0].lost_ns), ("mqtt", 2, 1_800));
        assert_eq!((found[0].worst_ns, found[0].causes["throttled_lock_holder"]), (900, 1_400));
    }
}
