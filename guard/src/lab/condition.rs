//! The condition of a scenario's step.

use serde::{Deserialize, Serialize};

/// What differs between the steps of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Without the hazard and without guard.
    Reference,
    /// With the hazard.
    Before,
    /// With the hazard and guard.
    With,
}
