//! Who is on the node: the machine, its cgroups with the containers, pods and units they belong to, and its threads
//! with their scheduling policy. It reads /proc, sysfs, the cgroup tree and what container runtimes leave on disk; it
//! measures nothing and changes nothing.

mod agents;
mod class;
mod error;
mod filter;
mod identify;
mod process;
mod runtime;
mod thread_files;
mod threads;
mod topology;

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use agents::other_agents;
pub use class::{Facts, classify, is_of_the_system};
pub use error::InventoryError;
pub use filter::{CgroupFilter, GlobError};
pub use process::{ProcessDetail, Timers};
pub use threads::{ThreadDetail, ThreadInfo, ThreadScan, is_runtime_name};
pub use topology::{Topology, node};

use crate::{
    cgroup::{FileError, Hierarchy, Tree},
    snapshot::{Class, Container},
};

/// How long a cgroup that has gone is still known by its id.
pub const VANISHED_FOR: Duration = Duration::from_secs(60);

/// How many refreshes look for the name of a new container: a runtime makes the cgroup before it writes the rest.
const NAME_TRIES: u8 = 5;

/// A cgroup of the hierarchy with the cpu controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupInfo {
    /// Path, "/" for the root.
    pub path: String,
    /// Cgroup id.
    pub id: u64,
    /// What it belongs to.
    pub container: Option<Container>,
    /// Its class: the one that was named, else by [`classify`].
    pub class: Class,
    /// Whether it has gone, not longer than [`VANISHED_FOR`] ago.
    pub vanished: bool,
}

#[derive(Debug)]
struct KnownCgroup {
    info: CgroupInfo,
    /// Uid of its pod, from the path.
    pod_uid: Option<String>,
    /// Whether a runtime keeps its own processes there.
    monitor: bool,
    /// Whether it holds real-time threads that count.
    realtime: bool,
    /// Whether a look at its threads has found real-time ones, none of which counts. Holds until the next scan.
    ruled_out: bool,
    /// Its class by the configuration.
    named: Option<Class>,
    tries_left: u8,
    vanished_at: Option<Instant>,
}

/// Who is on the node, as last looked at.
#[derive(Debug)]
pub struct Inventory {
    hierarchy: Hierarchy,
    tree: Tree,
    threads: threads::Threads,
    proc: PathBuf,
    runtimes: runtime::Runtimes,
    by_id: HashMap<u64, KnownCgroup>,
    /// Ids of the cgroups that are there.
    by_path: HashMap<String, u64>,
    /// Ids of the cgroups that are there, each after its parent.
    order: Vec<u64>,
    /// Names of pods by uid, learnt from their containers.
    pods: HashMap<String, String>,
    scan: ThreadScan,
}

impl Inventory {
    /// An empty inventory of the node below `root`, which is "/" except in tests and for an agent that sees the
    /// node's file system elsewhere. `storage_roots` are further roots of podman's storage (its --root).
    #[must_use]
    pub fn new(root: &Path, hierarchy: Hierarchy, storage_roots: Vec<PathBuf>) -> Self {
        Self {
            hierarchy,
            tree: Tree::default(),
            threads: threads::Threads::new(root),
            proc: root.join("proc"),
            runtimes: runtime::Runtimes::new(root, storage_roots),
            by_id: HashMap::new(),
            by_path: HashMap::new(),
            order: Vec::new(),
            pods: HashMap::new(),
            scan: ThreadScan::default(),
        }
    }

    /// The hierarchy whose cgroups these are.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Looks at the cgroups again: one stat each, and more only for what is new. Made for once a second.
    ///
    /// # Errors
    /// The cgroup tree cannot be read.
    pub fn refresh(&mut self) -> Result<(), InventoryError> {
        self.refresh_at(Instant::now())
    }

    fn refresh_at(&mut self, now: Instant) -> Result<(), InventoryError> {
        self.tree.refresh(&self.hierarchy)?;
        self.order.clear();
        // podman makes a unit's monitor cgroup before the payload by which it is known.
        let mut monitors = Vec::new();
        let tasks = OnceCell::new();
        for dir in self.tree.dirs() {
            self.order.push(dir.id);
            match self.by_id.get_mut(&dir.id) {
                // v1 lets a cgroup be renamed.
                Some(entry) if entry.info.path == dir.path => {
                    if entry.info.vanished {
                        // It could not be read for a while.
                        entry.info.vanished = false;
                        entry.vanished_at = None;
                        self.by_path.insert(dir.path.clone(), dir.id);
                    }
                }
                _ => {
                    let named_task = |path: &str| {
                        let tasks: &HashMap<String, Container> = tasks.get_or_init(|| self.runtimes.named_tasks());
                        let ends = path.match_indices('/').skip(1).map(|(end, _)| end).chain([path.len()]);
                        ends.filter_map(|end| tasks.get(&path[..end])).last().cloned()
                    };
                    self.by_id.insert(dir.id, KnownCgroup::new(&dir.path, dir.id, named_task));
                    self.by_path.insert(dir.path.clone(), dir.id);
                    monitors.extend(identify::monitor_beside(&dir.path));
                }
            }
        }
        let here: HashSet<u64> = self.order.iter().copied().collect();
        let by_id = &self.by_id;
        // The path of a cgroup that has gone, or was renamed, may be another's by now.
        self.by_path
            .retain(|path, id| here.contains(id) && by_id.get(id).is_some_and(|entry| entry.info.path == *path));
        self.by_id.retain(|id, entry| {
            if here.contains(id) {
                return true;
            }
            entry.info.vanished = true;
            now.saturating_duration_since(*entry.vanished_at.get_or_insert(now)) < VANISHED_FOR
        });
        for path in monitors {
            if let Some(entry) = self.by_path.get(&path).and_then(|id| self.by_id.get_mut(id)) {
                entry.monitor = true;
                entry.classify();
            }
        }
        self.name_containers();
        Ok(())
    }

    fn name_containers(&mut self) {
        let mut round = runtime::Round::default();
        let mut tried = false;
        for entry in self.by_id.values_mut().filter(|entry| entry.tries_left > 0 && !entry.info.vanished) {
            let Some(container) = &mut entry.info.container else { continue };
            tried = true;
            entry.tries_left -= 1;
            if self.runtimes.complete(&entry.info.path, container, &mut round) {
                entry.tries_left = 0;
            }
            if let (Some(uid), Some(pod)) = (&entry.pod_uid, &container.pod)
                && uid != pod
            {
                self.pods.insert(uid.clone(), pod.clone());
            }
        }
        if tried {
            self.name_pods();
        }
    }

    /// Gives the pod's name, which one of its containers told, to its cgroup and to its other containers.
    fn name_pods(&mut self) {
        let mut in_use = HashSet::new();
        for entry in self.by_id.values_mut() {
            if let (Some(uid), Some(container)) = (&entry.pod_uid, &mut entry.info.container) {
                in_use.insert(uid.as_str());
                if let Some(name) = self.pods.get(uid) {
                    container.pod = Some(name.clone());
                }
            }
        }
        self.pods.retain(|uid, _| in_use.contains(uid.as_str()));
    }

    /// Looks at all threads: who is real-time, and so which cgroups are PLC. For the start, and now and then; between
    /// two scans [`Self::mark_realtime`] tells what was seen at switch-ins.
    ///
    /// # Errors
    /// /proc cannot be listed, or the cgroup tree cannot be read.
    pub fn scan_threads(&mut self) -> Result<(), InventoryError> {
        // First the threads: a cgroup that came meanwhile is then known, and not the other way round.
        self.scan = self.threads.scan(&self.hierarchy).map_err(|source| {
            let path = self.proc.clone();
            FileError::Io { op: "list", path, source }
        })?;
        self.refresh()?;
        // guard's own threads are real-time where it acts, so as to react in time, not to be protected.
        self.scan.realtime.retain(|thread| thread.tgid != std::process::id());
        let mut runtimes: HashMap<u32, bool> = HashMap::new();
        let counts = self.scan.realtime.iter().filter(|thread| {
            !thread.kernel && !*runtimes.entry(thread.tgid).or_insert_with(|| self.threads.is_of_runtime(thread.tgid))
        });
        let paths: HashSet<&str> = counts.filter_map(|thread| thread.cgroup.as_deref()).collect();
        for entry in self.by_id.values_mut().filter(|entry| !entry.info.vanished) {
            entry.ruled_out = false;
            entry.set_realtime(paths.contains(entry.info.path.as_str()));
        }
        Ok(())
    }

    /// A real-time thread of user space was seen in this cgroup; holds until a scan finds none. Nothing follows when those
    /// that are there are guard's own or a container runtime's.
    pub fn mark_realtime(&mut self, id: u64) {
        let Some(entry) = self.by_id.get_mut(&id).filter(|entry| !entry.realtime && !entry.ruled_out) else { return };
        entry.ruled_out = self.threads.only_others(&self.hierarchy, &entry.info.path);
        if !entry.ruled_out {
            entry.set_realtime(true);
        }
    }

    /// Ids of the cgroups that hold real-time threads which make them PLC, as far as known.
    #[must_use]
    pub fn realtime(&self) -> HashSet<u64> {
        self.by_id.values().filter(|entry| entry.realtime).map(|entry| entry.info.id).collect()
    }

    /// Gives the cgroup the class that the configuration names, whatever is found; `None` for the one that is found.
    pub fn name_class(&mut self, id: u64, class: Option<Class>) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.named = class;
            entry.classify();
        }
    }

    /// A cgroup by id, also one that went a short while ago.
    #[must_use]
    pub fn cgroup_by_id(&self, id: u64) -> Option<&CgroupInfo> {
        self.by_id.get(&id).map(|entry| &entry.info)
    }

    /// A cgroup that is there, by path.
    #[must_use]
    pub fn cgroup_by_path(&self, path: &str) -> Option<&CgroupInfo> {
        self.cgroup_by_id(*self.by_path.get(path)?)
    }

    /// The cgroups that are there, each after its parent.
    pub fn cgroups(&self) -> impl Iterator<Item = &CgroupInfo> {
        self.order.iter().filter_map(|id| self.cgroup_by_id(*id))
    }

    /// Cgroups that could not be looked at.
    #[must_use]
    pub fn skipped_cgroups(&self) -> usize {
        self.tree.skipped()
    }

    /// What the last [`Self::scan_threads`] found.
    #[must_use]
    pub fn last_scan(&self) -> &ThreadScan {
        &self.scan
    }

    /// Real-time threads of the last [`Self::scan_threads`], kernel threads included.
    #[must_use]
    pub fn rt_threads(&self) -> &[ThreadInfo] {
        &self.scan.realtime
    }

    /// A thread as it is now; `None` when it has ended.
    #[must_use]
    pub fn thread(&self, tid: u32) -> Option<ThreadDetail> {
        self.threads.detail(tid, &self.hierarchy)
    }
}

impl KnownCgroup {
    /// `named_task` finds the container of containerd that has its cgroup at a path, or above it, and a name for an id.
    fn new(path: &str, id: u64, named_task: impl Fn(&str) -> Option<Container>) -> Self {
        let identify::Owner { container, monitor } = identify::identify(path);
        let container = match container {
            Some(container) if container.runtime != "systemd" => Some(container),
            other => named_task(path).or(other),
        };
        let has_id = container.as_ref().is_some_and(|container| identify::is_container_id(&container.id));
        let mut entry = Self {
            pod_uid: container.as_ref().and_then(|container| container.pod.clone()),
            info: CgroupInfo { path: path.to_owned(), id, container, class: Class::default(), vanished: false },
            monitor,
            realtime: false,
            ruled_out: false,
            named: None,
            tries_left: if has_id { NAME_TRIES } else { 0 },
            vanished_at: None,
        };
        entry.classify();
        entry
    }

    fn set_realtime(&mut self, realtime: bool) {
        self.realtime = realtime;
        self.classify();
    }

    fn classify(&mut self) {
        let (container, monitor) = (self.info.container.as_ref(), self.monitor);
        let facts = Facts { path: &self.info.path, container, monitor, realtime: self.realtime };
        self.info.class = self.named.unwrap_or_else(|| classify(facts));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::{CgroupError, Version};
    use crate::snapshot::CgroupLayout;

    const ID: &str = "575db3970d26d3f17196e44becb0767529f425def48fe11641702c2457bd2ae6";
    const FIFO: &str = "(plc) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 -51 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 50 1 0\n";
    const KERNEL_FIFO: &str =
        "(migration/0) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 -100 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 99 1 0\n";

    /// A node with a v2 tree.
    struct TestNode {
        root: tempfile::TempDir,
    }

    impl TestNode {
        fn new() -> Self {
            let node = Self { root: tempfile::tempdir().unwrap() };
            node.write("proc/self/mountinfo", "32 26 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
            node.write("sys/fs/cgroup/cgroup.controllers", "cpu\n");
            node
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn cgroup(&self, path: &str) -> PathBuf {
            let dir = self.root.path().join("sys/fs/cgroup").join(path);
            fs::create_dir_all(&dir).unwrap();
            dir
        }

        fn thread(&self, tid: u32, stat: &str, cgroup: &str) {
            self.write(&format!("proc/{tid}/task/{tid}/stat"), &format!("{tid} {stat}"));
            self.write(&format!("proc/{tid}/task/{tid}/cgroup"), &format!("0::{cgroup}\n"));
        }

        fn inventory(&self) -> Inventory {
            let hierarchy = Hierarchy::detect(self.root.path()).unwrap();
            Inventory::new(self.root.path(), hierarchy, Vec::new())
        }
    }

    fn class_of(inventory: &Inventory, path: &str) -> Class {
        inventory.cgroup_by_path(path).unwrap().class
    }

    #[test]
    fn a_container_with_a_realtime_thread_is_plc_by_name_until_a_scan_finds_none() {
        let node = TestNode::new();
        let path = format!("/libpod_parent/libpod-{ID}");
        node.cgroup(&path[1..]);
        node.write(
            "var/lib/containers/storage/overlay-containers/containers.json",
            include_str!("testdata/podman-4.3.1-containers.json"),
        );
        node.thread(208, FIFO, &path);
        node.thread(17, KERNEL_FIFO, "/");
        let mut inventory = node.inventory();
        inventory.scan_threads().unwrap();
        let cgroup = inventory.cgroup_by_path(&path).unwrap();
        assert_eq!(cgroup.class, Class::Plc);
        let container = cgroup.container.as_ref().unwrap();
        assert_eq!((container.runtime.as_str(), container.name.as_deref()), ("podman", Some("plc-loop")));
        assert_eq!(inventory.cgroup_by_id(cgroup.id), Some(cgroup));
        assert_eq!(class_of(&inventory, "/libpod_parent"), Class::Ls);
        assert_eq!(class_of(&inventory, "/"), Class::System);
        assert_eq!(
            inventory.rt_threads().iter().map(|thread| (thread.tid, thread.kernel)).collect::<Vec<_>>(),
            [(17, true), (208, false)]
        );
        assert_eq!((inventory.last_scan().processes, inventory.last_scan().threads), (2, 2));

        fs::remove_dir_all(node.root.path().join("proc/208")).unwrap();
        inventory.scan_threads().unwrap();
        assert_eq!(class_of(&inventory, &path), Class::Ls);
    }

    #[test]
    fn a_mark_from_the_kernel_side_makes_a_cgroup_plc() {
        let node = TestNode::new();
        node.cgroup("plc");
        let mut inventory = node.inventory();
        inventory.refresh().unwrap();
        let id = inventory.cgroup_by_path("/plc").unwrap().id;
        assert_eq!(class_of(&inventory, "/plc"), Class::Ls);
        inventory.mark_realtime(id);
        inventory.mark_realtime(u64::MAX);
        assert_eq!(class_of(&inventory, "/plc"), Class::Plc);
        inventory.refresh().unwrap();
        assert_eq!(class_of(&inventory, "/plc"), Class::Plc);
    }

    #[test]
    fn a_plc_that_systemd_starts_is_one_and_a_daemon_of_the_system_is_none() {
        let node = TestNode::new();
        for (tid, unit) in [(30, "plc.service"), (31, "run-p345-i645.scope"), (32, "chrony.service")] {
            node.cgroup(&format!("system.slice/{unit}"));
            node.thread(tid, FIFO, &format!("/system.slice/{unit}"));
        }
        let mut inventory = node.inventory();
        inventory.scan_threads().unwrap();
        assert_eq!(class_of(&inventory, "/system.slice/plc.service"), Class::Plc);
        assert_eq!(class_of(&inventory, "/system.slice/run-p345-i645.scope"), Class::Plc);
        assert_eq!(class_of(&inventory, "/system.slice/chrony.service"), Class::System);
        assert_eq!(class_of(&inventory, "/system.slice"), Class::System);
    }

    #[test]
    fn realtime_threads_of_a_runtime_make_no_plc_wherever_they_are() {
        let node = TestNode::new();
        let session = "/user.slice/user-0.slice/session-1.scope";
        let dir = node.cgroup(&session[1..]);
        // A FIFO shell has started podman: conmon inherits its policy.
        node.thread(40, FIFO, session);
        node.write("proc/40/comm", "conmon\n");
        node.write("proc/40/stat", &format!("40 {FIFO}"));
        fs::write(dir.join("cgroup.threads"), "40\n").unwrap();
        let mut inventory = node.inventory();
        inventory.scan_threads().unwrap();
        assert_eq!(class_of(&inventory, session), Class::Ls);
        assert!(inventory.threads.is_of_runtime(40) && inventory.realtime().is_empty());
        // The kernel side has seen it, too.
        let id = inventory.cgroup_by_path(session).unwrap().id;
        inventory.mark_realtime(id);
        assert_eq!(class_of(&inventory, session), Class::Ls);
        // A thread of the workload beside it counts: from the next scan on, or at once where nothing was ruled out yet.
        node.thread(41, FIFO, session);
        node.write("proc/41/comm", "plc\n");
        node.write("proc/41/stat", &format!("41 {FIFO}"));
        fs::write(dir.join("cgroup.threads"), "40\n41\n").unwrap();
        let mut again = node.inventory();
        again.refresh().unwrap();
        again.mark_realtime(id);
        assert_eq!(class_of(&again, session), Class::Plc);
        inventory.scan_threads().unwrap();
        assert_eq!(class_of(&inventory, session), Class::Plc);
    }

    #[test]
    fn the_monitor_beside_a_payload_is_the_systems_in_whichever_order_they_come() {
        let payload = format!("/system.slice/plc.service/libpod-payload-{ID}");
        let monitor = "/system.slice/plc.service/runtime";
        let node = TestNode::new();
        node.cgroup(&monitor[1..]);
        node.thread(50, FIFO, monitor);
        let mut inventory = node.inventory();
        inventory.scan_threads().unwrap();
        // Nothing tells yet that it is not the PLC's own.
        assert_eq!(class_of(&inventory, monitor), Class::Plc);
        node.cgroup(&payload[1..]);
        node.thread(51, FIFO, &payload);
        for mut inventory in [inventory, node.inventory()] {
            inventory.scan_threads().unwrap();
            assert_eq!(class_of(&inventory, monitor), Class::System);
            assert_eq!(class_of(&inventory, &payload), Class::Plc);
            // The unit around both is judged apart.
            assert_eq!(class_of(&inventory, "/system.slice/plc.service"), Class::System);
            let container = inventory.cgroup_by_path(&payload).unwrap().container.clone().unwrap();
            assert_eq!((container.runtime.as_str(), container.id.as_str()), ("podman", ID));
        }
    }

    #[test]
    fn guards_own_threads_make_no_plc() {
        let hierarchy = match Hierarchy::detect(Path::new("/")) {
            Ok(hierarchy) => hierarchy,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let mut inventory = Inventory::new(Path::new("/"), hierarchy, Vec::new());
        inventory.refresh().unwrap();
        let own = inventory.thread(std::process::id()).unwrap().thread.cgroup.unwrap();
        let (id, before) = inventory.cgroup_by_path(&own).map(|cgroup| (cgroup.id, cgroup.class)).unwrap();
        if inventory.threads.only_others(&inventory.hierarchy, &own) {
            inventory.mark_realtime(id);
            assert_eq!(class_of(&inventory, &own), before);
        } else {
            eprintln!("skipped: somebody else has real-time threads in {own}");
        }
    }

    #[test]
    fn a_container_of_ctr_is_named_in_any_place_with_what_is_below() {
        let node = TestNode::new();
        node.write(
            "run/containerd/io.containerd.runtime.v2.task/default/press/config.json",
            r#"{"linux":{"cgroupsPath":"line-7.slice:cell:press"}}"#,
        );
        let scope = "/line.slice/line-7.slice/cell-press.scope";
        node.cgroup(&format!("{}/sub", &scope[1..]));
        let mut inventory = node.inventory();
        inventory.refresh().unwrap();
        let name = |path: &str| inventory.cgroup_by_path(path).unwrap().container.clone().unwrap();
        for path in [scope, &format!("{scope}/sub")] {
            assert_eq!((name(path).runtime.as_str(), name(path).id.as_str()), ("containerd", "press"), "{path}");
        }
        assert_eq!(name("/line.slice/line-7.slice").runtime, "systemd");
    }

    #[test]
    fn a_class_that_was_named_wins_over_the_found_one_until_it_is_taken_back() {
        let node = TestNode::new();
        node.cgroup("plc");
        let mut inventory = node.inventory();
        inventory.refresh().unwrap();
        let id = inventory.cgroup_by_path("/plc").unwrap().id;
        inventory.name_class(id, Some(Class::Lse));
        inventory.mark_realtime(id);
        inventory.refresh().unwrap();
        assert_eq!(class_of(&inventory, "/plc"), Class::Lse);
        inventory.name_class(id, None);
        assert_eq!(class_of(&inventory, "/plc"), Class::Plc);
    }

    #[test]
    fn a_cgroup_that_went_is_known_for_a_while_and_then_forgotten() {
        let node = TestNode::new();
        let dir = node.cgroup("job");
        let mut inventory = node.inventory();
        let start = Instant::now();
        inventory.refresh_at(start).unwrap();
        let id = inventory.cgroup_by_path("/job").unwrap().id;
        fs::remove_dir(dir).unwrap();
        inventory.refresh_at(start).unwrap();
        assert!(inventory.cgroup_by_id(id).unwrap().vanished);
        assert_eq!(inventory.cgroup_by_path("/job"), None);
        assert_eq!(inventory.cgroups().count(), 1);
        inventory.refresh_at(start + VANISHED_FOR - Duration::from_millis(1)).unwrap();
        assert_eq!(inventory.cgroup_by_id(id).unwrap().path, "/job");
        inventory.refresh_at(start + VANISHED_FOR).unwrap();
        assert_eq!(inventory.cgroup_by_id(id), None);
    }

    #[test]
    fn a_cgroup_that_comes_back_under_its_id_is_there_again() {
        let node = TestNode::new();
        let dir = node.cgroup("job");
        let away = node.root.path().join("away");
        let mut inventory = node.inventory();
        inventory.refresh().unwrap();
        let before = inventory.cgroup_by_path("/job").cloned().unwrap();
        fs::rename(&dir, &away).unwrap();
        inventory.refresh().unwrap();
        assert_eq!(inventory.cgroup_by_path("/job"), None);
        fs::rename(&away, &dir).unwrap();
        inventory.refresh().unwrap();
        assert_eq!(inventory.cgroup_by_path("/job"), Some(&before));
        assert_eq!(inventory.cgroup_by_id(before.id), Some(&before));
    }

    #[test]
    fn a_renamed_cgroup_has_its_new_path() {
        let node = TestNode::new();
        let dir = node.cgroup("old");
        let mut inventory = node.inventory();
        inventory.refresh().unwrap();
        fs::rename(&dir, dir.with_file_name("new")).unwrap();
        inventory.refresh().unwrap();
        assert_eq!(inventory.cgroups().map(|cgroup| cgroup.path.as_str()).collect::<Vec<_>>(), ["/", "/new"]);
        assert_eq!(inventory.cgroup_by_path("/old"), None);
        assert!(inventory.cgroup_by_path("/new").is_some());
    }

    #[test]
    fn a_name_that_is_written_after_the_cgroup_was_made_is_still_found_and_names_the_pod() {
        let node = TestNode::new();
        let pod = "kubepods/burstable/pod7d9b2a54";
        node.cgroup(&format!("{pod}/{ID}"));
        let mut inventory = node.inventory();
        inventory.refresh().unwrap();
        let container = |inventory: &Inventory, path: &str| {
            inventory.cgroups().find(|cgroup| cgroup.path == format!("/{path}")).unwrap().container.clone().unwrap()
        };
        let path = format!("{pod}/{ID}");
        assert_eq!(container(&inventory, &path).name, None);
        assert_eq!(container(&inventory, pod).pod.as_deref(), Some("7d9b2a54"));
        node.write(&format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"),
            r#"{"annotations":{"io.kubernetes.cri.container-name":"motion","io.kubernetes.cri.sandbox-namespace":"factory",
                "io.kubernetes.cri.sandbox-name":"line-1"}}"#);
        inventory.refresh().unwrap();
        let named = container(&inventory, &path);
        assert_eq!((named.name.as_deref(), named.runtime.as_str()), (Some("motion"), "containerd"));
        for path in [path.as_str(), pod] {
            let container = container(&inventory, path);
            assert_eq!(container.pod.as_deref(), Some("factory/line-1"));
            assert_eq!(container.qos.as_deref(), Some("burstable"));
        }
        // A second container of the pod, of which nothing is known yet.
        let other = format!("{pod}/{}", ID.replace('5', "6"));
        node.cgroup(&other);
        inventory.refresh().unwrap();
        assert_eq!(container(&inventory, &other).pod.as_deref(), Some("factory/line-1"));
    }

    #[test]
    fn this_node_is_inventoried() {
        let hierarchy = match Hierarchy::detect(Path::new("/")) {
            Ok(hierarchy) => hierarchy,
            Err(error) => {
                assert!(matches!(error, CgroupError::NoCpuController { .. }), "{error}");
                eprintln!("skipped: {error}");
                return;
            }
        };
        assert_ne!(hierarchy.layout(), CgroupLayout::None);
        let mut inventory = Inventory::new(Path::new("/"), hierarchy, Vec::new());
        inventory.scan_threads().unwrap();
        let own = inventory.thread(std::process::id()).unwrap();
        let path = own.thread.cgroup.unwrap();
        assert!(inventory.cgroup_by_path(&path).is_some(), "{path}");
        assert!(inventory.rt_threads().iter().all(|thread| thread.policy.is_realtime()));
        assert!(inventory.last_scan().threads >= inventory.last_scan().processes);
        assert_eq!(inventory.thread(u32::MAX), None);
    }

    #[test]
    fn an_empty_proc_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sys")).unwrap();
        let hierarchy = Hierarchy::for_test(&root.path().join("sys"), Version::V2);
        let error = Inventory::new(root.path(), hierarchy, Vec::new()).scan_threads().unwrap_err().to_string();
        assert!(error.starts_with("cannot list ") && error.contains("/proc"), "{error}");
    }
}
