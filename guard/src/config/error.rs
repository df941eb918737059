//! Why a configuration is not accepted, and where in its file.

use std::path::PathBuf;
use std::{fmt, io};

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
