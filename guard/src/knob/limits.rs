//! What the kernel is known to refuse, told before anything is written. The rules are those of kernel/sched/core.c
//! (tg_set_cfs_bandwidth, tg_cfs_schedulable_down, sched_group_set_shares), kernel/sched/rt.c (tg_rt_schedulable) and
//! kernel/cgroup/cpuset.c (validate_change); what they do not cover is left to the kernel's own answer. Pure.

use super::{
    order::ancestors,
    setting::{Knob, Setting},
    version::Version,
    weight,
};
use crate::snapshot::{Bandwidth, CpuList, Partition};

/// min_cfs_quota_period, us: also the least quota.
pub const MIN_PERIOD_US: u64 = 1_000;
/// max_cfs_quota_period, us.
pub const MAX_PERIOD_US: u64 = 1_000_000;
/// MAX_BW, us.
pub const MAX_QUOTA_US: u64 = (1 << 44) - 1;

/// How things will be around a cgroup when the whole batch is done.
pub(crate) trait Surroundings {
    /// A knob of a cgroup; None where it has no such file.
    fn setting(&self, path: &str, knob: Knob) -> Option<Setting>;
    /// Paths of its children, in the hierarchy of the knob.
    fn children(&self, path: &str, knob: Knob) -> Vec<String>;
    /// v1: cpu.rt_period_us.
    fn rt_period_us(&self, path: &str) -> Option<u64>;
}

/// Whether the kernel can be expected to take a setting.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn check(setting: &Setting, path: &str, version: Version, around: &impl Surroundings) -> Result<(), String> {
    match setting {
        Setting::Quota(bandwidth) => quota(*bandwidth, path, version, around),
        Setting::Burst(us) => burst(*us, path, around),
        Setting::Shares(shares) => {
            let idle = around.setting(path, Knob::Idle) == Some(Setting::Idle(true));
            rule(weight::SHARES.contains(shares), || format!("shares are 2 to 262144, not {shares}"))?;
            rule(!idle, || "cpu.idle is set: the kernel takes no weight until it is cleared".to_owned())
        }
        Setting::Idle(_) => Ok(()),
        Setting::Cpus(list) | Setting::Mems(list) => cpuset(list, setting.knob(), path, version, around),
        Setting::Partition(_) => {
            rule(version == Version::V2, || "cgroup v1 has no cpuset partitions".to_owned())?;
            let no_cpus = around.setting(path, Knob::Cpus).is_none_or(|of| of == Setting::Cpus(CpuList::default()));
            rule(!(is_partition(setting) && no_cpus), || "a partition needs cpuset.cpus of its own".to_owned())
        }
        Setting::UclampMin(value) | Setting::UclampMax(value) => {
            rule(*value <= 10_000, || format!("uclamp is 0 to 10000 hundredths of a percent, not {value}"))
        }
        Setting::RtRuntime(us) => rt_runtime(*us, path, version, around),
    }
}

/// The bandwidth of a setting.
fn bandwidth(setting: &Setting) -> Option<Bandwidth> {
    match setting {
        Setting::Quota(bandwidth) => Some(*bandwidth),
        _ => None,
    }
}

/// Whether a setting makes CPUs exclusive.
fn is_partition(setting: &Setting) -> bool {
    matches!(setting, Setting::Partition(Partition::Root | Partition::Isolated))
}

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

fn quota(wanted: Bandwidth, path: &str, version: Version, around: &impl Surroundings) -> Result<(), String> {
    let Bandwidth { quota_us, period_us } = wanted;
    rule((MIN_PERIOD_US..=MAX_PERIOD_US).contains(&period_us), || {
        format!("a period is 1 ms to 1 s, not {period_us} us")
    })?;
    let Some(us) = quota_us else { return Ok(()) };
    rule((MIN_PERIOD_US..=MAX_QUOTA_US).contains(&us), || format!("a quota is at least 1 ms, not {us} us"))?;
    if let Some(Setting::Burst(burst)) = around.setting(path, Knob::Burst) {
        rule(burst <= us, || format!("the burst of {burst} us is beyond a quota of {us} us: lower it first"))?;
    }
    if version == Version::V2 {
        return Ok(());
    }
    let limit_of = |path: &str| around.setting(path, Knob::Quota).as_ref().and_then(bandwidth);
    let above = ancestors(path).find_map(|path| limit_of(path).filter(|of| of.quota_us.is_some()).map(|of| (path, of)));
    if let Some((parent, limit)) = above {
        rule(limit.covers(wanted), || format!("on v1 a quota lies within its parent's: {parent} has {limit}"))?;
    }
    let mut todo = around.children(path, Knob::Quota);
    while let Some(child) = todo.pop() {
        match limit_of(&child) {
            Some(limit) if limit.quota_us.is_some() => {
                rule(wanted.covers(limit), || {
                    format!("on v1 a child's quota lies within its own: {child} has {limit}")
                })?;
            }
            _ => todo.extend(around.children(&child, Knob::Quota)),
        }
    }
    Ok(())
}

fn burst(us: u64, path: &str, around: &impl Surroundings) -> Result<(), String> {
    match around.setting(path, Knob::Quota).as_ref().and_then(bandwidth).and_then(|of| of.quota_us) {
        Some(quota) => rule(us <= quota, || format!("a burst of {us} us is beyond the quota of {quota} us")),
        // The kernel takes it, and then refuses every quota below it.
        None => rule(us == 0, || "a burst without a quota has no effect".to_owned()),
    }
}

fn cpuset(
    wanted: &CpuList,
    knob: Knob,
    path: &str,
    version: Version,
    around: &impl Surroundings,
) -> Result<(), String> {
    let within = |list: &CpuList, of: &CpuList| list.iter().all(|each| of.contains(each));
    let list_of = |path: &str| match around.setting(path, knob) {
        Some(Setting::Cpus(list) | Setting::Mems(list)) => Some(list),
        _ => None,
    };
    if version == Version::V2 {
        let exclusive = around.setting(path, Knob::Partition).is_some_and(|of| is_partition(&of));
        return rule(!(wanted.is_empty() && exclusive && knob == Knob::Cpus), || {
            "a partition needs cpuset.cpus of its own".to_owned()
        });
    }
    rule(!wanted.is_empty(), || format!("on v1 a cgroup needs {knob} of its own"))?;
    if let Some(parent) = ancestors(path).next()
        && let Some(of) = list_of(parent)
    {
        rule(within(wanted, &of), || format!("on v1 {knob} lie within the parent's: {parent} has {of}"))?;
    }
    for child in around.children(path, knob) {
        if let Some(of) = list_of(&child) {
            rule(within(&of, wanted), || format!("on v1 a child's {knob} lie within its own: {child} has {of}"))?;
        }
    }
    Ok(())
}

fn rt_runtime(us: i64, path: &str, version: Version, around: &impl Surroundings) -> Result<(), String> {
    rule(version == Version::V1, || "cgroup v2 has no real-time run time".to_owned())?;
    rule(us >= -1, || format!("a run time is -1 or more, not {us}"))?;
    // In millionths of a CPU; no limit counts as the whole of it.
    let share = |path: &str, runtime: i64| -> Option<u64> {
        let period = around.rt_period_us(path)?;
        Some(u64::try_from(runtime).map_or(1_000_000, |us| us.saturating_mul(1_000_000) / period.max(1)))
    };
    let share_of = |path: &str| match around.setting(path, Knob::RtRuntime) {
        Some(Setting::RtRuntime(us)) => share(path, us),
        _ => None,
    };
    let sum_below =
        |path: &str| -> u64 { around.children(path, Knob::RtRuntime).iter().filter_map(|child| share_of(child)).sum() };
    let own = share(path, us).unwrap_or(0);
    rule(own <= 1_000_000, || format!("a run time of {us} us is longer than its period"))?;
    rule(sum_below(path) <= own, || "the run times of its children are more than that".to_owned())?;
    let parent = path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    match share_of(parent) {
        Some(limit) => rule(sum_below(parent) <= limit, || format!("with its siblings that is more than {parent} has")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Node(BTreeMap<(String, Knob), Setting>);

    impl Node {
        fn with(mut self, path: &str, setting: Setting) -> Self {
            self.0.insert((path.to_owned(), setting.knob()), setting);
            self
        }
    }

    impl Surroundings for Node {
        fn setting(&self, path: &str, knob: Knob) -> Option<Setting> {
            self.0.get(&(path.to_owned(), knob)).cloned()
        }

        fn children(&self, path: &str, knob: Knob) -> Vec<String> {
            let of = |each: &str| {
                each.rsplit_once('/').map(|(parent, _)| if parent.is_empty() { "/" } else { parent }.to_owned())
            };
            self.0
                .keys()
                .filter(|(each, of_knob)| *of_knob == knob && of(each).as_deref() == Some(path) && each != "/")
                .map(|(each, _)| each.clone())
                .collect()
        }

        fn rt_period_us(&self, _: &str) -> Option<u64> {
            Some(1_000_000)
        }
    }

    fn limit(quota_us: u64) -> Setting {
        Setting::Quota(Bandwidth { quota_us: Some(quota_us), period_us: 100_000 })
    }

    fn cpus(text: &str) -> Setting {
        Setting::Cpus(text.parse().unwrap())
    }

    #[test]
    fn each_rule_of_the_kernel_is_known_with_its_edge() {
        use Version::{V1, V2};
        let period = |period_us| Setting::Quota(Bandwidth { quota_us: None, period_us });
        let family = || {
            Node::default()
                .with("/a", limit(50_000))
                .with("/a/b", Setting::Quota(Bandwidth::UNLIMITED))
                .with("/a/b/c", limit(20_000))
        };
        let sets = || Node::default().with("/a", cpus("0-3")).with("/a/b", cpus("0-1")).with("/a/b/c", cpus("1"));
        let rt = || {
            let share = Setting::RtRuntime;
            Node::default()
                .with("/", share(950_000))
                .with("/a", share(100_000))
                .with("/a/b", share(60_000))
                .with("/a/c", share(40_000))
        };
        let own = |setting: &Setting, node: Node, path: &str| node.with(path, setting.clone());
        for (setting, path, version, node, says) in [
            (limit(1_000), "/x", V2, Node::default(), None),
            (limit(999), "/x", V2, Node::default(), Some("at least 1 ms")),
            (limit(MAX_QUOTA_US), "/x", V2, Node::default(), None),
            (limit(MAX_QUOTA_US + 1), "/x", V2, Node::default(), Some("at least")),
            (period(1_000), "/x", V2, Node::default(), None),
            (period(999), "/x", V2, Node::default(), Some("1 ms to 1 s")),
            (period(1_000_001), "/x", V2, Node::default(), Some("1 ms to 1 s")),
            (limit(10_000), "/x", V2, Node::default().with("/x", Setting::Burst(10_000)), None),
            (limit(10_000), "/x", V2, Node::default().with("/x", Setting::Burst(10_001)), Some("lower it first")),
            (Setting::Burst(10_000), "/x", V2, Node::default().with("/x", limit(10_000)), None),
            (Setting::Burst(10_001), "/x", V2, Node::default().with("/x", limit(10_000)), Some("beyond the quota")),
            (Setting::Burst(1), "/x", V2, Node::default().with("/x", period(100_000)), Some("no effect")),
            (Setting::Burst(0), "/x", V2, Node::default().with("/x", period(100_000)), None),
            (limit(50_000), "/a/b", V1, family(), None),
            (limit(50_001), "/a/b", V1, family(), Some("/a has 50000 100000")),
            (limit(50_001), "/a/b", V2, family(), None),
            (limit(20_000), "/a", V1, family(), None),
            (limit(19_999), "/a", V1, family(), Some("/a/b/c has 20000 100000")),
            (limit(19_999), "/a", V2, family(), None),
            (period(100_000), "/a/b/c", V1, family(), None),
            (Setting::Shares(2), "/x", V1, Node::default(), None),
            (Setting::Shares(1), "/x", V1, Node::default(), Some("2 to 262144")),
            (Setting::Shares(262_145), "/x", V1, Node::default(), Some("2 to 262144")),
            (Setting::Shares(5), "/x", V1, Node::default().with("/x", Setting::Idle(true)), Some("idle")),
            (cpus("0-1"), "/a/b", V1, sets(), None),
            (cpus("0-4"), "/a/b", V1, sets(), Some("/a has 0-3")),
            (cpus("0"), "/a/b", V1, sets(), Some("/a/b/c has 1")),
            (cpus(""), "/a/b/c", V1, sets(), Some("of its own")),
            (cpus(""), "/a/b/c", V2, sets(), None),
            (cpus("7"), "/a/b/c", V2, sets(), None),
            (
                cpus(""),
                "/p",
                V2,
                Node::default().with("/p", Setting::Partition(crate::snapshot::Partition::Root)),
                Some("of its own"),
            ),
            (Setting::Partition(crate::snapshot::Partition::Root), "/a", V2, sets(), None),
            (Setting::Partition(crate::snapshot::Partition::Root), "/x", V2, sets(), Some("of its own")),
            (Setting::Partition(crate::snapshot::Partition::Member), "/x", V2, sets(), None),
            (Setting::Partition(crate::snapshot::Partition::Root), "/a", V1, sets(), Some("v1 has no")),
            (Setting::UclampMax(10_000), "/x", V2, Node::default(), None),
            (Setting::UclampMax(10_001), "/x", V2, Node::default(), Some("hundredths")),
            (Setting::RtRuntime(60_000), "/a/b", V1, rt(), None),
            (Setting::RtRuntime(60_001), "/a/b", V1, rt(), Some("siblings")),
            (Setting::RtRuntime(-1), "/a/b", V1, rt(), Some("siblings")),
            (Setting::RtRuntime(100_000), "/a", V1, rt(), None),
            (Setting::RtRuntime(99_999), "/a", V1, rt(), Some("children")),
            (Setting::RtRuntime(1_000_001), "/a", V1, rt(), Some("longer than its period")),
            (Setting::RtRuntime(0), "/a/b", V2, rt(), Some("v2 has no")),
        ] {
            let around = own(&setting, node, path);
            match (check(&setting, path, version, &around), says) {
                (Ok(()), None) => {}
                (Err(rule), Some(says)) => assert!(rule.contains(says), "{setting:?} of {path}: {rule}"),
                (found, _) => panic!("{setting:?} of {path} on {version:?}: {found:?}, expected {says:?}"),
            }
        }
    }
}
