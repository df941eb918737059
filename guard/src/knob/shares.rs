//! Shares, which are a weight on v2, and idle, which takes the weight's place. Rules of kernel/sched/core.c
//! (sched_group_set_shares, sched_group_set_idle).

use super::{
    around::rule,
    file::File,
    property::Property,
    row::{Along, BOTH, FileRow, Order, PropertyRow, Row, V1, V2},
    setting::{Knob, Setting},
    value::{NUMBER, Quantity as _, Value},
    version::Version,
    weight::{SHARES as RANGE, WeightFormula},
};

impl File {
    /// v2: weight.
    pub const WEIGHT: Self = Self::new(Knob::Shares, 0);
    /// v1: shares.
    pub const SHARES: Self = Self::new(Knob::Shares, 1);
    /// Both: whether only idle time is given.
    pub const IDLE: Self = Self::new(Knob::Idle, 0);
}

/// A setting is in v1's unit, 2..=262144 with 1024 by default.
pub(super) const SHARES: Row = Row {
    name: "shares",
    help: "CPU time against siblings, in shares of v1; on v2 the weight that they become",
    files: &[
        FileRow { name: "cpu.weight", versions: V2, format: NUMBER },
        FileRow { name: "cpu.shares", versions: V1, format: NUMBER },
    ],
    encode: |value, version, formula| vec![converted(value, version, |shares| formula.weight(shares))],
    decode: |values, version, formula| Some(converted(values.first()?, version, |weight| formula.shares(weight))),
    check: |setting, path, _, around| {
        let Setting::Shares(shares) = setting else { return Ok(()) };
        let is_idle = around.setting(path, Knob::Idle) == Some(Setting::Idle(true));
        rule(RANGE.contains(shares), || format!("shares are 2 to 262144, not {shares}"))?;
        rule(!is_idle, || "cpu.idle is set: the kernel takes no weight until it is cleared".to_owned())
    },
    properties: &[
        PropertyRow { name: "CPUWeight", drop_in: "CPUWeight", versions: V2, of: weight },
        PropertyRow {
            name: "CPUShares",
            drop_in: "CPUShares",
            versions: V1,
            of: |setting, _| match setting {
                Setting::Shares(shares) => Some(Property::Number(*shares)),
                _ => None,
            },
        },
    ],
    reading: |knobs| knobs.shares.map(Setting::Shares),
    ..Row::PLAIN
};

pub(super) const IDLE: Row = Row {
    name: "idle",
    help: "whether a cgroup gets only what nobody else wants",
    files: &[FileRow { name: "cpu.idle", versions: BOTH, format: NUMBER }],
    order: Order::Switch { around: Knob::Shares, is_off: |value| *value != Value::Number(1) },
    // Leaving idle sets the weight to its default.
    along: Some(Along {
        knob: Knob::Shares,
        // WEIGHT_IDLEPRIO of kernel/sched/sched.h while it is set (v2 rounds it to 0, and newer kernels then raise it to
        // 1), NICE_0_LOAD after it was cleared.
        texts: |version| match version {
            Version::V1 => &["3", "1024"],
            Version::V2 => &["0", "1", "100"],
        },
        clash: |setting| match setting {
            Setting::Idle(true) => Some("cpu.idle discards the weight, which guard holds: release the shares first"),
            _ => None,
        },
    }),
    properties: &[PropertyRow { name: "CPUWeight", drop_in: "CPUWeight", versions: V2, of: weight }],
    reading: |knobs| knobs.idle.map(Setting::Idle),
    ..Row::PLAIN
};

fn converted(value: &Value, version: Version, into: impl Fn(u64) -> u64) -> Value {
    match (value.unsigned(), version) {
        (Some(number), Version::V2) => into(number).to_value(),
        _ => value.clone(),
    }
}

fn weight(setting: &Setting, formula: WeightFormula) -> Option<Property> {
    match setting {
        Setting::Shares(shares) => Some(Property::Number(formula.weight(*shares))),
        // Since systemd 252; older ones refuse it, and know nothing of cpu.idle that they could undo.
        Setting::Idle(true) => Some(Property::Number(0)),
        _ => None,
    }
}
