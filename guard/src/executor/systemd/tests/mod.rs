//! The agent against somebody who plays systemd on a real bus: what it is sent, what comes back, and whom it survives.

mod fake;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use self::fake::{Manner, Node, until};
use super::*;
use crate::{
    executor::{Change, Executor, ExecutorOptions, What},
    knob::INFINITY,
    snapshot::Bandwidth,
};

const QUOTA: &str = "CPUQuotaPerSecUSec";
const WEIGHT: &str = "CPUWeight";
const NAME: &str = "plc@a\\x2db.service";
const PATH: &str = "/system.slice/plc@a\\x2db.service";
/// Enough for whoever answers, and soon over where nobody does.
const PATIENCE: Duration = Duration::from_secs(2);

impl Node {
    fn options(&self) -> UnitsOptions {
        UnitsOptions {
            root: self.root.path().to_owned(),
            bus: Some(self.daemon.address()),
            patience: PATIENCE,
            ..UnitsOptions::default()
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.root.path().join("state/units")
    }

    fn units(&self) -> Units {
        Units::start(self.hierarchy(), &self.state_dir(), self.options()).unwrap()
    }

    /// Lifts as a lane does: first the file.
    fn lift(&self, units: &Units, path: &str) {
        self.put(path, "cpu.max", "max 100000");
        units.hold(path, self.id(path), &lifted());
    }

    fn knows_lift(&self, unit: &str) -> bool {
        self.property(unit, QUOTA) == Property::Number(INFINITY)
    }

    fn restore(&self) -> Report {
        restore_units(&self.state_dir(), self.options(), false, Duration::from_secs(10)).unwrap()
    }

    /// Waits until the agent has found nothing left to do: the last thing it does is to note the drop-in.
    fn settled(&self, unit: &str) {
        until("the agent is done", || {
            let journal = fs::read_to_string(self.state_dir().join("journal")).unwrap_or_default();
            let last = journal.lines().rev().find(|line| line.contains(&json(unit)) && line.contains(QUOTA));
            last.is_some_and(|line| line.contains("# set-property"))
        });
    }

    /// Another guard's end: what was sent is only in the journal.
    fn killed(&self, units: Units) {
        drop(units);
        until("the agent has gone", || Lock::take(&self.state_dir()).is_ok());
    }

    #[track_caller]
    fn expect_as_before(&self) {
        assert_eq!(self.property(NAME, QUOTA), Property::Number(200_000));
        assert_eq!(self.property(NAME, WEIGHT), Property::Number(INFINITY));
        assert_eq!(self.drop_ins(NAME), []);
        assert!(self.restore().properties.is_empty(), "something is still held");
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn lifted() -> Setting {
    Setting::Quota(Bandwidth::UNLIMITED)
}

/// A node with a service of 20 % in it; the test is over where there is no dbus-daemon.
macro_rules! node {
    () => {{
        let Some(node) = Node::start() else { return };
        node.unit(NAME, PATH, 200_000);
        node
    }};
}

/// A node whose service guard has lifted, with the agent at work.
macro_rules! lifted_node {
    () => {{
        let node = node!();
        let units = node.units();
        node.lift(&units, PATH);
        (node, units)
    }};
}

fn ended(units: &Units) -> Vec<RestoredProperty> {
    units.end(Duration::from_secs(10)).unwrap()
}

#[test]
fn systemd_is_told_after_the_file_and_everything_comes_back_at_the_end() {
    let (node, units) = lifted_node!();
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.settled(NAME);
    // Without a weight of its own it would have no cpu controller.
    assert_eq!(node.property(NAME, WEIGHT), Property::Number(100));
    assert_eq!(node.get(PATH, "cpu.max"), "max 100000");
    assert_eq!(node.drop_ins(NAME).len(), 2);
    // Lanes put files back first.
    node.put(PATH, "cpu.max", "20000 100000");
    let restored = ended(&units);
    assert!(restored.iter().all(|property| property.result == WriteResult::Written), "{restored:?}");
    assert_eq!(restored.len(), 2);
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    node.expect_as_before();
}

#[test]
fn what_a_killed_guard_has_told_is_put_back_by_the_next() {
    for by_restore in [true, false] {
        let (node, units) = lifted_node!();
        until("systemd knows of the lift", || node.knows_lift(NAME));
        node.killed(units);
        if by_restore {
            let report = node.restore();
            assert!(report.is_complete() && report.properties.len() == 2, "{report}");
        } else {
            let units = node.units();
            until("the next guard puts it back", || !node.knows_lift(NAME));
            ended(&units);
        }
        node.expect_as_before();
    }
}

#[test]
fn a_release_puts_the_property_back_and_leaves_the_file_as_it_was_found() {
    let node = node!();
    // systemd knows nothing of this.
    node.put(PATH, "cpu.max", "33000 100000");
    let units = node.units();
    node.lift(&units, PATH);
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.settled(NAME);
    node.put(PATH, "cpu.max", "33000 100000");
    units.let_go(PATH, node.id(PATH), Knob::Quota);
    until("the property is back", || !node.knows_lift(NAME));
    until("the drop-ins have gone", || node.drop_ins(NAME).is_empty());
    assert_eq!(node.get(PATH, "cpu.max"), "33000 100000");
    ended(&units);
    node.expect_as_before();
}

#[test]
fn what_others_wrote_by_hand_into_other_files_survives_that_systemd_knows_lift() {
    let node = node!();
    node.put(PATH, "cpu.weight", "333");
    node.put(PATH, "memory.high", "1073741824");
    let units = node.units();
    node.lift(&units, PATH);
    node.settled(NAME);
    assert_eq!(node.property(NAME, WEIGHT), Property::Number(333));
    // Lanes put files back first.
    node.put(PATH, "cpu.max", "20000 100000");
    ended(&units);
    assert_eq!(node.property(NAME, QUOTA), Property::Number(200_000));
    assert_eq!((node.get(PATH, "cpu.weight"), node.get(PATH, "memory.high")), ("333".into(), "1073741824".into()));
}

#[test]
fn a_late_answer_to_an_old_value_does_not_stay_in_a_file_that_was_put_back() {
    let (node, units) = lifted_node!();
    node.settled(NAME);
    // The lane has put the file back, and only now systemd writes what it was sent before.
    node.put(PATH, "cpu.max", "20000 100000");
    node.state().write_files(NAME);
    assert_eq!(node.get(PATH, "cpu.max"), "max 100000");
    units.let_go(PATH, node.id(PATH), Knob::Quota);
    until("the property is back", || !node.knows_lift(NAME));
    ended(&units);
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    node.expect_as_before();
}

#[test]
fn nothing_is_told_that_would_enforce_a_limit_below_what_is_in_use() {
    let node = node!();
    node.state().units.get_mut(NAME).unwrap().properties.insert("MemoryMax".into(), Property::Number(1_000_000));
    node.put(PATH, "memory.max", "max");
    node.put(PATH, "memory.current", "5000000");
    let other = "/system.slice/other.service";
    node.unit("other.service", other, 100_000);
    let units = node.units();
    node.lift(&units, PATH);
    node.lift(&units, other);
    until("the other unit is told", || node.knows_lift("other.service"));
    // By its name it comes after the one that is not.
    until("the first was looked at", || !node.state().set.is_empty());
    ended(&units);
    assert!(node.state().set.iter().all(|(unit, ..)| unit == "other.service"));
    assert_eq!((node.get(PATH, "memory.max"), node.get(PATH, "cpu.max")), ("max".into(), "max 100000".into()));
}

#[test]
fn a_property_that_somebody_else_sets_stays_and_so_does_its_drop_in() {
    for persistent in [false, true] {
        let (node, units) = lifted_node!();
        until("systemd knows of the lift", || node.knows_lift(NAME));
        node.settled(NAME);
        node.state().set(NAME, QUOTA, Property::Number(500_000), persistent);
        let restored = ended(&units);
        let of_quota = restored.iter().find(|property| property.property == QUOTA).unwrap();
        assert!(matches!(of_quota.result, WriteResult::Foreign(_)), "{restored:?}");
        assert_eq!(node.property(NAME, QUOTA), Property::Number(500_000));
        // The other's own; guard's, which a persistent one outranks, has gone.
        assert_eq!(node.drop_ins(NAME).len(), usize::from(!persistent));
        assert!(node.restore().properties.is_empty());
    }
}

#[test]
fn a_lift_that_is_asserted_again_keeps_the_others_value_for_the_end() {
    for persistent in [false, true] {
        let (node, units) = lifted_node!();
        until("systemd knows of the lift", || node.knows_lift(NAME));
        node.settled(NAME);
        node.state().set(NAME, QUOTA, Property::Number(500_000), persistent);
        node.lift(&units, PATH);
        until("it is told again", || node.knows_lift(NAME));
        let killed = persistent;
        if killed {
            node.killed(units);
        } else {
            drop(ended(&units));
        }
        node.restore();
        assert_eq!(node.property(NAME, QUOTA), Property::Number(500_000));
        let of_the_other = if persistent { 0 } else { 1 };
        assert_eq!(node.drop_ins(NAME).len(), of_the_other, "{:?}", node.drop_ins(NAME));
        node.state().reload();
        assert_eq!(node.property(NAME, QUOTA), Property::Number(500_000));
    }
}

#[test]
fn a_drop_in_that_was_there_before_is_there_again() {
    let node = node!();
    node.state().set(NAME, QUOTA, Property::Number(150_000), false);
    let before = node.drop_ins(NAME);
    let units = node.units();
    node.lift(&units, PATH);
    until("systemd knows of the lift", || node.knows_lift(NAME));
    ended(&units);
    assert_eq!((node.drop_ins(NAME), node.property(NAME, QUOTA)), (before, Property::Number(150_000)));
}

#[test]
fn a_unit_that_stops_gets_its_properties_back_at_once_and_is_told_anew_when_it_starts() {
    let (node, units) = lifted_node!();
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.settled(NAME);
    let old = node.id(PATH);
    node.state().stop(NAME);
    // As the lane does when it finds the cgroup gone.
    units.let_go(PATH, old, Knob::Quota);
    until("the property is back", || !node.knows_lift(NAME));
    until("the drop-ins have gone", || node.drop_ins(NAME).is_empty());
    {
        let mut state = node.state();
        state.units.get_mut(NAME).unwrap().is_active = true;
        state.make_cgroup(NAME);
    }
    node.lift(&units, PATH);
    until("systemd knows of the lift", || node.knows_lift(NAME));
    // Somebody is late with the news of the first cgroup's end.
    units.let_go(PATH, old + 1_000_000, Knob::Quota);
    ended(&units);
    node.expect_as_before();
}

#[test]
fn a_transient_unit_takes_everything_along() {
    let node = node!();
    let path = "/machine.slice/libpod-1.scope";
    node.unit("libpod-1.scope", path, 100_000);
    let units = node.units();
    node.lift(&units, path);
    until("systemd knows of the lift", || node.knows_lift("libpod-1.scope"));
    node.settled("libpod-1.scope");
    let id = node.id(path);
    node.state().stop("libpod-1.scope");
    units.let_go(path, id, Knob::Quota);
    let restored = ended(&units);
    assert!(restored.iter().all(|property| property.result == WriteResult::Gone), "{restored:?}");
    assert!(node.restore().properties.is_empty());
}

#[test]
fn a_unit_of_another_systemd_is_none_of_this_ones() {
    let node = node!();
    let inside = format!("/machine.slice/container{PATH}");
    fs::create_dir_all(node.file(&inside, "")).unwrap();
    let below = format!("{PATH}/sub");
    fs::create_dir_all(node.file(&below, "")).unwrap();
    node.unit("seen.service", "/system.slice/seen.service", 100_000);
    let units = node.units();
    node.lift(&units, &inside);
    node.lift(&units, &below);
    node.lift(&units, "/system.slice/seen.service");
    until("the one that is, is told", || node.knows_lift("seen.service"));
    ended(&units);
    assert!(node.state().set.iter().all(|(unit, ..)| unit == "seen.service"));
}

#[test]
fn what_systemd_is_not_told_of_needs_no_call() {
    let node = node!();
    let units = node.units();
    units.hold(PATH, node.id(PATH), &Setting::Burst(1_000));
    units.hold(PATH, node.id(PATH), &Setting::Shares(2048));
    node.put(PATH, "cpu.weight", "174");
    until("the weight is told", || node.property(NAME, WEIGHT) == Property::Number(174));
    ended(&units);
    assert!(node.state().set.iter().all(|(_, property, _)| property == WEIGHT));
    node.expect_as_before();
}

#[test]
fn no_bus_costs_nobody_anything() {
    let node = node!();
    let options = UnitsOptions { bus: Some("unix:path=/nonexistent/bus".into()), ..node.options() };
    let units = Units::start(node.hierarchy(), &node.state_dir(), options).unwrap();
    let begin = Instant::now();
    node.lift(&units, PATH);
    assert_eq!(ended(&units), []);
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert_eq!(node.state().set, []);
}

#[test]
fn a_bus_that_hangs_is_waited_for_by_nobody_but_the_agent_and_what_is_owed_is_kept() {
    let (node, units) = lifted_node!();
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.settled(NAME);
    node.daemon.signal(Signal::STOP);
    let begin = Instant::now();
    for _ in 0..100 {
        node.lift(&units, PATH);
    }
    // Nobody has waited for an answer a hundred times, nor five.
    assert!(begin.elapsed() < PATIENCE * 5, "posting took {:?}", begin.elapsed());
    let begin = Instant::now();
    let restored = units.end(Duration::from_secs(3)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "the end took {:?}", begin.elapsed());
    assert!(restored.iter().all(|property| matches!(property.result, WriteResult::Failed(_))), "{restored:?}");
    assert_eq!(restored.len(), 2);
    until("the agent has gone", || Lock::take(&node.state_dir()).is_ok());
    // guard restore finds it as silent.
    let report = restore_units(&node.state_dir(), node.options(), false, Duration::from_secs(1)).unwrap();
    assert!(!report.is_complete() && report.to_string().contains("failed"), "{report}");
    until("the agent has gone", || Lock::take(&node.state_dir()).is_ok());
    node.daemon.signal(Signal::CONT);
    let report = node.restore();
    assert!(report.is_complete() && report.properties.len() == 2, "{report}");
    node.expect_as_before();
}

#[test]
fn systemd_that_is_silent_for_a_while_is_told_later() {
    let node = node!();
    node.state().manner = Manner::Silent;
    let units = node.units();
    node.lift(&units, PATH);
    // Over the first time-out.
    thread::sleep(PATIENCE + PATIENCE / 2);
    assert!(!node.knows_lift(NAME));
    node.state().manner = Manner::Good;
    until("systemd knows of the lift", || node.knows_lift(NAME));
    ended(&units);
    node.expect_as_before();
}

#[test]
fn systemd_that_leaves_the_bus_and_comes_back_knows_lift() {
    let mut node = node!();
    node.leave();
    let units = node.units();
    node.lift(&units, PATH);
    node.serve();
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.settled(NAME);
    node.leave();
    node.serve();
    ended(&units);
    node.expect_as_before();
}

#[test]
fn a_bus_that_is_started_anew_is_found_again() {
    let mut node = node!();
    let units = node.units();
    node.lift(&units, PATH);
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.settled(NAME);
    node.leave();
    node.daemon.restart();
    node.serve();
    node.unit("late.service", "/system.slice/late.service", 100_000);
    node.lift(&units, "/system.slice/late.service");
    until("systemd knows of the other lift", || node.knows_lift("late.service"));
    ended(&units);
    node.expect_as_before();
}

#[test]
fn garbage_and_denial_are_survived_and_told_of_at_the_end() {
    for manner in [Manner::Garbage, Manner::Denying] {
        let (node, units) = lifted_node!();
        until("systemd knows of the lift", || node.knows_lift(NAME));
        node.settled(NAME);
        node.state().manner = manner;
        node.lift(&units, PATH);
        let restored = ended(&units);
        assert!(restored.iter().all(|property| matches!(property.result, WriteResult::Failed(_))), "{restored:?}");
        assert_eq!(restored.len(), 2, "{manner:?}");
        node.state().manner = Manner::Good;
        assert!(node.restore().is_complete());
        node.expect_as_before();
    }
}

#[test]
fn a_unit_that_may_not_be_told_keeps_no_other_from_it() {
    let node = node!();
    node.state().manner = Manner::Denying;
    let units = node.units();
    node.lift(&units, PATH);
    until("it was tried", || {
        let journal = fs::read_to_string(node.state_dir().join("journal")).unwrap_or_default();
        journal.contains(QUOTA)
    });
    node.state().manner = Manner::Good;
    node.unit("other.service", "/system.slice/other.service", 100_000);
    node.lift(&units, "/system.slice/other.service");
    until("the other is told", || node.knows_lift("other.service"));
    until("it is tried again", || node.knows_lift(NAME));
    ended(&units);
    node.expect_as_before();
}

#[test]
fn a_panic_of_the_agent_ends_one_look_and_not_the_agent() {
    let node = node!();
    let options = UnitsOptions { panic_on: Some(PATH.to_owned()), ..node.options() };
    let units = Units::start(node.hierarchy(), &node.state_dir(), options).unwrap();
    node.lift(&units, PATH);
    until("systemd knows of the lift all the same", || node.knows_lift(NAME));
    ended(&units);
    node.expect_as_before();
}

/// Answers as systemd's private socket does: with a sender that is no unique name, upon which the library panics.
#[test]
fn a_panic_of_the_library_is_a_bus_that_is_away() {
    let node = node!();
    let socket = node.root.path().join("bad");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0_u8; 4096];
            let mut answered = 0;
            while let Ok(read) = stream.read(&mut buffer)
                && read > 0
            {
                seen.extend_from_slice(&buffer[..read]);
                let has = |what: &[u8]| seen.windows(what.len()).any(|window| window == what);
                if answered == 0 && has(b"AUTH EXTERNAL") {
                    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
                    answered = 1;
                }
                if answered == 1 && has(b"NEGOTIATE_UNIX_FD") {
                    stream.write_all(b"AGREE_UNIX_FD\r\n").unwrap();
                    answered = 2;
                }
                if answered == 2 && has(b"Hello") {
                    let _ = stream.write_all(&hello_of_a_well_known_name());
                    answered = 3;
                }
            }
        }
    });
    let address = format!("unix:path={}", socket.display());
    let options = UnitsOptions { bus: Some(address), patience: Duration::from_millis(500), ..node.options() };
    let units = Units::start(node.hierarchy(), &node.state_dir(), options).unwrap();
    node.lift(&units, PATH);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(units.end(Duration::from_secs(2)), Some(Vec::new()));
}

/// A method return to serial 1 with one string.
fn hello_of_a_well_known_name() -> Vec<u8> {
    let string = |text: &str| {
        let mut bytes = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        bytes
    };
    let mut fields: Vec<u8> = Vec::new();
    let mut field = |code: u8, signature: u8, value: &[u8]| {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend_from_slice(&[code, 1, signature, 0]);
        fields.extend_from_slice(value);
    };
    field(5, b'u', &1_u32.to_le_bytes());
    field(7, b's', &string("org.freedesktop.systemd1"));
    field(8, b'g', &[1, b's', 0]);
    let body = string(":1.1");
    let mut message = vec![b'l', 2, 1, 1];
    message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    message.extend_from_slice(&1_u32.to_le_bytes());
    message.extend_from_slice(&u32::try_from(fields.len()).unwrap().to_le_bytes());
    message.extend_from_slice(&fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(&body);
    message
}

#[test]
fn an_older_guards_journal_is_taken_over_and_restored() {
    let node = node!();
    // As a guard wrote it that kept a unit's properties beside its file; cut from its journal, with this node's ids.
    let id = node.id(PATH);
    let lines = [
        r#"{"record":"journal","format":1,"boot":"boot-1"}"#.to_owned(),
        format!(
            r#"{{"record":"held","boot":"boot-1","path":{0},"id":{id},"file":"cpu.max","original":"20000 100000","ours":[],"unit":{{"name":{1},"properties":[["CPUQuotaPerSecUSec",200000],["CPUQuotaPeriodUSec",18446744073709551615]]}}}}"#,
            json(PATH),
            json(NAME)
        ),
        format!(
            r#"{{"record":"held","boot":"boot-1","path":{0},"id":{id},"file":"cpu.max","original":"20000 100000","ours":["max 100000"],"unit":{{"name":{1},"properties":[["CPUQuotaPerSecUSec",200000],["CPUQuotaPeriodUSec",18446744073709551615]]}}}}"#,
            json(PATH),
            json(NAME)
        ),
    ];
    let text: String = lines.iter().map(|line| format!("{:08x} {line}\n", crc32fast::hash(line.as_bytes()))).collect();
    let lane = node.root.path().join("state/protect");
    fs::create_dir_all(&lane).unwrap();
    fs::write(lane.join("journal"), text).unwrap();
    node.put(PATH, "cpu.max", "max 100000");
    {
        let mut state = node.state();
        state.set(NAME, QUOTA, Property::Number(INFINITY), false);
    }
    for _ in 0..2 {
        // Also when it was killed between the two.
        adopt_units(std::slice::from_ref(&lane), &node.state_dir(), &node.options()).unwrap();
    }
    let files = crate::executor::restore(node.root.path(), &lane, false).unwrap();
    assert_eq!(files.files[0].result, WriteResult::Written);
    assert!(!fs::read_to_string(lane.join("journal")).unwrap().contains("properties"));
    let report = node.restore();
    assert!(report.is_complete(), "{report}");
    assert_eq!(node.property(NAME, QUOTA), Property::Number(200_000));
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    assert!(node.restore().properties.is_empty());
}

#[test]
fn another_boot_leaves_no_property_to_put_back() {
    let (node, units) = lifted_node!();
    until("systemd knows of the lift", || node.knows_lift(NAME));
    node.killed(units);
    fs::write(node.root.path().join("proc/sys/kernel/random/boot_id"), "boot-2").unwrap();
    let report = node.restore();
    assert!(report.properties.is_empty() && report.other_boot > 0 && report.is_complete(), "{report}");
}

#[test]
fn where_systemd_does_not_run_nothing_is_started() {
    let node = node!();
    fs::remove_dir(node.root.path().join("run/systemd/system")).unwrap();
    let units = node.units();
    assert_eq!(format!("{units:?}"), "no Units");
    node.lift(&units, PATH);
    assert_eq!(ended(&units), []);
    assert!(!node.state_dir().exists());
}

/// The executor and the agent together.
struct Lane<'a> {
    node: &'a Node,
    executor: Executor,
    units: Units,
}

impl<'a> Lane<'a> {
    fn open(node: &'a Node) -> Self {
        let units = node.units();
        let root = node.root.path().to_owned();
        let options = ExecutorOptions { root, units: units.clone(), ..ExecutorOptions::default() };
        let executor = Executor::open(node.hierarchy(), &node.root.path().join("state/lane"), options).unwrap();
        Self { node, executor, units }
    }

    fn apply(&mut self, what: What) -> WriteResult {
        let change = Change { path: PATH.to_owned(), id: self.node.id(PATH), what };
        self.executor.apply(&[change]).remove(0).result
    }
}

#[test]
fn what_systemd_rounds_at_a_reload_is_nobody_elses_value() {
    let node = node!();
    let mut lane = Lane::open(&node);
    let set = |us| What::Set(Setting::Quota(Bandwidth { quota_us: Some(us), period_us: 100_000 }));
    assert_eq!(lane.apply(set(34_711)), WriteResult::Written);
    until("it is told", || node.property(NAME, QUOTA) == Property::Number(347_110));
    node.settled(NAME);
    node.state().reload();
    assert_eq!(node.get(PATH, "cpu.max"), "34000 100000");
    let outcomes = lane.executor.check_drift();
    assert_eq!((outcomes.len(), &outcomes[0].result), (1, &WriteResult::Written));
    assert_eq!(node.get(PATH, "cpu.max"), "34711 100000");
    until("the exact value is told again", || node.property(NAME, QUOTA) == Property::Number(347_110));
    // Killed with the rounded one there, it is known for guard's.
    node.state().reload();
    let Lane { executor, units, .. } = lane;
    drop(executor);
    node.killed(units);
    let lane = node.root.path().join("state/lane");
    let files = crate::executor::restore(node.root.path(), &lane, false).unwrap();
    assert_eq!(files.files[0].result, WriteResult::Written, "{files}");
    assert!(node.restore().is_complete());
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    node.expect_as_before();
}

#[test]
fn a_reload_before_systemd_could_be_told_is_answered_by_another_lift() {
    let node = node!();
    node.state().manner = Manner::Silent;
    let mut lane = Lane::open(&node);
    assert_eq!(lane.apply(What::Lift(lifted())), WriteResult::Written);
    node.state().reload();
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    assert_eq!(lane.executor.check_drift()[0].result, WriteResult::Written);
    assert_eq!(node.get(PATH, "cpu.max"), "max 100000");
    node.state().manner = Manner::Good;
    until("it is told", || node.knows_lift(NAME));
    for outcome in lane.executor.restore_all() {
        assert_eq!(outcome.result, WriteResult::Written, "{outcome:?}");
    }
    ended(&lane.units);
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    node.expect_as_before();
}

#[test]
fn a_value_that_systemd_was_told_before_it_fell_silent_is_known_for_guards() {
    let node = node!();
    let mut lane = Lane::open(&node);
    let set = |us| What::Set(Setting::Quota(Bandwidth { quota_us: Some(us), period_us: 100_000 }));
    assert_eq!(lane.apply(set(50_000)), WriteResult::Written);
    until("it is told", || node.property(NAME, QUOTA) == Property::Number(500_000));
    node.settled(NAME);
    node.state().manner = Manner::Silent;
    for us in [40_000, 30_000, 25_000] {
        assert_eq!(lane.apply(set(us)), WriteResult::Written);
    }
    node.state().reload();
    assert_eq!(node.get(PATH, "cpu.max"), "50000 100000");
    assert_eq!(lane.executor.check_drift()[0].result, WriteResult::Written);
    assert_eq!(node.get(PATH, "cpu.max"), "25000 100000");
    node.state().manner = Manner::Good;
    lane.executor.restore_all();
    ended(&lane.units);
    assert_eq!(node.get(PATH, "cpu.max"), "20000 100000");
    node.expect_as_before();
}

#[test]
fn a_hand_written_value_stays_when_guard_gives_way_and_the_property_goes_back() {
    let node = node!();
    let mut lane = Lane::open(&node);
    let set = What::Set(Setting::Quota(Bandwidth { quota_us: Some(50_000), period_us: 100_000 }));
    assert_eq!(lane.apply(set), WriteResult::Written);
    until("it is told", || node.property(NAME, QUOTA) == Property::Number(500_000));
    node.settled(NAME);
    node.put(PATH, "cpu.max", "77000 100000");
    assert!(matches!(lane.executor.check_drift()[0].result, WriteResult::Foreign(_)));
    until("the property is back", || node.property(NAME, QUOTA) == Property::Number(200_000));
    ended(&lane.units);
    assert_eq!(node.get(PATH, "cpu.max"), "77000 100000");
    node.expect_as_before();
}

#[test]
fn names_of_units_are_told_by_the_last_part_of_the_path() {
    for (path, unit) in [
        ("/system.slice/foo.service", Some("foo.service")),
        ("/system.slice/system-foo.slice/foo@a\\x2db.service", Some("foo@a\\x2db.service")),
        ("/kubepods.slice", Some("kubepods.slice")),
        ("/machine.slice/libpod-1.scope", Some("libpod-1.scope")),
        ("/system.slice/_cpu.service", Some("cpu.service")),
        ("/machine.slice/libpod-1.scope/container", None),
        ("/kubepods/pod1", None),
        ("/a/.service", None),
        ("/", None),
    ] {
        assert_eq!(unit_name(path), unit, "{path}");
    }
}
