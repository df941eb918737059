//! The cpu knobs of a cgroup as they were read: one vocabulary for v1 and v2.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CpuList;

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
