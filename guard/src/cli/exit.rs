//! Exit codes and the messages that go with them.

use std::io;
use std::path::PathBuf;

use crate::config::{ConfigError, Endpoint};
use crate::control::{Blame, ControlError};
use crate::dashboard::DashboardError;
use crate::executor::RestoreError;
use crate::fault::Panic;
use crate::gate::GateError;
use crate::lab::LabError;
use crate::lab::workload::WorkloadError;
use crate::probe::ProbeError;
use crate::record::{RecordError, ReplayError};

/// How guard ends. The numbers are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Done, and found something that the user must act on; of the gate: a regression, or over budget.
    Found = 1,
    /// Wrong usage.
    Usage = 2,
    /// This node cannot do it; of the gate: the runs are not comparable.
    Node = 3,
    /// Of the gate: too little data.
    TooLittleData = 4,
    /// A defect of guard.
    Defect = 70,
}

impl Exit {
    /// Tells the user of a panic of the main thread.
    #[must_use]
    pub fn of_panic(panic: &Panic) -> Self {
        eprintln!("error: {panic}");
        told_of_defect()
    }
}

fn told_of_defect() -> Exit {
    eprintln!("This is a defect of guard; please report it with the output of -vv");
    Exit::Defect
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
    Gate(#[from] GateError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Dashboard(#[from] DashboardError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("--listen unix:{}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot show metrics on {endpoint}: {source}")]
    Metrics { endpoint: Endpoint, source: io::Error },
    #[error("--output {}: cannot create it: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Input { path: PathBuf, message: String },
    #[error("cannot write {what}: {source}")]
    Write { what: String, source: io::Error },
    #[error("cannot turn the report into JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot start the event loop: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("guard did not keep what it promises in: {0}")]
    Broken(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("{0}")]
    NotRestored(String),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            // A reader that has seen enough (`guard report | head`) is no failure.
            Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Control(error)
            | Self::Dashboard(DashboardError::Control(error))
            | Self::Probe(ProbeError::Passive(error)) => match error.blame() {
                Blame::Usage => Exit::Usage,
                Blame::Node => Exit::Node,
                Blame::Left => Exit::Found,
                Blame::Defect => Exit::Defect,
            },
            Self::Json(_)
            | Self::Dashboard(DashboardError::Panicked(_))
            | Self::Probe(ProbeError::Panicked(_))
            | Self::Workload(WorkloadError::Panicked) => Exit::Defect,
            Self::Create { .. } | Self::Config(_) => Exit::Usage,
            Self::Write { .. } | Self::Runtime(_) | Self::Restore(_) => Exit::Node,
            Self::NotRestored(_) => Exit::Found,
            Self::Gate(_) | Self::Usage(_) | Self::Input { .. } => Exit::Usage,
            Self::Dashboard(DashboardError::Terminal(_) | DashboardError::Start { .. }) => Exit::Node,
            Self::Dashboard(_) | Self::Record(_) | Self::Replay(_) | Self::Listen { .. } | Self::Metrics { .. } => {
                Exit::Usage
            }
            Self::Lab(LabError::Interrupted) | Self::Broken(_) => Exit::Found,
            Self::Lab(error) if error.is_defect() => Exit::Defect,
            Self::Lab(_) | Self::Workload(_) => Exit::Node,
            Self::Probe(ProbeError::Options(_) | ProbeError::NoCgroup { .. }) => Exit::Usage,
            Self::Probe(_) => Exit::Node,
        }
    }

    /// Tells the user, unless the failure is none, and returns the exit code.
    pub(super) fn report(&self) -> Exit {
        let exit = self.exit();
        if exit != Exit::Done {
            eprintln!("error: {self}");
        }
        if exit == Exit::Defect { told_of_defect() } else { exit }
    }
}
