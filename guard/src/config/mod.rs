//! The configuration: one TOML file, its defaults, and what is wrong with it. A mistake names file, line, key and value
//! and says what is allowed; a file with a mistake is refused as a whole. `deploy/guard.toml` shows every key with its
//! default. This room reads the file and nothing else of the node.

mod check;
mod document;
mod error;
mod metrics;
mod settings;
mod units;
mod workload;

use std::fs;
use std::path::Path;

pub use error::{ConfigError, Mistake};
pub use metrics::{Endpoint, EndpointError, Metrics};
use serde::{Deserialize, Serialize};
pub use settings::{Config, NodeSettings};
pub use units::{Cpus, Time, TimeError};
pub use workload::{Candidate, Match, Percentiles, Workload, Workloads};

use self::document::Document;
use crate::policy;

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    node: NodeSettings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workload: Vec<Workload>,
    suppress: policy::suppress::SuppressSettings,
    burst: policy::burst::BurstSettings,
    protect: policy::protect::ProtectSettings,
    cpuset: policy::cpuset::CpusetSettings,
    metrics: Metrics,
}

impl Config {
    /// Reads a file; without one it is all defaults.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_or_default(path: Option<&Path>) -> Result<Self, ConfigError> {
        path.map_or_else(|| Ok(Self::default()), Self::load)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse(&text, path)?)
    }

    /// Reads a text; `path` is for messages.
    ///
    /// # Errors
    /// The first mistake that was found.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Mistake> {
        let document = Document::new(text, path)?;
        let file: File = toml::from_str(text).map_err(|error| document.mistake_of(&error))?;
        let File { node, workload, suppress, burst, protect, cpuset, metrics } = file;
        let policy = policy::PolicySettings { suppress, burst, protect, cpuset };
        let config = Self { node, workloads: workload, policy, metrics };
        check::check(&config).map_err(|problem| document.mistake_at(&problem.key, problem.text))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
