//! Why the node could not be looked at.

use crate::cgroup::{CgroupError, FileError};

/// Why the node could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cgroups cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}
