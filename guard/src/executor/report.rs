//! What a restore found and did, of files and of systemd's properties.

use std::fmt;

use serde::Serialize;

use super::{
    outcome::{Restored, RestoredProperty},
    store::StateError,
};
use crate::cgroup::CgroupError;

/// Why nothing could be restored at all.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The cgroup hierarchy.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// What a restore found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there was a journal.
    pub journal: bool,
    /// Records of an earlier boot: their cgroups are no more.
    pub other_boot: usize,
    /// Lines of the journal that are damaged; what only they knew is not put back.
    pub damaged: usize,
    /// Whether its last line was cut off: guard was stopped while it wrote it, before it changed anything.
    pub torn: bool,
    /// The files that guard held, parents first.
    pub files: Vec<Restored>,
    /// The properties of systemd's units that guard held.
    pub properties: Vec<RestoredProperty>,
}

impl Report {
    /// Files that should have been put back, and were not.
    pub fn failures(&self) -> impl Iterator<Item = &Restored> {
        self.files.iter().filter(|file| file.result.is_left())
    }

    /// Properties that should have been put back, and were not.
    pub fn failed_properties(&self) -> impl Iterator<Item = &RestoredProperty> {
        self.properties.iter().filter(|property| property.result.is_left())
    }

    /// Whether somebody has to look after something.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.damaged == 0 && self.failures().next().is_none() && self.failed_properties().next().is_none()
    }
}

impl fmt::Display for Report {
    /// One line per file and property, and what else there is to say; nothing held is a line too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            let found = file.found.as_deref().unwrap_or("?");
            writeln!(f, "{}/{}  {found} -> {}  {}", file.path, file.file, file.original, file.result)?;
        }
        self.properties.iter().try_for_each(|property| writeln!(f, "{property}"))?;
        if self.files.is_empty() && self.properties.is_empty() {
            writeln!(f, "guard holds nothing: nothing to put back")?;
        }
        if self.other_boot > 0 {
            writeln!(f, "{} records are of an earlier boot: those cgroups are no more", self.other_boot)?;
        }
        if self.damaged > 0 {
            writeln!(
                f,
                "{} lines of the undo journal are damaged: values that only they knew of are left as they are",
                self.damaged
            )?;
        }
        Ok(())
    }
}
