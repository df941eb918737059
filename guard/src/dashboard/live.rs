//! This node, observed by this process.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::source::{LoopSender, Orders, SnapshotSource};
use crate::control::{ControlError, Observer, Watch};
use crate::view::top::{Order, SourceState};

/// Longest time between two samples of the kernel side.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// An [`Observer`] in a thread of its own.
pub(super) struct Live {
    watch: Watch,
    interval: Duration,
}

/// Why observing ended.
enum ObserveEnd {
    /// The loop is gone.
    Unwanted,
    /// Another latency is to count as late.
    Threshold(Duration),
}

impl Live {
    pub(super) fn new(watch: Watch, interval: Duration) -> Self {
        Self { watch, interval }
    }

    /// Observes until an order ends it.
    fn observe(&self, outlet: &LoopSender, orders: &Orders) -> Result<ObserveEnd, ControlError> {
        let mut observer = Observer::start(&self.watch)?;
        if !outlet.state(SourceState::Running) {
            return Ok(ObserveEnd::Unwanted);
        }
        let mut next = Instant::now() + self.interval;
        loop {
            let wait = next.saturating_duration_since(Instant::now()).min(SAMPLE_EVERY);
            match orders.recv_timeout(wait) {
                Ok(Order::Threshold(limit)) => return Ok(ObserveEnd::Threshold(limit)),
                // Time cannot be made to go otherwise.
                Ok(Order::Pause | Order::Resume | Order::Step | Order::Speed(_)) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(ObserveEnd::Unwanted),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() < next {
                observer.sample()?;
                continue;
            }
            if !outlet.snapshot(observer.snapshot()?) {
                return Ok(ObserveEnd::Unwanted);
            }
            // A node that was too busy for an interval gets no shorter ones to make up for it.
            next = (next + self.interval).max(Instant::now());
        }
    }
}

impl SnapshotSource for Live {
    fn run(mut self: Box<Self>, outlet: &LoopSender, orders: &Orders) {
        loop {
            match self.observe(outlet, orders) {
                Ok(ObserveEnd::Unwanted) => return,
                // The kernel side has it as a constant, so it is loaded anew.
                Ok(ObserveEnd::Threshold(limit)) => {
                    self.watch.threshold = limit;
                    outlet.message(format!("late from {limit:?} on"));
                }
                Err(error) => return outlet.failed(error.into()),
            }
        }
    }
}
