//! Lets LS cgroups exceed their quota, after koordlet's cpuburst plugin: by the kernel's burst, and by a quota that
//! grows while they are throttled and the CPUs that they share have room, and shrinks again. Quotas around such a
//! cgroup grow with it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::check::{self, Invalid};
use super::model::{CgroupModel, Model, rounded};
use super::plan::{Direction, Origin, Want};
use crate::knob::Setting;
use crate::snapshot::{Bandwidth, Cgroup, Class, Snapshot};

/// The section `[burst]` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BurstSettings {
    /// How LS cgroups may exceed their quota: "none", "burst" (what they did not use in earlier periods), "quota" (a
    /// larger quota while they are throttled and the node has room) or "auto" (both).
    pub policy: BurstPolicy,
    /// Burst in percent of the quota; never more than the quota itself, which the kernel refuses.
    pub burst_percent: u64,
    /// Quota may grow to this, in percent of what it was.
    pub quota_percent: u64,
    /// A quota may be exceeded in full for this long, s, and earns it back by using less than 60 %; -1 for no limit.
    pub quota_period_s: i64,
    /// Use of the CPUs shared by LS work from which the node counts as overloaded, percent.
    pub share_pool_percent: u64,
    /// Utilisation is averaged over this time, s.
    pub average_s: f64,
    /// A quota goes back by steps when its cgroup was not throttled for this long, s, and would not be by the next step.
    pub decay_after_s: f64,
}

/// By which means LS cgroups may exceed their quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BurstPolicy {
    /// Not at all.
    #[default]
    None,
    /// By what they did not use in earlier periods.
    Burst,
    /// By a larger quota.
    Quota,
    /// Both.
    Auto,
}

impl Default for BurstSettings {
    fn default() -> Self {
        Self {
            policy: BurstPolicy::default(),
            burst_percent: 1000,
            quota_percent: 300,
            quota_period_s: -1,
            share_pool_percent: 50,
            average_s: 5.0,
            decay_after_s: 10.0,
        }
    }
}

impl BurstSettings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::within("burst.burst_percent", self.burst_percent, 1..=10_000)?;
        check::within("burst.quota_percent", self.quota_percent, 100..=10_000)?;
        if !(-1..=31_536_000).contains(&self.quota_period_s) {
            let message = format!("{} is neither -1 nor a time up to 31536000 s", self.quota_period_s);
            return Err(Invalid::new("burst.quota_period_s", message));
        }
        check::within("burst.share_pool_percent", self.share_pool_percent, 1..=100)?;
        check::seconds("burst.average_s", self.average_s)?;
        check::seconds("burst.decay_after_s", self.decay_after_s)
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct BurstState {
    /// Length (s), use and size (thousandths of a CPU) of the shared CPUs in the last intervals.
    pool: VecDeque<(f64, f64, f64)>,
    units: BTreeMap<u64, Unit>,
}

/// A cgroup whose quota may grow.
#[derive(Clone, Debug)]
struct Unit {
    /// Its quota now, us.
    quota_us: u64,
    /// Since it was last throttled, s.
    calm_s: f64,
    /// What the limiter has left, percent-seconds, and what it can hold.
    tokens: f64,
    capacity: f64,
}

/// How much room the CPUs have that LS work shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Enough.
    Idle,
    /// Nearly none: nothing grows.
    Cooling,
    /// None: what has grown shrinks.
    Overload,
    /// Not known: nothing grows.
    Unknown,
}

/// What becomes of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaStep {
    Up,
    Remain,
    Down,
}

/// The room when `used` of `size` is used: overload from the threshold on, cooling from 90 % of it on.
pub(super) fn room(used: f64, size: f64, threshold_percent: u64) -> Room {
    let (ratio, threshold) = (if size > 0.0 { used / size } else { 1.0 }, threshold_percent as f64 / 100.0);
    if ratio >= threshold {
        Room::Overload
    } else if ratio >= threshold * 0.9 {
        Room::Cooling
    } else {
        Room::Idle
    }
}

/// What the room makes of a step.
pub(super) fn gate(step: QuotaStep, room: Room) -> QuotaStep {
    match (room, step) {
        (Room::Overload, _) => QuotaStep::Down,
        (Room::Cooling | Room::Unknown, QuotaStep::Up) => QuotaStep::Remain,
        (_, step) => step,
    }
}

/// The kernel's burst, us: a share of the quota that was there first, but no more than the quota; 0 without one.
pub(super) fn burst_us(quota_us: Option<u64>, base_us: u64, percent: u64) -> u64 {
    quota_us.map_or(0, |quota| quota.min(base_us.saturating_mul(percent) / 100))
}

/// A quota after a step: a fifth more or less in a second, within base and ceiling.
pub(super) fn stepped(quota_us: u64, base_us: u64, step: QuotaStep, percent: u64, second: f64) -> u64 {
    let fifth = rounded(200.0 * second);
    let moved = match step {
        QuotaStep::Up => quota_us.saturating_mul(1000 + fifth) / 1000,
        QuotaStep::Down => quota_us.saturating_mul(1000 - fifth) / 1000,
        QuotaStep::Remain => quota_us,
    };
    moved.clamp(base_us, (base_us.saturating_mul(percent) / 100).max(base_us))
}

/// The limiter: tokens are spent by using more than the limit and earned by using less than 60 % of it.
pub(super) fn tokens_after(tokens: f64, capacity: f64, used_percent: f64, seconds: f64) -> f64 {
    let earned = if (60.0..100.0).contains(&used_percent) { 0.0 } else { (100.0 - used_percent) * seconds };
    (tokens + earned).clamp(-capacity, capacity)
}

/// How far LS cgroups may exceed their quotas after an interval.
pub(super) fn decide(
    snapshot: &Snapshot,
    model: &Model,
    settings: &BurstSettings,
    state: &mut BurstState,
    notes: &mut Vec<String>,
) -> Vec<Want> {
    if settings.policy == BurstPolicy::None {
        *state = BurstState::default();
        notes.push("burst: policy is none".into());
        return Vec::new();
    }
    let room = state.room(model, settings);
    if room == Room::Unknown {
        notes.push("burst: the CPU time of the node was not read: no quota grows".into());
    }
    let units = units(model);
    if units.is_empty() {
        notes.push("burst: no LS cgroup with a quota".into());
    }
    let cgroups: BTreeMap<u64, &Cgroup> = snapshot.cgroups.iter().map(|cgroup| (cgroup.id, cgroup)).collect();
    state.units.retain(|id, _| units.iter().any(|unit| unit.id == *id));
    let mut grown: BTreeMap<&str, (&CgroupModel, u64)> = BTreeMap::new();
    let mut wants = Vec::new();
    for unit in units {
        let Some((base, base_us)) = unit.quota.and_then(|base| Some((base, base.quota_us?))) else { continue };
        let cgroup = cgroups.get(&unit.id).copied();
        let (quota_us, why) = state.step(unit, base, cgroup, room, model, settings);
        let more = quota_us - base_us.min(quota_us);
        for node in std::iter::once(unit).chain(model.ancestors(&unit.path)) {
            let entry = grown.entry(&node.path).or_insert((node, 0));
            // As CPU: the periods may differ.
            entry.1 += more.saturating_mul(1_000_000) / base.period_us.max(1);
        }
        let quota = Setting::Quota(Bandwidth { quota_us: Some(quota_us), ..base });
        wants.push(want(unit, quota, &why));
        if matches!(settings.policy, BurstPolicy::Burst | BurstPolicy::Auto) {
            wants.extend(kernel_burst(unit, quota_us, base_us, settings));
        }
    }
    wants.extend(around(&grown, &wants, model));
    wants
}

/// The lowest LS cgroups with a quota.
fn units(model: &Model) -> Vec<&CgroupModel> {
    let eligible = |node: &CgroupModel| node.class == Class::Ls && node.finite_quota().is_some() && node.path != "/";
    let nodes = model.cgroups.values().filter(|node| eligible(node) && !node.unmanaged);
    nodes.filter(|node| !model.below(&node.path).any(eligible)).collect()
}

/// The quotas and bursts of what lies around cgroups that grew: as much more as those together.
fn around(grown: &BTreeMap<&str, (&CgroupModel, u64)>, units: &[Want], model: &Model) -> Vec<Want> {
    let mut wants = Vec::new();
    for (node, more) in grown.values() {
        let around = node.class != Class::Be && !units.iter().any(|want| want.id == node.id);
        let Some(base) = node.finite_quota().filter(|_| around) else { continue };
        let Some(base_us) = base.quota_us else { continue };
        let quota_us = base_us.saturating_add(more.saturating_mul(base.period_us).div_ceil(1_000_000));
        let why = format!("The quotas below it grew by {} mCPU together", more / 1000);
        wants.push(want(node, Setting::Quota(Bandwidth { quota_us: Some(quota_us), ..base }), &why));
        let bursts: u64 = units
            .iter()
            .filter(|want| model.ancestors(&want.path).any(|above| above.id == node.id))
            .filter_map(|want| match want.setting {
                Setting::Burst(us) => Some(us),
                _ => None,
            })
            .sum();
        if node.burst_us.is_some_and(|had| had < bursts) {
            wants.push(want(node, Setting::Burst(bursts.min(quota_us)), "The bursts below it together"));
        }
    }
    wants
}

/// The want for the kernel's burst; none where the kernel has none, or where there was more already.
fn kernel_burst(unit: &CgroupModel, quota_us: u64, base_us: u64, settings: &BurstSettings) -> Option<Want> {
    let us = burst_us(Some(quota_us), base_us, settings.burst_percent);
    let why = format!("{} % of its quota of {base_us} us, bounded by its quota", settings.burst_percent);
    unit.burst_us.filter(|had| *had < us).map(|_| want(unit, Setting::Burst(us), &why))
}

impl BurstState {
    /// The room over the last intervals.
    fn room(&mut self, model: &Model, settings: &BurstSettings) -> Room {
        let Some(all) = model.used_milli else { return Room::Unknown };
        let owns = |node: &&CgroupModel| matches!(node.class, Class::Plc | Class::Lse | Class::Lsr);
        let others = model.cgroups.values().filter(|node| owns(node) || node.class == Class::Be);
        let others: u64 = others.filter_map(|node| node.own_milli).sum();
        let asking = model.topmost(|node| owns(&node) && node.request_milli.is_some());
        let asked: u64 = asking.iter().filter_map(|node| node.request_milli).sum();
        if model.seconds > 0.0 {
            let size = model.capacity_milli().saturating_sub(asked) as f64;
            self.pool.push_back((model.seconds, all.saturating_sub(others) as f64, size));
        }
        while self.pool.len() > 1 && self.pool.iter().skip(1).map(|(s, ..)| s).sum::<f64>() >= settings.average_s {
            self.pool.pop_front();
        }
        let mean = |of: fn(&(f64, f64, f64)) -> f64| {
            let seconds: f64 = self.pool.iter().map(|(seconds, ..)| seconds).sum();
            self.pool.iter().map(|sample| sample.0 * of(sample)).sum::<f64>() / seconds
        };
        if self.pool.is_empty() {
            return Room::Unknown;
        }
        room(mean(|sample| sample.1), mean(|sample| sample.2), settings.share_pool_percent)
    }

    /// The quota of a unit after an interval, us, and why.
    fn step(
        &mut self,
        unit: &CgroupModel,
        base: Bandwidth,
        cgroup: Option<&Cgroup>,
        room: Room,
        model: &Model,
        settings: &BurstSettings,
    ) -> (u64, String) {
        let base_us = base.quota_us.unwrap_or_default();
        let capacity = settings.quota_period_s.max(0) as f64 * (settings.quota_percent.saturating_sub(100)) as f64;
        // Koordinator starts with a random part of up to a half, so that containers do not shrink all at once; a policy
        // has no randomness, so all start with the mean of that.
        let fresh = || Unit { quota_us: base_us, calm_s: 0.0, tokens: capacity * 0.25, capacity };
        let state = self.units.entry(unit.id).or_insert_with(fresh);
        if state.capacity != capacity {
            *state = Unit { quota_us: state.quota_us, ..fresh() };
        }
        if settings.policy == BurstPolicy::Burst {
            state.quota_us = base_us;
            return (base_us, String::new());
        }
        let throttled = cgroup.and_then(throttled);
        state.calm_s = if throttled == Some(true) { 0.0 } else { state.calm_s + model.seconds };
        let used_us = unit.used_milli.map(|used| used.saturating_mul(base.period_us) / 1000);
        let used_percent = used_us.map_or(100.0, |used| 100.0 * used as f64 / base_us.max(1) as f64);
        state.tokens = tokens_after(state.tokens, capacity, used_percent, model.seconds);
        let spent = settings.quota_period_s >= 0 && state.tokens <= 0.0;
        let asked = match throttled {
            _ if spent => QuotaStep::Down,
            Some(true) => QuotaStep::Up,
            _ => QuotaStep::Remain,
        };
        let next = |step| stepped(state.quota_us, base_us, step, settings.quota_percent, model.second());
        let mut step = gate(asked, room);
        let fits = used_us.is_some_and(|used| used.saturating_mul(10) <= next(QuotaStep::Down).saturating_mul(9));
        let decays =
            step == QuotaStep::Remain && throttled == Some(false) && state.calm_s >= settings.decay_after_s && fits;
        if decays {
            step = QuotaStep::Down;
        }
        let quota_us = next(step);
        let from = std::mem::replace(&mut state.quota_us, quota_us);
        let cause = match (throttled, room) {
            _ if spent => "it used up what it may exceed its quota by",
            (_, Room::Overload) => "the shared CPUs are overloaded",
            _ if decays => "it was not throttled any more",
            (Some(true), Room::Idle) => "it was throttled and the shared CPUs have room",
            _ => "neither throttles nor room ask for a change",
        };
        (quota_us, format!("Its quota was {base_us} us and goes from {from} to {quota_us} us: {cause}"))
    }
}

/// Whether the cgroup's own quota ran out in the interval; `None` where that was not seen.
fn throttled(cgroup: &Cgroup) -> Option<bool> {
    let counted = cgroup.throttle.source.as_ref().map(|_| cgroup.throttle.count > 0);
    cgroup.throttle.cpu_stat.map(|stat| stat.nr_throttled > 0).or(counted)
}

fn want(node: &CgroupModel, setting: Setting, reason: &str) -> Want {
    let used = node.used_milli.map(|used| (format!("cgroups[{}].used_milli", node.path), used as f64));
    Want {
        path: node.path.clone(),
        id: node.id,
        setting,
        origin: Origin::Burst,
        direction: Direction::Lift,
        reason: reason.to_owned(),
        evidence: used.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_koordinators_node_state() {
        for (used, size, room_is) in [
            (0.0, 16_000.0, Room::Idle),
            (7199.0, 16_000.0, Room::Idle),
            (7200.0, 16_000.0, Room::Cooling),
            (7999.0, 16_000.0, Room::Cooling),
            (8000.0, 16_000.0, Room::Overload),
            // LSE and LSR own everything: no pool is a full pool.
            (0.0, 0.0, Room::Overload),
        ] {
            assert_eq!(room(used, size, 50), room_is, "{used} of {size}");
        }
    }

    #[test]
    fn the_room_gates_a_step_as_koordinators_node_state_does() {
        use QuotaStep::{Down, Remain, Up};
        use Room::{Cooling, Idle, Overload, Unknown};
        for (room, up, remain) in
            [(Idle, Up, Remain), (Cooling, Remain, Remain), (Unknown, Remain, Remain), (Overload, Down, Down)]
        {
            assert_eq!((gate(Up, room), gate(Remain, room), gate(Down, room)), (up, remain, Down), "{room:?}");
        }
    }

    #[test]
    fn a_quota_grows_to_three_times_in_seven_steps_and_is_back_after_five() {
        let mut quota = 100_000;
        let mut path = Vec::new();
        for _ in 0..7 {
            quota = stepped(quota, 100_000, QuotaStep::Up, 300, 1.0);
            path.push(quota);
        }
        assert_eq!(path, [120_000, 144_000, 172_800, 207_360, 248_832, 298_598, 300_000]);
        path.clear();
        for _ in 0..5 {
            quota = stepped(quota, 100_000, QuotaStep::Down, 300, 1.0);
            path.push(quota);
        }
        assert_eq!(path, [240_000, 192_000, 153_600, 122_880, 100_000]);
    }

    #[test]
    fn steps_stay_within_base_and_ceiling_and_take_time() {
        for (quota, step, percent, second, after) in [
            (100_000, QuotaStep::Remain, 300, 1.0, 100_000),
            (100_000, QuotaStep::Down, 300, 1.0, 100_000),
            (100_000, QuotaStep::Up, 100, 1.0, 100_000),
            (500_000, QuotaStep::Remain, 300, 1.0, 300_000),
            (50_000, QuotaStep::Remain, 300, 1.0, 100_000),
            (100_000, QuotaStep::Up, 300, 0.0, 100_000),
            (100_000, QuotaStep::Up, 300, 0.1, 102_000),
            (u64::MAX, QuotaStep::Up, 300, 1.0, 300_000),
        ] {
            assert_eq!(stepped(quota, 100_000, step, percent, second), after, "{quota} {step:?} {percent} {second}");
        }
    }

    #[test]
    fn a_burst_is_never_above_the_quota() {
        for (quota, base, percent, burst) in [
            // Koordinator's default of ten times the limit is what mainline kernels refuse.
            (Some(100_000), 100_000, 1000, 100_000),
            (Some(300_000), 100_000, 1000, 300_000),
            (Some(100_000), 100_000, 50, 50_000),
            (None, 100_000, 1000, 0),
        ] {
            assert_eq!(burst_us(quota, base, percent), burst, "{quota:?} {base} {percent}");
        }
    }

    #[test]
    fn tokens_are_spent_above_the_limit_and_earned_well_below_it() {
        // 300 % for 20 s: 4000 percent-seconds.
        for (tokens, used, seconds, after) in [
            (1000.0, 200.0, 1.0, 900.0),
            (1000.0, 100.0, 1.0, 1000.0),
            (1000.0, 99.0, 1.0, 1000.0),
            (1000.0, 60.0, 1.0, 1000.0),
            (1000.0, 59.0, 1.0, 1041.0),
            (1000.0, 0.0, 1.0, 1100.0),
            // Koordinator cuts the time to whole seconds, so that a loop of less than one never spends any.
            (1000.0, 200.0, 0.5, 950.0),
            (3990.0, 0.0, 1.0, 4000.0),
            (-3990.0, 300.0, 1.0, -4000.0),
        ] {
            assert_eq!(tokens_after(tokens, 4000.0, used, seconds), after, "{tokens} {used} {seconds}");
        }
    }
}
