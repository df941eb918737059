//! Values that tell who wrote them: what a scene begins with, guard's, and somebody else's. Every knob of guard's table
//! takes those that have the shape of its own. Numbers end in 3 at the beginning, in 0 when they are guard's and in 7 when
//! they are the other's. No knob is known here by name.
//!
//! The kernel takes any mixture of beginnings and of the other's values: a child's lie within its parent's, those of two
//! children sum up to less than their parent's, and numbers are smaller than quotas, for a burst lies within its quota.

use std::path::PathBuf;

use guard::{
    cgroup::Hierarchy,
    executor::What,
    knob::{File, KNOBS, Knob, Setting, SitsOn, Value, Version, WeightFormula},
    random::Random,
    snapshot::{Bandwidth, CpuList, Partition},
};

/// The directory in which a knob of a cgroup has its files; for one that sits on processes, that of a process.
#[must_use]
pub fn dir(hierarchy: &Hierarchy, knob: Knob, path: &str, process: Option<u32>) -> Option<PathBuf> {
    let dir = match knob.sits_on() {
        SitsOn::Cgroup { controller } => hierarchy.dir_of(controller, path)?.ok()?,
        SitsOn::Processes => format!("/proc/{}", process?).into(),
    };
    knob.files(hierarchy.version()).any(|file| dir.join(file.name()).exists()).then_some(dir)
}

/// The knobs that one of these cgroups, or a process in it, has on this node.
#[must_use]
pub fn knobs(hierarchy: &Hierarchy, paths: &[&str]) -> Vec<Knob> {
    let is_there =
        |knob: &Knob| paths.iter().any(|path| dir(hierarchy, *knob, path, Some(std::process::id())).is_some());
    KNOBS.iter().copied().filter(is_there).collect()
}

/// What guard is to do with a knob.
#[must_use]
pub fn of_guard(knob: Knob, random: &mut Random) -> What {
    if random.below(10) < 4 {
        return What::Release(knob);
    }
    let quota_us = Some(1_000 * (1 + random.below(100)));
    let period_us = if random.below(3) == 0 { 50_000 } else { 100_000 };
    let no_limit = [Value::Bandwidth(Bandwidth::UNLIMITED), Value::Number(-1)];
    if random.below(4) == 0
        && let Some(setting) = first(knob, no_limit)
    {
        return What::Lift(setting);
    }
    let partition = [Partition::Root, Partition::Isolated][random.index(2)];
    let values = [
        Value::Bandwidth(Bandwidth { quota_us, period_us }),
        number(100, 100, 9, random),
        Value::Number(1),
        Value::List([0].into_iter().collect()),
        Value::Partition(partition, true),
    ];
    first(knob, values).map_or(What::Release(knob), What::Set)
}

/// What the files of a knob hold at the beginning, at the top of a scene or below it. `all` is what a list must not be
/// without on v1.
#[must_use]
pub fn of_beginning(knob: Knob, version: Version, is_top: bool, all: &CpuList) -> Vec<(File, Value)> {
    let (quota_us, own) = if is_top { (80_503, 503) } else { (40_503, 103) };
    let values = [
        Value::Bandwidth(Bandwidth { quota_us: Some(quota_us), period_us: 100_000 }),
        Value::Number(own),
        Value::Number(0),
        Value::List(if version == Version::V1 { all.clone() } else { CpuList::default() }),
        Value::Partition(Partition::Member, true),
    ];
    files(knob, version, values)
}

/// What somebody else may write to the files of a knob; nothing where guard's values could not be told from it.
#[must_use]
pub fn of_other(knob: Knob, version: Version, is_top: bool, random: &mut Random) -> Vec<(File, Value)> {
    let (from_us, from, count) = if is_top { (50_007, 507, 50) } else { (10_007, 107, 15) };
    let quota_us = Some(from_us + 10 * random.below(3_000));
    let values = [Value::Bandwidth(Bandwidth { quota_us, period_us: 100_000 }), number(from, 10, count, random)];
    // On v1 guard itself writes the union of old and new on the way, which is what the scene began with.
    let list = (version == Version::V2).then(|| Value::List([1].into_iter().collect()));
    files(knob, version, values.into_iter().chain(list))
}

/// `from`, or one of the `count` - 1 numbers after it that are `step` apart.
fn number(from: i64, step: i64, count: u32, random: &mut Random) -> Value {
    Value::Number(from + step * i64::try_from(random.below(count.into())).unwrap_or_default())
}

/// A knob's setting with the first of these values that has the shape of its own.
fn first(knob: Knob, values: impl IntoIterator<Item = Value>) -> Option<Setting> {
    values.into_iter().find_map(|value| knob.setting(&value).filter(|setting| setting.value() == value))
}

/// The same, as its files hold it. A single file holds the value as it is: shares that become a weight would be others'.
fn files(knob: Knob, version: Version, values: impl IntoIterator<Item = Value>) -> Vec<(File, Value)> {
    let Some(setting) = first(knob, values) else { return Vec::new() };
    match knob.files(version).collect::<Vec<_>>()[..] {
        [file] => vec![(file, setting.value())],
        _ => setting.values(version, WeightFormula::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knob_has_values_that_tell_who_wrote_them() {
        let mut random = Random::new(1);
        for (knob, version) in KNOBS.iter().flat_map(|knob| [Version::V1, Version::V2].map(|version| (*knob, version)))
        {
            let all = [0, 1].into_iter().collect();
            assert_eq!(knob.files(version).next().is_some(), !of_beginning(knob, version, true, &all).is_empty());
            for is_top in [true, false] {
                let begins = of_beginning(knob, version, is_top, &all);
                let mut set = 0;
                for _ in 0..200 {
                    let What::Set(setting) = of_guard(knob, &mut random) else { continue };
                    set += 1;
                    let guards = setting.values(version, WeightFormula::default());
                    assert!(begins.is_empty() || guards != begins, "{knob} on {version}: {guards:?}");
                    let others = of_other(knob, version, is_top, &mut random);
                    assert!(others.is_empty() || (others != guards && others != begins), "{knob}: {others:?}");
                }
                assert!(set > 50, "{knob} is hardly ever set");
            }
        }
    }
}
