//! What a knob sits on.

use serde::{Deserialize, Serialize};

/// The kinds of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A cgroup: its path, and the inode number of its directory in the hierarchy that has the file.
    #[default]
    Cgroup,
    /// A process: its directory in /proc, and when it started, in clock ticks since boot.
    Process,
}

/// One object. Its name may be another's tomorrow; its identity is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Its kind.
    #[serde(rename = "object", default)]
    pub kind: Kind,
    /// Its name.
    pub path: String,
    /// Its identity: nothing is written to a successor of the same name.
    pub id: u64,
}
