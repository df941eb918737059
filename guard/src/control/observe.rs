//! Observes a node: samples the kernel side, reads the cgroup files at both ends of a window, and joins both with the
//! inventory into a Snapshot.

use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::future::pending;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_common::event::REPORT_EVERY_NS;
use guard_common::maps::{CGROUP_KINDS, CgroupKind, Hist, THREAD_KINDS};
use tokio::io::unix::AsyncFd;

use super::ControlError;
use super::accounts::{self, Accountant, Traces};
use super::accumulate::Accumulator;
use super::affinity;
use super::assign::Assignments;
use super::clock::{WallClock, process_cpu_ns};
use super::facts::Facts;
use super::join::{self, Known, KnownThread, OwnCost};
use super::meter::{Meter, Reading};
use super::run_loop::SAMPLE_EVERY;
use super::selection::{Keep, Selection, similar};
use super::slot_holders::SlotHolders;
use super::sys;
use crate::cgroup::{Hierarchy, Version};
use crate::config::{Config, Workload, Workloads};
use crate::inventory::{self, CgroupFilter, CgroupInfo, Inventory, ThreadDetail, Topology};
use crate::kernel::offsets::CgroupSource;
use crate::kernel::pretence::Pretence;
use crate::kernel::sample::ThreadSample;
use crate::kernel::symbols::Functions;
use crate::kernel::{Event, Kernel, KernelError, LoadOptions, monotonic_ns};
use crate::knob::Knob;
use crate::snapshot::{Cgroup, Class, Node, SignalName, Snapshot};

/// Time after which what is slow to read and seldom changes is read again: all quotas, affinities, the node.
const REREAD_EVERY: Duration = Duration::from_secs(10);
/// Time after which it is looked again who is on the node, at a sample; a little less than the time between samples.
const REFRESH_EVERY: Duration = Duration::from_millis(900);
/// Longest time between two samples while the flight recorder runs: a storm of three hundred thousand events a second on one
/// CPU is not overwritten before it is read.
const SAMPLE_FLIGHT_EVERY: Duration = Duration::from_millis(200);
/// Time after which all threads are scanned again, to see which cgroups are PLC no more.
const SCAN_EVERY: Duration = Duration::from_secs(60);
/// The same where policies act on it; but not sooner than after this many times what the last scan took.
const SCAN_EVERY_FOR_POLICY: (Duration, u32) = (Duration::from_secs(5), 1_000);

/// Kernel memory that the histograms of cgroups, and those of threads, may take, bytes.
const HISTOGRAM_BYTES: usize = 64 << 20;
/// Least and most slots. A node with more cgroups, or more real-time threads, counts the rest as lost.
const SLOTS: (u32, u32) = (64, 1024);
/// Most slots on nodes with so many CPUs that [`HISTOGRAM_BYTES`] holds fewer.
const SLOTS_MANY_CPUS: u32 = 256;

/// How long after an event to look for more: as long as the kernel side may hold back a wake-up.
const LOOK_AGAIN: Duration = Duration::from_nanos(REPORT_EVERY_NS);

/// Real-time threads that are named when the one that was asked for does not exist.
const THREADS_NAMED: usize = 5;

/// What to observe.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The part of the node to report on.
    pub selection: Selection,
    /// Latency from which on a wake-up is late.
    pub threshold: Duration,
    /// Whether to act on what happens, not only to count it.
    pub act: bool,
    /// Whether late wake-ups are to be explained as far as can be: it makes observing dearer.
    pub explain: bool,
    /// With `explain`: where to keep what happened around late wake-ups.
    pub traces: Option<Traces>,
    /// With `explain`: whether to keep kernel stacks of late wake-ups.
    pub stacks: bool,
    /// Whether the kernel times guard's programs.
    pub run_time_stats: bool,
    /// Whether to collect what policies need, and the configuration that names workloads. It makes observing dearer.
    pub policy: Option<Arc<Config>>,
}

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

pub(super) fn workloads(config: &Config) -> Result<Workloads, ControlError> {
    Workloads::new(&config.workloads).map_err(ControlError::Pattern)
}

/// A node under observation. Dropping it takes guard's programs out of the kernel.
pub struct Observer {
    kernel: Kernel,
    inventory: Inventory,
    node: Node,
    selection: Selection,
    filter: CgroupFilter,
    accumulator: Accumulator,
    /// Where late wake-ups are explained.
    accountant: Option<Accountant>,
    meter: Meter,
    threads: Threads,
    slots: SlotHolders,
    /// Cgroups that went in this window, which may be longer than the inventory remembers them.
    departed: HashMap<u64, CgroupInfo>,
    refreshed_at: Instant,
    reread_at: Instant,
    scanned_at: Instant,
    scan_took: Duration,
    /// For policies.
    policy: Option<PolicySide>,
    /// Readable when the kernel side has events; absent unless they are acted on.
    events_fd: Option<AsyncFd<OwnedFd>>,
    /// Events that were taken together with a sample.
    events: Vec<Event>,
    /// When to look for events unasked: the kernel side does not wake guard for all that follow soon after another.
    look_again: Option<tokio::time::Instant>,
    /// Cgroups in which real-time threads were counted and that were not known then.
    unknown_realtime: HashSet<u64>,
    /// CLOCK_MONOTONIC and CPU time of this process at the begin of the window, ns.
    began_ns: (u64, u64),
}

impl Observer {
    /// Loads the kernel side and begins the first window.
    ///
    /// # Errors
    /// When a pattern or a thread of the selection matches nothing, or the node cannot be observed.
    pub fn start(watch: &Watch) -> Result<Self, ControlError> {
        let root = Path::new("/");
        let topology = Topology::read(root)?;
        affinity::leave_reserved_cpus(&topology);
        let hierarchy = Hierarchy::detect(root)?;
        let node = inventory::node(root, hierarchy.layout())?;
        let mut inventory = Inventory::new(root, hierarchy, Vec::new());
        let scan_began = Instant::now();
        inventory.scan_threads()?;
        let scan_took = scan_began.elapsed();
        let mut policy = watch.policy.as_deref().map(PolicySide::new).transpose()?;
        if let Some(policy) = &mut policy {
            policy.assignments.refresh(&mut inventory);
        }

        let selection = watch.selection.clone();
        let filter = CgroupFilter::new(&selection.cgroups)?;
        check_patterns(&selection, &inventory)?;
        let mut threads = Threads::default();
        for tid in &selection.tids {
            threads.name(*tid, &inventory)?;
        }

        // While guard still may.
        let functions = watch.stacks.then(Functions::read);
        let mut kernel = Kernel::load(&load_options(watch, &node, &topology, &inventory)?)?;
        for tid in &selection.tids {
            // Whoever asks why a thread is late wants to know it whatever its policy is.
            let budget = if watch.explain { watch.threshold } else { Duration::ZERO };
            kernel.watch_thread(*tid, u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX))?;
        }
        let mut meter = Meter::default();
        meter.meet(inventory.hierarchy(), inventory.cgroups().map(id_and_path));
        // Those that were asked for, and those whose throttles are to be counted from the begin.
        for cgroup in inventory.cgroups().filter(|cgroup| filter.matches(cgroup) || meter.is_limited(cgroup.id)) {
            kernel.reserve_cgroup(cgroup.id)?;
        }
        let now = Instant::now();
        let mut slots = SlotHolders::default();
        slots.look(inventory.cgroups().map(|c| c.id).collect());
        let mut observer = Self {
            kernel,
            inventory,
            node,
            selection,
            filter,
            accumulator: Accumulator::new(watch.selection.tids.clone()),
            accountant: watch
                .explain
                .then(|| Accountant::new(watch.selection.tids.clone(), watch.traces.clone(), functions)),
            meter,
            threads,
            slots,
            departed: HashMap::new(),
            refreshed_at: now,
            reread_at: now,
            scanned_at: now,
            scan_took,
            policy,
            events_fd: None,
            events: Vec::new(),
            look_again: None,
            unknown_realtime: HashSet::new(),
            began_ns: (monotonic_ns(), process_cpu_ns()),
        };
        if watch.act {
            let fd = observer.kernel.as_fd().try_clone_to_owned().map_err(ControlError::Events)?;
            observer.events_fd = Some(sys::readable(fd).map_err(ControlError::Events)?);
        }
        sys::trim_heap();
        // The window begins here: at the kernel side, for the cgroup files, and for guard's own cost.
        let before = observer.kernel.sample()?;
        observer.slots.counted(before.cgroups.iter().map(|c| c.id));
        observer.read_files(&mut HashMap::new());
        observer.own_cost();
        Ok(observer)
    }

    /// Takes what the kernel side has counted since the last call into the current window. To be called about once a
    /// second in longer windows.
    ///
    /// # Errors
    /// When the kernel side cannot be read.
    pub fn sample(&mut self) -> Result<(), ControlError> {
        self.take()?;
        // Where samples are more frequent, who is on the node is not looked at each time.
        if self.refreshed_at.elapsed() >= REFRESH_EVERY {
            self.refresh();
        }
        Ok(())
    }

    /// How often to sample at least: the flight recorder is overwritten sooner than the counters wrap.
    pub(super) fn sample_every(&self) -> Duration {
        if self.accountant.is_some() { SAMPLE_FLIGHT_EVERY } else { SAMPLE_EVERY }
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
    pub(super) fn whole_snapshot(&mut self, react: &mut dyn FnMut(&[Event])) -> Result<(Snapshot, Keep), ControlError> {
        self.take()?;
        self.breathe(react);
        // Right after the kernel side, so that both count the same window.
        let mut readings = HashMap::new();
        self.read_files(&mut readings);
        self.breathe(react);
        self.refresh();
        self.breathe(react);
        self.read_files(&mut readings);
        self.breathe(react);

        let sum = self.accumulator.take();
        let sample = &sum.sample;
        let cgroups = self.inventory.cgroups().filter(|c| readings.contains_key(&c.id)).map(|c| c.id);
        let ids: HashSet<u64> = cgroups
            .chain(sample.cgroups.iter().map(|c| c.id))
            .chain(sample.threads.iter().map(|t| t.cgroup_id))
            .chain(sample.breaches.iter().flat_map(|b| [b.cgroup_id, b.prev_cgroup_id, b.waker_cgroup_id]))
            .chain(sum.accounts.values().flat_map(super::accounts::Accounted::cgroups))
            .collect();
        self.threads.refresh(&sample.threads, &self.selection, &self.inventory);
        let holders: HashSet<u32> = sample.breaches.iter().map(|breach| breach.lock_owner).collect();
        let known = Known {
            node: self.node.clone(),
            cgroups: ids
                .into_iter()
                .filter_map(|id| {
                    let info = self.inventory.cgroup_by_id(id).or_else(|| self.departed.get(&id))?;
                    Some((id, (info.clone(), readings.remove(&id).unwrap_or_default())))
                })
                .collect(),
            threads: self.threads.known_with(&holders, &self.inventory),
        };
        let keep = Keep::new(&self.selection, &self.filter, known.cgroups.values().map(|(info, _)| info));
        self.departed.clear();
        let Some(policy) = &mut self.policy else {
            let cost = self.own_cost();
            return Ok((join::snapshot(sum, &known, &keep, WallClock::now(), cost), Keep::All));
        };
        // Policies see the whole node, whatever is to be shown of it.
        let mut snapshot = join::snapshot(sum, &known, &Keep::All, WallClock::now(), OwnCost::default());
        policy.facts.complete(&mut snapshot, &self.inventory, &policy.assignments);
        let cost = self.own_cost();
        (snapshot.overhead.cpu_fraction, snapshot.overhead.memory_bytes) = (cost.cpu_fraction, cost.memory_bytes);
        Ok((snapshot, keep))
    }

    /// The hierarchy that has the cpu controller.
    pub(super) fn hierarchy(&self) -> &Hierarchy {
        self.inventory.hierarchy()
    }

    /// Waits for what cannot wait for the next Snapshot; for ever unless it is acted on.
    ///
    /// # Errors
    /// When the event loop refuses the file descriptor.
    pub(super) async fn events(&mut self) -> Result<Vec<Event>, ControlError> {
        let Some(fd) = &self.events_fd else { return pending().await };
        while self.events.is_empty() {
            let again = self.look_again;
            let unasked = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                ready = fd.readable() => {
                    // Before they are taken, so that one that comes meanwhile makes it readable again.
                    ready.map_err(ControlError::Events)?.clear_ready();
                }
                () = unasked => {}
            }
            self.events = self.kernel.events();
            self.look_again = (!self.events.is_empty()).then(|| tokio::time::Instant::now() + LOOK_AGAIN);
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Wants to be told at once when a quota stops one of these cgroups.
    ///
    /// # Errors
    /// When the kernel side refuses.
    pub(super) fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Ok(self.kernel.protect(ids)?)
    }

    /// The same for further ones.
    ///
    /// # Errors
    /// When the kernel side refuses.
    pub(super) fn protect_also(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        Ok(self.kernel.protect_also(ids)?)
    }

    /// Wants to be told at once when a fair task of one of these cgroups waits for a CPU for longer than this, ns.
    ///
    /// # Errors
    /// When the kernel side refuses.
    pub(super) fn judge(&mut self, budgets: &HashMap<u64, u64>) -> Result<(), ControlError> {
        Ok(self.kernel.judge(budgets)?)
    }

    /// Gets to know cgroups that turned out to have real-time threads. Returns those that are PLC and everything that may
    /// hold them back: what contains them, what is below them and the rest of their containers.
    pub(super) fn meet(&mut self, ids: &HashSet<u64>) -> Vec<Cgroup> {
        let Some(policy) = &mut self.policy else { return Vec::new() };
        if ids.iter().any(|id| self.inventory.cgroup_by_id(*id).is_none()) {
            if let Err(error) = self.inventory.refresh() {
                tracing::warn!("{error}");
            }
            ids.iter().for_each(|id| self.inventory.mark_realtime(*id));
            policy.assignments.refresh(&mut self.inventory);
        } else {
            ids.iter().for_each(|id| self.inventory.mark_realtime(*id));
        }
        policy.facts.meet(ids, &self.inventory, &policy.assignments)
    }

    /// Says which knobs guard holds and which cgroups it has written to since the last Snapshot.
    pub(super) fn acted(&mut self, held: HashSet<(u64, Knob)>, touched: HashSet<u64>) {
        if let Some(policy) = &mut self.policy {
            policy.facts.held(held, touched);
        }
    }

    /// Takes another configuration.
    ///
    /// # Errors
    /// When its patterns are none; then nothing is changed.
    pub(super) fn reconfigure(&mut self, config: &Config) -> Result<(), ControlError> {
        if let Some(policy) = &mut self.policy {
            policy.assignments.replace(workloads(config)?);
            policy.facts.reserve(config.node.reserved_cpus.clone());
            policy.assignments.refresh(&mut self.inventory);
        }
        Ok(())
    }

    /// Whether the user named threads only, and all of them have ended.
    #[must_use]
    pub fn all_named_ended(&self) -> bool {
        self.selection.cgroups.is_empty()
            && !self.selection.tids.is_empty()
            && self.selection.tids.iter().all(|tid| self.threads.has_ended(*tid))
    }

    /// Hands over what has happened meanwhile, in the middle of something else.
    fn breathe(&mut self, react: &mut dyn FnMut(&[Event])) {
        if self.events_fd.is_none() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.kernel.events());
        // Meeting a cgroup needs the inventory, which is under way.
        let (later, now): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| matches!(event, Event::NewRealTime(_)));
        self.events = later;
        if !now.is_empty() {
            react(&now);
        }
    }

    /// What the kernel side counted, into the accumulator.
    fn take(&mut self) -> Result<(), ControlError> {
        if self.events_fd.is_some() {
            // A sample empties the ring buffer.
            let events = self.kernel.events();
            self.events.extend(events);
        }
        let mut sample = self.kernel.sample()?;
        let ended = self.slots.counted(sample.cgroups.iter().map(|c| c.id));
        for id in &ended {
            self.kernel.release_cgroup(*id)?;
        }
        for cgroup in sample.cgroups.iter().filter(|c| !c.hists[CgroupKind::WakeRt].is_empty()) {
            self.inventory.mark_realtime(cgroup.id);
            if self.inventory.cgroup_by_id(cgroup.id).is_none() {
                self.unknown_realtime.insert(cgroup.id);
            }
        }
        for cgroup in sample.cgroups.iter().filter(|c| c.throttles > 0) {
            if let Some(info) = self.inventory.cgroup_by_id(cgroup.id)
                && !self.meter.is_limited(info.id)
            {
                self.meter.look(self.inventory.hierarchy(), info.id, &info.path);
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

    /// How long after the last scan of all threads the next one is due.
    fn scan_every(&self) -> Duration {
        let (least, times) = SCAN_EVERY_FOR_POLICY;
        if self.policy.is_some() { (self.scan_took * times).clamp(least, SCAN_EVERY) } else { SCAN_EVERY }
    }

    /// Who is on the node now. What cannot be read leaves the node as it was known; it is tried again next time.
    fn refresh(&mut self) {
        let now = Instant::now();
        self.refreshed_at = now;
        let scan = now.duration_since(self.scanned_at) >= self.scan_every();
        let refreshed = if scan { self.inventory.scan_threads() } else { self.inventory.refresh() };
        match refreshed {
            Ok(()) => {
                for id in std::mem::take(&mut self.unknown_realtime) {
                    self.inventory.mark_realtime(id);
                }
                if scan {
                    self.kernel.known_realtime(&self.inventory.realtime());
                }
                self.find_gone();
            }
            // Then nobody knows which of the cgroups that were counted are still there.
            Err(error) => tracing::warn!("{error}"),
        }
        if scan {
            (self.scanned_at, self.scan_took) = (now, now.elapsed());
        }
        if let Some(policy) = &mut self.policy {
            policy.assignments.refresh(&mut self.inventory);
        }
        self.meter.meet(self.inventory.hierarchy(), self.inventory.cgroups().map(id_and_path));
        if now.duration_since(self.reread_at) >= REREAD_EVERY || self.counts_throttles_by_file() {
            self.reread_at = now;
            for cgroup in self.inventory.cgroups() {
                self.meter.look(self.inventory.hierarchy(), cgroup.id, &cgroup.path);
            }
            match inventory::node(Path::new("/"), self.node.cgroup) {
                Ok(node) => self.node = node,
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Whether only the files tell of throttles, so that a quota must not be noticed late.
    fn counts_throttles_by_file(&self) -> bool {
        self.kernel
            .signals()
            .iter()
            .any(|s| s.name == SignalName::Throttle && join::throttle_source(std::slice::from_ref(s)) == "cpu.stat")
    }

    fn find_gone(&mut self) {
        for id in self.slots.look(self.inventory.cgroups().map(|c| c.id).collect()) {
            if let Some(info) = self.inventory.cgroup_by_id(*id) {
                self.departed.insert(*id, info.clone());
            }
        }
    }

    /// Reads the files of all cgroups with a quota, or with one until a moment ago, that are not in `readings` yet.
    fn read_files(&mut self, readings: &mut HashMap<u64, Reading>) {
        for cgroup in self.inventory.cgroups() {
            let plc = cgroup.class == Class::Plc;
            if !(plc || self.meter.is_limited(cgroup.id)) || readings.contains_key(&cgroup.id) {
                continue;
            }
            let reading = self.meter.read(self.inventory.hierarchy(), cgroup.id, &cgroup.path, true);
            readings.insert(cgroup.id, reading);
        }
    }

    /// What guard's own process has cost since the begin of the window; the next one begins.
    fn own_cost(&mut self) -> OwnCost {
        let now = (monotonic_ns(), process_cpu_ns());
        let began = std::mem::replace(&mut self.began_ns, now);
        let (wall_ns, cpu_ns) = (now.0.saturating_sub(began.0), now.1.saturating_sub(began.1));
        #[allow(clippy::cast_precision_loss, reason = "a window stays far below 2^53 ns")]
        let cpu_fraction = if wall_ns > 0 { cpu_ns as f64 / wall_ns as f64 } else { 0.0 };
        OwnCost { cpu_fraction, memory_bytes: resident_bytes().unwrap_or(0) }
    }
}

/// Every pattern must match a cgroup that is there.
fn check_patterns(selection: &Selection, inventory: &Inventory) -> Result<(), ControlError> {
    for pattern in &selection.cgroups {
        let filter = CgroupFilter::new(&[pattern])?;
        if !inventory.cgroups().any(|cgroup| filter.matches(cgroup)) {
            return Err(ControlError::NoCgroup {
                pattern: pattern.clone(),
                cgroups: inventory.cgroups().count(),
                similar: similar(pattern, inventory.cgroups().flat_map(names)),
            });
        }
    }
    Ok(())
}

/// What a cgroup can be asked for by.
fn names(cgroup: &CgroupInfo) -> impl Iterator<Item = &str> {
    let container = cgroup.container.iter().flat_map(|c| [c.name.as_deref(), c.pod.as_deref()]).flatten();
    std::iter::once(cgroup.path.as_str()).chain(container)
}

fn id_and_path(cgroup: &CgroupInfo) -> (u64, &str) {
    (cgroup.id, cgroup.path.as_str())
}

fn load_options(
    watch: &Watch,
    node: &Node,
    topology: &Topology,
    inventory: &Inventory,
) -> Result<LoadOptions, KernelError> {
    let hierarchy = inventory.hierarchy();
    let own_cgroup = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| hierarchy.path_in(&text))
        .and_then(|path| hierarchy.id(&path).ok());
    let cpus = topology.possible.len();
    Ok(LoadOptions {
        breach_ns: u64::try_from(watch.threshold.as_nanos()).unwrap_or(u64::MAX),
        cgroups: match hierarchy.version() {
            Version::V1 => CgroupSource::CpuController,
            Version::V2 => CgroupSource::Default,
        },
        cgroup_slots: slots(inventory.cgroups().count(), CGROUP_KINDS, cpus),
        thread_slots: slots(inventory.rt_threads().len() + watch.selection.tids.len(), THREAD_KINDS, cpus),
        own_cgroup,
        online_cpus: topology.online.iter().collect(),
        preempt_rt: node.realtime,
        act: watch.act,
        flight: watch.explain,
        stacks: watch.stacks,
        run_time_stats: watch.run_time_stats,
        pretence: Pretence::from_environment()?,
    })
}

/// Slots for `present` cgroups or threads of `kinds` histograms each.
fn slots(present: usize, kinds: u32, cpus: usize) -> u32 {
    let slot_bytes = cpus.max(1) * size_of::<Hist>() * usize::try_from(kinds).unwrap_or(1);
    let affordable = u32::try_from(HISTOGRAM_BYTES / slot_bytes).unwrap_or(u32::MAX);
    // A power of two stays one when it is rounded up again.
    let most = if affordable == 0 { 0 } else { 1 << affordable.ilog2() };
    LoadOptions::slots_for(present, SLOTS.0, most.clamp(SLOTS_MANY_CPUS, SLOTS.1))
}

/// Resident memory of this process, bytes.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// The threads in the samples, by what /proc says of them.
#[derive(Default)]
struct Threads {
    known: HashMap<u32, (Instant, KnownThread)>,
}

impl Threads {
    /// Meets a thread that the user named.
    fn name(&mut self, tid: u32, inventory: &Inventory) -> Result<(), ControlError> {
        let Some(detail) = inventory.thread(tid) else {
            let user = inventory.rt_threads().iter().filter(|thread| !thread.kernel);
            let threads = user.take(THREADS_NAMED).map(|thread| format!("{} {}", thread.comm, thread.tid)).collect();
            return Err(ControlError::NoThread { tid, threads });
        };
        self.known.insert(tid, (Instant::now(), known_thread(detail)));
        Ok(())
    }

    /// Reads the sampled threads that are new or were read long ago, and marks those that have ended.
    fn refresh(&mut self, sampled: &[ThreadSample], selection: &Selection, inventory: &Inventory) {
        let now = Instant::now();
        let mut wanted: HashSet<u32> = selection.tids.iter().copied().collect();
        for thread in sampled {
            match self.known.get_mut(&thread.tid) {
                Some((_, known)) if thread.exited => known.ended = true,
                _ if thread.exited => {}
                _ => {
                    wanted.insert(thread.tid);
                }
            }
        }
        self.known.retain(|tid, _| wanted.contains(tid));
        for tid in wanted {
            let named = selection.tids.contains(&tid);
            match self.known.get_mut(&tid) {
                // A named thread that has ended stays ended, whoever has its tid now.
                Some((_, known)) if known.ended && named => {}
                Some((read_at, known)) if !known.ended && !named && now.duration_since(*read_at) < REREAD_EVERY => {}
                Some((read_at, known)) => match inventory.thread(tid) {
                    Some(detail) if !named || detail.thread.start_ticks == known.info.start_ticks => {
                        (*read_at, *known) = (now, known_thread(detail));
                    }
                    _ => known.ended = true,
                },
                None => {
                    if let Some(detail) = inventory.thread(tid) {
                        self.known.insert(tid, (now, known_thread(detail)));
                    }
                }
            }
        }
    }

    fn has_ended(&self, tid: u32) -> bool {
        self.known.get(&tid).is_none_or(|(_, known)| known.ended)
    }

    /// The sampled threads, and those of `others` that are still there.
    fn known_with(&self, others: &HashSet<u32>, inventory: &Inventory) -> HashMap<u32, KnownThread> {
        let mut all: HashMap<_, _> = self.known.iter().map(|(tid, (_, known))| (*tid, known.clone())).collect();
        for tid in others.iter().filter(|tid| **tid != 0) {
            if let Entry::Vacant(entry) = all.entry(*tid)
                && let Some(detail) = inventory.thread(*tid)
            {
                entry.insert(known_thread(detail));
            }
        }
        all
    }
}

fn known_thread(detail: ThreadDetail) -> KnownThread {
    KnownThread {
        affinity: Some(detail.affinity.to_string()),
        deadline_period_ns: detail.deadline_period_ns,
        info: detail.thread,
        ended: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_node_and_the_memory() {
        assert_eq!(slots(10, CGROUP_KINDS, 2), 64);
        assert_eq!(slots(200, CGROUP_KINDS, 4), 256);
        assert_eq!(slots(2_000, CGROUP_KINDS, 4), 1024);
        assert_eq!(slots(2_000, CGROUP_KINDS, 256), 256);
        assert_eq!(slots(usize::MAX / 8, CGROUP_KINDS, usize::MAX >> 32), 256);
    }

    #[test]
    fn this_process_has_resident_memory() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
