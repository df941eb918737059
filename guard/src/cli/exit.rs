//! Exit codes and the messages that go with them.

use std::io;
use std::path::PathBuf;

use crate::control::{Blame, ControlError};
use crate::dashboard::DashboardError;
use crate::record::{RecordError, ReplayError};

/// How guard ends. The numbers are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Wrong usage.
    Usage = 2,
    /// This node cannot do it.
    Node = 3,
    /// A defect of guard.
    Defect = 70,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a subcommand did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Dashboard(#[from] DashboardError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("--listen unix:{}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("--output {}: cannot create it: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write {what}: {source}")]
    Write { what: String, source: io::Error },
    #[error("cannot turn the report into JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot start the event loop: {0}")]
    Runtime(io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            // A reader that has seen enough (`guard report | head`) is no failure.
            Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Control(error) | Self::Dashboard(DashboardError::Control(error)) => match error.blame() {
                Blame::Usage => Exit::Usage,
                Blame::Node => Exit::Node,
                Blame::Defect => Exit::Defect,
            },
            Self::Dashboard(DashboardError::Terminal(_) | DashboardError::Start { .. }) => Exit::Node,
            Self::Create { .. } | Self::Dashboard(_) | Self::Record(_) | Self::Replay(_) | Self::Listen { .. } => {
                Exit::Usage
            }
            Self::Write { .. } | Self::Runtime(_) => Exit::Node,
            Self::Json(_) => Exit::Defect,
        }
    }

    /// Tells the user, unless the failure is none, and returns the exit code.
    pub(super) fn told(&self) -> Exit {
        let exit = self.exit();
        if exit != Exit::Done {
            eprintln!("error: {self}");
        }
        if exit == Exit::Defect {
            eprintln!("This is a defect of guard; please report it with the output of -vv");
        }
        exit
    }
}
