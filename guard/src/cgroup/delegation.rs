//! What a cgroup was given to hand on: controllers and CPUs of its own (v2), and time for real-time threads (v1).

use std::{fs, io};

use super::{
    error::{CgroupError, FileError},
    hierarchy::Hierarchy,
};
use crate::{
    knob::{Knob, Setting, Version, WeightFormula},
    snapshot::CpuList,
};

impl Hierarchy {
    /// Controllers of a cgroup, cgroup.controllers; None on v1.
    ///
    /// # Errors
    /// The cgroup has gone, or lies outside of what is mounted.
    pub fn controllers(&self, path: &str) -> Result<Option<Vec<String>>, CgroupError> {
        self.words(path, "cgroup.controllers")
    }

    /// Controllers that a cgroup hands to its children, cgroup.subtree_control; None on v1.
    ///
    /// # Errors
    /// As [`Self::controllers`].
    pub fn subtree_control(&self, path: &str) -> Result<Option<Vec<String>>, CgroupError> {
        self.words(path, "cgroup.subtree_control")
    }

    /// Time for FIFO and RR threads per period, cpu.rt_runtime_us, us; None on v2 and on kernels without
    /// CONFIG_RT_GROUP_SCHED.
    ///
    /// # Errors
    /// The cgroup has gone, or the file is not what it should be.
    pub fn rt_runtime_us(&self, path: &str) -> Result<Option<i64>, CgroupError> {
        Ok(match self.setting(path, Knob::RtRuntime, WeightFormula::default())? {
            Some(Setting::RtRuntime(us)) => Some(us),
            _ => None,
        })
    }

    /// What kind of cpuset partition a cgroup is, cpuset.cpus.partition: "member" of another's, "root" or "isolated", with
    /// "invalid" and the reason behind it where it cannot be that. `None` on v1, at the root, and where the cgroup has no
    /// cpuset controller.
    ///
    /// # Errors
    /// As [`Self::controllers`].
    pub fn partition(&self, path: &str) -> Result<Option<String>, CgroupError> {
        let text = self.text(path, "cpuset.cpus.partition")?;
        Ok(text.map(|text| text.trim_end().to_owned()))
    }

    /// CPUs of all isolated partitions, as the root's cpuset.cpus.isolated has them (since 6.7); `None` where it does not.
    ///
    /// # Errors
    /// As [`Self::controllers`].
    pub fn isolated(&self) -> Result<Option<CpuList>, CgroupError> {
        let text = self.text("/", "cpuset.cpus.isolated")?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// The period of that, us; `None` on v2, and where it cannot be read.
    pub(crate) fn rt_period_us(&self, path: &str) -> Option<u64> {
        match self.version() {
            Version::V1 => self.text(path, "cpu.rt_period_us").ok()??.trim().parse().ok(),
            Version::V2 => None,
        }
    }

    fn words(&self, path: &str, name: &str) -> Result<Option<Vec<String>>, CgroupError> {
        let text = self.text(path, name)?;
        Ok(text.map(|text| text.split_ascii_whitespace().map(str::to_owned).collect()))
    }

    /// The text of a file of a cgroup; `None` when the cgroup is there but has no such file.
    fn text(&self, path: &str, name: &str) -> Result<Option<String>, CgroupError> {
        let dir = self.dir(path)?;
        let file = dir.join(name);
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(source) if source.kind() == io::ErrorKind::NotFound && dir.is_dir() => Ok(None),
            Err(source) => Err(FileError::io("read", &file)(source).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_and_real_time_shares_are_read() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("a")).unwrap();
        for (name, text) in
            [("cgroup.controllers", "cpuset cpu\n"), ("cgroup.subtree_control", "\n"), ("cpu.rt_runtime_us", "-1\n")]
        {
            fs::write(top.path().join("a").join(name), text).unwrap();
        }
        let h = Hierarchy::for_test(top.path(), Version::V2);
        assert_eq!(h.controllers("/a").unwrap().unwrap(), ["cpuset", "cpu"]);
        assert_eq!(h.subtree_control("/a").unwrap().unwrap(), Vec::<String>::new());
        let h1 = Hierarchy::for_test(top.path(), Version::V1);
        assert_eq!((h1.rt_runtime_us("/a").unwrap(), h.rt_runtime_us("/a").unwrap()), (Some(-1), None));
        assert_eq!(h.controllers("/").unwrap(), None);
        assert!(h.controllers("/gone").unwrap_err().is_vanished());
        assert_eq!((h.partition("/a").unwrap(), h.isolated().unwrap()), (None, None));
        fs::write(top.path().join("a/cpuset.cpus.partition"), "root invalid (no CPU is left)\n").unwrap();
        fs::write(top.path().join("cpuset.cpus.isolated"), "4-5\n").unwrap();
        assert_eq!(h.partition("/a").unwrap().as_deref(), Some("root invalid (no CPU is left)"));
        assert_eq!(h.isolated().unwrap().map(|cpus| cpus.to_string()).as_deref(), Some("4-5"));
        fs::write(top.path().join("a/cpu.rt_runtime_us"), "much\n").unwrap();
        assert!(h1.rt_runtime_us("/a").unwrap_err().to_string().contains("much"));
    }
}
