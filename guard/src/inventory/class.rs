//! Which class a cgroup has, as a pure function over facts. PLC is found by what the threads are; the others keep
//! Koordinator's meaning as far as a path can tell. LSE and LSR cannot be found this way: they are named in the
//! configuration.

use crate::snapshot::{CgroupPath, Class, Container};

/// What the class of a cgroup follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its path.
    pub path: &'a str,
    /// What it belongs to.
    pub container: Option<&'a Container>,
    /// Whether a runtime keeps the processes there that watch over a container.
    pub monitor: bool,
    /// Whether it holds threads of user space with policy FIFO, RR or DEADLINE, other than a runtime's.
    pub realtime: bool,
}

/// The class of a cgroup. **Real-time threads make it PLC, wherever it is, unless it is the operating system's**: the root,
/// systemd itself, a container runtime, or one of the daemons in `DAEMONS`. The first rule that fits counts:
///
/// 1. The root is SYSTEM: kernel threads live there, the kernel's real-time ones too.
/// 2. Where a runtime keeps its own processes is SYSTEM, real-time threads or not; or BE, where a best-effort pod pays for
///    them.
/// 3. systemd itself, the runtimes' services and the daemons are SYSTEM, real-time threads or not: rtkit, watchdogs and time
///    servers have such threads and do not run the process. Only the system's own units count for that, since everybody may
///    give units of a user's or a guest's manager any name. A user's unit of such a name is no PLC either.
/// 4. Real-time threads make it PLC, whatever its pod's QoS class.
/// 5. A best-effort pod, or the parent of them all, is BE.
/// 6. What else is in `system.slice` and is no container is SYSTEM.
/// 7. Everything else is LS.
#[must_use]
pub fn classify(facts: Facts<'_>) -> Class {
    let best_effort = facts.container.and_then(|container| container.qos.as_deref()) == Some("besteffort");
    let unit =
        facts.container.filter(|container| container.runtime == "systemd").map(|container| container.id.as_str());
    let top = CgroupPath::of(facts.path).names().next().unwrap_or_default();
    let of_users = top == "user.slice";
    let known = unit.is_some_and(|unit| unit == "system.slice" || is_of_the_system(unit));
    if facts.path == "/" {
        Class::System
    } else if facts.monitor {
        if best_effort { Class::Be } else { Class::System }
    } else if top == "init.scope" || known && !of_users {
        Class::System
    } else if facts.realtime && !known {
        Class::Plc
    } else if best_effort {
        Class::Be
    } else if unit.is_some() && top == "system.slice" {
        Class::System
    } else {
        Class::Ls
    }
}

/// Units that are the operating system's although they may have real-time threads, by name without "@instance" and suffix.
///
/// The daemons are those of Debian 12 whose programs call sched_setscheduler or pthread_setschedparam (by the imports of
/// their binaries) and that a system manager starts, under the names that Debian, Fedora and SUSE give their units; those of
/// linuxptp, which administrators give a policy by hand (CPUSchedulingPolicy=), and which the others wait for; stalld and
/// tuned of Fedora. irqbalance calls none of these; it is here because it is never to be taken for a workload. The sound
/// servers get FIFO threads from rtkit. Packages that were looked through and need no entry: auditd, bluez, earlyoom, frr,
/// gpsd, iscsid, lldpd, lvmlockd, ModemManager, NetworkManager, openntpd, openvswitch, pacemaker, rasdaemon, thermald.
const DAEMONS: &[&str] = &[
    // Sound and pictures of a session.
    "filter-chain",
    "org.gnome.Shell",
    "pipewire",
    "pipewire-pulse",
    "plasma-kwin_wayland",
    "pulseaudio",
    "wireplumber",
    // Clusters and watchdogs.
    "corosync",
    "ctdb",
    "keepalived",
    "sanlock",
    "sbd",
    "sbd_remote",
    "watchdog",
    "wd_keepalive",
    "wdmd",
    // Storage.
    "multipath-tools",
    "multipathd",
    // Scheduling and interrupts.
    "irqbalance",
    "rtkit-daemon",
    "stalld",
    "tuned",
    // Clocks.
    "chrony",
    "chronyd",
    "chronyd-restricted",
    "ntp",
    "ntpd",
    "ntpsec",
    "phc2sys",
    "ptp4l",
    "timemaster",
    "ts2phc",
    // Container runtimes, and kubelet. Their own processes are real-time only if somebody made them so, but containers
    // start out in their cgroups.
    "balena",
    "balena-engine",
    "buildkit",
    "containerd",
    "cri-docker",
    "cri-dockerd",
    "crio",
    "docker",
    "incus",
    "isulad",
    "k0scontroller",
    "k0sworker",
    "k3s",
    "k3s-agent",
    "kubelet",
    "libvirtd",
    "lxc",
    "lxd",
    "nomad",
    "podman",
    "rke2-agent",
    "rke2-server",
    "snap.docker.dockerd",
    "snap.lxd.daemon",
    "snap.microk8s.daemon-containerd",
    "snap.microk8s.daemon-kubelite",
    "virtlxcd",
    "virtqemud",
    // guard's own real-time threads.
    "guard",
];

/// Whether a unit of this name is systemd itself, a container runtime's or one of the operating system's daemons.
#[must_use]
pub fn is_of_the_system(unit: &str) -> bool {
    let name = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    // What runs in a machine of systemd-nspawn is right below its unit, or in it on cgroup v1.
    let of_systemd = name.starts_with("systemd-") && name != "systemd-nspawn";
    of_systemd || DAEMONS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::identify::identify;

    #[test]
    fn the_rules_hold_for_every_kind_of_cgroup() {
        let id = "575db3970d26d3f17196e44becb0767529f425def48fe11641702c2457bd2ae6";
        let (system, plc, ls, be) = (Class::System, Class::Plc, Class::Ls, Class::Be);
        // path, class without and with real-time threads
        for (path, without, with) in [
            ("/", system, system),
            ("/init.scope", system, system),
            ("/system.slice", system, system),
            // A PLC that systemd starts.
            ("/system.slice/plc.service", system, plc),
            ("/system.slice/codesyscontrol.service/workers", system, plc),
            ("/system.slice/system-plc.slice/plc@line1.service", system, plc),
            ("/system.slice/run-p345-i645.scope", system, plc),
            ("/system.slice/ssh.service", system, plc),
            ("/rt.slice/plc.service", ls, plc),
            ("/user.slice/user-0.slice/session-1.scope", ls, plc),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/run-p406-i706.service", ls, plc),
            ("/plc", ls, plc),
            // The operating system.
            ("/system.slice/rtkit-daemon.service", system, system),
            ("/system.slice/multipathd.service", system, system),
            ("/system.slice/chronyd.service", system, system),
            ("/system.slice/system-ptp4l.slice/ptp4l@eth0.service", system, system),
            ("/time.slice/phc2sys.service", system, system),
            ("/system.slice/systemd-udevd.service/udev", system, system),
            ("/system.slice/docker.service", system, system),
            ("/runtime.slice/containerd.service", system, system),
            ("/podruntime/kubelet", system, system),
            ("/system.slice/snap.microk8s.daemon-kubelite.service", system, system),
            ("/system.slice/guard.service", system, system),
            // A name that anybody may give makes no PLC, and is no proof of the system's.
            ("/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service", ls, ls),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/systemd-x.service", ls, ls),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", ls, plc),
            ("/lxc.payload.plc1/system.slice/chronyd.service", ls, plc),
            // Containers and guests, also below a unit.
            ("/system.slice/docker-<id>.scope", ls, plc),
            ("/system.slice/plc.service/libpod-payload-<id>", ls, plc),
            ("/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:<id>", be, plc),
            ("/machine.slice/libpod-<id>.scope/container", ls, plc),
            ("/machine.slice/libpod-<id>.scope/system.slice/codesys.service", ls, plc),
            ("/lxc.payload.plc1/system.slice/codesys.service", ls, plc),
            ("/machine.slice/systemd-nspawn@plc1.service/payload", ls, plc),
            ("/machine.slice/systemd-nspawn@plc1.service", ls, plc),
            ("/machine.slice/machine-qemu\\x2d1\\x2dplc.scope/libvirt/vcpu0", ls, plc),
            // Who watches over them.
            ("/machine.slice/libpod-conmon-<id>.scope", system, system),
            ("/libpod_parent/conmon", system, system),
            ("/system.slice/crio-conmon-<id>.scope", system, system),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/podman-pause-0c1f2a3b.scope", system, system),
            ("/lxc.monitor.plc1", system, system),
            ("/machine.slice/systemd-nspawn@plc1.service/supervisor", system, system),
            ("/kubepods/burstable/pod1/crio-conmon-<id>", system, system),
            ("/kubepods/besteffort/pod1/crio-conmon-<id>", be, be),
            // Kubernetes.
            ("/kubepods/besteffort", be, plc),
            ("/kubepods/besteffort/pod1/<id>", be, plc),
            ("/kubepods/burstable/pod1/<id>", ls, plc),
            ("/kubepods/pod1/<id>", ls, plc),
            ("/kubepods", ls, plc),
        ] {
            let path = path.replace("<id>", id);
            let owner = identify(&path);
            let class = |realtime| {
                let (container, monitor) = (owner.container.as_ref(), owner.monitor);
                classify(Facts { path: &path, container, monitor, realtime })
            };
            assert_eq!((class(false), class(true)), (without, with), "{path}");
        }
    }
}
