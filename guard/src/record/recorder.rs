//! Recording beside the loop that observes: a thread of its own compresses and writes, so that a slow disk delays nobody, and
//! a panic there ends the recording and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::ring::{RecordError, RecordLimits, Ring};
use crate::fault;

/// Snapshots that wait for the disk at most; more are left out of the recording.
const WAITING: usize = 4;

/// A recording that is being written. Dropping it writes what waits.
pub struct Recorder {
    to_thread: Option<SyncSender<Arc<[u8]>>>,
    thread: Option<JoinHandle<()>>,
    left_out: u64,
}

impl Recorder {
    /// Begins to record into a directory, which is created if need be.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn start(dir: &Path, limits: RecordLimits) -> Result<Self, RecordError> {
        let ring = Ring::open(dir, limits)?;
        let (to_thread, snapshots) = sync_channel(WAITING);
        let name = dir.display().to_string();
        let thread = std::thread::Builder::new()
            .name("guard-record".to_owned())
            .spawn(move || {
                if let Err(panic) = fault::caught(|| write(ring, &snapshots, &name)) {
                    tracing::error!("the recording {name} ends here: {panic}. Observing goes on");
                }
            })
            .map_err(|source| RecordError::Io { op: "start a thread", path: dir.to_owned(), source })?;
        Ok(Self { to_thread: Some(to_thread), thread: Some(thread), left_out: 0 })
    }

    /// Records a Snapshot, given as JSON. Never waits, never fails: errors are logged.
    pub fn record(&mut self, json: Arc<[u8]>) {
        let Some(to_thread) = &self.to_thread else { return };
        match to_thread.try_send(json) {
            Ok(()) if self.left_out > 0 => {
                tracing::warn!("recording goes on; {} Snapshots are not in it: the disk was too slow", self.left_out);
                self.left_out = 0;
            }
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if self.left_out == 0 {
                    tracing::warn!("recording is interrupted: the disk is too slow. Observing goes on");
                }
                self.left_out += 1;
            }
            // The thread ends only when this is dropped, or by a panic, which was said.
            Err(TrySendError::Disconnected(_)) => self.to_thread = None,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.to_thread = None;
        // Its panics are caught.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Writes until the sender is gone. A failure is logged once, until it is over.
fn write(mut ring: Ring, snapshots: &Receiver<Arc<[u8]>>, name: &str) {
    let mut missing = 0_u64;
    for json in snapshots {
        fault::point("record");
        match ring.append(&json, SystemTime::now()) {
            Ok(()) if missing > 0 => {
                tracing::warn!("recording to {name} goes on; {missing} Snapshots are not in it");
                missing = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if missing == 0 {
                    tracing::warn!(
                        "cannot record to {name}: {error}. Observing goes on, and every Snapshot is tried again"
                    );
                }
                missing += 1;
            }
        }
    }
    if missing > 0 {
        tracing::warn!("the last {missing} Snapshots are not in the recording {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Replay;
    use crate::view::{json, samples};

    #[test]
    fn what_was_recorded_is_on_disk_when_the_recorder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(dir.path(), RecordLimits::default()).unwrap();
        let line = json::line(&samples::full()).unwrap();
        (0..3).for_each(|_| recorder.record(line.as_bytes().into()));
        drop(recorder);
        let back: Vec<_> = Replay::open(dir.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(back, vec![samples::full(); 3]);
    }
}
