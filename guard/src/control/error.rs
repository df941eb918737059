//! What goes wrong in this room, and whose business it is.

use std::io;
use std::path::PathBuf;

use super::left::Left;
use crate::cgroup::CgroupError;
use crate::executor::RestoreError;
use crate::fault::Panic;
use crate::inventory::{GlobError, InventoryError};
use crate::kernel::KernelError;

/// Why a node could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The kernel side could not be loaded or read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cgroup hierarchy cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The node's inventory cannot be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The state directory cannot be used, or what an earlier guard left could not be looked at.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A pattern is no pattern.
    #[error("--cgroup: {0}")]
    Glob(#[from] GlobError),
    /// A pattern matches nothing.
    #[error("--cgroup {pattern}: no cgroup matches, of {cgroups} on this node{}", did_you_mean(similar))]
    NoCgroup {
        /// The pattern.
        pattern: String,
        /// Cgroups on this node.
        cgroups: usize,
        /// Paths that look like it.
        similar: Vec<String>,
    },
    /// A thread that was named does not exist.
    #[error("--tid {tid}: this node has no such thread{}", real_time_threads(threads))]
    NoThread {
        /// The thread.
        tid: u32,
        /// Some real-time threads of user space, as "comm tid".
        threads: Vec<String>,
    },
    /// A pattern of the configuration is none.
    #[error("configuration: {0}")]
    Pattern(#[source] globset::Error),
    /// The kernel side's events cannot be waited for.
    #[error("cannot wait for events of the kernel side: {0}")]
    Events(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The audit log cannot be opened.
    #[error("audit log {}: cannot open it: {source}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The end came, and not everything was put back.
    #[error("{left}")]
    NotPutBack {
        /// What.
        left: Left,
    },
    /// A lane panicked, upon which guard ended.
    #[error("{panic}; {left}")]
    Panicked {
        /// The panic.
        panic: Panic,
        /// What was not put back; of what that lane held its journal says.
        left: Left,
    },
    /// The loop ended before its first window.
    #[error("there was no window to report")]
    NoWindow,
    /// Signals cannot be received.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Whose business an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The user asked for what is not there.
    Usage,
    /// The node lacks a privilege, a kernel option or a mount.
    Node,
    /// Something was left on the node that the user has to look after.
    Left,
    /// guard is wrong.
    Defect,
}

impl ControlError {
    /// Whose business it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoCgroup { .. } | Self::NoThread { .. } | Self::Glob(_) | Self::Pattern(_) | Self::Audit { .. } => {
                Blame::Usage
            }
            Self::NotPutBack { .. } => Blame::Left,
            Self::NoWindow | Self::Panicked { .. } => Blame::Defect,
            Self::Kernel(KernelError::NoThread(_) | KernelError::Pretence(_)) => Blame::Usage,
            Self::Kernel(error) if !error.is_node() => Blame::Defect,
            Self::Kernel(_)
            | Self::Cgroup(_)
            | Self::Inventory(_)
            | Self::Signals(_)
            | Self::Events(_)
            | Self::Restore(_)
            | Self::Thread(_) => Blame::Node,
        }
    }
}

fn did_you_mean(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!(". Similar: {}", similar.join(", ")) }
}

fn real_time_threads(threads: &[String]) -> String {
    if threads.is_empty() { String::new() } else { format!(". Real-time threads are: {}", threads.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let error = ControlError::NoCgroup { pattern: "/plx*".into(), cgroups: 12, similar: vec!["/plc".into()] };
        assert_eq!(error.to_string(), "--cgroup /plx*: no cgroup matches, of 12 on this node. Similar: /plc");
        assert_eq!(error.blame(), Blame::Usage);
        let error = ControlError::NoThread { tid: 9, threads: vec!["cycle 12".into()] };
        assert_eq!(error.to_string(), "--tid 9: this node has no such thread. Real-time threads are: cycle 12");
        let error = ControlError::NoThread { tid: 9, threads: vec![] };
        assert_eq!(error.to_string(), "--tid 9: this node has no such thread");
    }

    #[test]
    fn blame_follows_the_kind_of_error() {
        let privilege = KernelError::NoPrivilege { what: "bpf".into() };
        assert_eq!(ControlError::from(privilege).blame(), Blame::Node);
        let wrong = KernelError::SelfCheck { field: "pid", read: "1".into(), truth: "2".into() };
        assert_eq!(ControlError::from(wrong).blame(), Blame::Defect);
        assert_eq!(ControlError::from(KernelError::NoThread(3)).blame(), Blame::Usage);
    }
}
