//! `guard doctor`: what on this node endangers real-time work, and the exact change that mends it.
//!
//! [`collect()`] reads the node into [`Facts`], and each check of `CHECKS` is a pure function over them. So a node that
//! was recorded (`guard doctor --facts`) is judged like the one guard runs on, and every rule here is tested on
//! recorded nodes. Doctor changes nothing; what it proposes are commands for a person to review.

mod cgroups;
mod collect;
mod cpus;
mod facts;
mod finding;
mod interrupts;
mod kernel;
mod kthreads;
mod kubelet;
mod memory;
mod runtime_options;
mod runtimes;
mod spelling;
mod tasks;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use collect::collect;
pub use facts::{FACTS_SCHEMA, Facts, Text};
pub use finding::{Check, Evidence, Finding, Remedy, RemedyStep, Severity};

use finding::Found;

use crate::snapshot::{CgroupLayout, CpuList};

/// Version of the JSON form. Fields are added without changing it; a rename or a changed meaning raises it.
pub const SCHEMA: u32 = 1;

/// All checks, in the order of the documentation.
#[must_use]
pub fn checks() -> Vec<&'static Check> {
    let rooms = [
        kernel::CHECKS,
        tasks::CHECKS,
        kthreads::CHECKS,
        cgroups::CHECKS,
        cpus::CHECKS,
        interrupts::CHECKS,
        memory::CHECKS,
        runtimes::CHECKS,
        kubelet::CHECKS,
    ];
    rooms.into_iter().flatten().collect()
}

/// What doctor says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Report")]
pub struct DoctorReport {
    /// Version of this form.
    pub schema: u32,
    /// The machine.
    pub node: ReportNode,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
}

/// The machine a [`DoctorReport`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The machine a [`Report`] is about.")]
pub struct ReportNode {
    /// Host name.
    pub hostname: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Whether the kernel is PREEMPT_RT.
    pub realtime: bool,
    /// How the cpu controller is mounted.
    pub cgroup: CgroupLayout,
    /// CPUs online.
    pub cpus: CpuList,
    /// CPUs of real-time work: set apart at boot or by a cpuset partition, else those that real-time threads are pinned to.
    pub rt_cpus: CpuList,
    /// Processes with real-time threads that are no services of the system.
    pub realtime_processes: usize,
}

impl DoctorReport {
    /// Whether something must be acted on.
    #[must_use]
    pub fn must_act(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity.must_act())
    }
}

/// Runs every check.
#[must_use]
pub fn examine(facts: &Facts) -> DoctorReport {
    let text = |path: &str| facts.text(path).unwrap_or("?").to_owned();
    let mut findings: Vec<Finding> = checks()
        .into_iter()
        .flat_map(|check| {
            let mut found = (check.rule)(facts);
            if found.is_empty() {
                found.push(Found::ok("nothing wrong"));
            }
            found.into_iter().map(|found| found.named(check))
        })
        .collect();
    // Stable: within a severity in the order of the checks.
    findings.sort_by_key(|finding| finding.severity);
    DoctorReport {
        schema: SCHEMA,
        node: ReportNode {
            hostname: text("/proc/sys/kernel/hostname"),
            kernel: text("/proc/sys/kernel/osrelease"),
            realtime: facts.is_realtime(),
            cgroup: facts.hierarchy.layout,
            cpus: facts.online(),
            rt_cpus: facts.rt_cpus(),
            realtime_processes: facts.workload().count(),
        },
        findings,
    }
}

/// The JSON schema of a [`DoctorReport`].
#[must_use]
pub fn json_schema() -> schemars::Schema {
    schemars::schema_for!(DoctorReport)
}

#[cfg(test)]
mod tests;
