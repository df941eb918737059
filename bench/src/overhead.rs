//! What guard costs beside libbpf-tools' runqlat and cpudist, all under one load in alternating rounds of one run: time
//! per event of every program, the slow-down of a ping-pong and of hackbench, and growth with cgroups and threads.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard_tests::harness::{Cgroup, Tool, Workload, binary, load_cpu};
use serde::Serialize;

use crate::{
    attached::{Attached, Run, Tracer},
    sys, table,
};

/// guard's scheduler programs together, per context switch, against runqlat's.
const GOAL_PER_SWITCH: f64 = 0.5;
/// guard's slow-down of the ping-pong against runqlat's.
const GOAL_SLOW_DOWN: f64 = 0.5;
/// "Flat": the largest cost per switch of a crowd against the cost with one cgroup and ten threads.
const GOAL_GROWTH: f64 = 1.25;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds; every figure is the median over them
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of a ping-pong
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Messages of each sender in hackbench
    #[arg(long, default_value_t = 3000)]
    hackbench_loops: u32,
    /// Leave out one part or several
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Events,
    SlowDown,
    Growth,
}

/// All figures.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_down: Option<SlowDowns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    growth: Option<Vec<Crowd>>,
}

/// Cost of the programs.
#[derive(Debug, Serialize)]
struct Events {
    programs: Vec<Program>,
    /// Tracer → ns of its sched_switch and sched_wakeup programs per context switch.
    scheduler_ns_per_switch: BTreeMap<&'static str, f64>,
    /// Tracer → ns of all of its programs per context switch.
    all_ns_per_switch: BTreeMap<&'static str, f64>,
    /// guard's scheduler programs against runqlat's.
    guard_to_runqlat: f64,
}

/// One program.
#[derive(Debug, Serialize)]
struct Program {
    tracer: &'static str,
    program: String,
    ns_per_event: f64,
    events_per_switch: f64,
}

/// Slow-down of the loads.
#[derive(Debug, Serialize)]
struct SlowDowns {
    /// Tracer → ns per round trip of the ping-pong.
    pingpong_ns: BTreeMap<&'static str, f64>,
    /// Tracer → s of hackbench.
    hackbench_s: BTreeMap<&'static str, f64>,
    /// What guard adds to a round trip against what runqlat adds.
    guard_to_runqlat: f64,
}

/// Cost with many cgroups and threads.
#[derive(Debug, Serialize)]
struct Crowd {
    cgroups: usize,
    threads: usize,
    scheduler_ns_per_switch: f64,
}

/// Figures, and whether the goals are reached.
pub(crate) fn run(args: &Args) -> Result<(Figures, bool)> {
    ensure!(args.rounds > 0, "--rounds is 0");
    let wanted = |part| !args.without.contains(&part);
    let (mut figures, mut reached) = (Figures::default(), true);
    if wanted(Part::Events) {
        let events = events(args)?;
        reached &= events.show();
        figures.events = Some(events);
    }
    if wanted(Part::SlowDown) {
        let slow_down = slow_down(args)?;
        reached &= slow_down.show();
        figures.slow_down = Some(slow_down);
    }
    if wanted(Part::Growth) {
        let growth = growth(args)?;
        reached &= show_growth(&growth);
        figures.growth = Some(growth);
    }
    Ok((figures, reached))
}

fn verdict(what: &str, ratio: f64, goal: f64) -> bool {
    let reached = ratio <= goal;
    println!("{what}: {ratio:.2} (goal: at most {goal}): {}\n", if reached { "reached" } else { "NOT reached" });
    reached
}

/// ns per round trip of a ping-pong on the load's CPU.
fn pingpong(seconds: f64) -> Result<f64> {
    let outcome = Workload::start(&["pingpong", "--seconds", &seconds.to_string(), "--cpu", &load_cpu().to_string()])?
        .outcome(Duration::from_secs(60))?;
    Ok(outcome.counter("round_trip_ps")? as f64 / 1000.0)
}

/// Whether a program belongs to the two tracepoints that every peer has, too. The peers' names and guard's both hold
/// the tracepoint's, as far as the kernel's 15 characters go.
fn of_scheduler(program: &str) -> bool {
    ["sched_switch", "sched_wak"].iter().any(|part| program.contains(part))
}

fn switches(runs: &BTreeMap<String, Run>) -> Result<u64> {
    let seen = runs.iter().filter(|(name, _)| name.contains("sched_switch")).map(|(_, run)| run.count).max();
    seen.filter(|count| *count > 0).with_context(|| format!("no program counts context switches: {:?}", runs.keys()))
}

/// What one round under the ping-pong cost, per context switch and per program.
struct Round {
    /// ns of the scheduler programs per switch.
    scheduler: f64,
    /// ns of all programs per switch.
    all: f64,
    /// Name → ns per event, events per switch.
    programs: BTreeMap<String, (f64, f64)>,
}

fn round(attached: &Attached, seconds: f64) -> Result<Round> {
    let (runs, _) = attached.runs_in(|| pingpong(seconds))?;
    let switches = switches(&runs)? as f64;
    let per_switch = |wanted: fn(&str) -> bool| {
        runs.iter().filter(|(name, _)| wanted(name)).map(|(_, run)| run.total_ns as f64).sum::<f64>() / switches
    };
    Ok(Round {
        scheduler: per_switch(of_scheduler),
        all: per_switch(|_| true),
        programs: runs
            .iter()
            .map(|(name, run)| (name.clone(), (run.total_ns as f64 / run.count as f64, run.count as f64 / switches)))
            .collect(),
    })
}

fn events(args: &Args) -> Result<Events> {
    let _statistics = sys::enable_run_time_statistics().context("bpf(BPF_ENABLE_STATS)")?;
    let tracers = [Tracer::Guard, Tracer::GuardWithoutRecorder, Tracer::Runqlat, Tracer::Cpudist];
    let mut scheduler = BTreeMap::<_, Vec<f64>>::new();
    let mut all = BTreeMap::<_, Vec<f64>>::new();
    let mut programs = BTreeMap::<_, (Vec<f64>, Vec<f64>)>::new();
    for number in 1..=args.rounds {
        eprintln!("cost per event, round {number} of {} …", args.rounds);
        for tracer in tracers {
            let attached = tracer.attach()?.context("nothing has no programs")?;
            let round = round(&attached, args.seconds).with_context(|| tracer.name())?;
            attached.detach()?;
            scheduler.entry(tracer.name()).or_default().push(round.scheduler);
            all.entry(tracer.name()).or_default().push(round.all);
            for (name, (ns, per_switch)) in round.programs {
                let program = programs.entry((tracer, name)).or_default();
                program.0.push(ns);
                program.1.push(per_switch);
            }
        }
    }
    let medians = |values: BTreeMap<&'static str, Vec<f64>>| -> BTreeMap<&'static str, f64> {
        values.into_iter().map(|(name, values)| (name, table::median(&values))).collect()
    };
    let (scheduler, all) = (medians(scheduler), medians(all));
    Ok(Events {
        guard_to_runqlat: scheduler["guard"] / scheduler["runqlat"],
        scheduler_ns_per_switch: scheduler,
        all_ns_per_switch: all,
        programs: programs
            .into_iter()
            .map(|((tracer, program), (ns, per_switch))| Program {
                tracer: tracer.name(),
                program,
                ns_per_event: table::median(&ns),
                events_per_switch: table::median(&per_switch),
            })
            .collect(),
    })
}

impl Events {
    fn show(&self) -> bool {
        println!("cost of the programs under a ping-pong on one CPU, medians");
        let rows: Vec<Vec<String>> = self
            .programs
            .iter()
            .map(|p| {
                vec![
                    p.tracer.to_owned(),
                    p.program.clone(),
                    format!("{:.0}", p.ns_per_event),
                    format!("{:.4}", p.events_per_switch),
                    format!("{:.1}", p.ns_per_event * p.events_per_switch),
                ]
            })
            .collect();
        table::print(&["tracer", "program", "ns/event", "events/switch", "ns/switch"], &rows);
        println!();
        let rows: Vec<Vec<String>> = self
            .scheduler_ns_per_switch
            .iter()
            .map(|(name, ns)| {
                let all = self.all_ns_per_switch[name];
                let ratio = ns / self.scheduler_ns_per_switch["runqlat"];
                vec![(*name).to_owned(), format!("{ns:.0}"), format!("{ratio:.2}"), format!("{all:.0}")]
            })
            .collect();
        table::print(&["tracer", "sched ns/switch", "to runqlat", "all ns/switch"], &rows);
        verdict("scheduler programs per switch, guard to runqlat", self.guard_to_runqlat, GOAL_PER_SWITCH)
    }
}

/// Without run-time statistics, which cost something themselves.
fn slow_down(args: &Args) -> Result<SlowDowns> {
    let mut pingpongs = BTreeMap::<_, Vec<f64>>::new();
    let mut hackbenches = BTreeMap::<_, Vec<f64>>::new();
    for number in 0..args.rounds {
        eprintln!("slow-down, round {} of {} …", number + 1, args.rounds);
        // Each round begins with another one, so that a drift of the machine hits all alike.
        let mut order = Tracer::ALL;
        order.rotate_left(number % Tracer::ALL.len());
        for tracer in order {
            let attached = tracer.attach()?;
            pingpongs.entry(tracer.name()).or_default().push(pingpong(args.seconds)?);
            hackbenches.entry(tracer.name()).or_default().push(hackbench(args.hackbench_loops)?);
            if let Some(attached) = attached {
                attached.detach()?;
            }
        }
    }
    let medians = |values: BTreeMap<&'static str, Vec<f64>>| -> BTreeMap<&'static str, f64> {
        values.into_iter().map(|(name, values)| (name, table::median(&values))).collect()
    };
    let (pingpong_ns, hackbench_s) = (medians(pingpongs), medians(hackbenches));
    let added = |name| pingpong_ns[name] - pingpong_ns["nothing"];
    Ok(SlowDowns { guard_to_runqlat: added("guard") / added("runqlat"), pingpong_ns, hackbench_s })
}

/// s that hackbench says it took.
fn hackbench(loops: u32) -> Result<f64> {
    let mut command = Command::new(binary("hackbench")?);
    command.args(["--groups", "4", "--loops", &loops.to_string()]);
    let printed = Tool::start(&mut command)?.success(Duration::from_secs(120))?;
    let time = printed.lines().find_map(|line| line.strip_prefix("Time:"));
    let time = time.with_context(|| format!("hackbench printed {printed}"))?.trim();
    time.parse().with_context(|| format!("hackbench's time \"{time}\""))
}

impl SlowDowns {
    fn show(&self) -> bool {
        println!("slow-down with each attached, medians");
        let rows: Vec<Vec<String>> = Tracer::ALL
            .iter()
            .map(|tracer| {
                let name = tracer.name();
                let (round_trip, seconds) = (self.pingpong_ns[name], self.hackbench_s[name]);
                let (idle_trip, idle_seconds) = (self.pingpong_ns["nothing"], self.hackbench_s["nothing"]);
                vec![
                    name.to_owned(),
                    format!("{round_trip:.0}"),
                    format!("{:+.1} %", 100.0 * (round_trip / idle_trip - 1.0)),
                    format!("{seconds:.3}"),
                    format!("{:+.1} %", 100.0 * (seconds / idle_seconds - 1.0)),
                ]
            })
            .collect();
        table::print(&["attached", "ping-pong ns", "slower", "hackbench s", "slower"], &rows);
        verdict("what is added to a round trip, guard to runqlat", self.guard_to_runqlat, GOAL_SLOW_DOWN)
    }
}

fn growth(args: &Args) -> Result<Vec<Crowd>> {
    let _statistics = sys::enable_run_time_statistics().context("bpf(BPF_ENABLE_STATS)")?;
    let sizes = [(1, 10), (100, 10), (500, 10), (1, 1_000), (1, 10_000), (500, 10_000)];
    let mut costs = vec![Vec::new(); sizes.len()];
    // A crowd costs seconds to set up: fewer rounds, still alternating.
    for number in 1..=args.rounds.div_ceil(2) {
        eprintln!("growth, round {number} of {} …", args.rounds.div_ceil(2));
        for ((cgroups, threads), costs) in sizes.iter().zip(&mut costs) {
            costs.push(in_crowd(*cgroups, *threads, args.seconds)?);
        }
    }
    let crowd = |((cgroups, threads), costs): ((usize, usize), &Vec<f64>)| Crowd {
        cgroups,
        threads,
        scheduler_ns_per_switch: table::median(costs),
    };
    Ok(sizes.into_iter().zip(&costs).map(crowd).collect())
}

/// ns per switch of guard's scheduler programs under the ping-pong, with so many others waking once a second.
fn in_crowd(cgroups: usize, threads: usize, seconds: f64) -> Result<f64> {
    let parent = Cgroup::create("bench")?;
    let dir = parent.dir();
    let dwellers = Workload::start(&["cgroups", &cgroups.to_string(), "--parent", &dir.to_string_lossy()])?;
    let sleepers = Workload::start(&["threads", &threads.to_string()])?;
    let attached = Tracer::Guard.attach()?.context("nothing has no programs")?;
    let round = round(&attached, seconds)?;
    attached.detach()?;
    for crowd in [sleepers, dwellers] {
        crowd.terminate()?;
        crowd.outcome(Duration::from_secs(60))?;
    }
    Ok(round.scheduler)
}

fn show_growth(growth: &[Crowd]) -> bool {
    println!("cost of guard's scheduler programs with others waking once a second, medians");
    let costs = growth.iter().map(|crowd| crowd.scheduler_ns_per_switch);
    let base = growth.first().map_or(f64::NAN, |crowd| crowd.scheduler_ns_per_switch);
    let rows: Vec<Vec<String>> = growth
        .iter()
        .map(|crowd| {
            let ns = crowd.scheduler_ns_per_switch;
            vec![crowd.cgroups.to_string(), crowd.threads.to_string(), format!("{ns:.0}"), format!("{:.2}", ns / base)]
        })
        .collect();
    table::print(&["cgroups", "threads", "sched ns/switch", "to the first"], &rows);
    verdict("largest to first", costs.fold(0.0, f64::max) / base, GOAL_GROWTH)
}
