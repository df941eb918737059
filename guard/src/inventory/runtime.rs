//! What people call a container: names, images and pods from what the runtimes leave on disk and in the command lines of
//! their own processes. Every source is optional; one that is absent, unreadable or not understood gives nothing. What is
//! found here is for display and for matching, and no proof of anything: a monitor's command line is its user's.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, OpenOptions},
    io::Read,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStringExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    identify::{UNKNOWN, is_container_id},
    threads::ids_in,
};
use crate::snapshot::Container;

/// The longest file that is read: containers.json of thousands of containers stays far below.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Where containerd keeps the bundles of running containers, by namespace and id: its own default, Docker's own containerd,
/// k3s and RKE2, k0s, microk8s. Others are found by their shims.
const CONTAINERD: [&str; 5] = [
    "run/containerd",
    "run/docker/containerd/daemon",
    "run/k3s/containerd",
    "run/k0s/containerd",
    "var/snap/microk8s/common/run/containerd",
];
const TASKS: &str = "io.containerd.runtime.v2.task";
/// The namespace of Docker's containers.
const MOBY: &str = "moby";
/// Where podman and CRI-O keep containers unless configured otherwise.
const STORAGE: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];
/// The same of a user's podman, below the home directory.
const USERS_STORAGE: &str = ".local/share/containers/storage";
/// Where Docker keeps containers unless configured otherwise: its own default, balenaEngine's on its OS, snap's.
const DOCKER: [&str; 3] = ["var/lib/docker", "mnt/data/docker", "var/snap/docker/common/var-lib-docker"];
/// The same of a user's Docker, below the home directory.
const USERS_DOCKER: &str = ".local/share/docker";

/// What the runtimes know.
#[derive(Debug)]
pub(super) struct Runtimes {
    root: PathBuf,
    storage_roots: Vec<PathBuf>,
}

/// What was read for one round of look-ups, each source at most once.
#[derive(Default)]
pub(super) struct Round {
    processes: Option<Processes>,
    stores: HashMap<PathBuf, HashMap<String, Stored>>,
}

/// What the processes of runtimes tell.
#[derive(Debug, Default)]
struct Processes {
    /// What conmon's say, by container id.
    monitors: HashMap<String, Monitor>,
    /// Where Docker's daemons keep containers.
    docker_roots: Vec<PathBuf>,
    /// Where containerd's shims keep bundles.
    tasks: Vec<Tasks>,
}

impl Runtimes {
    /// `storage_roots` are further roots of podman's storage (its --root).
    pub(super) fn new(root: &Path, storage_roots: Vec<PathBuf>) -> Self {
        Self { root: root.to_owned(), storage_roots }
    }

    /// Adds what can be found out about the container of the cgroup at `path`; true when a name was found.
    pub(super) fn complete(&self, path: &str, container: &mut Container, round: &mut Round) -> bool {
        if !is_container_id(&container.id) {
            return false;
        }
        match container.runtime.as_str() {
            "podman" => {
                self.podman(path, container, round);
            }
            "docker" | "balena" => {
                self.docker(path, container, round);
            }
            "containerd" => {
                self.containerd(container, round);
            }
            "crio" => {
                self.crio(container, round);
            }
            // A plain directory: whoever knows the id made it.
            "kubernetes" | UNKNOWN => {
                let by = if let Some(namespace) = self.containerd(container, round) {
                    if namespace == MOBY {
                        self.docker(path, container, round);
                        "docker"
                    } else {
                        "containerd"
                    }
                } else if self.crio(container, round) {
                    "crio"
                } else if self.docker(path, container, round) {
                    "docker"
                } else {
                    return false;
                };
                by.clone_into(&mut container.runtime);
            }
            _ => {}
        }
        container.name.is_some()
    }

    /// The containers of containerd whose ids are names of their users' choice, by the path of their cgroup: `ctr run` puts
    /// one at `/<namespace>/<id>` unless it is told another place. The bundle is there before the cgroup is.
    pub(super) fn named_tasks(&self) -> HashMap<String, Container> {
        let mut all = HashMap::new();
        let namespaces = CONTAINERD.iter().flat_map(|dir| entries(&self.root.join(dir).join(TASKS)));
        for task in namespaces.flat_map(|namespace| entries(&namespace)) {
            let Some(id) = task.file_name().and_then(|name| name.to_str()).filter(|id| !is_container_id(id)) else {
                continue;
            };
            let (runtime, id) = ("containerd".to_owned(), id.to_owned());
            let container = Container { runtime, name: Some(id.clone()), id, ..Container::default() };
            for cgroup in Bundle::read(&task).iter().flat_map(Bundle::cgroups) {
                all.insert(cgroup, container.clone());
            }
        }
        all
    }

    fn podman(&self, path: &str, container: &mut Container, round: &mut Round) {
        let monitor = self.processes(round).monitors.get(&container.id).cloned().unwrap_or_default();
        container.name = monitor.name;
        self.name_podmans_pod(container, monitor.bundle.as_deref());
        let defaults = STORAGE.iter().map(|dir| self.root.join(dir));
        let roots = monitor
            .storage_roots
            .into_iter()
            .chain(self.storage_roots.iter().cloned())
            .map(|dir| below(&self.root, &dir))
            .chain(self.home_in(path).map(|home| home.join(USERS_STORAGE)));
        for root in roots.chain(defaults) {
            let store = round.stores.entry(root).or_insert_with_key(|root| read_store(root));
            if let Some(stored) = store.get(&container.id) {
                container.name = container.name.take().or_else(|| stored.name.clone());
                container.image.clone_from(&stored.image);
                return;
            }
        }
    }

    /// Only podman's database has the names of pods. The container that holds a pod's namespaces is called by the pod's id,
    /// and its host by the pod's name unless that was given another.
    fn name_podmans_pod(&self, container: &mut Container, bundle: Option<&Path>) {
        let infra = container.pod.as_ref().and_then(|pod| pod.get(..12)).map(|pod| format!("{pod}-infra"));
        if let Some(bundle) = bundle.filter(|_| infra.is_some() && infra == container.name)
            && let Some(name) = Bundle::read(&below(&self.root, bundle)).and_then(|bundle| not_empty(&bundle.hostname))
        {
            container.pod = Some(name);
        }
    }

    fn docker(&self, path: &str, container: &mut Container, round: &mut Round) -> bool {
        let configured = docker_root_in(&self.root.join("etc/docker/daemon.json"));
        let users = self.home_in(path).map(|home| home.join(USERS_DOCKER));
        let places = configured.map(|dir| below(&self.root, &dir)).into_iter().chain(users);
        let mut places = places.chain(DOCKER.iter().map(|dir| self.root.join(dir)));
        let found = places.find_map(|root| DockerConfig::of(&root, &container.id));
        // The daemon says where else it is; it is asked last because that takes a look at all processes.
        let Some(config) = found.or_else(|| {
            self.processes(round).docker_roots.iter().find_map(|root| DockerConfig::of(root, &container.id))
        }) else {
            return false;
        };
        // Docker's names begin with a slash.
        container.name = not_empty(config.name.trim_start_matches('/'));
        container.image = not_empty(&config.config.image);
        true
    }

    /// Adds what the bundle of one of containerd's containers says, and returns its namespace.
    fn containerd(&self, container: &mut Container, round: &mut Round) -> Option<String> {
        let mut known = CONTAINERD.iter().flat_map(|dir| entries(&self.root.join(dir).join(TASKS)));
        let found = known.find_map(|tasks| {
            let bundle = Bundle::read(&tasks.join(&container.id))?;
            Some((bundle, tasks.file_name()?.to_string_lossy().into_owned()))
        });
        let (bundle, namespace) = found.or_else(|| {
            let mut shims = self.processes(round).tasks.iter();
            shims.find_map(|tasks| Some((Bundle::read(&tasks.dir.join(&container.id))?, tasks.namespace.clone())))
        })?;
        containerd_annotations(container, &bundle.texts());
        Some(namespace)
    }

    fn crio(&self, container: &mut Container, round: &mut Round) -> bool {
        let monitor = self.processes(round).monitors.get(&container.id).cloned();
        let bundle = monitor.as_ref().and_then(|monitor| monitor.bundle.as_deref());
        let bundles = bundle.map(|dir| below(&self.root, dir)).into_iter().chain(
            STORAGE
                .iter()
                .map(|dir| self.root.join(dir).join("overlay-containers").join(&container.id).join("userdata")),
        );
        for bundle in bundles {
            if let Some(bundle) = Bundle::read(&bundle) {
                crio_annotations(container, &bundle.texts());
                return true;
            }
        }
        container.name = monitor.and_then(|monitor| monitor.name);
        container.name.is_some()
    }

    /// The processes of runtimes that are running. conmon is the parent of every container of podman and CRI-O, and its
    /// command line has id, name, bundle and storage root, wherever the storage may be. A shim of containerd works in the
    /// bundle of its container, or of the first of its pod.
    fn processes<'a>(&self, round: &'a mut Round) -> &'a Processes {
        round.processes.get_or_insert_with(|| {
            let proc = self.root.join("proc");
            let mut found: Vec<(u32, PathBuf, Kind)> = ids_in(&proc)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|pid| {
                    let dir = proc.join(pid.to_string());
                    let kind = Kind::of(fs::read(dir.join("comm")).ok()?.trim_ascii_end())?;
                    Some((fs::metadata(&dir).ok()?.uid(), dir, kind))
                })
                .collect();
            // Anybody may call a process conmon: of several claims the one of the lowest user id counts.
            found.sort_by_key(|(uid, ..)| *uid);
            let mut processes = Processes::default();
            for (uid, dir, kind) in found {
                let arguments = || fs::read(dir.join("cmdline")).unwrap_or_default();
                match kind {
                    Kind::Monitor => {
                        if let Some((id, monitor)) = Monitor::parse(&arguments()) {
                            processes.monitors.entry(id).or_insert(monitor);
                        }
                    }
                    Kind::Docker => processes.docker_roots.extend(self.docker_root_of(uid, &arguments())),
                    Kind::Shim => processes.tasks.extend(Tasks::of_shim(&dir)),
                }
            }
            // The shims of one namespace work beside each other.
            let mut seen = HashSet::new();
            processes.tasks.retain(|tasks| seen.insert(tasks.identity));
            processes
        })
    }

    /// Where a Docker daemon of this user with these arguments keeps containers, if it is not where all do.
    fn docker_root_of(&self, uid: u32, cmdline: &[u8]) -> Option<PathBuf> {
        let file = |name: &str| option(cmdline, &[name]).map(|file| below(&self.root, &file));
        let home = (uid != 0).then(|| self.home_of(uid)).flatten();
        let configured = || {
            let users = home.as_ref().map(|home| home.join(".config/docker/daemon.json"));
            docker_root_in(&file("--config-file").or(users)?)
        };
        let given = option(cmdline, &["--data-root", "--graph", "-g"]).or_else(configured);
        given.map(|dir| below(&self.root, &dir)).or_else(|| Some(home?.join(USERS_DOCKER)))
    }

    /// Home directory of the user in whose slice the cgroup at `path` is.
    fn home_in(&self, path: &str) -> Option<PathBuf> {
        let uid = path.split('/').find_map(|name| name.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok())?;
        self.home_of(uid)
    }

    fn home_of(&self, uid: u32) -> Option<PathBuf> {
        let users = String::from_utf8(read_limited(&self.root.join("etc/passwd"))?).ok()?;
        // name:password:uid:gid:comment:home:shell
        let home = users.lines().find_map(|line| {
            let mut fields = line.split(':').skip(2);
            (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2)).flatten()
        });
        home.filter(|home| home.starts_with('/')).map(|home| below(&self.root, Path::new(home)))
    }
}

/// What a process of a runtime can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// conmon.
    Monitor,
    /// Docker's daemon, or balenaEngine's.
    Docker,
    /// A shim of containerd.
    Shim,
}

impl Kind {
    fn of(comm: &[u8]) -> Option<Self> {
        match comm {
            b"conmon" => Some(Self::Monitor),
            b"dockerd" | b"balenad" | b"balena-engine-d" => Some(Self::Docker),
            b"containerd-shim" => Some(Self::Shim),
            _ => None,
        }
    }
}

/// A directory with the bundles of one namespace of containerd.
#[derive(Debug)]
struct Tasks {
    dir: PathBuf,
    namespace: String,
    /// Device and inode.
    identity: (u64, u64),
}

impl Tasks {
    /// Where a shim works, by its directory in /proc. It is looked at through there, because a containerd that runs in a
    /// container has its bundles in that container.
    fn of_shim(process: &Path) -> Option<Self> {
        let bundle = fs::read_link(process.join("cwd")).ok()?;
        let dir = process.join("cwd/..");
        let metadata = fs::metadata(&dir).ok()?;
        let namespace = bundle.parent()?.file_name()?.to_string_lossy().into_owned();
        Some(Self { identity: (metadata.dev(), metadata.ino()), dir, namespace })
    }
}

/// What a conmon's command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Monitor {
    name: Option<String>,
    bundle: Option<PathBuf>,
    /// podman's --root and --runroot, handed on to its clean-up command.
    storage_roots: Vec<PathBuf>,
}

impl Monitor {
    /// Container id and the rest, from the NUL-terminated arguments.
    fn parse(cmdline: &[u8]) -> Option<(String, Self)> {
        let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut id, mut monitor) = (None, Self::default());
        let mut exit_arguments: Vec<&[u8]> = Vec::new();
        for pair in arguments.windows(2) {
            match pair[0] {
                b"-c" | b"--cid" => id = id.or_else(|| Some(text(pair[1]))),
                b"-n" | b"--name" => monitor.name = monitor.name.or_else(|| not_empty(&text(pair[1]))),
                b"-b" | b"--bundle" => monitor.bundle = monitor.bundle.or_else(|| Some(path_of(pair[1]))),
                b"--exit-command-arg" => exit_arguments.push(pair[1]),
                _ => {}
            }
        }
        let is_root = |name: &[u8]| name == b"--root" || name == b"--runroot";
        let roots = exit_arguments.windows(2).filter(|pair| is_root(pair[0]));
        monitor.storage_roots = roots.map(|pair| path_of(pair[1])).collect();
        Some((id.filter(|id| is_container_id(id))?, monitor))
    }
}

/// The value of an option, as "--name value" or "--name=value"; of several the last one, as Docker takes it.
fn option(cmdline: &[u8], names: &[&str]) -> Option<PathBuf> {
    let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let value = |at: usize| {
        names.iter().find_map(|name| match arguments[at].strip_prefix(name.as_bytes())? {
            b"" => arguments.get(at + 1).copied(),
            rest => rest.strip_prefix(b"="),
        })
    };
    (0..arguments.len()).rev().find_map(value).filter(|value| value.starts_with(b"/")).map(path_of)
}

/// The data root that a daemon.json names; "graph" is what old versions call it.
fn docker_root_in(file: &Path) -> Option<PathBuf> {
    let bytes = read_limited(file)?;
    let config: Value = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).ok()?;
    let root = config.get("data-root").or_else(|| config.get("graph"))?.as_str()?;
    root.starts_with('/').then(|| PathBuf::from(root))
}

/// A container in containers/storage.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    name: Option<String>,
    image: Option<String>,
}

/// One entry of containers.json, containers/storage containers.go.
#[derive(Deserialize)]
struct StoredContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// JSON again, written by podman or CRI-O.
    #[serde(default)]
    metadata: String,
}

/// What podman and CRI-O put there, both with these keys.
#[derive(Default, Deserialize)]
struct StoredMetadata {
    #[serde(default, rename = "image-name")]
    image_name: String,
}

/// config.v2.json, moby daemon/container.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Name")]
    name: String,
    #[serde(default, rename = "Config")]
    config: DockerImage,
}

#[derive(Default, Deserialize)]
struct DockerImage {
    #[serde(default, rename = "Image")]
    image: String,
}

impl DockerConfig {
    /// That of a container below a data root, or below the root that a daemon with userns-remap has in there.
    fn of(root: &Path, id: &str) -> Option<Self> {
        let read = |root: &Path| {
            let file = root.join("containers").join(id).join("config.v2.json");
            serde_json::from_slice(&read_limited(&file)?).ok()
        };
        // "100000.100000": the first user and group id.
        let is_remapped = |dir: &PathBuf| {
            let ids = dir.file_name().and_then(|name| name.to_str()?.split_once('.'));
            ids.is_some_and(|(user, group)| user.parse::<u32>().is_ok() && group.parse::<u32>().is_ok())
        };
        read(root).or_else(|| entries(root).filter(is_remapped).find_map(|root| read(&root)))
    }
}

/// All containers of one storage root, whatever its driver.
fn read_store(root: &Path) -> HashMap<String, Stored> {
    let mut all = HashMap::new();
    for dir in entries(root).filter(|dir| dir.as_os_str().as_encoded_bytes().ends_with(b"-containers")) {
        for file in ["containers.json", "volatile-containers.json"] {
            if let Some(bytes) = read_limited(&dir.join(file)) {
                all.extend(parse_store(&bytes));
            }
        }
    }
    all
}

fn parse_store(bytes: &[u8]) -> HashMap<String, Stored> {
    let containers: Vec<StoredContainer> = serde_json::from_slice(bytes).unwrap_or_default();
    containers
        .into_iter()
        .map(|container| {
            let metadata: StoredMetadata = serde_json::from_str(&container.metadata).unwrap_or_default();
            let name = container.names.first().and_then(|name| not_empty(name));
            (container.id, Stored { name, image: not_empty(&metadata.image_name) })
        })
        .collect()
}

/// config.json of an OCI bundle.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, Value>,
    #[serde(default)]
    linux: BundleLinux,
    #[serde(default)]
    hostname: String,
}

#[derive(Default, Deserialize)]
struct BundleLinux {
    #[serde(default, rename = "cgroupsPath")]
    cgroups_path: String,
}

impl Bundle {
    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&read_limited(&dir.join("config.json"))?).ok()
    }

    /// The annotations that are texts and not empty.
    fn texts(self) -> HashMap<String, String> {
        let text = |(key, value)| match value {
            Value::String(text) if !text.is_empty() => Some((key, text)),
            _ => None,
        };
        self.annotations.into_iter().filter_map(text).collect()
    }

    /// Where its cgroup may be. Only the runtime's own settings say whether "slice:prefix:name" is a scope of systemd or the
    /// name of a directory.
    fn cgroups(&self) -> Vec<String> {
        let path = self.linux.cgroups_path.as_str();
        let parts: Vec<&str> = path.splitn(3, ':').collect();
        match parts[..] {
            [slice, prefix, name] if !path.starts_with('/') => {
                let slice = if slice.is_empty() { "system.slice" } else { slice };
                vec![format!("{}/{prefix}-{name}.scope", slice_path(slice)), format!("/{path}")]
            }
            _ if path.len() > 1 && path.starts_with('/') => vec![path.to_owned()],
            _ => Vec::new(),
        }
    }
}

/// The cgroup of a slice: "a-b.slice" is in "a.slice".
fn slice_path(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(end, _)| end).chain([name.len()]);
    ends.filter(|end| *end > 0).flat_map(|end| ["/", &name[..end], ".slice"]).collect()
}

/// containerd pkg/cri/annotations; nerdctl pkg/labels.
fn containerd_annotations(container: &mut Container, annotations: &HashMap<String, String>) {
    let get = |key: &str| annotations.get(key).cloned();
    let sandbox = annotations.get("io.kubernetes.cri.container-type").is_some_and(|kind| kind == "sandbox");
    container.name = get("io.kubernetes.cri.container-name")
        // What kubelet calls the container that only holds a pod's namespaces.
        .or_else(|| sandbox.then(|| "POD".to_owned()))
        .or_else(|| get("nerdctl/name"));
    container.image = get("io.kubernetes.cri.image-name");
    name_pod(container, get("io.kubernetes.cri.sandbox-namespace"), get("io.kubernetes.cri.sandbox-name"));
}

/// cri-o pkg/annotations and kubelet's own labels.
fn crio_annotations(container: &mut Container, annotations: &HashMap<String, String>) {
    let get = |key: &str| annotations.get(key).cloned();
    container.name = get("io.kubernetes.container.name").or_else(|| get("io.kubernetes.cri-o.Name"));
    container.image = get("io.kubernetes.cri-o.ImageName").or_else(|| get("io.kubernetes.cri-o.Image"));
    name_pod(container, get("io.kubernetes.pod.namespace"), get("io.kubernetes.pod.name"));
}

fn name_pod(container: &mut Container, namespace: Option<String>, name: Option<String>) {
    if let (Some(namespace), Some(name)) = (namespace, name) {
        container.pod = Some(format!("{namespace}/{name}"));
    }
}

fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn below(root: &Path, dir: &Path) -> PathBuf {
    root.join(dir.strip_prefix("/").unwrap_or(dir))
}

/// The paths in a directory; none when it cannot be listed.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// A regular file of bearable size. Its path may come from a foreign process, so it is looked at before it is opened for
/// reading: a FIFO would make guard wait, and a device may act upon being opened (/dev/watchdog).
fn read_limited(path: &Path) -> Option<Vec<u8>> {
    let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).ok()?;
    if !found.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_FILE_BYTES) {
        return None;
    }
    let file = fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "575db3970d26d3f17196e44becb0767529f425def48fe11641702c2457bd2ae6";
    /// Recorded: podman 4.3.1 --root /run/a --runroot /run/b --cgroup-manager=cgroupfs run -d --name plc-loop
    /// --rootfs …, in a Debian 12 guest with 6.12 PREEMPT_RT; see README.md beside the files.
    const CONMON: &[u8] = include_bytes!("testdata/podman-4.3.1-conmon.cmdline");
    const STORE: &[u8] = include_bytes!("testdata/podman-4.3.1-containers.json");

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, bytes) in files {
            let path = root.path().join(file.replace("<id>", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    fn completed(root: &Path, runtime: &str) -> Container {
        completed_at(root, runtime, "/")
    }

    fn completed_at(root: &Path, runtime: &str, path: &str) -> Container {
        let mut container = Container { runtime: runtime.to_owned(), id: ID.to_owned(), ..Container::default() };
        Runtimes::new(root, Vec::new()).complete(path, &mut container, &mut Round::default());
        container
    }

    fn named(container: &Container) -> (&str, Option<&str>, Option<&str>) {
        (&container.runtime, container.name.as_deref(), container.image.as_deref())
    }

    #[test]
    fn a_podman_container_with_any_root_is_named_by_its_monitor() {
        let root = tree(&[("proc/206/comm", b"conmon\n"), ("proc/206/cmdline", CONMON)]);
        let container = completed(root.path(), "podman");
        assert_eq!((container.name.as_deref(), container.image), (Some("plc-loop"), None));
    }

    #[test]
    fn the_monitor_leads_to_the_storage_with_the_image() {
        let store = String::from_utf8(STORE.to_vec())
            .unwrap()
            .replace(r#"\"image-name\":\"\""#, r#"\"image-name\":\"docker.io/library/plc:1\""#);
        let root = tree(&[
            ("proc/206/comm", b"conmon\n"),
            ("proc/206/cmdline", CONMON),
            ("run/a/overlay-containers/containers.json", store.as_bytes()),
        ]);
        let container = completed(root.path(), "podman");
        assert_eq!(container.name.as_deref(), Some("plc-loop"));
        assert_eq!(container.image.as_deref(), Some("docker.io/library/plc:1"));
    }

    #[test]
    fn a_podman_container_without_a_monitor_is_named_by_its_storage() {
        let root = tree(&[("var/lib/containers/storage/overlay-containers/containers.json", STORE)]);
        assert_eq!(completed(root.path(), "podman").name.as_deref(), Some("plc-loop"));
        let root = tree(&[("srv/vfs-containers/volatile-containers.json", STORE)]);
        let mut container = Container { runtime: "podman".to_owned(), id: ID.to_owned(), ..Container::default() };
        let runtimes = Runtimes::new(root.path(), vec![PathBuf::from("/srv")]);
        assert!(runtimes.complete("/", &mut container, &mut Round::default()));
        assert_eq!(container.name.as_deref(), Some("plc-loop"));
    }

    #[test]
    fn a_users_podman_container_is_named_by_the_storage_in_his_home() {
        let users = b"root:x:0:0:root:/root:/bin/bash\nplc:x:1000:1000::/home/plc:/bin/bash\n";
        let store = ("home/plc/.local/share/containers/storage/overlay-containers/containers.json", STORE);
        let root = tree(&[("etc/passwd", users), store]);
        let slice = |uid| format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-{ID}.scope");
        assert_eq!(completed_at(root.path(), "podman", &slice(1000)).name.as_deref(), Some("plc-loop"));
        for path in [&slice(1001), &slice(0), "/", "/user-x.slice"] {
            assert_eq!(completed_at(root.path(), "podman", path).name, None, "{path}");
        }
    }

    const DOCKER_CONFIG: &[u8] = include_bytes!("testdata/docker-28.5.2-config.v2.json");
    const LINE_1: (&str, Option<&str>, Option<&str>) = ("docker", Some("line1"), Some("localhost/plc:1"));

    #[test]
    fn a_docker_container_is_named_by_its_configuration_wherever_the_data_root_is() {
        let users = b"plc:x:1000:1000::/home/plc:/bin/bash\n";
        let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-x.scope";
        for (place, files, path) in [
            ("var/lib/docker", &[][..], "/"),
            ("var/lib/docker/100000.100000", &[], "/"),
            ("mnt/data/docker", &[], "/"),
            ("mnt/ssd/docker", &[("etc/docker/daemon.json", &b"{\"data-root\":\"/mnt/ssd/docker\"}"[..])], "/"),
            ("mnt/old", &[("etc/docker/daemon.json", b"\xef\xbb\xbf{\"graph\":\"/mnt/old\"}")], "/"),
            (
                "srv/docker",
                &[("proc/7/comm", b"dockerd\n"), ("proc/7/cmdline", b"dockerd\0--data-root\0/srv/docker\0")],
                "/",
            ),
            (
                "srv/a/100000.100000",
                &[("proc/7/comm", b"dockerd\n"), ("proc/7/cmdline", b"dockerd\0--data-root=/srv/a\0")],
                "/",
            ),
            (
                "srv/b",
                &[
                    ("proc/7/comm", b"dockerd\n"),
                    ("proc/7/cmdline", b"dockerd\0--config-file=/etc/other.json\0"),
                    ("etc/other.json", b"{\"data-root\":\"/srv/b\"}"),
                ],
                "/",
            ),
            ("home/plc/.local/share/docker", &[("etc/passwd", users)], rootless),
        ] {
            let config = format!("{place}/containers/<id>/config.v2.json");
            let mut all = files.to_vec();
            all.push((&config, DOCKER_CONFIG));
            assert_eq!(named(&completed_at(tree(&all).path(), "docker", path)), LINE_1, "{place}");
            // Without what leads there.
            if !files.is_empty() {
                let root = tree(&[(&config, DOCKER_CONFIG)]);
                assert_eq!(named(&completed_at(root.path(), "docker", path)), ("docker", None, None), "{place}");
            }
        }
    }

    #[test]
    fn options_of_a_daemon_are_read_in_both_forms() {
        let names = ["--data-root", "-g"];
        for (cmdline, root) in [
            (&b"dockerd\0--data-root\0/a\0"[..], Some("/a")),
            (b"dockerd\0--data-root=/a\0-D\0", Some("/a")),
            (b"dockerd\0-g\0/a\0--data-root\0/b\0", Some("/b")),
            (b"dockerd\0--data-root\0", None),
            (b"dockerd\0--data-root=\0", None),
            (b"dockerd\0--data-rooted=/a\0", None),
            (b"dockerd\0--data-root\0a\0", None),
            (b"", None),
        ] {
            assert_eq!(option(cmdline, &names).as_deref(), root.map(Path::new), "{}", String::from_utf8_lossy(cmdline));
        }
    }

    #[test]
    fn a_plain_directory_is_of_the_runtime_that_knows_the_id() {
        let config = ("var/lib/docker/containers/<id>/config.v2.json", DOCKER_CONFIG);
        let moby = ("run/containerd/io.containerd.runtime.v2.task/moby/<id>/config.json", &b"{}"[..]);
        let plant = ("run/containerd/io.containerd.runtime.v2.task/plant1/<id>/config.json", &b"{}"[..]);
        for (files, wanted) in [
            (&[config][..], LINE_1),
            (&[moby, config], LINE_1),
            (&[moby], ("docker", None, None)),
            (&[plant], ("containerd", None, None)),
            (&[], (UNKNOWN, None, None)),
        ] {
            assert_eq!(named(&completed(tree(files).path(), UNKNOWN)), wanted);
        }
    }

    #[test]
    fn a_shim_leads_to_bundles_in_any_place() {
        let root = tree(&[
            ("proc/9/comm", b"containerd-shim\n"),
            ("srv/state/k8s.io/sandbox/config.json", b"{}"),
            ("srv/state/k8s.io/<id>/config.json", CRI_CONTAINERD),
        ]);
        std::os::unix::fs::symlink(root.path().join("srv/state/k8s.io/sandbox"), root.path().join("proc/9/cwd"))
            .unwrap();
        for runtime in ["containerd", "kubernetes"] {
            let container = completed(root.path(), runtime);
            assert_eq!(named(&container), ("containerd", Some("motion"), Some("registry.k8s.io/motion:2")));
        }
    }

    const CRI_CONTAINERD: &[u8] = br#"{"ociVersion":"1.2.0","annotations":{
        "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.container-name":"motion",
        "io.kubernetes.cri.image-name":"registry.k8s.io/motion:2","io.kubernetes.cri.sandbox-id":"s",
        "io.kubernetes.cri.sandbox-name":"line-1","io.kubernetes.cri.sandbox-namespace":"factory"}}"#;

    #[test]
    fn containers_of_a_cri_are_named_with_their_pod() {
        let crio = br#"{"annotations":{"io.kubernetes.container.name":"motion","io.kubernetes.pod.name":"line-1",
            "io.kubernetes.pod.namespace":"factory","io.kubernetes.cri-o.ImageName":"registry.k8s.io/motion:2"}}"#;
        for (runtime, file, bytes, found) in [
            (
                "containerd",
                "run/containerd/io.containerd.runtime.v2.task/k8s.io/<id>/config.json",
                CRI_CONTAINERD,
                "containerd",
            ),
            (
                "containerd",
                "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/<id>/config.json",
                CRI_CONTAINERD,
                "containerd",
            ),
            (
                "kubernetes",
                "run/containerd/io.containerd.runtime.v2.task/k8s.io/<id>/config.json",
                CRI_CONTAINERD,
                "containerd",
            ),
            ("crio", "run/containers/storage/overlay-containers/<id>/userdata/config.json", crio, "crio"),
            ("kubernetes", "run/containers/storage/overlay-containers/<id>/userdata/config.json", crio, "crio"),
        ] {
            let container = completed(tree(&[(file, bytes)]).path(), runtime);
            assert_eq!(container.name.as_deref(), Some("motion"), "{file}");
            assert_eq!(container.pod.as_deref(), Some("factory/line-1"));
            assert_eq!(container.image.as_deref(), Some("registry.k8s.io/motion:2"));
            assert_eq!(container.runtime, found);
        }
    }

    #[test]
    fn the_container_that_holds_a_pods_namespaces_is_called_pod() {
        let config = br#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox",
            "io.kubernetes.cri.sandbox-name":"line-1","io.kubernetes.cri.sandbox-namespace":"factory"}}"#;
        let root = tree(&[("run/containerd/io.containerd.runtime.v2.task/k8s.io/<id>/config.json", config)]);
        assert_eq!(completed(root.path(), "containerd").name.as_deref(), Some("POD"));
    }

    #[test]
    fn a_containerd_container_with_a_name_for_an_id_is_found_where_its_bundle_says() {
        let task = |id: &str| format!("run/containerd/io.containerd.runtime.v2.task/default/{id}/config.json");
        let bundle = |path: &str| format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#);
        let files = [
            (task("demo"), bundle("/default/demo")),
            (task("press"), bundle("line-7.slice:cell:press")),
            (task("broken"), "{".to_owned()),
            (task("nowhere"), bundle("")),
            (task("root"), bundle("/")),
            (task(ID), bundle("/default/by-id")),
        ];
        let files: Vec<(&str, &[u8])> = files.iter().map(|(file, text)| (file.as_str(), text.as_bytes())).collect();
        let tasks = Runtimes::new(tree(&files).path(), Vec::new()).named_tasks();
        let mut found: Vec<(&str, &str)> = tasks.iter().map(|(path, task)| (path.as_str(), task.id.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("/default/demo", "demo"),
                ("/line-7.slice:cell:press", "press"),
                ("/line.slice/line-7.slice/cell-press.scope", "press"),
            ]
        );
        assert_eq!(tasks["/default/demo"].name.as_deref(), Some("demo"));
    }

    #[test]
    fn sources_that_are_absent_broken_or_no_files_give_nothing() {
        for files in [
            &[][..],
            &[("proc/206/comm", &b"conmon\n"[..]), ("proc/206/cmdline", b"conmon\0-c")],
            &[("proc/206/comm", b"sleep\n"), ("proc/206/cmdline", CONMON)],
            &[("var/lib/containers/storage/overlay-containers/containers.json", &STORE[..40])],
            &[
                ("var/lib/docker/containers/<id>/config.v2.json", b"[]"),
                ("run/containerd/io.containerd.runtime.v2.task/k8s.io/<id>/config.json", b"{\"annotations\":[]}"),
            ],
        ] {
            let root = tree(files);
            for runtime in ["podman", "docker", "containerd", "crio", "kubernetes", "systemd"] {
                let container = completed(root.path(), runtime);
                assert_eq!((container.name, container.image, container.runtime.as_str()), (None, None, runtime));
            }
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let root = tree(&[("file", b"text")]);
        let fifo = root.path().join("config.json");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        // Whoever opens the other end would be seen: it is open for writing as long as a reader is there.
        assert_eq!(read_limited(&fifo), None);
        let write = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
        assert_eq!(write.unwrap_err().raw_os_error(), Some(libc::ENXIO));
        for path in ["/dev/null", "/dev/full", "/"] {
            assert_eq!(read_limited(Path::new(path)), None, "{path}");
        }
        assert_eq!(read_limited(&root.path().join("file")).as_deref(), Some(&b"text"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Monitor::parse(&bytes), parse_store(&bytes), option(&bytes, &["-"]));
        }

        #[test]
        fn a_written_command_line_is_read_back(name in "[a-z][a-z0-9_.-]{0,12}", root in "(/[a-z]{1,5}){1,3}") {
            let hand_on = |arguments: &[&str]| arguments.iter().map(|a| format!("--exit-command-arg\0{a}\0")).collect::<String>();
            let line = format!("/usr/bin/conmon\0-c\0{ID}\0-n\0{name}\0-b\0{root}/b\0{}", hand_on(&["--root", &root, "--runroot", "/r"]));
            let monitor = Monitor {
                name: Some(name), bundle: Some(PathBuf::from(format!("{root}/b"))),
                storage_roots: vec![PathBuf::from(root), PathBuf::from("/r")],
            };
            prop_assert_eq!(Monitor::parse(line.as_bytes()), Some((ID.to_owned(), monitor)));
        }
    }
}
