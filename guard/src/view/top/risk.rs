//! What endangers real-time work in a Snapshot, in one sentence: the worst that was seen.

use super::super::figures::{self, printable};
use super::history::{budget_use, name};
use super::theme::Level;
use crate::snapshot::{Class, Snapshot};

/// The worst, and how bad it is. `limit_ns` is when a wake-up is late.
pub(in crate::view) fn risk(snapshot: &Snapshot, limit_ns: u64) -> (Level, String) {
    harm(snapshot, limit_ns)
        .map(|text| (Level::Bad, text))
        .or_else(|| danger(snapshot).map(|text| (Level::Warn, text)))
        .unwrap_or_else(|| (Level::Fine, "no harm seen in this interval".to_owned()))
}

/// Harm that was done to real-time threads.
fn harm(snapshot: &Snapshot, limit_ns: u64) -> Option<String> {
    let plc = || snapshot.cgroups.iter().filter(|c| c.class == Class::Plc);
    if let Some(cgroup) = plc().find(|c| c.throttle.by.is_some()) {
        let by = cgroup.throttle.by.as_deref().unwrap_or_default();
        let by = if by == cgroup.path { "its own quota".to_owned() } else { format!("the quota of {}", printable(by)) };
        return Some(format!("{} is held back by {by}", name(cgroup)));
    }
    let late = snapshot.breaches.iter().filter(|b| b.latency_ns >= limit_ns).max_by_key(|b| b.latency_ns);
    if let Some(breach) = late {
        return Some(format!(
            "{} (tid {}) was {} late, cause {}",
            printable(&breach.comm),
            breach.tid,
            figures::time(breach.latency_ns),
            printable(breach.cause.as_str())
        ));
    }
    if let Some(cgroup) = snapshot.cgroups.iter().find(|c| budget_use(c).is_some_and(|used| used > 1.0)) {
        return Some(format!("{} is over its budget", name(cgroup)));
    }
    let stolen = snapshot.cpus.iter().find(|c| c.rt_throttle.count > 0 || c.fair_server.count > 0)?;
    let by = if stolen.rt_throttle.count > 0 { "RT throttling" } else { "the fair server" };
    Some(format!("CPU {} was taken from real-time threads by {by}", stolen.cpu))
}

/// What may do harm.
fn danger(snapshot: &Snapshot) -> Option<String> {
    if let Some(why) = &snapshot.node.hands_off {
        return Some(format!("guard must not write here: {}", printable(why)));
    }
    if !snapshot.node.realtime {
        return Some("this kernel is not PREEMPT_RT".to_owned());
    }
    let lost = &snapshot.overhead.lost;
    lost.any().then(|| "not everything was seen: see the node view".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn the_worst_is_told_first() {
        let mut snapshot = samples::full();
        let told = |snapshot: &Snapshot| risk(snapshot, 1_000_000);
        assert_eq!(told(&snapshot), (Level::Bad, "plc-1 [podman] is held back by the quota of /machine".into()));
        snapshot.cgroups[0].throttle.by = None;
        assert_eq!(told(&snapshot).1, "cycle (tid 1234) was 1.9 ms late, cause unknown");
        snapshot.breaches.clear();
        assert_eq!(told(&snapshot).1, "CPU 1 was taken from real-time threads by RT throttling");
        snapshot.cpus.clear();
        assert_eq!(told(&snapshot), (Level::Warn, "not everything was seen: see the node view".into()));
        snapshot.node.realtime = false;
        assert_eq!(told(&snapshot).1, "this kernel is not PREEMPT_RT");
        snapshot.node.realtime = true;
        snapshot.overhead.lost = crate::snapshot::Lost::default();
        assert_eq!(told(&snapshot).0, Level::Fine);
    }
}
