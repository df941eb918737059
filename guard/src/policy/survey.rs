//! Makes the model of a node: from a Snapshot, and from what the ledger says its knobs held before guard changed them.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::model::{CgroupModel, Model, milli};
use crate::knob::Setting;
use crate::snapshot::{Cgroup, CpuList, Snapshot};

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
            let mut new = node(cgroup, 0.0, ledger);
            if let Some(known) = self.cgroups.get(&new.path).filter(|known| known.id == new.id) {
                (new.used_milli, new.own_milli) = (known.used_milli, known.own_milli);
            }
            self.cgroups.insert(new.path.clone(), new);
        }
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

fn node(cgroup: &Cgroup, seconds: f64, ledger: &Ledger) -> CgroupModel {
    let knobs = cgroup.knobs.clone().unwrap_or_default();
    let original = |reading: Setting| ledger.original(cgroup.id, reading);
    CgroupModel {
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
