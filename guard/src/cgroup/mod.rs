//! The only room that knows cgroup files: where the cpu controller is mounted (v1, v2 or hybrid), which cgroups there
//! are, what their cpu files say, and the only place from which they are written: the [`Executor`]. It knows no
//! container, no class and no policy: a cgroup is a path and an id here.

mod around;
mod convert;
mod delegation;
mod executor;
#[cfg(test)]
mod executor_tests;
mod files;
mod hierarchy;
mod journal;
mod knobs;
mod limits;
mod mountinfo;
mod order;
mod outcome;
mod pace;
mod read;
mod restore;
mod store;
mod systemd;
mod target;
mod tree;
mod trouble;
mod value;
mod write;

use std::{io, path::PathBuf};

pub use convert::WeightFormula;
pub use executor::{Executor, ExecutorOptions};
pub(crate) use files::parse_pressure;
pub use files::{CpuStatTotals, ParseError, PressureTotals, Weight};
pub use hierarchy::{Hierarchy, Version};
pub use limits::{MAX_PERIOD_US, MAX_QUOTA_US, MIN_PERIOD_US};
pub use outcome::{Change, Outcome, Restored, RestoredProperty, What, WriteResult};
pub use pace::Pace;
pub use read::{Cpuset, PressureReading};
pub use restore::{Report, RestoreError, restore};
pub use store::{DEFAULT_STATE_DIR, StateError};
pub use systemd::{Units, UnitsOptions, adopt_units, restore_units};
pub use tree::{CgroupDir, Tree};
pub use value::File;

/// What went wrong at which file of the cgroup file system.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The kernel refused an operation.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "list" or "stat".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file holds something that its format does not allow.
    #[error("cannot understand {}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        source: ParseError,
    },
    /// The cgroup lies outside the part of the hierarchy that is mounted here.
    #[error("cgroup {path} is not below {top}, the part of the hierarchy that is mounted here")]
    Outside {
        /// Path of the cgroup.
        path: String,
        /// Path of the cgroup that the mount point shows.
        top: String,
    },
    /// No mounted hierarchy has the cpu controller.
    #[error("no cgroup hierarchy with the cpu controller is mounted: {reason}; {remedy}")]
    NoCpuController {
        /// What was found instead.
        reason: String,
        /// What to mount, or to enable.
        remedy: &'static str,
    },
}

impl CgroupError {
    /// Whether the cgroup was removed meanwhile: an event of daily life, not a fault.
    #[must_use]
    pub fn is_vanished(&self) -> bool {
        match self {
            // A file that was open when its cgroup went answers ENODEV.
            Self::Io { source, .. } => {
                source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::ENODEV)
            }
            _ => false,
        }
    }
}
