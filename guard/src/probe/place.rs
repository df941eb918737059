//! The cgroup that the measuring threads are put into. Nothing is made and nothing is set there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::ProbeError;
use crate::cgroup::{Hierarchy, Version};
use crate::sched::tid;

/// Where the threads go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: String,
    /// The file that a thread's id is written to; absent where the whole process went there.
    file: Option<PathBuf>,
}

impl Place {
    /// Looks for the cgroup in the hierarchy of the cpu controller. On cgroup v2 only a threaded cgroup takes single
    /// threads; into any other the whole process is moved, now.
    pub(super) fn find(path: &str) -> Result<Self, ProbeError> {
        let hierarchy = Hierarchy::detect(Path::new("/"))?;
        let dir = hierarchy.dir(path)?;
        if !dir.is_dir() {
            return Err(ProbeError::NoCgroup { path: path.to_owned() });
        }
        let file = match hierarchy.version() {
            Version::V1 => Some(dir.join("tasks")),
            Version::V2 => {
                let kind = fs::read_to_string(dir.join("cgroup.type")).unwrap_or_default();
                (kind.trim_end() == "threaded").then(|| dir.join("cgroup.threads"))
            }
        };
        let this = Self { path: path.to_owned(), file };
        if this.file.is_none() {
            this.write(&dir.join("cgroup.procs"), std::process::id())?;
        }
        Ok(this)
    }

    /// Moves the calling thread there.
    pub(super) fn enter(&self) -> Result<(), ProbeError> {
        self.file.as_deref().map_or(Ok(()), |file| self.write(file, tid()))
    }

    fn write(&self, file: &Path, id: u32) -> Result<(), ProbeError> {
        fs::write(file, id.to_string())
            .map_err(|source: io::Error| ProbeError::Move { path: self.path.clone(), source })
    }
}
