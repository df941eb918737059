//! burst

use serde::{Deserialize, Serialize};

use super::{Invalid, check};

/// The section [burst] of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How LS cgroups may exceed their quota: "none", "burst" (what they did not use in earlier periods), "quota" (a
    /// larger quota while they are throttled and the node has room) or "auto" (both).
    pub policy: Policy,
    /// Burst in percent of the quota; never more than the quota itself, which the kernel refuses.
    pub burst_percent: u64,
    /// Quota may grow to this, in percent of what it was.
    pub quota_percent: u64,
    /// A quota may be exceeded in full for this long, s, and earns it back by using less than 60 %; -1 for no limit.
    pub quota_period_s: i64,
    /// Use of the CPUs shared by LS work from which the node counts as overloaded, percent.
    pub share_pool_percent: u64,
    /// Utilisation is averaged over this time, s.
    pub average_s: f64,
    /// A quota goes back by steps when its cgroup was not throttled for this long, s, and would not be by the next step.
    pub decay_after_s: f64,
}

/// How LS cgroups may exceed their quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Not at all.
    #[default]
    None,
    /// By what they did not use in earlier periods.
    Burst,
    /// By a larger quota.
    Quota,
    /// Both.
    Auto,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            burst_percent: 1000,
            quota_percent: 300,
            quota_period_s: -1,
            share_pool_percent: 50,
            average_s: 5.0,
            decay_after_s: 10.0,
        }
    }
}

impl Settings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::within("burst.burst_percent", self.burst_percent, 1..=10_000)?;
        check::within("burst.quota_percent", self.quota_percent, 100..=10_000)?;
        if !(-1..=31_536_000).contains(&self.quota_period_s) {
            let message = format!("{} is neither -1 nor a time up to 31536000 s", self.quota_period_s);
            return Err(Invalid::new("burst.quota_period_s", message));
        }
        check::within("burst.share_pool_percent", self.share_pool_percent, 1..=100)?;
        check::seconds("burst.average_s", self.average_s)?;
        check::seconds("burst.decay_after_s", self.decay_after_s)
    }
}
