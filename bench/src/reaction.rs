//! How fast guard acts: from the first throttle of a PLC cgroup to its lifted quota, and from a late wake-up of a PLC to the
//! smaller quota of best-effort work. Neither is asked of guard: throttles are timed by the kernel (cpu.stat), late wake-ups
//! by the thread that caused them, quotas are read from their files.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use guard::sched::now_ns;
use guard::snapshot::{Class, Snapshot};
use guard_tests::harness::{self, Cgroup, Enforcing, Workload, load_cpu};
use serde::Serialize;

use crate::table;

const QUOTA_US: u64 = 20_000;
const PERIOD_US: u64 = 100_000;
/// From the first throttle to the lifted quota, p99.
const GOAL_THROTTLE_US: u64 = PERIOD_US;
/// From a late wake-up to the smaller quota, p99.
const GOAL_BREACH_US: u64 = 20_000;
/// What a round may take at most before it counts as not answered.
const UNANSWERED: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Throttled PLC cgroups
    #[arg(long, default_value_t = 100)]
    throttles: usize,
    /// Late wake-ups
    #[arg(long, default_value_t = 25)]
    breaches: usize,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// First throttle of a PLC cgroup until its quota is lifted.
    throttle: Distribution,
    /// Rounds of it whose quota was lifted before the kernel counted any throttled time: they have no reaction.
    lifted_before: usize,
    /// Late wake-up of a PLC until the quota of best-effort work is smaller.
    breach: Distribution,
    /// Rounds of it whose late wake-up the kernel did not show.
    unseen: usize,
}

/// A reaction time.
#[derive(Debug, Serialize)]
pub(crate) struct Distribution {
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
    goal_p99_us: u64,
    /// Each round, ascending, us.
    rounds_us: Vec<u64>,
}

impl Distribution {
    pub(crate) fn of(mut rounds_us: Vec<u64>, goal_p99_us: u64) -> Result<Self> {
        rounds_us.sort_unstable();
        let last = rounds_us.len().checked_sub(1).context("no rounds")?;
        // Nearest rank, so that the p99 of fewer than a hundred rounds is the largest.
        let rank = |percent: usize| rounds_us[(rounds_us.len() * percent).div_ceil(100).clamp(1, last + 1) - 1];
        let (p50_us, p90_us, p99_us, max_us) = (rank(50), rank(90), rank(99), rounds_us[last]);
        Ok(Self { p50_us, p90_us, p99_us, max_us, goal_p99_us, rounds_us })
    }

    pub(crate) fn reached(&self) -> bool {
        self.p99_us <= self.goal_p99_us
    }

    pub(crate) fn row(&self, name: &str) -> Vec<String> {
        let figures = [self.p50_us, self.p90_us, self.p99_us, self.max_us, self.goal_p99_us];
        let verdict = if self.reached() { "reached" } else { "MISSED" };
        let cells = figures.map(|us| format!("{us} us"));
        [name.to_owned(), self.rounds_us.len().to_string()]
            .into_iter()
            .chain(cells)
            .chain([verdict.to_owned()])
            .collect()
    }
}

/// Figures, and whether the goals are reached.
pub(crate) fn run(args: &Args) -> Result<(Figures, bool)> {
    let measured = throttles(args.throttles)?;
    let lifted_before = args.throttles - measured.len();
    let throttle = Distribution::of(measured, GOAL_THROTTLE_US)
        .with_context(|| format!("all {lifted_before} quotas were lifted before the kernel counted a throttle"))?;
    let (measured, unseen) = breaches(args.breaches)?;
    let breach = Distribution::of(measured, GOAL_BREACH_US)?;
    table::print(
        &["reaction", "rounds", "p50", "p90", "p99", "max", "goal p99", ""],
        &[throttle.row("throttled PLC to lifted quota"), breach.row("late PLC to smaller BE quota")],
    );
    println!("{lifted_before} quotas were lifted before the kernel counted a throttle, and are not in the figures");
    println!("{unseen} late wake-ups were not shown by the kernel, and are not in the figures");
    // A distribution of what happened in the lesser part of the rounds says nothing.
    let reached = 2 * lifted_before < args.throttles && throttle.reached() && breach.reached();
    Ok((Figures { throttle, lifted_before, breach, unseen }, reached))
}

/// A PLC cgroup with a quota that nothing has used up so far.
pub(crate) struct Plc {
    // The workload goes before the cgroup.
    _cycle: Workload,
    pub(crate) cgroup: Cgroup,
}

impl Plc {
    pub(crate) fn new(name: &str, cpu: &str) -> Result<Self> {
        let cgroup = Cgroup::create(name)?;
        // Where the kernel rations SCHED_FIFO per cgroup: so little that many fit into the root's share.
        cgroup.allow_rt(4_000)?;
        cgroup.set_quota(QUOTA_US, PERIOD_US)?;
        let cycle = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", "100000"];
        let mut cycle = Workload::hold(&[&cycle[..], &["--cycles", "1000000", "--cpu", cpu]].concat())?;
        cgroup.add(cycle.pid())?;
        cycle.go()?;
        Ok(Self { _cycle: cycle, cgroup })
    }
}

/// guard lifts a quota at first sight unless it is told to wait for the first throttle. Returns the rounds in which the
/// kernel counted throttled time.
fn throttles(rounds: usize) -> Result<Vec<u64>> {
    let mut guard = Enforcing::start(Some("[protect]\nwhen = \"throttled\"\n"))?;
    let cpu = load_cpu().to_string();
    let mut plcs = Vec::new();
    for round in 0..rounds {
        plcs.push(Plc::new(&format!("plc{round}"), &cpu)?);
    }
    harness::until("all are known as PLC", UNANSWERED * 4, || {
        let last = guard.snapshots()?.last().cloned();
        let known = |plc: &Plc| {
            last.iter().flat_map(|s| &s.cgroups).any(|c| c.path == plc.cgroup.path() && c.class == Class::Plc)
        };
        Ok(plcs.iter().all(known).then_some(()))
    })?;
    let mut reactions_us = Vec::with_capacity(rounds);
    for plc in &plcs {
        let before = plc.cgroup.cpu_stat()?;
        let mut spinner = Workload::hold(&["spin", "--seconds", "60", "--cpu", &cpu])?;
        plc.cgroup.add(spinner.pid())?;
        let quota = plc.cgroup.quota_text()?;
        spinner.go()?;
        until_changed(&plc.cgroup, &quota, "lifted").with_context(|| format!("round {}", reactions_us.len()))?;
        let throttled_us = plc.cgroup.cpu_stat()?.since(before).throttled_ns / 1000;
        if throttled_us == 0 {
            continue;
        }
        // One spinner on one CPU: after a throttle that the period ended it ran for another quota.
        let throttles = throttled_us.div_ceil(PERIOD_US - QUOTA_US);
        reactions_us.push(throttled_us + (throttles - 1) * QUOTA_US);
    }
    guard.stop()?;
    Ok(reactions_us)
}

/// Waits until a quota is another one than `before`, looking often enough for the time of the change. Returns that time.
pub(crate) fn until_changed(cgroup: &Cgroup, before: &str, what: &str) -> Result<u64> {
    let end = Instant::now() + UNANSWERED;
    while Instant::now() < end {
        if cgroup.quota_text()? != before {
            return Ok(now_ns());
        }
        sleep(Duration::from_micros(100));
    }
    bail!("the quota \"{before}\" of {} was not {what} within {UNANSWERED:?}", cgroup.path())
}

/// A hog with a higher priority makes the PLC late. What remains of the best-effort allowance shrinks by a tenth each time,
/// so that there are many rounds before its floor. Returns the reactions, and how many late wake-ups guard did not get to
/// see.
fn breaches(rounds: usize) -> Result<(Vec<u64>, usize)> {
    const LATE: &str = "2ms";
    const HOG_SECONDS: &str = "0.01";
    let cpu = load_cpu().to_string();
    let (plc, be, others) = (Cgroup::create("late")?, Cgroup::create("be")?, Cgroup::create("hog")?);
    plc.allow_rt(50_000)?;
    others.allow_rt(400_000)?;
    let configuration = format!(
        "[[workload]]\nmatch.cgroup = \"{}\"\nclass = \"BE\"\n\n[[workload]]\nmatch.cgroup = \"{}\"\nclass = \"PLC\"\n\
         wakeup.max = \"{LATE}\"\n\n[[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n\n[suppress.latency]\n\
         cut_percent = 90\n",
        be.path(),
        plc.path()
    );
    let mut cycle = Workload::hold(&[
        "cycle",
        "clock-nanosleep-abs",
        "--policy",
        "fifo:80",
        "--interval-us",
        "1000",
        "--cycles",
        "1000000",
        "--cpu",
        &cpu,
    ])?;
    plc.add(cycle.pid())?;
    let mut load = Workload::hold(&["spin", "--threads", "2", "--seconds", "3600"])?;
    be.add(load.pid())?;
    cycle.go()?;
    load.go()?;
    let mut guard = Enforcing::start(Some(&configuration))?;
    let (mut reactions_us, mut unseen) = (Vec::with_capacity(rounds), 0);
    while reactions_us.len() < rounds {
        if be_allowance_us(&be)?.is_some_and(|us| us < NEARLY_NOTHING_US) {
            // Other late wake-ups are answered, too. A new guard begins with the whole node.
            guard.stop()?;
            guard = Enforcing::start(Some(&configuration))?;
        }
        guard.passed(2)?;
        let mut hog = Workload::hold(&["spin", "--policy", "fifo:90", "--seconds", HOG_SECONDS, "--cpu", &cpu])?;
        others.add(hog.pid())?;
        let (before, quota) = (guard.snapshots()?.len(), be.quota_text()?);
        hog.go()?;
        let changed_ns = until_changed(&be, &quota, "cut");
        let late_ns = hog.outcome(UNANSWERED)?.counter("ended_ns")?;
        match changed_ns {
            Ok(changed_ns) => reactions_us.push(changed_ns.saturating_sub(late_ns) / 1000),
            // This kernel may not have shown the switch.
            Err(_) if !was_seen(&guard.snapshots()?[before..], plc.path()) && unseen < rounds / 5 => unseen += 1,
            Err(error) => return Err(error.context(unanswered(reactions_us.len(), guard.snapshots()?, plc.path()))),
        }
    }
    guard.stop()?;
    Ok((reactions_us, unseen))
}

/// Below this a cut by a tenth may be none, us of [`PERIOD_US`].
const NEARLY_NOTHING_US: u64 = 8_000;

/// The quota of best-effort work, us; None for none.
fn be_allowance_us(be: &Cgroup) -> Result<Option<u64>> {
    let text = be.quota_text()?;
    Ok(text.split_whitespace().next().and_then(|word| word.parse().ok()))
}

/// Whether guard saw the PLC late by as much as a hog makes it.
fn was_seen(snapshots: &[Snapshot], plc: &str) -> bool {
    let mut breaches = snapshots.iter().flat_map(|snapshot| &snapshot.breaches);
    breaches.any(|breach| breach.cgroup == plc && breach.latency_ns > 5_000_000)
}

/// What guard has to say of a round that it did not answer.
fn unanswered(round: usize, snapshots: &[Snapshot], plc: &str) -> String {
    let last = snapshots.iter().rev().take(6).rev();
    let said: Vec<String> = last
        .map(|snapshot| {
            let late = snapshot.breaches.iter().filter(|breach| breach.cgroup == plc);
            let late: Vec<u64> = late.map(|breach| breach.latency_ns / 1000).collect();
            let actions: Vec<String> = snapshot
                .actions
                .iter()
                .map(|action| format!("{} {} {}", action.at, action.new, action.result))
                .collect();
            format!(
                "{}: late by {late:?} us, did {actions:?}, lost {:?}",
                snapshot.window.start, snapshot.overhead.lost
            )
        })
        .collect();
    format!("round {round}; {}", said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks_and_the_last_of_few_rounds_is_the_worst() {
        let many = Distribution::of((1..=200).rev().collect(), 198).unwrap();
        assert_eq!((many.p50_us, many.p90_us, many.p99_us, many.max_us), (100, 180, 198, 200));
        assert!(many.reached());
        let few = Distribution::of(vec![5, 1, 9], 8).unwrap();
        assert_eq!((few.p50_us, few.p99_us), (5, 9));
        assert!(!few.reached());
        assert!(Distribution::of(Vec::new(), 1).is_err());
    }
}
