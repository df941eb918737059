//! Recordings: Snapshots kept on disk, and Snapshots read back from whatever holds them. A recording is a directory of
//! segments, each a file that is only appended to; the oldest segment goes when the recording is too large or too old.
//! A segment names the version of its form and of the Snapshot, and every Snapshot in it has its length and checksum, so
//! that what a crash, a full disk or a bad block left is read up to the damage and beyond it. This room knows Snapshots
//! and files, nothing of the kernel and of views.

mod frame;
mod recorder;
mod replay;
mod ring;

pub use recorder::Recorder;
pub(crate) use replay::snapshot;
pub use replay::{Damage, Replay, ReplayError};
pub use ring::{RecordError, RecordLimits};
