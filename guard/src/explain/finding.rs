//! Findings: the late wake-ups of a Snapshot merged by who was late, why, and because of whom.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::coupling::Coupling;
use crate::snapshot::{Breach, Cause, ChainLink, Culprit, Inversion, Snapshot, Stacks, Word};

/// All that `guard explain` says; its JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// Late wake-ups, merged, the worst first.
    pub findings: Vec<LateFinding>,
    /// Who of the urgent waited for whom of the less urgent, the largest loss first.
    pub inversions: Vec<Inversion>,
    /// What went up and down together, the closest first.
    pub couplings: Vec<Coupling>,
}

/// Late wake-ups of one thread that have the same cause and the same culprit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LateFinding {
    /// Who was late.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// Why; see `guard explain --help`.
    pub cause: Word<Cause>,
    /// Because of whom, as far as known: of the worst one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Culprit>,
    /// Threads that were waited for in the worst one: the first by the late thread, each other one by the one before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ChainLink>,
    /// Kernel stacks of the worst one, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks: Option<Stacks>,
    /// How often.
    pub count: u64,
    /// The latest, ns.
    pub worst_ns: u64,
    /// All of them together, ns.
    pub total_ns: u64,
    /// When the worst one was, RFC 3339.
    pub at: String,
    /// The worst one in a sentence.
    pub sentence: String,
    /// What can be done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Time per cause of all of them, ns; together `total_ns`.
    pub shares: BTreeMap<Word<Cause>, u64>,
}

/// The late wake-ups of `snapshots`, merged, the largest loss first.
pub fn findings<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Vec<LateFinding> {
    let mut merged: BTreeMap<(&str, &str, &Word<Cause>, &str), LateFinding> = BTreeMap::new();
    for breach in snapshots.into_iter().flat_map(|snapshot| &snapshot.breaches) {
        let by = breach.culprit.as_ref().map_or("", |culprit| culprit.comm.as_str());
        merged
            .entry((&breach.cgroup, &breach.comm, &breach.cause, by))
            .and_modify(|finding| add(finding, breach))
            .or_insert_with(|| new(breach));
    }
    let mut findings: Vec<LateFinding> = merged.into_values().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse((finding.worst_ns, finding.total_ns)));
    findings
}

fn new(breach: &Breach) -> LateFinding {
    LateFinding {
        comm: breach.comm.clone(),
        cgroup: breach.cgroup.clone(),
        cause: breach.cause.clone(),
        culprit: breach.culprit.clone(),
        chain: breach.evidence.chain.clone(),
        stacks: breach.evidence.stacks.clone(),
        count: 1,
        worst_ns: breach.latency_ns,
        total_ns: breach.latency_ns,
        at: breach.at.clone(),
        sentence: breach.sentence.clone(),
        remedy: breach.cause.known().and_then(Cause::remedy).map(str::to_owned),
        shares: breach.shares.clone(),
    }
}

fn add(finding: &mut LateFinding, breach: &Breach) {
    finding.count += 1;
    finding.total_ns = finding.total_ns.saturating_add(breach.latency_ns);
    for (cause, ns) in &breach.shares {
        let share = finding.shares.entry(cause.clone()).or_insert(0);
        *share = share.saturating_add(*ns);
    }
    if breach.latency_ns > finding.worst_ns {
        finding.worst_ns = breach.latency_ns;
        finding.at.clone_from(&breach.at);
        finding.sentence.clone_from(&breach.sentence);
        finding.culprit.clone_from(&breach.culprit);
        finding.chain.clone_from(&breach.evidence.chain);
        finding.stacks.clone_from(&breach.evidence.stacks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn repeated_ones_are_merged_and_the_worst_one_speaks() {
        let mut snapshot = samples::full();
        let first = snapshot.breaches[0].clone();
        let worse = Breach { latency_ns: first.latency_ns + 5, sentence: "worse".into(), ..first.clone() };
        let other = Breach { latency_ns: 1, cause: Cause::Irq.into(), culprit: None, ..first.clone() };
        snapshot.breaches = vec![other, first.clone(), worse];
        let found = findings([&snapshot, &snapshot]);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].count, found[0].worst_ns, found[0].sentence.as_str()), (4, first.latency_ns + 5, "worse"));
        assert_eq!(found[0].total_ns, 4 * first.latency_ns + 10);
        assert_eq!((found[1].count, found[1].cause.known()), (2, Some(Cause::Irq)));
        assert!(found[1].remedy.as_deref().is_some_and(|remedy| remedy.contains("smp_affinity")));
    }
}
