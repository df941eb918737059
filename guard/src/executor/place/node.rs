//! Where a node's objects are found.

use std::path::PathBuf;

use crate::cgroup::Hierarchy;

/// A node's file systems.
#[derive(Clone, Debug)]
pub(in crate::executor) struct Node {
    /// "/" except in tests and for an agent that sees the node's file system elsewhere: where /proc is found.
    pub(in crate::executor) root: PathBuf,
    /// Its cgroups.
    pub(in crate::executor) hierarchy: Hierarchy,
}
