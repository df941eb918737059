//! The audit log: one line of JSON per change, each written with one call by a thread of its own, so that a slow disk
//! delays nobody. A panic of that thread costs one line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use crate::fault;
use crate::snapshot::Action;

/// Lines that may wait for the disk; later ones are lost, and said to be.
const WAITING_MAX: usize = 4_096;

/// The controller's end of the log.
#[derive(Debug)]
pub(super) struct Audit {
    lines: SyncSender<Message>,
    ended: Receiver<()>,
    lost: u64,
}

#[derive(Debug)]
enum Message {
    Line(Box<Action>),
    Reopen(PathBuf),
}

impl Audit {
    /// Opens the file, making it and its directory if need be, and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let (lines, messages) = sync_channel(WAITING_MAX);
        let (alive, ended) = channel();
        let path = path.to_owned();
        thread::Builder::new().name("guard-audit".to_owned()).spawn(move || {
            write(&messages, path, file);
            drop(alive);
        })?;
        Ok(Self { lines, ended, lost: 0 })
    }

    /// Appends a line; never waits.
    pub(super) fn append(&mut self, action: &Action) {
        match self.lines.try_send(Message::Line(Box::new(action.clone()))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.lost += 1;
                // At 1, 2, 4, 8 and so on.
                if self.lost.is_power_of_two() {
                    tracing::error!("the audit log is slower than what is done: {} lines are lost so far", self.lost);
                }
            }
            Err(TrySendError::Disconnected(_)) => tracing::error!("the audit log has ended; a line is lost"),
        }
    }

    /// Opens the file again, under its old name or another: it may have been moved away. Where that fails, which is
    /// said, the lines go on to the one that is open.
    pub(super) fn reopen(&self, path: &Path) {
        if self.lines.try_send(Message::Reopen(path.to_owned())).is_err() {
            tracing::error!("{}: not opened: too many lines of the audit log wait for the disk", path.display());
        }
    }

    /// Writes what waits, for no longer than `limit`.
    pub(super) fn end(self, limit: Duration) {
        drop(self.lines);
        // The thread drops its end when it is done.
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the audit log could not be written within {limit:?}; its last lines are lost");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}

fn write(messages: &Receiver<Message>, mut path: PathBuf, mut file: File) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Reopen(new) => match open(&new) {
                Ok(opened) => (path, file) = (new, opened),
                Err(error) => tracing::error!("{}: cannot open the audit log: {error}", new.display()),
            },
            Message::Line(action) => {
                let written = fault::caught(|| append(&mut file, &action));
                if let Err(error) = written.map_err(io::Error::other).flatten() {
                    tracing::error!("{}: cannot append to the audit log: {error}", path.display());
                }
            }
        }
    }
}

fn append(file: &mut File, action: &Action) -> io::Result<()> {
    fault::point("audit");
    let line = serde_json::to_string(action).map_err(io::Error::other)?;
    file.write_all((line + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::snapshot::ActionState;

    fn action(new: &str) -> Action {
        Action {
            at: "2026-11-24T00:11:10.000000Z".into(),
            knob: "quota".into(),
            path: "/plc".into(),
            old: "20000 100000".into(),
            new: new.into(),
            reason: "r".into(),
            evidence: BTreeMap::from([("throttle.count".into(), 2.0)]),
            result: ActionState::Written.into(),
        }
    }

    #[test]
    fn each_change_is_one_line_and_a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/audit.jsonl");
        let mut audit = Audit::open(&path).unwrap();
        audit.append(&action("max 100000"));
        audit.append(&action("20000 100000"));
        let moved = dir.path().join("audit.jsonl.1");
        fs::rename(&path, &moved).unwrap();
        audit.reopen(&path);
        audit.append(&action("3"));
        audit.end(Duration::from_secs(60));
        let lines = |path: &Path| -> Vec<Action> {
            let text = fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_eq!(lines(&moved), [action("max 100000"), action("20000 100000")]);
        assert_eq!(lines(&path), [action("3")]);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error() {
        assert!(Audit::open(Path::new("/proc/no/such/audit.jsonl")).is_err());
    }
}
