//! guard beside programs that time themselves: cyclictest in its modes, and our loops on timerfd, epoll and ppoll. Both
//! look at the same thread in the same run, so their figures can be compared one by one.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::Timer;
use guard_tests::{
    compare::{Row, Tolerances, compare},
    harness::{Find as _, GuardRun, Tool, Workload, binary},
};
use serde::{Deserialize, Serialize};

use crate::table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Cycles of each thread
    #[arg(long, default_value_t = 8000)]
    cycles: u64,
    /// Interval of each thread
    #[arg(long, default_value_t = 1000)]
    interval_us: u64,
    /// Only modes whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// cyclictest's modes, after `-m -p 95 -q -i INTERVAL -l CYCLES`.
const MODES: [(&str, &[&str]); 6] = [
    ("cyclictest -t1", &["-t1"]),
    ("cyclictest -t2", &["-t2"]),
    ("cyclictest -S", &["-S"]),
    ("cyclictest -r", &["-t1", "-r"]),
    ("cyclictest -x", &["-t1", "-x"]),
    ("cyclictest -s", &["-t1", "-s"]),
];

const LOOPS: [&str; 3] = ["timerfd", "timerfd-epoll", "ppoll"];

/// One thread compared.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    mode: String,
    tid: u32,
    /// Events that the kernel did not show, by guard's own count.
    missed_events: u64,
    /// guard's user stage against the thread's own figures.
    user: Vec<Row>,
    /// guard's thread stage against them: what is left is the return to user space.
    thread: Vec<Row>,
}

/// A thread's own histogram: us, rounded down → count.
type Own = BTreeMap<u64, u64>;

/// Threads compared, and whether all agree.
pub(crate) fn run(args: &Args) -> Result<(Vec<Compared>, bool)> {
    let chosen = |mode: &str| args.only.as_ref().is_none_or(|text| mode.contains(text.as_str()));
    let mut all = Vec::new();
    for (mode, options) in MODES.into_iter().filter(|(mode, _)| chosen(mode)) {
        all.extend(cyclictest(args, mode, options).with_context(|| mode.to_owned())?);
    }
    for wait in LOOPS.into_iter().filter(|wait| chosen(wait)) {
        all.extend(observe(wait, || timed_loop(args, wait)).with_context(|| wait.to_owned())?);
    }
    ensure!(!all.is_empty(), "--only names none of the modes");
    show(&all);
    let reached = all.iter().flat_map(|compared| &compared.user).all(|row| row.agrees);
    println!("{}", if reached { "all agree" } else { "some differ" });
    Ok((all, reached))
}

/// Runs `work` beside guard and compares each of its threads.
fn observe(mode: &str, work: impl FnOnce() -> Result<BTreeMap<u32, Own>>) -> Result<Vec<Compared>> {
    eprintln!("{mode} …");
    let guard = GuardRun::report().measure()?;
    let threads = work()?;
    let snapshot = guard.stop()?;
    threads
        .into_iter()
        .map(|(tid, own)| {
            let Timer { thread, user, .. } = &snapshot.thread(tid)?.timer;
            let tolerances = Tolerances::agreement(&snapshot);
            Ok(Compared {
                mode: mode.to_owned(),
                tid,
                missed_events: snapshot.overhead.lost.missed_events,
                user: compare(&own, user, &tolerances),
                thread: compare(&own, thread, &tolerances),
            })
        })
        .collect()
}

/// What cyclictest writes with --json.
#[derive(Deserialize)]
struct Cyclictest {
    thread: BTreeMap<u32, CyclictestThread>,
}

#[derive(Deserialize)]
struct CyclictestThread {
    histogram: Own,
    cycles: u64,
}

/// Observes cyclictest in one mode. With -x, a stall of the machine can make cyclictest add up its overruns twice; all of
/// its later latencies are then negative and in no bin. Such a run compares nothing and is taken again.
fn cyclictest(args: &Args, mode: &str, options: &[&str]) -> Result<Vec<Compared>> {
    for _ in 0..3 {
        let mut whole = true;
        let compared = observe(mode, || {
            let threads = run_cyclictest(args, options)?;
            whole = threads.values().all(|thread| thread.histogram.values().sum::<u64>() == thread.cycles);
            Ok(threads.into_iter().map(|(tid, thread)| (tid, thread.histogram)).collect())
        })?;
        if whole {
            return Ok(compared);
        }
        eprintln!("{mode}: cyclictest's histogram does not hold all of its cycles; once more …");
    }
    bail!("cyclictest's histogram does not hold all of its cycles, three times in a row")
}

fn run_cyclictest(args: &Args, options: &[&str]) -> Result<BTreeMap<u32, CyclictestThread>> {
    let scratch = tempfile::tempdir().context("a scratch directory")?;
    let json = scratch.path().join("cyclictest.json");
    let mut command = Command::new(binary("cyclictest")?);
    // Without -h it writes no histogram; 1 s of bins is more than any cycle here takes.
    command.args(["-m", "-p", "95", "-q", "-h", "1000000"]);
    command.args(["-i", &args.interval_us.to_string(), "-l", &args.cycles.to_string()]).args(options);
    command.arg(format!("--json={}", json.display()));
    let mut tool = Tool::start(&mut command)?;
    // Thread N of its report is the Nth thread that it started; the first of all is its main thread.
    let mut tids = Vec::new();
    let limit = Duration::from_micros(args.cycles * args.interval_us) + Duration::from_secs(30);
    let status = guard_tests::harness::until("cyclictest", limit, || {
        if let Ok(now) = tool.tids()
            && now.len() > tids.len()
        {
            tids = now;
        }
        tool.ended()
    })?;
    ensure!(status.success(), "cyclictest ended with {status}: {}", tool.stderr()?);
    let text = fs::read_to_string(&json).with_context(|| format!("read {}", json.display()))?;
    let report: Cyclictest = serde_json::from_str(&text).context("cyclictest's JSON")?;
    ensure!(tids.len() == report.thread.len() + 1, "threads {tids:?}, but {} in the report", report.thread.len());
    report
        .thread
        .into_iter()
        .map(|(number, thread)| {
            let tid = tids.get(number as usize + 1).context("a thread that was never seen")?;
            Ok((*tid, thread))
        })
        .collect()
}

fn timed_loop(args: &Args, wait: &str) -> Result<BTreeMap<u32, Own>> {
    let workload = Workload::start(&[
        "cycle",
        wait,
        "--policy",
        "fifo:95",
        "--mlockall",
        "--interval-us",
        &args.interval_us.to_string(),
        "--cycles",
        &args.cycles.to_string(),
    ])?;
    let tid = workload.tid()?;
    let outcome = workload.outcome(Duration::from_micros(args.cycles * args.interval_us) + Duration::from_secs(30))?;
    Ok(BTreeMap::from([(tid, outcome.histogram)]))
}

fn show(all: &[Compared]) {
    let mut rows = Vec::new();
    for compared in all {
        for (user, thread) in compared.user.iter().zip(&compared.thread) {
            let figure = |value: u64| if user.figure == "count" { value.to_string() } else { us(value) };
            rows.push(vec![
                compared.mode.clone(),
                user.figure.clone(),
                figure(user.peer),
                figure(user.guard),
                figure(user.peer.abs_diff(user.guard)),
                figure(user.allowed),
                if user.agrees { "yes" } else { "NO" }.to_owned(),
                ratio(user.guard, user.peer),
                figure(thread.guard),
            ]);
        }
    }
    println!("us, except count; thread is guard's stage before the return to user space");
    table::print(&["mode", "figure", "own", "guard", "apart", "allowed", "agree", "ratio", "thread"], &rows);
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn us(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1000.0)
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(guard: u64, peer: u64) -> String {
    format!("{:.3}", guard as f64 / peer as f64)
}
