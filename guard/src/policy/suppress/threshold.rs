//! Profile "threshold": Koordinator's formula over utilisation (koordlet's cpusuppress plugin), in its integers.

use super::decision::Decision;
use super::settings::SuppressSettings;
use super::targets::{Why, used_milli};
use crate::policy::model::{CgroupModel, Model};

/// What the formula takes, in thousandths of a CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    pub capacity: u64,
    /// All work.
    pub node: u64,
    /// Best-effort work.
    pub be: u64,
    /// LS, LSR, LSE and PLC.
    pub non_be: u64,
    /// Kept for the system.
    pub reserved: u64,
}

/// capacity × percent / 100 − what other work uses − max(what the system uses, what is kept for it). May be negative.
pub(super) fn allowance_milli(used: Use, percent: u64) -> i64 {
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let system = int(used.node).saturating_sub(int(used.non_be)).saturating_sub(int(used.be)).max(int(used.reserved));
    int(used.capacity.saturating_mul(percent) / 100).saturating_sub(int(used.non_be)).saturating_sub(system)
}

/// Whether the change is too small to be made: less than a share of the node, unless it leads to the floor.
pub(super) fn bypasses(new: u64, current: Option<u64>, floor: u64, capacity: u64, percent: u64) -> bool {
    current.is_some_and(|current| new.abs_diff(current) < capacity * percent / 100 && new != floor)
}

pub(super) fn decide(
    model: &Model,
    targets: &[&CgroupModel],
    settings: &SuppressSettings,
    current: Option<u64>,
    floor: u64,
) -> Decision {
    let (Some(node), Some(be)) = (model.used_milli, used_milli(targets)) else {
        return Decision::Keep("the CPU time of the node or of its best-effort work was not read".into());
    };
    let inside = model.subtrees(targets);
    let non_be = model
        .cgroups
        .values()
        .filter(|node| node.is_sensitive() && !inside.contains(&node.id))
        .filter_map(|node| node.own_milli)
        .sum();
    let reserved = settings.reserved_milli.max(model.reserved.len() as u64 * 1000);
    let used = Use { capacity: model.capacity_milli(), node, be, non_be, reserved };
    let allowance = allowance_milli(used, settings.threshold.percent);
    let new = u64::try_from(allowance).unwrap_or(0).max(floor);
    if bypasses(new, current, floor, used.capacity, settings.threshold.bypass_percent) {
        return Decision::Stay;
    }
    let why = Why {
        reason: format!(
            "{} % of {} mCPU less {non_be} mCPU used by other work and {} mCPU for the system leaves {allowance} mCPU",
            settings.threshold.percent,
            used.capacity,
            node.saturating_sub(non_be).saturating_sub(be).max(reserved),
        ),
        evidence: [
            ("node.used_milli", node),
            ("be.used_milli", be),
            ("non_be.used_milli", non_be),
            ("reserved_milli", reserved),
        ]
        .map(|(name, value)| (name.to_owned(), value as f64))
        .into(),
    };
    Decision::Allow { milli: Some(new), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_is_koordinators() {
        let used = |capacity, node, be, non_be, reserved| Use { capacity, node, be, non_be, reserved };
        for (name, used, percent, allowance) in [
            ("idle node", used(16_000, 0, 0, 0, 0), 65, 10_400),
            ("non-BE use counts", used(16_000, 5000, 1000, 3000, 0), 65, 10_400 - 3000 - 1000),
            (
                "the reservation counts where the system uses less",
                used(16_000, 5000, 1000, 3000, 2000),
                65,
                10_400 - 3000 - 2000,
            ),
            ("what BE uses does not count", used(16_000, 12_000, 9000, 3000, 0), 65, 10_400 - 3000),
            ("samples that do not add up make no negative system use", used(16_000, 3000, 2000, 3000, 0), 65, 7400),
            ("integers: 65 % of 3 CPUs", used(3000, 0, 0, 0, 0), 65, 1950),
            ("integers: 65 % of 1.001 CPUs", used(1001, 0, 0, 0, 0), 65, 650),
            ("a busy node goes negative", used(4000, 4000, 0, 4000, 0), 65, 2600 - 4000),
            ("100 %", used(4000, 0, 0, 0, 0), 100, 4000),
        ] {
            assert_eq!(allowance_milli(used, percent), allowance, "{name}");
        }
    }

    #[test]
    fn changes_below_one_percent_of_the_node_are_not_made_except_to_the_floor() {
        // 16 CPUs: 160 mCPU, which is 16,000 us of 100 ms.
        for (new, current, bypassed) in [
            (1000, Some(1159), true),
            (1000, Some(1160), false),
            (1159, Some(1000), true),
            (1160, Some(1000), false),
            (20, Some(21), false),
            (20, Some(20), false),
            (1000, None, false),
        ] {
            assert_eq!(bypasses(new, current, 20, 16_000, 1), bypassed, "{new} {current:?}");
        }
    }
}
