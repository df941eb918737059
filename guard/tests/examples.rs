//! The examples do what they say, on the recording that comes with guard, and the README shows what guard prints of it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail like tests")]

use std::path::Path;

#[allow(dead_code, reason = "main is for cargo run")]
#[path = "../examples/gate.rs"]
mod gate;
#[allow(dead_code, reason = "main is for cargo run")]
#[path = "../examples/policy.rs"]
mod policy;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/example.guardrec");

#[test]
fn the_policies_plan_after_each_snapshot_of_a_recording() {
    let text = policy::plans(Path::new(RECORDING)).unwrap();
    let windows = text.lines().filter(|line| line.contains(" cgroups, ")).count();
    assert!(windows > 1, "{text}");
    assert!(text.contains("suppress: no best-effort cgroup that may be shrunk"), "{text}");
}

#[test]
fn the_gate_judges_a_recording_by_a_budget() {
    let budget = |limit: &str| {
        format!("[[budget]]\nworkload = \"/cell-control\"\nmetric = \"timer.max\"\nlimit = \"{limit}\"\n")
    };
    let outcome = |limit| gate::verdict(Path::new(RECORDING), &budget(limit)).unwrap().outcome;
    assert_eq!(outcome("10s"), guard::gate::GateOutcome::Pass);
    assert_eq!(outcome("1us"), guard::gate::GateOutcome::Regression);
}

#[test]
fn the_sample_in_the_readme_is_what_guard_prints() {
    let guard = env!("CARGO_BIN_EXE_guard");
    let output = std::process::Command::new(guard).args(["report", "--replay", RECORDING]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(include_str!("../../README.md").contains(&format!("```\n{printed}```\n")), "{printed}");
}
