//! Lifts quotas that strangle a PLC: on its cgroup, on everything around it, and on the rest of its container. A quota
//! cannot throttle a real-time thread, but it throttles the fair threads beside it that hold its locks and feed it with
//! data, so it is the quota that goes, not a thread that is helped. Where it may not go, burst and weight are next best;
//! a boost of the throttled thread itself is no setting of a cgroup and is not offered.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::{self, Invalid};
use super::model::{CgroupModel, Model, rounded};
use super::plan::{Direction, Origin, Want, shown};
use crate::knob::Setting;
use crate::snapshot::{Bandwidth, Class, Snapshot};

/// The section `[protect]` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProtectSettings {
    /// Whether quotas are lifted off PLC cgroups and off what contains them.
    pub enabled: bool,
    /// When: "sight" (as soon as a PLC with a quota is seen) or "throttled" (when the quota first ran out).
    pub when: When,
    /// How far: "unlimited" (no quota) or "budget" (what max_node_fraction leaves).
    pub lift: Lift,
    /// All lifted cgroups together may use this share of the node. A lifted cgroup that uses more gets a quota again,
    /// of what is left of that share.
    pub max_node_fraction: f64,
    /// What may be changed, in order of preference: "quota", "burst" and "weight". Where the quota may not or cannot be
    /// lifted, the others are the next best.
    pub allow: Vec<Means>,
    /// Shares for "weight", 2 to 262144.
    pub shares: u64,
    /// A cgroup stays protected for this long after it was last seen to be a PLC, s.
    pub hold_s: f64,
}

/// When a quota is lifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// As soon as a PLC with a quota is seen.
    #[default]
    Sight,
    /// When the quota first ran out.
    Throttled,
}

/// How far a quota is lifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lift {
    /// No quota.
    #[default]
    Unlimited,
    /// What the node's capacity budget leaves.
    Budget,
}

/// What may be changed for a PLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    /// Its quota and those of its ancestors.
    Quota,
    /// Their burst.
    Burst,
    /// Their shares.
    Weight,
}

impl Default for ProtectSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            when: When::default(),
            lift: Lift::default(),
            max_node_fraction: 1.0,
            allow: vec![Means::Quota, Means::Burst, Means::Weight],
            shares: 65_536,
            hold_s: 30.0,
        }
    }
}

impl ProtectSettings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::fraction("protect.max_node_fraction", self.max_node_fraction)?;
        if self.max_node_fraction < 0.05 {
            let message = format!("{} of the node is too little to lift anything to", self.max_node_fraction);
            return Err(Invalid::new("protect.max_node_fraction", message));
        }
        if self.allow.iter().enumerate().any(|(at, means)| self.allow[..at].contains(means)) {
            return Err(Invalid::new("protect.allow", "names something twice".into()));
        }
        if self.enabled && self.allow.is_empty() {
            return Err(Invalid::new("protect.allow", "allows nothing although protect is enabled".into()));
        }
        check::within("protect.shares", self.shares, 2..=262_144)?;
        check::seconds("protect.hold_s", self.hold_s)
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct ProtectState {
    /// PLC cgroups and those that were one until just now, by id.
    plcs: BTreeMap<u64, Plc>,
    /// Whether what was lifted used more than it may, so that it has a quota again.
    bounded: bool,
}

#[derive(Clone, Debug)]
struct Plc {
    path: String,
    container: Option<(String, String)>,
    /// How long it stays protected, s.
    left_s: f64,
    /// Whether a quota that holds for it was seen to run out.
    throttled: bool,
}

/// Which quotas are to be lifted after an interval.
pub(super) fn decide(
    snapshot: &Snapshot,
    model: &Model,
    settings: &ProtectSettings,
    state: &mut ProtectState,
    notes: &mut Vec<String>,
) -> Vec<Want> {
    if !settings.enabled {
        *state = ProtectState::default();
        notes.push("protect: not enabled".into());
        return Vec::new();
    }
    state.see(model, settings);
    if state.plcs.is_empty() {
        state.bounded = false;
        notes.push("protect: no PLC cgroup".into());
        return Vec::new();
    }
    let throttled: BTreeSet<u64> =
        snapshot.cgroups.iter().filter(|cgroup| ran_out(cgroup)).map(|cgroup| cgroup.id).collect();
    for plc in state.plcs.values_mut() {
        plc.throttled |= strangling(model, plc).iter().any(|node| throttled.contains(&node.id));
    }
    let nodes = lifted(model, settings, state);
    state.bounded |= exceeds(model, settings, &nodes);
    for node in nodes.iter().filter(|node| node.unmanaged) {
        notes.push(format!("protect: {} holds a PLC back by its quota, but is unmanaged", node.path));
    }
    wants(model, settings, state.bounded, &nodes, &|_| true)
}

/// What is to be done at once when the quota of cgroup `id` has run out. Nothing when it holds no PLC back.
pub(super) fn throttled(model: &Model, id: u64, settings: &ProtectSettings, state: &mut ProtectState) -> Vec<Want> {
    if !settings.enabled {
        return Vec::new();
    }
    let mut touched = BTreeSet::new();
    for plc in state.plcs.values_mut() {
        let strangling = strangling(model, plc);
        if strangling.iter().any(|node| node.id == id) {
            plc.throttled = true;
            touched.extend(strangling.iter().map(|node| node.id));
        }
    }
    let nodes = lifted(model, settings, state);
    wants(model, settings, state.bounded, &nodes, &|node| touched.contains(&node.id))
}

/// What is to be done at once for PLC cgroups that were not known before.
pub(super) fn discovered(
    model: &Model,
    new: &[u64],
    settings: &ProtectSettings,
    state: &mut ProtectState,
) -> Vec<Want> {
    if !settings.enabled {
        return Vec::new();
    }
    let mut touched = BTreeSet::new();
    for node in model.cgroups.values().filter(|node| node.class == Class::Plc && new.contains(&node.id)) {
        let plc = state.take_in(node, settings);
        touched.extend(strangling(model, plc).iter().map(|node| node.id));
    }
    let nodes = lifted(model, settings, state);
    wants(model, settings, state.bounded, &nodes, &|node| touched.contains(&node.id))
}

fn ran_out(cgroup: &crate::snapshot::Cgroup) -> bool {
    cgroup.throttle.count > 0 || cgroup.throttle.cpu_stat.is_some_and(|stat| stat.nr_throttled > 0)
}

impl ProtectState {
    fn see(&mut self, model: &Model, settings: &ProtectSettings) {
        for plc in self.plcs.values_mut() {
            plc.left_s -= model.seconds;
        }
        for node in model.cgroups.values().filter(|node| node.class == Class::Plc) {
            self.take_in(node, settings);
        }
        self.plcs.retain(|_, plc| plc.left_s > 0.0);
    }

    /// Takes note of a PLC.
    fn take_in(&mut self, node: &CgroupModel, settings: &ProtectSettings) -> &Plc {
        let (path, container) = (node.path.clone(), node.container.clone());
        // A hold of 0 s still lasts while it is seen.
        let left_s = settings.hold_s.max(f64::MIN_POSITIVE);
        let new = || Plc { path: String::new(), container: None, left_s, throttled: false };
        let plc = self.plcs.entry(node.id).or_insert_with(new);
        (plc.path, plc.container, plc.left_s) = (path, container, left_s);
        plc
    }
}

/// The cgroups with a quota that holds for a PLC or for threads beside it: itself, all around it, all below it and the
/// rest of its container. Best-effort cgroups only where they are around it.
fn strangling<'a>(model: &'a Model, plc: &Plc) -> Vec<&'a CgroupModel> {
    let in_container = |node: &&CgroupModel| plc.container.is_some() && node.container == plc.container;
    let around = model.ancestors(&plc.path);
    let own = model.cgroups.get(&plc.path).into_iter();
    let beside = model.cgroups.values().filter(in_container).chain(model.below(&plc.path));
    let nodes: BTreeMap<&str, &CgroupModel> = around
        .chain(own)
        .chain(beside.filter(|node| node.class != Class::Be))
        .filter(|node| node.path != "/" && node.finite_quota().is_some())
        .map(|node| (node.path.as_str(), node))
        .collect();
    nodes.into_values().collect()
}

/// What is to be lifted for all PLCs, ordered by path.
fn lifted<'a>(model: &'a Model, settings: &ProtectSettings, state: &ProtectState) -> Vec<&'a CgroupModel> {
    let due = |plc: &&Plc| settings.when == When::Sight || plc.throttled;
    let nodes: BTreeMap<&str, &CgroupModel> = state
        .plcs
        .values()
        .filter(due)
        .flat_map(|plc| strangling(model, plc))
        .map(|node| (node.path.as_str(), node))
        .collect();
    nodes.into_values().collect()
}

/// Those of `nodes` that are below no other of them.
fn tops<'a>(model: &'a Model, nodes: &[&CgroupModel]) -> Vec<&'a CgroupModel> {
    let ids: BTreeSet<u64> = nodes.iter().map(|node| node.id).collect();
    model.topmost(|node| ids.contains(&node.id))
}

/// Whether what is lifted uses more than its share of the node. A share of all cannot be exceeded.
fn exceeds(model: &Model, settings: &ProtectSettings, nodes: &[&CgroupModel]) -> bool {
    let used: u64 = tops(model, nodes).iter().filter_map(|node| node.used_milli).sum();
    settings.max_node_fraction < 1.0 && used as f64 > settings.max_node_fraction * model.capacity_milli() as f64
}

/// How much each quota may grow, in thousandths of a CPU: what the lifted cgroups' share of the node leaves, in equal
/// parts. What lies below another grows as much as that, so that it stays within it.
fn room_milli(model: &Model, settings: &ProtectSettings, nodes: &[&CgroupModel]) -> u64 {
    let tops = tops(model, nodes);
    let had: u64 = tops.iter().filter_map(|node| node.quota.and_then(Bandwidth::milli)).sum();
    let all = rounded(settings.max_node_fraction * model.capacity_milli() as f64);
    all.saturating_sub(had) / (tops.len() as u64).max(1)
}

fn wants(
    model: &Model,
    settings: &ProtectSettings,
    bounded: bool,
    nodes: &[&CgroupModel],
    which: &dyn Fn(&CgroupModel) -> bool,
) -> Vec<Want> {
    let unlimited = settings.lift == Lift::Unlimited && !bounded;
    let room = room_milli(model, settings, nodes);
    let mut wants = Vec::new();
    for node in nodes.iter().filter(|node| !node.unmanaged && which(node)) {
        let Some(had) = node.finite_quota() else { continue };
        for means in &settings.allow {
            let (setting, what) = match means {
                Means::Quota if unlimited => {
                    (Setting::Quota(Bandwidth { quota_us: None, ..had }), "its quota is lifted".to_owned())
                }
                Means::Quota if room > 0 => {
                    let more = room.saturating_mul(had.period_us) / 1000;
                    let quota_us = had.quota_us.map(|quota| quota.saturating_add(more));
                    (
                        Setting::Quota(Bandwidth { quota_us, ..had }),
                        format!("its quota grows by the {room} mCPU that are left"),
                    )
                }
                Means::Quota => continue,
                Means::Burst => match (node.burst_us, had.quota_us) {
                    (Some(_), Some(quota)) => {
                        (Setting::Burst(quota), format!("its burst is raised to its quota, {quota} us"))
                    }
                    _ => continue,
                },
                Means::Weight => match node.shares {
                    Some(shares) if shares < settings.shares => (
                        Setting::Shares(settings.shares),
                        format!("its shares go from {shares} to {}", settings.shares),
                    ),
                    _ => continue,
                },
            };
            let is_quota = *means == Means::Quota;
            wants.push(want(node, had, setting, &what));
            if is_quota {
                break;
            }
        }
    }
    wants
}

fn want(node: &CgroupModel, had: Bandwidth, setting: Setting, what: &str) -> Want {
    let quota = format!("cgroups[{}].knobs.quota", node.path);
    Want {
        path: node.path.clone(),
        id: node.id,
        setting,
        origin: Origin::Protect,
        direction: Direction::Lift,
        reason: format!("A quota of {} holds for threads that a PLC may wait for: {what}", shown(had)),
        evidence: [
            (format!("{quota}.quota_us"), had.quota_us.unwrap_or_default() as f64),
            (format!("{quota}.period_us"), had.period_us as f64),
        ]
        .into(),
    }
}
