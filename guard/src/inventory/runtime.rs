//! What people call a container: names, images and pods from what the runtimes leave on disk and in their monitors'
//! command lines. Every source is optional; one that is absent, unreadable or not understood gives nothing. What is
//! found here is for display and for matching, and no proof of anything: a monitor's command line is its user's.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Read,
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{identify::is_container_id, threads::ids_in};
use crate::snapshot::Container;

/// The longest file that is read: containers.json of thousands of containers stays far below.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Where containerd keeps the bundles of running containers, by namespace and id: its own default, k3s, microk8s.
const CONTAINERD: [&str; 3] = ["run/containerd", "run/k3s/containerd", "var/snap/microk8s/common/run/containerd"];
/// Where podman and CRI-O keep containers unless configured otherwise.
const STORAGE: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];

/// What the runtimes know.
#[derive(Debug)]
pub(super) struct Runtimes {
    root: PathBuf,
    storage_roots: Vec<PathBuf>,
}

/// What was read for one round of look-ups, each source at most once.
#[derive(Default)]
pub(super) struct Round {
    monitors: Option<HashMap<String, Monitor>>,
    stores: HashMap<PathBuf, HashMap<String, Stored>>,
}

impl Runtimes {
    /// `storage_roots` are further roots of podman's storage (its --root).
    pub(super) fn new(root: &Path, storage_roots: Vec<PathBuf>) -> Self {
        Self { root: root.to_owned(), storage_roots }
    }

    /// Adds what can be found out; true when a name was found.
    pub(super) fn complete(&self, container: &mut Container, round: &mut Round) -> bool {
        if !is_container_id(&container.id) {
            return false;
        }
        match container.runtime.as_str() {
            "podman" => {
                self.podman(container, round);
            }
            "docker" => {
                self.docker(container);
            }
            "containerd" => {
                self.containerd(container);
            }
            "crio" => {
                self.crio(container, round);
            }
            // A plain directory below a pod: whoever knows the id made it.
            "kubernetes" => {
                let by = if self.containerd(container) {
                    "containerd"
                } else if self.crio(container, round) {
                    "crio"
                } else if self.docker(container) {
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

    /// A container with a name of its own choice: `ctr run` puts it at /<namespace>/<id>.
    pub(super) fn containerd_by_path(&self, path: &str) -> Option<Container> {
        let (namespace, id) = path.strip_prefix('/')?.split_once('/')?;
        let id = id.split('/').next()?;
        let dots = |text: &str| text.is_empty() || text == "." || text == "..";
        if dots(namespace) || dots(id) {
            return None;
        }
        let task = format!("io.containerd.runtime.v2.task/{namespace}/{id}");
        CONTAINERD.iter().any(|dir| self.root.join(dir).join(&task).is_dir()).then(|| Container {
            runtime: "containerd".to_owned(),
            id: id.to_owned(),
            name: (!is_container_id(id)).then(|| id.to_owned()),
            ..Container::default()
        })
    }

    fn podman(&self, container: &mut Container, round: &mut Round) {
        let monitor = self.monitors(round).get(&container.id).cloned().unwrap_or_default();
        container.name = monitor.name;
        let defaults = STORAGE.iter().map(|dir| self.root.join(dir));
        let roots = monitor
            .storage_root
            .into_iter()
            .chain(self.storage_roots.iter().cloned())
            .map(|dir| below(&self.root, &dir));
        for root in roots.chain(defaults) {
            let store = round.stores.entry(root).or_insert_with_key(|root| read_store(root));
            if let Some(stored) = store.get(&container.id) {
                container.name = container.name.take().or_else(|| stored.name.clone());
                container.image.clone_from(&stored.image);
                return;
            }
        }
    }

    fn docker(&self, container: &mut Container) -> bool {
        let file = self.root.join("var/lib/docker/containers").join(&container.id).join("config.v2.json");
        let Some(config) = read_limited(&file).and_then(|bytes| serde_json::from_slice::<DockerConfig>(&bytes).ok())
        else {
            return false;
        };
        // Docker's names begin with a slash.
        container.name = not_empty(config.name.trim_start_matches('/'));
        container.image = not_empty(&config.config.image);
        true
    }

    fn containerd(&self, container: &mut Container) -> bool {
        for dir in CONTAINERD {
            let tasks = self.root.join(dir).join("io.containerd.runtime.v2.task");
            for namespace in fs::read_dir(tasks).into_iter().flatten().flatten() {
                if let Some(annotations) = annotations(&namespace.path().join(&container.id)) {
                    containerd_annotations(container, &annotations);
                    return true;
                }
            }
        }
        false
    }

    fn crio(&self, container: &mut Container, round: &mut Round) -> bool {
        let monitor = self.monitors(round).get(&container.id).cloned();
        let bundle = monitor.as_ref().and_then(|monitor| monitor.bundle.as_deref());
        let bundles = bundle.map(|dir| below(&self.root, dir)).into_iter().chain(
            STORAGE
                .iter()
                .map(|dir| self.root.join(dir).join("overlay-containers").join(&container.id).join("userdata")),
        );
        for bundle in bundles {
            if let Some(annotations) = annotations(&bundle) {
                crio_annotations(container, &annotations);
                return true;
            }
        }
        container.name = monitor.and_then(|monitor| monitor.name);
        container.name.is_some()
    }

    /// The running conmon processes by container id. conmon is the parent of every container of podman and CRI-O, and
    /// its command line has id, name, bundle and storage root, wherever the storage may be.
    fn monitors<'a>(&self, round: &'a mut Round) -> &'a HashMap<String, Monitor> {
        round.monitors.get_or_insert_with(|| {
            let proc = self.root.join("proc");
            let mut found: HashMap<String, (u32, Monitor)> = HashMap::new();
            for pid in ids_in(&proc).unwrap_or_default() {
                let dir = proc.join(pid.to_string());
                if !fs::read(dir.join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == b"conmon") {
                    continue;
                }
                let (Ok(metadata), Ok(arguments)) = (fs::metadata(&dir), fs::read(dir.join("cmdline"))) else {
                    continue;
                };
                let Some((id, monitor)) = Monitor::parse(&arguments) else { continue };
                // Anybody may call a process conmon: of several claims the one of the lowest user id counts.
                let uid = metadata.uid();
                if found.get(&id).is_none_or(|(known, _)| uid < *known) {
                    found.insert(id, (uid, monitor));
                }
            }
            found.into_iter().map(|(id, (_, monitor))| (id, monitor)).collect()
        })
    }
}

/// What a conmon's command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Monitor {
    name: Option<String>,
    bundle: Option<PathBuf>,
    /// podman's --root, handed on to its clean-up command.
    storage_root: Option<PathBuf>,
}

impl Monitor {
    /// Container id and the rest, from the NUL-terminated arguments.
    fn parse(cmdline: &[u8]) -> Option<(String, Self)> {
        let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
        let (mut id, mut monitor) = (None, Self::default());
        let mut exit_arguments: Vec<&[u8]> = Vec::new();
        for pair in arguments.windows(2) {
            match pair[0] {
                b"-c" | b"--cid" => id = id.or_else(|| Some(text(pair[1]))),
                b"-n" | b"--name" => monitor.name = monitor.name.or_else(|| not_empty(&text(pair[1]))),
                b"-b" | b"--bundle" => monitor.bundle = monitor.bundle.or_else(|| Some(path(pair[1]))),
                b"--exit-command-arg" => exit_arguments.push(pair[1]),
                _ => {}
            }
        }
        monitor.storage_root = exit_arguments.windows(2).find(|pair| pair[0] == b"--root").map(|pair| path(pair[1]));
        Some((id.filter(|id| is_container_id(id))?, monitor))
    }
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

/// All containers of one storage root, whatever its driver.
fn read_store(root: &Path) -> HashMap<String, Stored> {
    let mut all = HashMap::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().ends_with(b"-containers") {
            continue;
        }
        for file in ["containers.json", "volatile-containers.json"] {
            if let Some(bytes) = read_limited(&entry.path().join(file)) {
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

/// Annotations of the OCI bundle in a directory.
fn annotations(bundle: &Path) -> Option<HashMap<String, String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: HashMap<String, Value>,
    }
    let config: Config = serde_json::from_slice(&read_limited(&bundle.join("config.json"))?).ok()?;
    let text = |(key, value)| match value {
        Value::String(text) if !text.is_empty() => Some((key, text)),
        _ => None,
    };
    Some(config.annotations.into_iter().filter_map(text).collect())
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

/// A regular file of bearable size. Its path may come from a foreign process, so a FIFO must not make guard wait.
fn read_limited(path: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_FILE_BYTES) {
        return None;
    }
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
        let mut container = Container { runtime: runtime.to_owned(), id: ID.to_owned(), ..Container::default() };
        Runtimes::new(root, Vec::new()).complete(&mut container, &mut Round::default());
        container
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
        assert!(runtimes.complete(&mut container, &mut Round::default()));
        assert_eq!(container.name.as_deref(), Some("plc-loop"));
    }

    #[test]
    fn a_docker_container_is_named_by_its_configuration() {
        let config = br#"{"ID":"x","Name":"/web","Config":{"Image":"nginx:1.27","Cmd":["nginx"]}}"#;
        let root = tree(&[("var/lib/docker/containers/<id>/config.v2.json", config)]);
        let container = completed(root.path(), "docker");
        assert_eq!((container.name.as_deref(), container.image.as_deref()), (Some("web"), Some("nginx:1.27")));
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
    fn a_containerd_container_with_a_name_for_an_id_is_found_by_its_task() {
        let root = tree(&[("run/containerd/io.containerd.runtime.v2.task/default/demo/config.json", b"{}")]);
        let runtimes = Runtimes::new(root.path(), Vec::new());
        let container = runtimes.containerd_by_path("/default/demo/sub").unwrap();
        assert_eq!((container.id.as_str(), container.name.as_deref()), ("demo", Some("demo")));
        for path in ["/default", "/default/other", "/../default", "/", "/default/"] {
            assert_eq!(runtimes.containerd_by_path(path), None, "{path}");
        }
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
    fn a_fifo_in_place_of_a_file_does_not_make_guard_wait() {
        let root = tree(&[]);
        let fifo = root.path().join("config.json");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(read_limited(&fifo), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Monitor::parse(&bytes), parse_store(&bytes));
        }

        #[test]
        fn a_written_command_line_is_read_back(name in "[a-z][a-z0-9_.-]{0,12}", root in "(/[a-z]{1,5}){1,3}") {
            let line = format!("/usr/bin/conmon\0-c\0{ID}\0-n\0{name}\0-b\0{root}/b\0--exit-command-arg\0--root\0--exit-command-arg\0{root}\0");
            let monitor = Monitor {
                name: Some(name), bundle: Some(PathBuf::from(format!("{root}/b"))), storage_root: Some(PathBuf::from(root)),
            };
            prop_assert_eq!(Monitor::parse(line.as_bytes()), Some((ID.to_owned(), monitor)));
        }
    }
}
