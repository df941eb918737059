//! Checks of the kubelet: its cgroup driver against that of the runtime that it uses, exclusive CPUs, CPU quotas. Every
//! distribution keeps its configuration in another place; a kubelet that runs says where by its own arguments.
//!
//! Sources: kubelet cmd/kubelet/app (files, then those of --config-dir by name, then arguments), kubeadm, OpenShift's
//! machine-config-operator, k3s and RKE2 pkg/daemons/agent, microk8s' args, Amazon's nodeadm, CRI-O's crio.conf(5).

use serde_json::Value;
use toml::Table;

use super::facts::{Facts, Process};
use super::finding::{Check, Found};
use super::runtimes::pod_runtimes;

pub(super) const CHECKS: &[Check] = &[Check {
    id: "runtime.kubelet",
    looks_at: "kubelet: its cgroup driver against containerd's or CRI-O's, exclusive CPUs, CPU quotas",
    why: "With two drivers a pod's limits stand in one place and its processes in another. Without the static CPU manager \
          no container has a CPU to itself.",
    link: "https://kubernetes.io/docs/tasks/administer-cluster/cpu-management-policies/",
    rule: kubelet,
}];

/// The names of processes that are kubelet, or have it in them.
const PROCESSES: [&str; 4] = ["kubelet", "kubelite", "k3s-server", "k3s-agent"];

/// A place of the configuration, and where the files are that change it.
struct Place {
    file: &'static str,
    dir: &'static str,
}

/// Where distributions keep it, for a kubelet whose arguments are not known: kubeadm, OpenShift, Amazon, Talos and others,
/// Google, Azure.
const PLACES: [Place; 8] = [
    Place { file: "/var/lib/kubelet/config.yaml", dir: "/etc/kubernetes/kubelet.conf.d" },
    Place { file: "/etc/kubernetes/kubelet.conf", dir: "/etc/openshift/kubelet.conf.d" },
    Place { file: "/etc/kubernetes/kubelet/config.json", dir: "/etc/kubernetes/kubelet/config.json.d" },
    Place { file: "/etc/kubernetes/kubelet/kubelet-config.json", dir: "/etc/kubernetes/kubelet.conf.d" },
    Place { file: "/etc/kubernetes/kubelet-config.yaml", dir: "/etc/kubernetes/kubelet.conf.d" },
    Place { file: "/etc/kubernetes/kubelet.yaml", dir: "/etc/kubernetes/kubelet.conf.d" },
    Place { file: "/home/kubernetes/kubelet-config.yaml", dir: "/etc/kubernetes/kubelet.conf.d" },
    Place { file: "/etc/default/kubeletconfig.json", dir: "/etc/kubernetes/kubelet.conf.d" },
];

/// Arguments that kubeadm's unit takes from files.
const ARGUMENT_FILES: [&str; 3] =
    ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"];

/// k3s and RKE2 make kubelet's configuration themselves, and take additions here.
const RANCHER: [Place; 2] = [
    Place { file: "/etc/rancher/k3s/config.yaml", dir: "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d" },
    Place { file: "/etc/rancher/rke2/config.yaml", dir: "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d" },
];

/// microk8s has all of it in arguments.
const MICROK8S: &str = "/var/snap/microk8s/current/args/kubelet";

/// A setting and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    value: String,
    source: String,
}

/// What the checks need of the configuration; `None` for kubelet's own default.
#[derive(Debug, Default)]
struct Settings {
    driver: Option<Setting>,
    policy: Option<Setting>,
    quota: Option<Setting>,
    /// What was read.
    files: Vec<String>,
}

impl Settings {
    /// Takes in a file, whose settings replace earlier ones.
    fn add_file(&mut self, path: &str, text: &str) -> Result<(), String> {
        let keys = Keys::of(text).map_err(|error| format!("{path}: {error}"))?;
        let fields = [
            ("cgroupDriver", &mut self.driver),
            ("cpuManagerPolicy", &mut self.policy),
            ("cpuCFSQuota", &mut self.quota),
        ];
        for (key, field) in fields {
            if let Some(value) = keys.get(key) {
                *field = Some(Setting { value, source: format!("{path}: {key}") });
            }
        }
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Takes in the files of a directory, in the order of their names.
    fn add_dir(&mut self, facts: &Facts, dir: &str) -> Result<(), String> {
        let mut files = facts.matching(&format!("{}/*.conf", dir.trim_end_matches('/')));
        files.sort_by_key(|(path, _, _)| *path);
        files.into_iter().try_for_each(|(path, _, text)| self.add_file(path, text))
    }

    /// Takes in arguments, which count more than files. k3s has its own name for those that it hands on.
    fn add_arguments<'a>(&mut self, source: &str, arguments: impl Iterator<Item = &'a str>) {
        for argument in arguments {
            let argument = argument.strip_prefix("--kubelet-arg=").unwrap_or(argument).trim_start_matches("--");
            // "--cpu-cfs-quota" alone is true.
            let (name, value) = argument.split_once('=').unwrap_or((argument, "true"));
            let field = match name {
                "cgroup-driver" => &mut self.driver,
                "cpu-manager-policy" => &mut self.policy,
                "cpu-cfs-quota" => &mut self.quota,
                _ => continue,
            };
            *field = Some(Setting { value: unquoted(value).to_owned(), source: format!("{source}: --{name}") });
        }
    }
}

/// The keys at the top level of a configuration. JSON is YAML, too.
enum Keys<'a> {
    Json(Value),
    Yaml(&'a str),
}

impl<'a> Keys<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let first = text.lines().map(str::trim).find(|line| !(line.is_empty() || line.starts_with(['#', '-', '%'])));
        if !first.is_some_and(|line| line.starts_with('{')) {
            return Ok(Self::Yaml(text));
        }
        let start = text.find('{').unwrap_or_default();
        let json: Value = serde_json::from_str(&text[start..])
            .map_err(|error| format!("guard does not understand its form ({error})"))?;
        Ok(Self::Json(json))
    }

    fn get(&self, key: &str) -> Option<String> {
        match self {
            Self::Json(json) => match &json[key] {
                Value::String(text) => Some(text.clone()),
                Value::Null => None,
                other => Some(other.to_string()),
            },
            Self::Yaml(text) => {
                let value = text.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    // What is indented belongs to another key.
                    (!name.starts_with([' ', '\t']) && unquoted(name.trim_end()) == key).then_some(value)
                })?;
                let value = unquoted(value.split(" #").next().unwrap_or_default().trim());
                (!value.is_empty() && !matches!(value, "null" | "~")).then(|| value.to_owned())
            }
        }
    }
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\''])
}

/// The kubelet of this node.
fn running(facts: &Facts) -> Option<&Process> {
    facts.processes.iter().find(|process| PROCESSES.contains(&process.comm.as_str()))
}

/// The configuration: `None` when there is neither a kubelet nor a configuration.
fn settings(facts: &Facts) -> Result<Option<Settings>, String> {
    let process = running(facts);
    if let Some((process, arguments)) = process.and_then(|one| Some((one, one.arguments.as_deref()?))) {
        return of_arguments(facts, process, arguments).map(Some);
    }
    let mut settings = Settings::default();
    for place in &PLACES {
        // kubeadm has keys in a file with the name of OpenShift's configuration.
        let is_configuration = |text: &&str| {
            Keys::of(text).map_or(true, |keys| keys.get("kind").is_none_or(|kind| kind == "KubeletConfiguration"))
        };
        if let Some(text) = facts.text(place.file).filter(is_configuration) {
            settings.add_file(place.file, text)?;
            settings.add_dir(facts, place.dir)?;
            break;
        }
    }
    for file in ARGUMENT_FILES {
        settings.add_arguments(file, words(facts, file));
    }
    for place in &RANCHER {
        settings.add_dir(facts, place.dir)?;
        settings.add_arguments(place.file, words(facts, place.file));
    }
    if facts.text(MICROK8S).is_some() {
        settings.add_arguments(MICROK8S, words(facts, MICROK8S));
        settings.files.push(MICROK8S.to_owned());
    }
    if !settings.files.is_empty() {
        return Ok(Some(settings));
    }
    if let Some(file) = PLACES.iter().map(|place| place.file).find(|file| facts.is_unreadable(file)) {
        return Err(facts.reason(file));
    }
    let in_pod = facts.processes.iter().find(|process| {
        process.container.as_ref().is_some_and(|container| container.pod.is_some() && container.qos.is_some())
    });
    match (process, in_pod) {
        (Some(process), _) => Err(format!(
            "{} runs, but where its configuration is cannot be seen: its arguments are not known, and it is in none of the usual places",
            process.label()
        )),
        (None, Some(process)) => Err(format!(
            "{} runs in a pod, but neither kubelet nor its configuration can be seen from here",
            process.label()
        )),
        (None, None) => Ok(None),
    }
}

/// Words of a file with arguments: of a shell's assignments, or of items of a list.
fn words<'a>(facts: &'a Facts, file: &str) -> impl Iterator<Item = &'a str> {
    let lines = facts.text(file).unwrap_or_default().lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')))
}

/// The configuration of a kubelet whose arguments are known.
fn of_arguments(facts: &Facts, process: &Process, arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings::default();
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(file) = value_of(&all, "--kubelet-args-file") {
        if facts.text(file).is_none() {
            return Err(format!("kubelet's arguments cannot be read: {}", facts.reason(file)));
        }
        all.extend(words(facts, file));
    }
    if let Some(file) = value_of(&all, "--config") {
        let Some(text) = facts.text(file) else {
            return Err(format!("kubelet's configuration cannot be read: {}", facts.reason(file)));
        };
        settings.add_file(file, text)?;
    }
    if let Some(dir) = value_of(&all, "--config-dir") {
        settings.add_dir(facts, dir)?;
    }
    if process.comm.starts_with("k3s") {
        for place in &RANCHER {
            settings.add_dir(facts, place.dir)?;
            settings.add_arguments(place.file, words(facts, place.file));
        }
    }
    let source = format!("/proc/{}/cmdline", process.pid);
    settings.add_arguments(&source, all.into_iter());
    settings.files.push(source);
    Ok(settings)
}

/// The value of the last argument of this name.
fn value_of<'a>(arguments: &[&'a str], name: &str) -> Option<&'a str> {
    arguments.iter().rev().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')).map(unquoted)
}

fn kubelet(facts: &Facts) -> Vec<Found> {
    let settings = match settings(facts) {
        Ok(Some(settings)) => settings,
        Ok(None) => return vec![Found::ok("no kubelet runs here, and there is no configuration of one")],
        Err(reason) => return vec![Found::unknown(reason)],
    };
    let mut found = Vec::new();
    if let Some(driver) = &settings.driver {
        found.extend(against_containerd(facts, driver));
        found.extend(against_crio(facts, driver));
    }
    let seen = |found: Found, setting: Option<&Setting>, otherwise: &str| match setting {
        Some(setting) => found.seen(&setting.source, &setting.value),
        None => found.seen(settings.files.join(", "), otherwise),
    };
    let in_pods =
        facts.workload().any(|process| process.container.as_ref().is_some_and(|container| container.pod.is_some()));
    if settings.policy.as_ref().is_none_or(|policy| policy.value != "static") {
        let one = Found::warning_if(in_pods, "kubelet gives no container CPUs of its own");
        found.push(seen(one, settings.policy.as_ref(), "no cpuManagerPolicy: none by default").by_hand(
            "set cpuManagerPolicy: static and reservedSystemCPUs, drain the node, stop kubelet, remove /var/lib/kubelet/cpu_manager_state, start kubelet; the pod needs whole CPUs with limits equal to requests",
            "set cpuManagerPolicy: none in the same way",
        ));
    }
    if settings.quota.as_ref().is_none_or(|quota| quota.value != "false") {
        let one = Found::info("kubelet turns CPU limits into quotas; a pod with exclusive CPUs needs none");
        found.push(seen(one, settings.quota.as_ref(), "no cpuCFSQuota: true by default"));
    }
    found
}

/// Whether kubelet may use this runtime: where only the other one runs, a file is left over.
fn may_use(facts: &Facts, runtime: &str, other: &str) -> bool {
    facts.runs(runtime).is_some() || facts.runs(other).is_none()
}

fn name_of(systemd: bool) -> &'static str {
    if systemd { "systemd" } else { "cgroupfs" }
}

fn against_containerd(facts: &Facts, driver: &Setting) -> Vec<Found> {
    if !may_use(facts, "containerd", "crio") {
        return Vec::new();
    }
    let wanted = driver.value == "systemd";
    let others = pod_runtimes(facts).into_iter().filter(|runtime| runtime.systemd != wanted);
    others
        .map(|runtime| {
            let (name, path, systemd) = (&runtime.name, &runtime.path, runtime.systemd);
            let title = format!(
                "kubelet uses the cgroup driver {}, containerd's runtime {name} {}",
                driver.value,
                name_of(systemd)
            );
            Found::warning(title)
                .seen(&driver.source, &driver.value)
                .seen(format!("{path}: runtimes.{name}.options.SystemdCgroup"), systemd.to_string())
                .by_hand(
                    format!("set SystemdCgroup = {wanted} in the options of {name} in {path}, then: systemctl restart containerd kubelet"),
                    format!("set SystemdCgroup = {systemd}"),
                )
        })
        .collect()
}

/// CRI-O's cgroup manager: crio.conf, then the files beside it by name; systemd unless they say otherwise.
fn against_crio(facts: &Facts, driver: &Setting) -> Option<Found> {
    if !may_use(facts, "crio", "containerd") {
        return None;
    }
    let main = facts.text("/etc/crio/crio.conf").map(|text| ("/etc/crio/crio.conf", text));
    let mut beside = facts.matching("/etc/crio/crio.conf.d/*.conf");
    beside.sort_by_key(|(path, _, _)| *path);
    let files: Vec<(&str, &str)> =
        main.into_iter().chain(beside.into_iter().map(|(path, _, text)| (path, text))).collect();
    if files.is_empty() && facts.runs("crio").is_none() {
        return None;
    }
    let mut managers = files.into_iter().filter_map(|(path, text)| {
        let config: Table = text.parse().ok()?;
        Some((path, config.get("crio")?.get("runtime")?.get("cgroup_manager")?.as_str()?.to_owned()))
    });
    let (path, manager) = managers.next_back().unwrap_or(("/etc/crio/crio.conf.d", "systemd".to_owned()));
    let found = (manager != driver.value).then(|| {
        Found::warning(format!("kubelet uses the cgroup driver {}, CRI-O the cgroup manager {manager}", driver.value))
    })?;
    Some(
        found
            .seen(&driver.source, &driver.value)
            .seen(format!("{path}: crio.runtime.cgroup_manager"), &manager)
            .by_hand(
                format!(
                    "set cgroup_manager = \"{}\" under [crio.runtime] in {path}, and conmon_cgroup to suit it (cgroupfs: \"pod\"), drain the node, then: systemctl restart crio kubelet",
                    driver.value
                ),
                format!("set cgroup_manager = \"{manager}\""),
            ),
    )
}
