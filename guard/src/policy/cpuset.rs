//! cpuset

use serde::{Deserialize, Serialize};

use super::{Invalid, check};

/// The section [cpuset] of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether LSE and PLC cgroups get CPUs of their own and LSR cgroups reserved ones. Off by default: it moves work.
    pub enabled: bool,
    /// Whether a cgroup with CPUs of its own gets whole cores, so that nobody else runs on a hardware thread beside it.
    pub whole_cores: bool,
    /// At least this many CPUs stay with everybody else.
    pub min_shared_cpus: u64,
    /// CPUs are given back when their cgroup was not seen for this long, s.
    pub hold_s: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: false, whole_cores: true, min_shared_cpus: 1, hold_s: 30.0 }
    }
}

impl Settings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::within("cpuset.min_shared_cpus", self.min_shared_cpus, 1..=8192)?;
        check::seconds("cpuset.hold_s", self.hold_s)
    }
}
