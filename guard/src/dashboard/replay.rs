//! A recording at its own speed, faster, slower, or step by step.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::source::{LoopSender, Orders, SnapshotSource};
use crate::record::Replay;
use crate::view::top::{Order, SourceState};

/// Longest wait for a Snapshot at its own speed: a report of an hour shall not be waited for.
const LONGEST: Duration = Duration::from_secs(10);
/// Wait while there is nothing to do but take orders.
const IDLE: Duration = Duration::from_secs(3_600);

/// A [`Replay`] in time.
pub(super) struct Replayed {
    replay: Replay,
    pace: ReplayPace,
}

/// When the next Snapshot is due.
struct ReplayPace {
    speed: f64,
    paused: bool,
    /// Snapshots that were asked for while paused.
    steps: u32,
    due: Instant,
}

impl ReplayPace {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Pause => self.paused = true,
            Order::Resume => (self.paused, self.steps) = (false, 0),
            Order::Step => self.steps = self.steps.saturating_add(1),
            Order::Speed(speed) => self.speed = speed,
            Order::Threshold(_) => {}
        }
    }

    /// How long to wait from now.
    fn wait(&self) -> Duration {
        match (self.paused, self.steps) {
            (true, 0) => IDLE,
            (true, _) => Duration::ZERO,
            (false, _) => self.due.saturating_duration_since(Instant::now()),
        }
    }

    /// A Snapshot of this many seconds was shown.
    fn shown(&mut self, seconds: f64) {
        self.steps = self.steps.saturating_sub(1);
        let own = Duration::try_from_secs_f64(seconds).map_or(LONGEST, |own| own.min(LONGEST));
        self.due = Instant::now() + Duration::try_from_secs_f64(own.as_secs_f64() / self.speed).unwrap_or(LONGEST);
    }
}

impl Replayed {
    pub(super) fn new(replay: Replay, speed: f64) -> Self {
        Self { replay, pace: ReplayPace { speed, paused: false, steps: 0, due: Instant::now() } }
    }
}

impl SnapshotSource for Replayed {
    fn run(self: Box<Self>, outlet: &LoopSender, orders: &Orders) {
        let Self { replay, mut pace } = *self;
        for next in replay {
            loop {
                match orders.recv_timeout(pace.wait()) {
                    Ok(order) => pace.obey(order),
                    Err(RecvTimeoutError::Timeout) if pace.paused && pace.steps == 0 => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let taken = match next {
                Ok(snapshot) => {
                    pace.shown(snapshot.window.seconds);
                    outlet.snapshot(snapshot)
                }
                Err(damage) => outlet.message(format!("damaged: {damage}")),
            };
            if !taken {
                return;
            }
        }
        outlet.state(SourceState::Ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_replay_moves_by_steps_only() {
        let mut pace = ReplayPace { speed: 1.0, paused: false, steps: 0, due: Instant::now() };
        assert_eq!(pace.wait(), Duration::ZERO);
        pace.obey(Order::Pause);
        assert_eq!(pace.wait(), IDLE);
        pace.obey(Order::Step);
        assert_eq!(pace.wait(), Duration::ZERO);
        pace.shown(5.0);
        assert_eq!(pace.wait(), IDLE);
        pace.obey(Order::Resume);
        assert!(pace.wait() <= Duration::from_secs(5));
    }

    #[test]
    fn no_length_and_no_speed_is_too_strange() {
        let mut pace = ReplayPace { speed: f64::MIN_POSITIVE, paused: false, steps: 0, due: Instant::now() };
        for seconds in [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.0] {
            pace.shown(seconds);
            assert!(pace.wait() <= LONGEST);
        }
    }
}
