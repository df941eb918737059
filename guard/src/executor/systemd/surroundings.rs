//! The other files of a unit's cgroup. When systemd gets one property, it writes all files of which it knows anything,
//! also those that somebody has written by hand since; they get their texts back.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    cgroup::Hierarchy,
    knob::{File, Version},
};

/// What systemd may write. cpu.idle stands before cpu.weight, which cannot be written while it is set.
const V2: [&str; 15] = [
    "cpu.idle",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "cpuset.cpus.partition",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "memory.zswap.max",
    "pids.max",
    "io.weight",
    "io.max",
];
const V1: [&str; 3] = ["cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.shares"];

/// Usage, and the property whose limit on it systemd would enforce anew.
pub(super) const USAGES: [(&str, &str); 3] =
    [("memory.current", "MemoryMax"), ("memory.current", "MemoryHigh"), ("pids.current", "TasksMax")];

/// A cgroup's files as they were found.
#[derive(Debug)]
pub(super) struct Surroundings {
    dir: PathBuf,
    id: u64,
    texts: Vec<(&'static str, String)>,
}

impl Surroundings {
    /// Reads them; `None` when the cgroup has gone.
    pub(super) fn look(hierarchy: &Hierarchy, path: &str) -> Option<Self> {
        let dir = hierarchy.dir(path).ok()?;
        let id = fs::metadata(&dir).ok()?.ino();
        let names = match hierarchy.version() {
            Version::V1 => &V1[..],
            Version::V2 => &V2[..],
        };
        let text = |name: &&'static str| Some((*name, read(&dir, name)?));
        Some(Self { texts: names.iter().filter_map(text).collect(), dir, id })
    }

    /// What a file held.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(own, _)| *own == name).map(|(_, text)| text.as_str())
    }

    /// What a file with a number holds now.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        read(&self.dir, name)?.trim().parse().ok()
    }

    /// Gives each file that holds something else now its text back, unless that was `by_systemd`.
    pub(super) fn put_back(&self, by_systemd: &[(File, String)]) {
        // Made anew: those files are others.
        if fs::metadata(&self.dir).map(|metadata| metadata.ino()).ok() != Some(self.id) {
            return;
        }
        for (name, before) in &self.texts {
            let now = read(&self.dir, name);
            let is_systemds = by_systemd.iter().any(|(file, text)| file.name() == *name && file.same(text, before));
            if is_systemds || now.as_ref().is_none_or(|now| now.trim_end() == before.trim_end()) {
                continue;
            }
            let file = self.dir.join(name);
            match write(&file, before) {
                Ok(()) => tracing::debug!("{}: systemd had made {now:?} of {before:?}", file.display()),
                Err(error) => tracing::warn!(
                    "{}: systemd has made {:?} of {:?}, which cannot be written back: {error}",
                    file.display(),
                    now.unwrap_or_default().trim_end(),
                    before.trim_end()
                ),
            }
        }
    }
}

fn read(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name)).ok()
}

/// One call per line, as cgroup files want it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let line = |line: &str| {
        // Never created: on a cgroup file system it could not be.
        OpenOptions::new().write(true).truncate(true).open(file)?.write_all(format!("{line}\n").as_bytes())
    };
    if text.trim_end().is_empty() { line("") } else { text.lines().try_for_each(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_meanwhile_comes_back_and_nothing_else_is_written() {
        let top = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::for_test(top.path(), Version::V2);
        let dir = top.path().join("a.service");
        fs::create_dir(&dir).unwrap();
        let put = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        put("cpu.weight", "333\n");
        put("cpuset.cpus", "\n");
        put("pids.max", "max\n");
        put("cpu.max", "max 100000\n");
        let found = Surroundings::look(&hierarchy, "/a.service").unwrap();
        let written = |name: &str| fs::metadata(dir.join(name)).unwrap().modified().unwrap();
        let untouched = written("pids.max");
        put("cpu.weight", "100\n");
        put("cpuset.cpus", "0\n");
        put("memory.high", "max\n");
        put("cpu.max", "20000 100000\n");
        found.put_back(&[(File::MAX, "max 100000".to_owned())]);
        assert_eq!(fs::read_to_string(dir.join("cpu.max")).unwrap(), "20000 100000\n");
        assert_eq!(fs::read_to_string(dir.join("cpu.weight")).unwrap(), "333\n");
        assert_eq!(fs::read_to_string(dir.join("cpuset.cpus")).unwrap(), "\n");
        assert_eq!(written("pids.max"), untouched);
        assert_eq!((found.text("cpu.weight"), found.text("memory.high")), (Some("333\n"), None));
        put("cpu.weight", "100\n");
        fs::rename(&dir, top.path().join("old")).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cpu.weight"), "1\n").unwrap();
        found.put_back(&[]);
        assert_eq!(fs::read_to_string(dir.join("cpu.weight")).unwrap(), "1\n", "another cgroup was written");
    }
}
