//! The state of the dashboard: what is shown, of which Snapshot, in which order. [`super::app`] changes it, and the pages
//! show it.

use super::history::SnapshotHistory;
use super::theme::Theme;
use crate::doctor::DoctorReport;
use crate::snapshot::Snapshot;

/// Where Snapshots come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// guard's own programs in the kernel.
    Live,
    /// A running controller.
    Socket,
    /// A recording.
    Replay,
}

/// How the dashboard begins.
#[derive(Clone, Debug)]
pub struct AppOptions {
    /// Where Snapshots come from.
    pub kind: SourceKind,
    /// When a wake-up is late, ns.
    pub limit_ns: u64,
    /// Speed of a replay.
    pub speed: f64,
    /// Colours or none.
    pub theme: Theme,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
}

/// How the source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It will bring Snapshots; what it does until then.
    Loading(String),
    /// It brings Snapshots.
    Running,
    /// It is gone and may come back; why.
    Lost(String),
    /// There will be no more.
    Ended,
}

/// Which view is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Workload,
    Causes,
    Actions,
    Node,
    Doctor,
    Help,
}

impl View {
    pub(super) const ALL: [Self; 7] =
        [Self::Overview, Self::Workload, Self::Causes, Self::Actions, Self::Node, Self::Doctor, Self::Help];

    pub(super) fn by_key(key: char) -> Option<Self> {
        Some(match key {
            '1' | 'o' => Self::Overview,
            '2' | 'w' => Self::Workload,
            '3' | 'c' => Self::Causes,
            '4' | 'a' => Self::Actions,
            '5' | 'n' => Self::Node,
            '6' | 'd' => Self::Doctor,
            '?' | 'h' => Self::Help,
            _ => return None,
        })
    }
}

/// A line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Filter(String),
    Threshold(String),
}

/// What the workloads are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Harm first, then as the Snapshot has them.
    Worst,
    /// 99th percentile.
    P99,
    /// Maximum.
    Max,
    /// Throttles.
    Throttles,
    /// Part of the budget.
    Budget,
    /// Name.
    Name,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Worst => Self::P99,
            Self::P99 => Self::Max,
            Self::Max => Self::Throttles,
            Self::Throttles => Self::Budget,
            Self::Budget => Self::Name,
            Self::Name => Self::Worst,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst first",
            Self::P99 => "by p99",
            Self::Max => "by max",
            Self::Throttles => "by throttles",
            Self::Budget => "by budget",
            Self::Name => "by name",
        }
    }
}

/// The state.
pub struct App {
    pub(super) options: AppOptions,
    pub(super) history: SnapshotHistory,
    pub(super) source: SourceState,
    pub(super) view: View,
    /// Number of the Snapshot that is shown while time stands still; `None` shows the newest.
    pub(super) held: Option<u64>,
    /// Whether time stops by itself at a late wake-up.
    pub(super) freeze: bool,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) prompt: Option<Prompt>,
    pub(super) message: Option<String>,
    /// Id of the workload under the cursor.
    pub(super) selected: Option<u64>,
    /// What doctor found; `None` before its first look.
    pub(super) examined: Option<DoctorReport>,
    /// Whether doctor is examining the node.
    pub(super) examining: bool,
    /// First line shown of each view but the overview.
    pub(super) scroll: [usize; View::ALL.len()],
    pub(super) changed: bool,
}

impl App {
    /// The dashboard before the first Snapshot.
    #[must_use]
    pub fn new(options: AppOptions, source: SourceState) -> Self {
        Self {
            options,
            history: SnapshotHistory::default(),
            source,
            view: View::Overview,
            held: None,
            freeze: false,
            sort: Sort::Worst,
            reversed: false,
            filter: String::new(),
            prompt: None,
            message: None,
            selected: None,
            examined: None,
            examining: false,
            scroll: [0; View::ALL.len()],
            changed: true,
        }
    }

    /// Whether the picture differs from when this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Number of the Snapshot that is shown.
    pub(super) fn shown_number(&self) -> Option<u64> {
        let newest = self.history.newest()?;
        Some(self.held.map_or(newest, |held| held.clamp(self.history.oldest(), newest)))
    }

    /// The Snapshot that is shown.
    pub(super) fn shown(&self) -> Option<&Snapshot> {
        self.history.get(self.shown_number()?)
    }

    /// First line shown of the present view.
    pub(super) fn scrolled(&self) -> usize {
        self.scroll[self.view as usize]
    }
}
