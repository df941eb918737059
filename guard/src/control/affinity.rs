//! Keeps guard's own thread off the CPUs that are reserved for real-time work.

use std::path::Path;

use crate::inventory::Topology;
use crate::sched;
use crate::snapshot::CpuList;

/// Keeps this thread, and those that it starts from then on, off the CPUs that are reserved for real-time work.
pub fn keep_off_reserved_cpus() {
    match Topology::read(Path::new("/")) {
        Ok(topology) => leave_reserved_cpus(&topology),
        // Whoever observes needs it too, and says what is wrong with it.
        Err(error) => tracing::debug!("{error}"),
    }
}

/// Takes the isolated (isolcpus=) and tickless (nohz_full=) CPUs out of this thread's affinity. Nothing changes where
/// there are none, or where no other CPU would be left.
pub(super) fn leave_reserved_cpus(topology: &Topology) {
    let allowed = match sched::allowed() {
        Ok(allowed) => allowed,
        Err(error) => return tracing::warn!("{error}; guard stays on the CPUs it was started on"),
    };
    let Some(wanted) = housekeeping(&allowed, topology) else { return };
    match sched::run_on(&wanted) {
        Ok(()) => tracing::info!("guard runs on CPUs {wanted}"),
        Err(error) => tracing::warn!("{error}; guard stays on CPUs {allowed}"),
    }
}

/// The CPUs of `allowed` that are not reserved; `None` when that changes nothing or leaves nothing.
fn housekeeping(allowed: &CpuList, topology: &Topology) -> Option<CpuList> {
    let wanted: CpuList = allowed.iter().filter(|cpu| !topology.is_isolated(*cpu)).collect();
    (!wanted.is_empty() && wanted != *allowed).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    #[test]
    fn isolated_and_tickless_cpus_are_left() {
        for (allowed, isolated, nohz_full, wanted) in [
            ("0-3", "2-3", None, Some("0-1")),
            ("0-3", "3", Some("2"), Some("0-1")),
            ("0-3", "", Some("1-3"), Some("0")),
            ("0-3", "", None, None),
            ("0-3", "8", Some(""), None),
            ("2-3", "2-3", None, None),
        ] {
            let topology = Topology { isolated: list(isolated), nohz_full: nohz_full.map(list), ..Topology::default() };
            assert_eq!(housekeeping(&list(allowed), &topology), wanted.map(list), "{allowed} {isolated} {nohz_full:?}");
        }
    }
}
