//! Workloads by name: `[[workload]]`, and which cgroups each of them means.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::units::{Cpus, Time};
use crate::snapshot::{Budget, BudgetMetric, BudgetOf, Class, Container, Point};

/// One `[[workload]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Which cgroups: all that is given must fit. What holds for a cgroup holds for those below it.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Its class; absent for the one that guard finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Limits of the wake-up latency of its real-time tasks.
    #[serde(skip_serializing_if = "Percentiles::is_empty")]
    pub wakeup: Percentiles,
    /// Limits of its timer latency, by the last stage that is seen.
    #[serde(skip_serializing_if = "Percentiles::is_empty")]
    pub timer: Percentiles,
    /// CPUs that it needs; absent for what Kubernetes wrote. Not inherited by cgroups below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Cpus>,
    /// CPUs that it may use at most; absent for what Kubernetes wrote. Not inherited by cgroups below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Cpus>,
    /// Whether guard may change its cgroups; absent for yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
}

/// Which cgroups a workload means. Globs in which `*` matches "/" too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Path of the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Name or id of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Kubernetes pod: "namespace/name", or its uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Name of a process in the cgroup itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

impl Match {
    /// Its patterns by key, as far as given.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("cgroup", &self.cgroup),
            ("container", &self.container),
            ("pod", &self.pod),
            ("unit", &self.unit),
            ("comm", &self.comm),
        ]
        .into_iter()
        .filter_map(|(key, pattern)| Some((key, pattern.as_deref()?)))
    }
}

/// Limits of a latency at points of its distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Percentiles {
    /// Half of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<Time>,
    /// 90 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90: Option<Time>,
    /// 99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<Time>,
    /// 99.9 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999: Option<Time>,
    /// 99.99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p9999: Option<Time>,
    /// All.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Time>,
}

impl Percentiles {
    /// The limits that are given, from the middle to the end.
    pub(super) fn limits(&self) -> impl DoubleEndedIterator<Item = (Point, Time)> {
        [
            (Point::Percentile(50, 2), self.p50),
            (Point::Percentile(90, 2), self.p90),
            (Point::Percentile(99, 2), self.p99),
            (Point::Percentile(999, 3), self.p999),
            (Point::Percentile(9999, 4), self.p9999),
            (Point::Max, self.max),
        ]
        .into_iter()
        .filter_map(|(point, limit)| Some((point, limit?)))
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Workload {
    /// Its latency limits, as a Snapshot shows them.
    #[must_use]
    pub fn budgets(&self) -> Vec<Budget> {
        let of = |of, percentiles: &Percentiles| -> Vec<Budget> {
            let budget =
                |(point, limit): (_, Time)| Budget { metric: BudgetMetric { of, point }.into(), limit_ns: limit.ns() };
            percentiles.limits().map(budget).collect()
        };
        [of(BudgetOf::Wakeup, &self.wakeup), of(BudgetOf::Timer, &self.timer)].concat()
    }

    /// Whether guard may change its cgroups.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.managed != Some(false)
    }

    /// From which latency on a single wake-up of its threads is late, ns: the limit at the outermost point of each
    /// latency, the smaller of the two. `None` when it has no limits.
    #[must_use]
    pub fn late_ns(&self) -> Option<u64> {
        [&self.wakeup, &self.timer].into_iter().filter_map(|of| Some(of.limits().next_back()?.1.ns())).min()
    }
}

/// What a workload is looked for by.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Path of the cgroup.
    pub path: &'a str,
    /// What it belongs to.
    pub container: Option<&'a Container>,
    /// Names of the processes in the cgroup itself.
    pub comms: &'a [String],
}

/// The workloads, ready to look cgroups up.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    entries: Vec<(Matcher, Workload)>,
}

#[derive(Clone, Debug, Default)]
struct Matcher {
    cgroup: Option<GlobMatcher>,
    container: Option<GlobMatcher>,
    pod: Option<GlobMatcher>,
    unit: Option<GlobMatcher>,
    comm: Option<GlobMatcher>,
}

impl Workloads {
    /// The workloads of a configuration.
    ///
    /// # Errors
    /// A pattern is no glob; [`super::Config::load`] has seen to that.
    pub fn new(workloads: &[Workload]) -> Result<Self, globset::Error> {
        let entries = workloads.iter().map(|workload| Ok((Matcher::new(&workload.matches)?, workload.clone())));
        Ok(Self { entries: entries.collect::<Result<_, globset::Error>>()? })
    }

    /// The first workload of the file that means this cgroup itself, by its number.
    #[must_use]
    pub fn find(&self, candidate: Candidate<'_>) -> Option<usize> {
        self.entries.iter().position(|(matcher, _)| matcher.fits(candidate))
    }

    /// A workload by its number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&Workload> {
        self.entries.get(number).map(|(_, workload)| workload)
    }

    /// Whether any of them is looked for by the names of processes.
    #[must_use]
    pub fn need_comms(&self) -> bool {
        self.entries.iter().any(|(matcher, _)| matcher.comm.is_some())
    }
}

impl Matcher {
    fn new(matches: &Match) -> Result<Self, globset::Error> {
        let glob = |pattern: &Option<String>| {
            pattern.as_deref().map(|pattern| Glob::new(pattern).map(|glob| glob.compile_matcher())).transpose()
        };
        Ok(Self {
            cgroup: glob(&matches.cgroup)?,
            container: glob(&matches.container)?,
            pod: glob(&matches.pod)?,
            unit: glob(&matches.unit)?,
            comm: glob(&matches.comm)?,
        })
    }

    fn fits(&self, candidate: Candidate<'_>) -> bool {
        let is_unit = |c: &&Container| c.runtime == "systemd";
        let container = candidate.container.filter(|c| !is_unit(c));
        let unit = candidate.container.filter(is_unit);
        let any = |glob: &Option<GlobMatcher>, texts: &[Option<&str>]| {
            glob.as_ref().is_none_or(|glob| texts.iter().flatten().any(|text| glob.is_match(text)))
        };
        any(&self.cgroup, &[Some(candidate.path)])
            && any(
                &self.container,
                &[
                    container.and_then(|c| c.name.as_deref()),
                    container.map(|c| c.id.as_str()),
                    container.and_then(|c| c.id.get(..12)),
                ],
            )
            && any(&self.pod, &[container.and_then(|c| c.pod.as_deref())])
            && any(&self.unit, &[unit.map(|c| c.id.as_str())])
            && self.comm.as_ref().is_none_or(|glob| candidate.comms.iter().any(|comm| glob.is_match(comm)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workloads(matches: &[Match]) -> Workloads {
        let all: Vec<Workload> =
            matches.iter().map(|m| Workload { matches: m.clone(), ..Workload::default() }).collect();
        Workloads::new(&all).unwrap()
    }

    fn pattern(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_cgroup_is_found_by_each_of_its_names_and_the_first_workload_wins() {
        let container = Container {
            runtime: "podman".into(),
            id: "575db3970d26d3f1".into(),
            name: Some("plc-loop".into()),
            pod: Some("factory/line-1".into()),
            ..Container::default()
        };
        let unit = Container { runtime: "systemd".into(), id: "codesys.service".into(), ..Container::default() };
        let all = workloads(&[
            Match { unit: pattern("codesys.*"), ..Match::default() },
            Match { container: pattern("575db3970d26"), pod: pattern("office/*"), ..Match::default() },
            Match { container: pattern("plc-*"), cgroup: pattern("/machine*"), ..Match::default() },
            Match { comm: pattern("codesys"), ..Match::default() },
            Match { pod: pattern("factory/*"), ..Match::default() },
        ]);
        let find = |path, container, comms: &[String]| all.find(Candidate { path, container, comms });
        assert_eq!(find("/machine.slice/x", Some(&container), &[]), Some(2));
        assert_eq!(find("/elsewhere", Some(&container), &[]), Some(4));
        assert_eq!(find("/system.slice/codesys.service", Some(&unit), &[]), Some(0));
        assert_eq!(find("/a", None, &["sh".into(), "codesys".into()]), Some(3));
        assert_eq!(find("/a", None, &[]), None);
        assert!(all.need_comms());
    }

    #[test]
    fn a_wake_up_is_late_from_the_outermost_limit_on() {
        let mut workload = Workload::default();
        assert_eq!(workload.late_ns(), None);
        workload.wakeup.p99 = Some("80us".parse().unwrap());
        workload.wakeup.p999 = Some("150us".parse().unwrap());
        assert_eq!(workload.late_ns(), Some(150_000));
        workload.timer.max = Some("120us".parse().unwrap());
        assert_eq!(workload.late_ns(), Some(120_000));
        let shown: Vec<_> = workload.budgets().into_iter().map(|b| (b.metric.to_string(), b.limit_ns)).collect();
        assert_eq!(
            shown,
            [("wakeup.p99".into(), 80_000), ("wakeup.p999".into(), 150_000), ("timer.max".into(), 120_000)]
        );
    }
}
