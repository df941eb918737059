//! Why the lab could not show a hazard.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::cgroup::CgroupError;

/// Why a scenario could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Making cgroups takes root.
    #[error("guard lab makes cgroups and real-time threads of its own: it needs root")]
    NotRoot,
    /// This node cannot show it.
    #[error("this node cannot show it: {reason}")]
    Impossible {
        /// Why.
        reason: String,
    },
    /// The cpu hierarchy cannot be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file or directory of the lab's own.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A cgroup file of the lab's own was not written.
    #[error("cannot write \"{value}\" to {}: {source}{}", path.display(), remedy(path, source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What should be written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A child cannot be started, talked to or waited for.
    #[error("{name}: {source}")]
    Start {
        /// Which.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A child ended before its report; why stands on stderr.
    #[error("{name} ended with {status}")]
    Ended {
        /// Which.
        name: &'static str,
        /// How.
        status: ExitStatus,
    },
    /// A child does not answer.
    #[error("{name} said nothing within {limit:?}")]
    Silent {
        /// Which.
        name: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// A child does not keep to the form.
    #[error("a process of the lab says what it should not: {0}")]
    Json(#[source] serde_json::Error),
    /// Signals cannot be received.
    #[error("cannot wait for SIGINT and SIGTERM: {0}")]
    Signals(#[source] io::Error),
    /// By a signal. What the lab had made is gone.
    #[error("interrupted; what the lab had made is removed")]
    Interrupted,
}

impl LabError {
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }

    /// Whether it is a defect of the lab and not the node's.
    #[must_use]
    pub fn is_defect(&self) -> bool {
        matches!(self, Self::Json(_))
    }
}

/// What to do about files that kernels are known to refuse.
fn remedy(path: &Path, source: &io::Error) -> &'static str {
    let delegating = path.ends_with("cgroup.subtree_control");
    match source.raw_os_error() {
        // RT_GROUP_SCHED: the v2 cpu controller refuses while real-time processes are outside of the root.
        Some(libc::EINVAL) if delegating => {
            "; this kernel has CONFIG_RT_GROUP_SCHED: move real-time processes to the root cgroup, or boot it with \
             rt_group_sched=0"
        }
        Some(libc::EBUSY) if delegating => "; processes live in the cgroup itself",
        _ => "",
    }
}
