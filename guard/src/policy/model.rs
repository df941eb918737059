//! What the policies know of a node after an interval: the Snapshot as a tree of cgroups, each with the values that it
//! had before guard changed any. Owned, so that the State can keep it for what happens between two Snapshots.

use std::collections::{BTreeMap, BTreeSet};

use crate::knob::{Knob, Setting};
use crate::snapshot::{Bandwidth, CgroupPath, Class, CpuList, CpuPlace};

/// The node.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Length of the interval, s; 0 when it is no positive number.
    pub seconds: f64,
    /// CPUs online.
    pub online: CpuList,
    /// CPUs kept for the system by the configuration.
    pub reserved: CpuList,
    /// CPUs kept from load balancing or from the tick.
    pub isolated: CpuList,
    /// Where CPUs sit, as far as known.
    pub places: BTreeMap<u32, CpuPlace>,
    /// Whether a change of a cgroup's CPUs makes its threads forget their affinities.
    pub forgets_affinity: bool,
    /// CPU time used by all, in thousandths of a CPU; absent where it was not read.
    pub used_milli: Option<u64>,
    /// Cgroups by path, without "(other)". Parents come before their children.
    pub cgroups: BTreeMap<String, CgroupModel>,
}

/// A cgroup. Knobs are as they were before guard changed them, and absent where they were not read.
#[derive(Clone, Debug, Default)]
pub(super) struct CgroupModel {
    pub path: String,
    pub id: u64,
    pub class: Class,
    /// Runtime and id of its container.
    pub container: Option<(String, String)>,
    pub unmanaged: bool,
    pub quota: Option<Bandwidth>,
    pub burst_us: Option<u64>,
    pub shares: Option<u64>,
    pub cpus: Option<CpuList>,
    /// Used by it and everything below, in thousandths of a CPU.
    pub used_milli: Option<u64>,
    /// Used by it without the cgroups below it.
    pub own_milli: Option<u64>,
    pub request_milli: Option<u64>,
    pub limit_milli: Option<u64>,
    pub rt_threads: Option<u32>,
}

impl CgroupModel {
    /// Its quota, where it has a finite one.
    pub(super) fn finite_quota(&self) -> Option<Bandwidth> {
        self.quota.filter(|quota| quota.quota_us.is_some())
    }

    /// LSE, LSR, LS or PLC: work that best-effort work must not disturb.
    pub(super) fn is_sensitive(&self) -> bool {
        matches!(self.class, Class::Plc | Class::Lse | Class::Lsr | Class::Ls)
    }
}

impl Model {
    /// CPUs online, in thousandths.
    pub(super) fn capacity_milli(&self) -> u64 {
        self.online.len() as u64 * 1000
    }

    /// The part of a second that passed, at most one: rates per second are applied with it, so that a late Snapshot
    /// does not make a large step.
    pub(super) fn second(&self) -> f64 {
        // Rounded to ms: an interval of 0.9998 s is one second.
        (self.seconds.min(1.0) * 1000.0).round() / 1000.0
    }

    pub(super) fn by_id(&self, id: u64) -> Option<&CgroupModel> {
        self.cgroups.values().find(|node| node.id == id)
    }

    /// The cgroup's ancestors that were seen, the nearest first, without the root.
    pub(super) fn ancestors(&self, path: &str) -> impl Iterator<Item = &CgroupModel> {
        CgroupPath::of(path).above().filter_map(|path| self.cgroups.get(path))
    }

    /// What was seen below the cgroup.
    pub(super) fn below(&self, path: &str) -> impl Iterator<Item = &CgroupModel> {
        let top = path.trim_end_matches('/');
        // '0' follows '/' in ASCII.
        self.cgroups.range(format!("{top}/")..format!("{top}0")).map(|(_, node)| node).filter(move |n| n.path != path)
    }

    /// The cgroups for which `wanted` holds and that are below no other such.
    pub(super) fn topmost(&self, wanted: impl Fn(&CgroupModel) -> bool) -> Vec<&CgroupModel> {
        let mut found: BTreeMap<u64, &CgroupModel> = BTreeMap::new();
        for node in self.cgroups.values().filter(|node| wanted(node)) {
            if !self.ancestors(&node.path).any(|above| found.contains_key(&above.id)) {
                found.insert(node.id, node);
            }
        }
        let mut found: Vec<&CgroupModel> = found.into_values().collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Ids of `tops` and of all below them.
    pub(super) fn subtrees(&self, tops: &[&CgroupModel]) -> BTreeSet<u64> {
        tops.iter().flat_map(|top| std::iter::once(*top).chain(self.below(&top.path))).map(|node| node.id).collect()
    }
}

/// CPU time in an interval as thousandths of a CPU; `None` for an empty interval.
pub(super) fn milli(ns: u64, seconds: f64) -> Option<u64> {
    (seconds > 0.0).then(|| rounded(ns as f64 / (seconds * 1e6)))
}

/// Rounded to a whole number; 0 for what is negative or no number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(super) fn rounded(value: f64) -> u64 {
    value.round() as u64
}

/// The original of the knobs that the policies set.
pub(super) fn original(node: &CgroupModel, knob: Knob) -> Option<Setting> {
    match knob {
        Knob::Quota => node.quota.map(Setting::Quota),
        Knob::Burst => node.burst_us.map(Setting::Burst),
        Knob::Shares => node.shares.map(Setting::Shares),
        Knob::Cpus => node.cpus.clone().map(Setting::Cpus),
        _ => None,
    }
}
