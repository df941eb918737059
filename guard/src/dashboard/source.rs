//! What all sources of Snapshots have in common: each runs in its own thread, hands over what it gets, and takes orders.

use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::Sender;

use super::error::DashboardError;
use crate::snapshot::Snapshot;
use crate::view::top::{Event, Order, SourceState};

/// Orders for a source.
pub(super) type Orders = Receiver<Order>;

/// A source of Snapshots.
pub(super) trait Source: Send {
    /// Brings Snapshots until there are no more or nobody takes them.
    fn run(self: Box<Self>, outlet: &Outlet, orders: &Orders);
}

/// What threads tell the loop.
pub(super) enum Told {
    /// Something for the dashboard.
    Event(Event),
    /// The source cannot go on, and there is nothing to show without it.
    Failed(DashboardError),
    /// The terminal is gone.
    InputEnded,
}

/// The way to the loop. Its methods wait while the loop is busy, and return whether there is still somebody there.
pub(super) struct Outlet {
    to_loop: Sender<Told>,
}

impl Outlet {
    pub(super) fn new(to_loop: Sender<Told>) -> Self {
        Self { to_loop }
    }

    pub(super) fn event(&self, event: Event) -> bool {
        self.to_loop.blocking_send(Told::Event(event)).is_ok()
    }

    pub(super) fn snapshot(&self, snapshot: Snapshot) -> bool {
        self.event(Event::Snapshot(Box::new(snapshot)))
    }

    pub(super) fn state(&self, state: SourceState) -> bool {
        self.event(Event::Source(state))
    }

    pub(super) fn message(&self, text: String) -> bool {
        self.event(Event::Message(text))
    }

    /// Whoever is gone needs not be told.
    pub(super) fn failed(&self, error: DashboardError) {
        let _ = self.to_loop.blocking_send(Told::Failed(error));
    }

    pub(super) fn input_ended(&self) {
        let _ = self.to_loop.blocking_send(Told::InputEnded);
    }
}
