//! Decides by the policies, and passes what they want to the writers; without writers it reports what it would do.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use guard_common::event::BreachKind;

use super::lane::CgroupKnob;
use super::writers::{self, Writers};
use crate::kernel::Event;
use crate::knob::Knob;
use crate::policy::{self, Plan, PolicySettings, PolicyState, Trigger, Want};
use crate::snapshot::{Action, ActionState, Cgroup, CgroupPath, Class, Snapshot};

/// What decides, and what it does about it.
#[derive(Debug)]
pub(super) struct Actor {
    settings: PolicySettings,
    state: PolicyState,
    /// `None` when nothing may be written.
    writers: Option<Writers>,
    /// Without writers: what was planned last, so that only changes are reported.
    planned: BTreeMap<CgroupKnob, Want>,
    notes: Vec<String>,
    /// The notes of the last decision, if they were other than those before.
    fresh_notes: Vec<String>,
    hands_off: Option<String>,
    /// Late fair tasks reported so far, by cgroup.
    late_reported: HashMap<u64, u64>,
}

/// Most best-effort cgroups whose originals are journalled before anything is wanted of them. Those beyond wait for the
/// disk when they are first shrunk.
const BEST_EFFORT_PREPARED: usize = 256;

impl Actor {
    pub(super) fn new(settings: PolicySettings, writers: Option<Writers>) -> Self {
        Self {
            settings,
            state: PolicyState::default(),
            writers,
            planned: BTreeMap::new(),
            notes: Vec::new(),
            fresh_notes: Vec::new(),
            hands_off: None,
            late_reported: HashMap::new(),
        }
    }

    /// Takes other settings; they count from the next decision on.
    pub(super) fn reconfigure(&mut self, settings: PolicySettings) {
        self.settings = settings;
    }

    /// The writers, where there are any.
    pub(super) fn writers(&mut self) -> Option<&mut Writers> {
        self.writers.as_mut()
    }

    /// Decides what to do after a window, has it done or reports it, and writes into the Snapshot what was done in the
    /// window. Returns the cgroups whose throttles cannot wait.
    pub(super) fn decide(&mut self, snapshot: &mut Snapshot) -> HashSet<u64> {
        let mut plan = policy::decide(snapshot, &self.settings, &mut self.state);
        self.note_hands_off(snapshot);
        if self.hands_off.is_some() {
            plan = Plan::default();
        }
        self.fresh_notes.clear();
        if plan.notes != self.notes {
            plan.notes.iter().for_each(|note| tracing::info!("{note}"));
            self.notes.clone_from(&plan.notes);
            self.fresh_notes = std::mem::take(&mut plan.notes);
        }
        let plc = if self.hands_off.is_some() { BTreeMap::new() } else { plc_and_ancestors(&snapshot.cgroups) };
        match &mut self.writers {
            Some(writers) => {
                snapshot.actions = writers.actions();
                writers.prepare(urgent_knobs(&snapshot.cgroups, &plc), best_effort_knobs(&snapshot.cgroups));
                writers.want(plan.wants);
            }
            None => snapshot.actions = self.plan_changes(snapshot, plan.wants),
        }
        self.late_reported.retain(|id, _| snapshot.cgroups.iter().any(|cgroup| cgroup.id == *id));
        plc.into_keys().collect()
    }

    /// What the policies said at the last decision and had not said before.
    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.fresh_notes)
    }

    /// Writes into the last Snapshot what was done, or would be.
    pub(super) fn conclude(&mut self, snapshot: &mut Snapshot) {
        match &mut self.writers {
            Some(writers) => snapshot.actions = writers.actions(),
            None => drop(self.decide(snapshot)),
        }
    }

    /// Whether anything may be written now.
    pub(super) fn may_act(&self) -> bool {
        self.writers.is_some() && self.hands_off.is_none()
    }

    /// Per cgroup, the wait in ns that suppress answers at once.
    pub(super) fn late_from(&self) -> HashMap<u64, u64> {
        if self.may_act() { policy::late_from(&self.state) } else { HashMap::new() }
    }

    /// Does at once what new PLC cgroups need; `cgroups` as [`policy::discover`] wants them. Returns the
    /// cgroups whose throttles cannot wait.
    pub(super) fn discover(&mut self, cgroups: &[Cgroup]) -> HashSet<u64> {
        let Some(writers) = self.writers.as_mut().filter(|_| self.hands_off.is_none()) else { return HashSet::new() };
        let wants = policy::discover(cgroups, &self.settings, &mut self.state);
        if !wants.is_empty() {
            writers.want_also(wants);
        }
        let plc = plc_and_ancestors(cgroups);
        writers.prepare_also(urgent_knobs(cgroups, &plc));
        plc.into_keys().collect()
    }

    /// Does at once what events ask for.
    pub(super) fn react(&mut self, events: &[Event]) {
        if self.hands_off.is_some() {
            return;
        }
        let Some(writers) = &mut self.writers else { return };
        let mut wants = Vec::new();
        for trigger in triggers(events, &mut self.late_reported) {
            wants.extend(policy::react(&trigger, &self.settings, &mut self.state));
        }
        if !wants.is_empty() {
            writers.want_also(wants);
        }
    }

    fn note_hands_off(&mut self, snapshot: &Snapshot) {
        let now = &snapshot.node.hands_off;
        if *now == self.hands_off {
            return;
        }
        match now {
            Some(reason) => tracing::warn!("guard writes nothing from now on, and puts back what it holds: {reason}"),
            None => tracing::warn!("guard may write again"),
        }
        self.hands_off.clone_from(now);
    }

    /// What would be done, as far as it differs from what was reported before.
    fn plan_changes(&mut self, snapshot: &Snapshot, wants: Vec<Want>) -> Vec<Action> {
        let wants: BTreeMap<CgroupKnob, Want> = wants.into_iter().map(|w| ((w.id, w.setting.knob()), w)).collect();
        let before = std::mem::replace(&mut self.planned, wants);
        let fresh = self
            .planned
            .iter()
            .filter(|(key, want)| before.get(*key).is_none_or(|reported| reported.setting != want.setting));
        let fresh = fresh.map(|(_, want)| planned(snapshot, want));
        let dropped = before.iter().filter(|(key, _)| !self.planned.contains_key(*key));
        fresh.chain(dropped.map(|(_, want)| taken_back(want))).collect()
    }
}

/// A want as an action that is not done.
pub(super) fn planned(snapshot: &Snapshot, want: &Want) -> Action {
    let cgroup = snapshot.cgroups.iter().find(|cgroup| cgroup.id == want.id);
    let knobs = cgroup.and_then(|cgroup| cgroup.knobs.as_ref());
    let old = knobs.and_then(|knobs| want.setting.knob().reading(knobs));
    Action {
        at: writers::now(),
        knob: want.setting.knob().name().to_owned(),
        path: want.path.clone(),
        old: old.map(|setting| setting.to_string()).unwrap_or_default(),
        new: want.setting.to_string(),
        reason: want.reason.clone(),
        evidence: want.evidence.clone(),
        result: ActionState::Planned.into(),
    }
}

fn taken_back(want: &Want) -> Action {
    Action {
        at: writers::now(),
        knob: want.setting.knob().name().to_owned(),
        path: want.path.clone(),
        old: want.setting.to_string(),
        new: String::new(),
        reason: format!("to be put back, because this holds no longer: {}", want.reason),
        evidence: BTreeMap::new(),
        result: ActionState::Planned.into(),
    }
}

/// Of many events of a cgroup one trigger each: that it was throttled, and the worst of its late wake-ups. `reported`
/// is how many late fair tasks of a cgroup were reported before.
fn triggers(events: &[Event], reported: &mut HashMap<u64, u64>) -> Vec<Trigger> {
    let mut throttled = BTreeSet::new();
    let mut late: BTreeMap<u64, LateWakeups> = BTreeMap::new();
    let mut add = |id: u64, one: LateWakeups| {
        let all = late.entry(id).or_insert(LateWakeups { times: 0, ..one });
        let times = all.times.saturating_add(one.times);
        if one.latency_ns > all.latency_ns {
            *all = one;
        }
        all.times = times;
    };
    for event in events {
        match event {
            Event::Throttled(event) => {
                throttled.insert(event.cgroup_id);
            }
            // Whoever slept for a lock is not helped by taking the CPU from others.
            Event::Late(breach) if breach.kind == BreachKind::Blocked as u32 => {}
            Event::Late(breach) => {
                let latency_ns = breach.switched_in_ns.saturating_sub(breach.since_ns);
                let (at_ns, by) = (breach.switched_in_ns, breach.prev_cgroup_id);
                add(breach.cgroup_id, LateWakeups { at_ns, latency_ns, times: 1, by });
            }
            Event::LateFair(event) => {
                let before = reported.insert(event.cgroup_id, event.late).filter(|before| *before <= event.late);
                let times = event.late - before.unwrap_or(0);
                let (at_ns, latency_ns) = (event.at_ns, event.wait_ns);
                add(event.cgroup_id, LateWakeups { at_ns, latency_ns, times, by: event.prev_cgroup_id });
            }
            Event::NewRealTime(_) => {}
        }
    }
    let throttled = throttled.into_iter().map(|id| Trigger::Throttled { id });
    let late = late.into_iter().map(|(id, LateWakeups { at_ns, latency_ns, times, by })| Trigger::Late {
        id,
        at_ns,
        latency_ns,
        times,
        by,
    });
    throttled.chain(late).collect()
}

/// Late wake-ups of a cgroup: how many, and the worst of them.
#[derive(Clone, Copy, Debug)]
struct LateWakeups {
    at_ns: u64,
    latency_ns: u64,
    times: u64,
    by: u64,
}

/// The PLC cgroups that guard may change and everything that contains them but the root, with their paths by id.
fn plc_and_ancestors(cgroups: &[Cgroup]) -> BTreeMap<u64, String> {
    let ids: HashMap<&str, u64> = cgroups.iter().filter(|c| c.id != 0).map(|c| (c.path.as_str(), c.id)).collect();
    let plc = cgroups.iter().filter(|c| c.class == Class::Plc && !c.unmanaged);
    plc.flat_map(|cgroup| CgroupPath::of(&cgroup.path).and_above())
        .filter(|path| *path != "/")
        .filter_map(|path| Some((*ids.get(path)?, path.to_owned())))
        .collect()
}

/// The knobs of these cgroups that protecting them may need in a hurry.
fn urgent_knobs(cgroups: &[Cgroup], plc: &BTreeMap<u64, String>) -> BTreeMap<CgroupKnob, String> {
    let cgroups = cgroups.iter().filter(|cgroup| plc.contains_key(&cgroup.id));
    cgroups
        .flat_map(|cgroup| {
            let there = |knob: &Knob| cgroup.knobs.as_ref().is_some_and(|knobs| knob.reading(knobs).is_some());
            let knobs = [Knob::Quota, Knob::Burst, Knob::Shares].into_iter().filter(there);
            knobs.map(|knob| ((cgroup.id, knob), cgroup.path.clone()))
        })
        .collect()
}

/// Quotas to journal before best-effort work is shrunk: of its topmost cgroups, and of those below that have a limit.
fn best_effort_knobs(cgroups: &[Cgroup]) -> BTreeMap<CgroupKnob, String> {
    let may = |cgroup: &&Cgroup| cgroup.class == Class::Be && !cgroup.unmanaged && cgroup.id != 0;
    let paths: HashSet<&str> = cgroups.iter().filter(may).map(|cgroup| cgroup.path.as_str()).collect();
    let quota = |cgroup: &Cgroup| cgroup.knobs.as_ref().and_then(|knobs| knobs.quota);
    let is_top = |cgroup: &Cgroup| !CgroupPath::of(&cgroup.path).above().any(|path| paths.contains(path));
    cgroups
        .iter()
        .filter(may)
        .filter(|cgroup| quota(cgroup).is_some_and(|quota| quota.quota_us.is_some() || is_top(cgroup)))
        .take(BEST_EFFORT_PREPARED)
        .map(|cgroup| ((cgroup.id, Knob::Quota), cgroup.path.clone()))
        .collect()
}
