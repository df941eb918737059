//! `guard gate`: judge runs against budgets and a baseline.

use std::path::PathBuf;

use clap::Args;
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::exit::{Exit, Failure};
use super::output::{self, Target};
use crate::gate::{
    self, Budgets, Fact, GateOutcome, GateSettings, History, Metric, Run, Smallest, Verdict,
    render::{self, VerdictFormat},
};

/// Judge runs against budgets and a baseline
///
/// Takes guard's own reports (`guard report --format json`), cyclictest's `--json` and histograms, and the histograms of
/// `rtla timerlat hist` and `rtla osnoise hist`, one run per file. Says whether they are comparable at all, whether each
/// run of the candidate keeps its budgets, and whether the candidate is slower than the baseline by as much as matters and
/// not by chance. Measures nothing, needs no root.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Runs to be judged: files, or directories with one file per run.
    #[arg(value_name = "CANDIDATE")]
    candidates: Vec<PathBuf>,
    /// Runs to compare with: a file, a directory, or a history that --update-baseline keeps. May be repeated.
    #[arg(long, value_name = "PATH")]
    baseline: Vec<PathBuf>,
    /// Limits that every run of the candidate must keep (TOML).
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    /// What to print: table, json, markdown, junit or github.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: VerdictFormat,
    /// Write the verdict to a file as well. May be repeated.
    #[arg(long, value_name = "FORMAT=FILE", value_parser = form_and_file)]
    output: Vec<(VerdictFormat, PathBuf)>,
    /// Figures to judge, of p50, p90, p99, p999, p9999 and max [default: p99,p999,max]. Those named must be judged: a run that
    /// lacks one is too little data.
    #[arg(long, value_name = "METRIC,…", value_delimiter = ',')]
    metric: Vec<Metric>,
    /// Judge only workloads that this pattern matches. May be repeated. Those named must be judged.
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    workload: Vec<Glob>,
    /// Judge also single threads, and cgroups of the system.
    #[arg(long)]
    each: bool,
    /// Let runs differ in these: instrument, options, kernel, realtime, arch, cpu_model, cpus, cmdline, governor, label,
    /// latencies.
    #[arg(long, value_name = "FACT,…", value_delimiter = ',')]
    allow_different: Vec<Fact>,
    /// Chance of a false alarm, over all figures together.
    #[arg(long, value_name = "FRACTION", default_value = "0.005", value_parser = level)]
    level: f64,
    /// The smallest slow-down of a figure that matters: "p99=5%" or "p99=5%,2us". May be repeated.
    #[arg(long, value_name = "METRIC=PERCENT[,TIME]", value_parser = smallest)]
    smallest: Vec<(Metric, f64, Option<f64>)>,
    /// Start of the random numbers; the same start gives the same verdict.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Add the candidate's runs to this history, unless they are a regression or not comparable. Without --baseline and
    /// --budget they are only added.
    #[arg(long, value_name = "FILE")]
    update_baseline: Option<PathBuf>,
    /// Say how many runs it takes to see a shift, estimated from --baseline, and judge nothing.
    #[arg(long, conflicts_with_all = ["candidates", "budget", "output", "update_baseline"])]
    explain: bool,
    /// Print the JSON schema of the verdict as JSON, and judge nothing.
    #[arg(long)]
    json_schema: bool,
    /// With --explain: the shifts to see.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', default_value = "5%,10%,20%,50%", value_parser = shift)]
    shift: Vec<f64>,
}

const AFTER_HELP: &str = "\
Examples:
  guard gate --budget budget.toml run.json
  guard gate --baseline baseline/ candidate/
  guard gate --baseline history.jsonl --update-baseline history.jsonl candidate/
  guard gate --baseline old/ new/ --format github --output markdown=summary.md --output junit=gate.xml
  guard gate --explain --baseline history.jsonl

Exit codes: 0 pass, 1 regression or over budget, 2 wrong usage or a file that is no run, 3 not comparable,
4 too little data, 70 a defect of guard. How it decides, and the budget file: docs/gate.md.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.json_schema {
        let schema = serde_json::to_string_pretty(&gate::json_schema())?;
        output::stdout(&(schema + "\n"))?;
        return Ok(Exit::Done);
    }
    let settings = settings(arguments)?;
    if arguments.explain {
        let (baseline, empty) = runs(&arguments.baseline)?;
        note(empty);
        output::stdout(&render::explanation(&gate::explain(&baseline, &arguments.shift, &settings)))?;
        return Ok(Exit::Done);
    }
    let judges = !arguments.baseline.is_empty() || arguments.budget.is_some();
    if arguments.candidates.is_empty() || !(judges || arguments.update_baseline.is_some()) {
        return Err(Failure::Usage(
            "want runs to judge, and --baseline PATH or --budget FILE to judge them by: guard gate --baseline old/ new/"
                .to_owned(),
        ));
    }
    let (candidate, mut empty) = runs(&arguments.candidates)?;
    if candidate.is_empty() {
        return Err(Failure::Usage(empty.join("; ")));
    }
    if !judges {
        note(empty);
        note(candidate.iter().flat_map(|run| run.notes.iter().map(move |said| format!("{}: {said}", run.source))));
        update(arguments, &candidate)?;
        return Ok(Exit::Done);
    }
    let outputs = arguments.output.iter().map(|(format, path)| Ok((*format, Target::open(Some(path))?)));
    let outputs = outputs.collect::<Result<Vec<_>, Failure>>()?;
    let budgets = arguments.budget.as_deref().map(Budgets::read).transpose()?;
    let (baseline, empty_baseline) = runs(&arguments.baseline)?;
    empty.extend(empty_baseline);
    let baseline = if arguments.baseline.is_empty() { None } else { Some(baseline) };
    let mut verdict = gate::judge(baseline, candidate.clone(), budgets.as_ref(), &settings);
    verdict.notes.extend(empty);
    report(&verdict, arguments.format, outputs)?;
    if matches!(verdict.outcome, GateOutcome::Pass | GateOutcome::TooLittleData) {
        update(arguments, &candidate)?;
    }
    Ok(match verdict.outcome {
        GateOutcome::Pass => Exit::Done,
        GateOutcome::Regression => Exit::Found,
        GateOutcome::NotComparable => Exit::Node,
        GateOutcome::TooLittleData => Exit::TooLittleData,
    })
}

fn settings(arguments: &Arguments) -> Result<GateSettings, Failure> {
    let mut settings = GateSettings {
        metrics: arguments.metric.clone(),
        workloads: globs(&arguments.workload)?,
        each: arguments.each,
        allowed: arguments.allow_different.iter().copied().collect(),
        level: arguments.level,
        seed: arguments.seed,
        ..GateSettings::default()
    };
    for (metric, fraction, ns) in &arguments.smallest {
        let ns = ns.unwrap_or(settings.smallest(*metric).ns);
        settings.smallest.insert(*metric, Smallest { fraction: *fraction, ns });
    }
    settings.metrics.sort_unstable();
    settings.metrics.dedup();
    Ok(settings)
}

/// The runs in all of these; and what to tell of those in which there is none.
fn runs(paths: &[PathBuf]) -> Result<(Vec<Run>, Vec<String>), Failure> {
    let (mut all, mut empty) = (Vec::new(), Vec::new());
    for path in paths {
        let found = gate::read(path)?;
        if found.is_empty() {
            empty.push(gate::nothing_in(path));
        }
        all.extend(found);
    }
    Ok((all, empty))
}

/// Tells what the user should know where no verdict carries it.
fn note(notes: impl IntoIterator<Item = String>) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

fn report(verdict: &Verdict, format: VerdictFormat, outputs: Vec<(VerdictFormat, Target)>) -> Result<(), Failure> {
    for (format, target) in outputs {
        target.write(&format.render(verdict)?)?;
    }
    output::stdout(&format.render(verdict)?)
}

/// Adds the candidate's runs to the history that the user named, if any.
fn update(arguments: &Arguments, candidate: &[Run]) -> Result<(), Failure> {
    let Some(path) = &arguments.update_baseline else { return Ok(()) };
    let mut history = History::read(path)?;
    let added = history.add(candidate, &jiff::Timestamp::now().to_string())?;
    if added > 0 {
        Target::open(Some(path))?.write(&history.text())?;
    }
    eprintln!("{}: {added} runs added", path.display());
    Ok(())
}

fn form_and_file(text: &str) -> Result<(VerdictFormat, PathBuf), String> {
    let (format, file) = text.split_once('=').ok_or("want FORMAT=FILE, such as junit=gate.xml")?;
    if file.is_empty() {
        return Err("want a file after the =".to_owned());
    }
    Ok((format.parse()?, file.into()))
}

fn glob(text: &str) -> Result<Glob, String> {
    Glob::new(text).map_err(|error| error.to_string())
}

fn globs(globs: &[Glob]) -> Result<Option<GlobSet>, Failure> {
    if globs.is_empty() {
        return Ok(None);
    }
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        builder.add(glob.clone());
    }
    builder.build().map(Some).map_err(|error| Failure::Usage(format!("--workload: {error}")))
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.parse().ok().filter(|level: &f64| (1e-6..=0.5).contains(level));
    level.ok_or_else(|| "want a fraction of 0.000001 to 0.5, such as 0.01".to_owned())
}

/// "5%" as 0.05.
fn percentage(text: &str) -> Option<f64> {
    let percent: f64 = text.trim().strip_suffix('%')?.trim_end().parse().ok()?;
    (0.0..=1e6).contains(&percent).then_some(percent / 100.0)
}

fn shift(text: &str) -> Result<f64, String> {
    percentage(text).filter(|fraction| *fraction > 0.0).ok_or_else(|| "want a percentage, such as 10%".to_owned())
}

#[allow(clippy::cast_precision_loss, reason = "times that matter are far below 2^53 ns")]
fn smallest(text: &str) -> Result<(Metric, f64, Option<f64>), String> {
    let wrong = || "want METRIC=PERCENT or METRIC=PERCENT,TIME, such as p99=5%,2us".to_owned();
    let (metric, values) = text.split_once('=').ok_or_else(wrong)?;
    let (fraction, time) = values.split_once(',').map_or((values, None), |(fraction, time)| (fraction, Some(time)));
    let ns = time.map(|time| super::arguments::duration(time).map(|time| time.as_nanos() as f64)).transpose()?;
    Ok((metric.parse()?, percentage(fraction).ok_or_else(wrong)?, ns))
}
