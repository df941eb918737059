//! The catalogue: which hazards the lab can show, with which workload, and what guard promises for each.

use crate::snapshot::{Class, Quota};

use super::condition::Condition;
use super::workload::Role;

/// A hazard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// No quota: what the node shows anyway.
    QuotaNone,
    /// A lock whose holder the quota stops.
    QuotaLock,
    /// The same with priority inheritance.
    QuotaPi,
    /// A cyclic thread that did not get SCHED_FIFO.
    QuotaFallback,
    /// A thread that the cyclic one gets its data from.
    QuotaCoThread,
    /// Best-effort neighbours.
    NoisyBe,
    /// A SCHED_FIFO thread that never sleeps.
    RtThrottle,
}

/// What a scenario is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// There is no harm, and guard does none.
    Harmless,
    /// The hazard is there, and with guard nine tenths of it are gone, but for what is lost until guard has reacted.
    Healed,
    /// The hazard is there, and with guard at least half of it is gone: what disturbs keeps its least share.
    Halved,
    /// guard only reports it.
    Reported,
}

/// How a scenario is set up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// What runs in the cgroup "plc".
    pub(super) role: Role,
    /// Its quota.
    pub(super) quota: Option<Quota>,
    /// Whether a load runs in the cgroup "be".
    pub(super) load: bool,
    /// Whether its threads share one CPU.
    pub(super) pinned: bool,
    /// Whether it is a service, whose cycles are longer: a quota works by periods of 100 ms, so what is shorter cannot be
    /// kept free of a neighbour's bursts by one.
    pub(super) service: bool,
    /// Class in guard's configuration; `None` where it has to find the PLC by itself.
    pub(super) class: Option<Class>,
    /// What is promised.
    pub(super) promise: Promise,
    /// What "response" means here.
    pub(super) response: &'static str,
    /// Names of the steps.
    pub(super) steps: &'static [(Condition, &'static str)],
}

/// A fifth of a CPU, as `podman run --cpus 0.2` sets it.
pub(super) const QUOTA: Quota = Quota { quota_us: 20_000, period_us: 100_000 };

const WITH_REFERENCE: &[(Condition, &str)] =
    &[(Condition::Reference, "no quota"), (Condition::Before, "quota"), (Condition::With, "quota, guard")];
const BESIDE_LOAD: &[(Condition, &str)] =
    &[(Condition::Reference, "alone"), (Condition::Before, "beside BE"), (Condition::With, "beside BE, guard")];
const PLAIN: &[(Condition, &str)] = &[(Condition::Before, "without guard"), (Condition::With, "guard")];

const LOCKED: &str = "from when a cycle was due to when it had its lock";
const WORKED: &str = "from when a cycle was due to when its work was done";
const AGE: &str = "age of the value that a cycle found";
const TAKEN: &str = "time that the CPU was taken from the thread at once";

impl Scenario {
    /// All of them, in the order in which `all` runs them.
    pub const ALL: [Self; 7] = [
        Self::QuotaNone,
        Self::QuotaLock,
        Self::QuotaPi,
        Self::QuotaFallback,
        Self::QuotaCoThread,
        Self::NoisyBe,
        Self::RtThrottle,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QuotaNone => "quota-none",
            Self::QuotaLock => "quota-lock",
            Self::QuotaPi => "quota-pi",
            Self::QuotaFallback => "quota-fallback",
            Self::QuotaCoThread => "quota-co-thread",
            Self::NoisyBe => "noisy-be",
            Self::RtThrottle => "rt-throttle",
        }
    }

    /// The scenario of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// What it shows, in one line.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::QuotaNone => "a FIFO loop and a lock without any quota: what this node shows anyway",
            Self::QuotaLock => "the loop's lock is held by a fair thread that a CPU quota stops: the loop stops, too",
            Self::QuotaPi => "the same with a priority-inheritance lock: its holder is boosted out of the quota",
            Self::QuotaFallback => "a loop that was refused SCHED_FIFO and says nothing: the quota stops it directly",
            Self::QuotaCoThread => "the loop wakes in time, but the quota stops the thread that makes its data",
            Self::NoisyBe => "a latency-sensitive service beside best-effort work that takes all CPUs",
            Self::RtThrottle => "a FIFO thread that never sleeps loses its CPU to RT throttling or the fair server",
        }
    }

    pub(super) fn setup(self) -> Setup {
        let lock = Setup {
            role: Role::Lock { inherit: false, busy_percent: 100 },
            quota: Some(QUOTA),
            load: false,
            pinned: true,
            service: false,
            class: None,
            promise: Promise::Healed,
            response: LOCKED,
            steps: WITH_REFERENCE,
        };
        match self {
            Self::QuotaNone => Setup { quota: None, promise: Promise::Harmless, steps: PLAIN, ..lock },
            Self::QuotaLock => lock,
            Self::QuotaPi => {
                Setup { role: Role::Lock { inherit: true, busy_percent: 100 }, promise: Promise::Harmless, ..lock }
            }
            Self::QuotaFallback => Setup { role: Role::Fallback, class: Some(Class::Plc), response: WORKED, ..lock },
            Self::QuotaCoThread => Setup { role: Role::CoThread, response: AGE, ..lock },
            Self::NoisyBe => Setup {
                role: Role::Fair,
                quota: None,
                load: true,
                pinned: false,
                service: true,
                class: Some(Class::Ls),
                promise: Promise::Halved,
                response: WORKED,
                steps: BESIDE_LOAD,
            },
            Self::RtThrottle => Setup {
                role: Role::Hog,
                quota: None,
                promise: Promise::Reported,
                response: TAKEN,
                steps: PLAIN,
                ..lock
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_that_finds_it() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.name()), Some(scenario));
            assert!(!scenario.summary().contains('\n'));
        }
        assert_eq!(Scenario::named("quota"), None);
    }

    #[test]
    fn every_scene_ends_with_guard_and_what_is_judged_against_a_reference_has_one() {
        for scenario in Scenario::ALL {
            let setup = scenario.setup();
            assert_eq!(setup.steps.last().map(|(step, _)| *step), Some(Condition::With), "{scenario:?}");
            let has_reference = setup.steps.iter().any(|(step, _)| *step == Condition::Reference);
            assert!(has_reference || !matches!(setup.promise, Promise::Healed | Promise::Halved), "{scenario:?}");
        }
    }
}
