//! Tests over the whole table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    around::Surroundings,
    bandwidth::MAX_QUOTA_US,
    file::File,
    setting::{Knob, Setting},
    table::KNOBS,
    value::Value,
    version::Version,
    weight::WeightFormula,
};
use crate::snapshot::{Bandwidth, CgroupPath, CpuList, Partition};

fn every_file() -> impl Iterator<Item = File> {
    KNOBS.iter().flat_map(|knob| (0..knob.row().files.len()).map(|at| File::new(*knob, at)))
}

#[test]
fn every_knob_has_one_name_and_says_what_it_is() {
    let mut names = BTreeSet::new();
    for knob in KNOBS {
        assert_eq!(serde_json::to_value(knob).unwrap(), knob.name(), "JSON and reports use one word");
        assert!(names.insert(knob.name()), "{knob} stands twice");
        assert!(!knob.help().is_empty() && knob.help().len() < 100, "{knob}: {}", knob.help());
    }
}

#[test]
fn every_file_is_of_one_knob_and_known_by_its_name() {
    for file in every_file() {
        assert_eq!(serde_json::from_value::<File>(serde_json::to_value(file).unwrap()).unwrap(), file);
    }
    assert!(serde_json::from_str::<File>("\"no.such.file\"").is_err());
}

#[test]
fn every_knob_stands_in_the_docs_with_its_files() {
    let docs = include_str!("../../../docs/writing.md");
    for knob in KNOBS {
        let rows = docs.lines().filter(|line| line.starts_with(&format!("| `{knob}` |"))).collect::<Vec<_>>();
        let [row] = rows[..] else { panic!("docs/writing.md has {} rows for {knob}", rows.len()) };
        assert!(row.contains(knob.help()), "docs/writing.md on {knob}: {}", knob.help());
        for file in knob.row().files {
            assert!(row.contains(&format!("`{}`", file.name)), "docs/writing.md on {knob}: {}", file.name);
        }
        for property in knob.row().properties {
            assert!(row.contains(property.name), "docs/writing.md on {knob}: {}", property.name);
        }
    }
}

#[test]
fn what_a_row_refers_to_fits() {
    for knob in KNOBS {
        let row = knob.row();
        for version in [Version::V1, Version::V2] {
            let files = knob.files(version).count();
            for setting in some_values().iter().filter_map(|value| knob.setting(value)) {
                assert_eq!(setting.values(version, WeightFormula::default()).len(), files, "{knob} on {version}");
                assert_eq!(setting.knob(), *knob);
            }
        }
        for property in row.properties {
            assert!(property.versions.iter().all(|version| knob.files(*version).next().is_some()), "{}", property.name);
        }
    }
}

/// Values of all kinds.
pub(crate) fn some_values() -> Vec<Value> {
    let numbers = [-1, 0, 1, 2, 7, 1_024, 10_000].map(Value::Number);
    let bandwidths = [None, Some(1_000), Some(33_333)]
        .into_iter()
        .flat_map(|quota_us| [50_000, 100_000].map(|period_us| Value::Bandwidth(Bandwidth { quota_us, period_us })));
    let lists = ["", "0", "0-3,8"].map(|list| Value::List(list.parse().unwrap()));
    let partitions =
        [Partition::Member, Partition::Root, Partition::Isolated].map(|partition| Value::Partition(partition, true));
    numbers.into_iter().chain(bandwidths).chain(lists).chain(partitions).collect()
}

#[test]
fn what_is_shown_and_what_is_written_is_parsed_again() {
    for knob in KNOBS {
        let settings: Vec<Setting> = some_values().iter().filter_map(|value| knob.setting(value)).collect();
        assert!(settings.len() > 1, "{knob} takes none of the values tried");
        for setting in settings {
            let shown = setting.to_string();
            assert_eq!((knob.row().format.parse)(&shown).map(|value| knob.setting(&value)), Ok(Some(setting.clone())));
            for version in
                [Version::V1, Version::V2].into_iter().filter(|version| knob.files(*version).next().is_some())
            {
                let formula = WeightFormula::default();
                let values = setting.values(version, formula);
                let read: Vec<Value> =
                    values.iter().map(|(file, value)| file.parse(&file.text(value)).unwrap()).collect();
                let again = knob.decode(&read, version, formula).unwrap();
                // Shares come back from a weight as others that are the same weight.
                assert_eq!(again.values(version, formula), values, "{setting:?} on {version}");
            }
        }
    }
}

#[test]
fn the_same_value_in_other_words_is_the_same() {
    for (file, one, other) in [
        (File::MAX, "max 100000\n", "max 100000"),
        (File::MAX, "20000  100000", "20000 100000\n"),
        (File::CFS_QUOTA, "-1\n", "-5"),
        (File::CPUS, "0-3\n", "0,1,2,3"),
        (File::CPUS, "\n", ""),
        (File::UCLAMP_MAX, "max\n", "100.00"),
        (File::UCLAMP_MIN, "5", "5.00"),
        (File::WEIGHT, "100\n", "100"),
        (File::PARTITION, "root", "root invalid (Cpu list in cpuset.cpus not exclusive)"),
    ] {
        assert!(file.same(one, other), "{file}: {one:?} {other:?}");
    }
    for (file, one, other) in [
        (File::MAX, "max 100000", "max 50000"),
        (File::CPUS, "0-3", "0-2"),
        (File::UCLAMP_MIN, "5", "5.01"),
        (File::PARTITION, "member", "root invalid (Cpu list in cpuset.cpus not exclusive)"),
    ] {
        assert!(!file.same(one, other), "{file}: {one:?} {other:?}");
    }
}

#[test]
fn a_setting_is_files_and_texts_of_both_versions() {
    let half = Setting::Quota(Bandwidth { quota_us: Some(50_000), period_us: 100_000 });
    let none = Setting::Quota(Bandwidth::UNLIMITED);
    for (setting, version, texts) in [
        (&half, Version::V2, &[("cpu.max", "50000 100000")][..]),
        (&half, Version::V1, &[("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "100000")]),
        (&none, Version::V2, &[("cpu.max", "max 100000")]),
        (&none, Version::V1, &[("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000")]),
        (&Setting::Burst(7), Version::V2, &[("cpu.max.burst", "7")]),
        (&Setting::Burst(7), Version::V1, &[("cpu.cfs_burst_us", "7")]),
        (&Setting::Shares(2048), Version::V2, &[("cpu.weight", "174")]),
        (&Setting::Shares(2048), Version::V1, &[("cpu.shares", "2048")]),
        (&Setting::Idle(true), Version::V2, &[("cpu.idle", "1")]),
        (&Setting::Cpus(CpuList::default()), Version::V2, &[("cpuset.cpus", "\n")]),
        (&Setting::Partition(Partition::Isolated), Version::V2, &[("cpuset.cpus.partition", "isolated")]),
        (&Setting::Partition(Partition::Root), Version::V1, &[]),
        (&Setting::UclampMin(1234), Version::V2, &[("cpu.uclamp.min", "12.34")]),
        (&Setting::RtRuntime(-1), Version::V1, &[("cpu.rt_runtime_us", "-1")]),
        (&Setting::RtRuntime(-1), Version::V2, &[]),
    ] {
        let values = setting.values(version, WeightFormula::Quadratic);
        let found: Vec<(&str, String)> = values.iter().map(|(file, value)| (file.name(), file.text(value))).collect();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, text)| (*name, text.as_str())).collect();
        assert_eq!(found, texts, "{setting:?} {version:?}");
    }
}

#[test]
fn quotas_of_both_versions_are_read() {
    let fifth = Some(Setting::Quota(Bandwidth { quota_us: Some(20_000), period_us: 100_000 }));
    let none = Some(Setting::Quota(Bandwidth::UNLIMITED));
    let read = |version, texts: &[&str]| {
        let values = Knob::Quota.files(version).zip(texts).map(|(file, text)| file.parse(text).unwrap());
        Knob::Quota.decode(&values.collect::<Vec<_>>(), version, WeightFormula::default())
    };
    assert_eq!(read(Version::V2, &["20000 100000\n"]), fifth);
    assert_eq!(read(Version::V2, &["max 100000\n"]), none);
    assert_eq!(read(Version::V1, &["20000\n", "100000\n"]), fifth);
    assert_eq!(read(Version::V1, &["-1\n", "100000\n"]), none);
    for (file, text) in [
        (File::MAX, "max"),
        (File::MAX, "1 0"),
        (File::MAX, "1 2 3"),
        (File::CFS_QUOTA, "max"),
        (File::CFS_PERIOD, "0"),
    ] {
        assert!(file.parse(text).is_err(), "{file}: {text}");
    }
}

proptest! {
    #[test]
    fn a_written_quota_is_read_back(quota_us in any::<u64>(), period_us in 1_u64..) {
        let bandwidth = Value::Bandwidth(Bandwidth { quota_us: Some(quota_us), period_us });
        if i64::try_from(period_us).is_ok() {
            prop_assert_eq!(File::MAX.parse(&format!("{quota_us} {period_us}\n")), Ok(bandwidth.clone()));
            if i64::try_from(quota_us).is_ok() {
                let read = [File::CFS_QUOTA.parse(&quota_us.to_string()), File::CFS_PERIOD.parse(&period_us.to_string())];
                let read = read.map(Result::unwrap);
                let setting = Knob::Quota.decode(&read, Version::V1, WeightFormula::default());
                prop_assert_eq!(setting.map(|setting| setting.value()), Some(bandwidth));
            }
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "(?s).{0,60}", a in any::<i128>(), b in any::<u64>()) {
        for file in every_file() {
            let _ = file.parse(&text);
            let _ = file.parse(&a.to_string());
            let _ = file.parse(&format!("{a} {b}"));
            let _ = file.parse(&format!("{b}.{b}"));
        }
    }

    #[test]
    fn a_value_that_is_written_is_read_back(text in "(max|[0-9]{1,6}) [0-9]{1,6}|-?[0-9]{1,9}|[0-9]{1,2}(\\.[0-9]{1,2})?|member|root|isolated") {
        for file in every_file() {
            if let Ok(value) = file.parse(&text) {
                prop_assert_eq!(file.parse(&file.text(&value)), Ok(value));
            }
        }
    }
}

#[derive(Default)]
struct Node(BTreeMap<(String, Knob), Setting>);

impl Node {
    fn with(mut self, path: &str, setting: Setting) -> Self {
        self.0.insert((path.to_owned(), setting.knob()), setting);
        self
    }
}

impl Surroundings for Node {
    fn setting(&self, path: &str, knob: Knob) -> Option<Setting> {
        self.0.get(&(path.to_owned(), knob)).cloned()
    }

    fn children(&self, path: &str, knob: Knob) -> Vec<String> {
        self.0
            .keys()
            .filter(|(each, of_knob)| *of_knob == knob && CgroupPath::of(each).parent() == Some(path))
            .map(|(each, _)| each.clone())
            .collect()
    }

    fn rt_period_us(&self, _: &str) -> Option<u64> {
        Some(1_000_000)
    }
}

fn limit(quota_us: u64) -> Setting {
    Setting::Quota(Bandwidth { quota_us: Some(quota_us), period_us: 100_000 })
}

fn cpus(text: &str) -> Setting {
    Setting::Cpus(text.parse().unwrap())
}

#[test]
fn each_rule_of_the_kernel_is_known_with_its_edge() {
    use Version::{V1, V2};
    let period = |period_us| Setting::Quota(Bandwidth { quota_us: None, period_us });
    let family = || {
        Node::default()
            .with("/a", limit(50_000))
            .with("/a/b", Setting::Quota(Bandwidth::UNLIMITED))
            .with("/a/b/c", limit(20_000))
    };
    let sets = || Node::default().with("/a", cpus("0-3")).with("/a/b", cpus("0-1")).with("/a/b/c", cpus("1"));
    let rt = || {
        let share = Setting::RtRuntime;
        Node::default()
            .with("/", share(950_000))
            .with("/a", share(100_000))
            .with("/a/b", share(60_000))
            .with("/a/c", share(40_000))
    };
    let own = |setting: &Setting, node: Node, path: &str| node.with(path, setting.clone());
    for (setting, path, version, node, says) in [
        (limit(1_000), "/x", V2, Node::default(), None),
        (limit(999), "/x", V2, Node::default(), Some("at least 1 ms")),
        (limit(MAX_QUOTA_US), "/x", V2, Node::default(), None),
        (limit(MAX_QUOTA_US + 1), "/x", V2, Node::default(), Some("at least")),
        (period(1_000), "/x", V2, Node::default(), None),
        (period(999), "/x", V2, Node::default(), Some("1 ms to 1 s")),
        (period(1_000_001), "/x", V2, Node::default(), Some("1 ms to 1 s")),
        (limit(10_000), "/x", V2, Node::default().with("/x", Setting::Burst(10_000)), None),
        (limit(10_000), "/x", V2, Node::default().with("/x", Setting::Burst(10_001)), Some("lower it first")),
        (Setting::Burst(10_000), "/x", V2, Node::default().with("/x", limit(10_000)), None),
        (Setting::Burst(10_001), "/x", V2, Node::default().with("/x", limit(10_000)), Some("beyond the quota")),
        (Setting::Burst(1), "/x", V2, Node::default().with("/x", period(100_000)), Some("no effect")),
        (Setting::Burst(0), "/x", V2, Node::default().with("/x", period(100_000)), None),
        (limit(50_000), "/a/b", V1, family(), None),
        (limit(50_001), "/a/b", V1, family(), Some("/a has 50000 100000")),
        (limit(50_001), "/a/b", V2, family(), None),
        (limit(20_000), "/a", V1, family(), None),
        (limit(19_999), "/a", V1, family(), Some("/a/b/c has 20000 100000")),
        (limit(19_999), "/a", V2, family(), None),
        (period(100_000), "/a/b/c", V1, family(), None),
        (Setting::Shares(2), "/x", V1, Node::default(), None),
        (Setting::Shares(1), "/x", V1, Node::default(), Some("2 to 262144")),
        (Setting::Shares(262_145), "/x", V1, Node::default(), Some("2 to 262144")),
        (Setting::Shares(5), "/x", V1, Node::default().with("/x", Setting::Idle(true)), Some("idle")),
        (cpus("0-1"), "/a/b", V1, sets(), None),
        (cpus("0-4"), "/a/b", V1, sets(), Some("/a has 0-3")),
        (cpus("0"), "/a/b", V1, sets(), Some("/a/b/c has 1")),
        (cpus(""), "/a/b/c", V1, sets(), Some("of its own")),
        (cpus(""), "/a/b/c", V2, sets(), None),
        (cpus("7"), "/a/b/c", V2, sets(), None),
        (cpus(""), "/p", V2, Node::default().with("/p", Setting::Partition(Partition::Root)), Some("of its own")),
        (Setting::Partition(Partition::Root), "/a", V2, sets(), None),
        (Setting::Partition(Partition::Root), "/x", V2, sets(), Some("of its own")),
        (Setting::Partition(Partition::Member), "/x", V2, sets(), None),
        (Setting::Partition(Partition::Root), "/a", V1, sets(), Some("v1 has no")),
        (Setting::UclampMax(10_000), "/x", V2, Node::default(), None),
        (Setting::UclampMax(10_001), "/x", V2, Node::default(), Some("hundredths")),
        (Setting::RtRuntime(60_000), "/a/b", V1, rt(), None),
        (Setting::RtRuntime(60_001), "/a/b", V1, rt(), Some("siblings")),
        (Setting::RtRuntime(-1), "/a/b", V1, rt(), Some("siblings")),
        (Setting::RtRuntime(100_000), "/a", V1, rt(), None),
        (Setting::RtRuntime(99_999), "/a", V1, rt(), Some("children")),
        (Setting::RtRuntime(1_000_001), "/a", V1, rt(), Some("longer than its period")),
        (Setting::RtRuntime(0), "/a/b", V2, rt(), Some("v2 has no")),
    ] {
        let around = own(&setting, node, path);
        match (setting.check(path, version, &around), says) {
            (Ok(()), None) => {}
            (Err(rule), Some(says)) => assert!(rule.contains(says), "{setting:?} of {path}: {rule}"),
            (found, _) => panic!("{setting:?} of {path} on {version:?}: {found:?}, expected {says:?}"),
        }
    }
}
