//! From runs to a verdict: comparable at all, within the budgets, not slower than the baseline.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use globset::GlobSet;

use super::budget::{Budgets, FigureBudget};
use super::facts::{Fact, RunFacts};
use super::metric::Metric;
use super::run::{Run, Series, SeriesFigures};
use super::stats::{holm, median, probability, shift, smallest_probability, without_largest};
use super::verdict::{Budgeted, Comparison, GateOutcome, Judged, Status, Verdict, chance, percent, time};

/// Runs a side without which nothing is judged: of fewer, one outlier would be too large a part.
pub const MIN_RUNS: usize = 5;

/// Factor between the latencies per run of two sides up to which their maxima can be compared: of more latencies the
/// largest is larger.
const ALIKE: f64 = 1.5;

/// The smallest slow-down that matters; both must be exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smallest {
    /// As a fraction of the baseline.
    pub fraction: f64,
    /// In ns.
    pub ns: f64,
}

/// How to judge.
#[derive(Clone, Debug)]
pub struct GateSettings {
    /// Figures named by the user; empty: [`Metric::USUAL`].
    pub metrics: Vec<Metric>,
    /// Workloads named by the user; none: all.
    pub workloads: Option<GlobSet>,
    /// Also single threads and cgroups of the system.
    pub each: bool,
    /// In what runs may differ.
    pub allowed: BTreeSet<Fact>,
    /// Chance of any false alarm.
    pub level: f64,
    /// The smallest slow-down of each figure that matters.
    pub smallest: BTreeMap<Metric, Smallest>,
    /// Start of the random numbers for tests of many runs.
    pub seed: u64,
}

impl Default for GateSettings {
    fn default() -> Self {
        // cyclictest's resolution is 1 us. The further out in the tail, the less a run knows it.
        let fraction = |metric| match metric {
            Metric::P50 | Metric::P90 | Metric::P99 => 0.05,
            Metric::P999 => 0.1,
            Metric::P9999 | Metric::Max => 0.2,
        };
        let smallest = |metric| (metric, Smallest { fraction: fraction(metric), ns: 1_000.0 });
        Self {
            metrics: Vec::new(),
            workloads: None,
            each: false,
            allowed: BTreeSet::new(),
            level: 0.005,
            smallest: Metric::ALL.map(smallest).into(),
            seed: 1,
        }
    }
}

impl GateSettings {
    /// The figures that are judged.
    #[must_use]
    pub fn metrics(&self) -> &[Metric] {
        if self.metrics.is_empty() { &Metric::USUAL } else { &self.metrics }
    }

    /// The smallest slow-down of `metric` that matters.
    #[must_use]
    pub fn smallest(&self, metric: Metric) -> Smallest {
        self.smallest.get(&metric).copied().unwrap_or(Smallest { fraction: 0.0, ns: 0.0 })
    }

    pub(super) fn chosen(&self, series: &Series, entry: &SeriesFigures) -> bool {
        (self.each || !entry.detail) && self.workloads.as_ref().is_none_or(|set| set.is_match(&series.workload))
    }

    /// Draws for a sampled probability, so many that the corrected level can be reached with room to spare.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "clamped")]
    pub(super) fn draws(&self, tests: usize) -> u64 {
        (50.0 * tests as f64 / self.level).clamp(10_000.0, 1_000_000.0) as u64
    }
}

/// Judges the candidate's runs.
///
/// ```
/// use guard::gate::{Budgets, GateOutcome, GateSettings, judge, read};
/// let budget = "[[budget]]\nworkload = \"cyclictest\"\nmetric = \"timer.max\"\nlimit = \"2ms\"\n";
/// let budgets = Budgets::parse("budget.toml".as_ref(), budget)?;
/// let runs = read("src/gate/testdata/cyclictest-2.40-h60.txt".as_ref())?;
/// let verdict = judge(None, runs, Some(&budgets), &GateSettings::default());
/// assert_eq!(verdict.outcome, GateOutcome::Pass, "{}", verdict.sentence);
/// # Ok::<(), guard::gate::GateError>(())
/// ```
#[must_use]
pub fn judge(
    baseline: Option<Vec<Run>>,
    candidate: Vec<Run>,
    budgets: Option<&Budgets>,
    settings: &GateSettings,
) -> Verdict {
    let mut notes = Vec::new();
    let candidate = distinct(candidate, &mut notes, "candidate");
    notes.extend(said(&candidate));
    let (mut comparison, common) = agreement(&candidate, budgets, settings);
    let mut budgeted = Vec::new();
    let mut metrics = Vec::new();
    let alike = comparison.differences.is_empty();
    if alike && let Some(budgets) = budgets {
        budgeted = budgets.budgets.iter().flat_map(|budget| keeps(budget, &candidate)).collect();
    }
    if let Some(baseline) = baseline
        && alike
    {
        let ids: HashSet<&str> = candidate.iter().map(|run| run.id.as_str()).collect();
        let (own, others): (Vec<Run>, Vec<Run>) = baseline.into_iter().partition(|run| ids.contains(run.id.as_str()));
        if !own.is_empty() {
            notes.push(format!("{} of the baseline's runs are the candidate's own and were left out", own.len()));
        }
        let others = distinct(others, &mut notes, "baseline");
        let comparable = comparable(others, &common, settings, &mut comparison);
        notes.extend(said(&comparable));
        if comparison.differences.is_empty() {
            metrics = compare(&comparable, &candidate, settings);
        }
    }
    conclude(comparison, budgeted, metrics, notes)
}

/// Runs, each once: the same run given twice would count as two.
fn distinct(runs: Vec<Run>, notes: &mut Vec<String>, side: &str) -> Vec<Run> {
    let before = runs.len();
    let mut seen = HashSet::new();
    let runs: Vec<Run> = runs.into_iter().filter(|run| seen.insert(run.id.clone())).collect();
    if runs.len() < before {
        notes.push(format!("{} runs of the {side} were given more than once and count once", before - runs.len()));
    }
    runs
}

/// What the readers said of runs.
fn said(runs: &[Run]) -> impl Iterator<Item = String> + '_ {
    runs.iter().flat_map(|run| run.notes.iter().map(move |note| format!("{}: {note}", run.source)))
}

/// Whether the candidate's runs agree among themselves and with the node of the budgets, and what they say together.
fn agreement(candidate: &[Run], budgets: Option<&Budgets>, settings: &GateSettings) -> (Comparison, RunFacts) {
    let mut common = RunFacts::default();
    let mut differences = BTreeSet::new();
    for run in candidate {
        differences.extend(common.differences(&run.facts, &settings.allowed));
        common.fill(&run.facts);
    }
    if let Some(budgets) = budgets {
        let elsewhere = budgets.differences(&common).into_iter();
        differences.extend(elsewhere.filter(|difference| !settings.allowed.contains(&difference.fact)));
    }
    let unknown = budgets.into_iter().flat_map(Budgets::facts).filter(|fact| common.get(*fact).is_none());
    let comparison = Comparison {
        candidate_runs: candidate.len(),
        differences: differences.into_iter().collect(),
        unknown: unknown.collect(),
        ..Comparison::default()
    };
    (comparison, common)
}

/// The runs of the baseline that were made as the candidate's were. Others are set aside: a history may hold runs of many
/// nodes and of older kernels. If too few are left because of that, the differences say why.
fn comparable(baseline: Vec<Run>, common: &RunFacts, settings: &GateSettings, comparison: &mut Comparison) -> Vec<Run> {
    let total = baseline.len();
    let mut differences = BTreeSet::new();
    let runs: Vec<Run> = baseline
        .into_iter()
        .filter(|run| {
            let found = run.facts.differences(common, &settings.allowed);
            let same = found.is_empty();
            differences.extend(found);
            same
        })
        .collect();
    comparison.baseline_runs = runs.len();
    comparison.set_aside = total - runs.len();
    if comparison.set_aside > 0 && runs.len() < MIN_RUNS {
        comparison.differences = differences.into_iter().collect();
    }
    let carried = Fact::ALL.into_iter().filter(|fact| *fact != Fact::Latencies);
    let mut unknown: BTreeSet<Fact> = comparison.unknown.iter().copied().collect();
    unknown.extend(
        carried.filter(|fact| common.get(*fact).is_none() || runs.iter().any(|run| run.facts.get(*fact).is_none())),
    );
    comparison.unknown = unknown.into_iter().collect();
    runs
}

/// A budget against every workload that it is meant for. Whole workloads go before threads: a pattern that names a cgroup
/// does not mean each of its threads.
fn keeps(budget: &FigureBudget, candidate: &[Run]) -> Vec<Budgeted> {
    let all = candidate.iter().flat_map(|run| &run.series);
    let meant: Vec<(&Series, &SeriesFigures)> =
        all.filter(|(s, _)| s.signal == budget.signal && budget.matches(&s.workload)).collect();
    let whole = meant.iter().any(|(_, entry)| !entry.detail);
    let meant: BTreeSet<&Series> = meant.into_iter().filter(|(_, e)| !(whole && e.detail)).map(|(s, _)| s).collect();
    if meant.is_empty() {
        let sentence =
            format!("{budget}: no run has such a workload, so nothing shows that it keeps {}", limit(budget));
        return vec![budgeted(budget, &budget.workload, Status::TooLittleData, None, sentence)];
    }
    meant.into_iter().map(|series| keeps_one(budget, series, candidate)).collect()
}

fn keeps_one(budget: &FigureBudget, series: &Series, candidate: &[Run]) -> Budgeted {
    let (values, lacking) = values(series, budget.metric, candidate);
    let name = format!("{series} {}", budget.metric);
    let worst = values.iter().copied().reduce(f64::max);
    #[allow(clippy::cast_precision_loss, reason = "latencies are far below 2^53 ns")]
    let over = values.iter().filter(|value| **value > budget.limit_ns as f64).count();
    let (status, sentence) = match (worst, lacking) {
        (Some(worst), _) if over > budget.runs_over => {
            let said = format!(
                "{name} is over its budget of {} in {over} of {} runs; the worst has {}",
                limit(budget),
                candidate.len(),
                time(worst)
            );
            (Status::OverBudget, said)
        }
        (_, Some(lacking)) => {
            (Status::TooLittleData, format!("{name}: {lacking}, so nothing shows that it keeps {}", limit(budget)))
        }
        (Some(worst), None) => (
            Status::Pass,
            format!(
                "{name} keeps its budget of {}; the worst of {} runs has {}",
                limit(budget),
                candidate.len(),
                time(worst)
            ),
        ),
        (None, None) => (Status::TooLittleData, format!("{name}: there is no run")),
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a whole number of ns")]
    budgeted(budget, &series.workload, status, worst.map(|ns| ns as u64), sentence)
}

#[allow(clippy::cast_precision_loss, reason = "latencies are far below 2^53 ns")]
fn limit(budget: &FigureBudget) -> String {
    time(budget.limit_ns as f64)
}

fn budgeted(
    budget: &FigureBudget,
    workload: &str,
    status: Status,
    worst_ns: Option<u64>,
    sentence: String,
) -> Budgeted {
    Budgeted {
        workload: super::facts::printable(workload),
        signal: budget.signal.into(),
        metric: budget.metric,
        status,
        limit_ns: budget.limit_ns,
        worst_ns,
        line: budget.line,
        sentence,
    }
}

/// The figure of each run that has it, ns, at least 1; and why the first that lacks it does.
#[allow(clippy::cast_precision_loss, reason = "latencies are far below 2^53 ns")]
pub(super) fn values(series: &Series, metric: Metric, runs: &[Run]) -> (Vec<f64>, Option<String>) {
    let (mut values, mut lacking) = (Vec::new(), None);
    for run in runs {
        let value = match run.series.get(series) {
            Some(entry) => entry.figures.get(metric),
            None => Err("does not have it".to_owned()),
        };
        match value {
            Ok(ns) => values.push(ns.max(1) as f64),
            Err(why) => {
                lacking.get_or_insert_with(|| format!("{} {why}", run.source));
            }
        }
    }
    (values, lacking)
}

/// A figure on both sides, before it is judged.
struct Pair {
    series: Series,
    metric: Metric,
    baseline: Vec<f64>,
    candidate: Vec<f64>,
    /// Why it cannot be judged.
    obstacle: Option<(Status, String)>,
}

fn compare(baseline: &[Run], candidate: &[Run], settings: &GateSettings) -> Vec<Judged> {
    let all = baseline.iter().chain(candidate).flat_map(|run| &run.series);
    let series: BTreeSet<&Series> = all.filter(|(s, e)| settings.chosen(s, e)).map(|(s, _)| s).collect();
    let mut pairs = Vec::new();
    for series in series {
        for metric in settings.metrics() {
            pairs.push(pair(series, *metric, baseline, candidate, settings));
        }
    }
    let tests = pairs.iter().filter(|pair| pair.obstacle.is_none()).count();
    for pair in pairs.iter_mut().filter(|pair| pair.obstacle.is_none()) {
        pair.obstacle = few(pair, tests, settings.level);
    }
    let p: Vec<f64> = pairs
        .iter()
        .filter(|pair| pair.obstacle.is_none())
        .map(|pair| {
            let candidate = without_largest(&pair.candidate);
            probability(&pair.baseline, &candidate, settings.draws(tests), settings.seed)
        })
        .collect();
    // Those that turned out to have too few runs stay counted as tests: a correction that is too strong by them.
    let mut padded = p.clone();
    padded.resize(tests, 1.0);
    let corrected = holm(&padded);
    let mut tested = p.into_iter().zip(corrected);
    let mut judged: Vec<Judged> = pairs
        .into_iter()
        .map(|pair| match pair.obstacle {
            None => tested.next().map_or_else(
                || unjudged(&pair, Status::TooLittleData, ""),
                |(p, c)| test(&pair, p, c, tests, settings),
            ),
            Some((status, ref why)) => unjudged(&pair, status, why),
        })
        .collect();
    // Stable, so that equals stay in the order of their names.
    judged.sort_by_key(|judged| match judged.status {
        Status::Regression | Status::OverBudget => 0,
        Status::NotComparable => 1,
        Status::TooLittleData => 2,
        Status::Pass => 3,
        Status::NotJudged => 4,
    });
    judged
}

fn pair(series: &Series, metric: Metric, baseline: &[Run], candidate: &[Run], settings: &GateSettings) -> Pair {
    let (before, lacks_before) = values(series, metric, baseline);
    let (after, lacks_after) = values(series, metric, candidate);
    // Asked for by name, it must be judged.
    let named = settings.metrics.contains(&metric) || settings.workloads.is_some();
    let obstacle = if baseline.len() >= MIN_RUNS && before.len() < MIN_RUNS {
        let why = lacks_before.unwrap_or_default();
        Some((if named { Status::TooLittleData } else { Status::NotJudged }, why))
    } else if candidate.len() >= MIN_RUNS && after.len() < MIN_RUNS {
        Some((Status::TooLittleData, lacks_after.unwrap_or_default()))
    } else if baseline.len() < MIN_RUNS || candidate.len() < MIN_RUNS {
        let why =
            format!("{} runs against {} of the baseline; it takes at least {MIN_RUNS} each", after.len(), before.len());
        Some((Status::TooLittleData, why))
    } else if metric == Metric::Max && !settings.allowed.contains(&Fact::Latencies) {
        unlike(series, baseline, candidate).map(|why| (Status::NotComparable, why))
    } else {
        None
    };
    Pair { series: series.clone(), metric, baseline: before, candidate: after, obstacle }
}

/// Why the maxima of the two sides cannot be compared.
#[allow(clippy::cast_precision_loss, reason = "counts of latencies are far below 2^53")]
fn unlike(series: &Series, baseline: &[Run], candidate: &[Run]) -> Option<String> {
    let typical = |runs: &[Run]| {
        let counts = runs.iter().filter_map(|run| run.series.get(series)).map(|entry| entry.figures.count as f64);
        median(&mut counts.collect::<Vec<f64>>())
    };
    let (before, after) = (typical(baseline), typical(candidate));
    let ratio = after / before;
    (!(1.0 / ALIKE..=ALIKE).contains(&ratio)).then(|| {
        format!(
            "{after:.0} latencies per run against {before:.0} of the baseline; of more, the largest is larger: let the runs \
             be equally long, or --allow-different latencies"
        )
    })
}

/// Whether so few runs, for so many tests, can say anything at this level.
#[allow(clippy::cast_precision_loss, reason = "counts of tests are small")]
fn few(pair: &Pair, tests: usize, level: f64) -> Option<(Status, String)> {
    let level = level / tests as f64;
    let (a, b) = (pair.baseline.len(), pair.candidate.len());
    if can_show(a, b, level) {
        return None;
    }
    let needed = (MIN_RUNS..1_000).find(|n| can_show(*n, *n, level)).unwrap_or(1_000);
    let why = format!("{b} runs against {a} can never show anything at a level of {level:.2e}; {needed} each could");
    Some((Status::TooLittleData, why))
}

/// Whether so many runs of the baseline and of the candidate can show anything at a level.
pub(super) fn can_show(baseline: usize, candidate: usize, level: f64) -> bool {
    smallest_probability(baseline, candidate.saturating_sub(1)) <= level
}

fn unjudged(pair: &Pair, status: Status, why: &str) -> Judged {
    let Pair { series, metric, baseline, candidate, .. } = pair;
    Judged {
        workload: series.workload.clone(),
        signal: series.signal.clone(),
        metric: *metric,
        status,
        runs: (baseline.len(), candidate.len()),
        medians_ns: None,
        shift: None,
        bounds: None,
        difference_ns: None,
        p: None,
        p_corrected: None,
        sentence: format!("{series} {metric}: {why}"),
    }
}

fn test(pair: &Pair, p: f64, corrected: f64, tests: usize, settings: &GateSettings) -> Judged {
    let Pair { series, metric, baseline, candidate, .. } = pair;
    let Some(shift) = shift(baseline, candidate) else { return unjudged(pair, Status::TooLittleData, "no runs") };
    let smallest = settings.smallest(*metric);
    let (fraction, bounds) = (shift.factor - 1.0, (shift.bounds.0 - 1.0, shift.bounds.1 - 1.0));
    let unlikely = corrected <= settings.level;
    let matters = fraction >= smallest.fraction && shift.difference >= smallest.ns;
    let status = if unlikely && matters { Status::Regression } else { Status::Pass };
    let medians = (median(&mut baseline.clone()), median(&mut candidate.clone()));
    let meaning = match (unlikely, matters) {
        (true, true) => "slower, and not by chance".to_owned(),
        (true, false) if fraction > 0.0 => {
            let least = format!("{} and {}", percent(smallest.fraction), time(smallest.ns));
            format!("slower, but by less than matters ({least})")
        }
        _ if bounds.1 < 0.0 => "faster".to_owned(),
        (false, true) => "not to be told from chance; more runs would tell".to_owned(),
        _ => "no slower".to_owned(),
    };
    let of = if tests > 1 { format!(", {} among {tests} tests", chance(corrected)) } else { String::new() };
    let sentence = format!(
        "{series} {metric}: {} → {} ({}, between {} and {}) over {} and {} runs, {}{of}: {meaning}",
        time(medians.0),
        time(medians.1),
        percent(fraction),
        percent(bounds.0),
        percent(bounds.1),
        baseline.len(),
        candidate.len(),
        chance(p),
    );
    Judged {
        status,
        medians_ns: Some(medians),
        shift: Some(fraction),
        bounds: Some(bounds),
        difference_ns: Some(shift.difference),
        p: Some(p),
        p_corrected: Some(corrected),
        sentence,
        ..unjudged(pair, status, "")
    }
}

fn conclude(comparison: Comparison, budgets: Vec<Budgeted>, metrics: Vec<Judged>, notes: Vec<String>) -> Verdict {
    let found: Vec<(Status, &str)> = budgets
        .iter()
        .map(|b| (b.status, b.sentence.as_str()))
        .chain(metrics.iter().map(|m| (m.status, m.sentence.as_str())))
        .collect();
    let judged = found.iter().filter(|(status, _)| *status != Status::NotJudged).count();
    let of = |outcome| found.iter().filter(move |(status, _)| status.outcome() == outcome).map(|(_, said)| *said);
    let more = |count: usize| if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    let first = [GateOutcome::Regression, GateOutcome::NotComparable, GateOutcome::TooLittleData]
        .into_iter()
        .find_map(|outcome| Some((outcome, format!("{}{}", of(outcome).next()?, more(of(outcome).count())))));
    let (outcome, sentence) = if !comparison.differences.is_empty() {
        let all: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
        let beside = of(GateOutcome::Regression).next().map_or(String::new(), |said| format!(". Besides: {said}"));
        (GateOutcome::NotComparable, format!("the runs differ in {}{beside}", all.join("; ")))
    } else if let Some(first) = first {
        first
    } else if judged == 0 {
        (
            GateOutcome::TooLittleData,
            "there is no figure that could be judged; --each judges single threads too, --metric fewer figures"
                .to_owned(),
        )
    } else {
        let budgets = if budgets.is_empty() { String::new() } else { format!("{} budgets kept", budgets.len()) };
        let tested = metrics.iter().filter(|m| m.status == Status::Pass).count();
        let metrics =
            if metrics.is_empty() { String::new() } else { format!("{tested} figures no slower than the baseline") };
        let both: Vec<String> = [budgets, metrics].into_iter().filter(|said| !said.is_empty()).collect();
        (GateOutcome::Pass, both.join(", "))
    };
    Verdict { outcome, exit_code: outcome.code(), sentence, comparison, budgets, metrics, notes }
}
