//! The lab's own cgroups: made below the root of the cpu hierarchy, and removed when they are dropped, whatever happened
//! in them. The lab writes to its own cgroups and, on v2, enables the cpu controller for them; it touches no other.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::cgroup::{CpuStatTotals, Hierarchy, Version};
use crate::snapshot::{CgroupPath, Quota};

use super::error::LabError;

/// What the names of the lab's cgroups begin with; the pid of the lab follows.
pub const PREFIX: &str = "guard-lab-";
/// Share of each second that SCHED_FIFO may have in the lab's cgroups where the kernel rations it per cgroup
/// (CONFIG_RT_GROUP_SCHED), us. All cgroups share 950000, and the others keep enough.
const RT_RUNTIME_US: &str = "200000";
/// The largest weight, for the lab as a whole: what else the node does disturbs the figures as little as possible.
const MOST_SHARES: &str = "262144";
const MOST_WEIGHT: &str = "10000";
/// How long the kernel may take to finish with processes and cgroups that have gone.
const SETTLING: Duration = Duration::from_secs(5);

/// The lab's cgroup and those in it.
#[derive(Debug)]
pub(super) struct LabCgroups {
    hierarchy: Hierarchy,
    /// Path of the lab's cgroup.
    path: String,
    /// Whether the lab enabled the cpu controller at the root.
    delegated: bool,
}

impl LabCgroups {
    /// Makes the lab's cgroup. What a lab that was killed has left behind is removed first.
    pub(super) fn build(hierarchy: &Hierarchy) -> Result<Self, LabError> {
        sweep(hierarchy);
        let path = CgroupPath::of(hierarchy.top()).child(&format!("{PREFIX}{}", std::process::id()));
        let mut this = Self { hierarchy: hierarchy.clone(), path, delegated: false };
        if hierarchy.version() == Version::V2 {
            let control = hierarchy.mount_point().join("cgroup.subtree_control");
            let enabled = read(&control)?;
            if !enabled.split_whitespace().any(|name| name == "cpu") {
                write(&control, "+cpu")?;
                this.delegated = true;
            }
        }
        this.mkdir("")?;
        this.allow_fifo("")?;
        let dir = this.dir("")?;
        match hierarchy.version() {
            Version::V1 => write(&dir.join("cpu.shares"), MOST_SHARES)?,
            Version::V2 => {
                write(&dir.join("cpu.weight"), MOST_WEIGHT)?;
                write(&dir.join("cgroup.subtree_control"), "+cpu")?;
            }
        }
        Ok(this)
    }

    /// Makes a cgroup in the lab's and returns its path.
    pub(super) fn cgroup(&self, name: &str) -> Result<String, LabError> {
        self.mkdir(name)?;
        Ok(self.named(name))
    }

    /// The same for a cgroup whose threads may be SCHED_FIFO. All that the lab may ration out goes to it.
    pub(super) fn fifo_cgroup(&self, name: &str) -> Result<String, LabError> {
        let path = self.cgroup(name)?;
        self.allow_fifo(name)?;
        Ok(path)
    }

    /// A pattern for guard's configuration that matches the lab's cgroups and no other.
    pub(super) fn pattern(&self) -> String {
        format!("{}/*", self.path)
    }

    /// Sets a quota.
    pub(super) fn set_quota(&self, path: &str, quota: Quota) -> Result<(), LabError> {
        let dir = self.hierarchy.dir(path)?;
        match self.hierarchy.version() {
            Version::V1 => {
                write(&dir.join("cpu.cfs_period_us"), &quota.period_us.to_string())?;
                write(&dir.join("cpu.cfs_quota_us"), &quota.quota_us.to_string())
            }
            Version::V2 => write(&dir.join("cpu.max"), &format!("{} {}", quota.quota_us, quota.period_us)),
        }
    }

    /// Moves a process into a cgroup.
    pub(super) fn enter(&self, path: &str, pid: u32) -> Result<(), LabError> {
        write(&self.hierarchy.dir(path)?.join("cgroup.procs"), &pid.to_string())
    }

    /// The quota of a cgroup now.
    pub(super) fn quota(&self, path: &str) -> Result<Option<Quota>, LabError> {
        Ok(self.hierarchy.quota(path)?)
    }

    /// cpu.stat of a cgroup.
    pub(super) fn cpu_stat(&self, path: &str) -> Result<CpuStatTotals, LabError> {
        self.hierarchy.cpu_stat(path)?.ok_or_else(|| LabError::Impossible {
            reason: format!("{path} has no CFS bandwidth figures: the kernel lacks CONFIG_CFS_BANDWIDTH"),
        })
    }

    fn named(&self, name: &str) -> String {
        if name.is_empty() { self.path.clone() } else { CgroupPath::of(&self.path).child(name) }
    }

    fn dir(&self, name: &str) -> Result<PathBuf, LabError> {
        Ok(self.hierarchy.dir(&self.named(name))?)
    }

    fn mkdir(&self, name: &str) -> Result<(), LabError> {
        let dir = self.dir(name)?;
        fs::create_dir(&dir).map_err(LabError::io("make", &dir))
    }

    fn allow_fifo(&self, name: &str) -> Result<(), LabError> {
        let rationed = self.dir(name)?.join("cpu.rt_runtime_us");
        if !rationed.exists() {
            return Ok(());
        }
        // The share of a cgroup that was removed comes free some milliseconds later.
        until_accepted(io::ErrorKind::InvalidInput, || fs::write(&rationed, RT_RUNTIME_US))
            .map_err(|source| LabError::Write { path: rationed.clone(), value: RT_RUNTIME_US.to_owned(), source })
    }
}

impl Drop for LabCgroups {
    fn drop(&mut self) {
        let removed = self.dir("").and_then(|dir| if dir.exists() { remove(&dir) } else { Ok(()) });
        if let Err(error) = removed {
            tracing::error!("{error}; remove it by hand");
        }
        if self.delegated {
            // Refused once somebody else has come to rely on it; then it is theirs.
            if let Err(error) = write(&self.hierarchy.mount_point().join("cgroup.subtree_control"), "-cpu") {
                tracing::debug!(%error, "the cpu controller stays enabled");
            }
        }
    }
}

/// Removes cgroups of labs whose process is gone. What cannot be removed is in use and stays.
fn sweep(hierarchy: &Hierarchy) {
    let Ok(entries) = fs::read_dir(hierarchy.mount_point()) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Err(error) = remove_tree(&entry.path())
        {
            tracing::warn!("{} of an earlier lab stays: {error}", entry.path().display());
        }
    }
}

/// Removes a cgroup with those in it, once the kernel has taken its last process out.
fn remove(dir: &Path) -> Result<(), LabError> {
    until_accepted(io::ErrorKind::ResourceBusy, || remove_tree(dir)).map_err(LabError::io("remove", dir))
}

/// Tries again as long as the kernel refuses with `refusal`, which passes when it has done what was asked before.
fn until_accepted(refusal: io::ErrorKind, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let end = Instant::now() + SETTLING;
    loop {
        match attempt() {
            Err(error) if error.kind() == refusal && Instant::now() < end => sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

/// The files of a cgroup go with it, so only directories matter.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn read(path: &Path) -> Result<String, LabError> {
    fs::read_to_string(path).map_err(LabError::io("read", path))
}

fn write(path: &Path, value: &str) -> Result<(), LabError> {
    fs::write(path, value).map_err(|source| LabError::Write { path: path.to_owned(), value: value.to_owned(), source })
}
