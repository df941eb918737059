//! protect

use serde::{Deserialize, Serialize};

use super::{Invalid, check};

/// The section [protect] of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether quotas are lifted off PLC cgroups and off what contains them.
    pub enabled: bool,
    /// When: "sight" (as soon as a PLC with a quota is seen) or "throttled" (when the quota first ran out).
    pub when: When,
    /// How far: "unlimited" (no quota) or "budget" (what max_node_fraction leaves).
    pub lift: Lift,
    /// All lifted cgroups together may use this share of the node. A lifted cgroup that uses more gets a quota again,
    /// of what is left of that share.
    pub max_node_fraction: f64,
    /// What may be changed, in order of preference: "quota", "burst" and "weight". Where the quota may not or cannot be
    /// lifted, the others are the next best.
    pub allow: Vec<Means>,
    /// Shares for "weight", 2 to 262144.
    pub shares: u64,
    /// A cgroup stays protected for this long after it was last seen to be a PLC, s.
    pub hold_s: f64,
}

/// When a quota is lifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// As soon as a PLC with a quota is seen.
    #[default]
    Sight,
    /// When the quota first ran out.
    Throttled,
}

/// How far a quota is lifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lift {
    /// No quota.
    #[default]
    Unlimited,
    /// What the node's capacity budget leaves.
    Budget,
}

/// What may be changed for a PLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    /// Its quota and those of its ancestors.
    Quota,
    /// Their burst.
    Burst,
    /// Their shares.
    Weight,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            when: When::default(),
            lift: Lift::default(),
            max_node_fraction: 1.0,
            allow: vec![Means::Quota, Means::Burst, Means::Weight],
            shares: 65_536,
            hold_s: 30.0,
        }
    }
}

impl Settings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::fraction("protect.max_node_fraction", self.max_node_fraction)?;
        if self.max_node_fraction < 0.05 {
            let message = format!("{} of the node is too little to lift anything to", self.max_node_fraction);
            return Err(Invalid::new("protect.max_node_fraction", message));
        }
        if self.allow.iter().enumerate().any(|(at, means)| self.allow[..at].contains(means)) {
            return Err(Invalid::new("protect.allow", "names something twice".into()));
        }
        if self.enabled && self.allow.is_empty() {
            return Err(Invalid::new("protect.allow", "allows nothing although protect is enabled".into()));
        }
        check::within("protect.shares", self.shares, 2..=262_144)?;
        check::seconds("protect.hold_s", self.hold_s)
    }
}
