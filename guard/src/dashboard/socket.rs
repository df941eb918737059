//! A running controller, read by its socket. When the controller goes it is looked for again.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::error::DashboardError;
use super::source::{LoopSender, Orders, SnapshotSource};
use crate::record;
use crate::snapshot::Snapshot;
use crate::view::top::SourceState;

/// Time between two attempts to find the controller again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Largest frame that is read, bytes.
const MAX_FRAME: usize = 256 << 20;

/// A connection to a controller.
pub(super) struct Socket {
    path: PathBuf,
    stream: UnixStream,
}

impl Socket {
    pub(super) fn connect(path: &Path) -> Result<Self, DashboardError> {
        let stream =
            UnixStream::connect(path).map_err(|source| DashboardError::Connect { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), stream })
    }

    /// Forwards what the controller sends until it or the loop is gone; returns why it is gone.
    fn read(&mut self, outlet: &LoopSender) -> Option<io::Error> {
        loop {
            match frame(&mut self.stream) {
                Ok(snapshot) => {
                    if !outlet.snapshot(snapshot) {
                        return None;
                    }
                }
                Err(error) => return Some(error),
            }
        }
    }
}

impl SnapshotSource for Socket {
    fn run(mut self: Box<Self>, outlet: &LoopSender, orders: &Orders) {
        while let Some(error) = self.read(outlet) {
            let why = match error.kind() {
                io::ErrorKind::UnexpectedEof => "the controller is gone".to_owned(),
                _ => error.to_string(),
            };
            if !outlet.state(SourceState::Lost(format!("{}: {why}; looking for it every second", self.path.display())))
            {
                return;
            }
            self.stream = loop {
                match orders.recv_timeout(RETRY_EVERY) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                }
                if let Ok(stream) = UnixStream::connect(&self.path) {
                    break stream;
                }
            };
        }
    }
}

/// The next Snapshot.
fn frame(stream: &mut UnixStream) -> io::Result<Snapshot> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(invalid(format!("it sends frames of {length} bytes: it is no guard")));
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json)?;
    record::snapshot(&json).map_err(|why| invalid(format!("it sends {why}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use tokio::sync::mpsc;

    use super::super::source::SourceEvent;
    use super::*;
    use crate::view::top::AppEvent;
    use crate::view::{json, samples};

    #[test]
    fn a_controller_that_goes_and_comes_back_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let source = Box::new(Socket::connect(&path).unwrap());
        let (sender, mut told) = mpsc::channel(4);
        let (orders, received) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || source.run(&LoopSender::new(sender), &received));
        let json = json::line(&samples::full()).unwrap();
        let mut next = || match told.blocking_recv() {
            Some(SourceEvent::Event(event)) => event,
            _ => panic!("no event"),
        };
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&u32::try_from(json.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(json.as_bytes()).unwrap();
            assert!(matches!(next(), AppEvent::Snapshot(s) if *s == samples::full()));
            drop(stream);
            assert!(matches!(next(), AppEvent::Source(SourceState::Lost(why)) if why.contains("is gone")));
        }
        drop(orders);
        thread.join().unwrap();
    }

    #[test]
    fn foreign_frames_are_refused() {
        for (bytes, why) in [
            ([&[0xff; 4], b"".as_slice()].concat(), "no guard"),
            ([&[0, 0, 0, 2], b"{}".as_slice()].concat(), "no \"schema\""),
        ] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&bytes).unwrap();
            assert!(frame(&mut ours).unwrap_err().to_string().contains(why));
        }
    }
}
