//! The recording on disk: which segments there are, when a new one begins and when the oldest goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::frame;
use crate::snapshot::SCHEMA;

/// Extension of a segment's file.
const EXTENSION: &str = "guardrec";
/// A recording is cut into about so many segments: what goes at once is one of them.
const SEGMENTS: u64 = 8;
/// Largest segment, bytes; so that a reader may take a whole one into its memory.
const SEGMENT_MAX: u64 = 16 << 20;

/// How large and how old a recording may be.
#[derive(Clone, Copy, Debug)]
pub struct RecordLimits {
    /// Bytes on disk.
    pub bytes: u64,
    /// Age of the oldest Snapshot, to an eighth of it.
    pub age: Duration,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20, age: Duration::from_secs(24 * 3_600) }
    }
}

/// Why a recording could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The directory cannot be used.
    #[error("--record {}: cannot {op}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Another guard writes there.
    #[error("--record {}: another guard is recording into it; choose another directory", .0.display())]
    Busy(PathBuf),
    /// It is a file.
    #[error("--record {}: it is a file; a recording is a directory", .0.display())]
    NoDirectory(PathBuf),
}

struct SegmentFile {
    number: u64,
    bytes: u64,
    /// When the last Snapshot was appended.
    written: SystemTime,
}

struct Current {
    file: File,
    begun: SystemTime,
}

/// A recording that is being written. The directory is locked as long as it lives.
pub(super) struct Ring {
    dir: PathBuf,
    /// Holds the lock.
    _lock: File,
    limits: RecordLimits,
    /// Oldest first; the last one is the current one, if there is a current one.
    segments: Vec<SegmentFile>,
    current: Option<Current>,
}

impl Ring {
    /// Opens the directory, creating it if need be. Older segments in it count and age like new ones.
    pub(super) fn open(dir: &Path, limits: RecordLimits) -> Result<Self, RecordError> {
        let failed = |op| move |source| RecordError::Io { op, path: dir.to_owned(), source };
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(failed("create the directory"))?,
        }
        if !fs::metadata(dir).map_err(failed("look at it"))?.is_dir() {
            return Err(RecordError::NoDirectory(dir.to_owned()));
        }
        let lock = File::open(dir).map_err(failed("open it"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RecordError::Busy(dir.to_owned())),
            other => other.map_err(|e| failed("lock it")(e.into()))?,
        }
        let mut segments = Vec::new();
        for (number, path) in list(dir).map_err(failed("list it"))? {
            let meta = fs::metadata(&path).map_err(failed("look at a segment of it"))?;
            let written = meta.modified().map_err(failed("look at a segment of it"))?;
            segments.push(SegmentFile { number, bytes: meta.len(), written });
        }
        let mut ring = Self { dir: dir.to_owned(), _lock: lock, limits, segments, current: None };
        // Tells now what would fail later: no space, no permission.
        ring.begin_segment(SystemTime::now()).map_err(failed("create a segment in it"))?;
        Ok(ring)
    }

    /// Appends a Snapshot, given as JSON, with one write. What an error leaves of it is taken back.
    pub(super) fn append(&mut self, json: &[u8], now: SystemTime) -> io::Result<()> {
        let frame = frame::encode(json)?;
        let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        if bytes.saturating_add(frame::HEADER as u64) > self.limits.bytes {
            let text = format!("a Snapshot of {bytes} bytes in a recording of {} bytes at most", self.limits.bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        if self.is_full(bytes, now) {
            self.begin_segment(now)?;
        }
        self.make_room(bytes, now)?;
        let (Some(segment), Some(current)) = (self.segments.last_mut(), &mut self.current) else {
            return Err(io::Error::other("no segment was begun"));
        };
        if let Err(error) = current.file.write_all(&frame) {
            // A reader would step over the torn frame; without this each retry on a full disk would leave one more.
            current.file.set_len(segment.bytes)?;
            return Err(error);
        }
        segment.bytes += bytes;
        segment.written = now;
        Ok(())
    }

    /// Whether a frame of `bytes` begins a new segment.
    fn is_full(&self, bytes: u64, now: SystemTime) -> bool {
        let (Some(segment), Some(current)) = (self.segments.last(), &self.current) else { return true };
        let has_any = segment.bytes > frame::HEADER as u64;
        let size = (self.limits.bytes / SEGMENTS).min(SEGMENT_MAX);
        let eighth = self.limits.age / u32::try_from(SEGMENTS).unwrap_or(1);
        let old = now.duration_since(current.begun).is_ok_and(|age| age >= eighth);
        has_any && (old || segment.bytes + bytes > size)
    }

    fn begin_segment(&mut self, now: SystemTime) -> io::Result<()> {
        self.current = None;
        self.make_room(frame::HEADER as u64, now)?;
        let number = self.segments.last().map_or(1, |s| s.number + 1);
        let path = self.path(number);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        if let Err(error) = file.write_all(&frame::header(SCHEMA)) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        self.segments.push(SegmentFile { number, bytes: frame::HEADER as u64, written: now });
        self.current = Some(Current { file, begun: now });
        Ok(())
    }

    /// Deletes the oldest segments until `bytes` more fit and none is too old. The current one stays.
    fn make_room(&mut self, bytes: u64, now: SystemTime) -> io::Result<()> {
        let closed = |ring: &Self| ring.segments.len() - usize::from(ring.current.is_some());
        while closed(self) > 0 {
            let total: u64 = self.segments.iter().map(|s| s.bytes).sum();
            let old = now.duration_since(self.segments[0].written).is_ok_and(|age| age > self.limits.age);
            if !old && total.saturating_add(bytes) <= self.limits.bytes {
                break;
            }
            match fs::remove_file(self.path(self.segments[0].number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {
                    self.segments.remove(0);
                }
            }
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:012}.{EXTENSION}"))
    }
}

/// The segments in a directory, oldest first. Other files are left alone.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|e| e == EXTENSION)) {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    /// JSON that zstd cannot shrink.
    fn noise(seed: u32, bytes: usize) -> Vec<u8> {
        let mut random = Random::new(seed.into());
        std::iter::repeat_with(|| random.bits().to_le_bytes()[1]).take(bytes).collect()
    }

    fn on_disk(dir: &Path) -> u64 {
        list(dir).unwrap().iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum()
    }

    fn contents(dir: &Path) -> Vec<Vec<u8>> {
        let mut all = vec![];
        for (_, path) in list(dir).unwrap() {
            let bytes = fs::read(path).unwrap();
            let mut offset = frame::HEADER;
            while let frame::Found::Json(json, next) = frame::read(&bytes, offset) {
                all.push(json);
                offset = next;
            }
            assert_eq!(offset, bytes.len());
        }
        all
    }

    #[test]
    fn the_oldest_goes_and_the_size_is_never_exceeded() {
        let dir = tempfile::tempdir().unwrap();
        let limits = RecordLimits { bytes: 10_000, ..RecordLimits::default() };
        let mut ring = Ring::open(dir.path(), limits).unwrap();
        for n in 0..100 {
            ring.append(&noise(n, 400), SystemTime::now()).unwrap();
            assert!(on_disk(dir.path()) <= limits.bytes);
        }
        let kept = contents(dir.path());
        assert!(kept.len() >= 18, "{} kept", kept.len());
        let newest: Vec<Vec<u8>> = (100 - u32::try_from(kept.len()).unwrap()..100).map(|n| noise(n, 400)).collect();
        assert!(kept == newest, "it is not the newest that were kept");
    }

    #[test]
    fn what_is_too_old_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring =
            Ring::open(dir.path(), RecordLimits { age: Duration::from_secs(80), ..RecordLimits::default() }).unwrap();
        let begin = SystemTime::now();
        for second in 0..200 {
            ring.append(&[second], begin + Duration::from_secs(second.into())).unwrap();
        }
        let kept: Vec<u8> = contents(dir.path()).iter().map(|json| json[0]).collect();
        assert_eq!(kept.last(), Some(&199));
        assert!((199 - 90..=199 - 80).contains(&kept[0]), "{kept:?}");
    }

    #[test]
    fn a_second_start_goes_on_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3 {
            Ring::open(dir.path(), RecordLimits::default()).unwrap().append(&[n], SystemTime::now()).unwrap();
        }
        assert_eq!(contents(dir.path()), [[0], [1], [2]]);
    }

    #[test]
    fn two_do_not_record_into_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Ring::open(dir.path(), RecordLimits::default()).unwrap();
        assert!(matches!(Ring::open(dir.path(), RecordLimits::default()), Err(RecordError::Busy(_))));
    }

    #[test]
    fn a_file_or_a_missing_parent_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Ring::open(file.path(), RecordLimits::default()), Err(RecordError::NoDirectory(_))));
        let error = Ring::open(Path::new("/no/such/recording"), RecordLimits::default()).err().unwrap().to_string();
        assert!(error.contains("/no/such/recording: cannot create the directory"), "{error}");
    }

    #[test]
    fn a_snapshot_larger_than_the_recording_is_an_error_and_the_next_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(dir.path(), RecordLimits { bytes: 1_000, ..RecordLimits::default() }).unwrap();
        let error = ring.append(&noise(1, 2_000), SystemTime::now()).unwrap_err();
        assert!(error.to_string().contains("1000 bytes at most"), "{error}");
        ring.append(b"small", SystemTime::now()).unwrap();
        assert_eq!(contents(dir.path()), [b"small"]);
    }

    #[test]
    fn what_is_no_segment_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let mut ring = Ring::open(dir.path(), RecordLimits { bytes: 500, ..RecordLimits::default() }).unwrap();
        (0..50).for_each(|n| ring.append(&noise(n, 300), SystemTime::now()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "mine");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_comes_the_bound_holds_and_the_newest_is_there(
            sizes in prop::collection::vec(0usize..900, 1..60), bytes in 1_500u64..8_000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut ring = Ring::open(dir.path(), RecordLimits { bytes, ..RecordLimits::default() }).unwrap();
            for (n, size) in sizes.iter().enumerate() {
                let json = noise(u32::try_from(n).unwrap(), *size);
                ring.append(&json, SystemTime::now()).unwrap();
                prop_assert!(on_disk(dir.path()) <= bytes);
                let kept = contents(dir.path());
                prop_assert_eq!(kept.last(), Some(&json));
            }
        }
    }
}
