//! Observes a node: samples the kernel side, reads the cgroup files at both ends of a window, and joins both with the
//! inventory into a Snapshot.

mod events;
mod first_look;
mod load;
mod recorder;
mod roster;
mod threads;

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::time::{Duration, Instant};

use self::events::Events;
pub(super) use self::first_look::FirstLook;
use self::recorder::ReaderPace;
use self::roster::Roster;
use self::threads::WatchedThreads;
use super::accounts::{self, Accountant, Accounted};
use super::accumulate::{Accumulator, Sum};
use super::assign::{Assignments, workloads};
use super::clock::WallClock;
use super::error::ControlError;
use super::facts::Facts;
use super::join;
use super::known::Known;
use super::lane::CgroupKnob;
use super::meter::{Meter, WindowReading};
use super::own_cost::{OwnCost, OwnCostMeter};
use super::selection::{Keep, Selected};
use super::source::{SAMPLE_EVERY, Source};
use super::sys;
use super::watch::{Recorder, Watch};
use crate::config::{Config, Workload};
use crate::inventory::CgroupInfo;
use crate::kernel::sample::ThreadSample;
use crate::kernel::symbols::Functions;
use crate::kernel::{Event, Kernel, KernelError};
use crate::snapshot::{Cgroup, Class, Signal, Snapshot, ThrottleSource};

/// Time after which what is slow to read and seldom changes is read again: all quotas, the node.
const REREAD_EVERY: Duration = Duration::from_secs(10);
/// Longest time between two samples while the flight recorder has much to record: a storm of three hundred thousand events a second on one
/// CPU is not overwritten before it is read.
const SAMPLE_FLIGHT_EVERY: Duration = Duration::from_millis(200);

/// What is collected for policies.
struct PolicySide {
    assignments: Assignments,
    facts: Facts,
}

impl PolicySide {
    fn new(config: &Config) -> Result<Self, ControlError> {
        let assignments = Assignments::new(workloads(config)?);
        Ok(Self { assignments, facts: Facts::new(config.node.reserved_cpus.clone()) })
    }
}

/// A node under observation. Dropping it takes guard's programs out of the kernel.
pub struct Observer {
    kernel: Kernel,
    roster: Roster,
    selected: Selected,
    accumulator: Accumulator,
    /// Where the flight recorder runs.
    accountant: Option<Accountant>,
    /// Where it does not: what stands for it among the signals.
    recorder_off: Option<Signal>,
    /// How often it is to be read, by how much it recorded lately.
    recorder_pace: ReaderPace,
    meter: Meter,
    reread_at: Instant,
    threads: WatchedThreads,
    /// For policies.
    policy: Option<PolicySide>,
    /// `None` unless they are acted on.
    events: Option<Events>,
    cost: OwnCostMeter,
}

impl Observer {
    /// Looks at the node, loads the kernel side and begins the first window.
    ///
    /// # Errors
    /// When a pattern or a thread of the selection matches nothing, or the node cannot be observed.
    pub fn start(watch: &Watch) -> Result<Self, ControlError> {
        Self::load(FirstLook::take(watch)?, watch)
    }

    /// Loads the kernel side for a node that was looked at and begins the first window.
    ///
    /// # Errors
    /// When the node cannot be observed.
    pub(super) fn load(look: FirstLook, watch: &Watch) -> Result<Self, ControlError> {
        let FirstLook { topology, roster, policy, selected, threads } = look;
        let inventory = &roster.inventory;
        // While guard still may.
        let functions = watch.stacks.then(Functions::read);
        let mut options = load::load_options(watch, &roster.node, &topology, inventory)?;
        let mut recorder_off = recorder::off(watch.recorder, topology.possible.len());
        options.flight = recorder_off.is_none();
        let mut kernel = match Kernel::load(&options) {
            Err(error) if error.is_out_of_memory() && options.flight && watch.recorder == Recorder::WhereItFits => {
                recorder_off = Some(recorder::refused(&error.to_string()));
                options.flight = false;
                Kernel::load(&options)?
            }
            loaded => loaded?,
        };
        for tid in &watch.selection.tids {
            // Whoever asks why a thread is late wants to know it whatever its policy is.
            let budget = if watch.recorder == Recorder::On { watch.threshold } else { Duration::ZERO };
            kernel.watch_thread(*tid, u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX))?;
        }
        let mut meter = Meter::default();
        meter.refresh(roster.hierarchy(), inventory.cgroups().map(id_and_path));
        // Those that were asked for, and those whose throttles are to be counted from the begin.
        let reserved = |cgroup: &&CgroupInfo| selected.filter.matches(cgroup) || meter.is_limited(cgroup.id);
        for cgroup in inventory.cgroups().filter(reserved) {
            kernel.reserve_cgroup(cgroup.id)?;
        }
        let tids = || watch.selection.tids.clone();
        let mut observer = Self {
            events: watch.act.then(|| Events::of(&kernel)).transpose()?,
            kernel,
            roster,
            selected,
            accumulator: Accumulator::new(tids()),
            accountant: options.flight.then(|| Accountant::new(tids(), watch.traces.clone(), functions)),
            recorder_off,
            recorder_pace: ReaderPace::new(watch.recorder, topology.possible.len()),
            meter,
            reread_at: Instant::now(),
            threads,
            policy,
            cost: OwnCostMeter::start(),
        };
        sys::trim_heap();
        // The window begins here: at the kernel side, for the cgroup files, and for guard's own cost.
        let before = observer.kernel.sample()?;
        observer.roster.counted(&before.cgroups);
        observer.read_files(&mut HashMap::new());
        observer.cost = OwnCostMeter::start();
        Ok(observer)
    }

    /// Takes what the kernel side has counted since the last call into the current window. To be called about once a
    /// second in longer windows.
    ///
    /// # Errors
    /// When the kernel side cannot be read.
    pub fn sample(&mut self) -> Result<(), ControlError> {
        self.count()?;
        if self.roster.is_stale() {
            self.refresh();
        }
        Ok(())
    }

    /// Ends the window, returns its Snapshot and begins the next one.
    ///
    /// # Errors
    /// When the kernel side cannot be read.
    pub fn snapshot(&mut self) -> Result<Snapshot, ControlError> {
        let (mut snapshot, keep) = self.whole_snapshot(&mut |_| ())?;
        keep.narrow(&mut snapshot);
        Ok(snapshot)
    }

    /// As [`Self::snapshot`]. With policies it holds the whole node, and what of it is to be shown is returned beside it.
    /// Events that need nothing else of this observer are handed to `react` between its steps.
    fn whole_snapshot(&mut self, react: &mut dyn FnMut(&[Event])) -> Result<(Snapshot, Keep), ControlError> {
        self.count()?;
        self.poll_events(react);
        // Right after the kernel side, so that both count the same window.
        let mut readings = HashMap::new();
        self.read_files(&mut readings);
        self.poll_events(react);
        self.refresh();
        self.poll_events(react);
        self.read_files(&mut readings);
        self.poll_events(react);

        let sum = self.accumulator.take();
        let known = self.known(&sum, readings);
        let keep = self.selected.keep(known.cgroups.values().map(|(info, _)| info));
        self.roster.end_window();
        let Some(policy) = &mut self.policy else {
            let cost = self.cost.take();
            return Ok((join::snapshot(sum, &known, &keep, WallClock::now(), cost), Keep::All));
        };
        // Policies see the whole node, whatever is to be shown of it.
        let mut snapshot = join::snapshot(sum, &known, &Keep::All, WallClock::now(), OwnCost::default());
        policy.facts.complete(&mut snapshot, &self.roster.inventory, &policy.assignments);
        let cost = self.cost.take();
        (snapshot.overhead.cpu_fraction, snapshot.overhead.memory_bytes) = (cost.cpu_fraction, cost.memory_bytes);
        Ok((snapshot, keep))
    }

    /// Whoever a window names.
    fn known(&mut self, sum: &Sum, mut readings: HashMap<u64, WindowReading>) -> Known {
        let (sample, roster) = (&sum.sample, &self.roster);
        let read = roster.inventory.cgroups().filter(|c| readings.contains_key(&c.id)).map(|c| c.id);
        let ids: HashSet<u64> = read
            .chain(sample.cgroups.iter().map(|c| c.id))
            .chain(sample.threads.iter().map(|t| t.cgroup_id))
            .chain(sample.breaches.iter().flat_map(|b| [b.cgroup_id, b.prev_cgroup_id, b.waker_cgroup_id]))
            .chain(sum.accounts.values().flat_map(Accounted::cgroups))
            .collect();
        let cgroups = ids
            .into_iter()
            .filter_map(|id| Some((id, (roster.cgroup(id)?.clone(), readings.remove(&id).unwrap_or_default()))))
            .collect();
        self.threads.refresh(&sample.threads, &self.selected.by, &roster.inventory);
        let holders: HashSet<u32> = sample.breaches.iter().map(|breach| breach.lock_owner).collect();
        Known { node: roster.node.clone(), cgroups, threads: self.threads.known_with(&holders, &roster.inventory) }
    }

    /// Whether the user named threads only, and all of them have ended.
    #[must_use]
    pub fn all_named_ended(&self) -> bool {
        let named = &self.selected.by;
        named.cgroups.is_empty() && !named.tids.is_empty() && named.tids.iter().all(|tid| self.threads.has_ended(*tid))
    }

    /// Hands over what has happened meanwhile, in the middle of something else. Discovering a cgroup needs the inventory,
    /// which may be under way.
    fn poll_events(&mut self, react: &mut dyn FnMut(&[Event])) {
        let Some(events) = &mut self.events else { return };
        let now = events.poll(&mut self.kernel);
        if !now.is_empty() {
            react(&now);
        }
    }

    /// What the kernel side counted, into the accumulator.
    fn count(&mut self) -> Result<(), ControlError> {
        if let Some(events) = &mut self.events {
            events.keep(&mut self.kernel);
        }
        let mut sample = self.kernel.sample()?;
        sample.signals.extend(self.recorder_off.clone());
        self.recorder_pace.note(&sample.flight, sample.seconds);
        let ended = self.roster.counted(&sample.cgroups);
        for id in &ended {
            self.kernel.release_cgroup(*id)?;
        }
        for cgroup in sample.cgroups.iter().filter(|c| c.throttles > 0) {
            if let Some(info) = self.roster.inventory.cgroup_by_id(cgroup.id)
                && !self.meter.is_limited(info.id)
            {
                self.meter.read_quota(self.roster.hierarchy(), info.id, &info.path);
            }
        }
        self.give_budgets(&sample.threads)?;
        accounts::doubt_futex_owners(&mut sample.breaches);
        let accounts = self.accountant.as_mut().map(|accountant| accountant.look(&sample));
        self.accumulator.add(sample);
        self.accumulator.account(accounts.unwrap_or_default());
        for id in ended {
            self.accumulator.end_cgroup(id);
        }
        Ok(())
    }

    /// Gives the watched threads the budgets of their workloads.
    fn give_budgets(&mut self, threads: &[ThreadSample]) -> Result<(), ControlError> {
        let Some(policy) = &self.policy else { return Ok(()) };
        for thread in threads.iter().filter(|thread| !thread.exited) {
            // 0 is the threshold of all threads.
            let budget_ns = policy.assignments.workload(thread.cgroup_id).and_then(Workload::late_ns).unwrap_or(0);
            if budget_ns == thread.budget_ns {
                continue;
            }
            match self.kernel.watch_thread(thread.tid, budget_ns) {
                // It has ended meanwhile; or its slot went to another thread, and it is counted as lost.
                Ok(()) | Err(KernelError::NoThread(_) | KernelError::NoThreadSlot { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Looks again who is on the node and, from time to time, at what seldom changes.
    fn refresh(&mut self) {
        if self.roster.refresh(self.policy.is_some()) {
            self.kernel.report_realtime_except(&self.roster.inventory.realtime());
        }
        if let Some(policy) = &mut self.policy {
            policy.assignments.refresh(&mut self.roster.inventory);
        }
        let inventory = &self.roster.inventory;
        self.meter.refresh(inventory.hierarchy(), inventory.cgroups().map(id_and_path));
        if self.reread_at.elapsed() >= REREAD_EVERY || self.kernel.throttle_source() == ThrottleSource::CpuStat {
            self.reread_at = Instant::now();
            for cgroup in inventory.cgroups() {
                self.meter.read_quota(inventory.hierarchy(), cgroup.id, &cgroup.path);
            }
            self.roster.reread_node();
        }
    }

    /// Reads the files of all cgroups with a quota, or with one until a moment ago, that are not in `readings` yet.
    fn read_files(&mut self, readings: &mut HashMap<u64, WindowReading>) {
        let inventory = &self.roster.inventory;
        for cgroup in inventory.cgroups() {
            let plc = cgroup.class == Class::Plc;
            if !(plc || self.meter.is_limited(cgroup.id)) || readings.contains_key(&cgroup.id) {
                continue;
            }
            let reading = self.meter.read(inventory.hierarchy(), cgroup.id, &cgroup.path, true);
            readings.insert(cgroup.id, reading);
        }
    }
}

impl Source for Observer {
    fn sample(&mut self) -> Result<(), ControlError> {
        Observer::sample(self)
    }

    /// A flight recorder that has much to record is overwritten sooner than the counters wrap.
    fn sample_every(&self) -> Duration {
        if self.accountant.is_some() && self.recorder_pace.is_fast() { SAMPLE_FLIGHT_EVERY } else { SAMPLE_EVERY }
    }

    fn snapshot(&mut self, react: &mut dyn FnMut(&[Event])) -> Result<(Snapshot, Keep), ControlError> {
        self.whole_snapshot(react)
    }

    async fn events(&mut self) -> Result<Vec<Event>, ControlError> {
        match &mut self.events {
            Some(events) => events.wait(&mut self.kernel).await,
            None => pending().await,
        }
    }

    fn report_throttles_of(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Ok(self.kernel.report_throttles_of(ids)?)
    }

    fn report_throttles_also_of(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Ok(self.kernel.report_throttles_also_of(ids)?)
    }

    fn set_fair_budgets(&mut self, budgets: &HashMap<u64, u64>) -> Result<(), ControlError> {
        Ok(self.kernel.set_fair_budgets(budgets)?)
    }

    fn discover(&mut self, ids: &HashSet<u64>) -> Vec<Cgroup> {
        let Some(policy) = &mut self.policy else { return Vec::new() };
        if self.roster.discover(ids) {
            policy.assignments.refresh(&mut self.roster.inventory);
        }
        policy.facts.discover(ids, &self.roster.inventory, &policy.assignments)
    }

    fn acted(&mut self, held: HashSet<CgroupKnob>, touched: HashSet<u64>) {
        if let Some(policy) = &mut self.policy {
            policy.facts.held(held, touched);
        }
    }

    fn reconfigure(&mut self, config: &Config) -> Result<(), ControlError> {
        if let Some(policy) = &mut self.policy {
            policy.assignments.replace(workloads(config)?);
            policy.facts.reserve(config.node.reserved_cpus.clone());
            policy.assignments.refresh(&mut self.roster.inventory);
        }
        Ok(())
    }

    fn all_named_ended(&self) -> bool {
        Observer::all_named_ended(self)
    }
}

fn id_and_path(cgroup: &CgroupInfo) -> (u64, &str) {
    (cgroup.id, cgroup.path.as_str())
}
