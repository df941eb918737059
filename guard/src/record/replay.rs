//! Reads Snapshots back: from a recording, from one of its segments, from a JSON Snapshot, or from lines of JSON. Which of
//! them a file is, is seen from its content. What is damaged is named and stepped over.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::frame::{self, Found, MAX_JSON};
use super::ring;
use crate::snapshot::{SCHEMA, Snapshot};

/// Largest segment that is read, bytes; guard writes smaller ones.
const MAX_SEGMENT: u64 = 256 << 20;

/// UTF-8's byte order mark.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Why nothing can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file or directory cannot be read.
    #[error("--replay {}: cannot read it: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// It holds no Snapshot that this guard understands.
    #[error("--replay {}: {why}", path.display())]
    Nothing {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// A part that could not be read, and was stepped over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it is.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Snapshots in their order, and the damage between them.
pub struct Replay {
    /// What was read to see that there is a Snapshot at all.
    begin: std::vec::IntoIter<Result<Snapshot, Damage>>,
    rest: Box<dyn Iterator<Item = Result<Snapshot, Damage>> + Send>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

impl Replay {
    /// Opens a recording or a file and reads up to its first Snapshot.
    ///
    /// ```
    /// let mut seconds = 0.0;
    /// for snapshot in guard::record::Replay::open("../docs/example.guardrec".as_ref())? {
    ///     seconds += snapshot.map_err(|damage| damage.to_string())?.window.seconds;
    /// }
    /// assert!(seconds > 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When it cannot be read, or holds no Snapshot that this guard understands.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::Io { path: path.to_owned(), source };
        let mut rest: Box<dyn Iterator<Item = _> + Send> = if fs::metadata(path).map_err(failed)?.is_dir() {
            let segments = ring::list(path).map_err(failed)?.into_iter();
            Box::new(segments.flat_map(|(_, path)| SegmentReader::open(&path)))
        } else if begins_as_segment(path).map_err(failed)? {
            Box::new(SegmentReader::open(path))
        } else {
            json(path).map_err(failed)?
        };
        let mut begin: Vec<_> = rest.by_ref().take(1).collect();
        while begin.last().is_some_and(Result::is_err) {
            match rest.next() {
                Some(next) => begin.push(next),
                None => break,
            }
        }
        if !begin.iter().any(Result::is_ok) {
            let first = begin.into_iter().find_map(Result::err).map(|damage| damage.to_string());
            let why = first.unwrap_or_else(|| "there is no Snapshot in it".to_owned());
            return Err(ReplayError::Nothing { path: path.to_owned(), why });
        }
        Ok(Self { begin: begin.into_iter(), rest })
    }
}

impl Iterator for Replay {
    type Item = Result<Snapshot, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        self.begin.next().or_else(|| self.rest.next())
    }
}

fn begins_as_segment(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    File::open(path)?.take(frame::MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(begin == frame::MAGIC)
}

/// The Snapshots of one segment.
struct SegmentReader {
    name: String,
    bytes: Vec<u8>,
    offset: usize,
    /// What is wrong with the segment as a whole.
    wrong: Option<String>,
}

impl SegmentReader {
    fn open(path: &Path) -> Self {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_SEGMENT).read_to_end(&mut bytes));
        let wrong = match (read, frame::schema(&bytes)) {
            (Err(error), _) => Some(format!("cannot read it: {error}")),
            (_, Ok(SCHEMA)) => None,
            (_, Ok(schema)) => Some(other_schema(schema)),
            (_, Err(why)) => Some(why),
        };
        Self { name, bytes, offset: frame::HEADER, wrong }
    }
}

impl Iterator for SegmentReader {
    type Item = Result<Snapshot, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(what) = self.wrong.take() {
            self.offset = self.bytes.len();
            return Some(Err(Damage { place: self.name.clone(), what }));
        }
        let at = self.offset;
        let place = || format!("{} at byte {at}", self.name);
        match frame::read(&self.bytes, at) {
            Found::End => None,
            Found::Json(json, next) => {
                self.offset = next;
                Some(snapshot(&json).map_err(|what| Damage { place: place(), what }))
            }
            Found::Damage(next) => {
                let end = next.unwrap_or(self.bytes.len());
                let what = match next {
                    Some(_) => format!("{} bytes are damaged", end - at),
                    None => format!("the last {} bytes are incomplete or damaged", end - at),
                };
                let damage = Damage { place: place(), what };
                self.offset = end;
                Some(Err(damage))
            }
        }
    }
}

/// One Snapshot over many lines, or one in each line.
fn json(path: &Path) -> io::Result<Box<dyn Iterator<Item = Result<Snapshot, Damage>> + Send>> {
    let mut reader = BufReader::new(File::open(path)?);
    // A byte order mark is no JSON, and yet editors and shells begin a text with it.
    let begin = if reader.fill_buf()?.starts_with(MARK) { MARK.len() as u64 } else { 0 };
    let begin = SeekFrom::Start(begin);
    reader.seek(begin)?;
    let first = line(&mut reader)?.unwrap_or_default();
    if serde_json::from_slice::<IgnoredAny>(&first).is_ok() {
        reader.seek(begin)?;
        return Ok(Box::new(Lines { reader, number: 0 }));
    }
    reader.seek(begin)?;
    let mut whole = Vec::new();
    reader.by_ref().take(MAX_JSON as u64).read_to_end(&mut whole)?;
    match serde_json::from_slice::<IgnoredAny>(&whole) {
        Ok(_) => {
            Ok(Box::new(std::iter::once(snapshot(&whole).map_err(|what| Damage { place: "it".to_owned(), what }))))
        }
        Err(error) => {
            reader.seek(begin)?;
            let what = if whole.iter().all(u8::is_ascii_whitespace) {
                "it is empty".to_owned()
            } else if error.is_eof() {
                "its JSON ends early: the file is not complete".to_owned()
            } else {
                format!("neither a recording nor JSON of guard ({error})")
            };
            let whole = Damage { place: "the whole file".to_owned(), what };
            // The first line may be the only damaged one.
            let lines = Lines { reader, number: 0 };
            Ok(Box::new(std::iter::once(Err(whole)).chain(lines.filter(Result::is_ok))))
        }
    }
}

/// The next line without its end, cut at the longest that is read; `None` at the end of the file.
fn line(reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(MAX_JSON as u64).read_until(b'\n', &mut line)?;
    Ok((read > 0).then_some(line))
}

struct Lines {
    reader: BufReader<File>,
    number: u64,
}

impl Iterator for Lines {
    type Item = Result<Snapshot, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.number += 1;
            let damage = |what| Damage { place: format!("line {}", self.number), what };
            match line(&mut self.reader) {
                Ok(None) => return None,
                Ok(Some(text)) if text.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some(text)) => return Some(snapshot(&text).map_err(damage)),
                // A directory or a broken disk gives the same error for ever.
                Err(error) => {
                    tracing::warn!("{}", damage(format!("cannot read on: {error}")));
                    return None;
                }
            }
        }
    }
}

/// A Snapshot from its JSON; the text says why it is none.
pub(crate) fn snapshot(json: &[u8]) -> Result<Snapshot, String> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<u32>,
    }
    match serde_json::from_slice(json) {
        Ok(Head { schema: Some(SCHEMA) }) => {}
        Ok(Head { schema: Some(schema) }) => return Err(other_schema(schema)),
        Ok(Head { schema: None }) => return Err("JSON, but no Snapshot of guard: it has no \"schema\"".to_owned()),
        Err(_) if serde_json::from_slice::<IgnoredAny>(json).is_ok() => {
            return Err("JSON, but no Snapshot of guard".to_owned());
        }
        Err(error) if error.is_eof() => return Err("its JSON ends early".to_owned()),
        Err(error) => return Err(format!("no JSON ({error})")),
    }
    serde_json::from_slice(json).map_err(|error| format!("no Snapshot of guard ({error})"))
}

fn other_schema(schema: u32) -> String {
    format!("Snapshots of schema {schema}; this guard reads schema {SCHEMA}: use the guard that wrote it")
}

#[cfg(test)]
mod tests;
