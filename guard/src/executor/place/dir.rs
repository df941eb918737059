//! An object's directory, held open. Its identity is checked once, when it is opened: a descriptor goes on naming the same
//! object, so nothing written through it can land in another one that came under the same path meanwhile.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
};

use crate::executor::trouble::Trouble;
use crate::knob::FileErrors;

/// An open directory.
#[derive(Debug)]
pub(in crate::executor) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(super) fn open(path: &Path) -> Result<Self, Trouble> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Trouble::of_open_dir(path, errno))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Its inode number.
    pub(super) fn inode(&self) -> Result<u64, Trouble> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|errno| Trouble::of_open_dir(&self.path, errno))?;
        Ok(stat.st_ino)
    }

    /// What a file says, without the newline.
    pub(super) fn read(&self, file: &str, errors: FileErrors) -> Result<String, Trouble> {
        let text = self.read_raw(file).map_err(|error| self.trouble("read", file, None, &error, errors))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn read_raw(&self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::from(self.open_file(file, OFlags::RDONLY)?).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes a text with one call, as the kernel's files want it.
    pub(super) fn write(&self, file: &str, text: &str, errors: FileErrors) -> Result<(), Trouble> {
        let result = self
            .open_file(file, OFlags::WRONLY | OFlags::TRUNC)
            .and_then(|fd| Ok(rustix::io::write(fd, text.as_bytes())?));
        match result {
            Ok(written) if written == text.len() => Ok(()),
            Ok(written) => {
                let short = io::Error::other(format!("took {written} of {} bytes", text.len()));
                Err(self.trouble("write", file, Some(text), &short, errors))
            }
            Err(error) => Err(self.trouble("write", file, Some(text), &error, errors)),
        }
    }

    fn open_file(&self, file: &str, access: OFlags) -> io::Result<OwnedFd> {
        // Never created: on the kernel's file systems it could not be, in a test's directory it must not be.
        Ok(rustix::fs::openat(&self.fd, file, access | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn trouble(
        &self,
        op: &'static str,
        file: &str,
        text: Option<&str>,
        error: &io::Error,
        errors: FileErrors,
    ) -> Trouble {
        // A missing file in a directory that is still there: the controller is not enabled.
        let is_same = || -> Option<bool> {
            let (own, now) = (rustix::fs::fstat(&self.fd).ok()?, rustix::fs::stat(&self.path).ok()?);
            Some((own.st_dev, own.st_ino) == (now.st_dev, now.st_ino))
        };
        Trouble::of(op, &self.path.join(file), text, error, errors, is_same().unwrap_or(false))
    }
}
