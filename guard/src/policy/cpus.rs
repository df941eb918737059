//! Which CPUs of a machine to take: spread out for best-effort work, close together for those that get their own.

use std::collections::{BTreeMap, BTreeSet};

use crate::snapshot::{CpuList, CpuPlace};

/// A CPU whose place is not known is a core of its own on node 0.
fn place(cpu: u32, places: &BTreeMap<u32, CpuPlace>) -> CpuPlace {
    places.get(&cpu).copied().unwrap_or(CpuPlace { node: 0, package: 0, core: cpu })
}

/// `n` of `cpus`, or all where there are fewer: in turns from each NUMA node and package, the largest first; whole
/// cores while more than one CPU is wanted, then single ones. The lowest numbers first. This is koordlet's
/// calculateBESuppressCPUSetPolicy, except that it returns nothing when there are fewer.
pub(super) fn scatter(n: usize, cpus: &[u32], places: &BTreeMap<u32, CpuPlace>) -> Vec<u32> {
    let mut buckets: BTreeMap<(u32, u32), Vec<(u32, u32)>> = BTreeMap::new();
    for cpu in cpus {
        let place = place(*cpu, places);
        buckets.entry((place.node, place.package)).or_default().push((place.core, *cpu));
    }
    let mut buckets: Vec<Vec<(u32, u32)>> = buckets.into_values().collect();
    buckets.iter_mut().for_each(|bucket| bucket.sort_unstable());
    buckets.sort_by_key(|bucket| (std::cmp::Reverse(bucket.len()), bucket.iter().map(|(_, cpu)| *cpu).min()));
    let mut taken = Vec::new();
    let mut turn = 0;
    let mut dry = 0;
    while n.saturating_sub(taken.len()) > 1 && dry < buckets.len() {
        let at = turn % buckets.len();
        match buckets[at].windows(2).position(|pair| pair[0].0 == pair[1].0) {
            Some(first) => {
                taken.extend(buckets[at].drain(first..first + 2).map(|(_, cpu)| cpu));
                dry = 0;
            }
            None => dry += 1,
        }
        turn += 1;
    }
    while taken.len() < n && buckets.iter().any(|bucket| !bucket.is_empty()) {
        let at = turn % buckets.len();
        if !buckets[at].is_empty() {
            taken.push(buckets[at].remove(0).1);
        }
        turn += 1;
    }
    taken
}

/// What a cgroup that gets CPUs of its own asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// How many CPUs.
    pub count: usize,
    /// Whether isolated CPUs are wanted rather than others, or others rather than isolated ones.
    pub isolated: bool,
    /// Whether to take whole cores, even if that is more.
    pub whole_cores: bool,
}

/// The free CPUs of a core; the better ones to take come first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Core {
    /// Whether any of them is isolated where that is not asked for, or the other way round.
    unwanted: bool,
    /// Whether the core has others that are not free.
    partial: bool,
    cpus: Vec<u32>,
}

/// CPUs for `ask` out of `free`, close together: from one NUMA node where one has enough, the one that is filled best;
/// whole cores before single hardware threads; isolated CPUs first or last as asked. `None` when there are too few.
pub(super) fn gather(
    ask: Ask,
    free: &CpuList,
    online: &CpuList,
    isolated: &CpuList,
    places: &BTreeMap<u32, CpuPlace>,
) -> Option<CpuList> {
    if ask.count == 0 || free.len() < ask.count {
        return None;
    }
    let unwanted = |cpu: u32| isolated.contains(cpu) != ask.isolated;
    // Cores that are free as a whole can be taken as a whole.
    let mut cores: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
    for cpu in free.iter() {
        let place = place(cpu, places);
        cores.entry((place.node, place.core)).or_default().push(cpu);
    }
    let whole =
        |core: u32, cpus: &[u32]| cpus.len() == online.iter().filter(|cpu| place(*cpu, places).core == core).count();
    let mut by_node: BTreeMap<u32, Vec<Core>> = BTreeMap::new();
    for ((node, core), cpus) in cores {
        let unwanted = cpus.iter().any(|cpu| unwanted(*cpu));
        let partial = !whole(core, &cpus);
        by_node.entry(node).or_default().push(Core { unwanted, partial, cpus });
    }
    let has = |cores: &[Core]| cores.iter().map(|core| core.cpus.len()).sum::<usize>();
    let wanted = |cores: &[Core]| {
        let wanted = cores.iter().filter(|core| !core.unwanted);
        wanted.map(|core| core.cpus.len()).sum::<usize>().min(ask.count)
    };
    let mut nodes: Vec<(u32, Vec<Core>)> = by_node.into_iter().collect();
    // One that has enough, with the most of what is wanted, and the least left over.
    nodes.sort_by_key(|(node, cores)| {
        (has(cores) < ask.count, std::cmp::Reverse(wanted(cores)), has(cores).abs_diff(ask.count), *node)
    });
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    for (_, mut cores) in nodes {
        cores.sort();
        for Core { cpus, .. } in cores {
            let missing = ask.count.saturating_sub(taken.len());
            let take = if missing == 0 {
                0
            } else if ask.whole_cores {
                cpus.len()
            } else {
                missing.min(cpus.len())
            };
            taken.extend(cpus.into_iter().take(take));
        }
    }
    Some(taken.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    /// Cores of `threads` hardware threads that are numbered one after the other, `cores` of them per node.
    fn machine(nodes: u32, cores: u32, threads: u32) -> BTreeMap<u32, CpuPlace> {
        (0..nodes * cores * threads)
            .map(|cpu| {
                let node = cpu / (cores * threads);
                (cpu, CpuPlace { node, package: node, core: cpu / threads * threads })
            })
            .collect()
    }

    #[test]
    fn best_effort_work_gets_pairs_in_turns_from_each_node() {
        let places = machine(2, 2, 2);
        for (n, from, taken) in [
            (0, "0-7", vec![]),
            (1, "0-7", vec![0]),
            (2, "0-7", vec![0, 1]),
            (3, "0-7", vec![0, 1, 4]),
            (4, "0-7", vec![0, 1, 4, 5]),
            (5, "0-7", vec![0, 1, 4, 5, 2]),
            (8, "0-7", vec![0, 1, 4, 5, 2, 3, 6, 7]),
            // The larger node first.
            (2, "0,4-7", vec![4, 5]),
            // No core is whole.
            (3, "0,2,4,6", vec![0, 4, 2]),
            (9, "0-1", vec![0, 1]),
            (3, "", vec![]),
        ] {
            let from: Vec<u32> = list(from).iter().collect();
            assert_eq!(scatter(n, &from, &places), taken, "{n} of {from:?}");
        }
    }

    #[test]
    fn own_cpus_come_from_one_node_and_whole_cores() {
        let places = machine(2, 4, 2);
        for (name, count, isolated, free, isolated_cpus, taken) in [
            ("a whole core", 1, false, "0-15", "", Some("0-1")),
            ("two cores", 4, false, "0-15", "", Some("0-3")),
            ("odd counts take the core", 3, false, "0-15", "", Some("0-3")),
            ("the node that has enough", 4, false, "6-15", "", Some("8-11")),
            ("the node that is filled best", 2, false, "0-7,12-15", "", Some("12-13")),
            ("whole cores first", 2, false, "1,2-3,4", "", Some("2-3")),
            ("over both nodes where none has enough", 10, false, "0-15", "", Some("0-9")),
            ("too few", 5, false, "0-3", "", None),
            ("none asked for", 0, false, "0-3", "", None),
            ("isolated ones for a PLC", 2, true, "0-15", "14-15", Some("14-15")),
            ("isolated ones spared", 2, false, "0-15", "0-7", Some("8-9")),
        ] {
            let ask = Ask { count, isolated, whole_cores: true };
            let got = gather(ask, &list(free), &list("0-15"), &list(isolated_cpus), &places);
            assert_eq!(got, taken.map(list), "{name}");
        }
        let ask = Ask { count: 1, isolated: false, whole_cores: false };
        assert_eq!(gather(ask, &list("0-3"), &list("0-3"), &list(""), &places), Some(list("0")));
    }
}
