//! The cpu knobs of a cgroup: one vocabulary for v1 and v2, shared by whoever reads, decides, writes and shows them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CpuList;

/// Which knob. Names are v2's; the comments say what v1 has instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Knob {
    /// cpu.max; v1 cpu.cfs_quota_us and cpu.cfs_period_us.
    Quota,
    /// cpu.max.burst; v1 cpu.cfs_burst_us.
    Burst,
    /// cpu.weight; v1 cpu.shares.
    Shares,
    /// cpu.idle.
    Idle,
    /// cpuset.cpus.
    Cpus,
    /// cpuset.mems.
    Mems,
    /// cpuset.cpus.partition; not on v1.
    Partition,
    /// cpu.uclamp.min.
    UclampMin,
    /// cpu.uclamp.max.
    UclampMax,
    /// v1 cpu.rt_runtime_us; not on v2.
    RtRuntime,
}

impl Knob {
    /// Its name in reports, plans and the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Burst => "burst",
            Self::Shares => "shares",
            Self::Idle => "idle",
            Self::Cpus => "cpus",
            Self::Mems => "mems",
            Self::Partition => "partition",
            Self::UclampMin => "uclamp_min",
            Self::UclampMax => "uclamp_max",
            Self::RtRuntime => "rt_runtime",
        }
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// CFS bandwidth as it is written: a quota per period, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bandwidth {
    /// CPU time per period, us; absent for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_us: Option<u64>,
    /// Period, us.
    pub period_us: u64,
}

impl Bandwidth {
    /// The kernel's default: no limit, 100 ms.
    pub const UNLIMITED: Self = Self { quota_us: None, period_us: 100_000 };

    /// CPUs that it allows, in thousandths; absent for no limit.
    #[must_use]
    pub fn milli(self) -> Option<u64> {
        self.quota_us.map(|quota| quota.saturating_mul(1000) / self.period_us.max(1))
    }

    /// Whether it allows more than `other`, or as much.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        match (self.quota_us, other.quota_us) {
            (None, _) => true,
            (Some(_), None) => false,
            // quota / period compared without division.
            (Some(own), Some(of)) => {
                u128::from(own) * u128::from(other.period_us) >= u128::from(of) * u128::from(self.period_us)
            }
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quota_us {
            Some(quota) => write!(f, "{quota} {}", self.period_us),
            None => write!(f, "max {}", self.period_us),
        }
    }
}

/// cpuset.cpus.partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    /// No partition of its own.
    Member,
    /// Its CPUs are its own.
    Root,
    /// Its CPUs are its own and not load-balanced.
    Isolated,
}

/// A knob and the value it is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// [`Knob::Quota`].
    Quota(Bandwidth),
    /// [`Knob::Burst`], us.
    Burst(u64),
    /// [`Knob::Shares`], in v1's unit: 2..=262144, 1024 by default. Converted to a weight where the hierarchy is v2.
    Shares(u64),
    /// [`Knob::Idle`].
    Idle(bool),
    /// [`Knob::Cpus`].
    Cpus(CpuList),
    /// [`Knob::Mems`]: NUMA nodes.
    Mems(CpuList),
    /// [`Knob::Partition`].
    Partition(Partition),
    /// [`Knob::UclampMin`], in hundredths of a percent, 0..=10000.
    UclampMin(u32),
    /// [`Knob::UclampMax`], in hundredths of a percent, 0..=10000 (10000 is "max").
    UclampMax(u32),
    /// [`Knob::RtRuntime`], us per period; -1 for no limit.
    RtRuntime(i64),
}

impl Setting {
    /// Which knob it sets.
    #[must_use]
    pub fn knob(&self) -> Knob {
        match self {
            Self::Quota(_) => Knob::Quota,
            Self::Burst(_) => Knob::Burst,
            Self::Shares(_) => Knob::Shares,
            Self::Idle(_) => Knob::Idle,
            Self::Cpus(_) => Knob::Cpus,
            Self::Mems(_) => Knob::Mems,
            Self::Partition(_) => Knob::Partition,
            Self::UclampMin(_) => Knob::UclampMin,
            Self::UclampMax(_) => Knob::UclampMax,
            Self::RtRuntime(_) => Knob::RtRuntime,
        }
    }
}

/// The value alone, as plans and the audit log show it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(bandwidth) => bandwidth.fmt(f),
            Self::Burst(us) => us.fmt(f),
            Self::Shares(shares) => shares.fmt(f),
            Self::Idle(idle) => u8::from(*idle).fmt(f),
            Self::Cpus(list) | Self::Mems(list) => list.fmt(f),
            Self::Partition(Partition::Member) => f.write_str("member"),
            Self::Partition(Partition::Root) => f.write_str("root"),
            Self::Partition(Partition::Isolated) => f.write_str("isolated"),
            Self::UclampMin(value) | Self::UclampMax(value) => write!(f, "{}.{:02}", value / 100, value % 100),
            Self::RtRuntime(us) => us.fmt(f),
        }
    }
}

/// The cpu knobs of one cgroup as they were read. What the kernel, the layout or the cgroup does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Knobs {
    /// Quota and period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Bandwidth>,
    /// Burst, us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_us: Option<u64>,
    /// Shares in v1's unit; converted from the weight where the hierarchy is v2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Whether cpu.idle is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    /// CPUs it asks for; empty on v2 for "as the parent".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuList>,
    /// CPUs it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_effective: Option<CpuList>,
    /// NUMA nodes it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mems: Option<CpuList>,
    /// Partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// v1's share of real-time run time, us per period; -1 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rt_runtime_us: Option<i64>,
}

impl Knobs {
    /// The value of one knob; None when it was not read or does not exist.
    #[must_use]
    pub fn setting(&self, knob: Knob) -> Option<Setting> {
        Some(match knob {
            Knob::Quota => Setting::Quota(self.quota?),
            Knob::Burst => Setting::Burst(self.burst_us?),
            Knob::Shares => Setting::Shares(self.shares?),
            Knob::Idle => Setting::Idle(self.idle?),
            Knob::Cpus => Setting::Cpus(self.cpus.clone()?),
            Knob::Mems => Setting::Mems(self.mems.clone()?),
            Knob::Partition => Setting::Partition(self.partition?),
            Knob::RtRuntime => Setting::RtRuntime(self.rt_runtime_us?),
            Knob::UclampMin | Knob::UclampMax => return None,
        })
    }
}
