//! v1's share of real-time run time, us per period; -1 for no limit. Rules of kernel/sched/rt.c (tg_rt_schedulable).

use super::{
    around::{Surroundings, rule},
    file::File,
    row::{FileRow, Order, Row, V1},
    setting::{Knob, Setting},
    value::US_OR_NO_LIMIT,
    version::Version,
};
use crate::snapshot::CgroupPath;

impl File {
    /// v1, with CONFIG_RT_GROUP_SCHED.
    pub const RT_RUNTIME: Self = Self::new(Knob::RtRuntime, 0);
}

pub(super) const RT_RUNTIME: Row = Row {
    name: "rt_runtime",
    help: "time per period for FIFO and RR threads of a cgroup, us",
    format: US_OR_NO_LIMIT,
    files: &[FileRow { name: "cpu.rt_runtime_us", versions: V1, format: US_OR_NO_LIMIT }],
    order: Order::Sum,
    check: |setting, path, version, around| match setting {
        Setting::RtRuntime(us) => check(*us, path, version, around),
        _ => Ok(()),
    },
    reading: |knobs| knobs.rt_runtime_us.map(Setting::RtRuntime),
    ..Row::PLAIN
};

fn check(us: i64, path: &str, version: Version, around: &dyn Surroundings) -> Result<(), String> {
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
    let parent = CgroupPath::of(path).parent().unwrap_or("/");
    match share_of(parent) {
        Some(limit) => rule(sum_below(parent) <= limit, || format!("with its siblings that is more than {parent} has")),
        None => Ok(()),
    }
}
