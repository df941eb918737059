//! The directory that one guest and this process share, and the files in it that grow while the guest prints.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::{place::Cache, progress::Progress};

/// A scratch directory in the cache; gone when dropped.
pub(super) struct Exchange {
    pub(super) dir: PathBuf,
}

impl Exchange {
    /// Creates one, and removes those of xtasks that were killed.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub(super) fn create(cache: &Cache) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let all = cache.dir("guests")?;
        clear_abandoned(&all);
        let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = all.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes `text` to the file `name`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes the directories of xtasks that were killed: those named after a process that is no more.
fn clear_abandoned(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A file that the guest writes and we pass on as it grows.
pub(super) struct Stream(File);

impl Stream {
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self(File::open(path).with_context(|| format!("opening {}", path.display()))?))
    }

    /// Copies what is new to `to`; whether there was anything.
    ///
    /// # Errors
    /// When the file cannot be read or `to` not be written.
    pub(super) fn pass_on(&mut self, progress: &mut Progress, to: &mut impl Write) -> Result<bool> {
        let mut new = Vec::new();
        self.0.read_to_end(&mut new).context("reading what the guest printed")?;
        if new.is_empty() {
            return Ok(false);
        }
        progress.clear();
        to.write_all(&new).and_then(|()| to.flush()).context("passing on what the guest printed")?;
        Ok(true)
    }
}

/// Whole lines, each behind a name if there is one: what several guests print at once stays distinguishable.
pub(super) struct Lines<W: Write> {
    name: Option<String>,
    begun: Vec<u8>,
    to: W,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(name: Option<String>, to: W) -> Self {
        Self { name, begun: Vec::new(), to }
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        let Some(name) = &self.name else { return self.to.write(new) };
        for part in new.split_inclusive(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                // In one piece, so that no other guest's line comes between.
                let line = [format!("[{name}] ").as_bytes(), &self.begun].concat();
                self.begun.clear();
                self.to.write_all(&line)?;
            }
        }
        Ok(new.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Drop for Lines<W> {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            // Nobody is left to hear of an error.
            let _ = self.write(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_named_guest_are_whole_and_bear_its_name() {
        let mut printed = Vec::new();
        let mut lines = Lines::new(Some("guest 6.1-rt".into()), &mut printed);
        for part in ["test a ...", " ok\ntest b ... ", "FAILED\nend"] {
            lines.write_all(part.as_bytes()).expect("writing to memory cannot fail");
        }
        drop(lines);
        let printed = String::from_utf8(printed).expect("it is UTF-8");
        assert_eq!(printed, "[guest 6.1-rt] test a ... ok\n[guest 6.1-rt] test b ... FAILED\n[guest 6.1-rt] end\n");
        let mut printed = Vec::new();
        Lines::new(None, &mut printed).write_all(b"no li").expect("writing to memory cannot fail");
        assert_eq!(printed, b"no li");
    }

    #[test]
    fn a_stream_passes_on_only_what_is_new() {
        let path = std::env::temp_dir().join(format!("xtask-stream-{}", std::process::id()));
        fs::write(&path, "one").expect("the file can be written");
        let mut stream = Stream::open(&path).expect("it exists");
        let mut progress = Progress::new("test");
        let mut seen = Vec::new();
        assert!(stream.pass_on(&mut progress, &mut seen).expect("readable"));
        assert!(!stream.pass_on(&mut progress, &mut seen).expect("readable"));
        File::options().append(true).open(&path).and_then(|mut file| file.write_all(b" two")).expect("it can grow");
        assert!(stream.pass_on(&mut progress, &mut seen).expect("readable"));
        fs::remove_file(&path).expect("it is ours");
        assert_eq!(seen, b"one two");
    }
}
