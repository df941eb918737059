//! The loop of `guard report` and `guard run`: waits, samples, and hands a Snapshot of every window to its caller. One
//! thread, no busy work; it sleeps between samples.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::ControlError;
use super::observe::{Observer, Watch};
use crate::snapshot::Snapshot;

/// Longest time between two samples. Windows may be longer; see [`super::accumulate`].
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Length of a window.
    pub interval: Duration,
    /// End after this time; none is until a signal.
    pub duration: Option<Duration>,
}

/// The runtime for everything in this room: one thread, timers and signals.
///
/// # Errors
/// When the kernel refuses an epoll instance.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().enable_io().build()
}

/// Observes for `duration`, or until SIGINT or SIGTERM, and returns the Snapshot of that time.
///
/// # Errors
/// See [`ControlError`].
pub async fn measure(watch: &Watch, duration: Duration, begun: impl FnOnce()) -> Result<Snapshot, ControlError> {
    run(watch, Pace { interval: duration, duration: Some(duration) }, begun, |_| Ok(())).await
}

/// Observes and hands over a Snapshot per window, `begun` being called when all that happens from then on counts, until the duration is over, a SIGINT or SIGTERM comes (the begun window
/// is handed over), all threads that were named have ended, or `sink` fails. Returns the last Snapshot.
///
/// # Errors
/// See [`ControlError`], and what `sink` returns.
pub async fn run<E: From<ControlError>>(
    watch: &Watch,
    pace: Pace,
    begun: impl FnOnce(),
    mut sink: impl FnMut(&Snapshot) -> Result<(), E>,
) -> Result<Snapshot, E> {
    // Before anything is loaded, so that an early Ctrl-C ends cleanly too.
    let mut stop = Stop::new().map_err(ControlError::Signals)?;
    let mut observer = Observer::start(watch)?;
    begun();
    let begin = Instant::now();
    let end = pace.duration.map(|duration| begin + duration);
    let mut window = interval_at(begin + pace.interval, pace.interval);
    window.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        let mut stopping = loop {
            tokio::select! {
                biased;
                () = stop.asked() => break true,
                () = until(end) => break true,
                _ = window.tick() => break false,
                () = sleep(SAMPLE_EVERY), if pace.interval > SAMPLE_EVERY => observer.sample()?,
            }
        };
        // The last window may end a little before the end; a sliver after it would say nothing.
        stopping |= end.is_some_and(|end| Instant::now() + pace.interval / 10 >= end);
        let snapshot = observer.snapshot()?;
        sink(&snapshot)?;
        if stopping {
            return Ok(snapshot);
        }
        if observer.all_named_ended() {
            tracing::warn!("every thread named with --tid has ended");
            return Ok(snapshot);
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => pending().await,
    }
}

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when one of them has come.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
