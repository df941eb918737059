//! Sums of inversions: repeated ones merged.

use super::parts::Inversion;

impl Inversion {
    /// Adds one to those that are there.
    pub fn merge(all: &mut Vec<Self>, one: Self) {
        let same = |other: &&mut Self| {
            (&other.comm, &other.cgroup, &other.by_comm, &other.by_cgroup)
                == (&one.comm, &one.cgroup, &one.by_comm, &one.by_cgroup)
        };
        let Some(mine) = all.iter_mut().find(same) else {
            all.push(one);
            return;
        };
        mine.count = mine.count.saturating_add(one.count);
        mine.lost_ns = mine.lost_ns.saturating_add(one.lost_ns);
        mine.worst_ns = mine.worst_ns.max(one.worst_ns);
        mine.class = one.class.or(mine.class);
        mine.by_class = one.by_class.or(mine.by_class);
        for (cause, ns) in one.causes {
            let sum = mine.causes.entry(cause).or_insert(0);
            *sum = sum.saturating_add(ns);
        }
    }

    /// The largest loss first.
    pub fn sort(all: &mut [Self]) {
        all.sort_by_key(|inversion| std::cmp::Reverse((inversion.lost_ns, inversion.worst_ns)));
    }
}
