//! What keeps the probe from measuring: its command line, and what the kernel refuses.

use std::io;

use crate::cgroup::CgroupError;
use crate::control::ControlError;
use crate::fault::Panic;
use crate::sched::CallError;

/// A command line that cannot be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Neither cyclictest nor guard has it.
    #[error("guard probe has no option {0}; guard probe --help lists those it has")]
    Unknown(String),
    /// cyclictest has it and guard has not.
    #[error("guard probe cannot do {option} of cyclictest: {why}")]
    Unsupported {
        /// As it was written.
        option: String,
        /// What it would need.
        why: &'static str,
    },
    /// The first letters of several.
    #[error("{option} may mean {}", meanings.join(" or "))]
    Ambiguous {
        /// As it was written.
        option: String,
        /// Options that begin so.
        meanings: Vec<String>,
    },
    /// A value is missing.
    #[error("{option} needs a value: {wanted}")]
    Missing {
        /// The option.
        option: String,
        /// What the value is.
        wanted: &'static str,
    },
    /// A value is wrong.
    #[error("{option} {value}: want {wanted}")]
    Value {
        /// The option.
        option: String,
        /// As it was written.
        value: String,
        /// What the value is.
        wanted: &'static str,
    },
    /// A word that is neither an option nor its value.
    #[error("guard probe takes options only, and \"{0}\" is none")]
    Word(String),
    /// Options that exclude each other.
    #[error("{0}")]
    Together(&'static str),
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The command line.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// A call of a measuring thread failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The kernel refused a call that needs something.
    #[error("{call}; {hint}")]
    Refused {
        /// The call.
        call: CallError,
        /// What it needs, and how to give it.
        hint: String,
    },
    /// The cgroup hierarchy cannot be read, or the path is none.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// There is no such cgroup.
    #[error("--cgroup {path}: there is no such cgroup")]
    NoCgroup {
        /// What was asked for.
        path: String,
    },
    /// Threads cannot be moved there.
    #[error("--cgroup {path}: cannot move a measuring thread there: {source}")]
    Move {
        /// The cgroup.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel side cannot be had.
    #[error("--passive: {0}")]
    Passive(#[from] ControlError),
    /// Signals or threads cannot be had.
    #[error("cannot {what}: {source}")]
    Start {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A measuring thread panicked.
    #[error("{0}")]
    Panicked(Panic),
}
