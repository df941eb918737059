//! Whose cgroup it is, by its path alone: container, pod or systemd unit. Pure. The nearest container or pod above a
//! process wins, so systemd units inside of a container count as the container; only outside of containers the unit is
//! named.
//!
//! Forms: podman libpod/container_internal_linux.go, moby daemon/oci_linux.go, containerd internal/cri/server,
//! CRI-O internal/config/cgmgr, kubelet pkg/kubelet/cm/cgroup_manager_linux.go and pod_container_manager_linux.go.

use crate::snapshot::Container;

const UNIT_SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// What the cgroup with this path belongs to; None for the root and for cgroups that no known manager made.
pub(super) fn identify(path: &str) -> Option<Container> {
    let mut found: Option<Container> = None;
    let mut unit: Option<&str> = None;
    let mut pod = Pod::default();
    let mut parent = "";
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if pod.step(name) {
            found = Some(pod.as_container(name));
        } else if let Some((runtime, id)) = container(name, parent, pod.is_pod()) {
            found = Some(Container {
                runtime: runtime.to_owned(),
                id: id.to_owned(),
                pod: pod.uid.clone(),
                qos: pod.qos.map(str::to_owned),
                ..Container::default()
            });
        }
        let is_unit = UNIT_SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
        // A service or scope below a slice says more than the slice, also where that slice is inside of the service.
        if is_unit && (!name.ends_with(".slice") || unit.is_none_or(|unit| unit.ends_with(".slice"))) {
            unit = Some(name);
        }
        parent = name;
    }
    found.or_else(|| {
        let id = unit?.to_owned();
        Some(Container { runtime: "systemd".to_owned(), id, ..Container::default() })
    })
}

/// The 64 hexadecimal digits by which runtimes name containers.
pub(super) fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Runtime and container id of one path component.
fn container<'a>(name: &'a str, parent: &str, in_pod: bool) -> Option<(&'static str, &'a str)> {
    // A runtime that was given systemd's form while it uses plain directories makes "slice:prefix:id".
    let colons = name.split_once(':').and_then(|(_, rest)| rest.split_once(':'));
    let (prefix, id) = match colons {
        Some(parts) => parts,
        None => name.strip_suffix(".scope").unwrap_or(name).rsplit_once('-').unwrap_or(("", name)),
    };
    if !is_container_id(id) {
        return None;
    }
    let runtime = match (prefix, parent) {
        ("libpod", _) => "podman",
        ("docker", _) | ("", "docker") => "docker",
        ("cri-containerd" | "nerdctl", _) | ("", "k8s.io" | "default") => "containerd",
        ("crio", _) => "crio",
        // Plain directories below a pod: the path does not tell the runtime.
        ("", _) if in_pod => "kubernetes",
        _ => return None,
    };
    Some((runtime, id))
}

/// The pod that encloses the components seen so far.
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

    /// Takes in one component; true when it is a pod or an ancestor of pods.
    fn step(&mut self, name: &str) -> bool {
        // Podman: machine-libpod_pod_<id>.slice. With plain directories /libpod_parent/<id>, which only its children tell.
        if let Some(id) = name.strip_suffix(".slice").and_then(|name| name.rsplit_once("libpod_pod_")).map(|(_, id)| id)
        {
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
            _ => return false,
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

    #[test]
    fn every_known_form_of_path_is_recognised() {
        // path, runtime, id, pod, qos
        let table = [
            // podman 4.3.1 with --cgroup-manager=cgroupfs, as seen on 6.12 PREEMPT_RT.
            ("/libpod_parent/libpod-<id>", "podman", "<id>", "", ""),
            ("/libpod-<id>", "podman", "<id>", "", ""),
            ("/machine.slice/libpod-<id>.scope", "podman", "<id>", "", ""),
            ("/machine.slice/libpod-<id>.scope/container", "podman", "<id>", "", ""),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope/container",
                "podman",
                "<id>",
                "",
                "",
            ),
            ("/machine.slice/machine-libpod_pod_<outer>.slice/libpod-<id>.scope", "podman", "<id>", "<outer>", ""),
            ("/machine.slice/machine-libpod_pod_<outer>.slice", "podman", "<outer>", "<outer>", ""),
            ("/machine.slice/libpod-<id>.scope/system.slice/cron.service", "podman", "<id>", "", ""),
            ("/machine.slice/libpod-conmon-<id>.scope", "systemd", "libpod-conmon-<id>.scope", "", ""),
            ("/docker/<id>", "docker", "<id>", "", ""),
            ("/docker/<id>/init", "docker", "<id>", "", ""),
            ("/system.slice/docker-<id>.scope", "docker", "<id>", "", ""),
            ("/docker/<outer>/libpod_parent/libpod-<id>", "podman", "<id>", "", ""),
            ("/default/<id>", "containerd", "<id>", "", ""),
            ("/k8s.io/<id>", "containerd", "<id>", "", ""),
            ("/system.slice/nerdctl-<id>.scope", "containerd", "<id>", "", ""),
            ("/kubepods.slice", "kubernetes", "kubepods.slice", "", ""),
            ("/kubepods", "kubernetes", "kubepods", "", ""),
            ("/kubepods.slice/kubepods-burstable.slice", "kubernetes", "kubepods-burstable.slice", "", "burstable"),
            ("/kubepods/besteffort", "kubernetes", "besteffort", "", "besteffort"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice",
                "kubernetes",
                "<uid>",
                "<uid>",
                "besteffort",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope",
                "containerd",
                "<id>",
                "<uid>",
                "besteffort",
            ),
            (
                "/kubepods.slice/kubepods-pod<uid_>.slice/crio-<id>.scope/container",
                "crio",
                "<id>",
                "<uid>",
                "guaranteed",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/docker-<id>.scope",
                "docker",
                "<id>",
                "<uid>",
                "burstable",
            ),
            (
                "/foo.slice/foo-kubepods.slice/foo-kubepods-burstable.slice/foo-kubepods-burstable-pod<uid_>.slice/crio-<id>.scope",
                "crio",
                "<id>",
                "<uid>",
                "burstable",
            ),
            ("/kubepods/burstable/pod<uid>/<id>", "kubernetes", "<id>", "<uid>", "burstable"),
            ("/kubepods/pod<uid>/<id>", "kubernetes", "<id>", "<uid>", "guaranteed"),
            ("/kubepods/besteffort/pod<uid>/crio-<id>", "crio", "<id>", "<uid>", "besteffort"),
            ("/kubepods/besteffort/pod<uid>/crio-conmon-<id>", "kubernetes", "<uid>", "<uid>", "besteffort"),
            // A static pod: the hash of its configuration serves as uid.
            (
                "/kubepods/burstable/pod0123456789abcdef0123456789abcdef",
                "kubernetes",
                "0123456789abcdef0123456789abcdef",
                "0123456789abcdef0123456789abcdef",
                "burstable",
            ),
            // containerd without SystemdCgroup below a kubelet with the systemd driver.
            (
                "/system.slice/containerd.service/kubepods-burstable-pod<uid_>.slice:cri-containerd:<id>",
                "containerd",
                "<id>",
                "",
                "",
            ),
            // kind: a node that is itself a container.
            (
                "/docker/<outer>/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid_>.slice/cri-containerd-<id>.scope",
                "containerd",
                "<id>",
                "<uid>",
                "guaranteed",
            ),
            ("/init.scope", "systemd", "init.scope", "", ""),
            ("/system.slice", "systemd", "system.slice", "", ""),
            ("/system.slice/ssh.service", "systemd", "ssh.service", "", ""),
            ("/system.slice/system-getty.slice/getty@tty1.service", "systemd", "getty@tty1.service", "", ""),
            ("/system.slice/plc.service/workers/1", "systemd", "plc.service", "", ""),
            ("/user.slice/user-1000.slice/session-3.scope", "systemd", "session-3.scope", "", ""),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/pipewire.service",
                "systemd",
                "pipewire.service",
                "",
                "",
            ),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice", "systemd", "user@1000.service", "", ""),
            ("/machine.slice/machine-qemu\\x2d1\\x2dplc.scope", "systemd", "machine-qemu\\x2d1\\x2dplc.scope", "", ""),
        ];
        for (path, runtime, id, pod, qos) in table {
            let some = |text: &str| (!text.is_empty()).then(|| expand(text));
            let wanted = Container {
                runtime: runtime.to_owned(),
                id: expand(id),
                pod: some(pod),
                qos: some(qos),
                ..Container::default()
            };
            assert_eq!(identify(&expand(path)), Some(wanted), "{path}");
        }
    }

    #[test]
    fn a_path_that_nobody_known_made_is_nobodys() {
        for path in [
            "/",
            "/plc",
            "/plc/rt",
            "/docker",
            "/default",
            "/docker/short",
            "/libpod_parent",
            "/<id>",
            "/.slice",
            "/kubepodsx.slice2",
            "/crio-abc",
        ] {
            assert_eq!(identify(&expand(path)), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(?s).{0,200}") {
            let _ = identify(&path);
        }

        #[test]
        fn no_combination_of_known_parts_makes_it_panic(parts in proptest::collection::vec(
            "(kubepods|libpod|docker|crio|-|_|pod|burstable|\\.slice|\\.scope|:|/|[0-9a-f]{64}|é){1,6}", 1..6)) {
            let _ = identify(&parts.join("/"));
        }
    }
}
