//! Why the node could not be looked at.

use std::io;
use std::path::PathBuf;

use crate::cgroup::{CgroupError, ParseError};

/// Why the node could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The kernel refused an operation.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: "read" or "list".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file is not in its format.
    #[error("cannot understand {}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        source: ParseError,
    },
    /// The cgroups cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}
