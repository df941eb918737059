//! In which order the files of a batch are written, so that the kernel refuses none on the way from one allowed state to
//! another. Each knob's row says which order it keeps; this file knows no knob by name. Pure.
//!
//! v1 wants a child's quota within its parent's, a child's CPUs within its parent's, and the real-time run times of
//! children to sum up to no more than the parent's; both versions want burst within quota.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    file::File,
    row::Order,
    setting::Knob,
    table::KNOBS,
    value::{NO_LIMIT, Value},
    version::Version,
    weight::WeightFormula,
};
use crate::snapshot::{CgroupPath, CpuList};

/// A file that is to go from one value to another. Where both are the same it only tells how things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// The object: its path.
    pub(crate) path: String,
    /// The file.
    pub(crate) file: File,
    /// What it holds.
    pub(crate) from: Value,
    /// What it is to hold.
    pub(crate) to: Value,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Index of its move.
    pub(crate) of: usize,
    /// What to write: the move's end, or something on the way.
    pub(crate) value: Value,
}

/// The moves of one object, by file.
type Group<'a> = BTreeMap<File, (usize, &'a Move)>;

/// The writes for `moves`, in an order that is allowed throughout if beginning and end are. A limit and its period are two
/// files: whoever moves one of them, or what lies within the limit, must give both.
pub(crate) fn steps(moves: &[Move], version: Version) -> Vec<Step> {
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for (index, each) in moves.iter().enumerate() {
        groups.entry(&each.path).or_default().insert(each.file, (index, each));
    }
    let mut down: Vec<&Group<'_>> = groups.values().collect();
    down.sort_by_key(|group| group.values().next().map(|(_, each)| depth(each)));
    let mut up = down.clone();
    up.sort_by_key(|group| Reverse(group.values().next().map(|(_, each)| depth(each))));

    let mut out = Vec::new();
    for limit in knobs(|order| matches!(order, Order::GrowsWithParent)) {
        let within = knobs(|order| matches!(order, Order::Within(of) if *of == limit));
        out.extend(
            down.iter().filter(|group| grows(group, limit, version)).flat_map(|g| limits(g, limit, &within, version)),
        );
        out.extend(
            up.iter().filter(|group| !grows(group, limit, version)).flat_map(|g| limits(g, limit, &within, version)),
        );
    }
    let sums = knobs(|order| matches!(order, Order::Sum));
    let rises = |each: &Move| each.to.amount() > each.from.amount();
    out.extend(up.iter().flat_map(|group| plain(group, &sums, |each| !rises(each))));
    out.extend(down.iter().flat_map(|group| plain(group, &sums, rises)));
    for is_in in [|order: &Order| matches!(order, Order::Union), |order: &Order| matches!(order, Order::Free)] {
        let switches = knobs(|order| matches!(order, Order::Switch { around, .. } if is_in(&around.row().order)));
        out.extend(up.iter().flat_map(|group| plain(group, &switches, turns_off)));
        between(&down, &up, &knobs(is_in), version, &mut out);
        out.extend(down.iter().flat_map(|group| plain(group, &switches, |each| !turns_off(each))));
    }
    out
}

/// The knobs whose order `which` picks.
fn knobs(which: impl Fn(&Order) -> bool) -> Vec<Knob> {
    KNOBS.iter().copied().filter(|knob| which(&knob.row().order)).collect()
}

fn turns_off(each: &Move) -> bool {
    matches!(each.file.knob().row().order, Order::Switch { is_off, .. } if is_off(&each.to))
}

/// What is written between switching off and switching on.
fn between(down: &[&Group<'_>], up: &[&Group<'_>], knobs: &[Knob], version: Version, out: &mut Vec<Step>) {
    let is_list = |each: &Move| matches!(each.to, Value::List(_));
    match version {
        Version::V1 => {
            out.extend(down.iter().flat_map(|group| union(group, knobs)));
            // Where the union is what is wanted, it is done.
            out.extend(up.iter().flat_map(|group| plain(group, knobs, |e| is_list(e) && !e.to.covers(&e.from))));
        }
        Version::V2 => {
            // The empty list means all that the parent has.
            let grows = |each: &Move| each.to.covers(&each.from) || each.to == Value::List(CpuList::default());
            out.extend(down.iter().flat_map(|group| plain(group, knobs, |e| is_list(e) && grows(e))));
            out.extend(up.iter().flat_map(|group| plain(group, knobs, |e| is_list(e) && !grows(e))));
        }
    }
    out.extend(down.iter().flat_map(|group| plain(group, knobs, |each| !is_list(each))));
}

/// How far below the root.
fn depth(of: &Move) -> usize {
    CgroupPath::of(&of.path).names().count()
}

/// Moves of the given knobs in a group.
fn of<'a>(group: &'a Group<'_>, knobs: &'a [Knob]) -> impl Iterator<Item = (usize, &'a Move)> {
    group.iter().filter(|(file, _)| knobs.contains(&file.knob())).map(|(_, (index, each))| (*index, *each))
}

/// Moves of the given knobs that change something and that `which` picks, in one write each.
fn plain(group: &Group<'_>, knobs: &[Knob], which: impl Fn(&Move) -> bool) -> Vec<Step> {
    let picked = of(group, knobs).filter(|(_, each)| each.from != each.to && which(each));
    picked.map(|(of, each)| Step { of, value: each.to.clone() }).collect()
}

/// For each list that gets something new, what it has with what it gets.
fn union(group: &Group<'_>, knobs: &[Knob]) -> Vec<Step> {
    let joined = |(of, each): (usize, &Move)| {
        let (Value::List(from), Value::List(to)) = (&each.from, &each.to) else { return None };
        let all: CpuList = from.iter().chain(to.iter()).collect();
        (all != *from).then_some(Step { of, value: Value::List(all) })
    };
    of(group, knobs).filter_map(joined).collect()
}

/// A limit of a group before and after; `None` when not all of its files are known.
fn ends(group: &Group<'_>, limit: Knob, version: Version) -> Option<(Value, Value)> {
    let files: Vec<&Move> =
        limit.files(version).map(|file| group.get(&file).map(|(_, each)| *each)).collect::<Option<_>>()?;
    let value = |values: Vec<Value>| (limit.row().decode)(&values, version, WeightFormula::default());
    let from = value(files.iter().map(|each| each.from.clone()).collect())?;
    Some((from, value(files.iter().map(|each| each.to.clone()).collect())?))
}

/// Whether the object may use as much afterwards as before, or more.
fn grows(group: &Group<'_>, limit: Knob, version: Version) -> bool {
    ends(group, limit, version).is_none_or(|(from, to)| to.covers(&from))
}

/// The writes for a limit of one group and for what lies within it.
fn limits(group: &Group<'_>, limit: Knob, within: &[Knob], version: Version) -> Vec<Step> {
    let mut out = match of(group, &[limit]).collect::<Vec<_>>()[..] {
        [limit, period] => two_files(limit, period),
        _ => plain(group, &[limit], |_| true),
    };
    let within = plain(group, within, |_| true);
    let shrinks = ends(group, limit, version).is_some_and(|(from, to)| to.amount() < from.amount());
    out.splice(if shrinks { 0..0 } else { out.len()..out.len() }, within);
    out
}

/// Each write is checked against the other file's present value. Without a limit every period is allowed, so a change of
/// both goes through no limit, for the microseconds between two writes.
fn two_files(limit: (usize, &Move), period: (usize, &Move)) -> Vec<Step> {
    let step = |(of, each): (usize, &Move)| Step { of, value: each.to.clone() };
    let changes = |(_, each): (usize, &Move)| each.from != each.to;
    match (changes(limit), changes(period)) {
        (false, false) => Vec::new(),
        (true, false) => vec![step(limit)],
        (false, true) => vec![step(period)],
        (true, true) if limit.1.to == NO_LIMIT => vec![step(limit), step(period)],
        (true, true) if limit.1.from == NO_LIMIT => vec![step(period), step(limit)],
        (true, true) => vec![Step { of: limit.0, value: NO_LIMIT }, step(period), step(limit)],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::Partition;

    /// A v1 cgroup of the model.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct State {
        quota: i64,
        period: i64,
        burst: i64,
        rt: i64,
        cpus: u8,
    }

    /// A cgroup's path and its parent's index; parents come first.
    const TREE: [(&str, Option<usize>); 7] = [
        ("/a", None),
        ("/a/b", Some(0)),
        ("/a/c", Some(0)),
        ("/a/b/d", Some(1)),
        ("/a/b/e", Some(1)),
        ("/a/c/f", Some(2)),
        ("/a/b/d/g", Some(3)),
    ];

    /// The kernel's rules (kernel/sched/core.c: tg_set_cfs_bandwidth, tg_cfs_schedulable_down; kernel/sched/rt.c:
    /// tg_rt_schedulable; kernel/cgroup/cpuset-v1.c: validate_change).
    fn allowed(tree: &[State]) -> Result<(), String> {
        let mut limit = vec![None::<(i64, i64)>; tree.len()];
        for (index, state) in tree.iter().enumerate() {
            let above = TREE[index].1.and_then(|parent| limit[parent]);
            limit[index] = if state.quota < 0 { above } else { Some((state.quota, state.period)) };
            if let (Some((quota, period)), Some((q, p))) = (limit[index], above)
                && i128::from(quota) * i128::from(p) > i128::from(q) * i128::from(period)
            {
                return Err(format!("quota of {} beyond its parent's", TREE[index].0));
            }
            if state.quota >= 0 && (state.quota < 1000 || state.burst > state.quota) {
                return Err(format!("burst of {}", TREE[index].0));
            }
            let children = || (0..tree.len()).filter(|child| TREE[*child].1 == Some(index));
            if children().map(|child| tree[child].rt).sum::<i64>() > state.rt {
                return Err(format!("rt below {}", TREE[index].0));
            }
            if children().any(|child| tree[child].cpus & !state.cpus != 0) || state.cpus == 0 {
                return Err(format!("cpus below {}", TREE[index].0));
            }
        }
        Ok(())
    }

    fn list(cpus: u8) -> Value {
        Value::List((0..8).filter(|cpu| cpus & (1 << cpu) != 0).collect())
    }

    fn write(state: &mut State, file: File, value: &Value) {
        match (file, value) {
            (File::CFS_QUOTA, Value::Number(us)) => state.quota = *us,
            (File::CFS_PERIOD, Value::Number(us)) => state.period = *us,
            (File::CFS_BURST, Value::Number(us)) => state.burst = *us,
            (File::RT_RUNTIME, Value::Number(us)) => state.rt = *us,
            (File::CPUS, Value::List(cpus)) => state.cpus = cpus.iter().map(|cpu| 1 << cpu).sum(),
            _ => panic!("{file} {value:?}"),
        }
    }

    fn read(state: &State) -> [(File, Value); 5] {
        [
            (File::CFS_QUOTA, Value::Number(state.quota)),
            (File::CFS_PERIOD, Value::Number(state.period)),
            (File::CFS_BURST, Value::Number(state.burst)),
            (File::RT_RUNTIME, Value::Number(state.rt)),
            (File::CPUS, list(state.cpus)),
        ]
    }

    /// An allowed state of the tree: whatever is asked for, cut down to what is allowed.
    fn tree() -> impl Strategy<Value = Vec<State>> {
        let quota = prop_oneof![1 => Just(-1_i64), 2 => 1_000_i64..400_000];
        let period = prop_oneof![Just(10_000_i64), Just(100_000), Just(250_000)];
        let one = (quota, period, 0_i64..100_000, 0_i64..1_000, 1_u8..);
        proptest::collection::vec(one, TREE.len()).prop_map(|wishes| {
            let mut states: Vec<State> = Vec::new();
            for (index, (quota, period, burst, rt, cpus)) in wishes.into_iter().enumerate() {
                let parent = TREE[index].1;
                let mut state = State { quota, period, burst, rt, cpus };
                let mut above = parent;
                while let Some(at) = above.filter(|at| states[*at].quota < 0) {
                    above = TREE[at].1;
                }
                if let Some(parent) = above.map(|at| states[at].clone())
                    && state.quota * parent.period > parent.quota * state.period
                {
                    state.quota = parent.quota * state.period / parent.period;
                    if state.quota < 1000 {
                        state.quota = -1;
                    }
                }
                if state.quota > 0 {
                    state.burst = state.burst.min(state.quota);
                }
                if let Some(parent) = parent {
                    state.rt = state.rt.min(states[parent].rt / 2);
                    state.cpus &= states[parent].cpus;
                    if state.cpus == 0 {
                        state.cpus = states[parent].cpus;
                    }
                }
                states.push(state);
            }
            states
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn on_the_way_from_one_allowed_state_to_another_nothing_forbidden_is_written(start in tree(), wish in tree(), picked in any::<[bool; 7]>(), all in any::<bool>()) {
            let mut end = start.clone();
            for (index, state) in end.iter_mut().enumerate() {
                if all || picked[index] { *state = wish[index].clone(); }
            }
            prop_assert_eq!(allowed(&start), Ok(()));
            if allowed(&end).is_err() {
                // A part of one and a part of another is not always allowed; the whole is.
                end.clone_from(&wish);
            }
            prop_assert_eq!(allowed(&end), Ok(()));
            let moves: Vec<Move> = (0..TREE.len()).flat_map(|index| {
                read(&start[index]).into_iter().zip(read(&end[index])).map(move |((file, from), (_, to))| {
                    Move { path: TREE[index].0.to_owned(), file, from, to }
                })
            }).collect();
            let mut now = start.clone();
            let mut written = 0;
            for step in steps(&moves, Version::V1) {
                let of = &moves[step.of];
                let index = TREE.iter().position(|(path, _)| *path == of.path).unwrap();
                write(&mut now[index], of.file, &step.value);
                written += 1;
                prop_assert_eq!(allowed(&now), Ok(()), "after {} {} = {:?}", of.path, of.file, step.value);
            }
            let changed = moves.iter().filter(|each| each.from != each.to).count();
            prop_assert!(written <= 2 * changed, "{} writes for {} changes", written, changed);
            prop_assert_eq!(now, end);
        }
    }

    /// A v2 cgroup with what is switched on and off.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Switched {
        cpus: u8,
        isolated: bool,
        weight: i64,
        idle: bool,
    }

    impl Switched {
        fn read(&self) -> [(File, Value); 4] {
            let partition = if self.isolated { Partition::Isolated } else { Partition::Member };
            [
                (File::CPUS, list(self.cpus)),
                (File::PARTITION, Value::Partition(partition, true)),
                (File::WEIGHT, Value::Number(self.weight)),
                (File::IDLE, Value::Number(i64::from(self.idle))),
            ]
        }

        /// Refuses what the kernel refuses (kernel/cgroup/cpuset.c: update_prstate; kernel/sched/core.c:
        /// sched_group_set_shares, sched_group_set_idle), and changes what it changes.
        fn write(&mut self, file: File, value: &Value) -> Result<(), String> {
            match value {
                Value::List(cpus) => {
                    self.cpus = cpus.iter().map(|cpu| 1 << cpu).sum();
                }
                Value::Partition(partition, _) => self.isolated = *partition == Partition::Isolated,
                Value::Number(idle) if file == File::IDLE => {
                    self.idle = *idle == 1;
                    self.weight = if self.idle { 0 } else { 100 };
                }
                Value::Number(_) if self.idle => return Err("the weight of an idle cgroup".to_owned()),
                Value::Number(weight) => self.weight = *weight,
                Value::Bandwidth(_) => return Err(format!("{file} {value:?}")),
            }
            if self.isolated && self.cpus == 0 { Err("a partition without CPUs".to_owned()) } else { Ok(()) }
        }
    }

    fn switched() -> impl Strategy<Value = Switched> {
        (any::<u8>(), any::<bool>(), 1_i64..500, any::<bool>()).prop_map(|(cpus, isolated, weight, idle)| Switched {
            cpus: if isolated { cpus | 1 } else { cpus },
            isolated,
            weight: if idle { 0 } else { weight },
            idle,
        })
    }

    proptest! {
        #[test]
        fn what_is_switched_is_off_while_the_rest_changes(start in switched(), end in switched()) {
            let ends = start.read().into_iter().zip(end.read());
            let moves: Vec<Move> = ends
                // The weight goes along with idle: the kernel sets it.
                .filter(|((file, _), _)| !(end.idle && *file == File::WEIGHT))
                .map(|((file, from), (_, to))| Move { path: "/a".to_owned(), file, from, to })
                .collect();
            let mut now = start.clone();
            for step in steps(&moves, Version::V2) {
                let written = now.write(moves[step.of].file, &step.value);
                prop_assert_eq!(written, Ok(()), "after {} = {:?}", moves[step.of].file, step.value);
            }
            // A weight that idle has set to its default and that is wanted as it was shows no move.
            prop_assert_eq!(now, end);
        }
    }

    fn mv(path: &str, file: File, from: &str, to: &str) -> Move {
        Move { path: path.to_owned(), file, from: file.parse(from).unwrap(), to: file.parse(to).unwrap() }
    }

    fn told(moves: &[Move], version: Version) -> Vec<String> {
        let say = |step: Step| {
            format!("{}/{}={}", moves[step.of].path, moves[step.of].file, moves[step.of].file.text(&step.value))
        };
        steps(moves, version).into_iter().map(say).collect()
    }

    #[test]
    fn v2_lifts_from_the_top_and_shrinks_from_the_bottom() {
        let moves = [
            mv("/a/b", File::MAX, "10000 100000", "max 100000"),
            mv("/a", File::MAX, "20000 100000", "max 100000"),
            mv("/c", File::MAX, "max 100000", "20000 100000"),
            mv("/c/d", File::MAX, "max 100000", "20000 100000"),
            mv("/c/d", File::MAX_BURST, "30000", "0"),
        ];
        let expected = [
            "/a/cpu.max=max 100000",
            "/a/b/cpu.max=max 100000",
            "/c/d/cpu.max.burst=0",
            "/c/d/cpu.max=20000 100000",
            "/c/cpu.max=20000 100000",
        ];
        assert_eq!(told(&moves, Version::V2), expected);
    }

    #[test]
    fn burst_comes_after_a_quota_that_grows_and_partitions_around_their_cpus() {
        let moves = [
            mv("/a", File::MAX_BURST, "0", "30000"),
            mv("/a", File::MAX, "20000 100000", "40000 100000"),
            mv("/p", File::PARTITION, "member", "isolated"),
            mv("/p", File::CPUS, "0-3", "2-3"),
            mv("/q", File::PARTITION, "root", "member"),
            mv("/q", File::CPUS, "4-5", ""),
            mv("/i", File::WEIGHT, "0", "50"),
            mv("/i", File::IDLE, "1", "0"),
        ];
        let expected = [
            "/a/cpu.max=40000 100000",
            "/a/cpu.max.burst=30000",
            "/q/cpuset.cpus.partition=member",
            "/q/cpuset.cpus=\n",
            "/p/cpuset.cpus=2-3",
            "/p/cpuset.cpus.partition=isolated",
            "/i/cpu.idle=0",
            "/i/cpu.weight=50",
        ];
        assert_eq!(told(&moves, Version::V2), expected);
    }

    #[test]
    fn what_does_not_change_is_not_written() {
        let moves = [mv("/a", File::CFS_QUOTA, "-1", "-1"), mv("/a", File::CFS_PERIOD, "100000", "50000")];
        assert_eq!(told(&moves, Version::V1), ["/a/cpu.cfs_period_us=50000"]);
    }
}
