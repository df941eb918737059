//! How things are around a cgroup, for the rules of the kernel that concern more than one.

use super::setting::{Knob, Setting};

/// How things will be around a cgroup when the whole batch is done.
pub(crate) trait Surroundings {
    /// A knob of a cgroup; `None` where it has no such file.
    fn setting(&self, path: &str, knob: Knob) -> Option<Setting>;
    /// Paths of its children, in the hierarchy of the knob.
    fn children(&self, path: &str, knob: Knob) -> Vec<String>;
    /// v1: cpu.rt_period_us.
    fn rt_period_us(&self, path: &str) -> Option<u64>;
}

/// A rule of the kernel.
pub(super) fn rule(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
