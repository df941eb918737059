//! Why the kernel refuses a measuring thread its real-time policy. EPERM has several reasons (kernel/sched/syscalls.c) and
//! says none: the thread lacks a privilege; or the kernel rations real-time time per cgroup (CONFIG_RT_GROUP_SCHED), from
//! which nobody is exempt, and its cgroup has none.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cgroup::{Hierarchy, Version};

/// Name of the file with a cgroup's real-time time per period.
const RT_RUNTIME: &str = "cpu.rt_runtime_us";

/// Length of a period, us, where the kernel does not say: its default.
const PERIOD_US: u64 = 1_000_000;

/// A whole CPU in the shares that are computed here.
const WHOLE: u64 = 1_000_000;

/// What a thread has that asks for a real-time policy.
#[derive(Debug, Default)]
pub(super) struct Standing {
    has_sys_nice: bool,
    /// Whether its capabilities are those of a user namespace below the first, which the scheduler does not ask.
    in_user_namespace: bool,
    rtprio_limit: u64,
    cgroup: Ration,
}

/// What its cgroup leaves it.
#[derive(Debug, Default, PartialEq, Eq)]
enum Ration {
    /// Enough, as far as can be seen.
    #[default]
    Enough,
    /// cgroup v2 below the root: none, if the kernel rations at all, which it does not say there.
    PerhapsNone { path: String },
    /// cgroup v1: none. With what to write into which files, from the top down; nothing where the cgroup `above` has no
    /// time left to give.
    None { path: String, above: String, writes: Vec<(PathBuf, u64)> },
}

impl Standing {
    /// What the calling thread has.
    pub(super) fn of_this_thread() -> Self {
        let cgroup = fs::read_to_string("/proc/thread-self/cgroup").unwrap_or_default();
        let ration = Hierarchy::detect(Path::new("/")).ok().and_then(|hierarchy| {
            let path = hierarchy.path_in(&cgroup)?;
            Some(Ration::of(&hierarchy, &path))
        });
        let uids = fs::read_to_string("/proc/thread-self/uid_map").unwrap_or_default();
        Self {
            has_sys_nice: capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_NICE)),
            in_user_namespace: !uids.is_empty() && uids.split_whitespace().ne(["0", "0", "4294967295"]),
            rtprio_limit: getrlimit(Resource::Rtprio).current.unwrap_or(u64::MAX),
            cgroup: ration.unwrap_or_default(),
        }
    }

    /// Why it was refused this priority, and what to do.
    pub(super) fn hint(&self, priority: u64) -> String {
        let mut reasons = Vec::new();
        if self.rtprio_limit < priority && (!self.has_sys_nice || self.in_user_namespace) {
            let limit = self.rtprio_limit;
            reasons.push(if self.has_sys_nice {
                format!(
                    "root and CAP_SYS_NICE of a user namespace do not count; there a priority of {priority} needs RLIMIT_RTPRIO \
                     as high, and it is {limit}"
                )
            } else {
                format!(
                    "real-time policies need root, CAP_SYS_NICE or RLIMIT_RTPRIO as high as the priority {priority}; here it is \
                     {limit}, and CAP_SYS_NICE is missing"
                )
            });
        }
        match &self.cgroup {
            Ration::Enough => {}
            Ration::PerhapsNone { .. } if !reasons.is_empty() => {}
            Ration::PerhapsNone { path } => reasons.push(format!(
                "privileges are there, so the kernel probably rations real-time time per cgroup (CONFIG_RT_GROUP_SCHED), and \
                 with cgroup v2 none can be given to {path}: boot with rt_group_sched=0, or a kernel without it; guard doctor \
                 (kernel.rt_groups) knows which"
            )),
            Ration::None { path, above, writes } => {
                let todo = if writes.is_empty() {
                    format!("{above} has none left to give: lower {RT_RUNTIME} of another cgroup below it first")
                } else {
                    let writes = writes.iter().map(|(file, us)| format!("echo {us} > {}", file.display()));
                    format!("write, from the top down: {}", writes.collect::<Vec<_>>().join("; "))
                };
                reasons.push(format!(
                    "the cgroup {path} has no real-time time ({RT_RUNTIME} is 0), without which not even root is real-time there; \
                     {todo}"
                ));
            }
        }
        if reasons.is_empty() {
            return "privileges and cgroup allow it, so a security module or a seccomp filter refuses it: that of a container's \
                    runtime lets it through with --cap-add=SYS_NICE"
                .to_owned();
        }
        reasons.join("; and ")
    }
}

impl Ration {
    fn of(hierarchy: &Hierarchy, path: &str) -> Self {
        let path = path.to_owned();
        match hierarchy.version() {
            Version::V2 if path == "/" => Self::Enough,
            Version::V2 => Self::PerhapsNone { path },
            Version::V1 => Self::on_v1(hierarchy, &path).unwrap_or(Self::Enough),
        }
    }

    /// What is missing; `None` when nothing is, or it cannot be seen.
    fn on_v1(hierarchy: &Hierarchy, path: &str) -> Option<Self> {
        let runtime = |path: &str| hierarchy.rt_runtime_us(path).ok().flatten();
        if runtime(path) != Some(0) {
            return None;
        }
        let mut above = path;
        let mut without = Vec::new();
        while runtime(above) == Some(0) && above != "/" {
            without.push(above);
            above = parent(above);
        }
        // Half of what is left, so that another cgroup can have some, too.
        let share = left(hierarchy, above) / 2;
        let write = |path: &&str| {
            let us = share.saturating_mul(hierarchy.rt_period_us(path).unwrap_or(PERIOD_US)) / WHOLE;
            Some((hierarchy.dir(path).ok()?.join(RT_RUNTIME), us)).filter(|(_, us)| *us > 0)
        };
        Some(Self::None {
            path: path.to_owned(),
            above: above.to_owned(),
            writes: without.iter().rev().map(write).collect::<Option<_>>().unwrap_or_default(),
        })
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent })
}

/// What a cgroup has and has not given to those below it: together they may have as much as it has.
fn left(hierarchy: &Hierarchy, path: &str) -> u64 {
    let share = |path: &str| -> u64 {
        let period = hierarchy.rt_period_us(path).unwrap_or(PERIOD_US).max(1);
        // -1 is no limit.
        let of_period = |us: i64| u64::try_from(us).map_or(WHOLE, |us| us.saturating_mul(WHOLE) / period);
        hierarchy.rt_runtime_us(path).ok().flatten().map_or(0, of_period)
    };
    let children = hierarchy.dir(path).map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let given = children.into_iter().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let given =
        given.map(|entry| share(&format!("{}/{}", path.trim_end_matches('/'), entry.file_name().to_string_lossy())));
    share(path).saturating_sub(given.fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A v1 hierarchy of cgroups with these real-time times per second.
    fn hierarchy(cgroups: &[(&str, i64)]) -> (tempfile::TempDir, Hierarchy) {
        let top = tempfile::tempdir().unwrap();
        for (path, us) in cgroups {
            let dir = top.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(RT_RUNTIME), format!("{us}\n")).unwrap();
            fs::write(dir.join("cpu.rt_period_us"), "1000000\n").unwrap();
        }
        let hierarchy = Hierarchy::for_test(top.path(), Version::V1);
        (top, hierarchy)
    }

    fn hint(ration: Ration) -> String {
        Standing { has_sys_nice: true, in_user_namespace: false, rtprio_limit: 0, cgroup: ration }.hint(80)
    }

    #[test]
    fn a_cgroup_without_real_time_time_is_named_with_the_writes_from_the_top_down() {
        let cgroups = [("/", 950_000), ("/cells", 0), ("/cells/press", 0), ("/cells/oven", 0), ("/other", 150_000)];
        let (top, hierarchy) = hierarchy(&cgroups);
        let hint = hint(Ration::of(&hierarchy, "/cells/press"));
        let top = top.path().display();
        assert!(hint.starts_with("the cgroup /cells/press has no real-time time (cpu.rt_runtime_us is 0)"), "{hint}");
        assert!(
            hint.ends_with(&format!(
                "from the top down: echo 400000 > {top}/cells/cpu.rt_runtime_us; echo 400000 > \
                 {top}/cells/press/cpu.rt_runtime_us"
            )),
            "{hint}"
        );
    }

    #[test]
    fn what_is_written_is_what_the_nearest_cgroup_above_has_left() {
        let (top, hierarchy) = hierarchy(&[("/", 950_000), ("/a", 300_000), ("/a/b", 200_000), ("/a/c", 0)]);
        fs::write(top.path().join("a/c/cpu.rt_period_us"), "500000\n").unwrap();
        let Ration::None { writes, .. } = Ration::of(&hierarchy, "/a/c") else { panic!("it has none") };
        assert_eq!(writes, [(top.path().join("a/c").join(RT_RUNTIME), 25_000)], "half of 10 % of 500 ms");
        fs::write(top.path().join("a/b").join(RT_RUNTIME), "300000\n").unwrap();
        let hint = hint(Ration::of(&hierarchy, "/a/c"));
        assert!(hint.contains("/a has none left to give: lower cpu.rt_runtime_us of another cgroup"), "{hint}");
    }

    #[test]
    fn a_cgroup_that_has_time_is_not_blamed() {
        let (_top, hierarchy) = hierarchy(&[("/", 950_000), ("/a", 100_000)]);
        assert_eq!(Ration::of(&hierarchy, "/a"), Ration::Enough);
        assert_eq!(Ration::of(&hierarchy, "/"), Ration::Enough);
        assert_eq!(Ration::of(&hierarchy, "/none"), Ration::Enough);
        let hint = hint(Ration::Enough);
        assert!(hint.contains("seccomp") && !hint.contains("need root"), "{hint}");
    }

    #[test]
    fn a_privilege_that_is_missing_is_named_before_the_cgroup() {
        let with = |has_sys_nice, in_user_namespace, rtprio_limit, cgroup| {
            Standing { has_sys_nice, in_user_namespace, rtprio_limit, cgroup }.hint(80)
        };
        let none = || Ration::None { path: "/x".into(), above: "/".into(), writes: vec![("/f".into(), 7)] };
        let perhaps = || Ration::PerhapsNone { path: "/x".into() };
        assert!(with(false, false, 50, Ration::Enough).contains("as high as the priority 80; here it is 50"));
        assert!(with(false, false, 0, none()).contains("CAP_SYS_NICE is missing; and the cgroup /x has no"));
        assert!(with(true, true, 0, perhaps()).starts_with("root and CAP_SYS_NICE of a user namespace do not count"));
        assert!(!with(false, false, 0, perhaps()).contains("RT_GROUP_SCHED"));
        for (has_sys_nice, limit) in [(true, 0), (false, 80)] {
            let hint = with(has_sys_nice, false, limit, perhaps());
            assert!(hint.starts_with("privileges are there") && hint.contains("rt_group_sched=0"), "{hint}");
        }
    }
}
