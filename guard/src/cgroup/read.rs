//! Reading the cpu files of one cgroup. What a kernel or a cgroup does not have is None, never zero; a cgroup that has
//! gone is an error of which [`CgroupError::is_vanished`] is true.

use std::{fs, io, path::Path, str::FromStr};

use super::{
    error::{CgroupError, FileError},
    files::{CpuStatTotals, PressureTotals, Weight, parse_cpu_stat, parse_pressure},
    hierarchy::Hierarchy,
};
use crate::{
    knob::{File, Knob, ParseError, Setting, Version, WeightFormula},
    snapshot::{Bandwidth, CpuList, Quota},
};

/// CPUs of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpuset {
    /// CPUs it asks for; empty on v2 for "as the parent".
    pub cpus: CpuList,
    /// CPUs it has.
    pub effective: CpuList,
}

/// What cpu.pressure says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PressureReading {
    /// The totals.
    Totals(PressureTotals),
    /// There are none, and why.
    Unavailable(String),
}

impl Hierarchy {
    /// cpu.stat; `None` when it has no bandwidth figures (v2: cgroups without the cpu controller).
    ///
    /// # Errors
    /// The cgroup has gone, or the file is not what it should be.
    pub fn cpu_stat(&self, path: &str) -> Result<Option<CpuStatTotals>, CgroupError> {
        let file = self.dir(path)?.join("cpu.stat");
        optional(&file)?.map_or(Ok(None), |text| parse_cpu_stat(&text, self.version()).map_err(at(&file)))
    }

    /// CFS quota and period; `None` when there is no limit.
    ///
    /// # Errors
    /// The cgroup has gone, or a file is not what it should be.
    pub fn quota(&self, path: &str) -> Result<Option<Quota>, CgroupError> {
        Ok(match self.setting(path, Knob::Quota, WeightFormula::default())? {
            Some(Setting::Quota(Bandwidth { quota_us: Some(quota_us), period_us })) => {
                Some(Quota { quota_us, period_us })
            }
            _ => None,
        })
    }

    /// CPU time that may be saved up beyond the quota, us; `None` where the kernel or the cgroup has no such file.
    ///
    /// # Errors
    /// The cgroup has gone, or the file is not what it should be.
    pub fn burst_us(&self, path: &str) -> Result<Option<u64>, CgroupError> {
        Ok(match self.setting(path, Knob::Burst, WeightFormula::default())? {
            Some(Setting::Burst(us)) => Some(us),
            _ => None,
        })
    }

    /// Weight against siblings; `None` where the cgroup has no such file (v2: the root).
    ///
    /// # Errors
    /// The cgroup has gone, or a file is not what it should be.
    pub fn weight(&self, path: &str) -> Result<Option<Weight>, CgroupError> {
        let number = |file: File| self.value(path, file).map(|value| value.and_then(|value| value.unsigned()));
        if number(File::IDLE)? == Some(1) {
            return Ok(Some(Weight::Idle));
        }
        Ok(match self.version() {
            Version::V1 => number(File::SHARES)?.map(Weight::Shares),
            Version::V2 => number(File::WEIGHT)?.map(Weight::Weight),
        })
    }

    /// CPUs of the cgroup. On v1 those of the cgroup with the same path in the cpuset hierarchy; `None` where there is
    /// no such cgroup or no cpuset controller.
    ///
    /// # Errors
    /// A file is not what it should be.
    pub fn cpuset(&self, path: &str) -> Result<Option<Cpuset>, CgroupError> {
        let Some(dir) = self.dir_of("cpuset", path).transpose()? else {
            return Ok(None);
        };
        let effective = match self.version() {
            Version::V1 => "cpuset.effective_cpus",
            Version::V2 => "cpuset.cpus.effective",
        };
        let list = |name: &str| -> Result<Option<CpuList>, CgroupError> {
            let file = dir.join(name);
            match fs::read_to_string(&file) {
                Ok(text) => CpuList::from_str(&text).map(Some).map_err(|error| at(&file)(error.into())),
                // On v1 the cgroup may exist in the cpu hierarchy only.
                Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(FileError::io("read", &file)(source).into()),
            }
        };
        // The root of v2 has no cpuset.cpus, only what is effective.
        let cpus = |effective| Ok(Cpuset { cpus: self.list(path, File::CPUS)?.unwrap_or_default(), effective });
        list(effective)?.map(cpus).transpose()
    }

    /// Processes of the cgroup itself, as pids seen from guard's pid namespace; 0 stands for one outside of it.
    ///
    /// # Errors
    /// The cgroup has gone, or is threaded (EOPNOTSUPP).
    pub fn processes(&self, path: &str) -> Result<Vec<u32>, CgroupError> {
        ids(&self.dir(path)?.join("cgroup.procs"))
    }

    /// Threads of the cgroup itself, as tids seen from guard's pid namespace; 0 stands for one outside of it.
    ///
    /// # Errors
    /// The cgroup has gone.
    pub fn threads(&self, path: &str) -> Result<Vec<u32>, CgroupError> {
        let name = match self.version() {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        };
        ids(&self.dir(path)?.join(name))
    }

    /// How many threads the cgroup itself holds.
    ///
    /// # Errors
    /// The cgroup has gone.
    pub fn thread_count(&self, path: &str) -> Result<usize, CgroupError> {
        self.threads(path).map(|tids| tids.len())
    }

    /// Pressure stall information for cpu.
    ///
    /// # Errors
    /// The cgroup has gone, or the file is not what it should be.
    pub fn cpu_pressure(&self, path: &str) -> Result<PressureReading, CgroupError> {
        let file = self.dir(path)?.join("cpu.pressure");
        match optional(&file) {
            Ok(Some(text)) => parse_pressure(&text).map(PressureReading::Totals).map_err(at(&file)),
            Ok(None) => Ok(PressureReading::Unavailable(match self.version() {
                Version::V1 => "cgroup v1 has no cpu.pressure".to_owned(),
                Version::V2 => "no cpu.pressure: the kernel lacks CONFIG_PSI, or cgroup.pressure is 0 here".to_owned(),
            })),
            Err(CgroupError::File(FileError::Io { source, .. })) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Ok(PressureReading::Unavailable("the kernel was booted without psi=1".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

pub(super) fn at(file: &Path) -> impl FnOnce(ParseError) -> CgroupError + '_ {
    move |source| FileError::Format { path: file.to_owned(), source }.into()
}

/// Text of a file; `None` when the cgroup is there but has no such file.
pub(super) fn optional(file: &Path) -> Result<Option<String>, CgroupError> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(source) if source.kind() == io::ErrorKind::NotFound && file.parent().is_some_and(Path::is_dir) => Ok(None),
        Err(source) => Err(FileError::io("read", file)(source).into()),
    }
}

fn ids(file: &Path) -> Result<Vec<u32>, CgroupError> {
    let text = fs::read_to_string(file).map_err(FileError::io("read", file))?;
    text.lines()
        .map(|line| line.parse().map_err(|_| at(file)(ParseError::new("one process or thread id per line", line))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_v2_are_read() {
        // The files of a container with --cpus 0.2, 6.1 PREEMPT_RT; pressure as before 5.13, one thread more.
        let (_top, h) = Hierarchy::with_cgroup(
            Version::V2,
            &[
                ("cpu.stat", "usage_usec 970837\nnr_periods 19\nnr_throttled 13\nthrottled_usec 699565\n"),
                ("cpu.max", "20000 100000\n"),
                ("cpu.max.burst", "0\n"),
                ("cpu.weight", "100\n"),
                ("cpu.idle", "0\n"),
                ("cpuset.cpus", "\n"),
                ("cpuset.cpus.effective", "0-1\n"),
                ("cgroup.procs", "160\n"),
                ("cgroup.threads", "160\n161\n"),
                ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\n"),
            ],
        );
        assert_eq!(h.cpu_stat("/a").unwrap().unwrap().throttled_ns, 699_565_000);
        assert_eq!(h.quota("/a").unwrap(), Some(Quota { quota_us: 20_000, period_us: 100_000 }));
        assert_eq!(h.burst_us("/a").unwrap(), Some(0));
        assert_eq!(h.weight("/a").unwrap(), Some(Weight::Weight(100)));
        let cpuset = h.cpuset("/a").unwrap().unwrap();
        assert_eq!((cpuset.cpus.len(), cpuset.effective.to_string()), (0, "0-1".to_owned()));
        assert_eq!(h.processes("/a").unwrap(), [160]);
        assert_eq!(h.thread_count("/a").unwrap(), 2);
        let totals = PressureTotals { some_ns: 11_000, full_ns: None };
        assert_eq!(h.cpu_pressure("/a").unwrap(), PressureReading::Totals(totals));
    }

    #[test]
    fn the_files_of_v1_are_read() {
        // As 6.18 writes them.
        let (_top, h) = Hierarchy::with_cgroup(
            Version::V1,
            &[
                ("cpu.stat", "nr_periods 3\nnr_throttled 1\nthrottled_time 70\nnr_bursts 0\nburst_time 0\n"),
                ("cpu.cfs_quota_us", "-1\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("cpu.cfs_burst_us", "0\n"),
                ("cpu.shares", "1024\n"),
                ("cpu.idle", "1\n"),
                ("cpuset.cpus", "0-1\n"),
                ("cpuset.effective_cpus", "0-1\n"),
                ("tasks", "1\n"),
            ],
        );
        let stat = CpuStatTotals { nr_periods: 3, nr_throttled: 1, throttled_ns: 70, burst: Some((0, 0)) };
        assert_eq!(h.cpu_stat("/a").unwrap(), Some(stat));
        assert_eq!(h.quota("/a").unwrap(), None);
        assert_eq!(h.burst_us("/a").unwrap(), Some(0));
        assert_eq!(h.weight("/a").unwrap(), Some(Weight::Idle));
        assert_eq!(h.cpuset("/a").unwrap().unwrap().cpus.len(), 2);
        assert_eq!(h.thread_count("/a").unwrap(), 1);
        let PressureReading::Unavailable(reason) = h.cpu_pressure("/a").unwrap() else { panic!("v1 has no pressure") };
        assert!(reason.contains("v1"));
    }

    #[test]
    fn files_that_a_cgroup_lacks_are_absent_and_a_cgroup_that_has_gone_is_an_error() {
        for version in [Version::V1, Version::V2] {
            let (_top, h) = Hierarchy::with_cgroup(version, &[]);
            assert_eq!(h.cpu_stat("/a").unwrap(), None);
            assert_eq!(h.quota("/a").unwrap(), None);
            assert_eq!(h.burst_us("/a").unwrap(), None);
            assert_eq!(h.weight("/a").unwrap(), None);
            assert_eq!(h.cpuset("/a").unwrap(), None);
            assert!(h.cpu_stat("/gone").unwrap_err().is_vanished());
            assert!(h.quota("/gone").unwrap_err().is_vanished());
            assert!(h.processes("/gone").unwrap_err().is_vanished());
            assert!(h.cpu_pressure("/gone").unwrap_err().is_vanished());
        }
    }

    #[test]
    fn an_error_names_the_file_and_what_it_holds() {
        let (top, h) = Hierarchy::with_cgroup(Version::V2, &[("cpu.max", "lots 100000\n")]);
        let error = h.quota("/a").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot understand {}: expected an unsigned number, found \"lots\"",
                top.path().join("a/cpu.max").display()
            )
        );
        assert!(!error.is_vanished());
    }

    #[test]
    fn the_files_of_this_node_are_understood() {
        let Ok(h) = Hierarchy::detect(Path::new("/")) else {
            eprintln!("skipped: no cpu controller is mounted here");
            return;
        };
        for dir in h.walk().unwrap() {
            let path = dir.path.as_str();
            for result in [
                h.cpu_stat(path).map(drop),
                h.quota(path).map(drop),
                h.burst_us(path).map(drop),
                h.weight(path).map(drop),
                h.cpuset(path).map(drop),
                h.thread_count(path).map(drop),
                h.cpu_pressure(path).map(drop),
            ] {
                assert!(
                    result.as_ref().is_ok_and(|()| true) || result.as_ref().is_err_and(CgroupError::is_vanished),
                    "{result:?}"
                );
            }
        }
    }
}
