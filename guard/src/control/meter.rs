//! Reads quotas, cpu.stat and cpu.pressure of cgroups at both ends of a window and keeps the differences.
//!
//! Every cgroup costs a file, so the quotas of all are read only from time to time. Nothing is missed
//! by that: the totals of a cgroup without quota stand still, so the totals read when it was first seen are those of
//! the begin of its first window with a quota.

use std::collections::{HashMap, HashSet};

use crate::cgroup::{CgroupError, CpuStatTotals, Hierarchy, PressureReading, PressureTotals, Version};
use crate::snapshot::{CpuStat, Pressure, Quota};

/// The cpu files of a hierarchy, by path of the cgroup.
pub(super) trait CpuFiles {
    /// Quota in force.
    fn quota(&self, path: &str) -> Result<Option<Quota>, CgroupError>;
    /// Totals of cpu.stat.
    fn cpu_stat(&self, path: &str) -> Result<Option<CpuStatTotals>, CgroupError>;
    /// Totals of cpu.pressure; `None` where the kernel has none.
    fn cpu_pressure(&self, path: &str) -> Result<Option<PressureTotals>, CgroupError>;
}

impl CpuFiles for Hierarchy {
    fn quota(&self, path: &str) -> Result<Option<Quota>, CgroupError> {
        Hierarchy::quota(self, path)
    }

    fn cpu_stat(&self, path: &str) -> Result<Option<CpuStatTotals>, CgroupError> {
        Hierarchy::cpu_stat(self, path)
    }

    fn cpu_pressure(&self, path: &str) -> Result<Option<PressureTotals>, CgroupError> {
        if self.version() == Version::V1 {
            return Ok(None);
        }
        match Hierarchy::cpu_pressure(self, path)? {
            PressureReading::Totals(totals) => Ok(Some(totals)),
            PressureReading::Unavailable(_) => Ok(None),
        }
    }
}

/// What the files of one cgroup say of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WindowReading {
    /// Quota at the end of the window.
    pub(super) quota: Option<Quota>,
    /// cpu.stat; `None` when it could not be read at both ends.
    pub(super) cpu_stat: Option<CpuStat>,
    /// cpu.pressure, where it was asked for.
    pub(super) pressure: Option<Pressure>,
}

/// The totals at the begin of the window.
#[derive(Debug, Default)]
pub(super) struct Meter {
    quotas: HashMap<u64, Quota>,
    stats: HashMap<u64, CpuStatTotals>,
    pressures: HashMap<u64, PressureTotals>,
    /// Cgroups that had no cpu.pressure; asked again when their quota is read.
    pressureless: HashSet<u64>,
    known: HashSet<u64>,
    begun: bool,
}

impl Meter {
    /// Adds the cgroups that are new since the last call, and removes those that are gone. `cgroups` are all (id, path).
    ///
    /// The totals of a cgroup that was made after the first call count from zero: it was made within the window.
    pub(super) fn refresh<'a>(&mut self, files: &impl CpuFiles, cgroups: impl Iterator<Item = (u64, &'a str)>) {
        let mut alive = HashSet::new();
        for (id, path) in cgroups {
            alive.insert(id);
            if !self.known.insert(id) {
                continue;
            }
            if self.begun {
                self.stats.insert(id, CpuStatTotals::default());
                self.pressures.insert(id, PressureTotals { some_ns: 0, full_ns: Some(0) });
            } else if let Some(totals) = readable(files.cpu_stat(path)) {
                self.stats.insert(id, totals);
            }
            self.read_quota(files, id, path);
        }
        self.begun = true;
        self.known.retain(|id| alive.contains(id));
        self.stats.retain(|id, _| alive.contains(id));
        self.quotas.retain(|id, _| alive.contains(id));
        self.pressures.retain(|id, _| alive.contains(id));
        self.pressureless.retain(|id| alive.contains(id));
    }

    /// Reads the quota of one cgroup.
    pub(super) fn read_quota(&mut self, files: &impl CpuFiles, id: u64, path: &str) {
        self.pressureless.remove(&id);
        match readable(files.quota(path)) {
            Some(quota) => self.quotas.insert(id, quota),
            None => self.quotas.remove(&id),
        };
    }

    /// Whether the cgroup had a quota when it was last read.
    pub(super) fn is_limited(&self, id: u64) -> bool {
        self.quotas.contains_key(&id)
    }

    /// Ends the window of one cgroup and begins its next one.
    pub(super) fn read(&mut self, files: &impl CpuFiles, id: u64, path: &str, with_pressure: bool) -> WindowReading {
        let quota = self.quotas.get(&id).copied();
        let cpu_stat = readable(files.cpu_stat(path)).and_then(|now| {
            let before = self.stats.insert(id, now)?;
            now.since(&before)
        });
        let pressure = if with_pressure && !self.pressureless.contains(&id) {
            match readable(files.cpu_pressure(path)) {
                Some(now) => self.pressures.insert(id, now).and_then(|before| since(before, now)),
                None => {
                    self.pressureless.insert(id);
                    None
                }
            }
        } else {
            None
        };
        WindowReading { quota, cpu_stat, pressure }
    }
}

fn since(before: PressureTotals, now: PressureTotals) -> Option<Pressure> {
    Some(Pressure {
        some_ns: now.some_ns.checked_sub(before.some_ns)?,
        full_ns: now.full_ns.zip(before.full_ns).and_then(|(now, before)| now.checked_sub(before)),
    })
}

/// What was read; nothing when the cgroup has gone meanwhile, or (said once per reading) when its file is unreadable.
fn readable<T>(read: Result<Option<T>, CgroupError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        if !error.is_vanished() {
            tracing::warn!("{error}");
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::FileError;

    #[derive(Default)]
    struct Files(HashMap<String, (Option<Quota>, CpuStatTotals, Option<PressureTotals>)>);

    impl Files {
        fn set(&mut self, path: &str, quota_us: Option<u64>, n: u64) {
            let quota = quota_us.map(|quota_us| Quota { quota_us, period_us: 100_000 });
            let totals = CpuStatTotals { nr_periods: 10 * n, nr_throttled: n, throttled_ns: 1_000 * n, burst: None };
            let pressure = PressureTotals { some_ns: 5 * n, full_ns: None };
            self.0.insert(path.to_owned(), (quota, totals, Some(pressure)));
        }

        fn get(&self, path: &str) -> Result<&(Option<Quota>, CpuStatTotals, Option<PressureTotals>), CgroupError> {
            let gone = std::io::ErrorKind::NotFound;
            let gone = || FileError::Io { op: "read", path: path.into(), source: gone.into() }.into();
            self.0.get(path).ok_or_else(gone)
        }
    }

    impl CpuFiles for Files {
        fn quota(&self, path: &str) -> Result<Option<Quota>, CgroupError> {
            Ok(self.get(path)?.0)
        }

        fn cpu_stat(&self, path: &str) -> Result<Option<CpuStatTotals>, CgroupError> {
            Ok(Some(self.get(path)?.1))
        }

        fn cpu_pressure(&self, path: &str) -> Result<Option<PressureTotals>, CgroupError> {
            Ok(self.get(path)?.2)
        }
    }

    fn throttled(reading: WindowReading) -> Option<u64> {
        reading.cpu_stat.map(|stat| stat.nr_throttled)
    }

    #[test]
    fn a_window_is_the_difference_of_its_ends() {
        let (mut files, mut meter) = (Files::default(), Meter::default());
        files.set("/a", Some(20_000), 3);
        meter.refresh(&files, [(1, "/a")].into_iter());
        files.set("/a", Some(20_000), 5);
        let first = meter.read(&files, 1, "/a", true);
        assert_eq!(first.quota, Some(Quota { quota_us: 20_000, period_us: 100_000 }));
        assert_eq!(first.cpu_stat, Some(CpuStat { nr_periods: 20, nr_throttled: 2, throttled_ns: 2_000 }));
        assert_eq!(first.pressure, None, "pressure was not read at the begin");
        files.set("/a", Some(20_000), 6);
        let second = meter.read(&files, 1, "/a", true);
        assert_eq!(throttled(second), Some(1));
        assert_eq!(second.pressure, Some(Pressure { some_ns: 5, full_ns: None }));
    }

    #[test]
    fn a_cgroup_made_within_the_window_counts_from_zero() {
        let (mut files, mut meter) = (Files::default(), Meter::default());
        meter.refresh(&files, std::iter::empty());
        files.set("/new", Some(10_000), 4);
        meter.refresh(&files, [(2, "/new")].into_iter());
        assert!(meter.is_limited(2));
        let reading = meter.read(&files, 2, "/new", true);
        assert_eq!((throttled(reading), reading.pressure.map(|p| p.some_ns)), (Some(4), Some(20)));
    }

    #[test]
    fn a_quota_set_later_is_counted_from_its_begin() {
        let (mut files, mut meter) = (Files::default(), Meter::default());
        files.set("/a", None, 7);
        meter.refresh(&files, [(1, "/a")].into_iter());
        assert!(!meter.is_limited(1));
        files.set("/a", Some(10_000), 9);
        meter.read_quota(&files, 1, "/a");
        assert!(meter.is_limited(1));
        assert_eq!(throttled(meter.read(&files, 1, "/a", false)), Some(2));
    }

    #[test]
    fn a_cgroup_that_is_gone_has_no_figures_and_is_forgotten() {
        let (mut files, mut meter) = (Files::default(), Meter::default());
        files.set("/a", Some(1_000), 1);
        meter.refresh(&files, [(1, "/a")].into_iter());
        files.0.clear();
        assert_eq!(meter.read(&files, 1, "/a", true).cpu_stat, None);
        meter.refresh(&files, std::iter::empty());
        assert!(!meter.is_limited(1));
    }

    #[test]
    fn a_new_cgroup_under_an_old_name_is_not_mistaken_for_it() {
        let (mut files, mut meter) = (Files::default(), Meter::default());
        files.set("/a", Some(1_000), 9);
        meter.refresh(&files, [(1, "/a")].into_iter());
        files.set("/a", Some(1_000), 2);
        // The old one is still asked for, but the path is the new one's now.
        assert_eq!(throttled(meter.read(&files, 1, "/a", false)), None);
        meter.refresh(&files, [(2, "/a")].into_iter());
        assert_eq!(throttled(meter.read(&files, 2, "/a", false)), Some(2));
    }
}
