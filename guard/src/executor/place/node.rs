//! Where a node's objects are found.

use std::{fs, path::PathBuf};

use crate::cgroup::Hierarchy;

/// A node's file systems.
#[derive(Clone, Debug)]
pub(in crate::executor) struct NodeFiles {
    /// "/" except in tests and for an agent that sees the node's file system elsewhere: where /proc is found.
    pub(in crate::executor) root: PathBuf,
    /// Its cgroups.
    pub(in crate::executor) hierarchy: Hierarchy,
}

impl NodeFiles {
    /// What a file of the node says, without the newline; `None` where there is no such file.
    pub(in crate::executor) fn read(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.root.join(file)).ok()?.trim_end().to_owned())
    }
}
