//! Which class a cgroup has, as a pure function over facts. PLC is found by what the threads are; the others keep
//! Koordinator's meaning as far as a path can tell. LSE and LSR cannot be found this way: they are named in the
//! configuration.

use crate::snapshot::{Class, Container};

/// What the class of a cgroup follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its path.
    pub path: &'a str,
    /// What it belongs to.
    pub container: Option<&'a Container>,
    /// Whether it holds threads of user space with policy FIFO, RR or DEADLINE.
    pub realtime: bool,
}

/// The class of a cgroup. The first rule that fits counts:
///
/// 1. The root is SYSTEM: kernel threads live there, the kernel's real-time ones too.
/// 2. Units of the system (`init.scope`, all in `system.slice` that is no container) and the monitors that podman and
///    CRI-O start beside a container are SYSTEM, real-time threads or not: rtkit, watchdogs and time servers have such
///    threads and do not run the process. A PLC runtime that is installed as a service there is named in the
///    configuration.
/// 3. Real-time threads make it PLC, whatever its pod's QoS class: in a container, a session, or a cgroup of its own.
/// 4. A best-effort pod, or the parent of them all, is BE.
/// 5. Everything else is LS.
#[must_use]
pub fn classify(facts: Facts<'_>) -> Class {
    if facts.path == "/" || is_system(facts) {
        Class::System
    } else if facts.realtime {
        Class::Plc
    } else if facts.container.and_then(|container| container.qos.as_deref()) == Some("besteffort") {
        Class::Be
    } else {
        Class::Ls
    }
}

fn is_system(facts: Facts<'_>) -> bool {
    let Some(unit) = facts.container.filter(|container| container.runtime == "systemd") else {
        return false;
    };
    let first = facts.path.split('/').nth(1).unwrap_or_default();
    matches!(first, "system.slice" | "init.scope")
        || ["libpod-conmon-", "crio-conmon-"].iter().any(|prefix| unit.id.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::identify::identify;

    #[test]
    fn the_rules_hold_for_every_kind_of_cgroup() {
        let id = "575db3970d26d3f17196e44becb0767529f425def48fe11641702c2457bd2ae6";
        // path, class without and with real-time threads
        for (path, without, with) in [
            ("/", Class::System, Class::System),
            ("/init.scope", Class::System, Class::System),
            ("/system.slice", Class::System, Class::System),
            ("/system.slice/rtkit-daemon.service", Class::System, Class::System),
            ("/system.slice/docker-<id>.scope", Class::Ls, Class::Plc),
            ("/machine.slice/libpod-conmon-<id>.scope", Class::System, Class::System),
            ("/machine.slice/libpod-<id>.scope/container", Class::Ls, Class::Plc),
            ("/machine.slice/libpod-<id>.scope/system.slice/codesys.service", Class::Ls, Class::Plc),
            ("/plc", Class::Ls, Class::Plc),
            ("/user.slice/user-0.slice/session-1.scope", Class::Ls, Class::Plc),
            ("/kubepods/besteffort", Class::Be, Class::Plc),
            ("/kubepods/besteffort/pod1/<id>", Class::Be, Class::Plc),
            ("/kubepods/burstable/pod1/<id>", Class::Ls, Class::Plc),
            ("/kubepods/pod1/<id>", Class::Ls, Class::Plc),
            ("/kubepods", Class::Ls, Class::Plc),
        ] {
            let path = path.replace("<id>", id);
            let container = identify(&path);
            let class = |realtime| classify(Facts { path: &path, container: container.as_ref(), realtime });
            assert_eq!((class(false), class(true)), (without, with), "{path}");
        }
    }
}
