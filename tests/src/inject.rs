//! Injects hazards under guard's eyes and scores what it says: shot by shot whether the cause is the right one, cycle by
//! cycle whether an unhurt one is accused. Shared by the checks and by the bench.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::{Breach, Snapshot};
use serde::Serialize;

use crate::{
    harness::{Cgroup, GuardRun, Workload, emulated, load_cpu, patience},
    workload::inject::{Hazard, Log, QUOTA_US, Shot, may_raise_nmi},
};

/// How a run is set up on this machine. On an emulated one everything takes longer, noise too.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scale {
    /// From which on guard calls a wake-up late, us.
    pub threshold_us: u64,
    /// The victim's cycle, us.
    pub interval_us: u64,
    /// Length of a shot, us.
    pub harm_us: u64,
}

impl Scale {
    /// For this machine.
    #[must_use]
    pub fn here() -> Self {
        if emulated() {
            Self { threshold_us: 10_000, interval_us: 50_000, harm_us: 80_000 }
        } else {
            Self { threshold_us: 2_000, interval_us: 10_000, harm_us: 16_000 }
        }
    }
}

/// What there is to know of the running kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release.
    pub release: String,
    /// Whether it is PREEMPT_RT.
    pub realtime: bool,
}

impl Kernel {
    /// The running one.
    ///
    /// # Errors
    /// When /proc does not say.
    pub fn running() -> Result<Self> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("read osrelease")?;
        let realtime = std::fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1");
        Ok(Self { release: release.trim().to_owned(), realtime })
    }

    /// Major and minor version.
    fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(['.', '-']).map_while(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// The causes that are right for a hazard.
    #[must_use]
    pub fn truth(&self, hazard: Hazard) -> Vec<&'static str> {
        let rations = Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
        match hazard {
            Hazard::HigherPriority => vec!["higher_priority"],
            Hazard::NonPiLock => vec!["non_pi_lock"],
            Hazard::LockContention => vec!["lock_contention"],
            Hazard::LockHolderPreempted => vec!["lock_holder_preempted"],
            Hazard::ThrottledLockHolder | Hazard::LockChain => vec!["throttled_lock_holder"],
            Hazard::CoThreadThrottled => vec!["co_thread_throttled"],
            // From 6.12 on the fair server, unless real-time groups are rationed (CONFIG_RT_GROUP_SCHED): then either.
            Hazard::RtTaken if rations => vec!["rt_throttling", "fair_server"],
            Hazard::RtTaken if self.version() >= (6, 12) => vec!["fair_server"],
            Hazard::RtTaken => vec!["rt_throttling"],
            Hazard::PolicyFallback => vec!["policy_fallback"],
            Hazard::PageFault => vec!["page_fault"],
            Hazard::SoftTimer => vec!["soft_timer"],
            Hazard::RemoteTimer => vec!["remote_timer"],
            Hazard::LowerPriorityBlocking => vec!["lower_priority_blocking"],
            Hazard::Irq | Hazard::TimerHerd => vec!["irq"],
            Hazard::Nmi => vec!["nmi"],
            Hazard::CpuIdleExit => vec!["cpu_idle_exit"],
            Hazard::Softirq => vec!["softirq"],
        }
    }

    /// Why a hazard cannot be made here; none when it can.
    #[must_use]
    pub fn impossible(&self, hazard: Hazard) -> Option<&'static str> {
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        match hazard {
            Hazard::SoftTimer | Hazard::RemoteTimer if !self.realtime => {
                Some("without PREEMPT_RT every timer expires in the hard interrupt, which no thread holds up")
            }
            Hazard::RemoteTimer | Hazard::Irq | Hazard::Nmi | Hazard::CpuIdleExit if alone => {
                Some("there is only one CPU")
            }
            Hazard::Nmi if !may_raise_nmi() => Some(
                "this kernel has no SysRq or no kprobes, with which a non-maskable interrupt is raised and made long",
            ),
            Hazard::PageFault if !may_fault() => Some("this kernel has no userfaultfd"),
            _ => None,
        }
    }
}

fn may_fault() -> bool {
    crate::sys::userfaultfd().is_ok()
}

/// Causes for which there is no injector, and why.
pub const WITHOUT_INJECTOR: &[(&str, &str)] = &[
    (
        "migration",
        "a move takes microseconds: a cyclic thread whose affinity changed 1,700 or 650,000 times a second was at most 9 us \
         later in the mean, and no later at worst; what a move costs beyond that has another cause",
    ),
    (
        "steal",
        "only the host of a virtual machine takes a CPU away, and an emulator does not say so: its guest counted none of 3 s for \
         which it was stopped",
    ),
];

/// One run: hazards, shots, what guard said.
pub struct Trial {
    /// What the victim logged.
    pub log: Log,
    /// What guard saw.
    pub snapshot: Snapshot,
    /// Path of the cgroup of the thread at the end of a chain.
    pub far: Option<String>,
}

/// Runs hazards under guard, with its flight recorder or without.
///
/// # Errors
/// When the workload or guard fails.
pub fn trial(hazards: &[Hazard], shots: usize, scale: &Scale, seed: u64, recorder: bool) -> Result<Trial> {
    let cgroup = Cgroup::create(&format!("inject{seed}"))?;
    cgroup.allow_rt(400_000)?;
    let far = if hazards.iter().any(|hazard| hazard.wants_far_quota()) {
        let far = cgroup.threads_below("far")?;
        far.set_quota(QUOTA_US.0, QUOTA_US.1)?;
        far.outweigh()?;
        Some(far)
    } else {
        None
    };
    // So that what uses up a quota is not held up by others before.
    cgroup.outweigh()?;
    if hazards.iter().any(|hazard| hazard.wants_quota()) {
        cgroup.set_quota(QUOTA_US.0, QUOTA_US.1)?;
    }
    let names = hazards.iter().map(name).collect::<Result<Vec<_>>>()?;
    let numbers = [
        ("--shots", shots as u64),
        ("--cpu", load_cpu().into()),
        ("--other-cpu", 0),
        ("--interval-us", scale.interval_us),
        ("--harm-us", scale.harm_us),
        ("--herd", herd(hazards)),
        ("--seed", seed),
    ];
    let numbers: Vec<String> = numbers.iter().flat_map(|(name, n)| [(*name).to_owned(), n.to_string()]).collect();
    let far_dir = far.as_ref().map(|far| far.dir().display().to_string());
    let far_cgroup = far_dir.as_deref().map(|dir| ["--far-cgroup", dir]);
    let arguments: Vec<&str> = std::iter::once("inject")
        .chain(names.iter().map(String::as_str))
        .chain(numbers.iter().map(String::as_str))
        .chain(far_cgroup.into_iter().flatten())
        .collect();
    let mut workload = Workload::hold(&arguments)?;
    cgroup.add(workload.pid())?;
    let tid = workload.tid()?;
    let threshold = format!("{}us", scale.threshold_us);
    let recorder = if recorder { "--explain" } else { "--no-explain" };
    let guard = GuardRun::report().tid(tid).with(&[recorder, "--threshold", &threshold]).measure()?;
    workload.go()?;
    let log: Log = workload.last(Duration::from_secs(60 + 10 * shots as u64) * patience())?;
    ensure!(log.victim == tid, "the victim is {} and not {tid}", log.victim);
    let snapshot = guard.stop()?;
    Ok(Trial { log, snapshot, far: far.map(|far| far.path().to_owned()) })
}

fn name(hazard: &Hazard) -> Result<String> {
    use clap::ValueEnum as _;
    Ok(hazard.to_possible_value().context("a hazard without a name")?.get_name().to_owned())
}

/// So many that serving them takes several times the threshold.
fn herd(hazards: &[Hazard]) -> u64 {
    match (hazards.contains(&Hazard::Softirq), emulated()) {
        (false, false) => 4_000,
        (true, false) => 2_000,
        (false, true) => 7_000,
        (true, true) => 40_000,
    }
}

/// What guard said of a shot.
#[derive(Clone, Debug, Serialize)]
pub struct Scored {
    /// What was done.
    pub hazards: Vec<Hazard>,
    /// How late the victim was by its own clock, ns.
    pub own_ns: u64,
    /// The causes that are right.
    pub truth: Vec<&'static str>,
    /// The cause that guard named for its worst breach in the shot; none when it saw none.
    pub named: Option<String>,
    /// guard's sentence.
    pub sentence: Option<String>,
    /// Of two hazards: whether each has at least a tenth of the time in some breach of the shot.
    pub both_seen: Option<bool>,
}

impl Scored {
    /// Whether the cause is right.
    #[must_use]
    pub fn right(&self) -> bool {
        self.named.as_ref().is_some_and(|named| self.truth.contains(&named.as_str()))
    }
}

/// The score of a trial.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Score {
    /// Shots that hurt the victim.
    pub hurt: Vec<Scored>,
    /// Shots that did not, or could not be done.
    pub harmless: usize,
    /// Shots in which the machine itself stood still for a third of the harm or longer: nobody knows what hurt more.
    pub disturbed: usize,
    /// Cycles apart from shots in which the victim was in time.
    pub unhurt: usize,
    /// Those of them of which guard says that it was late.
    pub accused: usize,
    /// What it said of them.
    pub accusations: Vec<String>,
    /// Cycles apart from shots in which the victim was late all the same.
    pub late_by_itself: usize,
    /// What guard said of those: cause → how often.
    pub named_by_itself: BTreeMap<String, usize>,
    /// Breaches whose shares do not add up to their latency within 2 %.
    pub not_adding_up: usize,
    /// Breaches that were not accounted for, because the recorder did not reach back.
    pub unaccounted: usize,
}

/// Scores a trial.
///
/// # Errors
/// When an instant cannot be read.
pub fn score(trial: &Trial, kernel: &Kernel, scale: &Scale) -> Result<Score> {
    let (log, threshold_ns) = (&trial.log, scale.threshold_us * 1000);
    let offset_ns = realtime_minus_monotonic_ns();
    let mut breaches = Vec::new();
    for breach in trial.snapshot.breaches.iter().filter(|breach| breach.tid == log.victim) {
        breaches.push((unix_ns(&breach.at)?.saturating_sub(offset_ns), breach));
    }
    let mut score = Score::default();
    for (_, breach) in &breaches {
        let sum: u64 = breach.shares.values().sum();
        score.not_adding_up += usize::from(sum.abs_diff(breach.latency_ns) * 50 > breach.latency_ns);
        score.unaccounted += usize::from(breach.evidence.parts.is_empty());
    }
    for shot in &log.shots {
        score_shot(shot, log, &breaches, kernel, threshold_ns, &mut score);
    }
    for (due_ns, awake_ns, done_ns) in &log.cycles {
        if log.shots.iter().any(|shot| *due_ns <= shot.end_ns && *done_ns >= shot.begin_ns) {
            continue;
        }
        // What began before it was due, such as a preemption on the way to sleep, the victim does not clock. The clocks
        // of both are compared only so far: an emulated machine may stand still between two readings.
        let said = breaches.iter().find(|(at_ns, breach)| {
            (*due_ns..=*done_ns).contains(at_ns) && at_ns - breach.latency_ns + threshold_ns / 2 >= *due_ns
        });
        if lateness(&(*due_ns, *awake_ns, *done_ns)) < threshold_ns {
            score.unhurt += 1;
            score.accused += usize::from(said.is_some());
            score.accusations.extend(said.map(|(_, breach)| breach.sentence.clone()));
        } else {
            score.late_by_itself += 1;
            let cause = said.map_or("(not seen)", |(_, breach)| breach.cause.as_str());
            *score.named_by_itself.entry(cause.to_owned()).or_insert(0) += 1;
        }
    }
    Ok(score)
}

/// How late a cycle was: at its begin, or because it was held up in its work. What guard can see of it is no more.
fn lateness((due_ns, awake_ns, done_ns): &(u64, u64, u64)) -> u64 {
    awake_ns.saturating_sub(*due_ns).max(done_ns.saturating_sub(*awake_ns))
}

fn score_shot(
    shot: &Shot,
    log: &Log,
    breaches: &[(u64, &Breach)],
    kernel: &Kernel,
    threshold_ns: u64,
    score: &mut Score,
) {
    let within = log.cycles.iter().filter(|(due_ns, _, done_ns)| *due_ns <= shot.end_ns && *done_ns >= shot.begin_ns);
    let own_ns = within.map(lateness).max().unwrap_or(0);
    // Well over the threshold, so that a little more or less at the edges does not decide.
    if !shot.done || own_ns < threshold_ns * 3 / 2 {
        score.harmless += 1;
        return;
    }
    let noise = log.noise.iter().flatten().filter(|(at_ns, ns)| *at_ns <= shot.end_ns && at_ns + ns >= shot.begin_ns);
    if noise.map(|(_, ns)| ns * 3).max().is_some_and(|noise| noise >= own_ns) {
        score.disturbed += 1;
        return;
    }
    // A breach of the shot ends in it.
    let of_shot = || breaches.iter().filter(|(at_ns, _)| (shot.begin_ns..=shot.end_ns).contains(at_ns));
    let worst = of_shot().max_by_key(|(_, breach)| breach.latency_ns).map(|(_, breach)| breach);
    let truth = shot.hazards.iter().flat_map(|hazard| kernel.truth(*hazard)).collect();
    let seen = |hazard: &Hazard| {
        of_shot().any(|(_, breach)| {
            let ns: u64 = kernel.truth(*hazard).iter().filter_map(|cause| breach.shares.get(*cause)).sum();
            ns * 10 >= breach.latency_ns
        })
    };
    score.hurt.push(Scored {
        own_ns,
        truth,
        named: worst.map(|breach| breach.cause.to_string()),
        sentence: worst.map(|breach| breach.sentence.clone()),
        both_seen: (shot.hazards.len() == 2).then(|| shot.hazards.iter().all(seen)),
        hazards: shot.hazards.clone(),
    });
}

fn realtime_minus_monotonic_ns() -> u64 {
    realtime_ns().saturating_sub(guard::sched::now_ns())
}

/// CLOCK_REALTIME, ns since 1970.
pub(crate) fn realtime_ns() -> u64 {
    let realtime = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(realtime.as_nanos()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, as guard writes it, to ns since 1970.
pub(crate) fn unix_ns(text: &str) -> Result<u64> {
    let wrong = || format!("\"{text}\" is no instant of guard's");
    let (date, time) = text.strip_suffix('Z').and_then(|text| text.split_once('T')).with_context(wrong)?;
    let numbers = |text: &str, by: char| text.split(by).map(|n| n.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let (date, clock) = (numbers(date, '-').with_context(wrong)?, numbers(clock, ':').with_context(wrong)?);
    let ([year, month, day], [hour, minute, second]) = (&date[..], &clock[..]) else {
        return Err(anyhow::anyhow!(wrong()));
    };
    // Days from civil, H. Hinnant, https://howardhinnant.github.io/date_algorithms.html
    let shifted = if *month <= 2 { year - 1 } else { *year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u64 = digits.parse().with_context(wrong)?;
    Ok(((days * 24 + hour) * 3_600 + minute * 60 + second) * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read() {
        assert_eq!(unix_ns("1970-01-01T00:00:00Z").unwrap(), 0);
        assert_eq!(unix_ns("2023-11-14T22:13:21.001900Z").unwrap(), 1_700_000_001_001_900_000);
        assert_eq!(unix_ns("2024-02-29T00:00:00.5Z").unwrap(), 1_709_164_800_500_000_000);
        assert!(unix_ns("yesterday").is_err());
    }

    #[test]
    fn a_cycle_is_late_at_its_begin_or_in_its_work() {
        assert_eq!(lateness(&(100, 150, 160)), 50);
        assert_eq!(lateness(&(100, 110, 400)), 290);
    }
}
