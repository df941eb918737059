//! What to observe of a node, and how closely.

use std::sync::Arc;
use std::time::Duration;

use super::accounts::Traces;
use super::selection::Selection;
use crate::config::Config;

/// Whether the flight recorder runs, which late wake-ups are explained by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recorder {
    /// Not.
    Off,
    /// Where its memory is there to spare.
    #[default]
    WhereItFits,
    /// In any case. Threads that the user named are judged then whatever their policy is.
    On,
}

/// What to observe.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The part of the node to report on.
    pub selection: Selection,
    /// Latency from which on a wake-up is late.
    pub threshold: Duration,
    /// Whether to act on what happens, not only to count it.
    pub act: bool,
    /// Whether the flight recorder runs.
    pub recorder: Recorder,
    /// With a recorder: where to keep what happened around late wake-ups.
    pub traces: Option<Traces>,
    /// With a recorder: whether to keep kernel stacks of late wake-ups.
    pub stacks: bool,
    /// Whether the kernel times guard's programs.
    pub run_time_stats: bool,
    /// Whether to collect what policies need, and the configuration that names workloads. It makes observing dearer.
    pub policy: Option<Arc<Config>>,
}
