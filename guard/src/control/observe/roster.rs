//! Who is on the node, and when to look again.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use guard_common::maps::CgroupKind;

use crate::cgroup::Hierarchy;
use crate::control::error::ControlError;
use crate::control::slot_holders::SlotHolders;
use crate::inventory::{self, CgroupInfo, Inventory};
use crate::kernel::sample::CgroupSample;
use crate::snapshot::Node;

/// Least time between two refreshes of the inventory at samples; just under the sampling interval.
const REFRESH_EVERY: Duration = Duration::from_millis(900);
/// Time after which all threads are scanned again, to see which cgroups are PLC no more.
const SCAN_EVERY: Duration = Duration::from_secs(60);
/// The same where policies act on it; but not sooner than after this many times what the last scan took.
const SCAN_EVERY_FOR_POLICY: (Duration, u32) = (Duration::from_secs(5), 1_000);

/// The machine and its cgroups, with the slots that the kernel side has for them.
pub(super) struct Roster {
    pub(super) node: Node,
    pub(super) inventory: Inventory,
    slots: SlotHolders,
    /// Cgroups that went in this window, which may be longer than the inventory remembers them.
    departed: HashMap<u64, CgroupInfo>,
    /// Cgroups in which real-time threads were counted and that were not known then.
    unknown_realtime: HashSet<u64>,
    refreshed_at: Instant,
    scanned_at: Instant,
    scan_took: Duration,
}

impl Roster {
    /// Looks at the whole node.
    pub(super) fn read(root: &Path) -> Result<Self, ControlError> {
        let hierarchy = Hierarchy::detect(root)?;
        let node = inventory::node(root, hierarchy.layout())?;
        let mut inventory = Inventory::new(root, hierarchy, Vec::new());
        let scanned_at = Instant::now();
        inventory.scan_threads()?;
        let scan_took = scanned_at.elapsed();
        let mut slots = SlotHolders::default();
        slots.refresh(inventory.cgroups().map(|c| c.id).collect());
        Ok(Self {
            node,
            inventory,
            slots,
            departed: HashMap::new(),
            unknown_realtime: HashSet::new(),
            refreshed_at: scanned_at,
            scanned_at,
            scan_took,
        })
    }

    pub(super) fn hierarchy(&self) -> &Hierarchy {
        self.inventory.hierarchy()
    }

    /// A cgroup that is there, or went in this window.
    pub(super) fn cgroup(&self, id: u64) -> Option<&CgroupInfo> {
        self.inventory.cgroup_by_id(id).or_else(|| self.departed.get(&id))
    }

    /// Forgets the cgroups that went: a new window begins.
    pub(super) fn end_window(&mut self) {
        self.departed.clear();
    }

    /// Marks the cgroups in which real-time threads were counted. Returns those that hold a slot and are gone.
    pub(super) fn counted(&mut self, cgroups: &[CgroupSample]) -> Vec<u64> {
        for cgroup in cgroups.iter().filter(|c| !c.hists[CgroupKind::WakeRt].is_empty()) {
            self.inventory.mark_realtime(cgroup.id);
            if self.inventory.cgroup_by_id(cgroup.id).is_none() {
                self.unknown_realtime.insert(cgroup.id);
            }
        }
        self.slots.counted(cgroups.iter().map(|c| c.id))
    }

    /// Marks cgroups that turned out to have real-time threads. Returns whether some were not known yet, and all were looked at.
    pub(super) fn discover(&mut self, ids: &HashSet<u64>) -> bool {
        let refreshes = ids.iter().any(|id| self.inventory.cgroup_by_id(*id).is_none());
        if refreshes && let Err(error) = self.inventory.refresh() {
            tracing::warn!("{error}");
        }
        ids.iter().for_each(|id| self.inventory.mark_realtime(*id));
        refreshes
    }

    /// Whether a sample is to refresh, too: where samples are more frequent, not each of them does.
    pub(super) fn is_stale(&self) -> bool {
        self.refreshed_at.elapsed() >= REFRESH_EVERY
    }

    /// Who is on the node now. What cannot be read leaves the node as it was known; it is tried again next time. Returns
    /// whether all threads were scanned.
    pub(super) fn refresh(&mut self, for_policy: bool) -> bool {
        let now = Instant::now();
        self.refreshed_at = now;
        let scan = now.duration_since(self.scanned_at) >= self.scan_every(for_policy);
        let refreshed = if scan { self.inventory.scan_threads() } else { self.inventory.refresh() };
        if scan {
            (self.scanned_at, self.scan_took) = (now, now.elapsed());
        }
        match refreshed {
            Ok(()) => {
                for id in std::mem::take(&mut self.unknown_realtime) {
                    self.inventory.mark_realtime(id);
                }
                self.find_gone();
                scan
            }
            // Then nobody knows which of the cgroups that were counted are still there.
            Err(error) => {
                tracing::warn!("{error}");
                false
            }
        }
    }

    /// Reads again what seldom changes of the machine.
    pub(super) fn reread_node(&mut self) {
        match inventory::node(Path::new("/"), self.node.cgroup) {
            Ok(node) => self.node = node,
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// How long after the last scan of all threads the next one is due.
    fn scan_every(&self, for_policy: bool) -> Duration {
        let (least, times) = SCAN_EVERY_FOR_POLICY;
        if for_policy { (self.scan_took * times).clamp(least, SCAN_EVERY) } else { SCAN_EVERY }
    }

    fn find_gone(&mut self) {
        for id in self.slots.refresh(self.inventory.cgroups().map(|c| c.id).collect()) {
            if let Some(info) = self.inventory.cgroup_by_id(*id) {
                self.departed.insert(*id, info.clone());
            }
        }
    }
}
