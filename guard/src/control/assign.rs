//! Which workload of the configuration each cgroup belongs to: the first that matches the cgroup itself, else the one of
//! its parent.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::ControlError;
use crate::cgroup::Hierarchy;
use crate::config::{Candidate, Config, Workload, Workloads};
use crate::inventory::{CgroupInfo, Inventory};
use crate::snapshot::{CgroupPath, Container, Snapshot};

/// How many looks a new cgroup is asked for its processes at: it is made before its first one comes.
const YOUNG_LOOKS: u8 = 5;
/// Time after which all cgroups are asked for their processes again.
const REREAD_EVERY: Duration = Duration::from_secs(10);

/// The workloads of a configuration.
///
/// # Errors
/// When a pattern is none.
pub(super) fn workloads(config: &Config) -> Result<Workloads, ControlError> {
    Workloads::new(&config.workloads).map_err(ControlError::Pattern)
}

/// A cgroup's workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    /// Its number in the configuration.
    number: usize,
    /// Whether it comes from the parent.
    inherited: bool,
}

/// The workloads of the cgroups that are there.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    workloads: Workloads,
    by_id: HashMap<u64, Assigned>,
    processes: Processes,
}

impl Assignments {
    pub(super) fn new(workloads: Workloads) -> Self {
        Self { workloads, ..Self::default() }
    }

    /// Takes other workloads; they count from the next look on.
    pub(super) fn replace(&mut self, workloads: Workloads) {
        self.workloads = workloads;
    }

    /// Looks at all cgroups again, and names their classes.
    pub(super) fn refresh(&mut self, inventory: &mut Inventory) {
        if self.workloads.need_comms() {
            self.processes.refresh(inventory, Instant::now());
        }
        let processes = &self.processes;
        let before = std::mem::take(&mut self.by_id);
        self.by_id = assign(&self.workloads, inventory.cgroups(), |id| processes.comms(id));
        // A class that is named twice costs nothing, so all of them are, also after a reload.
        for (id, assigned) in &self.by_id {
            inventory.name_class(*id, self.workloads.get(assigned.number).and_then(|workload| workload.class));
        }
        for id in before.keys().filter(|id| !self.by_id.contains_key(id)) {
            inventory.name_class(*id, None);
        }
    }

    /// What the configuration says of a cgroup.
    pub(super) fn workload(&self, id: u64) -> Option<&Workload> {
        self.workloads.get(self.by_id.get(&id)?.number)
    }

    /// Whether it was said of the cgroup itself, and not of one above it.
    pub(super) fn is_own(&self, id: u64) -> bool {
        self.by_id.get(&id).is_some_and(|assigned| !assigned.inherited)
    }
}

/// Gives the cgroups of a recorded Snapshot what the configuration says of them.
pub(super) fn apply_to_recorded(workloads: &Workloads, snapshot: &mut Snapshot) {
    let mut comms: HashMap<&str, Vec<String>> = HashMap::new();
    for thread in &snapshot.threads {
        comms.entry(&thread.cgroup).or_default().push(thread.comm.clone());
    }
    let mut order: Vec<usize> = (0..snapshot.cgroups.len()).collect();
    // Each after its parent.
    order.sort_by_key(|index| snapshot.cgroups[*index].path.as_str());
    let places = order.iter().map(|index| {
        let cgroup = &snapshot.cgroups[*index];
        Place { id: cgroup.id, path: &cgroup.path, container: cgroup.container.as_ref() }
    });
    let of = |path: &str| comms.get(path).map(Vec::as_slice).unwrap_or_default();
    let assigned = resolve(workloads, places, |_, path| of(path));
    for cgroup in &mut snapshot.cgroups {
        let Some(assigned) = assigned.get(&cgroup.id) else { continue };
        let Some(workload) = workloads.get(assigned.number) else { continue };
        say(workload, !assigned.inherited, cgroup);
    }
}

/// Writes what the configuration says of a cgroup into it; `own` when it is said of the cgroup itself.
pub(super) fn say(workload: &Workload, own: bool, cgroup: &mut crate::snapshot::Cgroup) {
    if let Some(class) = workload.class {
        cgroup.class = class;
    }
    cgroup.budgets = workload.budgets();
    cgroup.unmanaged = !workload.is_managed();
    if own {
        cgroup.request_milli = workload.request.map(|cpus| cpus.milli).or(cgroup.request_milli);
        cgroup.limit_milli = workload.limit.map(|cpus| cpus.milli).or(cgroup.limit_milli);
    }
}

/// A cgroup to find the workload of.
struct Place<'a> {
    id: u64,
    path: &'a str,
    container: Option<&'a Container>,
}

fn assign<'a>(
    workloads: &Workloads,
    cgroups: impl Iterator<Item = &'a CgroupInfo>,
    comms: impl Fn(u64) -> &'a [String],
) -> HashMap<u64, Assigned> {
    let places = cgroups.map(|c| Place { id: c.id, path: &c.path, container: c.container.as_ref() });
    resolve(workloads, places, |id, _| comms(id))
}

/// The workloads of cgroups that come each after its parent.
fn resolve<'a, 'c>(
    workloads: &Workloads,
    places: impl Iterator<Item = Place<'a>>,
    comms: impl Fn(u64, &'a str) -> &'c [String],
) -> HashMap<u64, Assigned> {
    let mut by_path: HashMap<&str, usize> = HashMap::new();
    let mut by_id = HashMap::new();
    for place in places {
        let candidate = Candidate { path: place.path, container: place.container, comms: comms(place.id, place.path) };
        let parent = CgroupPath::of(place.path).parent().and_then(|path| by_path.get(path)).copied();
        let Some(number) = workloads.find(candidate).or(parent) else { continue };
        by_path.insert(place.path, number);
        // A pattern that matches a whole tree says it of the top of that tree.
        by_id.insert(place.id, Assigned { number, inherited: parent == Some(number) });
    }
    by_id
}

/// Names of processes by cgroup.
#[derive(Debug, Default)]
struct Processes {
    by_id: HashMap<u64, (u8, Vec<String>)>,
    read_at: Option<Instant>,
}

impl Processes {
    fn comms(&self, id: u64) -> &[String] {
        self.by_id.get(&id).map(|(_, comms)| comms.as_slice()).unwrap_or_default()
    }

    fn refresh(&mut self, inventory: &Inventory, now: Instant) {
        let all = self.read_at.is_none_or(|at| now.duration_since(at) >= REREAD_EVERY);
        if all {
            self.read_at = Some(now);
        }
        let mut here = HashSet::new();
        for cgroup in inventory.cgroups() {
            here.insert(cgroup.id);
            let (looks, comms) = self.by_id.entry(cgroup.id).or_default();
            if all || *looks < YOUNG_LOOKS {
                *looks = looks.saturating_add(1);
                *comms = process_names(inventory.hierarchy(), &cgroup.path);
            }
        }
        self.by_id.retain(|id, _| here.contains(id));
    }
}

/// Names of the processes in a cgroup; `None` when it has gone, or when its processes cannot be listed (threaded).
fn process_names(hierarchy: &Hierarchy, path: &str) -> Vec<String> {
    let pids = hierarchy.processes(path).unwrap_or_default();
    let comm = |pid: u32| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).ok();
    let mut names: Vec<String> = pids.into_iter().filter_map(comm).map(|name| name.trim_end().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::snapshot::{Cgroup, Class};
    use crate::view::samples;

    fn workloads(text: &str) -> Workloads {
        Workloads::new(&Config::parse(text, Path::new("guard.toml")).unwrap().workloads).unwrap()
    }

    const TEXT: &str = "[[workload]]\nmatch.cgroup = \"/plc\"\nclass = \"PLC\"\nrequest = 0.5\ntimer.max = \"1ms\"\n\
        [[workload]]\nmatch.cgroup = \"/plc/log\"\nmanaged = false\n[[workload]]\nmatch.cgroup = \"/be*\"\nclass = \"BE\"\nlimit = 2\n";

    #[test]
    fn what_is_said_of_a_cgroup_holds_below_it_until_something_else_is_said() {
        let all = workloads(TEXT);
        let paths = ["/", "/plc", "/plc/a", "/plc/a/b", "/plc/log", "/plc/log/x", "/plcx", "/be", "/be/job"];
        let places = paths.iter().zip(1..).map(|(path, id)| Place { id, path, container: None });
        let found = resolve(&all, places, |_, _| &[]);
        let of = |id: u64| found.get(&id).map(|a| (a.number, a.inherited));
        let want = [
            None,
            Some((0, false)),
            Some((0, true)),
            Some((0, true)),
            Some((1, false)),
            Some((1, true)),
            None,
            Some((2, false)),
            Some((2, true)),
        ];
        for (id, want) in (1..).zip(want) {
            assert_eq!(of(id), want, "{}", paths[id as usize - 1]);
        }
    }

    #[test]
    fn a_recorded_snapshot_gets_classes_budgets_and_requests() {
        let mut snapshot = samples::empty();
        let cgroup = |id, path: &str| Cgroup { id, path: path.into(), ..Cgroup::default() };
        snapshot.cgroups = vec![cgroup(3, "/plc/a"), cgroup(2, "/plc"), cgroup(4, "/be/job"), cgroup(5, "/ls")];
        apply_to_recorded(&workloads(TEXT), &mut snapshot);
        let said: Vec<_> = snapshot
            .cgroups
            .iter()
            .map(|c| (c.path.as_str(), c.class, c.request_milli, c.limit_milli, c.budgets.len()))
            .collect();
        assert_eq!(
            said,
            [
                ("/plc/a", Class::Plc, None, None, 1),
                ("/plc", Class::Plc, Some(500), None, 1),
                ("/be/job", Class::Be, None, Some(2_000), 0),
                ("/ls", Class::Ls, None, None, 0),
            ]
        );
    }
}
