//! protect

use serde::{Deserialize, Serialize};

/// The section [protect] of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}
