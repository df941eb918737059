//! What the loop is asked for: how often and how long to observe, by which configuration to decide, whether to write.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Length of a window.
    pub interval: Duration,
    /// How long to run; `None` runs until a signal.
    pub duration: Option<Duration>,
}

/// What is to be decided, and whether it is to be done.
#[derive(Clone, Debug)]
pub struct Acting {
    /// The configuration.
    pub config: Arc<Config>,
    /// The file that it comes from, to be read again on SIGHUP.
    pub file: Option<PathBuf>,
    /// Whether the user gave the length of a window, so that the configuration's does not count.
    pub fixed_interval: bool,
    /// How to write; `None` only reports what would be done.
    pub enforce: Option<Enforce>,
}

/// Where to keep what writing needs.
#[derive(Clone, Debug, Default)]
pub struct Enforce {
    /// Directory of the journal, instead of the configuration's.
    pub state_dir: Option<PathBuf>,
    /// Audit log, instead of the configuration's.
    pub audit: Option<PathBuf>,
}

impl Acting {
    /// Directory of the journal.
    pub(super) fn state_dir(&self) -> PathBuf {
        let own = self.enforce.as_ref().and_then(|enforce| enforce.state_dir.clone());
        own.unwrap_or_else(|| self.config.node.state_dir.clone())
    }

    /// Audit log.
    pub(super) fn audit(&self) -> PathBuf {
        let own = self.enforce.as_ref().and_then(|enforce| enforce.audit.clone());
        own.unwrap_or_else(|| self.config.node.audit.clone())
    }
}
