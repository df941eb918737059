//! Circles in a graph: sets of nodes that all reach each other.

use std::collections::{BTreeMap, BTreeSet};

/// The circles among nodes, each sorted. `arrows` has the targets of each node.
pub(super) fn circles<N: Ord + Clone>(arrows: &BTreeMap<N, BTreeSet<N>>) -> Vec<Vec<N>> {
    let reached: BTreeMap<&N, BTreeSet<&N>> = arrows.keys().map(|node| (node, reach(node, arrows))).collect();
    let mut done = BTreeSet::new();
    let mut circles = Vec::new();
    for (&node, from_node) in &reached {
        if done.contains(node) || !from_node.contains(node) {
            continue;
        }
        let back = |other: &&&N| reached.get(**other).is_some_and(|reached| reached.contains(node));
        let circle: Vec<N> = from_node.iter().filter(back).map(|&other| other.clone()).collect();
        done.extend(circle.iter().cloned());
        circles.push(circle);
    }
    circles
}

/// All nodes that arrows lead to from `node`, itself only if they lead back.
fn reach<'a, N: Ord>(node: &N, arrows: &'a BTreeMap<N, BTreeSet<N>>) -> BTreeSet<&'a N> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&N> = arrows.get(node).into_iter().flatten().collect();
    while let Some(node) = next.pop() {
        if reached.insert(node) {
            next.extend(arrows.get(node).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(arrows: &[(u8, &[u8])]) -> Vec<Vec<u8>> {
        circles(&arrows.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect())
    }

    #[test]
    fn arrows_that_lead_back_are_a_circle_and_others_are_none() {
        assert_eq!(found(&[(1, &[2, 3]), (2, &[3]), (3, &[])]), Vec::<Vec<u8>>::new());
        assert_eq!(found(&[(1, &[2]), (2, &[3]), (3, &[2, 4]), (4, &[])]), [[2, 3]]);
        assert_eq!(found(&[(1, &[2]), (2, &[1]), (3, &[4]), (4, &[5]), (5, &[3])]), [vec![1, 2], vec![3, 4, 5]]);
    }
}
