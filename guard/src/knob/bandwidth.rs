//! Quota with its period, and burst: CFS bandwidth. Documentation/scheduler/sched-bwc.rst of the kernel; rules of
//! kernel/sched/core.c (tg_set_cfs_bandwidth, tg_cfs_schedulable_down).

use super::{
    around::{Surroundings, rule},
    file::File,
    property::{INFINITY, Property},
    row::{BOTH, FileRow, Order, PropertyRow, Row, V1, V2},
    setting::{Knob, Setting},
    text::{ParseError, parse_u64},
    value::{Format, NO_LIMIT, NUMBER, US_OR_NO_LIMIT, Value},
    version::Version,
};
use crate::snapshot::{Bandwidth, CgroupPath};

/// min_cfs_quota_period, us: also the least quota.
pub const MIN_PERIOD_US: u64 = 1_000;
/// max_cfs_quota_period, us.
pub const MAX_PERIOD_US: u64 = 1_000_000;
/// MAX_BW, us.
pub const MAX_QUOTA_US: u64 = (1 << 44) - 1;

/// What systemd writes where no period is set, us.
pub(crate) const SYSTEMD_PERIOD_US: u64 = 100_000;

impl File {
    /// v2: quota and period.
    pub const MAX: Self = Self::new(Knob::Quota, 0);
    /// v1: quota, us.
    pub const CFS_QUOTA: Self = Self::new(Knob::Quota, 1);
    /// v1: period, us.
    pub const CFS_PERIOD: Self = Self::new(Knob::Quota, 2);
    /// v2: burst, us.
    pub const MAX_BURST: Self = Self::new(Knob::Burst, 0);
    /// v1: burst, us.
    pub const CFS_BURST: Self = Self::new(Knob::Burst, 1);
}

pub(super) const QUOTA: Row = Row {
    name: "quota",
    help: "CPU time that a cgroup may use in a period, us, and the period",
    format: BANDWIDTH,
    files: &[
        FileRow { name: "cpu.max", versions: V2, format: BANDWIDTH },
        FileRow { name: "cpu.cfs_quota_us", versions: V1, format: US_OR_NO_LIMIT },
        FileRow { name: "cpu.cfs_period_us", versions: V1, format: PERIOD },
    ],
    encode: |value, version, _| match (value, version) {
        (Value::Bandwidth(bandwidth), Version::V1) => {
            let us = |us: u64| Value::Number(i64::try_from(us).unwrap_or(i64::MAX));
            vec![bandwidth.quota_us.map_or(NO_LIMIT, us), us(bandwidth.period_us)]
        }
        (value, _) => vec![value.clone()],
    },
    decode: |values, _, _| match values {
        [quota @ Value::Number(_), period] => {
            let period_us = period.unsigned().unwrap_or(Bandwidth::UNLIMITED.period_us);
            Some(Value::Bandwidth(Bandwidth { quota_us: quota.unsigned(), period_us }))
        }
        [value @ Value::Bandwidth(_)] => Some(value.clone()),
        _ => None,
    },
    order: Order::GrowsWithParent,
    check: check_quota,
    properties: &[
        PropertyRow {
            name: "CPUQuotaPerSecUSec",
            drop_in: "CPUQuota",
            versions: BOTH,
            of: |setting, _| match setting {
                Setting::Quota(bandwidth) => Some(Property::Number(per_second(*bandwidth))),
                _ => None,
            },
        },
        PropertyRow {
            name: "CPUQuotaPeriodUSec",
            drop_in: "CPUQuotaPeriodSec",
            versions: BOTH,
            of: |setting, _| match setting {
                Setting::Quota(bandwidth) => Some(Property::Number(period(*bandwidth))),
                _ => None,
            },
        },
    ],
    reading: |knobs| knobs.quota.map(Setting::Quota),
    ..Row::PLAIN
};

pub(super) const BURST: Row = Row {
    name: "burst",
    help: "CPU time that a cgroup may save up beyond its quota, us",
    files: &[
        FileRow { name: "cpu.max.burst", versions: V2, format: NUMBER },
        FileRow { name: "cpu.cfs_burst_us", versions: V1, format: NUMBER },
    ],
    order: Order::Within(Knob::Quota),
    check: |setting, path, _, around| match setting {
        Setting::Burst(us) => check_burst(*us, path, around),
        _ => Ok(()),
    },
    reading: |knobs| knobs.burst_us.map(Setting::Burst),
    ..Row::PLAIN
};

const PERIOD: Format = Format {
    parse: |text| match parse_u64(text)? {
        0 => Err(ParseError::new("a period above 0", text)),
        _ => (NUMBER.parse)(text),
    },
    ..NUMBER
};

/// cpu.max, with its period also where there is no limit.
const BANDWIDTH: Format = Format {
    parse: |text| {
        let mut words = text.split_ascii_whitespace();
        let (Some(quota), Some(period), None) = (words.next(), words.next(), words.next()) else {
            return Err(ParseError::new("a quota (or max) and a period", text));
        };
        let quota_us = if quota == "max" { None } else { Some(parse_u64(quota)?) };
        let period_us = (PERIOD.parse)(period)?.unsigned().unwrap_or_default();
        Ok(Value::Bandwidth(Bandwidth { quota_us, period_us }))
    },
    show: |value| match value {
        Value::Bandwidth(bandwidth) => bandwidth.to_string(),
        _ => String::new(),
    },
};

fn check_quota(setting: &Setting, path: &str, version: Version, around: &dyn Surroundings) -> Result<(), String> {
    let &Setting::Quota(wanted) = setting else { return Ok(()) };
    let Bandwidth { quota_us, period_us } = wanted;
    rule((MIN_PERIOD_US..=MAX_PERIOD_US).contains(&period_us), || {
        format!("a period is 1 ms to 1 s, not {period_us} us")
    })?;
    let Some(us) = quota_us else { return Ok(()) };
    rule((MIN_PERIOD_US..=MAX_QUOTA_US).contains(&us), || format!("a quota is at least 1 ms, not {us} us"))?;
    if let Some(Setting::Burst(burst)) = around.setting(path, Knob::Burst) {
        rule(burst <= us, || format!("the burst of {burst} us is beyond a quota of {us} us: lower it first"))?;
    }
    if version == Version::V2 {
        return Ok(());
    }
    let limit_of = |path: &str| quota_of(path, around).filter(|of| of.quota_us.is_some());
    let above = CgroupPath::of(path).above().find_map(|path| limit_of(path).map(|of| (path, of)));
    if let Some((parent, limit)) = above {
        rule(limit.covers(wanted), || format!("on v1 a quota lies within its parent's: {parent} has {limit}"))?;
    }
    let mut todo = around.children(path, Knob::Quota);
    while let Some(child) = todo.pop() {
        match limit_of(&child) {
            Some(limit) => rule(wanted.covers(limit), || {
                format!("on v1 a child's quota lies within its own: {child} has {limit}")
            })?,
            None => todo.extend(around.children(&child, Knob::Quota)),
        }
    }
    Ok(())
}

fn check_burst(us: u64, path: &str, around: &dyn Surroundings) -> Result<(), String> {
    match quota_of(path, around).and_then(|of| of.quota_us) {
        Some(quota) => rule(us <= quota, || format!("a burst of {us} us is beyond the quota of {quota} us")),
        // The kernel takes it, and then refuses every quota below it.
        None => rule(us == 0, || "a burst without a quota has no effect".to_owned()),
    }
}

fn quota_of(path: &str, around: &dyn Surroundings) -> Option<Bandwidth> {
    match around.setting(path, Knob::Quota) {
        Some(Setting::Quota(bandwidth)) => Some(bandwidth),
        _ => None,
    }
}

/// As systemd keeps a quota: us per second.
pub(crate) fn per_second(bandwidth: Bandwidth) -> u64 {
    bandwidth.quota_us.map_or(INFINITY, |us| us.saturating_mul(1_000_000) / bandwidth.period_us.max(1))
}

/// As systemd keeps a period, us.
pub(crate) fn period(bandwidth: Bandwidth) -> u64 {
    if bandwidth.period_us == SYSTEMD_PERIOD_US { INFINITY } else { bandwidth.period_us.max(1) }
}
