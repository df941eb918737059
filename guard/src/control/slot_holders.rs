//! Which cgroups hold a slot of the kernel side, and when it can be taken from those that have gone. Knows ids only.

use std::collections::HashSet;

/// Cgroup ids on their way from the first count to the release of their slot.
#[derive(Debug, Default)]
pub(super) struct SlotHolders {
    /// Those that may hold a slot: present at the last refresh, or counted since. A cgroup that came and went between
    /// two is known by its counts only.
    holders: HashSet<u64>,
    /// Those that had gone at the last refresh: the next sample takes their last counts.
    gone: Vec<u64>,
}

impl SlotHolders {
    /// Takes in a sample by the ids in it, and returns the cgroups whose slots can be released now: those that had gone
    /// before it.
    pub(super) fn counted(&mut self, ids: impl Iterator<Item = u64>) -> Vec<u64> {
        // 0 is "other", which keeps its slot.
        self.holders.extend(ids.filter(|id| *id != 0));
        let due = std::mem::take(&mut self.gone);
        for id in &due {
            self.holders.remove(id);
        }
        due
    }

    /// Takes in the cgroups that are there now, and returns those that have gone since they were seen or counted.
    pub(super) fn refresh(&mut self, present: HashSet<u64>) -> &[u64] {
        let left = self.holders.difference(&present).copied();
        // Two refreshes may follow each other without a sample between them.
        self.gone.extend(left);
        self.holders = present;
        &self.gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(slots: &mut SlotHolders, ids: &[u64]) -> Vec<u64> {
        let mut due = slots.counted(ids.iter().copied());
        due.sort_unstable();
        due
    }

    fn look(slots: &mut SlotHolders, here: &[u64]) {
        slots.refresh(here.iter().copied().collect());
    }

    #[test]
    fn a_cgroup_that_lived_between_two_looks_is_released_after_one_more_sample() {
        let mut slots = SlotHolders::default();
        look(&mut slots, &[1]);
        assert!(counted(&mut slots, &[0, 1, 5]).is_empty());
        look(&mut slots, &[1]);
        assert_eq!(counted(&mut slots, &[0, 1]), [5]);
        look(&mut slots, &[1]);
        assert!(counted(&mut slots, &[0, 1]).is_empty());
    }

    #[test]
    fn a_cgroup_that_was_there_is_released_although_it_never_counted() {
        let mut slots = SlotHolders::default();
        look(&mut slots, &[1, 2]);
        look(&mut slots, &[1]);
        assert_eq!(counted(&mut slots, &[]), [2]);
    }

    #[test]
    fn last_counts_do_not_release_a_slot_twice() {
        let mut slots = SlotHolders::default();
        look(&mut slots, &[1, 5]);
        look(&mut slots, &[1]);
        look(&mut slots, &[1]);
        assert_eq!(counted(&mut slots, &[5]), [5]);
        look(&mut slots, &[1]);
        assert!(counted(&mut slots, &[]).is_empty());
    }

    #[test]
    fn a_new_cgroup_that_is_there_keeps_its_slot() {
        let mut slots = SlotHolders::default();
        look(&mut slots, &[1]);
        counted(&mut slots, &[7]);
        look(&mut slots, &[1, 7]);
        assert!(counted(&mut slots, &[7]).is_empty());
    }

    #[test]
    fn a_thousand_short_lives_leave_no_slot_behind() {
        let mut slots = SlotHolders::default();
        look(&mut slots, &[1]);
        let mut released = 0;
        for id in 100..1_100 {
            released += counted(&mut slots, &[0, 1, id]).len();
            look(&mut slots, &[1]);
        }
        released += counted(&mut slots, &[]).len();
        assert_eq!((released, slots.holders.len()), (1_000, 1));
    }
}
