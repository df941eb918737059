//! The executor and restore together: on directories that look like cgroups, and on this machine's own v1 hierarchy.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    slice,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    apply::{Executor, ExecutorOptions},
    outcome::{Change, Outcome, What, WriteResult},
    pace::Pace,
    place::{self, Populated},
    report::Report,
    restore::{look, restore},
    store::{self, Journal, Lock},
    write::{Job, Ran, run},
};
use crate::{
    cgroup::Hierarchy,
    knob::{File, KNOBS, Kind, Knob, Setting, Version, WeightFormula, tests::some_values},
    snapshot::{Bandwidth, Partition},
};

/// A node made of plain files.
struct Node {
    root: tempfile::TempDir,
}

const V1: [(&str, &str); 5] = [
    ("cpu.cfs_quota_us", "-1\n"),
    ("cpu.cfs_period_us", "100000\n"),
    ("cpu.cfs_burst_us", "0\n"),
    ("cpu.shares", "1024\n"),
    ("cpu.idle", "0\n"),
];
const V2: [(&str, &str); 5] = [
    ("cpu.max", "max 100000\n"),
    ("cpu.max.burst", "0\n"),
    ("cpu.weight", "79\n"),
    ("cpu.idle", "0\n"),
    ("cpuset.cpus", "\n"),
];

impl Node {
    fn new(version: Version) -> Self {
        let node = Self { root: tempfile::tempdir().unwrap() };
        let mount = match version {
            Version::V1 => "32 31 0:29 / /cg rw,relatime - cgroup cgroup rw,cpu\n",
            Version::V2 => "32 31 0:29 / /cg rw,relatime - cgroup2 cgroup2 rw\n",
        };
        node.put("proc/self/mountinfo", mount);
        node.put("cg/cgroup.controllers", "cpu\n");
        node.boot("boot-1");
        for path in ["/a", "/a/b"] {
            node.cgroup(path, version);
        }
        node
    }

    fn cgroup(&self, path: &str, version: Version) {
        for (name, text) in if version == Version::V1 { V1 } else { V2 } {
            self.put(&format!("cg{path}/{name}"), text);
        }
    }

    fn put(&self, file: &str, text: &str) {
        let file = self.root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn boot(&self, id: &str) {
        self.put("proc/sys/kernel/random/boot_id", id);
    }

    fn get(&self, file: &str) -> String {
        fs::read_to_string(self.root.path().join("cg").join(file)).unwrap().trim().to_owned()
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn journal(&self) -> PathBuf {
        self.state().join("journal")
    }

    fn open(&self, mut options: ExecutorOptions) -> Executor {
        options.root = self.root.path().to_owned();
        Executor::open(Hierarchy::detect(self.root.path()).unwrap(), &self.state(), options).unwrap()
    }

    fn restore(&self) -> Report {
        restore(self.root.path(), &self.state(), false).unwrap()
    }

    fn change(&self, path: &str, what: What) -> Change {
        let id = Hierarchy::detect(self.root.path()).unwrap().id(path).unwrap();
        Change { path: path.to_owned(), id, what }
    }

    fn set(&self, path: &str, setting: Setting) -> Change {
        self.change(path, What::Set(setting))
    }
}

fn quota(quota_us: u64) -> Setting {
    Setting::Quota(Bandwidth { quota_us: Some(quota_us), period_us: 100_000 })
}

fn only(mut outcomes: Vec<Outcome>) -> Outcome {
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    outcomes.remove(0)
}

#[test]
fn a_value_is_set_read_back_and_released() {
    for (version, file, original, held) in
        [(Version::V1, "a/cpu.cfs_quota_us", "-1", "20000"), (Version::V2, "a/cpu.max", "max 100000", "20000 100000")]
    {
        let node = Node::new(version);
        let mut executor = node.open(ExecutorOptions::default());
        let outcome = only(executor.apply(&[node.set("/a", quota(20_000))]));
        assert_eq!(outcome.result, WriteResult::Written);
        assert_eq!(outcome.new, "20000 100000");
        assert_eq!(outcome.old.unwrap().split(' ').next().unwrap(), original.split(' ').next().unwrap());
        assert_eq!(node.get(file), held);
        assert_eq!(executor.held().count(), 1);
        assert_eq!(only(executor.apply(&[node.set("/a", quota(20_000))])).result, WriteResult::Unchanged);
        let outcome = only(executor.apply(&[node.change("/a", What::Release(Knob::Quota))]));
        assert_eq!(outcome.result, WriteResult::Written);
        assert_eq!((node.get(file).as_str(), executor.held().count()), (original, 0));
        drop(executor);
        assert!(node.restore().files.is_empty());
    }
}

#[test]
fn a_list_that_the_kernel_takes_back_no_more_becomes_all_that_there_is() {
    for (possible, expected) in [(Some("0-3\n"), "0-3"), (None, "0-2"), (Some("\n"), "0-2")] {
        let node = Node::new(Version::V2);
        node.put("cg/cpuset.cpus.effective", "0-2\n");
        possible.into_iter().for_each(|text| node.put("sys/devices/system/cpu/possible", text));
        let mut executor = node.open(ExecutorOptions::default());
        let narrow = Setting::Cpus("1".parse().unwrap());
        assert_eq!(only(executor.apply(&[node.set("/a", narrow)])).result, WriteResult::Written);
        drop(executor);

        let boot = store::boot_id(node.root.path()).unwrap();
        let lock = Lock::take(&node.state()).unwrap();
        let (_, book) = look(&node.state(), &boot).unwrap();
        let mut journal = Journal::open(&node.state(), boot, book.clone(), lock).unwrap();
        let hierarchy = Hierarchy::detect(node.root.path()).unwrap();
        let place = place::NodeFiles { root: node.root.path().to_owned(), hierarchy };
        let (key, entry) = book.iter().find(|(key, _)| key.file == File::CPUS).unwrap();
        let mut job = Job::open(&place, key, 0).unwrap();
        job.place = Box::new(Populated(job.place));
        job.undo(&place, entry).unwrap();
        let Ran { stop, wrote, nearest } = run(Version::V2, &mut journal, &mut [job], 1).remove(0);
        assert_eq!((stop, wrote), (None, true));
        let nearest = nearest.unwrap();
        assert!(nearest.starts_with(&format!("\"{expected}\"")) && nearest.ends_with("no empty text"), "{nearest}");
        assert_eq!(node.get("a/cpuset.cpus"), expected);
        // Killed before the journal says that it is done: what was written is guard's.
        assert!(journal.book()[key].is_ours(File::CPUS, expected));
    }
}

#[test]
fn a_partition_that_the_kernel_no_more_honours_is_still_guards() {
    let node = Node::new(Version::V2);
    node.put("cg/a/cpuset.cpus", "0\n");
    node.put("cg/a/cpuset.cpus.partition", "member\n");
    let mut executor = node.open(ExecutorOptions::default());
    let isolated = node.set("/a", Setting::Partition(Partition::Isolated));
    assert_eq!(only(executor.apply(slice::from_ref(&isolated))).result, WriteResult::Written);
    node.put("cg/a/cpuset.cpus.partition", "isolated invalid (Parent unable to distribute cpu downstream)\n");
    // A file has no kernel behind it: it takes the word again, and does not say that it means nothing.
    assert_eq!(only(executor.check_drift()).result, WriteResult::Written);
    node.put("cg/a/cpuset.cpus.partition", "isolated invalid (Parent unable to distribute cpu downstream)\n");
    drop(executor);
    assert_eq!(node.restore().files[0].result, WriteResult::Written);
    assert_eq!(node.get("a/cpuset.cpus.partition"), "member");
}

#[test]
fn a_killed_guard_is_undone_once_and_only_once() {
    for version in [Version::V1, Version::V2] {
        let node = Node::new(version);
        let before: Vec<String> = V2
            .iter()
            .chain(&V1)
            .filter_map(|(file, _)| fs::read_to_string(node.root.path().join("cg/a").join(file)).ok())
            .collect();
        let mut executor = node.open(ExecutorOptions::default());
        let period = Setting::Quota(Bandwidth { quota_us: Some(5_000), period_us: 50_000 });
        let changes = [node.set("/a", period), node.set("/a/b", quota(1_000)), node.set("/a", Setting::Shares(2))];
        assert!(executor.apply(&changes).iter().all(|outcome| outcome.result == WriteResult::Written));
        drop(executor);
        let report = restore(node.root.path(), &node.state(), true).unwrap();
        assert!(report.files.iter().any(|file| file.result == WriteResult::Pending));
        assert!(report.files.iter().all(|file| matches!(file.result, WriteResult::Pending | WriteResult::Unchanged)));
        let report = node.restore();
        assert!(report.is_complete() && report.files.iter().any(|file| file.result == WriteResult::Written));
        let after: Vec<String> = V2
            .iter()
            .chain(&V1)
            .filter_map(|(file, _)| fs::read_to_string(node.root.path().join("cg/a").join(file)).ok())
            .collect();
        let trim = |texts: Vec<String>| texts.into_iter().map(|text| text.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(trim(after), trim(before));
        assert_eq!(node.restore().files, []);
    }
}

#[test]
fn what_somebody_else_set_stays() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions { retake_after: None, ..ExecutorOptions::default() });
    executor.apply(&[node.set("/a", quota(20_000)), node.set("/a/b", quota(20_000))]);
    node.put("cg/a/cpu.max", "33000 100000\n");
    let outcome = only(executor.check_drift());
    assert!(matches!(&outcome.result, WriteResult::Foreign(why) if why.contains("33000 100000")), "{outcome:?}");
    assert_eq!(executor.held().map(|(path, ..)| path.to_owned()).collect::<Vec<_>>(), ["/a/b"]);
    // Given up for good: not even a new wish takes it.
    let outcome = only(executor.apply(&[node.set("/a", quota(10_000))]));
    assert!(matches!(outcome.result, WriteResult::Foreign(_)));
    // Seen only by restore.
    node.put("cg/a/b/cpu.max", "44000 100000\n");
    drop(executor);
    let report = node.restore();
    assert!(matches!(report.files[0].result, WriteResult::Foreign(_)) && report.is_complete());
    assert_eq!((node.get("a/cpu.max").as_str(), node.get("a/b/cpu.max").as_str()), ("33000 100000", "44000 100000"));
}

#[test]
fn a_knob_that_was_given_up_is_taken_again_later_with_its_new_original() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions { retake_after: Some(Duration::ZERO), ..ExecutorOptions::default() });
    executor.apply(&[node.set("/a", quota(20_000))]);
    node.put("cg/a/cpu.max", "33000 100000\n");
    assert!(matches!(only(executor.check_drift()).result, WriteResult::Foreign(_)));
    assert_eq!(only(executor.apply(&[node.set("/a", quota(10_000))])).result, WriteResult::Written);
    executor.restore_all();
    assert_eq!(node.get("a/cpu.max"), "33000 100000");
}

#[test]
fn a_lift_is_asserted_again_a_few_times_and_then_guard_gives_way() {
    let node = Node::new(Version::V2);
    node.put("cg/a/cpu.max", "50000 100000\n");
    let reassert = Pace { burst: 2, every: Duration::from_secs(3600) };
    let mut executor = node.open(ExecutorOptions { reassert, retake_after: None, ..ExecutorOptions::default() });
    let lift = node.change("/a", What::Lift(Setting::Quota(Bandwidth::UNLIMITED)));
    assert_eq!(only(executor.apply(std::slice::from_ref(&lift))).result, WriteResult::Written);
    for (foreign, asserted) in [("41000 100000", true), ("42000 100000", true), ("43000 100000", false)] {
        node.put("cg/a/cpu.max", foreign);
        let outcome = only(executor.check_drift());
        assert_eq!(outcome.result == WriteResult::Written, asserted, "{outcome:?}");
        assert_eq!(outcome.old.as_deref(), Some(foreign));
    }
    assert_eq!((node.get("a/cpu.max").as_str(), executor.held().count()), ("43000 100000", 0));
    drop(executor);
    node.restore();
    assert_eq!(node.get("a/cpu.max"), "43000 100000");
}

#[test]
fn while_a_lift_is_asserted_the_others_value_is_what_has_to_be_kept() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    node.put("cg/a/cpu.max", "50000 100000\n");
    executor.apply(&[node.change("/a", What::Lift(Setting::Quota(Bandwidth::UNLIMITED)))]);
    node.put("cg/a/cpu.max", "41000 100000\n");
    assert_eq!(only(executor.check_drift()).result, WriteResult::Written);
    drop(executor);
    node.restore();
    assert_eq!(node.get("a/cpu.max"), "41000 100000");
}

#[test]
fn another_cgroup_under_the_same_path_is_never_written() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    let change = node.set("/a/b", quota(20_000));
    assert_eq!(only(executor.apply(std::slice::from_ref(&change))).result, WriteResult::Written);
    // Made beside it, so that it cannot get the same inode number.
    node.cgroup("/new", Version::V2);
    node.put("cg/new/cpu.max", "20000 100000\n");
    let cg = node.root.path().join("cg");
    fs::remove_dir_all(cg.join("a/b")).unwrap();
    fs::rename(cg.join("new"), cg.join("a/b")).unwrap();
    let again = Change { what: What::Set(quota(30_000)), ..change };
    assert_eq!(only(executor.apply(&[again])).result, WriteResult::Gone);
    assert_eq!(executor.held().count(), 0);
    drop(executor);
    node.restore();
    assert_eq!(node.get("a/b/cpu.max"), "20000 100000");
}

#[test]
fn restore_passes_over_what_was_made_anew_or_has_gone() {
    for anew in [false, true] {
        let node = Node::new(Version::V2);
        let mut executor = node.open(ExecutorOptions::default());
        executor.apply(&[node.set("/a/b", quota(20_000))]);
        drop(executor);
        let cg = node.root.path().join("cg");
        fs::create_dir(cg.join("new")).unwrap();
        fs::write(cg.join("new/cpu.max"), "20000 100000\n").unwrap();
        fs::remove_dir_all(cg.join("a/b")).unwrap();
        if anew {
            fs::rename(cg.join("new"), cg.join("a/b")).unwrap();
        }
        let report = node.restore();
        assert_eq!(report.files[0].result, WriteResult::Gone);
        assert!(report.is_complete());
        assert!(!anew || node.get("a/b/cpu.max") == "20000 100000");
    }
}

#[test]
fn after_another_boot_nothing_is_touched() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    executor.apply(&[node.set("/a", quota(20_000))]);
    drop(executor);
    node.boot("boot-2");
    let report = node.restore();
    assert!(report.files.is_empty() && report.other_boot > 0 && report.is_complete());
    assert_eq!(node.get("a/cpu.max"), "20000 100000");
}

#[test]
fn the_next_start_restores_first() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    executor.apply(&[node.set("/a", quota(20_000))]);
    drop(executor);
    let executor = node.open(ExecutorOptions::default());
    assert_eq!(executor.recovered().files[0].result, WriteResult::Written);
    assert_eq!((node.get("a/cpu.max").as_str(), executor.held().count()), ("max 100000", 0));
}

#[test]
fn restore_and_a_second_guard_are_kept_from_a_running_one() {
    let node = Node::new(Version::V2);
    let executor = node.open(ExecutorOptions::default());
    let error = restore(node.root.path(), &node.state(), false).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(restore(node.root.path(), &node.state(), true).is_ok(), "a dry run may look");
    drop(executor);
    assert!(restore(node.root.path(), &node.state(), false).is_ok());
}

#[test]
fn without_a_journal_nothing_is_made() {
    let node = Node::new(Version::V2);
    assert_eq!(node.restore(), Report::default());
    assert!(!node.state().exists());
}

#[test]
fn a_damaged_journal_puts_back_what_it_still_knows_and_says_so() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    executor.apply(&[node.set("/a", quota(20_000))]);
    executor.apply(&[node.set("/a/b", quota(20_000))]);
    drop(executor);
    let text = fs::read_to_string(node.journal()).unwrap();
    let spoilt: Vec<String> = text
        .lines()
        .map(|line| if line.contains("\"/a\"") { line.replace("max", "min") } else { line.to_owned() })
        .collect();
    fs::write(node.journal(), spoilt.join("\n") + "\n").unwrap();
    let report = node.restore();
    assert!(report.damaged > 0 && !report.is_complete());
    assert_eq!((node.get("a/cpu.max").as_str(), node.get("a/b/cpu.max").as_str()), ("20000 100000", "max 100000"));
    assert!(report.to_string().contains("damaged"));
}

#[test]
fn leaving_idle_gives_the_weight_back() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    assert_eq!(only(executor.apply(&[node.set("/a", Setting::Idle(true))])).result, WriteResult::Written);
    // As the kernel does: an idle cgroup shows no weight, and has the default one afterwards.
    node.put("cg/a/cpu.weight", "0\n");
    assert!(executor.check_drift().is_empty());
    node.put("cg/a/cpu.weight", "100\n");
    drop(executor);
    node.restore();
    assert_eq!((node.get("a/cpu.idle").as_str(), node.get("a/cpu.weight").as_str()), ("0", "79"));
}

#[test]
fn too_many_changes_are_held_back_but_never_a_lift_or_a_release() {
    let node = Node::new(Version::V2);
    let pace = Pace { burst: 2, every: Duration::from_secs(3600) };
    let mut executor = node.open(ExecutorOptions { pace, ..ExecutorOptions::default() });
    let mut result = |what: What| only(executor.apply(&[node.change("/a", what)])).result;
    assert_eq!(result(What::Set(quota(10_000))), WriteResult::Written);
    assert_eq!(result(What::Set(quota(20_000))), WriteResult::Written);
    assert!(matches!(result(What::Set(quota(30_000))), WriteResult::Limited(_)));
    assert_eq!(result(What::Lift(Setting::Quota(Bandwidth::UNLIMITED))), WriteResult::Written);
    assert_eq!(result(What::Release(Knob::Quota)), WriteResult::Unchanged, "the original was no limit");
}

#[test]
fn what_cannot_be_is_refused_with_its_rule_and_nothing_is_written() {
    let node = Node::new(Version::V1);
    let mut executor = node.open(ExecutorOptions::default());
    executor.apply(&[node.set("/a", quota(20_000))]);
    let before = fs::read(node.journal()).unwrap();
    for (change, says) in [
        (node.set("/a/b", quota(20_001)), "/a has 20000 100000"),
        (node.set("/a", quota(999)), "at least 1 ms"),
        (node.set("/a/b", Setting::Burst(1)), "no effect"),
        (node.set("/a", Setting::Shares(1)), "2 to 262144"),
        (node.set("/a", Setting::Partition(crate::snapshot::Partition::Root)), "v1 has no partition"),
    ] {
        let outcome = only(executor.apply(&[change]));
        assert!(matches!(&outcome.result, WriteResult::Refused(rule) if rule.contains(says)), "{outcome:?}");
    }
    assert_eq!((node.get("a/b/cpu.cfs_quota_us").as_str(), fs::read(node.journal()).unwrap()), ("-1", before));
}

#[test]
fn a_knob_that_the_cgroup_does_not_have_fails_with_what_to_do_and_is_told_once() {
    let node = Node::new(Version::V2);
    fs::remove_file(node.root.path().join("cg/a/cpu.max")).unwrap();
    let mut executor = node.open(ExecutorOptions::default());
    let change = node.set("/a", quota(20_000));
    let outcome = only(executor.apply(std::slice::from_ref(&change)));
    assert!(matches!(&outcome.result, WriteResult::Failed(why) if why.contains("subtree_control")), "{outcome:?}");
    assert!(matches!(only(executor.apply(&[change])).result, WriteResult::Limited(_)));
}

#[test]
fn prepared_originals_cost_nothing_when_they_were_not_needed() {
    let node = Node::new(Version::V2);
    let mut executor = node.open(ExecutorOptions::default());
    let id = executor.hierarchy().id("/a").unwrap();
    executor.prepare(&[("/a".to_owned(), id, Knob::Quota)]).unwrap();
    // Somebody changes it before guard does: that is what has to be kept.
    node.put("cg/a/cpu.max", "50000 100000\n");
    let lift = node.change("/a", What::Lift(Setting::Quota(Bandwidth::UNLIMITED)));
    assert_eq!(only(executor.apply(&[lift])).result, WriteResult::Written);
    drop(executor);
    node.restore();
    assert_eq!(node.get("a/cpu.max"), "50000 100000");
}

proptest! {
    // Each cut is a restore that waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn every_prefix_of_the_journal_puts_back_what_was_there(steps in proptest::collection::vec((any::<bool>(), 0_u64..5), 1..6)) {
        let node = Node::new(Version::V2);
        let mut executor = node.open(ExecutorOptions::default());
        let look = || ["a/cpu.max", "a/b/cpu.max"].map(|file| node.get(file));
        let length = || usize::try_from(fs::metadata(node.journal()).unwrap().len()).unwrap();
        let original = look();
        let mut states = vec![(length(), original.clone(), false)];
        for (deep, value) in steps {
            let path = if deep { "/a/b" } else { "/a" };
            let what = if value == 0 { What::Release(Knob::Quota) } else { What::Set(quota(value * 1_000)) };
            executor.apply(&[node.change(path, what)]);
            states.push((length(), look(), value == 0));
        }
        drop(executor);
        let journal = fs::read(node.journal()).unwrap();
        for pair in states.windows(2) {
            let ((from, before, _), (to, after, released)) = (&pair[0], &pair[1]);
            // The bounds, a line without its newline, and some in between.
            for cut in (*from..=*to).filter(|cut| cut - from < 2 || to - cut < 3 || cut % 37 == 0) {
                // An intent is whole before its write; a release is noted after its own.
                let written = *released || cut + 1 >= *to;
                let unwritten = !*released || cut == *from;
                for state in [written.then_some(after), unwritten.then_some(before)].into_iter().flatten() {
                    node.put("cg/a/cpu.max", &state[0]);
                    node.put("cg/a/b/cpu.max", &state[1]);
                    fs::write(node.journal(), &journal[..cut]).unwrap();
                    let report = node.restore();
                    prop_assert_eq!(look(), original.clone(), "cut {} of {}: {:?}", cut, journal.len(), report);
                    prop_assert!(report.is_complete());
                }
            }
        }
    }
}

/// What a file of each knob holds at first, so that other values of it are allowed.
fn original(knob: Knob) -> Setting {
    let settings: Vec<Setting> = some_values().iter().filter_map(|value| knob.setting(value)).collect();
    let roomy = |setting: &&Setting| match setting {
        Setting::Quota(quota) => quota.quota_us == Some(33_333),
        Setting::Cpus(list) | Setting::Mems(list) => !list.is_empty(),
        Setting::Shares(shares) => *shares == 1_024,
        _ => true,
    };
    settings.iter().find(roomy).unwrap().clone()
}

/// A node with a file for every knob, on a cgroup and on two processes in it.
fn node_with_everything(version: Version) -> Node {
    let node = Node::new(version);
    for knob in KNOBS {
        for (file, value) in original(*knob).values(version, WeightFormula::default()) {
            let text = file.text(&value);
            match knob.kind() {
                Kind::Cgroup => node.put(&format!("cg/a/{file}"), &text),
                Kind::Process => PIDS.iter().for_each(|pid| node.put(&format!("proc/{pid}/{file}"), &text)),
            }
        }
    }
    if version == Version::V1 {
        let controllers: BTreeSet<&str> = KNOBS.iter().map(|knob| knob.controller()).collect();
        let mounts = controllers.iter().map(|name| format!("32 31 0:29 / /cg rw,relatime - cgroup cgroup rw,{name}\n"));
        node.put("proc/self/mountinfo", &mounts.collect::<String>());
    }
    node.put("cg/a/cgroup.procs", &PIDS.map(|pid| format!("{pid}\n")).concat());
    PIDS.iter().for_each(|pid| node.process(*pid, 1, 1_000 + pid));
    node
}

const PIDS: [u64; 2] = [101, 102];

impl Node {
    fn process(&self, pid: u64, parent: u64, started: u64) {
        let stat = format!("{pid} (a b) S {parent} 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 0 0\n");
        self.put(&format!("proc/{pid}/stat"), &stat);
    }

    /// The texts of a knob's files, of all its objects.
    fn texts(&self, knob: Knob, version: Version) -> Vec<(File, String)> {
        let read = |path: String| fs::read_to_string(self.root.path().join(path)).unwrap();
        let texts = |file: File| match knob.kind() {
            Kind::Cgroup => vec![read(format!("cg/a/{file}"))],
            Kind::Process => PIDS.iter().map(|pid| read(format!("proc/{pid}/{file}"))).collect(),
        };
        knob.files(version).flat_map(|file| texts(file).into_iter().map(move |text| (file, text))).collect()
    }
}

#[test]
fn every_knob_is_set_and_released_and_a_killed_guard_is_undone() {
    let pace = Pace { burst: 1_000, every: Duration::from_secs(1) };
    for (version, knob) in
        [Version::V1, Version::V2].into_iter().flat_map(|version| KNOBS.iter().map(move |k| (version, *k)))
    {
        let node = node_with_everything(version);
        let mut executor = node.open(ExecutorOptions { pace, ..ExecutorOptions::default() });
        let settings = some_values();
        let settings: Vec<Setting> = settings.iter().filter_map(|value| knob.setting(value)).collect();
        let originals = node.texts(knob, version);
        let is_back = || {
            let mut pairs = node.texts(knob, version).into_iter().zip(&originals);
            pairs.all(|((file, now), (_, before))| file.same(&now, before))
        };
        let mut written = Vec::new();
        for setting in &settings {
            let outcome = only(executor.apply(&[node.set("/a", setting.clone())]));
            match outcome.result {
                WriteResult::Written => written.push(setting.clone()),
                WriteResult::Unchanged | WriteResult::Refused(_) => continue,
                result => panic!("{setting:?} on {version}: {result}"),
            }
            let values = setting.values(version, WeightFormula::default());
            for (file, now) in node.texts(knob, version) {
                let wanted = values.iter().find(|(of, _)| *of == file).map(|(_, value)| value);
                assert_eq!(file.parse(&now).as_ref().ok(), wanted, "{setting:?} on {version}");
            }
            assert!(executor.check_drift().is_empty());
            let outcome = only(executor.apply(&[node.change("/a", What::Release(knob))]));
            assert_eq!((outcome.result, is_back()), (WriteResult::Written, true), "{setting:?} on {version}");
        }
        assert_eq!(written.is_empty(), knob.files(version).next().is_none(), "{knob} on {version}");
        let Some(setting) = written.pop() else { continue };
        assert_eq!(only(executor.apply(&[node.set("/a", setting)])).result, WriteResult::Written);
        drop(executor);
        let report = node.restore();
        assert!(report.is_complete() && is_back(), "{knob} on {version}: {report}");
    }
}

#[test]
fn a_process_that_came_from_one_with_a_held_value_gets_back_what_that_one_had() {
    for knob in KNOBS.iter().filter(|knob| knob.kind() == Kind::Process) {
        let node = node_with_everything(Version::V2);
        let mut executor = node.open(ExecutorOptions::default());
        let [file] = knob.files(Version::V2).collect::<Vec<_>>()[..] else { panic!("{knob} has several files") };
        let original = node.texts(*knob, Version::V2)[0].1.clone();
        let settings = some_values().iter().filter_map(|value| knob.setting(value)).collect::<Vec<_>>();
        let change = settings.into_iter().map(|setting| node.set("/a", setting));
        let mut is_taken =
            |change: &Change| only(executor.apply(std::slice::from_ref(change))).result == WriteResult::Written;
        assert!(change.map(|change| is_taken(&change)).collect::<Vec<_>>().contains(&true));
        // A child of the first, one that somebody else moved in, and a successor of the second under its pid.
        let held = fs::read_to_string(node.root.path().join(format!("proc/101/{file}"))).unwrap();
        node.process(201, 101, 2_001);
        node.put(&format!("proc/201/{file}"), &held);
        node.process(301, 1, 1_002);
        node.put(&format!("proc/301/{file}"), &original);
        node.process(102, 1, 3_000);
        node.put("cg/a/cgroup.procs", "101\n201\n301\n");
        executor.check_drift();
        let text = |pid: u64| fs::read_to_string(node.root.path().join(format!("proc/{pid}/{file}"))).unwrap();
        assert!([101, 201, 301].into_iter().all(|pid| file.same(&text(pid), &held)), "not all carry it");
        drop(executor);
        assert!(node.restore().is_complete());
        assert!([101, 201, 301].into_iter().all(|pid| file.same(&text(pid), &original)), "not all have it back");
        assert!(file.same(&text(102), &held), "a successor was written");
    }
}

#[test]
fn a_journal_of_the_format_before_is_put_back() {
    // Left by a guard of that format that was killed while it held two quotas of v1.
    let left = include_str!("journal_format_1");
    let node = Node::new(Version::V1);
    for (path, recorded) in [("/guard-rec", 1_211_647), ("/guard-rec/inner", 1_211_661)] {
        node.cgroup(path, Version::V1);
        let id = Hierarchy::detect(node.root.path()).unwrap().id(path).unwrap();
        // The ids are another node's.
        let line = |line: &str| {
            let json = line[9..].replace(&format!("\"id\":{recorded},"), &format!("\"id\":{id},"));
            format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
        };
        let before = fs::read_to_string(node.journal()).unwrap_or_else(|_| left.to_owned());
        node.put("state/journal", &before.lines().map(line).collect::<String>());
    }
    node.boot("99b7add9-e693-435e-bb81-4a93a0b6460e");
    let report = node.restore();
    assert!(report.is_complete() && report.damaged == 0, "{report}");
    let quotas = ["guard-rec/cpu.cfs_quota_us", "guard-rec/inner/cpu.cfs_quota_us"].map(|file| node.get(file));
    assert_eq!(quotas, ["50000", "20000"]);
    assert_eq!(node.restore().files, []);
}

/// Cgroups of our own in this machine's v1 hierarchies, removed when dropped.
struct Real {
    dirs: Vec<PathBuf>,
    path: String,
    state: tempfile::TempDir,
}

impl Real {
    fn new(name: &str) -> Option<Self> {
        let hierarchy = Hierarchy::detect(Path::new("/")).ok().filter(|of| of.version() == Version::V1)?;
        let path = format!("/guard-unit-{name}-{}", std::process::id());
        let mut dirs = vec![hierarchy.dir(&path).ok()?];
        dirs.extend(hierarchy.dir_of("cpuset", &path).and_then(Result::ok));
        let real = Self { dirs, path, state: tempfile::tempdir().unwrap() };
        for dir in &real.dirs {
            for below in ["", "b", "b/c"] {
                if let Err(error) = fs::create_dir(dir.join(below)) {
                    eprintln!("skipped: cannot make cgroups here: {error}");
                    return None;
                }
            }
        }
        Some(real)
    }

    fn open(&self) -> Executor {
        let hierarchy = Hierarchy::detect(Path::new("/")).unwrap();
        Executor::open(hierarchy, self.state.path(), ExecutorOptions::default()).unwrap()
    }

    fn set(&self, below: &str, setting: Setting) -> Change {
        let path = format!("{}{below}", self.path);
        let id = Hierarchy::detect(Path::new("/")).unwrap().id(&path).unwrap();
        Change { path, id, what: What::Set(setting) }
    }

    /// All that guard may write, of all three cgroups.
    fn look(&self) -> Vec<String> {
        let files = [
            File::CFS_QUOTA,
            File::CFS_PERIOD,
            File::CFS_BURST,
            File::SHARES,
            File::IDLE,
            File::RT_RUNTIME,
            File::CPUS,
            File::MEMS,
        ];
        let files = files.iter().flat_map(|file| ["", "b", "b/c"].map(|below| (file, below)));
        files
            .map(|(file, below)| {
                let dirs = self.dirs.iter().find_map(|dir| fs::read_to_string(dir.join(below).join(file.name())).ok());
                format!("{below}/{file}={}", dirs.unwrap_or_default().trim())
            })
            .collect()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for dir in &self.dirs {
            for below in ["b/c", "b", ""] {
                let _ = fs::remove_dir(dir.join(below));
            }
        }
    }
}

#[test]
fn a_real_v1_hierarchy_takes_whole_batches_both_ways_and_is_restored() {
    let Some(real) = Real::new("batch") else {
        eprintln!("skipped: needs root and a v1 cpu hierarchy");
        return;
    };
    let originals = real.look();
    let bandwidth = |quota_us, period_us| Setting::Quota(Bandwidth { quota_us: Some(quota_us), period_us });
    let cpus = |text: &str| Setting::Cpus(text.parse().unwrap());
    let mut executor = real.open();
    let first = [
        real.set("/b/c", bandwidth(40_000, 100_000)),
        real.set("/b", bandwidth(30_000, 50_000)),
        real.set("", bandwidth(80_000, 100_000)),
        real.set("/b", Setting::Burst(20_000)),
        real.set("/b/c", cpus("0")),
        real.set("/b", cpus("0-1")),
        real.set("", cpus("0-1")),
        real.set("", Setting::Idle(true)),
        real.set("/b", Setting::Shares(300)),
        real.set("/b", Setting::RtRuntime(1_000)),
        real.set("", Setting::RtRuntime(2_000)),
    ];
    let outcomes = executor.apply(&first);
    assert!(outcomes.iter().all(|outcome| outcome.result == WriteResult::Written), "{outcomes:#?}");
    assert!(executor.check_drift().is_empty());
    // Everything smaller, and the CPUs elsewhere: nothing of it is allowed in any other order.
    let second = [
        real.set("", bandwidth(20_000, 250_000)),
        real.set("/b", bandwidth(5_000, 100_000)),
        real.set("/b", Setting::Burst(5_000)),
        real.set("/b/c", bandwidth(2_000, 50_000)),
        real.set("", cpus("1")),
        real.set("/b", cpus("1")),
        real.set("/b/c", cpus("1")),
        real.set("", Setting::RtRuntime(500)),
        real.set("/b", Setting::RtRuntime(500)),
    ];
    let outcomes = executor.apply(&second);
    assert!(outcomes.iter().all(|outcome| outcome.result == WriteResult::Written), "{outcomes:#?}");
    let refused = executor.apply(&[real.set("/b/c", bandwidth(90_000, 100_000))]);
    assert!(matches!(refused[0].result, WriteResult::Refused(_)), "{refused:?}");
    drop(executor);
    let report = restore(Path::new("/"), real.state.path(), false).unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(real.look(), originals, "{report}");
}

#[test]
fn a_real_cgroup_that_is_made_anew_under_its_path_is_left_alone() {
    let Some(real) = Real::new("anew") else {
        eprintln!("skipped: needs root and a v1 cpu hierarchy");
        return;
    };
    let mut executor = real.open();
    let change = real.set("/b/c", quota(20_000));
    assert_eq!(only(executor.apply(std::slice::from_ref(&change))).result, WriteResult::Written);
    let dir = real.dirs[0].join("b/c");
    fs::remove_dir(&dir).unwrap();
    let gone = executor.apply(std::slice::from_ref(&change));
    assert_eq!(gone[0].result, WriteResult::Gone);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cpu.cfs_quota_us"), "20000").unwrap();
    assert_eq!(only(executor.apply(&[change])).result, WriteResult::Gone);
    drop(executor);
    restore(Path::new("/"), real.state.path(), false).unwrap();
    assert_eq!(fs::read_to_string(dir.join("cpu.cfs_quota_us")).unwrap().trim(), "20000");
}
