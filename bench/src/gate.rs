//! `guard gate` against what is known of the runs it judges: how often it cries wolf, what it misses, what one wild run
//! can do, and how long it takes. The runs are drawn from distributions with a fixed seed, and dealt from 60 runs of
//! cyclictest that were recorded on a busy machine.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard::gate::{
    self, Fact, Figures, GateOutcome, GateSettings, LatencySignal, Metric, Run, RunFacts, Series, SeriesFigures,
    Status, Verdict,
};
use guard::random::Random;
use guard_tests::harness::{binary, finish};
use serde::Serialize;

use crate::table;

/// One line each, as `cyclictest -q -m -t1 -a1 -p95 -i250 -D5s -h1000 --json=FILE` wrote them, without spaces, on two
/// virtual CPUs that others compiled on.
const RECORDED: &str = include_str!("../data/cyclictest-runs.jsonl");

/// Runs a side.
const SIDE: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Comparisons for each line
    #[arg(long, default_value_t = 1000)]
    cases: u32,
    /// Start of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A line: a share of comparisons, or a time, and what it must be.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    what: String,
    goal: String,
    value: f64,
    reached: bool,
}

impl Line {
    fn at_most(what: &str, value: f64, most: f64) -> Self {
        Self { what: what.to_owned(), goal: format!("<= {most}"), value, reached: value <= most }
    }

    fn at_least(what: &str, value: f64, least: f64) -> Self {
        Self { what: what.to_owned(), goal: format!(">= {least}"), value, reached: value >= least }
    }

    /// A figure without a goal.
    fn told(what: &str, value: f64) -> Self {
        Self { what: what.to_owned(), goal: "-".to_owned(), value, reached: true }
    }
}

/// Everything measured, and whether all goals were reached.
pub(crate) fn run(args: &Args) -> Result<(Vec<Line>, bool)> {
    let recorded = recorded()?;
    let mut lines = synthetic(args);
    lines.extend(dealt(args, &recorded));
    lines.push(different_nodes(args, &recorded));
    lines.push(speed()?);
    let rows = lines.iter().map(|line| {
        let reached = if line.reached { "yes" } else { "NO" };
        vec![line.what.clone(), format!("{:.4}", line.value), line.goal.clone(), reached.to_owned()]
    });
    table::print(&["", "value", "goal", "reached"], &rows.collect::<Vec<_>>());
    let reached = lines.iter().all(|line| line.reached);
    Ok((lines, reached))
}

fn recorded() -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (n, line) in RECORDED.lines().enumerate() {
        let name = format!("recorded run {}", n + 1);
        runs.extend(gate::parse(Path::new(&name), line.as_bytes())?);
    }
    ensure!(runs.len() >= 2 * SIDE, "{} recorded runs are too few", runs.len());
    Ok(runs)
}

fn series() -> Series {
    Series { workload: "cyclictest".to_owned(), signal: LatencySignal::Timer.into() }
}

/// A run of 100,000 latencies. Between runs p99 varies by 5 %, p99.9 by 10 %, the maximum by 25 %; the three go together in
/// part, and one run in fifty is half as slow again.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive times of some us")]
fn drawn(random: &mut Random) -> Run {
    let common = random.normal();
    let bad = if random.below(50) == 0 { 1.5 } else { 1.0 };
    let mut around = |ns: f64, spread: f64| {
        let normal = 0.6_f64.sqrt() * common + 0.4_f64.sqrt() * random.normal();
        (ns * (spread * normal).exp() * bad) as u64
    };
    let p99 = around(50_000.0, 0.05);
    let p999 = around(80_000.0, 0.10).max(p99);
    let max = around(150_000.0, 0.25).max(p999);
    let figures = Figures {
        count: 100_000,
        min_ns: 10_000,
        p50_ns: Some(20_000),
        p90_ns: Some(30_000),
        p99_ns: Some(p99),
        p999_ns: Some(p999),
        p9999_ns: Some(max),
        max_ns: max,
    };
    Run {
        source: "drawn".to_owned(),
        id: random.bits().to_string(),
        at: None,
        facts: RunFacts::default(),
        series: BTreeMap::from([(series(), SeriesFigures { figures, detail: false })]),
        notes: Vec::new(),
    }
}

/// The run with one figure, or all, larger by `factor`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "positive times of far less than 2^53 ns"
)]
fn slower(mut run: Run, metric: Option<Metric>, factor: f64) -> Run {
    let scaled = |ns: u64| (ns as f64 * factor) as u64;
    for entry in run.series.values_mut() {
        let figures = &mut entry.figures;
        let is = |one| metric.is_none_or(|metric| metric == one);
        for (of, value) in [(Metric::P99, &mut figures.p99_ns), (Metric::P999, &mut figures.p999_ns)] {
            if is(of) {
                *value = value.map(scaled);
            }
        }
        if is(Metric::Max) {
            figures.max_ns = scaled(figures.max_ns);
        }
    }
    run
}

/// Two sides of runs.
type Sides = (Vec<Run>, Vec<Run>);

/// Share of comparisons that end as `wanted`.
fn share(cases: u32, mut sides: impl FnMut() -> Sides, wanted: impl Fn(&Verdict) -> bool) -> f64 {
    let settings = GateSettings::default();
    let mut count = 0;
    for _ in 0..cases {
        let (baseline, candidate) = sides();
        count += u32::from(wanted(&gate::judge(Some(baseline), candidate, None, &settings)));
    }
    f64::from(count) / f64::from(cases)
}

fn regression(verdict: &Verdict) -> bool {
    verdict.outcome == GateOutcome::Regression
}

fn regression_of(metric: Metric) -> impl Fn(&Verdict) -> bool {
    move |verdict| verdict.metrics.iter().any(|m| m.metric == metric && m.status == Status::Regression)
}

fn synthetic(args: &Args) -> Vec<Line> {
    let mut random = Random::new(args.seed);
    let mut sides = |change: &dyn Fn(usize, Run) -> Run| -> Sides {
        let baseline = (0..SIDE).map(|_| drawn(&mut random)).collect();
        (baseline, (0..SIDE).map(|n| change(n, drawn(&mut random))).collect())
    };
    let all = |metric, factor| move |_, run| slower(run, Some(metric), factor);
    let one = |n, run| if n == 0 { slower(run, None, 10.0) } else { run };
    vec![
        Line::at_most("drawn runs: false alarms", share(args.cases, || sides(&|_, run| run), regression), 0.01),
        Line::at_most("drawn runs, one tenfold: alarms", share(args.cases, || sides(&one), regression), 0.01),
        Line::at_least(
            "drawn runs: p99 +10 % found",
            share(args.cases, || sides(&all(Metric::P99, 1.1)), regression_of(Metric::P99)),
            0.95,
        ),
        Line::at_least(
            "drawn runs: p99.9 +20 % found",
            share(args.cases, || sides(&all(Metric::P999, 1.2)), regression_of(Metric::P999)),
            0.95,
        ),
    ]
}

/// Two sides dealt from recorded runs.
fn deal(runs: &[Run], random: &mut Random, change: impl Fn(usize, Run) -> Run) -> Sides {
    let mut runs = runs.to_vec();
    for i in 0..2 * SIDE {
        let j = i + random.index(runs.len() - i);
        runs.swap(i, j);
    }
    let candidate = runs.drain(SIDE..2 * SIDE).enumerate().map(|(n, run)| change(n, run)).collect();
    runs.truncate(SIDE);
    (runs, candidate)
}

fn dealt(args: &Args, runs: &[Run]) -> Vec<Line> {
    let mut random = Random::new(args.seed);
    let one = |n, run| if n == 0 { slower(run, None, 10.0) } else { run };
    let alarms = share(args.cases, || deal(runs, &mut random, |_, run| run), regression);
    let wild = share(args.cases, || deal(runs, &mut random, one), regression);
    let mut lines = vec![
        Line::at_most("recorded runs: false alarms", alarms, 0.01),
        Line::at_most("recorded runs, one tenfold: alarms", wild, 0.01),
    ];
    // These runs differ from each other by more than a small shift; what can be seen in them is what --explain says.
    let shifts: Vec<f64> = [0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0].into();
    for needed in gate::explain(runs, &shifts, &GateSettings::default()).figures {
        let metric = needed.metric;
        lines.push(Line::told(&format!("recorded runs: {metric} from run to run"), needed.spread));
        let seen = needed.needed.iter().find(|(_, runs)| runs.is_some_and(|runs| runs <= SIDE));
        if let Some((shift, _)) = seen {
            let found = share(
                args.cases,
                || deal(runs, &mut random, |_, run| slower(run, Some(metric), 1.0 + shift)),
                regression_of(metric),
            );
            let what = format!("recorded runs: {metric} {:+.0} % found, as --explain says", shift * 100.0);
            lines.push(Line::at_least(&what, found, 0.95));
        }
    }
    lines
}

/// Share of comparisons of runs that differ in one fact which are judged all the same, however slow the candidate.
fn different_nodes(args: &Args, runs: &[Run]) -> Line {
    let mut random = Random::new(args.seed);
    let facts: Vec<Fact> = Fact::ALL.into_iter().filter(|fact| *fact != Fact::Latencies).collect();
    let sides = || {
        let fact = facts[random.index(facts.len())];
        let (mut baseline, mut candidate) = deal(runs, &mut random, |_, run| slower(run, None, 2.0));
        baseline.iter_mut().for_each(|run| run.facts.set(fact, "one"));
        candidate.iter_mut().for_each(|run| run.facts.set(fact, "another"));
        (baseline, candidate)
    };
    let judged = share(args.cases, sides, |verdict| {
        verdict.outcome != GateOutcome::NotComparable || !verdict.metrics.is_empty()
    });
    Line::at_most("runs of different nodes: judged", judged, 0.0)
}

/// The program itself on 500 files a side, s.
fn speed() -> Result<Line> {
    let scratch = tempfile::tempdir()?;
    let recorded: Vec<&str> = RECORDED.lines().collect();
    for side in ["baseline", "candidate"] {
        let dir = scratch.path().join(side);
        fs::create_dir(&dir)?;
        for n in 0..500 {
            // Another start, so that no two are the same run.
            let text = recorded[n % recorded.len()].replacen(
                "\"file_version\":1,",
                &format!("\"file_version\":1,\"{side}\":{n},"),
                1,
            );
            fs::write(dir.join(format!("{n}.json")), text)?;
        }
    }
    let mut command = Command::new(binary("guard")?);
    command.args(["gate", "--baseline"]).arg(scratch.path().join("baseline")).arg(scratch.path().join("candidate"));
    let start = Instant::now();
    let finished = finish(&mut command, Duration::from_secs(60))?;
    let seconds = start.elapsed().as_secs_f64();
    finished.expect_code(0).context("1000 runs dealt to two sides")?;
    Ok(Line::at_most("1000 runs judged, s", seconds, 2.0))
}
