//! Drop-ins: the files by which systemd keeps a property that was set, for the unit's next start and the next reload. They
//! would outlive guard, and outrank what an administrator writes later, so what guard brought goes with it.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::property;

/// A drop-in of a unit, by which systemd keeps a property that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DropIn {
    /// Its path.
    pub(super) file: String,
    /// Its text before guard; `None` when there was no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    /// The text that systemd wrote for guard, as far as it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ours: Option<String>,
}

impl DropIn {
    /// That of a property of a unit, as it is now. `transient` units have theirs elsewhere.
    pub(super) fn look(root: &Path, unit: &str, transient: bool, property: &str) -> Self {
        let dir = if transient { "/run/systemd/transient" } else { "/run/systemd/system.control" };
        let file = format!("{dir}/{unit}.d/{}", property::drop_in(property));
        let before = text(root, &file);
        Self { file, before, ours: None }
    }

    /// Its text now; `None` when there is no such file.
    pub(super) fn now(&self, root: &Path) -> Option<String> {
        text(root, &self.file)
    }

    /// Makes it what it was before guard.
    pub(super) fn put_back(&self, root: &Path) -> io::Result<()> {
        let file = at(root, &self.file);
        match &self.before {
            Some(before) if self.now(root).as_ref() == Some(before) => Ok(()),
            Some(before) => {
                let new = file.with_extension("guard");
                fs::write(&new, before)?;
                fs::rename(&new, &file)
            }
            None => {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                // Not empty: others have theirs in it.
                file.parent().map_or(Ok(()), |dir| fs::remove_dir(dir).or(Ok(())))
            }
        }
    }
}

fn at(root: &Path, file: &str) -> std::path::PathBuf {
    root.join(file.trim_start_matches('/'))
}

fn text(root: &Path, file: &str) -> Option<String> {
    fs::read_to_string(at(root, file)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guard_brought_goes_and_what_was_there_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run/systemd/system.control/foo.service.d");
        let (quota, weight) = (dir.join("50-CPUQuota.conf"), dir.join("50-CPUWeight.conf"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(&weight, "[Service]\nCPUWeight=50\n").unwrap();
        let of = |property| DropIn::look(root.path(), "foo.service", false, property);
        let (brought, overwritten) = (of("CPUQuotaPerSecUSec"), of("CPUWeight"));
        assert_eq!((brought.before.clone(), overwritten.before.is_some()), (None, true));
        fs::write(&quota, "[Service]\nCPUQuota=\n").unwrap();
        fs::write(&weight, "[Service]\nCPUWeight=7\n").unwrap();
        brought.put_back(root.path()).unwrap();
        overwritten.put_back(root.path()).unwrap();
        assert!(!quota.exists());
        assert_eq!(fs::read_to_string(&weight).unwrap(), "[Service]\nCPUWeight=50\n");
        fs::remove_file(&weight).unwrap();
        brought.put_back(root.path()).unwrap();
        assert!(!dir.exists(), "an empty directory stays behind");
        brought.put_back(root.path()).unwrap();
    }

    #[test]
    fn transient_units_have_theirs_beside_their_unit_files() {
        let of = |transient| DropIn::look(Path::new("/none"), "a.scope", transient, "CPUWeight").file;
        assert_eq!(of(true), "/run/systemd/transient/a.scope.d/50-CPUWeight.conf");
        assert_eq!(of(false), "/run/systemd/system.control/a.scope.d/50-CPUWeight.conf");
    }
}
