//! What can go wrong at the kernel's files, and at those of cgroups.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::knob::ParseError;

/// What went wrong at which file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
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
}

impl FileError {
    /// What the kernel's refusal of `op` on a file is.
    pub(crate) fn io<'a>(op: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }
}

/// Why cgroups cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of it cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
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
            Self::File(FileError::Io { source, .. }) => {
                source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::ENODEV)
            }
            _ => false,
        }
    }
}
