//! CPU time that the kernel takes from SCHED_FIFO threads that never sleep: RT throttling, later the fair server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    compare::{Row, Tolerance},
    harness::{Find as _, GuardRun, Workload, emulated, load_cpu, patience},
    scenario::Verdict,
};

pub(super) fn fifo_hog() -> Result<Verdict> {
    let cpu = load_cpu();
    let mut workload = Workload::hold(&["fifo-hog", "--seconds", "6", "--cpu", &cpu.to_string(), "--gap-us", "20000"])?;
    let guard = GuardRun::report().measure()?;
    workload.go()?;
    let own = workload.outcome(Duration::from_secs(30) * patience())?;
    let snapshot = guard.stop()?;
    if let Some(reason) = snapshot.unavailable("rt_throttle")? {
        return Ok(Verdict::Skipped(reason));
    }
    ensure!(own.cycles >= 2, "the kernel took the CPU only {} times", own.cycles);
    let cpu = snapshot.cpu(cpu)?;
    let (throttled, served) = (cpu.rt_throttle, cpu.fair_server);
    // 6.12 dropped RT throttling for the fair server; kernels with CONFIG_RT_GROUP_SCHED have both.
    let by_kernel = if version(&snapshot.node.kernel)? < (6, 12) {
        throttled.count > 0 && served.count == 0
    } else if snapshot.node.realtime {
        served.count > 0 && throttled.count == 0
    } else {
        served.count + throttled.count > 0
    };
    ensure!(by_kernel, "rt_throttle {throttled:?}, fair_server {served:?} on {}", snapshot.node.kernel);
    let (count, total_ns) = (throttled.count + served.count, throttled.total_ns + served.total_ns);
    let row = Row::new("CPU time taken", own.counter("taken_ns")?, total_ns, Tolerance { absolute: 0, fraction: 0.2 });
    // A busy host stops an emulated CPU as a whole now and then, which only the loop takes for a gap. What the kernel
    // takes is 50 ms of each second, on every kernel.
    let as_configured = (20_000_000..100_000_000).contains(&(total_ns / count.max(1))) && total_ns <= row.peer * 6 / 5;
    ensure!(
        row.agrees || (emulated() && as_configured),
        "{row}; rt_throttle {throttled:?}, fair_server {served:?}, own {} gaps",
        own.cycles
    );
    Ok(Verdict::Passed(format!("{row}; rt_throttle {}, fair_server {}", throttled.count, served.count)))
}

/// Major and minor version of a kernel release.
fn version(release: &str) -> Result<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(anyhow::anyhow!("not a kernel release")).with_context(|| release.to_owned());
    };
    Ok((major, minor))
}
