//! All cpu knobs of a cgroup in one reading, and the CPU time it has used.

use std::{io, path::Path};

use super::{
    error::{CgroupError, FileError},
    files::{keyed, us_to_ns},
    hierarchy::Hierarchy,
    read::{at, optional},
};
use crate::{
    knob::{File, Kind, Knob, ParseError, Setting, Value, Version, WeightFormula, parse_u64},
    snapshot::{CpuList, Knobs},
};

impl Hierarchy {
    /// The cpu knobs of a cgroup. What the kernel, the version or the cgroup does not have is absent. Shares are
    /// converted from a weight by [`WeightFormula::Quadratic`], and absent while cpu.idle is set.
    ///
    /// # Errors
    /// The cgroup has gone, or a file is not what it should be.
    pub fn knobs(&self, path: &str) -> Result<Knobs, CgroupError> {
        let get = |knob| self.setting(path, knob, WeightFormula::Quadratic);
        let idle = matches!(get(Knob::Idle)?, Some(Setting::Idle(true)));
        Ok(Knobs {
            quota: match get(Knob::Quota)? {
                Some(Setting::Quota(bandwidth)) => Some(bandwidth),
                _ => None,
            },
            burst_us: self.burst_us(path)?,
            shares: match get(Knob::Shares)? {
                Some(Setting::Shares(shares)) if !idle => Some(shares),
                _ => None,
            },
            idle: get(Knob::Idle)?.map(|_| idle),
            cpus: self.list(path, File::CPUS)?,
            cpus_effective: self.cpuset(path)?.map(|cpuset| cpuset.effective),
            mems: self.list(path, File::MEMS)?,
            partition: match get(Knob::Partition)? {
                Some(Setting::Partition(partition)) => Some(partition),
                _ => None,
            },
            rt_runtime_us: match get(Knob::RtRuntime)? {
                Some(Setting::RtRuntime(us)) => Some(us),
                _ => None,
            },
        })
    }

    /// CPU time that the cgroup and those below it have used, ns; `None` where nobody accounts for it.
    ///
    /// # Errors
    /// The cgroup has gone, or the file is not what it should be.
    pub fn cpu_usage_ns(&self, path: &str) -> Result<Option<u64>, CgroupError> {
        match self.version() {
            Version::V2 => {
                let file = self.dir(path)?.join("cpu.stat");
                let Some(text) = optional(&file)? else { return Ok(None) };
                let us = keyed(&text, "usage_usec").ok_or_else(|| ParseError::new("usage_usec", &text));
                us.and_then(parse_u64).and_then(us_to_ns).map(Some).map_err(at(&file))
            }
            Version::V1 => {
                let Some(dir) = self.dir_of("cpuacct", path).transpose()? else { return Ok(None) };
                let file = dir.join("cpuacct.usage");
                // The cgroup may exist in the cpu hierarchy only.
                absent_where_no_cgroup(&file)?.map(|text| parse_u64(&text).map_err(at(&file))).transpose()
            }
        }
    }

    /// One knob as a setting; `None` when the cgroup has no such file.
    pub(crate) fn setting(
        &self,
        path: &str,
        knob: Knob,
        formula: WeightFormula,
    ) -> Result<Option<Setting>, CgroupError> {
        let mut values = Vec::new();
        for file in knob.files(self.version()) {
            let Some(value) = self.value(path, file)? else { return Ok(None) };
            values.push(value);
        }
        Ok(knob.decode(&values, self.version(), formula))
    }

    /// What a file says; `None` when the cgroup has no such file.
    pub(crate) fn value(&self, path: &str, file: File) -> Result<Option<Value>, CgroupError> {
        if file.knob().kind() != Kind::Cgroup {
            return Ok(None);
        }
        let controller = file.knob().controller();
        let Some(dir) = self.dir_of(controller, path).transpose()? else { return Ok(None) };
        let at_file = dir.join(file.name());
        // On v1 the cgroup may exist in the cpu hierarchy only; on v2 a cpuset that is not there says nothing.
        let text = if controller == "cpu" { optional(&at_file)? } else { absent_where_no_cgroup(&at_file)? };
        text.map(|text| file.parse(&text).map_err(at(&at_file))).transpose()
    }

    pub(super) fn list(&self, path: &str, file: File) -> Result<Option<CpuList>, CgroupError> {
        Ok(self.value(path, file)?.and_then(|value| match value {
            Value::List(list) => Some(list),
            _ => None,
        }))
    }
}

fn absent_where_no_cgroup(file: &Path) -> Result<Option<String>, CgroupError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::io("read", file)(source).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Bandwidth, Partition};

    #[test]
    fn the_knobs_of_v2_are_read() {
        let (_top, h) = Hierarchy::with_cgroup(
            Version::V2,
            &[
                ("cpu.max", "max 50000\n"),
                ("cpu.max.burst", "7\n"),
                ("cpu.weight", "100\n"),
                ("cpu.idle", "0\n"),
                ("cpuset.cpus", "\n"),
                ("cpuset.cpus.effective", "0-3\n"),
                ("cpuset.mems", "0\n"),
                ("cpuset.cpus.partition", "isolated invalid (no cpu available)\n"),
                ("cpu.stat", "usage_usec 970837\nuser_usec 1\n"),
            ],
        );
        let knobs = h.knobs("/a").unwrap();
        assert_eq!(knobs.quota, Some(Bandwidth { quota_us: None, period_us: 50_000 }));
        assert_eq!((knobs.burst_us, knobs.shares, knobs.idle), (Some(7), Some(1024), Some(false)));
        assert_eq!(knobs.cpus, Some(CpuList::default()));
        assert_eq!(knobs.cpus_effective.map(|list| list.to_string()).as_deref(), Some("0-3"));
        assert_eq!(knobs.mems.map(|list| list.to_string()).as_deref(), Some("0"));
        assert_eq!((knobs.partition, knobs.rt_runtime_us), (Some(Partition::Isolated), None));
        assert_eq!(h.cpu_usage_ns("/a").unwrap(), Some(970_837_000));
    }

    #[test]
    fn the_knobs_of_v1_are_read() {
        let (_top, h) = Hierarchy::with_cgroup(
            Version::V1,
            &[
                ("cpu.cfs_quota_us", "20000\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("cpu.shares", "3\n"),
                ("cpu.idle", "1\n"),
                ("cpu.rt_runtime_us", "-1\n"),
                ("cpuacct.usage", "12345\n"),
            ],
        );
        let knobs = h.knobs("/a").unwrap();
        assert_eq!(knobs.quota, Some(Bandwidth { quota_us: Some(20_000), period_us: 100_000 }));
        assert_eq!((knobs.shares, knobs.idle, knobs.rt_runtime_us), (None, Some(true), Some(-1)));
        assert_eq!((knobs.burst_us, knobs.cpus, knobs.partition), (None, None, None));
        assert_eq!(h.cpu_usage_ns("/a").unwrap(), Some(12_345));
    }

    #[test]
    fn a_cgroup_without_files_has_no_knobs_and_one_that_has_gone_is_an_error() {
        for version in [Version::V1, Version::V2] {
            let (_top, h) = Hierarchy::with_cgroup(version, &[]);
            assert_eq!(h.knobs("/a").unwrap(), Knobs::default());
            assert_eq!(h.cpu_usage_ns("/a").unwrap(), None);
            assert!(h.knobs("/gone").unwrap_err().is_vanished());
        }
    }

    #[test]
    fn the_knobs_of_this_node_are_understood() {
        let Ok(h) = Hierarchy::detect(Path::new("/")) else {
            eprintln!("skipped: no cpu controller is mounted here");
            return;
        };
        for dir in h.walk().unwrap() {
            for result in [h.knobs(&dir.path).map(drop), h.cpu_usage_ns(&dir.path).map(drop)] {
                assert!(result.as_ref().err().is_none_or(CgroupError::is_vanished), "{}: {result:?}", dir.path);
            }
        }
    }
}
