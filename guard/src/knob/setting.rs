//! Knobs and their values: one vocabulary for v1 and v2, shared by whoever decides, writes and shows them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Bandwidth, CpuList, Knobs, Partition};

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

impl Knob {
    /// The value that was read; None when it was not read or does not exist.
    #[must_use]
    pub fn reading(self, knobs: &Knobs) -> Option<Setting> {
        Some(match self {
            Self::Quota => Setting::Quota(knobs.quota?),
            Self::Burst => Setting::Burst(knobs.burst_us?),
            Self::Shares => Setting::Shares(knobs.shares?),
            Self::Idle => Setting::Idle(knobs.idle?),
            Self::Cpus => Setting::Cpus(knobs.cpus.clone()?),
            Self::Mems => Setting::Mems(knobs.mems.clone()?),
            Self::Partition => Setting::Partition(knobs.partition?),
            Self::RtRuntime => Setting::RtRuntime(knobs.rt_runtime_us?),
            Self::UclampMin | Self::UclampMax => return None,
        })
    }
}
