//! Cgroups of our own in the hierarchy of the cpu controller, v1 or v2, removed when dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Version of a cgroup hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// cpu.cfs_quota_us and its like.
    V1,
    /// cpu.max and its like.
    V2,
}

/// The hierarchy that holds the cpu controller.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its version.
    pub version: Version,
}

impl Hierarchy {
    /// Finds it in /proc/self/mounts.
    ///
    /// # Errors
    /// When no mounted hierarchy has the cpu controller.
    pub fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(mount), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let mount = PathBuf::from(mount);
            if kind == "cgroup" && options.split(',').any(|option| option == "cpu") {
                return Ok(Self { mount, version: Version::V1 });
            }
            if kind == "cgroup2" {
                let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
                if controllers.split_whitespace().any(|name| name == "cpu") {
                    return Ok(Self { mount, version: Version::V2 });
                }
            }
        }
        bail!("no cgroup hierarchy with the cpu controller is mounted")
    }

    /// On v2, hands cpu and cpuset down to the children of the root.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delegate(&self) -> Result<()> {
        if self.version == Version::V2 {
            write(&self.mount.join("cgroup.subtree_control"), "+cpu +cpuset +memory")?;
        }
        Ok(())
    }
}

/// cpu.stat in the units of v2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// Periods elapsed.
    pub nr_periods: u64,
    /// Periods with a throttle.
    pub nr_throttled: u64,
    /// Time throttled, ns.
    pub throttled_ns: u64,
}

impl CpuStat {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            nr_periods: self.nr_periods - earlier.nr_periods,
            nr_throttled: self.nr_throttled - earlier.nr_throttled,
            throttled_ns: self.throttled_ns - earlier.throttled_ns,
        }
    }
}

/// A cgroup of ours.
#[derive(Debug)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    path: String,
}

impl Cgroup {
    /// Makes a cgroup "guard-test-PID-NAME" below the root of the cpu hierarchy.
    ///
    /// # Errors
    /// When the hierarchy is missing or the kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        let hierarchy = Hierarchy::find()?;
        hierarchy.delegate()?;
        Self::make(hierarchy, format!("/{}{}-{name}", Self::PREFIX, std::process::id()))
    }

    /// What the names of our cgroups begin with.
    pub const PREFIX: &str = "guard-test-";

    /// Makes a cgroup in this one; on v2 hands the cpu controller down to it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn child(&self, name: &str) -> Result<Self> {
        if self.hierarchy.version == Version::V2 {
            self.set("cgroup.subtree_control", "+cpu")?;
        }
        Self::make(self.hierarchy.clone(), format!("{}/{name}", self.path))
    }

    /// Makes a cgroup in this one that takes single threads of its processes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn threads_below(&self, name: &str) -> Result<Self> {
        let this = Self::make(self.hierarchy.clone(), format!("{}/{name}", self.path))?;
        if self.hierarchy.version == Version::V2 {
            this.set("cgroup.type", "threaded")?;
            self.set("cgroup.subtree_control", "+cpu")?;
        }
        Ok(this)
    }

    fn make(hierarchy: Hierarchy, path: String) -> Result<Self> {
        let this = Self { hierarchy, path };
        fs::create_dir(this.dir()).with_context(|| format!("mkdir {}", this.dir().display()))?;
        Ok(this)
    }

    /// Its path in the hierarchy, with a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Version of its hierarchy.
    #[must_use]
    pub fn version(&self) -> Version {
        self.hierarchy.version
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.hierarchy.mount.join(self.path.trim_start_matches('/'))
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// When the kernel refuses; the message names file and value.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        write(&self.dir().join(file), value)
    }

    /// Moves a process, with all of its threads, into it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Sets a CFS quota, both in us.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_quota(&self, quota_us: u64, period_us: u64) -> Result<()> {
        match self.hierarchy.version {
            Version::V1 => {
                self.set("cpu.cfs_period_us", &period_us.to_string())?;
                self.set("cpu.cfs_quota_us", &quota_us.to_string())
            }
            Version::V2 => self.set("cpu.max", &format!("{quota_us} {period_us}")),
        }
    }

    /// Its CFS quota as its file has it: "-1" and "max …" are none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn quota_text(&self) -> Result<String> {
        let path = self.dir().join(match self.hierarchy.version {
            Version::V1 => "cpu.cfs_quota_us",
            Version::V2 => "cpu.max",
        });
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    /// Gives it as much of a busy CPU as a cgroup can get beside others.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn outweigh(&self) -> Result<()> {
        match self.hierarchy.version {
            Version::V1 => self.set("cpu.shares", "262144"),
            Version::V2 => self.set("cpu.weight", "10000"),
        }
    }

    /// Allows SCHED_FIFO in it for `us` of every second, where the kernel rations that per cgroup
    /// (CONFIG_RT_GROUP_SCHED).
    ///
    /// # Errors
    /// When the kernel goes on refusing. At first it may: what a cgroup was allowed that is gone is free again only when the kernel
    /// has let go of it.
    pub fn allow_rt(&self, us: u32) -> Result<()> {
        let file = "cpu.rt_runtime_us";
        if !self.dir().join(file).exists() {
            return Ok(());
        }
        let allowed =
            super::until("real-time allowance", Duration::from_secs(30), || Ok(self.set(file, &us.to_string()).ok()));
        allowed.or_else(|_| self.set(file, &us.to_string()))
    }

    /// Reads its cpu.stat.
    ///
    /// # Errors
    /// When the file cannot be read or lacks a field.
    pub fn cpu_stat(&self) -> Result<CpuStat> {
        let path = self.dir().join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let field = |name: &str| -> Result<u64> {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value = value.with_context(|| format!("{} has no {name}", path.display()))?;
            value.parse().with_context(|| format!("{name} of {} is \"{value}\"", path.display()))
        };
        let throttled_ns = match self.hierarchy.version {
            Version::V1 => field("throttled_time")?,
            Version::V2 => field("throttled_usec")? * 1000,
        };
        Ok(CpuStat { nr_periods: field("nr_periods")?, nr_throttled: field("nr_throttled")?, throttled_ns })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just waited for may still be leaving.
        let removed = super::until("rmdir", Duration::from_secs(20), || Ok(remove_tree(&self.dir()).ok()));
        if let Err(error) = removed {
            eprintln!("{} stays behind: {error:#}", self.dir().display());
        }
    }
}

/// Removes a cgroup and those in it; the files of a cgroup go with it.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write \"{value}\" to {}", path.display()))
}
