//! guard's executor at work: changes knobs of given cgroups at random, as fast as it can, until it is killed.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use guard::{
    cgroup::{Change, Executor, ExecutorOptions, Hierarchy, Pace, Version, What},
    snapshot::{Bandwidth, Knob, Setting},
};

use super::{Start, tid};
use crate::random::Random;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A cgroup to change; may be repeated
    #[arg(long)]
    cgroup: Vec<String>,
    /// Where the undo journal is kept
    #[arg(long)]
    state_dir: PathBuf,
    /// Where chance begins
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    start: Start,
}

/// More than is ever reached.
const UNLIMITED: Pace = Pace { burst: u32::MAX, every: Duration::from_millis(1) };
/// Once given up, a knob stays given up: then it is provable whose value has to be there.
const NEVER: Pace = Pace { burst: 0, every: Duration::from_secs(1) };

pub(super) fn run(args: &Args) -> Result<()> {
    args.start.ready(&[tid()])?;
    let hierarchy = Hierarchy::detect("/".as_ref())?;
    let version = hierarchy.version();
    let options =
        ExecutorOptions { pace: UNLIMITED, reassert: NEVER, retake_after: None, ..ExecutorOptions::default() };
    let mut cgroups = Vec::new();
    for path in &args.cgroup {
        cgroups.push((path.clone(), hierarchy.id(path)?));
    }
    let mut executor = Executor::open(hierarchy, &args.state_dir, options)?;
    let mut random = Random::new(args.seed);
    if random.below(2) == 0 {
        let places: Vec<_> = cgroups.iter().map(|(path, id)| (path.clone(), *id, Knob::Quota)).collect();
        executor.prepare(&places).context("journal")?;
    }
    loop {
        let batch: Vec<Change> = (0..=random.below(4))
            .map(|_| {
                let (path, id) = &cgroups[random.index(cgroups.len())];
                Change { path: path.clone(), id: *id, what: what(&mut random, version) }
            })
            .collect();
        executor.apply(&batch);
        if random.below(8) == 0 {
            executor.check_drift();
        }
    }
}

/// Values that nobody else writes: multiples of 1000, where there is a choice.
fn what(random: &mut Random, version: Version) -> What {
    let thousands = |random: &mut Random, most: u64| 1_000 * (1 + random.below(most));
    match random.below(10) {
        0 => What::Lift(Setting::Quota(Bandwidth::UNLIMITED)),
        1..=3 => What::Set(Setting::Quota(Bandwidth {
            quota_us: Some(thousands(random, 100)),
            period_us: if random.below(3) == 0 { 50_000 } else { 100_000 },
        })),
        4 => What::Set(Setting::Burst(thousands(random, 5))),
        5 => What::Set(Setting::Shares(1_000 + thousands(random, 3))),
        6 if random.below(4) == 0 => What::Set(Setting::Idle(true)),
        6 if version == Version::V2 => What::Set(Setting::Cpus([0].into_iter().collect())),
        _ => What::Release([Knob::Quota, Knob::Burst, Knob::Shares, Knob::Idle, Knob::Cpus][random.index(5)]),
    }
}
