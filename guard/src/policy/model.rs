//! What the policies know of a node after an interval: the Snapshot as a tree of cgroups, each with the values that it
//! had before guard changed any. Owned, so that the State can keep it for what happens between two Snapshots.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use crate::knob::{Knob, Setting};
use crate::snapshot::{Bandwidth, Cgroup, Class, CpuList, CpuPlace, Snapshot};

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
    pub cgroups: BTreeMap<String, Node>,
}

/// A cgroup. Knobs are as they were before guard changed them, and absent where they were not read.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
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

impl Node {
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
    pub(super) fn new(snapshot: &Snapshot, ledger: &Ledger) -> Self {
        let seconds = Some(snapshot.window.seconds).filter(|s| s.is_finite() && *s > 0.0).unwrap_or(0.0);
        let listed: CpuList = snapshot.cpus.iter().map(|cpu| cpu.cpu).collect();
        let mut model = Self {
            seconds,
            online: snapshot.node.cpus.parse().ok().filter(|cpus: &CpuList| !cpus.is_empty()).unwrap_or(listed),
            reserved: snapshot.node.reserved_cpus.clone(),
            isolated: snapshot.cpus.iter().filter(|cpu| cpu.isolated).map(|cpu| cpu.cpu).collect(),
            places: snapshot.cpus.iter().filter_map(|cpu| Some((cpu.cpu, cpu.place?))).collect(),
            forgets_affinity: forgets_affinity(&snapshot.node.kernel),
            used_milli: None,
            cgroups: BTreeMap::new(),
        };
        let busy_ns: Option<u64> = snapshot.cpus.iter().map(|cpu| cpu.busy_ns).sum();
        model.used_milli = busy_ns.filter(|_| !snapshot.cpus.is_empty()).and_then(|ns| milli(ns, seconds));
        for cgroup in snapshot.cgroups.iter().filter(|cgroup| cgroup.id != 0) {
            model.cgroups.insert(cgroup.path.clone(), node(cgroup, seconds, ledger));
        }
        model.count_own();
        model
    }

    /// Takes in what is known of some cgroups between two Snapshots. What they use stays as it was known.
    pub(super) fn discover(&mut self, cgroups: &[Cgroup], ledger: &Ledger) {
        for cgroup in cgroups.iter().filter(|cgroup| cgroup.id != 0) {
            let mut met = node(cgroup, 0.0, ledger);
            if let Some(known) = self.cgroups.get(&met.path).filter(|known| known.id == met.id) {
                (met.used_milli, met.own_milli) = (known.used_milli, known.own_milli);
            }
            self.cgroups.insert(met.path.clone(), met);
        }
    }

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

    pub(super) fn by_id(&self, id: u64) -> Option<&Node> {
        self.cgroups.values().find(|node| node.id == id)
    }

    /// The cgroup's ancestors that were seen, the nearest first, without the root.
    pub(super) fn ancestors(&self, path: &str) -> impl Iterator<Item = &Node> {
        let mut rest = path.to_owned();
        std::iter::from_fn(move || {
            rest.truncate(rest.rfind('/')?);
            (!rest.is_empty()).then(|| rest.clone())
        })
        .filter_map(|path| self.cgroups.get(&path))
    }

    /// What was seen below the cgroup.
    pub(super) fn below(&self, path: &str) -> impl Iterator<Item = &Node> {
        let top = path.trim_end_matches('/');
        // '0' follows '/' in ASCII.
        self.cgroups.range(format!("{top}/")..format!("{top}0")).map(|(_, node)| node).filter(move |n| n.path != path)
    }

    /// The cgroups for which `wanted` holds and that are below no other such.
    pub(super) fn topmost(&self, wanted: impl Fn(&Node) -> bool) -> Vec<&Node> {
        let mut found: BTreeMap<u64, &Node> = BTreeMap::new();
        for node in self.cgroups.values().filter(|node| wanted(node)) {
            if !self.ancestors(&node.path).any(|above| found.contains_key(&above.id)) {
                found.insert(node.id, node);
            }
        }
        let mut found: Vec<&Node> = found.into_values().collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Ids of `tops` and of all below them.
    pub(super) fn subtrees(&self, tops: &[&Node]) -> BTreeSet<u64> {
        tops.iter().flat_map(|top| std::iter::once(*top).chain(self.below(&top.path))).map(|node| node.id).collect()
    }

    fn count_own(&mut self) {
        let mut children: BTreeMap<String, u64> = BTreeMap::new();
        for node in self.cgroups.values() {
            if let (Some(used), Some(parent)) = (node.used_milli, self.ancestors(&node.path).next()) {
                *children.entry(parent.path.clone()).or_default() += used;
            }
        }
        for node in self.cgroups.values_mut() {
            let below = children.get(&node.path).copied().unwrap_or(0);
            node.own_milli = node.used_milli.map(|used| used.saturating_sub(below));
        }
    }
}

/// Whether a kernel of this release is older than 6.2; one whose release says nothing is taken for a new one.
fn forgets_affinity(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map(|number| number.parse::<u32>().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    version.is_some_and(|version| version < (6, 2))
}

/// CPU time in an interval as thousandths of a CPU; None for an empty interval.
pub(super) fn milli(ns: u64, seconds: f64) -> Option<u64> {
    (seconds > 0.0).then(|| rounded(ns as f64 / (seconds * 1e6)))
}

/// Rounded to a whole number; 0 for what is negative or no number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(super) fn rounded(value: f64) -> u64 {
    value.round() as u64
}

fn node(cgroup: &Cgroup, seconds: f64, ledger: &Ledger) -> Node {
    let knobs = cgroup.knobs.clone().unwrap_or_default();
    let original = |reading: Setting| ledger.original(cgroup.id, reading);
    Node {
        path: cgroup.path.clone(),
        id: cgroup.id,
        class: cgroup.class,
        container: cgroup.container.as_ref().map(|container| (container.runtime.clone(), container.id.clone())),
        unmanaged: cgroup.unmanaged,
        quota: knobs.quota.map(|reading| match original(Setting::Quota(reading)) {
            Setting::Quota(quota) => quota,
            _ => reading,
        }),
        burst_us: knobs.burst_us.map(|reading| match original(Setting::Burst(reading)) {
            Setting::Burst(us) => us,
            _ => reading,
        }),
        shares: knobs.shares.map(|reading| match original(Setting::Shares(reading)) {
            Setting::Shares(shares) => shares,
            _ => reading,
        }),
        cpus: knobs.cpus.map(|reading| match original(Setting::Cpus(reading.clone())) {
            Setting::Cpus(cpus) => cpus,
            _ => reading,
        }),
        used_milli: cgroup.cpu_ns.and_then(|ns| milli(ns, seconds)),
        own_milli: None,
        request_milli: cgroup.request_milli,
        limit_milli: cgroup.limit_milli,
        rt_threads: cgroup.rt_threads,
    }
}

/// The original of the knobs that the policies set.
pub(super) fn original(node: &Node, knob: Knob) -> Option<Setting> {
    match knob {
        Knob::Quota => node.quota.map(Setting::Quota),
        Knob::Burst => node.burst_us.map(Setting::Burst),
        Knob::Shares => node.shares.map(Setting::Shares),
        Knob::Cpus => node.cpus.clone().map(Setting::Cpus),
        _ => None,
    }
}
