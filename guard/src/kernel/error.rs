//! Why the kernel side cannot be used, and whose fault that is.

use std::io;

use super::{btf, errno::errno, pretence};

/// Why the kernel side could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process lacks the privileges.
    #[error("guard needs root, or CAP_BPF and CAP_PERFMON, to load its programs: {what} was refused. Run it with sudo")]
    NoPrivilege {
        /// The refused operation.
        what: String,
    },
    /// The kernel was built without type information.
    #[error("{path} cannot be read: {source}. guard needs a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// File.
        path: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// Type information that cannot be understood.
    #[error("{path}: {source}")]
    BadBtf {
        /// File.
        path: &'static str,
        /// Cause.
        source: btf::BtfError,
    },
    /// Something does not exist without which nothing can be measured.
    #[error("{0}: guard needs Linux 5.19 or later with CONFIG_TRACEPOINTS=y")]
    Lacking(String),
    /// What is to be taken for missing cannot be understood.
    #[error(transparent)]
    Pretence(#[from] pretence::NoPretence),
    /// The kernel refused an indispensable program.
    #[error(
        "the kernel refused the program {program}, without which nothing can be measured: {reason}. Lockdown in mode \"confidentiality\" refuses such programs"
    )]
    Refused {
        /// Program.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The object could not be loaded, or a map could not be made or read.
    #[error("{what}: {source}")]
    Bpf {
        /// Operation and object.
        what: String,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the programs read about guard itself is wrong: the offsets cannot be trusted.
    #[error(
        "self-check failed: the programs read {field} of guard's own thread as {read}, but it is {truth}; refusing to measure"
    )]
    SelfCheck {
        /// Field.
        field: &'static str,
        /// What BPF read.
        read: String,
        /// What is true.
        truth: String,
    },
    /// A thread that was to be watched does not exist.
    #[error("no thread with tid {0} exists")]
    NoThread(u32),
    /// All thread slots are taken.
    #[error("cannot watch thread {tid}: all {slots} thread slots are taken")]
    NoThreadSlot {
        /// Thread.
        tid: u32,
        /// Slots.
        slots: usize,
    },
}

impl KernelError {
    /// Whether the node cannot do it (exit code 3), rather than a defect of guard or a wrong argument.
    #[must_use]
    pub fn is_node(&self) -> bool {
        !matches!(
            self,
            Self::SelfCheck { .. } | Self::BadBtf { .. } | Self::NoThread(_) | Self::Pretence(_) | Self::Bpf { .. }
        )
    }

    pub(super) fn bpf(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Bpf { what: what.into(), source: Box::new(source) }
    }

    /// Whether memory was refused.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Bpf { source, .. } if errno(&**source) == Some(libc::ENOMEM))
    }
}
