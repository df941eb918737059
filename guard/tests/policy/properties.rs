//! What must hold for every node, load and setting.

use guard::{
    knob::{Knob, Setting},
    policy::{Direction, Origin, Plan, PolicySettings, PolicyState, Trigger, Want, decide, react, suppress::Profile},
    snapshot::{Class, CpuList, Snapshot},
};
use proptest::prelude::*;

use crate::{
    allowance_milli,
    generate::{machine, settings},
    sim::{Machine, Sim, id_of},
    turns,
};

fn class(snapshot: &Snapshot, id: u64) -> Class {
    snapshot.cgroups.iter().find(|cgroup| cgroup.id == id).map_or(Class::Ls, |cgroup| cgroup.class)
}

/// What a Plan, or wants between two, must never hold, besides what the simulated kernel refuses.
fn check(snapshot: &Snapshot, settings: &PolicySettings, wants: &[Want]) -> Result<(), TestCaseError> {
    let keys: Vec<(&str, Knob)> = wants.iter().map(|want| (want.path.as_str(), want.setting.knob())).collect();
    prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "not ordered, or two owners: {keys:?}");
    for want in wants.iter().filter(|want| want.origin == Origin::Suppress) {
        prop_assert_eq!(class(snapshot, want.id), Class::Be, "{:?}", want);
        prop_assert_eq!(want.direction, Direction::Reduce);
        for below in snapshot.cgroups.iter().filter(|cgroup| cgroup.path.starts_with(&format!("{}/", want.path))) {
            prop_assert_eq!(below.class, Class::Be, "{} is below {:?}", below.path, want);
            prop_assert!(!below.unmanaged, "{} is below {want:?}", below.path);
        }
        let within = |other: &&Want| want.path.starts_with(&format!("{}/", other.path));
        if let Setting::Quota(quota) = want.setting
            && !wants.iter().any(|other| within(&other) && other.setting.knob() == Knob::Quota)
        {
            // A quota that was found smaller stays: it is not raised to the floor.
            let floor = settings.suppress.min_quota_milli;
            prop_assert!(quota.milli().unwrap() + 1 >= floor, "{want:?} is below the floor of {floor} mCPU");
        }
    }
    Ok(())
}

/// Best-effort work never gets a CPU that a PLC or LSE was given or had alone, or that the system keeps.
fn check_cpus(snapshot: &Snapshot, wants: &[Want]) -> Result<(), TestCaseError> {
    let cpus = |want: &Want| match &want.setting {
        Setting::Cpus(cpus) => Some(cpus.clone()),
        _ => None,
    };
    let given = wants.iter().filter(|want| want.origin == Origin::Cpuset && want.direction == Direction::Lift);
    let given: Vec<(&Want, CpuList)> = given.filter_map(|want| Some((want, cpus(want)?))).collect();
    // What lies below a cgroup that was given CPUs has the same ones.
    let is_top = |want: &Want| !given.iter().any(|(other, _)| want.path.starts_with(&format!("{}/", other.path)));
    let given: Vec<&(&Want, CpuList)> = given.iter().filter(|(want, _)| is_top(want)).collect();
    for (want, own) in &given {
        prop_assert!(own.iter().all(|cpu| !snapshot.node.reserved_cpus.contains(cpu)), "{want:?} takes the system's");
        for (other, theirs) in &given {
            prop_assert!(
                want.id == other.id || own.iter().all(|cpu| !theirs.contains(cpu)),
                "{want:?} and {other:?} share CPUs"
            );
        }
    }
    for want in wants.iter().filter(|want| want.direction == Direction::Reduce) {
        let Some(shared) = cpus(want) else { continue };
        for (owner, own) in &given {
            let exclusive = matches!(class(snapshot, owner.id), Class::Plc | Class::Lse);
            let apart = !want.path.starts_with(&format!("{}/", owner.path));
            prop_assert!(
                !(exclusive && apart) || shared.iter().all(|cpu| !own.contains(cpu)),
                "{want:?} runs on {owner:?}"
            );
        }
    }
    Ok(())
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        (95_u64..115).prop_map(|id| Trigger::Throttled { id }),
        (95_u64..115, any::<u64>(), 0_u64..10_000_000, any::<u64>(), 95_u64..115)
            .prop_map(|(id, at_ns, latency_ns, times, by)| Trigger::Late { id, at_ns, times, latency_ns, by }),
    ]
}

fn fails(result: Result<(), String>) -> Result<(), TestCaseError> {
    result.map_err(TestCaseError::fail)
}

/// Runs the loop with a constant load until it ends, and gives what best-effort work was allowed at each step.
fn allowances(machine: Machine, settings: &PolicySettings, seconds: u32) -> Vec<u64> {
    let mut sim = Sim::new(machine);
    let mut state = PolicyState::default();
    (0..seconds)
        .map(|_| {
            let plan = decide(&sim.run(1.0), settings, &mut state);
            sim.apply(&plan).unwrap();
            allowance_milli(&plan, sim.capacity_milli())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_must_never_happen_never_happens(
        machine in machine(),
        settings in settings(),
        steps in prop::collection::vec((prop_oneof![Just(1.0), 0.05_f64..3.0], prop::collection::vec(trigger(), 0..3)), 1..30),
    ) {
        prop_assert_eq!(settings.validate(), Ok(()));
        let mut sim = Sim::new(machine);
        let mut state = PolicyState::default();
        for (seconds, triggers) in steps {
            for trigger in triggers {
                let wants = react(&trigger, &settings, &mut state);
                fails(sim.add(&wants))?;
            }
            let snapshot = sim.run(seconds);
            let mut again = state.clone();
            let plan = decide(&snapshot, &settings, &mut state);
            prop_assert_eq!(&plan, &decide(&snapshot, &settings, &mut again), "not the same twice");
            check(&snapshot, &settings, &plan.wants)?;
            check_cpus(&snapshot, &plan.wants)?;
            fails(sim.apply(&plan))?;
        }
    }

    #[test]
    fn best_effort_work_gets_more_by_a_tenth_of_the_node_at_most(
        machine in machine(), settings in settings(), seconds in 1_u32..60,
    ) {
        let capacity = u64::from(machine.cpus) * 1000;
        let targets = machine.cgroups.len() as u64;
        // Who shares a lock changes who is shrunk, thus the sum.
        let mut machine = machine;
        machine.cgroups.iter_mut().for_each(|group| group.boosts.clear());
        let allowed = allowances(machine, &settings, seconds);
        for pair in allowed.windows(2).filter(|pair| pair[1] > pair[0] && pair[1] != capacity) {
            // What one target leaves is rounded, and one that reaches its own quota is in the sum no more.
            prop_assert!(pair[1] - pair[0] <= capacity / 10 + targets, "{allowed:?}");
        }
    }

    #[test]
    fn a_plan_that_was_applied_is_wanted_again(machine in machine(), settings in settings()) {
        let mut sim = Sim::new(machine);
        let mut state = PolicyState::default();
        let snapshot = sim.run(1.0);
        let plan = decide(&snapshot, &settings, &mut state);
        fails(sim.apply(&plan))?;
        // The same interval, with the knobs as they are now; no time has passed.
        let mut applied = snapshot.clone();
        applied.window.seconds = 0.0;
        for (index, _) in sim.machine().cgroups.iter().enumerate() {
            for cgroup in applied.cgroups.iter_mut().filter(|cgroup| cgroup.id == id_of(index)) {
                cgroup.knobs = sim.knobs.get(&id_of(index)).cloned();
            }
        }
        let again = decide(&applied, &settings, &mut state);
        let values = |plan: &Plan| -> Vec<(String, Setting)> {
            plan.wants.iter().map(|want| (want.path.clone(), want.setting.clone())).collect()
        };
        prop_assert_eq!(values(&again), values(&plan));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_constant_load_is_answered_without_swinging(machine in machine(), settings in settings()) {
        let mut machine = machine;
        for group in &mut machine.cgroups {
            group.demand.iter_mut().for_each(|step| step.0 = 0.0);
            group.boosts.clear();
        }
        let allowed = allowances(machine, &settings, 600);
        // In 10 minutes the memory of 60 s doubles until it spans the rest: 60 + 120 + 240 s and the climbs between.
        prop_assert!(turns(&allowed) <= 8, "{} turns: {allowed:?}", turns(&allowed));
    }

    #[test]
    fn when_the_reason_is_gone_everything_goes_back(machine in machine(), settings in settings()) {
        let mut settings = settings;
        // The formulas hold best-effort work to their figure even without a reason.
        if settings.suppress.profile != Profile::Off {
            settings.suppress.profile = Profile::Latency;
        }
        let mut machine = machine;
        for group in &mut machine.cgroups {
            group.demand.retain(|step| step.0 < 20.0);
            group.demand.push((20.0, 0));
            // Late only by what best-effort work does.
            group.base_us = 1;
            group.absent = (group.class == Class::Plc).then_some((20.0, f64::INFINITY));
        }
        settings.cpuset.hold_s = 5.0;
        let mut sim = Sim::new(machine);
        let mut state = PolicyState::default();
        let mut plan = Plan::default();
        for _ in 0..400 {
            plan = decide(&sim.run(1.0), &settings, &mut state);
            fails(sim.apply(&plan))?;
        }
        let left: Vec<&Want> = plan.wants.iter().filter(|want| matches!(want.origin, Origin::Protect | Origin::Suppress)).collect();
        prop_assert!(left.is_empty(), "{left:#?}");
    }
}
