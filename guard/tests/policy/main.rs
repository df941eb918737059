//! The policies over a simulated node in virtual time: over generated nodes, loads and settings (what must never
//! happen), and over scenario files (what must happen, and when).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod generate;
mod properties;
mod scenarios;
mod sim;

use guard::{
    knob::{Knob, Setting},
    policy::{Origin, Plan},
};

/// What a Plan leaves best-effort work, in thousandths of a CPU, by quota; the capacity where nothing is wanted.
fn allowance_milli(plan: &Plan, capacity: u64) -> u64 {
    let quotas = plan.wants.iter().filter(|want| want.origin == Origin::Suppress && want.setting.knob() == Knob::Quota);
    let tops = quotas.filter(|want| !plan.wants.iter().any(|other| want.path.starts_with(&format!("{}/", other.path))));
    let milli: Vec<u64> = tops
        .filter_map(|want| match &want.setting {
            Setting::Quota(quota) => quota.milli(),
            _ => None,
        })
        .collect();
    if milli.is_empty() { capacity } else { milli.iter().sum() }
}

/// How often a sequence changes its direction.
fn turns(values: &[u64]) -> usize {
    let moves: Vec<bool> = values.windows(2).filter(|pair| pair[0] != pair[1]).map(|pair| pair[0] < pair[1]).collect();
    moves.windows(2).filter(|pair| pair[0] != pair[1]).count()
}
