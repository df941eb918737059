//! What cyclictest's options say, and what they mean together: which threads there are.

use super::error::OptionError;
use crate::snapshot::CpuList;

/// What the value of an option with CPUs is.
pub(super) const CPUS: &str = "a list of CPUs such as 0-3,5, or ! and a list";
/// Largest histogram, in rows; cyclictest cuts a larger wish down to it.
const HISTOGRAM_MAX: u64 = 1_000_000;
/// Default length of a cycle, us.
const INTERVAL_US: u64 = 1_000;
/// By how much each thread's cycle is longer than the one before, us.
const DISTANCE_US: u64 = 500;

/// What was asked for, before it is known which CPUs there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// CPUs to go round (`-a` with a value).
    pub affinity: Option<String>,
    /// CPUs of the main thread (`--mainaffinity`).
    pub main_affinity: Option<String>,
    /// Threads; `None` is one for each CPU.
    pub threads: Option<u64>,
    /// `-S`: one thread for each CPU.
    pub smp: bool,
    /// Priority of the first thread; 0 is none.
    pub priority: u64,
    /// Policy that was asked for.
    pub policy: PolicyName,
    /// Each thread has one priority less than the one before.
    pub priospread: bool,
    /// Length of the first thread's cycle, us.
    pub interval_us: u64,
    /// By how much each cycle is longer than the one before, us.
    pub distance_us: Option<u64>,
    /// How long to measure, s; 0 is without end.
    pub duration_s: u64,
    /// Cycles after which a thread ends; 0 is without end.
    pub loops: u64,
    /// Rows of the histogram; 0 is none.
    pub histogram: u64,
    /// `-H`: with a column of sums.
    pub sums: bool,
    /// `--histfile`.
    pub histfile: Option<String>,
    /// `--json`.
    pub json: Option<String>,
    /// Threads wait on CLOCK_REALTIME instead of CLOCK_MONOTONIC.
    pub realtime_clock: bool,
    /// How threads wait.
    pub wait: Wait,
    /// Cycles begin together.
    pub aligned: Option<Aligned>,
    /// Lock all memory.
    pub mlockall: bool,
    /// Latency above which measuring ends, in the unit of the figures; 0 is none.
    pub break_at: u64,
    /// Figures in ns instead of us.
    pub nsecs: bool,
    /// Only a summary at the end.
    pub quiet: bool,
    /// Every value on a line of its own.
    pub verbose: bool,
    /// Of so many values only the largest is shown (`-o`, with `-v`).
    pub oscope: u64,
    /// Draw only when there is a new maximum.
    pub refresh_on_max: bool,
    /// The request to power management.
    pub latency: LatencyTarget,
    /// guard's own: the cgroup that the measuring threads are put into.
    pub cgroup: Option<String>,
    /// guard's own: what guard's programs in the kernel see of the same threads.
    pub passive: bool,
}

/// How a measuring thread waits for its next cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// clock_nanosleep until an instant.
    Absolute,
    /// clock_nanosleep for a time (`-r`).
    Relative,
    /// nanosleep (`-s`).
    Nanosleep,
}

/// Where cycles begin when they begin together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aligned {
    /// `-A`: each thread this many us after the one before.
    Apart(u64),
    /// `--secaligned`: all of them this many us after a full second.
    Second(u64),
}

/// The request to /dev/cpu_dma_latency while measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyTarget {
    /// This many us.
    Us(u32),
    /// Nothing, to save the battery (`--laptop`).
    Laptop,
    /// Nothing, to see the node as it is (`--default-system`).
    DefaultSystem,
}

/// A scheduling policy, by cyclictest's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyName {
    /// SCHED_OTHER.
    Other,
    /// SCHED_FIFO.
    Fifo,
    /// SCHED_RR.
    Rr,
    /// SCHED_BATCH, which cyclictest takes for SCHED_OTHER.
    Batch,
    /// SCHED_IDLE, which cyclictest takes for SCHED_OTHER.
    Idle,
}

impl PolicyName {
    /// By the first letters, in any case. What is not known is "other" to cyclictest, and an error here.
    pub(super) fn named(text: &str) -> Option<Self> {
        let all = [
            ("other", Self::Other),
            ("normal", Self::Other),
            ("batch", Self::Batch),
            ("idle", Self::Idle),
            ("fifo", Self::Fifo),
            ("rr", Self::Rr),
        ];
        let text = text.to_ascii_lowercase();
        all.into_iter().find(|(name, _)| text.starts_with(name)).map(|(_, policy)| policy)
    }

    /// cyclictest's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Fifo => "fifo",
            Self::Rr => "rr",
            Self::Batch => "batch",
            Self::Idle => "idle",
        }
    }

    /// Whether it has priorities.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::Rr)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            affinity: None,
            main_affinity: None,
            threads: Some(1),
            smp: false,
            priority: 0,
            policy: PolicyName::Other,
            priospread: false,
            interval_us: INTERVAL_US,
            distance_us: None,
            duration_s: 0,
            loops: 0,
            histogram: 0,
            sums: false,
            histfile: None,
            json: None,
            realtime_clock: false,
            wait: Wait::Absolute,
            aligned: None,
            mlockall: false,
            break_at: 0,
            nsecs: false,
            quiet: false,
            verbose: false,
            oscope: 1,
            refresh_on_max: false,
            latency: LatencyTarget::Us(0),
            cgroup: None,
            passive: false,
        }
    }
}

impl Options {
    /// What the options mean together, with cyclictest's warnings.
    pub(super) fn settle(&mut self, warnings: &mut Vec<String>) -> Result<(), OptionError> {
        if self.oscope > 1 && !self.verbose {
            return Err(OptionError::Together("--oscope shows values that are printed by --verbose only"));
        }
        if self.smp {
            if self.threads != Some(1) {
                warnings.push("-t ignored due to smp mode".to_owned());
            }
            if self.affinity.take().is_some() {
                warnings.push("-a ignored due to smp mode".to_owned());
            }
            self.threads = None;
        }
        self.histogram = self.histogram.min(HISTOGRAM_MAX);
        if self.histogram > 0 {
            if self.distance_us.is_some() {
                warnings.push("distance is ignored and set to 0, if histogram enabled".to_owned());
            }
            self.distance_us = Some(0);
        }
        Ok(())
    }

    /// The threads to start, where `allowed` CPUs may be used.
    ///
    /// # Errors
    /// When a CPU was asked for that is not among them.
    pub fn plan(&self, allowed: &CpuList) -> Result<Vec<ThreadPlan>, OptionError> {
        let cpus = match &self.affinity {
            Some(text) => cpus("--affinity", text, allowed)?,
            None => allowed.clone(),
        };
        let cpus: Vec<u32> = cpus.iter().collect();
        let threads = self.threads.unwrap_or(cpus.len() as u64).max(1);
        // A policy with priorities and none given: cyclictest takes one more than there are threads.
        let priority = match self.priority {
            0 if self.policy.is_realtime() || self.priospread => (threads + 1).min(99),
            priority => priority,
        };
        let policy = match self.policy {
            policy if policy.is_realtime() || priority == 0 => policy,
            _ => PolicyName::Fifo,
        };
        let distance_us = self.distance_us.unwrap_or(DISTANCE_US);
        let plans = (0..threads).map(|number| ThreadPlan {
            cpu: usize::try_from(number).ok().and_then(|at| cpus.get(at % cpus.len().max(1)).copied()),
            priority: if self.priospread { priority.saturating_sub(number).max(1) } else { priority },
            policy,
            interval_us: self.interval_us + number * distance_us,
        });
        Ok(plans.collect())
    }
}

/// One measuring thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadPlan {
    /// The CPU that it is pinned to.
    pub cpu: Option<u32>,
    /// Priority; 0 for policies without.
    pub priority: u64,
    /// Policy that was asked for.
    pub policy: PolicyName,
    /// Length of its cycle, us.
    pub interval_us: u64,
}

/// A list of CPUs, all among `allowed`; with ! the allowed ones that are not in the list.
///
/// # Errors
/// When the text is no list, or names others.
pub fn cpus(option: &str, text: &str, allowed: &CpuList) -> Result<CpuList, OptionError> {
    let wrong = |wanted| OptionError::Value { option: option.to_owned(), value: text.to_owned(), wanted };
    let (rest, without) = text.strip_prefix('!').map_or((text, false), |rest| (rest, true));
    let named: CpuList = rest.parse().map_err(|_| wrong(CPUS))?;
    if !named.iter().all(|cpu| allowed.contains(cpu)) {
        return Err(wrong("CPUs that this process may run on"));
    }
    let chosen: CpuList = if without { allowed.iter().filter(|cpu| !named.contains(*cpu)).collect() } else { named };
    if chosen.is_empty() { Err(wrong("at least one CPU")) } else { Ok(chosen) }
}
