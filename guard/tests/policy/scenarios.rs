//! Scenario files: a node, its loads over time, settings, and what is expected when.

use std::{fs, path::Path};

use guard::{
    knob::Knob,
    policy::{PolicySettings, PolicyState, decide},
    snapshot::Bandwidth,
};
use serde::Deserialize;

use crate::{
    allowance_milli,
    sim::{Machine, Sim, id_of},
    turns,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    #[serde(rename = "about")]
    _about: String,
    seconds: u32,
    #[serde(default)]
    settings: PolicySettings,
    machine: Machine,
    /// How often the allowance of best-effort work may change its direction.
    max_turns: usize,
    expect: Vec<Expect>,
}

/// What must hold from one instant to another, after the Plan of each interval that ends in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    from_s: f64,
    to_s: f64,
    /// The cgroup that is looked at.
    path: String,
    /// Text of a knob; "-" for one that is not wanted.
    #[serde(default)]
    knob: Option<(Knob, String)>,
    /// CPUs that its quota allows, in thousandths, at least and at most.
    #[serde(default)]
    milli: Option<(u64, u64)>,
    /// Its wake-up latency in the interval (p99) at most, us.
    #[serde(default)]
    p99_us: Option<u64>,
    /// A part of one of the Plan's notes.
    #[serde(default)]
    note: Option<String>,
}

#[test]
fn every_scenario_goes_as_its_file_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let scenario: Scenario =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        play(&path.file_name().unwrap().to_string_lossy(), scenario);
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} scenarios in {}", dir.display());
}

fn play(name: &str, scenario: Scenario) {
    scenario.settings.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut sim = Sim::new(scenario.machine);
    let (mut state, mut allowances) = (PolicyState::default(), Vec::new());
    let mut met = vec![0; scenario.expect.len()];
    for _ in 0..scenario.seconds {
        let snapshot = sim.run(1.0);
        let plan = decide(&snapshot, &scenario.settings, &mut state);
        let at = sim.now_s;
        sim.apply(&plan).unwrap_or_else(|error| panic!("{name} at {at} s: {error}"));
        allowances.push(allowance_milli(&plan, sim.capacity_milli()));
        for (expect, met) in scenario.expect.iter().zip(&mut met) {
            if at < expect.from_s || at > expect.to_s {
                continue;
            }
            *met += 1;
            let here = format!("{name} at {at} s, {}", expect.path);
            let index = sim.machine().cgroups.iter().position(|group| group.path == expect.path);
            let id = id_of(index.unwrap_or_else(|| panic!("{here}: no such cgroup")));
            if let Some((knob, text)) = &expect.knob {
                let wanted = plan.want(id, *knob).map_or_else(|| "-".to_owned(), |want| want.setting.to_string());
                assert_eq!(&wanted, text, "{here}, {knob}: {plan:#?}");
            }
            if let Some((least, most)) = expect.milli {
                let quota = sim.knobs[&id].quota.and_then(Bandwidth::milli).unwrap_or(sim.capacity_milli());
                assert!((least..=most).contains(&quota), "{here}: {quota} mCPU, not {least} to {most}: {plan:#?}");
            }
            if let Some(most_us) = expect.p99_us {
                let cgroup = snapshot.cgroups.iter().find(|cgroup| cgroup.id == id).unwrap();
                let p99_ns = cgroup.wakeup.rt.quantile_ns(0.99).max(cgroup.wakeup.fair.quantile_ns(0.99));
                assert!(p99_ns <= most_us * 1000, "{here}: p99 is {p99_ns} ns, not {most_us} us at most");
            }
            if let Some(part) = &expect.note {
                assert!(plan.notes.iter().any(|note| note.contains(part)), "{here}: no {part:?} in {:#?}", plan.notes);
            }
        }
    }
    let unmet = met.iter().position(|met| *met == 0);
    assert_eq!(unmet, None, "{name}: an expectation lies outside its {} s", scenario.seconds);
    let turns = turns(&allowances);
    assert!(turns <= scenario.max_turns, "{name}: {turns} turns: {allowances:?}");
}
