//! Checks of container runtimes: options in their configuration that do not exist or do nothing, cgroup drivers that
//! disagree, and which running containers may be real-time at all. What a person has to type for a container, in the
//! words of its runtime, stands here too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use toml::Table;

use super::facts::{Facts, Process};
use super::finding::{Check, Found, quoted};
use super::runtime_options::{DOCKER, DOCKER_FEATURES, RUNC, RUNTIME_V1};
use super::spelling;
use crate::snapshot::{CgroupLayout, Container, CpuList, Quota};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "runtime.docker",
        looks_at: "/etc/docker/daemon.json: options that do not exist or do nothing here",
        why: "dockerd refuses to start with an option that it does not know, and ignores unknown names in \"features\" \
              without a word. Real-time options need cgroup v1 and CONFIG_RT_GROUP_SCHED.",
        link: "https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file",
        rule: docker,
    },
    Check {
        id: "runtime.containerd",
        looks_at: "containerd's config.toml: options that do not exist, or stand where they are not read",
        why: "containerd does not complain of a table that no plugin reads: what stands there has no effect. The tables \
              have other names in each version of the file.",
        link: "https://github.com/containerd/containerd/blob/main/docs/cri/config.md",
        rule: containerd,
    },
    Check {
        id: "runtime.podman",
        looks_at: "podman's containers.conf: the cgroup manager",
        why: "podman stops at a value that it does not know.",
        link: "https://github.com/containers/common/blob/main/docs/containers.conf.5.md",
        rule: podman,
    },
    Check {
        id: "runtime.rights",
        looks_at: "capabilities and limits of running containers: which of them may have FIFO threads",
        why: "Without CAP_SYS_NICE and with RLIMIT_RTPRIO 0, which is every runtime's default, FIFO is refused in a \
              container.",
        link: "https://docs.docker.com/engine/containers/resource_constraints/",
        rule: rights,
    },
];

const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const MEND_DAEMON_JSON: &str = "correct it, check it with: dockerd --validate --config-file /etc/docker/daemon.json";
/// Where containerd's configuration is: its own default and what that usually imports, k3s, RKE2, k0s, microk8s.
const CONTAINERD: [&str; 6] = [
    "/etc/containerd/config.toml",
    "/etc/containerd/conf.d/*.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
];
/// The plugin with the runtimes of pods, by version of the file.
const CRI_V1: &str = "cri";
const CRI_V2: &str = "io.containerd.grpc.v1.cri";
const CRI_V3: &str = "io.containerd.cri.v1.runtime";

fn docker(facts: &Facts) -> Vec<Found> {
    let Some(text) = facts.text(DAEMON_JSON) else {
        return vec![if facts.is_unreadable(DAEMON_JSON) {
            Found::unknown(facts.reason(DAEMON_JSON))
        } else {
            Found::ok("there is no daemon.json")
        }];
    };
    // dockerd skips a byte order mark, and takes an empty file for an empty object.
    let text = text.trim_start_matches('\u{feff}').trim();
    let config: Value = match serde_json::from_str(if text.is_empty() { "{}" } else { text }) {
        Ok(config @ Value::Object(_)) => config,
        Ok(_) => {
            return vec![
                Found::warning("daemon.json is no JSON object: dockerd does not start")
                    .seen(DAEMON_JSON, text)
                    .by_hand(MEND_DAEMON_JSON, "the old file"),
            ];
        }
        Err(error) => {
            return vec![
                Found::warning(format!("daemon.json is no JSON: {error}: dockerd does not start"))
                    .seen(DAEMON_JSON, "not understood")
                    .by_hand(MEND_DAEMON_JSON, "the old file"),
            ];
        }
    };
    docker_names(&config).chain(docker_driver(facts, &config)).chain(docker_real_time(facts, &config)).collect()
}

fn complain_of_docker(title: impl Into<String>, key: &str, value: &Value) -> Found {
    Found::warning(title)
        .seen(format!("{DAEMON_JSON}: {key}"), value.to_string())
        .by_hand(
            format!("take {key} out of {DAEMON_JSON}, check it with: dockerd --validate --config-file {DAEMON_JSON}, then: systemctl restart docker"),
            "put it back",
        )
}

/// Options and features that dockerd does not have.
fn docker_names(config: &Value) -> impl Iterator<Item = Found> {
    let options = config.as_object().into_iter().flatten().filter(|(key, _)| !DOCKER.contains(&key.as_str()));
    let options = options.map(|(key, value)| match spelling::meant(key, DOCKER) {
        Some(right) => {
            let why = format!("dockerd has no option {key}, and does not start with it: {right} is the right word");
            complain_of_docker(why, key, value)
        }
        // Newer versions have more.
        None => Found::info(format!(
            "guard does not know the option {key} of dockerd; a dockerd that does not either refuses to start, see dockerd --validate"
        ))
        .seen(format!("{DAEMON_JSON}: {key}"), value.to_string()),
    });
    let features = config["features"].as_object().into_iter().flatten().filter_map(|(feature, value)| {
        let key = format!("features.{feature}");
        if feature.contains("cgroup") {
            let why = format!(
                "dockerd has no feature {feature}: it follows the cgroup version that the node was booted with"
            );
            return Some(complain_of_docker(why, &key, value));
        }
        let unknown =
            format!("guard does not know the feature {feature} of dockerd, which ignores what it does not know itself");
        (!DOCKER_FEATURES.contains(&feature.as_str()))
            .then(|| Found::info(unknown).seen(format!("{DAEMON_JSON}: {key}"), value.to_string()))
    });
    options.chain(features)
}

/// Its cgroup driver, and a parent cgroup that this driver does not take.
fn docker_driver(facts: &Facts, config: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    // dockerd's own default.
    let mut driver = if facts.hierarchy.layout == CgroupLayout::V2 { "systemd" } else { "cgroupfs" };
    for option in config["exec-opts"].as_array().into_iter().flatten() {
        let text = option.as_str().unwrap_or_default();
        let why = match text.split_once('=') {
            Some(("native.cgroupdriver", value @ ("systemd" | "cgroupfs"))) => {
                driver = value;
                continue;
            }
            Some(("native.cgroupdriver", _)) => {
                "the cgroup driver is systemd or cgroupfs; dockerd does not start with another".to_owned()
            }
            _ => format!("exec-opts has only native.cgroupdriver on Linux; dockerd does not start with {text}"),
        };
        found.push(complain_of_docker(why, "exec-opts", option));
    }
    if let Some(parent) = config["cgroup-parent"]
        .as_str()
        .filter(|parent| driver == "systemd" && !parent.ends_with(".slice") && !parent.is_empty())
    {
        let why = format!(
            "with the systemd driver cgroup-parent must name a slice, such as plc.slice: containers do not start below {parent}"
        );
        found.push(complain_of_docker(why, "cgroup-parent", &config["cgroup-parent"]));
    }
    found
}

/// Real-time options that this node cannot follow.
fn docker_real_time(facts: &Facts, config: &Value) -> impl Iterator<Item = Found> {
    let v2 = facts.hierarchy.layout == CgroupLayout::V2;
    let rations = facts.rations_rt_groups();
    ["cpu-rt-runtime", "cpu-rt-period"].into_iter().filter_map(move |key| {
        let value = &config[key];
        let why = if value.as_i64().is_none_or(|us| us == 0) {
            return None;
        } else if v2 {
            format!("{key} needs cgroup v1; a container needs CAP_SYS_NICE or the ulimit rtprio instead")
        } else if rations == Some(false) {
            format!("{key} needs a kernel with CONFIG_RT_GROUP_SCHED, which this one lacks")
        } else {
            return None;
        };
        Some(complain_of_docker(why, key, value))
    })
}

/// The configuration files of containerd that are there, parsed or not.
fn containerd_files(facts: &Facts) -> Vec<(&str, Result<Table, String>)> {
    let files = CONTAINERD.into_iter().flat_map(|pattern| facts.matching(pattern));
    files
        .map(|(path, _, text)| {
            let text = text.trim_start_matches('\u{feff}');
            (path, text.parse::<Table>().map_err(|error| error.message().to_owned()))
        })
        .collect()
}

/// A runtime of runc's kind that containerd starts pods with.
pub(super) struct PodRuntime {
    /// The file that has it.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Whether it leaves cgroups to systemd.
    pub systemd: bool,
}

/// The runtimes of runc's kind in the tables that the version of the file reads. Every one has a cgroup driver of its own.
pub(super) fn pod_runtimes(facts: &Facts) -> Vec<PodRuntime> {
    let mut all = Vec::new();
    for (path, config) in containerd_files(facts) {
        let Ok(config) = config else { continue };
        let read = cri_plugin(schema_of(&config));
        for (name, runtime) in plugins(&config).filter(|(id, _)| *id == read).flat_map(|(_, plugin)| runtimes(plugin)) {
            if is_of_runc(name, runtime) {
                let options = runtime.get("options");
                let systemd = options.and_then(|options| options.get("SystemdCgroup")).and_then(toml::Value::as_bool);
                let (path, name) = (path.to_owned(), name.to_owned());
                all.push(PodRuntime { path, name, systemd: systemd.unwrap_or(false) });
            }
        }
    }
    all
}

fn cri_plugin(schema: i64) -> &'static str {
    match schema {
        ..2 => CRI_V1,
        2 => CRI_V2,
        3.. => CRI_V3,
    }
}

/// Whether a runtime is started by runc's shim; others have no such driver.
fn is_of_runc(name: &str, runtime: &Table) -> bool {
    match runtime.get("runtime_type").and_then(toml::Value::as_str) {
        None | Some("") => name == "runc",
        Some(kind) => kind == "io.containerd.runc.v2",
    }
}

fn plugins(config: &Table) -> impl Iterator<Item = (&str, &Table)> {
    let tables = config.get("plugins").and_then(toml::Value::as_table);
    tables.into_iter().flatten().filter_map(|(id, value)| Some((id.as_str(), value.as_table()?)))
}

/// Tables of the runtimes that a CRI plugin knows, by name.
fn runtimes(plugin: &Table) -> impl Iterator<Item = (&str, &Table)> {
    let runtimes = plugin.get("containerd").and_then(|table| table.get("runtimes")).and_then(toml::Value::as_table);
    runtimes.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_table()?)))
}

fn schema_of(config: &Table) -> i64 {
    config.get("version").and_then(toml::Value::as_integer).unwrap_or(1)
}

fn containerd(facts: &Facts) -> Vec<Found> {
    let files = containerd_files(facts);
    if files.is_empty() {
        let unreadable = CONTAINERD.into_iter().find(|path| facts.is_unreadable(path));
        return match unreadable {
            Some(path) => vec![Found::unknown(facts.reason(path))],
            None => vec![Found::ok("containerd has no configuration file: its defaults count")],
        };
    }
    let mut found = Vec::new();
    for (path, config) in files {
        match config {
            Ok(config) => {
                for (id, plugin) in plugins(&config) {
                    found.extend(plugin_complaints(path, &config, id, plugin));
                }
            }
            Err(error) => found.push(
                Found::warning(format!("{path} is no TOML: {error}: containerd does not start"))
                    .seen(path, "not understood")
                    .by_hand(format!("correct {path}, check it with: containerd config dump"), "the old file"),
            ),
        }
    }
    found.extend(drivers(facts));
    found
}

/// Cgroup drivers of the runtimes of one containerd, against each other.
fn drivers(facts: &Facts) -> Vec<Found> {
    let mut by_containerd: BTreeMap<String, Vec<PodRuntime>> = BTreeMap::new();
    for runtime in pod_runtimes(facts) {
        // Imported files belong to the one that imports them.
        let whose =
            if runtime.path.starts_with("/etc/containerd/") { "/etc/containerd" } else { runtime.path.as_str() };
        by_containerd.entry(whose.to_owned()).or_default().push(runtime);
    }
    by_containerd.values().filter_map(|runtimes| drivers_of(runtimes)).collect()
}

fn drivers_of(runtimes: &[PodRuntime]) -> Option<Found> {
    let plain: Vec<&PodRuntime> = runtimes.iter().filter(|runtime| !runtime.systemd).collect();
    let (first, names) = (plain.first()?, plain.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", "));
    let found = match runtimes.iter().find(|runtime| runtime.systemd) {
        Some(other) => Found::warning(format!(
            "containerd's runtime {names} makes plain cgroup directories, while {} leaves cgroups to systemd",
            other.name
        )),
        None => Found::info(format!(
            "containerd's runtime {names} makes plain cgroup directories: right only for a kubelet with the driver cgroupfs"
        )),
    };
    let found = plain.iter().fold(found, |found, one| {
        found.seen(format!("{}: runtimes.{}.options", one.path, one.name), "no SystemdCgroup = true")
    });
    Some(found.by_hand(
        format!(
            "set SystemdCgroup = true in the options of {names} in {}, then: systemctl restart containerd",
            first.path
        ),
        "take it out again",
    ))
}

fn plugin_complaints(path: &str, config: &Table, id: &str, plugin: &Table) -> Vec<Found> {
    let mut found = Vec::new();
    let schema = schema_of(config);
    let complain = |title: String, key: &str, remedy: String| {
        Found::warning(title).seen(format!("{path}: plugins.\"{id}\""), key).by_hand(
            format!("{remedy}, check it with: containerd config dump, then: systemctl restart containerd"),
            "put it back",
        )
    };
    match id {
        "io.containerd.runtime.v1.linux" => {
            let strange: Vec<&str> =
                plugin.keys().map(String::as_str).filter(|key| !RUNTIME_V1.contains(key)).collect();
            let also = if strange.is_empty() {
                String::new()
            } else {
                format!("; even before, it had no option {}", strange.join(", "))
            };
            let mut inner: Vec<&str> = plugin
                .get("options")
                .and_then(toml::Value::as_table)
                .into_iter()
                .flat_map(|table| table.keys())
                .map(String::as_str)
                .collect();
            inner.extend(plugin.keys().map(String::as_str));
            found.push(complain(
                format!("containerd 2 has no plugin {id}, and Kubernetes and Docker never used it{also}"),
                &inner.join(", "),
                "take the table out; options of runc belong to the CRI plugin, see the documentation".to_owned(),
            ));
        }
        CRI_V2 if schema >= 3 && plugin.contains_key("containerd") => found.push(complain(
            format!("version 3 of the file keeps runtimes in plugins.\"{CRI_V3}\": what stands here is not read"),
            "containerd",
            format!("move it to plugins.\"{CRI_V3}\".containerd (containerd config migrate prints the whole file)"),
        )),
        CRI_V3 if schema == 2 => found.push(complain(
            format!(
                "version {schema} of the file keeps runtimes in plugins.\"{CRI_V2}\": containerd 1 does not read this"
            ),
            "containerd",
            format!("set version = 3 for containerd 2, or move it to plugins.\"{CRI_V2}\""),
        )),
        // containerd 2 translates some of it.
        _ if schema < 2 && id.starts_with("io.containerd.") => {
            let version = if config.contains_key("version") {
                "is of version 1"
            } else {
                "names no version, so it is of version 1"
            };
            found.push(complain(
                format!(
                    "the file {version}, in which plugins have short names: containerd 1 does not read plugins.\"{id}\""
                ),
                &plugin.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                "write version = 2 at the top of the file".to_owned(),
            ));
        }
        _ if schema >= 2 && !id.contains('.') => found.push(complain(
            format!("version {schema} of the file has full names of plugins: plugins.{id} is not read"),
            &plugin.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            format!("move it to plugins.\"{}\"", if id == CRI_V1 { cri_plugin(schema) } else { "io.containerd.…" }),
        )),
        _ => {}
    }
    if matches!(id, CRI_V1 | CRI_V2 | CRI_V3) {
        for (name, runtime) in runtimes(plugin).filter(|(name, runtime)| is_of_runc(name, runtime)) {
            let options = runtime.get("options").and_then(toml::Value::as_table);
            for key in options.into_iter().flat_map(|table| table.keys()).filter(|key| !RUNC.contains(&key.as_str())) {
                found.push(complain(
                    format!("runc's shim has no option {key}"),
                    &format!("containerd.runtimes.{name}.options.{key}"),
                    format!(
                        "take {key} out; real-time rights are given per container, by CAP_SYS_NICE or the ulimit rtprio"
                    ),
                ));
            }
        }
    }
    found
}

fn podman(facts: &Facts) -> Vec<Found> {
    let mut found = Vec::new();
    for path in ["/etc/containers/containers.conf", "/usr/share/containers/containers.conf"] {
        let Some(text) = facts.text(path) else {
            if facts.is_unreadable(path) {
                found.push(Found::unknown(facts.reason(path)));
            }
            continue;
        };
        let config = match text.parse::<Table>() {
            Ok(config) => config,
            Err(error) => {
                found.push(
                    Found::warning(format!("{path} is no TOML: {}: podman does not start", error.message()))
                        .seen(path, "not understood")
                        .by_hand(format!("correct {path}, check it with: podman info"), "the old file"),
                );
                continue;
            }
        };
        let manager =
            config.get("engine").and_then(|engine| engine.get("cgroup_manager")).and_then(toml::Value::as_str);
        if let Some(manager) = manager.filter(|manager| !matches!(*manager, "systemd" | "cgroupfs")) {
            found.push(
                Found::warning(format!("podman has no cgroup manager {manager}, only systemd and cgroupfs"))
                    .seen(format!("{path}: engine.cgroup_manager"), manager)
                    .by_hand(
                        format!("set cgroup_manager = \"systemd\" in {path}"),
                        format!("set cgroup_manager = \"{manager}\""),
                    ),
            );
        }
    }
    found
}

fn rights(facts: &Facts) -> Vec<Found> {
    let mut containers: BTreeMap<&str, (&Container, Vec<&Process>)> = BTreeMap::new();
    for process in &facts.processes {
        if let Some(container) = process.container.as_ref().filter(|container| container.runtime != "systemd") {
            containers.entry(&container.id).or_insert((container, Vec::new())).1.push(process);
        }
    }
    if containers.is_empty() {
        return vec![Found::ok("no container runs")];
    }
    let (mut may, mut may_not, mut kinds) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut unknown = Vec::new();
    for (container, processes) in containers.values() {
        let name = container.name.as_deref().unwrap_or(&container.id).to_owned();
        let allowed = processes.iter().map(|process| match (process.has_sys_nice(), process.rtprio_limit) {
            (Some(true), _) => Some(true),
            (_, Some(limit)) if limit > 0 => Some(true),
            (Some(false), Some(0)) => Some(false),
            _ => None,
        });
        let allowed: Vec<Option<bool>> = allowed.collect();
        if allowed.contains(&Some(true)) {
            may.push(name);
        } else if allowed.contains(&None) {
            unknown.push(name);
        } else {
            kinds.insert(container.runtime.as_str());
            may_not.push(name);
        }
    }
    let mut found = Vec::new();
    if !unknown.is_empty() {
        found.push(Found::unknown(format!("rights of {} cannot be read", unknown.join(", "))));
    }
    if may_not.is_empty() {
        found.push(Found::ok(format!("containers that may be real-time: {}", may.join(", "))));
        return found;
    }
    let mut one =
        Found::info(format!("{} of {} containers may not have FIFO threads", may_not.len(), containers.len()))
            .seen("no CAP_SYS_NICE, RLIMIT_RTPRIO 0", may_not.join(", "));
    if !may.is_empty() {
        one = one.seen("may be real-time", may.join(", "));
    }
    for kind in kinds {
        let (change, undo) = may_be_realtime(kind);
        one = one.by_hand(change, undo);
    }
    found.push(one);
    found
}

/// How a container gets the right to be real-time, if it should.
fn may_be_realtime(runtime: &str) -> (String, String) {
    let options = "--cap-add=SYS_NICE --ulimit rtprio=99 --ulimit memlock=-1";
    match runtime {
        // Only its id is known.
        "unknown" => (format!("if one should, with docker or podman: run {options} …"), format!("run it without {options}")),
        "docker" | "podman" | "balena" => {
            (format!("if one should: {runtime} run {options} …"), format!("run it without {options}"))
        }
        "lxc" => (
            "if a guest should: lxc.prlimit.rtprio = 99 and lxc.prlimit.memlock = unlimited in its configuration, and LimitRTPRIO=99 in the unit inside".to_owned(),
            "take them out".to_owned(),
        ),
        "nspawn" => (
            "if a guest should: Capability=CAP_SYS_NICE and LimitRTPRIO=99 under [Exec] in /etc/systemd/nspawn/GUEST.nspawn".to_owned(),
            "take them out".to_owned(),
        ),
        "containerd" => (
            "if one should: nerdctl run --cap-add SYS_NICE --ulimit rtprio=99 --ulimit memlock=-1:-1 …; ctr run --cap-add CAP_SYS_NICE …".to_owned(),
            "run it without them".to_owned(),
        ),
        _ => (
            "if one should: in the container's spec, securityContext: {capabilities: {add: [SYS_NICE, IPC_LOCK]}}".to_owned(),
            "take them out of the spec".to_owned(),
        ),
    }
}

/// Name or id by which a runtime's command finds a container.
fn handle(container: &Container) -> String {
    quoted(container.name.as_deref().unwrap_or(&container.id))
}

/// The unit inside of a container or guest, and where that is.
fn inner_unit(container: &Container) -> Option<(String, String)> {
    Some((quoted(container.unit.as_ref()?), format!("inside of {} {}", container.runtime, handle(container))))
}

/// How a process gets the right to lock its memory.
pub(super) fn may_lock_memory(container: Option<&Container>) -> (String, String) {
    if let Some((unit, inside)) = container.and_then(inner_unit) {
        return (
            format!("it may not lock much: LimitMEMLOCK=infinity in [Service], by, {inside}: systemctl edit {unit}"),
            format!("{inside}: systemctl revert {unit}"),
        );
    }
    match container {
        Some(c) if matches!(c.runtime.as_str(), "docker" | "podman" | "balena") => (
            format!(
                "it may not lock much: start {} with {} run --ulimit memlock=-1 --cap-add=IPC_LOCK",
                handle(c),
                c.runtime
            ),
            "start it without them".to_owned(),
        ),
        Some(c) if c.runtime == "systemd" => (
            format!("it may not lock much: LimitMEMLOCK=infinity in [Service], by: systemctl edit {}", quoted(&c.id)),
            format!("systemctl revert {}", quoted(&c.id)),
        ),
        Some(c) if c.runtime == "lxc" => (
            format!("it may not lock much: lxc.prlimit.memlock = unlimited in the configuration of {}", handle(c)),
            "take it out".to_owned(),
        ),
        Some(c) if c.pod.is_some() => (
            "it may not lock much: securityContext: {capabilities: {add: [IPC_LOCK]}} in the container's spec"
                .to_owned(),
            "take it out of the spec".to_owned(),
        ),
        _ => (
            "it may not lock much: start it with ulimit -l unlimited, or with CAP_IPC_LOCK".to_owned(),
            "start it without".to_owned(),
        ),
    }
}

/// How a cgroup gets real-time time for good on cgroup v1, of the `whole` that the node has.
pub(super) fn give_rt_time(container: Option<&Container>, whole: i64, share: i64) -> (String, String) {
    match container {
        Some(c) if c.runtime == "systemd" => (
            format!(
                "for good: the same writes in ExecStartPre=+ of [Service], since systemd gives none, by: systemctl edit {}",
                quoted(&c.id)
            ),
            format!("systemctl revert {}", quoted(&c.id)),
        ),
        Some(c) if c.pod.is_some() => (
            "for good: a kernel without CONFIG_RT_GROUP_SCHED; Kubernetes gives no pod real-time time".to_owned(),
            "the old kernel".to_owned(),
        ),
        Some(c) if c.runtime == "podman" => (
            format!(
                "for good: start {} with podman run --cpu-rt-runtime={share} --cap-add=SYS_NICE --ulimit rtprio=99",
                handle(c)
            ),
            "run it without --cpu-rt-runtime".to_owned(),
        ),
        _ => (
            format!(
                "for good with docker: dockerd --cpu-rt-runtime={whole}, then docker run --cpu-rt-runtime={share} --cap-add=SYS_NICE --ulimit rtprio=99"
            ),
            "run the container without --cpu-rt-runtime".to_owned(),
        ),
    }
}

/// How a container is kept on CPUs for good.
pub(super) fn pin_container(container: Option<&Container>, cpus: &CpuList) -> Option<(String, String)> {
    let container = container?;
    if let Some((unit, inside)) = inner_unit(container) {
        return Some((
            format!("for good, {inside}: systemctl set-property {unit} AllowedCPUs={cpus}"),
            format!("{inside}: systemctl set-property {unit} AllowedCPUs="),
        ));
    }
    Some(match container.runtime.as_str() {
        "lxc" => (
            format!(
                "for good: lxc.cgroup2.cpuset.cpus = {cpus} in the configuration of {} (Proxmox: cores; Incus: limits.cpu)",
                handle(container)
            ),
            "the guest's old configuration".to_owned(),
        ),
        runtime @ ("docker" | "podman" | "balena") => (
            format!("for good: {runtime} update --cpuset-cpus {cpus} {}", handle(container)),
            format!("{runtime} update --cpuset-cpus with the CPUs it had"),
        ),
        "systemd" => (
            format!("for good: systemctl set-property {} AllowedCPUs={cpus}", quoted(&container.id)),
            format!("systemctl set-property {} AllowedCPUs=", quoted(&container.id)),
        ),
        _ if container.pod.is_some() => (
            "for good: a Guaranteed pod with whole CPUs, on a kubelet with cpuManagerPolicy: static".to_owned(),
            "the pod's old spec".to_owned(),
        ),
        _ => return None,
    })
}

/// How somebody who is not real-time is kept on the other CPUs for good.
pub(super) fn keep_off(container: Option<&Container>, keep: &CpuList) -> Option<(String, String)> {
    match container {
        Some(c) if c.pod.is_some() || c.qos.is_some() => Some((
            format!(
                "for good: keep all pods off: systemctl set-property kubepods.slice AllowedCPUs={keep}; or let the real-time pod be Guaranteed with whole CPUs on a kubelet with cpuManagerPolicy: static, which takes its CPUs from the others"
            ),
            "systemctl set-property kubepods.slice AllowedCPUs=".to_owned(),
        )),
        other => pin_container(other, keep),
    }
}

/// How a quota is lifted for good.
pub(super) fn lift_quota(container: Option<&Container>, quota: Quota) -> (String, String) {
    let cpus = format!("{:.2}", quota.quota_us as f64 / quota.period_us.max(1) as f64);
    let percent = quota.quota_us * 100 / quota.period_us.max(1);
    if let Some((unit, inside)) = container.and_then(inner_unit) {
        return (
            format!("for good, {inside}: systemctl set-property {unit} CPUQuota="),
            format!("{inside}: systemctl set-property {unit} CPUQuota={percent}%"),
        );
    }
    match container {
        Some(c) if c.runtime == "lxc" => (
            format!("for good: no lxc.cgroup2.cpu.max in the configuration of {} (Proxmox: cpulimit; Incus: limits.cpu.allowance)", handle(c)),
            format!("a limit of {cpus} CPUs"),
        ),
        Some(c) if c.pod.is_some() || c.qos.is_some() => (
            "for good: no resources.limits.cpu in any container of the pod, or cpuCFSQuota: false in the kubelet's configuration; with CRI-O the annotation cpu-quota.crio.io: \"disable\" and a high-performance runtime class".to_owned(),
            format!("resources.limits.cpu: \"{cpus}\""),
        ),
        Some(c) if matches!(c.runtime.as_str(), "docker" | "podman" | "balena") => (
            format!("for good: start {} with {} run without --cpus and without --cpu-quota", handle(c), c.runtime),
            format!("{} run --cpus {cpus}", c.runtime),
        ),
        Some(c) if c.runtime == "containerd" => (
            format!("for good: start {} with nerdctl run without --cpus; ctr run without --cpus and without --cpu-quota", handle(c)),
            format!("--cpus {cpus}"),
        ),
        Some(c) if c.runtime == "systemd" => (
            format!("for good: systemctl set-property {} CPUQuota=", quoted(&c.id)),
            format!("systemctl set-property {} CPUQuota={percent}%", quoted(&c.id)),
        ),
        _ => ("for good: take it out of whatever wrote it".to_owned(), format!("a limit of {cpus} CPUs")),
    }
}
