//! The configuration: one TOML file, its defaults, and what is wrong with it. A mistake names file, line, key and value
//! and says what is allowed; a file with a mistake is refused as a whole. `deploy/guard.toml` shows every key with its
//! default. This room reads the file and nothing else of the node.

mod check;
mod document;
mod metrics;
mod units;
mod workload;

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

pub use metrics::{Endpoint, EndpointError, Metrics};
use serde::{Deserialize, Serialize};
pub use units::{Cpus, Time, TimeError};
pub use workload::{Candidate, Match, Percentiles, Workload, Workloads};

use self::document::Document;
use crate::policy;
use crate::snapshot::CpuList;

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read it: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

/// What is wrong in a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; absent when the mistake is in no line of its own.
    pub line: Option<usize>,
    /// Key with its sections, as in `node.interval` or `workload[2].wakeup.p999`; empty where the text is no TOML.
    pub key: String,
    /// The value as it stands in the file; empty where it does not matter.
    pub value: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        match (self.key.is_empty(), self.value.is_empty()) {
            (true, _) => {}
            (false, true) => write!(f, "{}: ", self.key)?,
            (false, false) => write!(f, "{} = {}: ", self.key, self.value)?,
        }
        f.write_str(&self.problem)
    }
}

/// What the user chose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The node, and guard on it.
    pub node: Node,
    /// Workloads by name, in the order of the file.
    pub workloads: Vec<Workload>,
    /// The policies.
    pub policy: policy::Settings,
    /// Metrics.
    pub metrics: Metrics,
}

/// The section `[node]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// CPUs kept for the system: never given to a workload alone, and not part of the capacity that policies share out.
    pub reserved_cpus: CpuList,
    /// Time between two decisions.
    pub interval: Time,
    /// Directory of the journal, which holds the values that guard found. It must outlive a crash of guard.
    pub state_dir: PathBuf,
    /// File to which each change is appended as a line of JSON.
    pub audit: PathBuf,
    /// SCHED_FIFO priority of the threads that decide and write while guard enforces, 1 to 99; 0 for none. Read at the
    /// start.
    pub priority: u8,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            reserved_cpus: CpuList::default(),
            interval: Time::from_millis(1_000),
            state_dir: "/var/lib/guard".into(),
            audit: "/var/log/guard/audit.jsonl".into(),
            priority: 1,
        }
    }
}

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    node: Node,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workload: Vec<Workload>,
    suppress: policy::suppress::Settings,
    burst: policy::burst::Settings,
    protect: policy::protect::Settings,
    cpuset: policy::cpuset::Settings,
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
        let policy = policy::Settings { suppress, burst, protect, cpuset };
        let config = Self { node, workloads: workload, policy, metrics };
        check::check(&config).map_err(|problem| document.mistake_at(&problem.key, problem.text))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
