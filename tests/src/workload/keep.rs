//! guard's executor and its agent for systemd, keeping a quota as a lane does: sets it, looks for drift, sets it anew in a
//! cgroup that was made anew, and puts everything back at its end. No policy and nothing of the kernel's, so it begins at once.

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard::{
    cgroup::Hierarchy,
    executor::{Change, Executor, ExecutorOptions, Pace, Units, UnitsOptions, What},
    knob::{Knob, Setting},
    snapshot::Bandwidth,
};

use super::{Outcome, Start, tid};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A cgroup whose quota is kept; may be repeated
    #[arg(long)]
    cgroup: Vec<String>,
    /// Hold it at this many us per 100 ms and give way to others; without it, lift it and assert that
    #[arg(long)]
    quota_us: Option<u64>,
    /// Where the journals are kept, in `lane` and `units`
    #[arg(long)]
    state_dir: PathBuf,
    /// End when this file exists
    #[arg(long)]
    until: PathBuf,
    #[command(flatten)]
    start: Start,
}

/// Time between two looks; a lane looks once in an interval.
const LOOK: Duration = Duration::from_millis(20);
/// As `guard run` gives systemd.
const PATIENCE_AT_END: Duration = Duration::from_secs(15);

/// Counts changes, and how long the longest took.
struct Keeper {
    executor: Executor,
    setting: Setting,
    lift: bool,
    writes: u64,
    longest: Duration,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let hierarchy = Hierarchy::detect("/".as_ref())?;
    let units = Units::start(hierarchy.clone(), &args.state_dir.join("units"), UnitsOptions::default())?;
    // Whoever fights is to be answered each time.
    let reassert = Pace { burst: u32::MAX, every: Duration::from_secs(1) };
    let options = ExecutorOptions { units: units.clone(), reassert, ..ExecutorOptions::default() };
    let executor = Executor::open(hierarchy, &args.state_dir.join("lane"), options)?;
    let setting = args.quota_us.map_or(Setting::Quota(Bandwidth::UNLIMITED), |us| {
        Setting::Quota(Bandwidth { quota_us: Some(us), period_us: 100_000 })
    });
    let lift = args.quota_us.is_none();
    let mut keeper = Keeper { executor, setting, lift, writes: 0, longest: Duration::ZERO };
    args.start.ready(&[tid()])?;
    while !args.until.exists() {
        keeper.keep(&args.cgroup);
        sleep(LOOK);
    }
    let left = keeper.executor.restore_all().iter().filter(|outcome| outcome.result.is_left()).count();
    let restored = units.end(PATIENCE_AT_END).context("the agent for systemd did not come to its end")?;
    let owed: Vec<String> = restored.iter().filter(|each| each.result.is_left()).map(ToString::to_string).collect();
    ensure!(left == 0 && owed.is_empty(), "{left} files were not put back, and of systemd's {owed:?}");
    let outcome = Outcome { cycles: keeper.writes, ..Outcome::default() };
    Ok(outcome.with("longest_us", u64::try_from(keeper.longest.as_micros()).unwrap_or(u64::MAX)))
}

impl Keeper {
    fn keep(&mut self, cgroups: &[String]) {
        let held: Vec<u64> = self.executor.held().map(|(_, id, _, _)| id).collect();
        let what = || if self.lift { What::Lift(self.setting.clone()) } else { What::Set(self.setting.clone()) };
        // One that is not there now may be so later.
        let ids = cgroups.iter().filter_map(|path| Some((path, self.executor.hierarchy().id(path).ok()?)));
        let new = ids.filter(|(_, id)| !held.contains(id));
        let changes: Vec<Change> = new.map(|(path, id)| Change { path: path.clone(), id, what: what() }).collect();
        // As `guard run` does when it first sees a PLC: then no write waits for the disk.
        let places: Vec<_> = changes.iter().map(|change| (change.path.clone(), change.id, Knob::Quota)).collect();
        if let Err(error) = self.executor.prepare(&places) {
            eprintln!("the journal: {error}");
        }
        if !changes.is_empty() {
            self.timed(|executor| executor.apply(&changes));
        }
        self.timed(Executor::check_drift);
    }

    fn timed(&mut self, change: impl FnOnce(&mut Executor) -> Vec<guard::executor::Outcome>) {
        let begin = Instant::now();
        let outcomes = change(&mut self.executor);
        let written = outcomes.iter().filter(|outcome| outcome.result.is_done() && outcome.old.is_some()).count();
        self.writes += written as u64;
        if written > 0 {
            self.longest = self.longest.max(begin.elapsed());
        }
    }
}
