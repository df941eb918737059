//! Cgroup hierarchies: where the cpu controller is mounted (v1, v2 or hybrid), which cgroups there are, what their files
//! say. Reads only; it knows no container, no class and no policy: a cgroup is a path and an id here.

mod delegation;
mod error;
mod files;
mod hierarchy;
mod knobs;
mod mountinfo;
mod read;
mod tree;

pub use error::{CgroupError, FileError};
pub(crate) use files::parse_pressure;
pub use files::{CpuStatTotals, PressureTotals, Weight};
pub use hierarchy::Hierarchy;
pub use read::{Cpuset, PressureReading};
pub use tree::{CgroupDir, Tree};

pub use crate::knob::{ParseError, Version};
