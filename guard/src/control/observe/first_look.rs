//! Who is on the node, before anything is loaded: files of cgroups and of /proc tell which cgroups have real-time threads
//! and quotas. What has to be protected need not wait for the kernel side.

use std::{collections::HashSet, path::Path};

use super::{PolicySide, roster::Roster, threads::WatchedThreads};
use crate::{
    cgroup::Hierarchy,
    control::{affinity, error::ControlError, selection::Selected, watch::Watch},
    inventory::{self, Topology},
    snapshot::{Cgroup, Class},
};

/// A node that was looked at, and what the user wants to see of it.
pub(in crate::control) struct FirstLook {
    pub(super) topology: Topology,
    pub(super) roster: Roster,
    pub(super) policy: Option<PolicySide>,
    pub(super) selected: Selected,
    pub(super) threads: WatchedThreads,
}

impl FirstLook {
    /// Looks at the whole node.
    ///
    /// # Errors
    /// When a pattern or a thread of the selection matches nothing, or the node's files cannot be read.
    pub(in crate::control) fn take(watch: &Watch) -> Result<Self, ControlError> {
        let root = Path::new("/");
        let topology = Topology::read(root)?;
        affinity::leave_reserved_cpus(&topology);
        let mut roster = Roster::read(root)?;
        let mut policy = watch.policy.as_deref().map(PolicySide::new).transpose()?;
        if let Some(policy) = &mut policy {
            policy.assignments.refresh(&mut roster.inventory);
        }
        let selected = Selected::new(&watch.selection, &roster.inventory)?;
        let threads = WatchedThreads::named(&watch.selection.tids, &roster.inventory)?;
        Ok(Self { topology, roster, policy, selected, threads })
    }

    /// The hierarchy that has the cpu controller.
    pub(in crate::control) fn hierarchy(&self) -> &Hierarchy {
        self.roster.hierarchy()
    }

    /// The PLC cgroups and everything that may hold them back. None where another agent manages the cgroups: the first
    /// decision says so.
    pub(in crate::control) fn plc(&mut self) -> Vec<Cgroup> {
        let Some(policy) = &mut self.policy else { return Vec::new() };
        if inventory::other_agents(Path::new("/")).is_some() {
            return Vec::new();
        }
        let inventory = &self.roster.inventory;
        let plc: HashSet<u64> = inventory.cgroups().filter(|c| c.class == Class::Plc).map(|c| c.id).collect();
        policy.facts.discover(&plc, inventory, &policy.assignments)
    }
}
