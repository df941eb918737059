//! Whose cgroup it is, by its path alone: container, pod, guest or systemd unit. Pure. The nearest container, pod or guest
//! above a process wins; a unit inside of it is that container's own and is named beside it. Only where there is none does
//! the unit belong to the host.
//!
//! Forms: podman libpod/container_internal_linux.go and oci_conmon_linux.go, moby daemon/oci_linux.go, containerd
//! internal/cri/server, CRI-O internal/config/cgmgr, kubelet pkg/kubelet/cm/cgroup_manager_linux.go and
//! pod_container_manager_linux.go, runc and crun (systemd's names), LXC src/lxc/cgroups, systemd-nspawn's cgroups, nomad
//! client/lib/cgroupslib. The tests have what was seen.

use crate::snapshot::{CgroupPath, Container};

/// Runtime of a container whose path has the id only.
pub(super) const UNKNOWN: &str = "unknown";

const UNIT_SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// Where podman keeps conmon beside the payload of a container that shares a unit with it (--cgroups=split, Quadlet).
const BESIDE_PAYLOAD: &str = "runtime";

/// Whose a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// What it belongs to; `None` for the root and for cgroups that no known manager made.
    pub container: Option<Container>,
    /// Whether a runtime keeps those of its own processes there that watch over a container or a guest.
    pub monitor: bool,
}

/// Whose the cgroup with this path is.
pub(super) fn identify(path: &str) -> Owner {
    let mut walk = Walk::default();
    for name in CgroupPath::of(path).names() {
        walk.step(name);
    }
    walk.owner()
}

/// The 64 hexadecimal digits by which runtimes name containers.
pub(super) fn is_container_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Where the monitor of this cgroup is, if this is the payload of a unit that podman has split.
pub(super) fn monitor_beside(path: &str) -> Option<String> {
    let (unit, name) = path.rsplit_once('/')?;
    name.strip_prefix("libpod-payload-").filter(|id| is_container_id(id))?;
    Some(format!("{unit}/{BESIDE_PAYLOAD}"))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(part, length)| part.len() == length && is_hex(part))
}

/// What was seen on the way down a path.
#[derive(Default)]
struct Walk<'a> {
    /// The nearest container, pod or guest so far.
    found: Option<Container>,
    /// The unit so far: of the host, or inside of what was found.
    unit: Option<&'a str>,
    monitor: bool,
    pod: Pod,
    /// Name of the machine whose unit the last part is: what follows may be inside of it.
    machine: Option<String>,
    top: Option<&'a str>,
    parent: &'a str,
    grandparent: &'a str,
}

impl<'a> Walk<'a> {
    fn step(&mut self, name: &'a str) {
        let machine = self.machine.take();
        if self.pod.step(name, self.parent) {
            self.enter(self.pod.as_container(name));
        } else if let Some(container) = self.container(name) {
            self.enter(container);
        } else if let Some(guest) = self.lxc_guest(name) {
            self.enter(named("lxc", guest));
        } else if let Some(machine) = machine.as_deref().filter(|_| is_inside_of_machine(name)) {
            self.enter(named("nspawn", machine));
            self.see_unit(name);
        } else {
            self.monitor |= self.is_monitor(name, machine.is_some());
            self.see_unit(name);
            self.machine = machine_name(name);
        }
        self.top.get_or_insert(name);
        self.grandparent = std::mem::replace(&mut self.parent, name);
    }

    fn owner(self) -> Owner {
        let unit = self.unit.map(str::to_owned);
        let container = match self.found {
            Some(found) => Some(Container { unit, ..found }),
            None => unit.map(|id| Container { runtime: "systemd".to_owned(), id, ..Container::default() }),
        };
        Owner { container, monitor: self.monitor }
    }

    fn enter(&mut self, container: Container) {
        (self.found, self.unit, self.monitor) = (Some(container), None, false);
    }

    fn see_unit(&mut self, name: &'a str) {
        let is_unit = UNIT_SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
        // A service or scope below a slice says more than the slice, also where that slice is inside of the service.
        if is_unit && (!name.ends_with(".slice") || self.unit.is_none_or(|unit| unit.ends_with(".slice"))) {
            self.unit = Some(name);
        }
    }

    /// The container that one part of the path names.
    fn container(&mut self, name: &str) -> Option<Container> {
        let (prefix, id) = match name.split_once(':') {
            // A runtime that was given systemd's form while it uses plain directories makes "slice:prefix:id".
            Some((slice, rest)) => {
                self.pod.step(slice, self.parent);
                let (prefix, id) = rest.split_once(':')?;
                if prefix == "docker" && !is_container_id(id) {
                    return Some(build("docker", id));
                }
                (prefix, id)
            }
            None => {
                let name = name.strip_suffix(".scope").unwrap_or(name);
                name.rsplit_once('-').unwrap_or(("", name))
            }
        };
        if !is_container_id(id) {
            return self.container_by_name(name);
        }
        if prefix.ends_with("conmon") {
            return None;
        }
        let runtime = match (prefix, self.parent) {
            ("libpod" | "libpod-payload", _) => "podman",
            ("docker", _) | ("", "docker" | "moby") => "docker",
            ("balena", _) => "balena",
            ("cri-containerd" | "nerdctl", _) | ("", "k8s.io" | "default") => "containerd",
            ("crio", _) => "crio",
            // Plain directories below a pod: the path does not tell the runtime.
            ("", _) if self.pod.is_pod() => "kubernetes",
            // Amazon's agent runs tasks with Docker, each with a parent of its own.
            ("", _) if self.top == Some("ecs") => "docker",
            _ => UNKNOWN,
        };
        let (pod, qos) = (self.pod.uid.clone(), self.pod.qos.map(str::to_owned));
        Some(Container { runtime: runtime.to_owned(), id: id.to_owned(), pod, qos, ..Container::default() })
    }

    /// A container whose id is no 64 digits.
    fn container_by_name(&self, name: &str) -> Option<Container> {
        let scope = name.strip_suffix(".scope");
        let by_hand = |runtime: &str| scope?.strip_prefix(runtime)?.strip_prefix('-').filter(|id| !id.is_empty());
        // `runc run ID` and `crun run ID` with systemd's cgroups.
        if let Some((runtime, id)) = ["runc", "crun"].into_iter().find_map(|runtime| Some((runtime, by_hand(runtime)?)))
        {
            return Some(named(runtime, id));
        }
        if self.top.is_some_and(|top| matches!(top, "nomad.slice" | "nomad")) {
            let id = scope.unwrap_or(name);
            let (_, task) = id.split_once('.').filter(|(allocation, _)| is_uuid(allocation))?;
            return Some(Container { name: Some(task.to_owned()), ..named("nomad", id) });
        }
        match (self.grandparent, self.parent) {
            ("docker", "buildkit") => Some(build("docker", name)),
            ("", "buildkit") => Some(build("buildkit", name)),
            _ => None,
        }
    }

    /// Name of the guest of LXC, Incus or Proxmox that begins with this part of the path.
    fn lxc_guest(&self, name: &'a str) -> Option<&'a str> {
        let below_lxc = self.parent == "lxc" && self.grandparent.is_empty() || self.parent == "lxc.payload";
        if below_lxc { Some(name) } else { name.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()) }
    }

    fn is_monitor(&self, name: &str, of_machine: bool) -> bool {
        of_machine && name == "supervisor"
            || ["libpod-conmon-", "crio-conmon-", "lxc.monitor", "podman-pause-"].iter().any(|p| name.starts_with(p))
            || self.parent == "libpod_parent" && name == "conmon"
            // Talos keeps kubelet and containerd there.
            || self.parent.is_empty() && name == "podruntime"
    }
}

/// A container or guest that people call by its id.
fn named(runtime: &str, id: &str) -> Container {
    Container { runtime: runtime.to_owned(), id: id.to_owned(), name: Some(id.to_owned()), ..Container::default() }
}

/// The container of a step of an image's build.
fn build(runtime: &str, id: &str) -> Container {
    Container { name: Some("buildkit".to_owned()), ..named(runtime, id) }
}

/// Name of the machine whose unit this is: systemd-nspawn's service or scope.
fn machine_name(unit: &str) -> Option<String> {
    let service = unit.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"));
    let scope = || unit.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    service.or_else(scope).filter(|name| !name.is_empty()).map(unescaped)
}

/// Whether this part of a path, right below the unit of a machine, is the machine's and not its supervisor's. On cgroup v1
/// the units of the guest follow at once.
fn is_inside_of_machine(name: &str) -> bool {
    name == "payload" || name == "init.scope" || name.ends_with(".slice") || name.ends_with(".service")
}

/// A unit's name without systemd's escapes: `\x2d` is "-".
fn unescaped(name: &str) -> String {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.strip_prefix(b"x").and_then(|tail| tail.get(..2)).filter(|_| *first == b'\\');
        let byte = digits.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The pod that encloses the parts seen so far.
#[derive(Default)]
struct Pod {
    /// Below a "kubepods" directory.
    kubernetes: bool,
    qos: Option<&'static str>,
    uid: Option<String>,
}

impl Pod {
    fn is_pod(&self) -> bool {
        self.uid.is_some()
    }

    /// Takes in one part; true when it is a pod or an ancestor of pods.
    fn step(&mut self, name: &str, parent: &str) -> bool {
        // Podman: machine-libpod_pod_<id>.slice, or libpod_parent/<id> with plain directories.
        let of_podman = match name.strip_suffix(".slice") {
            Some(slice) => slice.rsplit_once("libpod_pod_").map(|(_, id)| id),
            None => (parent == "libpod_parent" && is_container_id(name)).then_some(name),
        };
        if let Some(id) = of_podman {
            *self = Self { kubernetes: false, qos: None, uid: Some(id.to_owned()) };
            return true;
        }
        // "kubepods", or the same below a cgroupRoot: "foo-kubepods-burstable-pod1_2.slice".
        let slice = name.strip_suffix(".slice");
        let of_slice = slice.and_then(|name| match name.strip_prefix("kubepods") {
            Some(rest) => Some(rest),
            None => name.split_once("-kubepods").map(|(_, rest)| rest),
        });
        let rest = match of_slice {
            Some(rest) if rest.is_empty() || rest.starts_with('-') => rest.trim_start_matches('-'),
            _ if name == "kubepods" => "",
            _ if self.kubernetes && self.uid.is_none() && slice.is_none() => {
                return self.step_below(name, false);
            }
            _ => return self.step_by_uid(name, parent),
        };
        // A systemd slice repeats everything above it; "kubepods" itself begins anew.
        *self = Self { kubernetes: true, qos: Some("guaranteed"), uid: None };
        if rest.is_empty() {
            self.qos = None;
            return true;
        }
        let (qos, pod) = match rest.split_once('-') {
            Some((qos, pod)) => (qos, pod),
            None if rest.starts_with("pod") => ("", rest),
            None => (rest, ""),
        };
        (qos.is_empty() || self.step_below(qos, true)) && (pod.is_empty() || self.step_below(pod, true))
    }

    /// One level below "kubepods": a QoS class or a pod.
    fn step_below(&mut self, name: &str, escaped: bool) -> bool {
        match name {
            "burstable" => self.qos = Some("burstable"),
            "besteffort" => self.qos = Some("besteffort"),
            _ => match name.strip_prefix("pod").filter(|uid| !uid.is_empty()) {
                Some(uid) => {
                    // systemd takes "-" for a level of its own, so kubelet writes "_".
                    self.uid = Some(if escaped { uid.replace('_', "-") } else { uid.to_owned() });
                    self.qos = self.qos.or(Some("guaranteed"));
                }
                None => return false,
            },
        }
        true
    }

    /// A pod whose "kubepods" is out of sight: a path that is seen from inside of a cgroup namespace begins anywhere. Its
    /// QoS class is known only where the part above it is to be seen.
    fn step_by_uid(&mut self, name: &str, parent: &str) -> bool {
        let Some(uid) = name.strip_prefix("pod").filter(|uid| is_uuid(uid)) else { return false };
        let qos = ["burstable", "besteffort"].into_iter().find(|qos| *qos == parent);
        *self = Self { kubernetes: true, qos, uid: Some(uid.to_owned()) };
        true
    }

    fn as_container(&self, name: &str) -> Container {
        Container {
            runtime: if self.kubernetes { "kubernetes" } else { "podman" }.to_owned(),
            id: self.uid.clone().unwrap_or_else(|| name.to_owned()),
            pod: self.uid.clone(),
            qos: self.qos.map(str::to_owned),
            ..Container::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "575db3970d26d3f17196e44becb0767529f425def48fe11641702c2457bd2ae6";
    const OUTER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "7d9b2a54-0f5e-4c3a-9f6e-1a2b3c4d5e6f";

    /// Expands <id>, <outer>, <uid> and <uid_>.
    fn expand(text: &str) -> String {
        text.replace("<id>", ID)
            .replace("<outer>", OUTER)
            .replace("<uid>", UID)
            .replace("<uid_>", &UID.replace('-', "_"))
    }

    /// Runtime and id; then what else is known.
    fn described(path: &str) -> String {
        let Owner { container, monitor } = identify(path);
        let mut words = Vec::new();
        if let Some(Container { runtime, id, name, pod, qos, unit, .. }) = container {
            words.extend([runtime, id]);
            let others = [("name", name), ("pod", pod), ("qos", qos), ("unit", unit)];
            words.extend(others.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))));
        }
        words.extend(monitor.then(|| "monitor".to_owned()));
        words.join(" ")
    }

    fn expect(table: &[(&str, &str)]) {
        for (path, wanted) in table {
            assert_eq!(described(&expand(path)), expand(wanted), "{path}");
        }
    }

    #[test]
    fn podmans_containers_and_pods_are_recognised() {
        expect(&[
            // podman 4.3.1 with --cgroup-manager=cgroupfs, as seen on 6.12 PREEMPT_RT.
            ("/libpod_parent/libpod-<id>", "podman <id>"),
            ("/libpod-<id>", "podman <id>"),
            ("/libpod_parent/conmon", "monitor"),
            ("/machine.slice/libpod-<id>.scope", "podman <id>"),
            ("/machine.slice/libpod-<id>.scope/container", "podman <id>"),
            ("/machine.slice/libpod-conmon-<id>.scope", "systemd libpod-conmon-<id>.scope monitor"),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope/container", "podman <id>"),
            ("/machine.slice/machine-libpod_pod_<outer>.slice/libpod-<id>.scope", "podman <id> pod=<outer>"),
            ("/machine.slice/machine-libpod_pod_<outer>.slice/libpod-<id>.scope/container", "podman <id> pod=<outer>"),
            ("/machine.slice/machine-libpod_pod_<outer>.slice", "podman <outer> pod=<outer>"),
            ("/libpod_parent/<outer>/libpod-<id>", "podman <id> pod=<outer>"),
            ("/libpod_parent/<outer>", "podman <outer> pod=<outer>"),
            // Below a unit: --cgroups=split, Quadlet.
            ("/system.slice/plc.service/libpod-payload-<id>", "podman <id>"),
            ("/system.slice/plc.service/libpod-payload-<id>/container", "podman <id>"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/plc.service/libpod-payload-<id>", "podman <id>"),
            // Only the payload beside it makes this a monitor's: Inventory sees to that.
            ("/system.slice/plc.service/runtime", "systemd plc.service"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-pause-0c1f2a3b.scope",
                "systemd podman-pause-0c1f2a3b.scope monitor",
            ),
        ]);
        assert_eq!(
            monitor_beside(&expand("/system.slice/plc.service/libpod-payload-<id>")).as_deref(),
            Some("/system.slice/plc.service/runtime")
        );
        for path in ["/system.slice/plc.service/libpod-payload-1", "/machine.slice/libpod-<id>.scope", "/", ""] {
            assert_eq!(monitor_beside(&expand(path)), None, "{path}");
        }
    }

    #[test]
    fn dockers_containers_are_recognised_below_any_parent() {
        expect(&[
            ("/docker/<id>", "docker <id>"),
            ("/docker/<id>/init", "docker <id>"),
            ("/moby/<id>", "docker <id>"),
            ("/system.slice/docker-<id>.scope", "docker <id>"),
            ("/rt.slice/docker-<id>.scope", "docker <id>"),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-<id>.scope", "docker <id>"),
            ("/system.slice/balena-<id>.scope", "balena <id>"),
            ("/ecs/432624d2150b349fe35ba397284dea78/<id>", "docker <id>"),
            // The path does not tell whose these are.
            ("/rt/<id>", "unknown <id>"),
            ("/plant1/<id>", "unknown <id>"),
            ("/<id>", "unknown <id>"),
            ("/machine.slice/cell-<id>.scope", "unknown <id>"),
            // Steps of a build.
            ("/docker/buildkit/t4967jvf8rbufklrhkicskyes", "docker t4967jvf8rbufklrhkicskyes name=buildkit"),
            ("/system.slice:docker:t4967jvf8rbufklrhkicskyes", "docker t4967jvf8rbufklrhkicskyes name=buildkit"),
            ("/buildkit/t4967jvf8rbufklrhkicskyes", "buildkit t4967jvf8rbufklrhkicskyes name=buildkit"),
        ]);
    }

    #[test]
    fn containers_of_other_runtimes_are_recognised() {
        expect(&[
            ("/default/<id>", "containerd <id>"),
            ("/k8s.io/<id>", "containerd <id>"),
            ("/system.slice/nerdctl-<id>.scope", "containerd <id>"),
            ("/system.slice/runc-plc.scope", "runc plc name=plc"),
            ("/system.slice/crun-plc-1.scope", "crun plc-1 name=plc-1"),
            (
                "/nomad.slice/share.slice/6bd1e0a4-1dc4-ffd6-cc7e-2a6d4bdd6a4e.plc.scope",
                "nomad 6bd1e0a4-1dc4-ffd6-cc7e-2a6d4bdd6a4e.plc name=plc",
            ),
            ("/nomad.slice/share.slice/docker-<id>.scope", "docker <id>"),
            ("/nomad.slice/share.slice", "systemd share.slice"),
        ]);
    }

    #[test]
    fn containers_in_containers_are_the_inner_ones() {
        expect(&[
            ("/docker/<outer>/libpod_parent/libpod-<id>", "podman <id>"),
            ("/system.slice/docker-<outer>.scope/docker/<id>", "docker <id>"),
            // kind and k3d: nodes that are themselves containers.
            (
                "/docker/<outer>/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid_>.slice/cri-containerd-<id>.scope",
                "containerd <id> pod=<uid> qos=guaranteed",
            ),
            (
                "/system.slice/docker-<outer>.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod<uid_>.slice/cri-containerd-<id>.scope",
                "containerd <id> pod=<uid> qos=burstable",
            ),
            ("/docker/<outer>/kubelet.slice/kubelet.service", "docker <outer> unit=kubelet.service"),
            ("/docker/<outer>/kubepods/besteffort/pod<uid>/<id>", "kubernetes <id> pod=<uid> qos=besteffort"),
        ]);
    }

    #[test]
    fn a_unit_inside_of_a_container_or_guest_is_not_the_hosts() {
        expect(&[
            ("/machine.slice/libpod-<id>.scope/system.slice/cron.service", "podman <id> unit=cron.service"),
            ("/machine.slice/libpod-<id>.scope/init.scope", "podman <id> unit=init.scope"),
            // LXC, Incus, Proxmox.
            ("/lxc.payload.plc1", "lxc plc1 name=plc1"),
            ("/lxc.payload.plc1/system.slice/codesyscontrol.service", "lxc plc1 name=plc1 unit=codesyscontrol.service"),
            ("/lxc.payload/plc1/init.scope", "lxc plc1 name=plc1 unit=init.scope"),
            ("/lxc.monitor.plc1", "monitor"),
            ("/lxc.monitor/101", "monitor"),
            ("/lxc/101", "lxc 101 name=101"),
            ("/lxc/101/ns/system.slice/codesyscontrol.service", "lxc 101 name=101 unit=codesyscontrol.service"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope/lxc.payload.c1/init.scope",
                "lxc c1 name=c1 unit=init.scope",
            ),
            ("/lxc.payload.ct/docker/<id>", "docker <id>"),
            // systemd-nspawn as a service and by hand; cgroup v1 has no payload.
            ("/machine.slice/systemd-nspawn@plc1.service", "systemd systemd-nspawn@plc1.service"),
            ("/machine.slice/systemd-nspawn@plc1.service/supervisor", "systemd systemd-nspawn@plc1.service monitor"),
            ("/machine.slice/systemd-nspawn@plc1.service/payload", "nspawn plc1 name=plc1"),
            (
                "/machine.slice/systemd-nspawn@plc1.service/payload/system.slice/codesyscontrol.service",
                "nspawn plc1 name=plc1 unit=codesyscontrol.service",
            ),
            (
                "/machine.slice/machine-cell\\x2d1.scope/system.slice/a.service",
                "nspawn cell-1 name=cell-1 unit=a.service",
            ),
            // A virtual machine has no cgroups of its own.
            (
                "/machine.slice/machine-qemu\\x2d1\\x2dplc.scope/libvirt/vcpu0",
                "systemd machine-qemu\\x2d1\\x2dplc.scope",
            ),
        ]);
    }

    #[test]
    fn pods_of_kubernetes_are_recognised_with_their_class() {
        expect(&[
            ("/kubepods.slice", "kubernetes kubepods.slice"),
            ("/kubepods", "kubernetes kubepods"),
            ("/kubepods.slice/kubepods-burstable.slice", "kubernetes kubepods-burstable.slice qos=burstable"),
            ("/kubepods/besteffort", "kubernetes besteffort qos=besteffort"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice",
                "kubernetes <uid> pod=<uid> qos=besteffort",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope",
                "containerd <id> pod=<uid> qos=besteffort",
            ),
            (
                "/kubepods.slice/kubepods-pod<uid_>.slice/crio-<id>.scope/container",
                "crio <id> pod=<uid> qos=guaranteed",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/docker-<id>.scope",
                "docker <id> pod=<uid> qos=burstable",
            ),
            ("/kubepods.slice/kubepods-pod<uid_>.slice/<id>.scope", "kubernetes <id> pod=<uid> qos=guaranteed"),
            (
                "/foo.slice/foo-kubepods.slice/foo-kubepods-burstable.slice/foo-kubepods-burstable-pod<uid_>.slice/crio-<id>.scope",
                "crio <id> pod=<uid> qos=burstable",
            ),
            ("/kubepods/burstable/pod<uid>/<id>", "kubernetes <id> pod=<uid> qos=burstable"),
            ("/kubepods/pod<uid>/<id>", "kubernetes <id> pod=<uid> qos=guaranteed"),
            ("/kubepods/besteffort/pod<uid>/crio-<id>", "crio <id> pod=<uid> qos=besteffort"),
            ("/kubepods/besteffort/pod<uid>/crio-conmon-<id>", "kubernetes <uid> pod=<uid> qos=besteffort monitor"),
            ("/system.slice/crio-conmon-<id>.scope", "systemd crio-conmon-<id>.scope monitor"),
            // Static pods: the hash of their configuration serves as uid.
            (
                "/kubepods/burstable/pod0123456789abcdef0123456789abcdef",
                "kubernetes 0123456789abcdef0123456789abcdef pod=0123456789abcdef0123456789abcdef qos=burstable",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice/cri-containerd-<id>.scope",
                "containerd <id> pod=0123456789abcdef0123456789abcdef qos=burstable",
            ),
            // containerd without SystemdCgroup below a kubelet with the systemd driver; Kata below its pod's parent.
            ("/kubepods-besteffort-pod<uid_>.slice:cri-containerd:<id>", "containerd <id> pod=<uid> qos=besteffort"),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod<uid_>.slice:cri-containerd:<id>",
                "containerd <id> pod=<uid> qos=burstable",
            ),
            ("/kubepods-pod<uid_>.slice:crio:<id>", "crio <id> pod=<uid> qos=guaranteed"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice:cri-containerd:<id>",
                "containerd <id> pod=<uid> qos=burstable",
            ),
            // Seen from inside of a cgroup namespace.
            ("/../../kubepods-pod<uid_>.slice/cri-containerd-<id>.scope", "containerd <id> pod=<uid> qos=guaranteed"),
            ("/../../pod<uid>/<id>", "kubernetes <id> pod=<uid>"),
            ("/../besteffort/pod<uid>/<id>", "kubernetes <id> pod=<uid> qos=besteffort"),
            // Talos.
            ("/podruntime/kubelet", "monitor"),
        ]);
    }

    #[test]
    fn units_of_systemd_are_recognised() {
        expect(&[
            ("/init.scope", "systemd init.scope"),
            ("/system.slice", "systemd system.slice"),
            ("/system.slice/ssh.service", "systemd ssh.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "systemd getty@tty1.service"),
            ("/system.slice/plc.service/workers/1", "systemd plc.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "systemd session-3.scope"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/pipewire.service", "systemd pipewire.service"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice", "systemd user@1000.service"),
            ("/machine.slice/machine-qemu\\x2d1\\x2dplc.scope", "systemd machine-qemu\\x2d1\\x2dplc.scope"),
            // What podman calls a health check.
            ("/system.slice/<id>-4f3a9c.service", "systemd <id>-4f3a9c.service"),
        ]);
    }

    #[test]
    fn a_path_that_nobody_known_made_is_nobodys() {
        for path in [
            "/",
            "/plc",
            "/plc/rt",
            "/docker",
            "/docker/buildkit",
            "/default",
            "/docker/short",
            "/libpod_parent",
            "/.slice",
            "/kubepodsx.slice2",
            "/crio-abc",
            "/podinfo",
            "/podium/1",
            "/lxc",
            "/plc/lxc/x",
            "/lxc.payload.",
            "/a:b",
            "/a:b:c",
            "/nomad/x.y",
        ] {
            assert_eq!(identify(&expand(path)), Owner::default(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(?s).{0,200}") {
            let _ = (identify(&path), monitor_beside(&path));
        }

        #[test]
        fn no_combination_of_known_parts_makes_it_panic(parts in proptest::collection::vec(
            "(kubepods|libpod|docker|crio|machine|lxc|payload|-|_|pod|burstable|\\.slice|\\.scope|\\.|\\\\x|:|/|[0-9a-f]{64}|é){1,6}",
            1..6)) {
            let _ = identify(&parts.join("/"));
        }

        #[test]
        fn what_is_above_and_below_a_container_does_not_hide_it(
            above in "(/[a-z]{1,8}(\\.slice|\\.service|)){0,4}",
            form in proptest::sample::select(vec![
                ("libpod-payload-<id>", "podman"), ("libpod-<id>.scope", "podman"), ("docker-<id>.scope", "docker"),
                ("cri-containerd-<id>.scope", "containerd"), ("crio-<id>", "crio"),
            ]),
            below in "(/[a-z]{1,8}(\\.slice|\\.service|)){0,3}",
        ) {
            let owner = identify(&expand(&format!("{above}/{}{below}", form.0)));
            let container = owner.container.unwrap();
            prop_assert_eq!((container.runtime.as_str(), container.id.as_str()), (form.1, ID));
            prop_assert!(!owner.monitor);
        }

        #[test]
        fn a_name_that_systemd_escapes_is_read_back(name in "[a-zA-Z0-9-]{1,20}") {
            let escaped = name.replace('-', "\\x2d");
            prop_assert_eq!(unescaped(&escaped), name);
        }
    }
}
