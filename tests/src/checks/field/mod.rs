//! Checks on a real node: systemd as PID 1, Docker, containerd and podman, in a field guest. What they share stands in
//! `shell` (commands with a deadline), `plc` (the same control loop started by every kind of runtime and unit), `picture`
//! (what the node's limits were, by its files and by systemd) and `played` (guard at work on all of it). `systemd` has the rules
//! for what else changes a unit meanwhile.

mod cri;
mod picture;
mod played;
mod plc;
mod shell;
mod systemd;
mod unit;

use super::{by_name, loads};
use crate::scenario::Scenario;

/// Checks for a booted field guest; with `brief` only those in which the guest's kernel has a part.
#[must_use]
pub(super) fn all(brief: bool) -> Vec<Scenario> {
    let mut all = played::all();
    all.extend(systemd::all().into_iter().map(|rule| if brief { by_name(rule, SYSTEMDS) } else { rule }));
    all.push(loads("the shipped unit enforces, reloads, survives a kill and puts everything back", unit::as_shipped));
    all
}

/// Why a second kernel does not run the rules beside systemd.
const SYSTEMDS: &str = "systemd and the engines decide it, whose versions are the same under each kernel";

/// Why this is no field guest; `None` in one.
pub(super) fn no_field() -> Option<String> {
    let missing =
        ["systemctl", "docker", "podman", "ctr"].into_iter().find(|program| crate::harness::binary(program).is_err());
    missing.map(|program| format!("no field guest: {program} is not installed"))
}
