//! What all sources of Snapshots have in common: each runs in its own thread, hands over what it gets, and takes orders.

use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::Sender;

use super::error::DashboardError;
use crate::snapshot::Snapshot;
use crate::view::top::{AppEvent, Order, SourceState};

/// Orders for a source.
pub(super) type Orders = Receiver<Order>;

/// A source of Snapshots.
pub(super) trait SnapshotSource: Send {
    /// Brings Snapshots until there are no more or the loop is gone.
    fn run(self: Box<Self>, outlet: &LoopSender, orders: &Orders);
}

/// What threads report to the loop.
pub(super) enum SourceEvent {
    /// Something for the dashboard.
    Event(AppEvent),
    /// The source cannot go on, and there is nothing to show without it.
    Failed(DashboardError),
    /// The terminal is gone.
    InputEnded,
}

/// The way to the loop. Its methods wait while the loop is busy, and return whether it still receives.
pub(super) struct LoopSender {
    to_loop: Sender<SourceEvent>,
}

impl LoopSender {
    pub(super) fn new(to_loop: Sender<SourceEvent>) -> Self {
        Self { to_loop }
    }

    pub(super) fn event(&self, event: AppEvent) -> bool {
        self.to_loop.blocking_send(SourceEvent::Event(event)).is_ok()
    }

    pub(super) fn snapshot(&self, snapshot: Snapshot) -> bool {
        self.event(AppEvent::Snapshot(Box::new(snapshot)))
    }

    pub(super) fn state(&self, state: SourceState) -> bool {
        self.event(AppEvent::Source(state))
    }

    pub(super) fn message(&self, text: String) -> bool {
        self.event(AppEvent::Message(text))
    }

    /// A loop that is gone needs no report.
    pub(super) fn failed(&self, error: DashboardError) {
        let _ = self.to_loop.blocking_send(SourceEvent::Failed(error));
    }

    pub(super) fn input_ended(&self) {
        let _ = self.to_loop.blocking_send(SourceEvent::InputEnded);
    }
}
