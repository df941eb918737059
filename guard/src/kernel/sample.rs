//! What the kernel counted in one interval, before anybody is named. The control room joins it with the inventory
//! into a Snapshot. Plain data: no BPF here.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

use guard_common::event::{Breach, Stacks};
use guard_common::flight::Entry;
use guard_common::maps::{CGROUP_KINDS, CgroupKind, Kind, THREAD_KINDS, ThreadKind};

use crate::snapshot::{Cpu, Histogram, Lost, Signal, ThrottleSource};

/// A histogram of each kind.
#[derive(Clone, Debug)]
pub struct Hists<K, const N: usize>([Histogram; N], PhantomData<K>);

impl<K: Kind, const N: usize> Hists<K, N> {
    /// With what `take` returns for each kind.
    pub fn new(mut take: impl FnMut(K) -> Histogram) -> Self {
        Self(std::array::from_fn(|at| take(K::ALL[at])), PhantomData)
    }

    /// Takes out the histogram of this kind.
    pub fn take(&mut self, kind: K) -> Histogram {
        std::mem::take(&mut self[kind])
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Histogram::is_empty)
    }
}

impl<K: Kind, const N: usize> Default for Hists<K, N> {
    fn default() -> Self {
        Self::new(|_| Histogram::default())
    }
}

impl<K: Kind, const N: usize> Index<K> for Hists<K, N> {
    type Output = Histogram;

    fn index(&self, kind: K) -> &Histogram {
        &self.0[kind.index()]
    }
}

impl<K: Kind, const N: usize> IndexMut<K> for Hists<K, N> {
    fn index_mut(&mut self, kind: K) -> &mut Histogram {
        &mut self.0[kind.index()]
    }
}

/// These kinds, and nothing of the others.
impl<K: Kind, const N: usize, const M: usize> From<[(K, Histogram); M]> for Hists<K, N> {
    fn from(counted: [(K, Histogram); M]) -> Self {
        let mut hists = Self::default();
        counted.into_iter().for_each(|(kind, histogram)| hists[kind] = histogram);
        hists
    }
}

/// What the kernel side counted in one interval. Counts and times are of the interval, not since start.
#[derive(Clone, Debug, Default)]
pub struct KernelSample {
    /// CLOCK_MONOTONIC at the end of the interval, ns.
    pub at_ns: u64,
    /// Length of the interval, seconds.
    pub seconds: f64,
    /// What can be seen.
    pub signals: Vec<Signal>,
    /// Where throttles are counted.
    pub throttle_source: ThrottleSource,
    /// Cgroups with a slot, id 0 being "other". Only those with something counted.
    pub cgroups: Vec<CgroupSample>,
    /// Watched threads, those that exited in the interval included.
    pub threads: Vec<ThreadSample>,
    /// CPUs in order.
    pub cpus: Vec<Cpu>,
    /// Breach records, oldest first.
    pub breaches: Vec<Breach>,
    /// Their kernel stacks, where they were asked for.
    pub stacks: Vec<Stacks>,
    /// The flight recorder's entries of the interval, oldest first; none where it is off.
    pub flight: Vec<Entry>,
    /// What was lost.
    pub lost: Lost,
    /// Events and their mean run time in ns, when run-time statistics are on.
    pub events: Option<(u64, f64)>,
    /// Memory of the kernel maps, bytes.
    pub map_bytes: u64,
    /// Part of every user stage that no program sees: until the thread has read its clock; measured at start, ns.
    pub user_rest_ns: Option<u32>,
}

/// One cgroup in the interval.
#[derive(Clone, Debug, Default)]
pub struct CgroupSample {
    /// Cgroup id; 0 for "other".
    pub id: u64,
    /// What was counted of each kind.
    pub hists: Hists<CgroupKind, { CGROUP_KINDS as usize }>,
    /// Throttle events.
    pub throttles: u64,
    /// Throttled time by the kernel's own counter, ns, where the period timer is the source.
    pub throttled_time_ns: Option<u64>,
    /// Boosts by priority inheritance.
    pub boosts: u64,
    /// Whether an RT thread was ever seen in it.
    pub rt_seen: bool,
    /// Those of `boosts` that a wait for a PI futex gave; absent where the kernel does not show which do.
    pub futex_boosts: Option<u64>,
}

/// One watched thread in the interval.
#[derive(Clone, Debug, Default)]
pub struct ThreadSample {
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name at the first switch-in.
    pub comm: String,
    /// Cgroup id at the last switch-in.
    pub cgroup_id: u64,
    /// SCHED_* of the last switch-in.
    pub policy: u32,
    /// rt_priority of the last switch-in.
    pub rt_priority: u32,
    /// Whether it has exited.
    pub exited: bool,
    /// Recognised period, ns.
    pub period_ns: Option<u64>,
    /// guard_common's TimerKind as a number; 0 for none.
    pub timer_kind: u32,
    /// Skipped cycles.
    pub missed: u64,
    /// User stages taken from the interrupt.
    pub user_estimated: u64,
    /// What was counted of each kind.
    pub hists: Hists<ThreadKind, { THREAD_KINDS as usize }>,
    /// Boosts.
    pub boosts: u64,
    /// Wake-ups over the budget.
    pub breaches: u64,
    /// Budget, ns; 0 for the default threshold.
    pub budget_ns: u64,
}
