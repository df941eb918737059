//! suppress

use serde::{Deserialize, Serialize};

/// The section [suppress] of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}
