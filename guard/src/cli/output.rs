//! Where a report goes: stdout, or a file that is either the old one or the whole new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::exit::Failure;

/// Columns of a report that is not for a terminal.
const WIDTH: usize = 120;

/// Where a report goes. Opened before the measurement, so that a wrong path costs no time.
pub(super) enum Target {
    /// Standard output.
    Stdout,
    /// A regular file, replaced as a whole.
    Replaced(Replacement),
    /// A device or pipe, which cannot be replaced.
    Special(PathBuf, File),
}

/// A file beside its target that takes the target's name when it is complete, and disappears otherwise.
pub(super) struct Replacement {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    done: bool,
}

impl Target {
    /// Opens the target; none is stdout.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let failed = |source| Failure::Create { path: path.to_owned(), source };
        // Through symbolic links, so that a link stays one and its target is replaced.
        let target = match std::fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(failed(error)),
        };
        match std::fs::metadata(&target) {
            Ok(meta) if meta.is_dir() => Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(&target).map_err(failed)?;
                Ok(Self::Special(target, file))
            }
            _ => Replacement::create(target).map(Self::Replaced).map_err(failed),
        }
    }

    /// Writes the whole text.
    pub(super) fn write(self, text: &str) -> Result<(), Failure> {
        let failed = |path: &Path| {
            let what = path.display().to_string();
            move |source| Failure::Write { what, source }
        };
        match self {
            Self::Stdout => stdout(text),
            Self::Special(path, mut file) => file.write_all(text.as_bytes()).map_err(failed(&path)),
            Self::Replaced(replacement) => {
                let target = replacement.target.clone();
                replacement.commit(text).map_err(failed(&target))
            }
        }
    }
}

impl Replacement {
    fn create(target: PathBuf) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok(Self { target, temporary, file, done: false })
    }

    fn commit(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.target)?;
        self.done = true;
        let directory = self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = std::fs::remove_file(&self.temporary)
        {
            tracing::warn!("cannot remove {}: {error}", self.temporary.display());
        }
    }
}

/// Writes to stdout and flushes it.
pub(super) fn stdout(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Write { what: "to stdout".to_owned(), source })
}

/// Columns for a text on stdout: the terminal's, between 80 and 200; 120 without a terminal.
pub(super) fn width() -> usize {
    let terminal = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    terminal.filter(|columns| *columns > 0).map_or(WIDTH, |columns| columns.clamp(80, 200))
}

/// A file to which lines are appended.
pub(super) struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens the file, creating it if need be.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|source| Failure::Create { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line with a single write, so that a reader never sees half of one.
    pub(super) fn append(&mut self, mut line: String) -> Result<(), Failure> {
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| Failure::Write { what: self.path.display().to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        std::fs::write(&path, "a much longer old report").unwrap();
        let target = Target::open(Some(&path)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a much longer old report");
        target.write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(files(dir.path()), ["r.json"]);
    }

    #[test]
    fn a_report_that_is_never_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        drop(Target::open(Some(&dir.path().join("r"))).unwrap());
        assert!(files(dir.path()).is_empty());
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        Target::open(Some(&link)).unwrap().write("new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "new");
    }

    #[test]
    fn a_device_is_written_and_not_replaced() {
        Target::open(Some(Path::new("/dev/null"))).unwrap().write("gone").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_path_that_cannot_be_created_is_refused_before_the_measurement() {
        for path in ["/no/such/dir/r.json", "/"] {
            let error = Target::open(Some(Path::new(path))).err().expect(path);
            assert!(matches!(error, Failure::Create { .. }) && error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn lines_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for line in ["a", "b"] {
            Lines::open(&path).unwrap().append(line.to_owned()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    }
}
