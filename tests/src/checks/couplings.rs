//! What `guard explain` calls coupled went up and down together because one made the other, and what had nothing to do with
//! it is not called so.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::explain::{CoupledPair, Coupling, Explanation};

use crate::{
    harness::{Cgroup, GuardRun, Tool, Version, Workload, load_cpu, patience, scratch_dir, until},
    scenario::Verdict,
};

/// Windows of guard's, in each of which what is done is the same from begin to end. Of so many, two series that have nothing
/// to do with each other reach 0.75 once in a hundred thousand times.
const WINDOWS: usize = 24;
/// Period of all quotas, us.
const PERIOD_US: u64 = 100_000;
/// Quota of the cgroup that is throttled, by level, us: the last one is never used up.
const QUOTAS_US: [u64; 4] = [20_000, 40_000, 60_000, 100_000];
/// For how long best-effort threads keep the PLC from its CPU, by level, us. One of them runs at a time, or none.
const BURSTS_US: [u64; 3] = [25_000, 50_000, 75_000];
const BURST_EVERY_US: u64 = 250_000;

/// For how long of a window best-effort threads run: what they did in one should hurt nobody in the next.
const WORKS: Duration = Duration::from_millis(600);

/// Everything but guard and the PLC on CPU 0 has the load CPU, which is busy all the time: an emulated CPU that idles makes the
/// others faster, which would be a coupling of its own.
struct Scene {
    /// Its PLC has the CPU of the best-effort threads.
    hurt: Cgroup,
    /// Its PLC has CPU 0.
    spared: Cgroup,
    /// Its quota changes from window to window.
    throttled: Cgroup,
    /// It waits for the CPU as much, and its quota is never used up.
    waiting: Cgroup,
    best_effort: Vec<Cgroup>,
}

/// A process in a cgroup; it ends before the cgroup does.
fn within(cgroup: &Cgroup, arguments: &[&str], cpu: u32) -> Result<Workload> {
    let cpu = cpu.to_string();
    let mut workload = Workload::hold(&[arguments, &["--cpu", &cpu]].concat())?;
    cgroup.add(workload.pid())?;
    workload.go()?;
    Ok(workload)
}

impl Scene {
    fn set() -> Result<Self> {
        let best_effort =
            (0..BURSTS_US.len()).map(|level| Cgroup::create(&format!("be{level}"))).collect::<Result<_>>()?;
        let [hurt, spared] = [Cgroup::create("hurt")?, Cgroup::create("spared")?];
        let [throttled, waiting] = [Cgroup::create("throttled")?, Cgroup::create("waiting")?];
        // What it does not run, its quota keeps it from.
        throttled.outweigh()?;
        waiting.set_quota(2 * PERIOD_US, PERIOD_US)?;
        Ok(Self { hurt, spared, throttled, waiting, best_effort })
    }

    fn workloads(&self) -> Result<Vec<Workload>> {
        let plc =
            ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", "20000", "--cycles", "1000000"];
        let busy = ["spin", "--seconds", "3600"];
        let mut workloads = vec![
            within(&self.hurt, &plc, load_cpu())?,
            within(&self.spared, &plc, 0)?,
            within(&self.throttled, &busy, load_cpu())?,
            within(&self.waiting, &busy, load_cpu())?,
        ];
        let every = BURST_EVERY_US.to_string();
        for (cgroup, burst_us) in self.best_effort.iter().zip(BURSTS_US) {
            let burst = burst_us.to_string();
            let bursts = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:90", "--cycles", "1000000"];
            let bursts = [&bursts[..], &["--interval-us", &every, "--work-us", &burst]].concat();
            workloads.push(within(cgroup, &bursts, load_cpu())?);
        }
        Ok(workloads)
    }

    /// No best-effort work.
    fn rest(&self) -> Result<()> {
        self.best_effort.iter().try_for_each(|cgroup| cgroup.set("cgroup.freeze", "1"))
    }

    /// Does what is to be done in this window. Neither series is the other's.
    fn enter(&self, window: usize) -> Result<()> {
        let levels = QUOTAS_US.len();
        self.throttled.set_quota(QUOTAS_US[(window + window / levels) % levels], PERIOD_US)?;
        for (level, cgroup) in self.best_effort.iter().enumerate() {
            cgroup.set("cgroup.freeze", if level == window % levels { "0" } else { "1" })?;
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        let best_effort = self.best_effort.iter().map(|cgroup| {
            format!("[[workload]]\nmatch.cgroup = \"{}\"\nclass = \"BE\"\nmanaged = false\n", cgroup.path())
        });
        best_effort.collect::<String>() + "[[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n"
    }
}

pub(super) fn what_goes_together() -> Result<Verdict> {
    let scene = Scene::set()?;
    if scene.throttled.version() == Version::V1 || !scene.throttled.dir().join("cpu.pressure").exists() {
        return Ok(Verdict::Skipped(
            "this kernel has no cpu.pressure, or no cgroup v2 with the cpu controller".to_owned(),
        ));
    }
    let scratch = scratch_dir()?;
    let [configuration, snapshots] = ["guard.toml", "snapshots.jsonl"].map(|name| scratch.path().join(name));
    fs::write(&configuration, scene.configuration()).context("write of guard.toml")?;
    let _workloads = scene.workloads()?;
    scene.enter(0)?;
    let mut command = GuardRun::default().with(&["run", "--interval", "1s"]).command()?;
    let mut guard = Tool::start(command.arg("--config").arg(&configuration).arg("--output").arg(&snapshots))?;
    let mut over = |windows: usize| {
        until("guard's next window", Duration::from_secs(60) * patience(), || {
            if let Some(status) = guard.ended()? {
                bail!("guard ended with {status}: {}", guard.stderr()?.trim_end());
            }
            let lines = fs::read(&snapshots).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
            Ok((lines >= windows).then_some(()))
        })
    };
    for window in 0..WINDOWS {
        over(window)?;
        scene.enter(window)?;
        sleep(WORKS);
        scene.rest()?;
    }
    over(WINDOWS)?;
    drop(guard);
    let replay =
        GuardRun::default().with(&["explain", "--format", "json", "--replay", &snapshots.display().to_string()]);
    let replay = replay.finish(Duration::from_secs(60) * patience())?;
    replay.expect_code(0)?;
    let explanation: Explanation = serde_json::from_str(&replay.stdout).context("guard explain's JSON")?;
    let find = |cgroup: &Cgroup, what: CoupledPair| -> Result<&Coupling> {
        let found = explanation.couplings.iter().find(|one| one.cgroup == cgroup.path() && one.what == what);
        let found =
            found.with_context(|| format!("{what} of {}: not in {:?}", cgroup.path(), explanation.couplings))?;
        ensure!(found.samples + 1 >= WINDOWS, "{found:?}");
        Ok(found)
    };
    let (throttled, hurt) = (
        find(&scene.throttled, CoupledPair::ThrottledAndPressure)?,
        find(&scene.hurt, CoupledPair::BestEffortAndLatency)?,
    );
    let (waiting, spared) = (
        find(&scene.waiting, CoupledPair::ThrottledAndPressure)?,
        find(&scene.spared, CoupledPair::BestEffortAndLatency)?,
    );
    for (coupling, coupled) in [(throttled, true), (hurt, true), (waiting, false), (spared, false)] {
        ensure!(coupling.coupled == coupled, "{coupling:?}; all: {:?}", explanation.couplings);
    }
    let told = [throttled, hurt, waiting, spared].map(|one| {
        let figure = |r: Option<f64>| r.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
        format!("{} {}/{} of {}", one.cgroup, figure(one.pearson), figure(one.spearman), one.samples)
    });
    Ok(Verdict::Passed(told.join(", ")))
}
