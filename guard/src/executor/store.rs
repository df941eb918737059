//! The state directory: the undo journal's file, and the lock that says who may write it.
//!
//! What must survive what: kill -9 of guard loses nothing that was given to the kernel, so each record is written before
//! the write it speaks of. Power loss takes the cgroups with it. The original of a file is synced all the same before
//! guard's first write to it, so that the journal is sound whatever is lost; later intents are not, which keeps
//! disks out of the fast path.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::journal::{self, Book, Decoded, Record, Recorded};

/// Where the journal is kept unless another place is named.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/guard";

const JOURNAL: &str = "journal";
const LOCK: &str = "lock";

/// Lines beyond those needed after which the journal is written anew.
const SLACK: usize = 4096;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody else has it.
    #[error(
        "guard is already enforcing: process {pid} holds {}; stop it first, or name another directory with --state-dir",
        path.display()
    )]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// Who holds it, as far as the file says.
        pid: String,
    },
    /// The journal is from another version of guard.
    #[error("{} has format {format}, which this guard does not know; restore with the guard that wrote it", path.display())]
    Format {
        /// The journal.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// An operation failed.
    #[error("cannot {op} {}: {source}; guard enforces only with a state directory it can write (--state-dir)", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl StateError {
    pub(super) fn io<'a>(op: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }
}

/// Exclusive use of a state directory, for as long as this lives. The kernel gives the lock back however the process
/// ends: a journal that holds something while nobody has the lock is one that nobody put back.
#[derive(Debug)]
pub(super) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Takes it, making the directory if it is missing.
    pub(super) fn take(dir: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(dir).map_err(StateError::io("create", dir))?;
        let path = dir.join(LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file: fs::File = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| StateError::io("open", &path)(errno.into()))?
            .into();
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
                return Err(StateError::Locked { path, pid });
            }
            Err(errno) => return Err(StateError::io("lock", &path)(errno.into())),
        }
        let told = file.set_len(0).and_then(|()| (&file).write_all(format!("{}\n", std::process::id()).as_bytes()));
        told.map_err(StateError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Reads the journal of a directory; `None` when there is no journal. Needs no lock: what is being written looks torn.
pub(super) fn read<K: Recorded + Ord, E: Recorded>(
    dir: &Path,
    boot: &str,
) -> Result<Option<Decoded<K, E>>, StateError> {
    let path = dir.join(JOURNAL);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", &path)(error)),
    };
    let decoded = journal::decode(&bytes, boot);
    match decoded.foreign_format {
        Some(format) => Err(StateError::Format { path, format }),
        None => Ok(Some(decoded)),
    }
}

/// This boot's id, by `root`/proc/sys/kernel/random/boot_id.
pub(super) fn boot_id(root: &Path) -> Result<String, StateError> {
    let path = root.join("proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(&path).map_err(StateError::io("read", &path))?;
    Ok(text.trim().to_owned())
}

/// The journal, open for writing, and what it says.
#[derive(Debug)]
pub(super) struct Journal<K: Ord, E> {
    dir: PathBuf,
    boot: String,
    file: fs::File,
    book: Book<K, E>,
    lines: usize,
    /// The last append may have left half a line.
    torn: bool,
    _lock: Lock,
}

impl<K: Recorded + Ord, E: Recorded> Journal<K, E> {
    /// Opens the journal with what an older one left to put back; written anew, so that damage does not stay.
    pub(super) fn open(dir: &Path, boot: String, book: Book<K, E>, lock: Lock) -> Result<Self, StateError> {
        let file = write_anew(dir, &boot, &book).map_err(StateError::io("write", &dir.join(JOURNAL)))?;
        let lines = book.len() + 1;
        Ok(Self { dir: dir.to_owned(), boot, file, book, lines, torn: false, _lock: lock })
    }

    /// What has to be put back.
    pub(super) fn book(&self) -> &Book<K, E> {
        &self.book
    }

    /// Records what is about to be changed. With `sync` it is on disk when this returns.
    pub(super) fn hold(&mut self, entries: Vec<(K, E)>, sync: bool) -> io::Result<()> {
        let records = entries.into_iter().map(|(key, entry)| Record::Held { boot: self.boot.clone(), key, entry });
        self.append(records.collect())?;
        if sync { self.file.sync_data() } else { Ok(()) }
    }

    /// Records that something has no longer to be put back. What cannot be recorded is forgotten here all the same: at worst
    /// a restore looks at it once more, and finds its original or somebody else's value.
    pub(super) fn drop_entry(&mut self, key: &K, why: &str) -> io::Result<()> {
        if !self.book.contains_key(key) {
            return Ok(());
        }
        let result = self.append(vec![Record::Dropped { key: key.clone(), why: why.to_owned() }]);
        self.book.remove(key);
        result
    }

    fn append(&mut self, records: Vec<Record<K, E>>) -> io::Result<()> {
        if self.lines > SLACK + 4 * self.book.len() {
            self.file = write_anew(&self.dir, &self.boot, &self.book)?;
            (self.lines, self.torn) = (self.book.len() + 1, false);
        }
        // A line of its own even behind half a one.
        let mut text = if self.torn { "\n".to_owned() } else { String::new() };
        for record in &records {
            text.push_str(&record.encode()?);
        }
        self.torn = true;
        self.file.write_all(text.as_bytes())?;
        self.torn = false;
        self.lines += records.len();
        for record in records {
            match record {
                Record::Held { key, entry, .. } => drop(self.book.insert(key, entry)),
                Record::Dropped { key, .. } => drop(self.book.remove(&key)),
                Record::Journal { .. } => {}
            }
        }
        Ok(())
    }
}

/// Replaces the journal by one with only what is needed: complete and synced beside it, then renamed over it.
fn write_anew<K: Recorded, E: Recorded>(dir: &Path, boot: &str, book: &Book<K, E>) -> io::Result<fs::File> {
    let (new, path) = (dir.join("journal.new"), dir.join(JOURNAL));
    let mut text = Record::<K, E>::first(boot).encode()?;
    for (key, entry) in book {
        let record = Record::Held { boot: boot.to_owned(), key: key.clone(), entry: entry.clone() };
        text.push_str(&record.encode()?);
    }
    // Append mode: nothing but whole lines ever follows.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
    let mut file: fs::File = rustix::fs::open(&new, flags, Mode::RUSR | Mode::WUSR)?.into();
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    fs::File::open(dir)?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        executor::journal::{Files, JournalEntry, Key},
        knob::{File, Kind, Object},
    };

    fn key(id: u64) -> Key {
        Key { object: Object { kind: Kind::Cgroup, path: "/a".to_owned(), id }, file: File::MAX }
    }

    fn entry(ours: &str) -> JournalEntry {
        JournalEntry { ours: vec![ours.to_owned()], ..JournalEntry::new("max 100000") }
    }

    fn open(dir: &Path) -> Journal<Key, JournalEntry> {
        let lock = Lock::take(dir).unwrap();
        let book: Files = read(dir, "boot").unwrap().map(|decoded| decoded.book).unwrap_or_default();
        Journal::open(dir, "boot".to_owned(), book, lock).unwrap()
    }

    #[test]
    fn what_was_held_is_held_after_a_new_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        journal.hold(vec![(key(1), entry("1 1")), (key(2), entry("2 2"))], true).unwrap();
        journal.drop_entry(&key(1), "restored").unwrap();
        drop(journal);
        assert_eq!(open(dir.path()).book().keys().collect::<Vec<_>>(), [&key(2)]);
    }

    #[test]
    fn two_cannot_have_it_and_the_second_is_told_who_has() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(journal);
        assert!(Lock::take(dir.path()).is_ok());
    }

    #[test]
    fn a_long_life_does_not_make_a_long_journal() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        for number in 0..3 * SLACK {
            journal.hold(vec![(key(1), entry(&format!("{number} 100000")))], false).unwrap();
        }
        let bytes = fs::read(dir.path().join(JOURNAL)).unwrap();
        assert!(bytes.split(|byte| *byte == b'\n').count() <= SLACK + 8);
        drop(journal);
        assert_eq!(open(dir.path()).book()[&key(1)], entry(&format!("{} 100000", 3 * SLACK - 1)));
    }

    #[test]
    fn a_line_after_half_a_line_is_readable() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        journal.hold(vec![(key(1), entry("1 1"))], false).unwrap();
        journal.file.write_all(b"0000 half").unwrap();
        journal.torn = true;
        journal.hold(vec![(key(2), entry("2 2"))], false).unwrap();
        let decoded = read::<Key, JournalEntry>(dir.path(), "boot").unwrap().unwrap();
        assert_eq!((decoded.book.len(), decoded.damaged), (2, 1));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_and_no_other_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Lock::take(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("--state-dir") && error.contains("file/state"), "{error}");
    }
}
