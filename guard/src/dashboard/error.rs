//! Why there is no dashboard.

use std::io;
use std::path::PathBuf;

use crate::control::ControlError;
use crate::fault::Panic;
use crate::record::ReplayError;

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// No terminal to draw on, or to read keys from.
    #[error(
        "guard top needs a terminal on stdin and stdout, and there is none; guard report and guard run print plain text"
    )]
    NoTerminal,
    /// The terminal fails.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[source] io::Error),
    /// A thread or signal handler cannot be had.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The node cannot be observed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The recording cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A thread of the dashboard panicked, upon which the terminal was given back.
    #[error("{0}")]
    Panicked(Panic),
    /// Nobody listens on the socket.
    #[error("--connect {}: {source}; is guard run --listen unix:{} running, and by the same user?", path.display(), path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}
