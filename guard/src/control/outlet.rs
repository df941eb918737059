//! Hands Snapshots to whoever shows or stores them, in a thread of its own: a terminal that stands still, or a slow disk,
//! must not delay what protects, and a panic there must not end it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use crate::fault;
use crate::snapshot::Snapshot;

/// Snapshots that may wait. Later ones are skipped, which is said.
const WAITING_MAX: usize = 8;
/// How long the last ones may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The controller's end.
pub(super) struct Outlet<E> {
    snapshots: Option<SyncSender<Snapshot>>,
    ended: Receiver<Result<(), E>>,
    skipped: u64,
}

impl<E: Send + 'static> Outlet<E> {
    /// Starts the thread, in which `sink` is called until it fails.
    ///
    /// # Errors
    /// When the kernel refuses a thread.
    pub(super) fn start(mut sink: impl FnMut(&Snapshot) -> Result<(), E> + Send + 'static) -> std::io::Result<Self> {
        let (snapshots, waiting) = sync_channel::<Snapshot>(WAITING_MAX);
        let (end, ended) = channel();
        thread::Builder::new().name("guard-output".to_owned()).spawn(move || {
            let outcome = waiting.iter().try_for_each(|snapshot| {
                let shown = fault::caught(|| {
                    fault::point("output");
                    sink(&snapshot)
                });
                shown.unwrap_or_else(|panic| {
                    tracing::error!("an interval is missing in the output: {panic}");
                    Ok(())
                })
            });
            drop(waiting);
            // What it has opened is written out, closed or removed before its end is reported, upon which guard may end.
            drop(sink);
            // Nobody waits for it when the controller has failed meanwhile.
            let _ = end.send(outcome);
        })?;
        Ok(Self { snapshots: Some(snapshots), ended, skipped: 0 })
    }

    /// Hands one over; never waits.
    ///
    /// # Errors
    /// What `sink` said of an earlier one.
    pub(super) fn hand_over(&mut self, snapshot: Snapshot) -> Result<(), E> {
        let Some(snapshots) = &self.snapshots else { return Ok(()) };
        match snapshots.try_send(snapshot) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.skipped += 1;
                if self.skipped.is_power_of_two() {
                    tracing::warn!("the output takes no more: {} intervals are missing in it so far", self.skipped);
                }
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => self.end(),
        }
    }

    /// Waits until all are handed over.
    ///
    /// # Errors
    /// What `sink` said.
    pub(super) fn end(&mut self) -> Result<(), E> {
        self.snapshots = None;
        match self.ended.recv_timeout(PATIENCE) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the output takes no more; its last intervals are missing");
                Ok(())
            }
            // It was reported before.
            Err(RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn an_output_that_stands_still_is_not_waited_for() {
        let (begun, has_begun) = channel();
        let (go, may_go) = channel::<()>();
        let mut outlet = Outlet::start(move |_| {
            begun.send(()).unwrap();
            may_go.recv().map_err(|_| "gone")
        })
        .unwrap();
        outlet.hand_over(samples::empty()).unwrap();
        has_begun.recv().unwrap();
        for _ in 0..WAITING_MAX + 5 {
            outlet.hand_over(samples::empty()).unwrap();
        }
        assert_eq!(outlet.skipped, 5);
        drop(go);
        has_begun.iter().for_each(drop);
        assert_eq!(outlet.end(), Err("gone"));
        assert_eq!(outlet.hand_over(samples::empty()), Ok(()));
    }

    #[test]
    fn an_interval_that_panics_is_missing_and_the_next_one_is_shown() {
        let (shown, what_is_shown) = channel();
        let mut outlet = Outlet::<()>::start(move |snapshot| {
            assert!(!snapshot.threads.is_empty(), "nothing to show");
            shown.send(snapshot.threads.len()).unwrap();
            Ok(())
        })
        .unwrap();
        outlet.hand_over(samples::empty()).unwrap();
        outlet.hand_over(samples::full()).unwrap();
        assert_eq!(outlet.end(), Ok(()));
        assert_eq!(what_is_shown.iter().collect::<Vec<_>>(), [samples::full().threads.len()]);
    }

    #[test]
    fn what_the_output_holds_is_gone_when_its_end_is_reported() {
        struct Held(std::sync::mpsc::Sender<()>);
        impl Drop for Held {
            fn drop(&mut self) {
                thread::sleep(Duration::from_millis(50));
                self.0.send(()).unwrap();
            }
        }
        let (gone, is_gone) = channel();
        let held = Held(gone);
        let mut outlet = Outlet::<()>::start(move |_| {
            let _ = &held;
            Ok(())
        })
        .unwrap();
        assert_eq!(outlet.end(), Ok(()));
        assert_eq!(is_gone.try_recv(), Ok(()));
    }
}
