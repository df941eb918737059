//! What policies need beside what is measured: knobs, CPU time, threads and requests of cgroups, and what the node's
//! CPUs are and do. It costs a few reads per cgroup and second, so it is collected only where policies are asked.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::assign::{self, Assignments};
use super::cpu_times;
use super::requests::{Formulas, Pod, exact_milli, request_milli};
use crate::cgroup::{CgroupError, Hierarchy, PressureTotals, Version, parse_pressure};
use crate::inventory::{self, CgroupInfo, Inventory, Topology};
use crate::knob::{Knob, WeightFormula};
use crate::snapshot::{
    Bandwidth, Cgroup, CgroupPath, Class, Cpu, CpuList, Knobs, Node, Pressure, SchedPolicy, Snapshot,
};

/// Most cgroups with facts. On a node with more, PLC cgroups and what contains them come first.
const CGROUPS_MAX: usize = 4_096;
/// Time after which knobs, the topology and other agents are looked at again. Knobs that guard holds or has just
/// written are read each time.
const REREAD_EVERY: Duration = Duration::from_secs(10);

/// The files of cgroups that facts come from.
pub(super) trait FactFiles {
    /// All cpu knobs.
    fn knobs(&self, path: &str) -> Result<Knobs, CgroupError>;
    /// CPU time used since the cgroup was made, ns.
    fn usage_ns(&self, path: &str) -> Result<Option<u64>, CgroupError>;
}

impl FactFiles for Hierarchy {
    fn knobs(&self, path: &str) -> Result<Knobs, CgroupError> {
        Hierarchy::knobs(self, path)
    }

    fn usage_ns(&self, path: &str) -> Result<Option<u64>, CgroupError> {
        self.cpu_usage_ns(path)
    }
}

/// What was collected, and the totals at the begin of the window.
#[derive(Debug, Default)]
pub(super) struct Facts {
    reserved_cpus: CpuList,
    knobs: HashMap<u64, (Instant, Knobs)>,
    usage: HashMap<u64, u64>,
    /// Shares, and limit in thousandths of a CPU, that Kubernetes wrote, as they were before guard changed them.
    kubernetes: HashMap<u64, (Option<u64>, Option<u64>)>,
    /// How Kubernetes made weights of shares; `None` until a pod was seen.
    formulas: Option<Formulas>,
    held: HashSet<(u64, Knob)>,
    touched: HashSet<u64>,
    pressure: Option<PressureTotals>,
    busy: HashMap<u32, u64>,
    slow: Option<(Instant, Slow)>,
}

/// What seldom changes.
#[derive(Debug, Default)]
struct Slow {
    topology: Topology,
    hands_off: Option<String>,
}

impl Facts {
    pub(super) fn new(reserved_cpus: CpuList) -> Self {
        Self { reserved_cpus, ..Self::default() }
    }

    /// Takes other reserved CPUs.
    pub(super) fn reserve(&mut self, cpus: CpuList) {
        self.reserved_cpus = cpus;
    }

    /// Says which knobs guard holds, and which cgroups it has just written to.
    pub(super) fn held(&mut self, held: HashSet<(u64, Knob)>, touched: impl IntoIterator<Item = u64>) {
        // What was released has been written, too.
        self.touched.extend(self.held.difference(&held).map(|(id, _)| *id));
        self.touched.extend(touched);
        self.held = held;
    }

    /// Ends the window, and adds to its Snapshot what policies need. `here` are the cgroups that are there.
    pub(super) fn complete(&mut self, snapshot: &mut Snapshot, inventory: &Inventory, assignments: &Assignments) {
        let now = Instant::now();
        self.node(&mut snapshot.node, now);
        self.cpus(&mut snapshot.cpus);
        let here: Vec<&CgroupInfo> = inventory.cgroups().collect();
        let chosen = choose(&here, CGROUPS_MAX);
        if chosen.len() < here.len() {
            tracing::warn!("policies see {} of the {} cgroups of this node", chosen.len(), here.len());
        }
        add_missing(&mut snapshot.cgroups, &chosen);
        let real_time = real_time_threads(snapshot, inventory);
        let by_id: HashMap<u64, &CgroupInfo> = chosen.iter().map(|info| (info.id, *info)).collect();
        for cgroup in snapshot.cgroups.iter_mut().filter(|cgroup| by_id.contains_key(&cgroup.id)) {
            cgroup.rt_threads = Some(real_time.get(cgroup.path.as_str()).copied().unwrap_or(0));
            self.cgroup(inventory.hierarchy(), cgroup, now);
        }
        self.requests(inventory.hierarchy().version(), &mut snapshot.cgroups);
        for cgroup in snapshot.cgroups.iter_mut().filter(|cgroup| by_id.contains_key(&cgroup.id)) {
            if let Some(workload) = assignments.workload(cgroup.id) {
                assign::say(workload, assignments.is_own(cgroup.id), cgroup);
            }
        }
        self.forget(&by_id);
    }

    /// Those of the cgroups `ids` that are PLC, and everything that may hold them back, with their knobs as they are now.
    pub(super) fn discover(
        &mut self,
        ids: &HashSet<u64>,
        inventory: &Inventory,
        assignments: &Assignments,
    ) -> Vec<Cgroup> {
        let new: Vec<&CgroupInfo> =
            inventory.cgroups().filter(|c| ids.contains(&c.id) && c.class == Class::Plc).collect();
        let contains = |above: &str, below: &str| CgroupPath::of(above).contains(below);
        let container = |info: &CgroupInfo| info.container.as_ref().map(|c| (c.runtime.clone(), c.id.clone()));
        let concerns = |info: &CgroupInfo, plc: &CgroupInfo| {
            contains(&info.path, &plc.path)
                || contains(&plc.path, &info.path)
                || container(plc).is_some_and(|own| Some(own) == container(info))
        };
        let now = Instant::now();
        let mut discovered = Vec::new();
        for info in inventory.cgroups().filter(|info| new.iter().any(|plc| concerns(info, plc))) {
            // Whatever was read before may be older than the PLC.
            self.touched.insert(info.id);
            let mut cgroup = bare(info);
            cgroup.knobs = self.knobs_of(inventory.hierarchy(), info.id, &info.path, now);
            if let Some(workload) = assignments.workload(info.id) {
                assign::say(workload, assignments.is_own(info.id), &mut cgroup);
            }
            discovered.push(cgroup);
        }
        discovered
    }

    fn node(&mut self, node: &mut Node, now: Instant) {
        if self.slow.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= REREAD_EVERY) {
            let root = Path::new("/");
            let topology = Topology::read(root).unwrap_or_else(|error| {
                tracing::warn!("{error}");
                self.slow.take().map(|(_, slow)| slow.topology).unwrap_or_default()
            });
            self.slow = Some((now, Slow { topology, hands_off: inventory::other_agents(root) }));
        }
        node.reserved_cpus = self.reserved_cpus.clone();
        node.hands_off = self.slow.as_ref().and_then(|(_, slow)| slow.hands_off.clone());
        // Absent without CONFIG_PSI, and unreadable (EOPNOTSUPP) where the kernel was booted without psi=1.
        let totals = fs::read_to_string("/proc/pressure/cpu").ok().and_then(|text| parse_pressure(&text).ok());
        let before = std::mem::replace(&mut self.pressure, totals);
        node.cpu_pressure = totals.zip(before).and_then(|(now, before)| {
            Some(Pressure {
                some_ns: now.some_ns.checked_sub(before.some_ns)?,
                full_ns: now.full_ns.zip(before.full_ns).and_then(|(now, before)| now.checked_sub(before)),
            })
        });
    }

    fn cpus(&mut self, cpus: &mut Vec<Cpu>) {
        let busy: HashMap<u32, u64> = cpu_times::read().into_iter().map(|(cpu, times)| (cpu, times.busy_ns)).collect();
        if let Some((_, Slow { topology, .. })) = &self.slow {
            for cpu in
                topology.online.iter().filter(|cpu| cpus.iter().all(|known| known.cpu != *cpu)).collect::<Vec<_>>()
            {
                cpus.push(Cpu { cpu, ..Cpu::default() });
            }
            cpus.sort_by_key(|cpu| cpu.cpu);
            for cpu in &mut *cpus {
                cpu.place = topology.place(cpu.cpu);
                cpu.isolated = topology.is_isolated(cpu.cpu);
            }
        }
        for cpu in cpus {
            let ends = busy.get(&cpu.cpu).zip(self.busy.get(&cpu.cpu));
            // The ticks of a CPU that was offline meanwhile may go back.
            cpu.busy_ns = ends.and_then(|(now, before)| now.checked_sub(*before));
        }
        self.busy = busy;
    }

    fn cgroup(&mut self, files: &impl FactFiles, cgroup: &mut Cgroup, now: Instant) {
        if let Some(usage) = readable(files.usage_ns(&cgroup.path)).flatten() {
            cgroup.cpu_ns = self.usage.insert(cgroup.id, usage).and_then(|before| usage.checked_sub(before));
        }
        cgroup.knobs = self.knobs_of(files, cgroup.id, &cgroup.path, now);
        if let (true, Some(knobs)) = (is_of_pod(cgroup), &cgroup.knobs) {
            let (shares, limit) = self.kubernetes.entry(cgroup.id).or_default();
            if !self.held.contains(&(cgroup.id, Knob::Shares)) {
                *shares = knobs.shares;
            }
            if !self.held.contains(&(cgroup.id, Knob::Quota)) {
                *limit = knobs.quota.and_then(Bandwidth::milli);
            }
        }
    }

    /// What Kubernetes asked for, for all of its cgroups.
    fn requests(&mut self, version: Version, cgroups: &mut [Cgroup]) {
        let of_pods: HashSet<String> = cgroups.iter().filter(|c| is_of_pod(c)).map(|c| c.path.clone()).collect();
        let within = |path: &str| CgroupPath::of(path).parent().is_some_and(|parent| of_pods.contains(parent));
        if version == Version::V2 && !of_pods.is_empty() {
            self.learn_formulas(cgroups, within);
        }
        let formulas = self.formulas.unwrap_or_default();
        for cgroup in cgroups.iter_mut().filter(|cgroup| is_of_pod(cgroup)) {
            let Some((shares, limit)) = self.kubernetes.get(&cgroup.id) else { continue };
            let formula = if within(&cgroup.path) { formulas.containers } else { formulas.pods };
            cgroup.limit_milli = *limit;
            cgroup.request_milli = shares.and_then(|shares| match version {
                Version::V1 => exact_milli(shares),
                Version::V2 => request_milli(formula, weight(shares)),
            });
        }
    }

    fn learn_formulas(&mut self, cgroups: &[Cgroup], within: impl Fn(&str) -> bool) {
        let written = |cgroup: &Cgroup| {
            let (shares, limit) = self.kubernetes.get(&cgroup.id)?;
            Some((weight((*shares)?), *limit))
        };
        let mut pods: HashMap<&str, Pod> = HashMap::new();
        for cgroup in cgroups.iter().filter(|cgroup| is_of_pod(cgroup) && !within(&cgroup.path)) {
            let Some((weight, limit)) = written(cgroup) else { continue };
            let qos = cgroup.container.as_ref().and_then(|container| container.qos.as_deref());
            let guaranteed_milli = limit.filter(|_| qos == Some("guaranteed"));
            pods.insert(&cgroup.path, Pod { weight, guaranteed_milli, containers: Vec::new() });
        }
        for cgroup in cgroups {
            let pod = CgroupPath::of(&cgroup.path).parent().and_then(|parent| pods.get_mut(parent));
            if let (Some(pod), Some((weight, _))) = (pod, written(cgroup)) {
                pod.containers.push(weight);
            }
        }
        let pods: Vec<Pod> = pods.into_values().collect();
        let formulas = self.formulas.unwrap_or_default().learn(&pods);
        if self.formulas.replace(formulas) != Some(formulas) {
            let Formulas { pods, containers } = formulas;
            tracing::info!(
                "requests are read from cpu.weight by these formulas: pods {pods:?}, containers {containers:?}"
            );
        }
    }

    fn knobs_of(&mut self, files: &impl FactFiles, id: u64, path: &str, now: Instant) -> Option<Knobs> {
        let changing = self.touched.contains(&id) || self.held.iter().any(|(held, _)| *held == id);
        if let Some((at, knobs)) = self.knobs.get(&id)
            && !changing
            && now.duration_since(*at) < REREAD_EVERY
        {
            return Some(knobs.clone());
        }
        let knobs = readable(files.knobs(path))?;
        self.knobs.insert(id, (now, knobs.clone()));
        Some(knobs)
    }

    /// Drops what is known of cgroups that have gone.
    fn forget(&mut self, here: &HashMap<u64, &CgroupInfo>) {
        self.knobs.retain(|id, _| here.contains_key(id));
        self.usage.retain(|id, _| here.contains_key(id));
        self.kubernetes.retain(|id, _| here.contains_key(id));
        self.touched.clear();
    }
}

fn is_of_pod(cgroup: &Cgroup) -> bool {
    cgroup.container.as_ref().is_some_and(|container| container.pod.is_some())
}

/// The weight that shares were read from: [`Knobs::shares`] is its inverse by this formula.
fn weight(shares: u64) -> u64 {
    WeightFormula::Quadratic.weight(shares)
}

/// The cgroups that get facts: all, or on a crowded node PLC cgroups and their ancestors, then the others in order.
fn choose<'a>(here: &[&'a CgroupInfo], most: usize) -> Vec<&'a CgroupInfo> {
    if here.len() <= most {
        return here.to_vec();
    }
    let plc: Vec<&str> = here.iter().filter(|c| c.class == Class::Plc).map(|c| c.path.as_str()).collect();
    let holds_plc = |path: &str| plc.iter().any(|plc| CgroupPath::of(path).contains(plc));
    let (first, rest): (Vec<_>, Vec<_>) = here.iter().copied().partition(|c| holds_plc(&c.path));
    first.into_iter().chain(rest).take(most).collect()
}

/// Adds the cgroups in which nothing was counted.
fn add_missing(cgroups: &mut Vec<Cgroup>, chosen: &[&CgroupInfo]) {
    let there: HashSet<u64> = cgroups.iter().map(|cgroup| cgroup.id).collect();
    cgroups.extend(chosen.iter().filter(|info| !there.contains(&info.id)).map(|info| bare(info)));
}

/// A cgroup by its names only.
fn bare(info: &CgroupInfo) -> Cgroup {
    Cgroup {
        path: info.path.clone(),
        id: info.id,
        class: info.class,
        container: info.container.clone(),
        ..Cgroup::default()
    }
}

/// Real-time threads of user space by cgroup: those of the last scan, and those that were seen since.
fn real_time_threads<'a>(snapshot: &'a Snapshot, inventory: &'a Inventory) -> HashMap<String, u32> {
    let scanned = inventory.rt_threads().iter().filter(|thread| !thread.kernel);
    let mut homes: HashMap<u32, &str> = scanned.filter_map(|t| Some((t.tid, t.cgroup.as_deref()?))).collect();
    for thread in &snapshot.threads {
        if !thread.exited && thread.policy.known().is_some_and(SchedPolicy::is_realtime) {
            homes.insert(thread.tid, &thread.cgroup);
        } else {
            // It has ended, or become an ordinary one.
            homes.remove(&thread.tid);
        }
    }
    let mut counts = HashMap::new();
    for home in homes.into_values() {
        *counts.entry(home.to_owned()).or_default() += 1;
    }
    counts
}

/// What was read; nothing when the cgroup has gone meanwhile or its file is unreadable, which is said.
fn readable<T>(read: Result<T, CgroupError>) -> Option<T> {
    read.inspect_err(|error| {
        if !error.is_vanished() {
            tracing::warn!("{error}");
        }
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::snapshot::Container;

    struct Files {
        version: Version,
        knobs: Knobs,
        usage: u64,
        reads: RefCell<u32>,
    }

    impl Default for Files {
        fn default() -> Self {
            Self { version: Version::V1, knobs: Knobs::default(), usage: 0, reads: RefCell::default() }
        }
    }

    impl FactFiles for Files {
        fn knobs(&self, _: &str) -> Result<Knobs, CgroupError> {
            *self.reads.borrow_mut() += 1;
            Ok(self.knobs.clone())
        }

        fn usage_ns(&self, _: &str) -> Result<Option<u64>, CgroupError> {
            Ok(Some(self.usage))
        }
    }

    fn pod() -> Cgroup {
        let container = Some(Container { pod: Some("factory/line-1".into()), ..Container::default() });
        Cgroup { id: 7, path: "/kubepods/pod1".into(), container, ..Cgroup::default() }
    }

    fn quota(us: u64) -> Option<Bandwidth> {
        Some(Bandwidth { quota_us: Some(us), period_us: 100_000 })
    }

    #[test]
    fn knobs_are_read_seldom_unless_guard_has_a_hand_in_them() {
        let (files, mut facts, now) = (Files::default(), Facts::default(), Instant::now());
        for at in [now, now + Duration::from_secs(1), now + REREAD_EVERY - Duration::from_secs(1)] {
            facts.cgroup(&files, &mut pod(), at);
        }
        assert_eq!(*files.reads.borrow(), 1);
        facts.held(HashSet::from([(7, Knob::Quota)]), []);
        facts.cgroup(&files, &mut pod(), now);
        facts.cgroup(&files, &mut pod(), now);
        assert_eq!(*files.reads.borrow(), 3);
        facts.held(HashSet::new(), []);
        facts.cgroup(&files, &mut pod(), now);
        assert_eq!(*files.reads.borrow(), 4, "once more after its release");
        facts.forget(&HashMap::new());
        facts.cgroup(&files, &mut pod(), now);
        assert_eq!(*files.reads.borrow(), 5, "what had gone and came again is new");
    }

    #[test]
    fn cpu_time_is_the_difference_of_two_looks() {
        let (mut files, mut facts, mut cgroup) = (Files::default(), Facts::default(), pod());
        files.usage = 500;
        facts.cgroup(&files, &mut cgroup, Instant::now());
        assert_eq!(cgroup.cpu_ns, None);
        files.usage = 800;
        facts.cgroup(&files, &mut cgroup, Instant::now());
        assert_eq!(cgroup.cpu_ns, Some(300));
    }

    /// Request and limit of a cgroup.
    fn asked(facts: &mut Facts, files: &Files, mut cgroup: Cgroup) -> (Option<u64>, Option<u64>) {
        facts.cgroup(files, &mut cgroup, Instant::now());
        let mut cgroups = [cgroup];
        facts.requests(files.version, &mut cgroups);
        (cgroups[0].request_milli, cgroups[0].limit_milli)
    }

    #[test]
    fn request_and_limit_are_what_kubernetes_wrote_whatever_guard_makes_of_them() {
        let (mut files, mut facts) = (Files::default(), Facts::default());
        files.knobs = Knobs { quota: quota(50_000), shares: Some(256), ..Knobs::default() };
        assert_eq!(asked(&mut facts, &files, pod()), (Some(250), Some(500)));
        facts.held(HashSet::from([(7, Knob::Quota), (7, Knob::Shares)]), []);
        files.knobs = Knobs { quota: Some(Bandwidth::UNLIMITED), shares: Some(65_536), ..Knobs::default() };
        assert_eq!(asked(&mut facts, &files, pod()), (Some(250), Some(500)));
        let mut cgroup = pod();
        facts.cgroup(&files, &mut cgroup, Instant::now());
        assert_eq!(cgroup.knobs.as_ref().and_then(|k| k.shares), Some(65_536));
        let plain = Cgroup { id: 8, path: "/a".into(), ..Cgroup::default() };
        assert_eq!(asked(&mut facts, &files, plain), (None, None));
    }

    #[test]
    fn weights_become_requests_by_the_formula_of_whoever_wrote_them() {
        let shares = |weight| Some(WeightFormula::Quadratic.shares(weight));
        let within = |id: u64, path: &str, weight, us| {
            let container = Container { pod: Some("p".into()), qos: Some("guaranteed".into()), ..Container::default() };
            let knobs = Knobs { quota: quota(us), shares: shares(weight), ..Knobs::default() };
            (Cgroup { id, path: path.into(), container: Some(container), ..Cgroup::default() }, knobs)
        };
        // A kubelet's pod, and its container by an old runc and by a new one.
        for container_weight in [39, 100] {
            let mut facts = Facts::default();
            let mut cgroups = Vec::new();
            for (mut cgroup, knobs) in [
                within(1, "/kubepods/pod1", 39, 100_000),
                within(2, "/kubepods/pod1/main", container_weight, 100_000),
                within(3, "/kubepods/pod1/pause", 1, 100_000),
            ] {
                let files = Files { version: Version::V2, knobs, ..Files::default() };
                facts.cgroup(&files, &mut cgroup, Instant::now());
                cgroups.push(cgroup);
            }
            facts.requests(Version::V2, &mut cgroups);
            let requests: Vec<_> = cgroups.iter().map(|cgroup| cgroup.request_milli).collect();
            assert_eq!(requests, [Some(1000), Some(1000), None], "{container_weight}");
        }
    }

    #[test]
    fn on_a_crowded_node_plc_cgroups_and_their_ancestors_come_first() {
        let info =
            |id: u64, path: &str, class| CgroupInfo { path: path.into(), id, container: None, class, vanished: false };
        let all = [
            info(1, "/", Class::System),
            info(2, "/a", Class::Ls),
            info(3, "/b", Class::Ls),
            info(4, "/b/plc", Class::Plc),
            info(5, "/b/plc2", Class::Ls),
        ];
        let all: Vec<&CgroupInfo> = all.iter().collect();
        let chosen = |most| choose(&all, most).iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(chosen(3), [1, 3, 4]);
        assert_eq!(chosen(4), [1, 3, 4, 2]);
        assert_eq!(chosen(5), [1, 2, 3, 4, 5]);
    }
}
