//! guard's executor at work: changes knobs of given cgroups as fast as it can, until it is killed. What it changes is
//! drawn by chance from all knobs that the node has, or is what guard's policies want on Snapshots that are drawn by
//! chance; then two executors, with a journal each, work side by side as the lanes of `guard run --enforce` do.

use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard::{
    cgroup::Hierarchy,
    executor::{Change, Executor, ExecutorOptions, Pace, What},
    knob::{Knob, Setting},
    policy::{self, Origin, PolicySettings, PolicyState, Trigger, Want, burst},
    snapshot::{Cgroup, Class, CpuStat, Node, Overhead, SCHEMA, Signal, SignalState, Snapshot, Window},
};

use super::{Start, tid};
use crate::values;
use guard::random::Random;

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
    /// Let guard's policies decide
    #[arg(long)]
    policies: bool,
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
    let options =
        ExecutorOptions { pace: UNLIMITED, reassert: NEVER, retake_after: None, ..ExecutorOptions::default() };
    let mut cgroups = Vec::new();
    for path in &args.cgroup {
        cgroups.push((path.clone(), hierarchy.id(path)?));
    }
    let mut random = Random::new(args.seed);
    if args.policies {
        let lane = |name: &str| Executor::open(hierarchy.clone(), &args.state_dir.join(name), options.clone());
        let lanes = [lane("protect")?, lane("rest")?];
        return decide_and_write(&hierarchy, &cgroups, lanes, &mut random);
    }
    let paths: Vec<&str> = args.cgroup.iter().map(String::as_str).collect();
    let knobs = values::knobs(&hierarchy, &paths);
    ensure!(!knobs.is_empty(), "the node has no knob for these cgroups");
    let mut executor = Executor::open(hierarchy, &args.state_dir, options)?;
    if random.below(2) == 0 {
        let of_knob = |knob: &Knob| cgroups.iter().map(|(path, id)| (path.clone(), *id, *knob)).collect::<Vec<_>>();
        let places: Vec<_> = knobs.iter().flat_map(of_knob).collect();
        executor.prepare(&places).context("journal")?;
    }
    loop {
        let batch: Vec<Change> = (0..=random.below(4))
            .map(|_| {
                let (path, id) = &cgroups[random.index(cgroups.len())];
                Change {
                    path: path.clone(),
                    id: *id,
                    what: values::of_guard(knobs[random.index(knobs.len())], &mut random),
                }
            })
            .collect();
        executor.apply(&batch);
        if random.below(8) == 0 {
            executor.check_drift();
        }
    }
}

/// A knob of a cgroup.
type Key = (u64, Knob);

/// Which lane may write a knob: the one that holds it, else the one it is for.
const PROTECT: usize = 0;
const REST: usize = 1;

/// All policies, quick to change their mind.
fn settings() -> PolicySettings {
    let mut settings = PolicySettings::default();
    settings.protect.hold_s = 0.0;
    settings.cpuset.enabled = true;
    settings.cpuset.hold_s = 0.0;
    settings.burst.policy = burst::BurstPolicy::Auto;
    settings.suppress.latency.hold_s = 0.0;
    settings.suppress.max_rise_percent = 10;
    settings.suppress.latency.rise_percent = 10;
    settings.suppress.forget_s = 1.0;
    settings
}

fn decide_and_write(
    hierarchy: &Hierarchy,
    cgroups: &[(String, u64)],
    mut lanes: [Executor; 2],
    random: &mut Random,
) -> Result<()> {
    let (settings, mut state) = (settings(), PolicyState::default());
    let mut classes = vec![Class::Ls; cgroups.len()];
    loop {
        for class in &mut classes {
            if random.below(6) == 0 {
                *class = [Class::Plc, Class::Be, Class::Ls, Class::Lse][random.index(4)];
            }
        }
        let snapshot = draw(hierarchy, cgroups, &classes, random)?;
        let mut wanted = by_knob(policy::decide(&snapshot, &settings, &mut state).wants);
        write(&mut lanes, &wanted);
        // What happens between two Snapshots.
        for _ in 0..random.below(4) {
            let id = cgroups[random.index(cgroups.len())].1;
            let at_ns = random.below(1 << 40);
            let more = match random.below(3) {
                0 => policy::react(&Trigger::Throttled { id }, &settings, &mut state),
                1 => policy::discover(&snapshot.cgroups, &settings, &mut state),
                _ => {
                    let late = Trigger::Late { id, at_ns, latency_ns: 5_000_000, times: 50, by: id };
                    policy::react(&late, &settings, &mut state)
                }
            };
            wanted.extend(by_knob(more));
            write(&mut lanes, &wanted);
        }
        if random.below(3) == 0 {
            lanes.iter_mut().for_each(|lane| drop(lane.check_drift()));
        }
    }
}

fn by_knob(wants: Vec<Want>) -> BTreeMap<Key, Want> {
    wants.into_iter().map(|want| ((want.id, want.setting.knob()), want)).collect()
}

/// Brings both lanes to what is wanted, side by side.
fn write(lanes: &mut [Executor; 2], wanted: &BTreeMap<Key, Want>) {
    let held = |lane: &Executor| -> BTreeMap<Key, (String, Setting)> {
        lane.held().map(|(path, id, knob, setting)| ((id, knob), (path.to_owned(), setting.clone()))).collect()
    };
    let held = [held(&lanes[PROTECT]), held(&lanes[REST])];
    let mut changes = [Vec::new(), Vec::new()];
    for (key, want) in wanted {
        let by_origin = if want.origin == Origin::Protect { PROTECT } else { REST };
        let lane = if held[1 - by_origin].contains_key(key) { 1 - by_origin } else { by_origin };
        let what = if lane == PROTECT { What::Lift(want.setting.clone()) } else { What::Set(want.setting.clone()) };
        if held[lane].get(key).is_none_or(|(_, setting)| *setting != want.setting) {
            changes[lane].push(Change { path: want.path.clone(), id: key.0, what });
        }
    }
    for (lane, held) in held.iter().enumerate() {
        let dropped = held.iter().filter(|(key, _)| !wanted.contains_key(*key));
        changes[lane].extend(dropped.map(|((id, knob), (path, _))| Change {
            path: path.clone(),
            id: *id,
            what: What::Release(*knob),
        }));
    }
    let [protect, rest] = lanes;
    let [for_protect, for_rest] = &changes;
    thread::scope(|scope| {
        scope.spawn(|| protect.apply(for_protect));
        scope.spawn(|| rest.apply(for_rest));
    });
}

/// A second on this machine, as it might have been.
fn draw(hierarchy: &Hierarchy, cgroups: &[(String, u64)], classes: &[Class], random: &mut Random) -> Result<Snapshot> {
    let mut drawn = Vec::new();
    for ((path, id), class) in cgroups.iter().zip(classes) {
        let mut cgroup = Cgroup {
            path: path.clone(),
            id: *id,
            class: *class,
            knobs: Some(hierarchy.knobs(path)?),
            cpu_ns: Some(random.below(1_000_000_000)),
            request_milli: Some(random.below(1_500)),
            ..Cgroup::default()
        };
        let late_ns = [50_000, 5_000_000][random.index(2)];
        (0..100).for_each(|_| cgroup.wakeup.rt.record(late_ns));
        cgroup.lock.futex_boosts = Some(u64::from(random.below(20) == 0));
        if random.below(2) == 0 {
            cgroup.throttle.count = 1;
            cgroup.throttle.cpu_stat = Some(CpuStat { nr_periods: 10, nr_throttled: 1, throttled_ns: 1 });
        }
        drawn.push(cgroup);
    }
    let wakeup = Signal { name: "wakeup".into(), source: "drawn".into(), state: SignalState::Active, reason: None };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    Ok(Snapshot {
        schema: SCHEMA,
        node: Node { cpus: format!("0-{}", cpus - 1), ..Node::default() },
        window: Window { start: String::new(), seconds: 1.0 },
        signals: vec![wakeup],
        overhead: Overhead::default(),
        cgroups: drawn,
        threads: Vec::new(),
        cpus: Vec::new(),
        breaches: Vec::new(),
        inversions: Vec::new(),
        actions: Vec::new(),
    })
}
