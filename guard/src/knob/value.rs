//! The cpu files that guard may write: their names on v1 and v2, what their texts mean, and which files and texts a
//! setting is. Values are compared as parsed, never as text. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    setting::{Knob, Setting},
    text::{ParseError, parse_u64},
    version::Version,
    weight::WeightFormula,
};
use crate::snapshot::{Bandwidth, CpuList, Partition};

/// A file of a cgroup that guard may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum File {
    /// v2: quota and period.
    #[serde(rename = "cpu.max")]
    Max,
    /// v1: quota, us.
    #[serde(rename = "cpu.cfs_quota_us")]
    CfsQuota,
    /// v1: period, us.
    #[serde(rename = "cpu.cfs_period_us")]
    CfsPeriod,
    /// v2: burst, us.
    #[serde(rename = "cpu.max.burst")]
    MaxBurst,
    /// v1: burst, us.
    #[serde(rename = "cpu.cfs_burst_us")]
    CfsBurst,
    /// v2: weight.
    #[serde(rename = "cpu.weight")]
    Weight,
    /// v1: shares.
    #[serde(rename = "cpu.shares")]
    Shares,
    /// Both: whether only idle time is given.
    #[serde(rename = "cpu.idle")]
    Idle,
    /// Both: CPUs; on v1 in the cpuset hierarchy.
    #[serde(rename = "cpuset.cpus")]
    Cpus,
    /// Both: NUMA nodes; on v1 in the cpuset hierarchy.
    #[serde(rename = "cpuset.mems")]
    Mems,
    /// v2: partition.
    #[serde(rename = "cpuset.cpus.partition")]
    Partition,
    /// v2, where the kernel has uclamp; v1 too.
    #[serde(rename = "cpu.uclamp.min")]
    UclampMin,
    /// As above.
    #[serde(rename = "cpu.uclamp.max")]
    UclampMax,
    /// v1, with CONFIG_RT_GROUP_SCHED.
    #[serde(rename = "cpu.rt_runtime_us")]
    RtRuntime,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// cpu.max.
    Bandwidth(Bandwidth),
    /// A number; -1 for no limit where the file has that.
    Number(i64),
    /// CPUs or NUMA nodes.
    List(CpuList),
    /// A partition, and whether the kernel honours it.
    Partition(Partition, bool),
}

/// "No limit" in v1's files.
pub(crate) const NO_LIMIT: Value = Value::Number(-1);

impl File {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "cpu.max",
            Self::CfsQuota => "cpu.cfs_quota_us",
            Self::CfsPeriod => "cpu.cfs_period_us",
            Self::MaxBurst => "cpu.max.burst",
            Self::CfsBurst => "cpu.cfs_burst_us",
            Self::Weight => "cpu.weight",
            Self::Shares => "cpu.shares",
            Self::Idle => "cpu.idle",
            Self::Cpus => "cpuset.cpus",
            Self::Mems => "cpuset.mems",
            Self::Partition => "cpuset.cpus.partition",
            Self::UclampMin => "cpu.uclamp.min",
            Self::UclampMax => "cpu.uclamp.max",
            Self::RtRuntime => "cpu.rt_runtime_us",
        }
    }

    /// Whether it is a file of the cpuset controller, which on v1 has a hierarchy of its own.
    pub(crate) fn is_cpuset(self) -> bool {
        matches!(self, Self::Cpus | Self::Mems | Self::Partition)
    }

    /// The knob that it belongs to.
    pub(crate) fn knob(self) -> Knob {
        match self {
            Self::Max | Self::CfsQuota | Self::CfsPeriod => Knob::Quota,
            Self::MaxBurst | Self::CfsBurst => Knob::Burst,
            Self::Weight | Self::Shares => Knob::Shares,
            Self::Idle => Knob::Idle,
            Self::Cpus => Knob::Cpus,
            Self::Mems => Knob::Mems,
            Self::Partition => Knob::Partition,
            Self::UclampMin => Knob::UclampMin,
            Self::UclampMax => Knob::UclampMax,
            Self::RtRuntime => Knob::RtRuntime,
        }
    }

    /// What its text says.
    pub(crate) fn parse(self, text: &str) -> Result<Value, ParseError> {
        let text = text.trim();
        match self {
            Self::Max => parse_bandwidth(text).map(Value::Bandwidth),
            Self::CfsQuota | Self::RtRuntime => {
                let number: i64 = text.parse().map_err(|_| ParseError::new("a number of us, or -1", text))?;
                Ok(Value::Number(number.max(-1)))
            }
            Self::Cpus | Self::Mems => Ok(Value::List(text.parse()?)),
            Self::Partition => parse_partition(text).map(|(partition, valid)| Value::Partition(partition, valid)),
            Self::UclampMin | Self::UclampMax => parse_percent(text).map(Value::Number),
            _ => i64::try_from(parse_u64(text)?)
                .map(Value::Number)
                .map_err(|_| ParseError::new("a number below 2^63", text)),
        }
    }

    /// The text to write for a value.
    pub(crate) fn text(self, value: &Value) -> String {
        match (self, value) {
            (Self::UclampMin | Self::UclampMax, Value::Number(hundredths)) => {
                format!("{}.{:02}", hundredths / 100, hundredths % 100)
            }
            // An empty write never reaches the file's handler.
            (_, Value::List(list)) if list.is_empty() => "\n".to_owned(),
            (_, Value::List(list)) => list.to_string(),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Bandwidth(bandwidth)) => bandwidth.to_string(),
            (_, Value::Partition(partition, _)) => Setting::Partition(*partition).to_string(),
        }
    }

    /// Whether two texts of this file mean the same.
    pub(crate) fn same(self, one: &str, other: &str) -> bool {
        match (self.parse(one), self.parse(other)) {
            (Ok(one), Ok(other)) => one == other,
            // What is not understood is compared as it stands.
            _ => one.trim() == other.trim(),
        }
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The files that make up a knob; none when this version of cgroups has no such knob. The quota's own file stands first.
pub(crate) fn files(knob: Knob, version: Version) -> &'static [File] {
    match (knob, version) {
        (Knob::Quota, Version::V1) => &[File::CfsQuota, File::CfsPeriod],
        (Knob::Quota, Version::V2) => &[File::Max],
        (Knob::Burst, Version::V1) => &[File::CfsBurst],
        (Knob::Burst, Version::V2) => &[File::MaxBurst],
        (Knob::Shares, _) => weight_file(version),
        // Leaving idle sets the weight to its default, so it belongs to what has to be put back.
        (Knob::Idle, Version::V1) => &[File::Idle, File::Shares],
        (Knob::Idle, Version::V2) => &[File::Idle, File::Weight],
        (Knob::Cpus, _) => &[File::Cpus],
        (Knob::Mems, _) => &[File::Mems],
        (Knob::Partition, Version::V2) => &[File::Partition],
        (Knob::UclampMin, _) => &[File::UclampMin],
        (Knob::UclampMax, _) => &[File::UclampMax],
        (Knob::RtRuntime, Version::V1) => &[File::RtRuntime],
        (Knob::Partition, Version::V1) | (Knob::RtRuntime, Version::V2) => &[],
    }
}

fn weight_file(version: Version) -> &'static [File] {
    match version {
        Version::V1 => &[File::Shares],
        Version::V2 => &[File::Weight],
    }
}

/// What the weight's file shows while cpu.idle is set (WEIGHT_IDLEPRIO of kernel/sched/sched.h; v2 rounds it to 0, and
/// newer kernels then raise it to 1), and after it was cleared (NICE_0_LOAD).
pub(crate) fn weights_of_idle(version: Version) -> &'static [&'static str] {
    match version {
        Version::V1 => &["3", "1024"],
        Version::V2 => &["0", "1", "100"],
    }
}

/// Files and values that a setting is. cpu.weight is not among those of [`Setting::Idle`]: the kernel changes it.
pub(crate) fn values(setting: &Setting, version: Version, formula: WeightFormula) -> Vec<(File, Value)> {
    let number = |us: u64| Value::Number(i64::try_from(us).unwrap_or(i64::MAX));
    let value = match setting {
        Setting::Quota(bandwidth) => match version {
            Version::V2 => Value::Bandwidth(*bandwidth),
            Version::V1 => {
                let quota = bandwidth.quota_us.map_or(NO_LIMIT, number);
                return vec![(File::CfsQuota, quota), (File::CfsPeriod, number(bandwidth.period_us))];
            }
        },
        Setting::Burst(us) => number(*us),
        Setting::Shares(shares) => match version {
            Version::V1 => number(*shares),
            Version::V2 => number(formula.weight(*shares)),
        },
        Setting::Idle(idle) => Value::Number(i64::from(*idle)),
        Setting::Cpus(list) | Setting::Mems(list) => Value::List(list.clone()),
        Setting::Partition(partition) => Value::Partition(*partition, true),
        Setting::UclampMin(hundredths) | Setting::UclampMax(hundredths) => Value::Number(i64::from(*hundredths)),
        Setting::RtRuntime(us) => Value::Number(*us),
    };
    files(setting.knob(), version).first().map(|file| (*file, value)).into_iter().collect()
}

/// The setting that values are: the knob's first file, and the period where that is a file of its own. None when they do
/// not belong together, which no parser makes.
pub(crate) fn setting(
    knob: Knob,
    value: Value,
    period: Option<&Value>,
    version: Version,
    formula: WeightFormula,
) -> Option<Setting> {
    let unsigned = |value: &Value| match value {
        Value::Number(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let hundredths = |value: &Value| unsigned(value).and_then(|value| u32::try_from(value).ok());
    Some(match (knob, value) {
        (Knob::Quota, Value::Bandwidth(bandwidth)) => Setting::Quota(bandwidth),
        (Knob::Quota, quota @ Value::Number(_)) => Setting::Quota(v1_bandwidth(&quota, period?)),
        (Knob::Cpus, Value::List(list)) => Setting::Cpus(list),
        (Knob::Mems, Value::List(list)) => Setting::Mems(list),
        (Knob::Partition, Value::Partition(partition, _)) => Setting::Partition(partition),
        (Knob::RtRuntime, Value::Number(us)) => Setting::RtRuntime(us),
        (Knob::Burst, value) => Setting::Burst(unsigned(&value)?),
        (Knob::Shares, value) if version == Version::V2 => Setting::Shares(formula.shares(unsigned(&value)?)),
        (Knob::Shares, value) => Setting::Shares(unsigned(&value)?),
        (Knob::Idle, value) => Setting::Idle(unsigned(&value)? == 1),
        (Knob::UclampMin, value) => Setting::UclampMin(hundredths(&value)?),
        (Knob::UclampMax, value) => Setting::UclampMax(hundredths(&value)?),
        (Knob::Quota | Knob::Cpus | Knob::Mems | Knob::Partition | Knob::RtRuntime, _) => return None,
    })
}

/// The bandwidth that v1's two files make.
pub(crate) fn v1_bandwidth(quota: &Value, period: &Value) -> Bandwidth {
    let us = |value: &Value| match value {
        Value::Number(us) => u64::try_from(*us).ok(),
        _ => None,
    };
    Bandwidth { quota_us: us(quota), period_us: us(period).unwrap_or(Bandwidth::UNLIMITED.period_us) }
}

/// cpu.max, with its period also where there is no limit.
pub(crate) fn parse_bandwidth(text: &str) -> Result<Bandwidth, ParseError> {
    let mut words = text.split_ascii_whitespace();
    let (Some(quota), Some(period), None) = (words.next(), words.next(), words.next()) else {
        return Err(ParseError::new("a quota (or max) and a period", text));
    };
    let quota_us = if quota == "max" { None } else { Some(parse_u64(quota)?) };
    Ok(Bandwidth { quota_us, period_us: parse_u64(period)? })
}

/// "root", or "root invalid (why)".
fn parse_partition(text: &str) -> Result<(Partition, bool), ParseError> {
    let mut words = text.split_ascii_whitespace();
    let partition = match words.next() {
        Some("member") => Partition::Member,
        Some("root") => Partition::Root,
        Some("isolated") => Partition::Isolated,
        _ => return Err(ParseError::new("member, root or isolated", text)),
    };
    Ok((partition, words.next() != Some("invalid")))
}

/// "max" or a percentage with up to two decimals, in hundredths of a percent.
fn parse_percent(text: &str) -> Result<i64, ParseError> {
    let bad = || ParseError::new("max, or a percentage with up to two decimals", text);
    if text == "max" {
        return Ok(10_000);
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 2 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let whole = parse_u64(whole).ok().filter(|whole| *whole <= 100).ok_or_else(bad)?;
    let decimals: u64 = format!("{decimals:0<2}").parse().map_err(|_| bad())?;
    i64::try_from(whole * 100 + decimals).ok().filter(|value| *value <= 10_000).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [File; 14] = [
        File::Max,
        File::CfsQuota,
        File::CfsPeriod,
        File::MaxBurst,
        File::CfsBurst,
        File::Weight,
        File::Shares,
        File::Idle,
        File::Cpus,
        File::Mems,
        File::Partition,
        File::UclampMin,
        File::UclampMax,
        File::RtRuntime,
    ];

    #[test]
    fn the_same_value_in_other_words_is_the_same() {
        for (file, one, other) in [
            (File::Max, "max 100000\n", "max 100000"),
            (File::Max, "20000  100000", "20000 100000\n"),
            (File::CfsQuota, "-1\n", "-5"),
            (File::Cpus, "0-3\n", "0,1,2,3"),
            (File::Cpus, "\n", ""),
            (File::UclampMax, "max\n", "100.00"),
            (File::UclampMin, "5", "5.00"),
            (File::Weight, "100\n", "100"),
        ] {
            assert!(file.same(one, other), "{file}: {one:?} {other:?}");
        }
        for (file, one, other) in [
            (File::Max, "max 100000", "max 50000"),
            (File::Cpus, "0-3", "0-2"),
            (File::UclampMin, "5", "5.01"),
            (File::Partition, "root", "root invalid (Cpu list in cpuset.cpus not exclusive)"),
        ] {
            assert!(!file.same(one, other), "{file}: {one:?} {other:?}");
        }
    }

    #[test]
    fn a_setting_is_files_and_texts_of_both_versions() {
        let half = Setting::Quota(Bandwidth { quota_us: Some(50_000), period_us: 100_000 });
        let none = Setting::Quota(Bandwidth::UNLIMITED);
        for (setting, version, texts) in [
            (&half, Version::V2, &[("cpu.max", "50000 100000")][..]),
            (&half, Version::V1, &[("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "100000")]),
            (&none, Version::V2, &[("cpu.max", "max 100000")]),
            (&none, Version::V1, &[("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000")]),
            (&Setting::Burst(7), Version::V2, &[("cpu.max.burst", "7")]),
            (&Setting::Burst(7), Version::V1, &[("cpu.cfs_burst_us", "7")]),
            (&Setting::Shares(2048), Version::V2, &[("cpu.weight", "174")]),
            (&Setting::Shares(2048), Version::V1, &[("cpu.shares", "2048")]),
            (&Setting::Idle(true), Version::V2, &[("cpu.idle", "1")]),
            (&Setting::Cpus(CpuList::default()), Version::V2, &[("cpuset.cpus", "\n")]),
            (&Setting::Partition(Partition::Isolated), Version::V2, &[("cpuset.cpus.partition", "isolated")]),
            (&Setting::Partition(Partition::Root), Version::V1, &[]),
            (&Setting::UclampMin(1234), Version::V2, &[("cpu.uclamp.min", "12.34")]),
            (&Setting::RtRuntime(-1), Version::V1, &[("cpu.rt_runtime_us", "-1")]),
            (&Setting::RtRuntime(-1), Version::V2, &[]),
        ] {
            let values = values(setting, version, WeightFormula::Quadratic);
            let found: Vec<(&str, String)> =
                values.iter().map(|(file, value)| (file.name(), file.text(value))).collect();
            let found: Vec<(&str, &str)> = found.iter().map(|(name, text)| (*name, text.as_str())).collect();
            assert_eq!(found, texts, "{setting:?} {version:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "(?s).{0,60}", a in any::<i128>(), b in any::<u64>()) {
            for file in ALL {
                let _ = file.parse(&text);
                let _ = file.parse(&a.to_string());
                let _ = file.parse(&format!("{a} {b}"));
                let _ = file.parse(&format!("{b}.{b}"));
            }
        }

        #[test]
        fn a_value_that_is_written_is_read_back(text in "(max|[0-9]{1,6}) [0-9]{1,6}|-?[0-9]{1,9}|[0-9]{1,2}(\\.[0-9]{1,2})?|member|root|isolated") {
            for file in ALL {
                if let Ok(value) = file.parse(&text) {
                    prop_assert_eq!(file.parse(&file.text(&value)), Ok(value));
                }
            }
        }
    }
}
