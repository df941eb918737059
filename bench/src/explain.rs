//! How often `guard explain` is right: hazards with known ground truth are done to a cyclic thread, one at a time and two
//! at once, with calm between, and what guard names is compared with what was done.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use guard_tests::inject::{self, Kernel, Scale, Score, Scored, WITHOUT_INJECTOR};
use guard_tests::workload::inject::Hazard;
use serde::Serialize;

use crate::table;

/// Injected late wake-ups that are named rightly, percent.
const GOAL_RIGHT: f64 = 95.0;
/// Unhurt wake-ups that are accused, percent.
const GOAL_ACCUSED: f64 = 1.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shots of each hazard, and of each pair
    #[arg(long, default_value_t = 30)]
    shots: usize,
    /// Only these hazards, without pairs
    #[arg(long, value_delimiter = ',')]
    only: Vec<Hazard>,
    /// With the flight recorder, without it, or both, one after the other
    #[arg(long, value_enum, default_value_t = Ways::Both)]
    recorder: Ways,
    /// Print guard's sentence for each shot that it named wrongly
    #[arg(long)]
    wrong: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Ways {
    Both,
    With,
    Without,
}

/// Each alone.
const ALONE: [Hazard; 18] = [
    Hazard::HigherPriority,
    Hazard::NonPiLock,
    Hazard::LockContention,
    Hazard::LockHolderPreempted,
    Hazard::ThrottledLockHolder,
    Hazard::LockChain,
    Hazard::CoThreadThrottled,
    Hazard::RtTaken,
    Hazard::PolicyFallback,
    Hazard::PageFault,
    Hazard::SoftTimer,
    Hazard::RemoteTimer,
    Hazard::LowerPriorityBlocking,
    Hazard::Irq,
    Hazard::TimerHerd,
    Hazard::Softirq,
    Hazard::Nmi,
    Hazard::CpuIdleExit,
];

/// Two that come apart and at once.
const PAIRS: [[Hazard; 2]; 3] = [
    [Hazard::HigherPriority, Hazard::NonPiLock],
    [Hazard::HigherPriority, Hazard::ThrottledLockHolder],
    [Hazard::PageFault, Hazard::LockHolderPreempted],
];

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    kernel: String,
    scale: Scale,
    /// What was done → what guard named → how often.
    confusion: BTreeMap<String, BTreeMap<String, usize>>,
    hurt: usize,
    right: usize,
    right_percent: f64,
    unhurt: usize,
    accused: usize,
    accused_percent: f64,
    accusations: Vec<String>,
    harmless_shots: usize,
    disturbed_shots: usize,
    late_without_shot: usize,
    named_without_shot: BTreeMap<String, usize>,
    not_adding_up: usize,
    unaccounted: usize,
    /// Shots of two hazards at once, and those of them of which both have a share.
    both: usize,
    both_seen: usize,
    skipped: BTreeMap<String, String>,
    failed: BTreeMap<String, String>,
    shots: Vec<Scored>,
    /// Whether the flight recorder ran.
    recorder: bool,
    /// The same by the records alone, where both were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    without_recorder: Option<Box<Figures>>,
}

/// Figures, and whether the goals are reached: with the recorder, if it was to run at all.
pub(crate) fn run(args: &Args) -> Result<(Figures, bool)> {
    if args.recorder != Ways::Both {
        return run_one_way(args, args.recorder == Ways::With);
    }
    println!("with the flight recorder");
    let (mut figures, reached) = run_one_way(args, true)?;
    println!("without the flight recorder");
    figures.without_recorder = Some(Box::new(run_one_way(args, false)?.0));
    Ok((figures, reached))
}

fn run_one_way(args: &Args, recorder: bool) -> Result<(Figures, bool)> {
    let (kernel, scale) = (Kernel::running()?, Scale::here());
    println!("kernel {}, late from {} us on, shots of {} us", kernel.release, scale.threshold_us, scale.harm_us);
    let mut runs: Vec<Vec<Hazard>> = if args.only.is_empty() { ALONE.to_vec() } else { args.only.clone() }
        .into_iter()
        .map(|hazard| vec![hazard])
        .collect();
    if args.only.is_empty() {
        runs.extend(PAIRS.iter().map(|pair| pair.to_vec()));
    }
    let mut all = Score::default();
    let mut skipped: BTreeMap<String, String> =
        WITHOUT_INJECTOR.iter().map(|(cause, why)| ((*cause).to_owned(), (*why).to_owned())).collect();
    let mut failed = BTreeMap::new();
    for (number, hazards) in runs.iter().enumerate() {
        let name = label(hazards);
        if let Some(why) = hazards.iter().find_map(|hazard| kernel.impossible(*hazard)) {
            skipped.insert(name, why.to_owned());
            continue;
        }
        let scored = inject::trial(hazards, args.shots, &scale, number as u64 + 1, recorder)
            .and_then(|trial| inject::score(&trial, &kernel, &scale));
        match scored {
            Ok(score) => {
                let right = score.hurt.iter().filter(|shot| shot.right()).count();
                println!(
                    "{name}: {right} of {} named rightly; {} harmless, {} disturbed; {} of {} unhurt cycles accused; {} late by themselves",
                    score.hurt.len(),
                    score.harmless,
                    score.disturbed,
                    score.accused,
                    score.unhurt,
                    score.late_by_itself
                );
                if args.wrong {
                    for sentence in &score.accusations {
                        println!("    accused: {sentence}");
                    }
                    for shot in score.hurt.iter().filter(|shot| !shot.right()) {
                        println!("    {} us: {}", shot.own_ns / 1000, shot.sentence.as_deref().unwrap_or("no breach"));
                    }
                }
                add(&mut all, score);
            }
            Err(error) => {
                println!("{name}: FAILED: {error:#}");
                failed.insert(name, format!("{error:#}"));
            }
        }
    }
    let figures = Figures { recorder, ..figures(kernel.release, scale, all, skipped, failed) };
    print(&figures);
    let reached = figures.right_percent >= GOAL_RIGHT
        && figures.accused_percent <= GOAL_ACCUSED
        && figures.not_adding_up == 0
        && figures.failed.is_empty();
    Ok((figures, reached))
}

fn label(hazards: &[Hazard]) -> String {
    let name = |hazard: &Hazard| serde_json::to_value(hazard).ok()?.as_str().map(str::to_owned);
    hazards.iter().filter_map(name).collect::<Vec<_>>().join(" + ")
}

fn add(all: &mut Score, one: Score) {
    all.hurt.extend(one.hurt);
    all.harmless += one.harmless;
    all.disturbed += one.disturbed;
    all.unhurt += one.unhurt;
    all.accused += one.accused;
    all.accusations.extend(one.accusations);
    all.late_by_itself += one.late_by_itself;
    all.not_adding_up += one.not_adding_up;
    all.unaccounted += one.unaccounted;
    for (cause, count) in one.named_by_itself {
        *all.named_by_itself.entry(cause).or_insert(0) += count;
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a bench")]
fn percent(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

fn figures(
    kernel: String,
    scale: Scale,
    all: Score,
    skipped: BTreeMap<String, String>,
    failed: BTreeMap<String, String>,
) -> Figures {
    let mut confusion: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for shot in &all.hurt {
        let named = shot.named.clone().unwrap_or_else(|| "(no breach)".to_owned());
        *confusion.entry(label(&shot.hazards)).or_default().entry(named).or_insert(0) += 1;
    }
    let right = all.hurt.iter().filter(|shot| shot.right()).count();
    let both: Vec<bool> = all.hurt.iter().filter_map(|shot| shot.both_seen).collect();
    Figures {
        kernel,
        scale,
        confusion,
        hurt: all.hurt.len(),
        right,
        right_percent: percent(right, all.hurt.len()),
        unhurt: all.unhurt,
        accused: all.accused,
        accused_percent: percent(all.accused, all.unhurt),
        accusations: all.accusations,
        harmless_shots: all.harmless,
        disturbed_shots: all.disturbed,
        late_without_shot: all.late_by_itself,
        named_without_shot: all.named_by_itself,
        not_adding_up: all.not_adding_up,
        unaccounted: all.unaccounted,
        both: both.len(),
        both_seen: both.iter().filter(|seen| **seen).count(),
        skipped,
        failed,
        shots: all.hurt,
        recorder: true,
        without_recorder: None,
    }
}

fn print(figures: &Figures) {
    let named: BTreeSet<&str> = figures.confusion.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
    let head: Vec<&str> = std::iter::once("done \\ named").chain(named.iter().copied()).collect();
    let rows: Vec<Vec<String>> = figures
        .confusion
        .iter()
        .map(|(done, counts)| {
            let cells = named.iter().map(|name| counts.get(*name).map_or_else(|| "-".to_owned(), usize::to_string));
            std::iter::once(done.clone()).chain(cells).collect()
        })
        .collect();
    table::print(&head, &rows);
    println!(
        "named rightly: {} of {} ({:.1} %, goal {GOAL_RIGHT} %); unhurt accused: {} of {} ({:.2} %, goal {GOAL_ACCUSED} %)",
        figures.right, figures.hurt, figures.right_percent, figures.accused, figures.unhurt, figures.accused_percent
    );
    println!(
        "two at once: {} shots, both have a share in {}; shots without harm: {}, disturbed by the machine: {}; late without a shot: {} {:?}; shares that \
         do not add up: {}; not accounted for: {}",
        figures.both,
        figures.both_seen,
        figures.harmless_shots,
        figures.disturbed_shots,
        figures.late_without_shot,
        figures.named_without_shot,
        figures.not_adding_up,
        figures.unaccounted
    );
    for (what, why) in &figures.skipped {
        println!("skipped: {what}: {why}");
    }
}
