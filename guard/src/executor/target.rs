//! One cgroup's directory, held open. Its id is checked once, when it is opened: a descriptor goes on naming the same
//! cgroup, so nothing written through it can land in another one that was made under the same path meanwhile.

use std::{
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
};

use super::trouble::Trouble;
use crate::{
    cgroup::{CgroupError, Hierarchy},
    knob::File,
};

/// An open directory of a cgroup.
#[derive(Debug)]
pub(super) struct Target {
    dir: OwnedFd,
    path: PathBuf,
    /// Inode number of this directory: the cgroup's id in this hierarchy.
    pub(super) id: u64,
}

impl Target {
    /// Opens the directory that holds `file` for the cgroup `path`.
    pub(super) fn open(hierarchy: &Hierarchy, path: &str, file: File) -> Result<Self, Trouble> {
        let controller = file.knob().controller();
        let dir = match hierarchy.dir_of(controller, path) {
            Some(Ok(dir)) => dir,
            Some(Err(error @ CgroupError::Outside { .. })) => return Err(Trouble::NotDelegated(error.to_string())),
            Some(Err(_)) => return Err(Trouble::Gone),
            None => return Err(Trouble::NotDelegated(format!("no {controller} hierarchy is mounted"))),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&dir, flags, Mode::empty()).map_err(|errno| Trouble::of_open_dir(&dir, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| Trouble::of_open_dir(&dir, errno))?;
        Ok(Self { dir: fd, path: dir, id: stat.st_ino })
    }

    /// Opens it, and sees that it is the cgroup with this id.
    pub(super) fn open_as(hierarchy: &Hierarchy, path: &str, file: File, id: u64) -> Result<Self, Trouble> {
        Self::open(hierarchy, path, file)
            .and_then(|target| if target.id == id { Ok(target) } else { Err(Trouble::Gone) })
    }

    /// What a file says, without the newline.
    pub(super) fn read(&self, file: File) -> Result<String, Trouble> {
        let text = self.read_raw(file).map_err(|error| self.trouble("read", file, None, &error))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn read_raw(&self, file: File) -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::from(self.open_file(file, OFlags::RDONLY)?).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes a text with one call, as cgroup files want it.
    pub(super) fn write(&self, file: File, text: &str) -> Result<(), Trouble> {
        let result = self
            .open_file(file, OFlags::WRONLY | OFlags::TRUNC)
            .and_then(|fd| Ok(rustix::io::write(fd, text.as_bytes())?));
        match result {
            Ok(written) if written == text.len() => Ok(()),
            Ok(written) => {
                let short = io::Error::other(format!("took {written} of {} bytes", text.len()));
                Err(self.trouble("write", file, Some(text), &short))
            }
            Err(error) => Err(self.trouble("write", file, Some(text), &error)),
        }
    }

    fn open_file(&self, file: File, access: OFlags) -> io::Result<OwnedFd> {
        // Never created: on a cgroup file system it could not be, in a test's directory it must not be.
        Ok(rustix::fs::openat(&self.dir, file.name(), access | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn trouble(&self, op: &'static str, file: File, text: Option<&str>, error: &io::Error) -> Trouble {
        // A missing file in a cgroup that is still there: the controller is not enabled.
        let alive = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.id);
        Trouble::of(op, &self.path.join(file.name()), text, error, alive)
    }
}
