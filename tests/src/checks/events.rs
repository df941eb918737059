//! What the kernel side tells at once: throttles of protected cgroups.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard::{
    cgroup::Hierarchy,
    kernel::{Event, Kernel, LoadOptions},
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    harness::{Cgroup, Workload, load_cpu, patience},
    scenario::Verdict,
};

const SPIN_SECONDS: &str = "3";

/// Two cgroups with the same quota and load, of which one is protected.
pub(super) fn throttles_are_told() -> Result<Verdict> {
    let hierarchy = Hierarchy::detect(Path::new("/"))?;
    let mut kernel =
        Kernel::load(&LoadOptions { flight: false, stacks: false, ..super::lacking::with_everything(&hierarchy)? })?;
    let mut workloads = Vec::new();
    let mut cgroups = Vec::new();
    for name in ["told", "untold"] {
        let cgroup = Cgroup::create(name)?;
        // Whatever else is on their CPU, they get more of it than their quotas.
        cgroup.outweigh()?;
        cgroup.set_quota(20_000, 100_000)?;
        let mut workload = Workload::hold(&["spin", "--seconds", SPIN_SECONDS, "--cpu", &load_cpu().to_string()])?;
        cgroup.add(workload.pid())?;
        workload.go()?;
        workloads.push(workload);
        cgroups.push(cgroup);
    }
    let told = hierarchy.id(cgroups[0].path())?;
    kernel.report_throttles_of(&HashSet::from([told]))?;
    // Nothing but the file descriptor says when to look.
    let give_up = Instant::now() + Duration::from_secs(60) * patience();
    let mut count = 0;
    while count < 5 && Instant::now() < give_up {
        let wait = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        poll(&mut [PollFd::new(&kernel, PollFlags::IN)], Some(&wait))?;
        for event in kernel.events() {
            let Event::Throttled(throttled) = event else { continue };
            ensure!(throttled.cgroup_id == told, "told of cgroup {} instead of {told}", throttled.cgroup_id);
            count += 1;
        }
    }
    let throttled = cgroups[1].cpu_stat()?.nr_throttled;
    ensure!(throttled > 0, "the cgroup that is not protected was not throttled at all");
    ensure!(count >= 5, "told {count} times; cpu.stat says {:?}", cgroups[0].cpu_stat()?);
    kernel.report_throttles_of(&HashSet::new())?;
    kernel.events();
    for workload in workloads {
        workload.outcome(Duration::from_secs(60) * patience())?;
    }
    ensure!(kernel.events().is_empty(), "told of a cgroup that is protected no more");
    Ok(Verdict::Passed(format!("told {count} times, of {told} only")))
}
