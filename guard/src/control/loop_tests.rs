//! The loop and the lanes against writers that hang, floods of events, and configurations with mistakes. Time is virtual;
//! the lanes are real threads, and what they do is waited for, never slept for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guard_common::event::{NewRealTime, Throttled};
use tokio::sync::mpsc;

use super::act::Actor;
use super::acting::{Acting, Enforce, Pace};
use super::audit::Audit;
use super::error::ControlError;
use super::lane::{CgroupKnob, Lane, Report, Which};
use super::left::Left;
use super::run_loop::{Ask, Loop, Request};
use super::selection::Keep;
use super::source::Source;
use super::thread_priority::ThreadPriority;
use super::writer::Writer;
use super::writers::{ByJournal, Writers};
use crate::config::Config;
use crate::executor::{self, Change, Outcome, Restored, Units, What, WriteResult};
use crate::fault;
use crate::kernel::Event;
use crate::knob::{File, Knob, Setting};
use crate::policy::{Direction, Origin, Want};
use crate::snapshot::{Bandwidth, Cgroup, Class, Knobs, Snapshot};
use crate::view::samples;

/// A writer that keeps its values in memory, and may hang or panic.
#[derive(Default)]
struct Paper {
    /// In which of its calls to panic.
    panics: Option<Call>,
    held: BTreeMap<CgroupKnob, (String, Setting)>,
    prepared: Arc<Mutex<Vec<(String, u64, Knob)>>>,
    /// Each call of `apply` says so here and waits for an answer.
    gate: Option<(Sender<usize>, Receiver<()>)>,
    /// What comes of the looks for drift, in order.
    drifts: VecDeque<WriteResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Prepare,
    Apply,
    CheckDrift,
    RestoreAll,
}

impl Paper {
    fn panicking(panics: Call) -> Self {
        Self { panics: Some(panics), ..Self::default() }
    }

    fn called(&self, call: Call) {
        assert_ne!(self.panics, Some(call), "no paper left");
    }

    fn hanging() -> (Self, Receiver<usize>, Sender<()>) {
        let (calls, called) = channel();
        let (go, may_go) = channel();
        (Self { gate: Some((calls, may_go)), ..Self::default() }, called, go)
    }
}

impl Writer for Paper {
    fn prepare(&mut self, knobs: &[(String, u64, Knob)]) {
        self.called(Call::Prepare);
        self.prepared.lock().unwrap().extend_from_slice(knobs);
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<Outcome> {
        if let Some((calls, may_go)) = &self.gate {
            calls.send(changes.len()).unwrap();
            may_go.recv().unwrap();
        }
        let mut outcome = |change: &Change| {
            let key = (change.id, change.what.knob());
            let old = self.held.get(&key).map(|(_, setting)| setting.to_string());
            let new = match &change.what {
                What::Set(setting) | What::Lift(setting) => {
                    self.held.insert(key, (change.path.clone(), setting.clone()));
                    setting.to_string()
                }
                What::Release(_) => {
                    self.held.remove(&key);
                    "original".to_owned()
                }
            };
            let (path, id, knob) = (change.path.clone(), change.id, key.1);
            Outcome { path, id, knob, old, new, result: WriteResult::Written }
        };
        let outcomes = changes.iter().map(&mut outcome).collect();
        // What was written is on no record but the journal.
        self.called(Call::Apply);
        outcomes
    }

    fn check_drift(&mut self) -> Vec<Outcome> {
        self.called(Call::CheckDrift);
        let result = self.drifts.pop_front();
        let outcome = |result| {
            let (id, knob, old, new) = (1, Knob::Quota, Some("50000 100000".to_owned()), "max 100000".to_owned());
            Outcome { path: "/c1".to_owned(), id, knob, old, new, result }
        };
        result.into_iter().map(outcome).collect()
    }

    fn restore_all(&mut self) -> Vec<Outcome> {
        self.called(Call::RestoreAll);
        let held = std::mem::take(&mut self.held).into_iter();
        held.map(|((id, knob), (path, setting))| {
            let (old, new) = (Some(setting.to_string()), "original".to_owned());
            Outcome { path, id, knob, old, new, result: WriteResult::Written }
        })
        .collect()
    }

    fn held(&self) -> Vec<(String, u64, Setting)> {
        self.held.iter().map(|((id, _), (path, setting))| (path.clone(), *id, setting.clone())).collect()
    }
}

struct Scene {
    writers: Writers,
    audit: PathBuf,
    _dir: tempfile::TempDir,
}

fn scene(protect: Paper, rest: Paper) -> Scene {
    scene_with(protect, rest, Box::new(|_| panic!("the journal is not asked for")))
}

fn scene_with(protect: Paper, rest: Paper, by_journal: ByJournal) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.jsonl");
    let (reports, received) = Writers::channel();
    let protect = Lane::start(Which::Protect, protect, reports.clone(), ThreadPriority::steady).unwrap();
    let rest = Lane::start(Which::Rest, rest, reports, ThreadPriority::steady).unwrap();
    let log = Audit::open(&audit).unwrap();
    Scene { writers: Writers::new([protect, rest], received, log, Units::default(), by_journal), audit, _dir: dir }
}

fn want(id: u64, origin: Origin, quota_us: Option<u64>) -> Want {
    Want {
        path: format!("/c{id}"),
        id,
        setting: Setting::Quota(Bandwidth { quota_us, period_us: 100_000 }),
        origin,
        direction: if origin == Origin::Suppress { Direction::Reduce } else { Direction::Lift },
        reason: "a test".into(),
        evidence: BTreeMap::new(),
    }
}

async fn take(writers: &mut Writers) -> (Which, Vec<String>) {
    let report: Report = writers.report().await;
    let values = (report.lane, report.done.iter().map(|done| done.outcome.new.clone()).collect());
    writers.take(report);
    values
}

#[tokio::test]
async fn each_write_is_told_and_a_failure_that_repeats_itself_once() {
    let failed = || WriteResult::Failed("no".to_owned());
    let drifts = [WriteResult::Written, WriteResult::Written, failed(), failed(), WriteResult::Written].into();
    let Scene { mut writers, audit, _dir } = scene(Paper { drifts, ..Paper::default() }, Paper::default());
    for _ in 0..5 {
        writers.want(vec![want(1, Origin::Protect, None)]);
        // That it was served, by both lanes, and what came of the look.
        for _ in 0..3 {
            take(&mut writers).await;
        }
    }
    writers.end(Duration::from_secs(60));
    let log = std::fs::read_to_string(audit).unwrap();
    let drifted = log.lines().filter(|line| line.contains("somebody else changed"));
    let results: Vec<bool> = drifted.map(|line| line.contains("\"result\":\"written\"")).collect();
    assert_eq!(results, [true, true, false, true], "{log}");
}

#[tokio::test]
async fn a_write_that_hangs_does_not_delay_protection() {
    let (slow, called, go) = Paper::hanging();
    let Scene { mut writers, .. } = scene(Paper::default(), slow);
    writers.want(vec![want(1, Origin::Suppress, Some(5_000))]);
    assert_eq!(take(&mut writers).await, (Which::Protect, vec![]));
    called.recv().unwrap();
    // The lane for the rest hangs in its write from here on.
    for n in 0..100 {
        writers.want_also(vec![want(2 + n, Origin::Protect, None)]);
        assert_eq!(take(&mut writers).await, (Which::Protect, vec!["max 100000".to_owned()]));
        writers.want(vec![want(1, Origin::Suppress, Some(6_000 + n))]);
        assert_eq!(take(&mut writers).await, (Which::Protect, vec!["original".to_owned()]));
    }
    // Then it serves the newest of the hundred plans, and none of those between.
    go.send(()).unwrap();
    assert_eq!(take(&mut writers).await, (Which::Rest, vec!["5000 100000".to_owned()]));
    assert_eq!(called.recv().unwrap(), 1);
    go.send(()).unwrap();
    assert_eq!(take(&mut writers).await, (Which::Rest, vec!["6099 100000".to_owned()]));
}

#[tokio::test]
async fn what_is_wanted_no_more_is_put_back_and_the_log_says_why() {
    let Scene { mut writers, audit, _dir } = scene(Paper::default(), Paper::default());
    writers.want(vec![want(1, Origin::Suppress, Some(5_000)), want(2, Origin::Protect, None)]);
    take(&mut writers).await;
    take(&mut writers).await;
    writers.want(vec![want(2, Origin::Protect, None)]);
    take(&mut writers).await;
    take(&mut writers).await;
    let (held, touched) = writers.state();
    assert_eq!((held, touched), (HashSet::from([(2, Knob::Quota)]), HashSet::from([1, 2])));
    assert_eq!(writers.end(Duration::from_secs(60)).left, Left::default());
    let log = std::fs::read_to_string(audit).unwrap();
    let mut reasons: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<crate::snapshot::Action>(line).unwrap())
        .map(|action| format!("{} {} -> {} {}: {}", action.path, action.old, action.new, action.result, action.reason))
        .collect();
    // The two lanes write at their own pace.
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "/c1  -> 5000 100000 written: a test",
            "/c1 5000 100000 -> original written: put back, because this holds no longer: a test",
            "/c2  -> max 100000 written: a test",
            "/c2 max 100000 -> original written: put back, because guard ends",
        ]
    );
}

#[tokio::test]
async fn a_knob_stays_with_the_lane_that_holds_it_until_it_was_put_back() {
    let Scene { mut writers, .. } = scene(Paper::default(), Paper::default());
    writers.want(vec![want(1, Origin::Suppress, Some(5_000))]);
    let mut reports = vec![take(&mut writers).await, take(&mut writers).await];
    // The best-effort cgroup has become a PLC.
    writers.want_also(vec![want(1, Origin::Protect, None)]);
    assert_eq!(take(&mut writers).await, (Which::Rest, vec!["max 100000".to_owned()]));
    writers.want(vec![]);
    reports.extend([take(&mut writers).await, take(&mut writers).await]);
    assert!(reports.contains(&(Which::Rest, vec!["original".to_owned()])));
    writers.want_also(vec![want(1, Origin::Protect, None)]);
    assert_eq!(take(&mut writers).await, (Which::Protect, vec!["max 100000".to_owned()]));
}

#[tokio::test]
async fn a_lane_that_never_comes_to_its_end_is_not_waited_for_for_ever() {
    let (stuck, called, go) = Paper::hanging();
    let Scene { mut writers, .. } = scene(Paper::default(), stuck);
    writers.want(vec![want(1, Origin::Suppress, Some(5_000))]);
    called.recv().unwrap();
    assert_eq!(take(&mut writers).await, (Which::Protect, vec![]));
    let left = writers.end(Duration::from_millis(500)).left;
    // On a machine that stood still so long, both.
    assert!((1..=2).contains(&left.lanes) && left.values == 0, "{left:?}");
    drop(go);
}

/// A node on which nothing happens but what a test lets happen.
struct Stage {
    events: Events,
    snapshots: u32,
    reconfigured: Arc<Mutex<Vec<Config>>>,
    protected: Arc<Mutex<HashSet<u64>>>,
}

enum Events {
    None,
    /// Once.
    Once(Vec<Event>),
    /// Whoever waits for them panics.
    Panic,
    /// As many as there is room for, at once, again and again.
    Flood {
        batches: Arc<Mutex<u32>>,
    },
}

impl Source for Stage {
    fn sample(&mut self) -> Result<(), ControlError> {
        Ok(())
    }

    fn snapshot(&mut self, _: &mut dyn FnMut(&[Event])) -> Result<(Snapshot, Keep), ControlError> {
        self.snapshots += 1;
        Ok((samples::empty(), Keep::All))
    }

    async fn events(&mut self) -> Result<Vec<Event>, ControlError> {
        match &mut self.events {
            Events::None => std::future::pending().await,
            Events::Panic => panic!("nobody to wait for"),
            Events::Once(events) if events.is_empty() => std::future::pending().await,
            Events::Once(events) => Ok(std::mem::take(events)),
            Events::Flood { batches } => {
                *batches.lock().unwrap() += 1;
                let event = |n: u64| Event::Throttled(Throttled { cgroup_id: n % 3, at_ns: n });
                Ok((0..10_000).map(event).collect())
            }
        }
    }

    fn report_throttles_of(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        self.protected.lock().unwrap().clone_from(ids);
        Ok(())
    }

    fn report_throttles_also_of(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        self.protected.lock().unwrap().extend(ids);
        Ok(())
    }

    fn set_fair_budgets(&mut self, _: &HashMap<u64, u64>) -> Result<(), ControlError> {
        Ok(())
    }

    fn discover(&mut self, ids: &HashSet<u64>) -> Vec<Cgroup> {
        let quota = Some(Bandwidth { quota_us: Some(20_000), period_us: 100_000 });
        let plc = |id: &u64| Cgroup {
            id: *id,
            path: format!("/c{id}"),
            class: Class::Plc,
            knobs: Some(Knobs { quota, ..Knobs::default() }),
            ..Cgroup::default()
        };
        ids.iter().map(plc).collect()
    }

    fn acted(&mut self, _: HashSet<CgroupKnob>, _: HashSet<u64>) {}

    fn reconfigure(&mut self, config: &Config) -> Result<(), ControlError> {
        self.reconfigured.lock().unwrap().push(config.clone());
        Ok(())
    }

    fn all_named_ended(&self) -> bool {
        false
    }
}

struct Requests(mpsc::UnboundedReceiver<Request>);

impl Ask for Requests {
    async fn next(&mut self) -> Request {
        match self.0.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

fn stage(events: Events) -> Stage {
    Stage { events, snapshots: 0, reconfigured: Arc::default(), protected: Arc::default() }
}

fn acting(file: Option<PathBuf>) -> Acting {
    Acting { config: Arc::default(), file, fixed_interval: false, enforce: Some(Enforce::default()) }
}

fn looped(
    source: Stage,
    writers: Writers,
    acting: Acting,
    duration: Option<Duration>,
) -> (Loop<Stage, Requests>, mpsc::UnboundedSender<Request>) {
    let (ask, asked) = mpsc::unbounded_channel();
    let actor = Some(Actor::new(acting.config.policy.clone(), Some(writers)));
    let pace = Pace { interval: Duration::from_secs(1), duration };
    (
        Loop { source, actor, asked: Requests(asked), acting: Some(acting), pace, priority: ThreadPriority::steady() },
        ask,
    )
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_is_answered_in_batches_and_does_not_hold_up_the_windows() {
    let batches = Arc::new(Mutex::new(0));
    let source = stage(Events::Flood { batches: Arc::clone(&batches) });
    let Scene { writers, .. } = scene(Paper::default(), Paper::default());
    let (looped, _ask) = looped(source, writers, acting(None), Some(Duration::from_secs(5)));
    let mut windows = 0;
    looped
        .run(|_, _| {
            windows += 1;
            Ok::<(), ControlError>(())
        })
        .await
        .unwrap();
    assert_eq!(windows, 5);
    let batches = *batches.lock().unwrap();
    assert!((100..=5_100).contains(&batches), "{batches} batches in 5 s");
}

#[tokio::test]
async fn a_new_plc_is_protected_at_once_and_its_throttles_are_watched() {
    let event = |id| Event::NewRealTime(NewRealTime { at_ns: 1, cgroup_id: id, tid: 7, policy: 1 });
    let source = stage(Events::Once(vec![event(5), event(5), event(6)]));
    let protected = Arc::clone(&source.protected);
    let Scene { writers, audit, _dir } = scene(Paper::default(), Paper::default());
    let (mut looped, ask) = looped(source, writers, acting(None), None);
    // No window ends in this test.
    looped.pace.interval = Duration::from_secs(3600);
    let lifts = |path: &str| {
        let log = std::fs::read_to_string(&audit).unwrap_or_default();
        log.lines().filter(|line| line.contains(path) && line.contains(r#""new":"max 100000""#)).count()
    };
    let until_lifted = async {
        while lifts("/c5") + lifts("/c6") < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ask.send(Request::Stop).unwrap();
    };
    let (ended, ()) = tokio::join!(looped.run(|_, _| Ok::<(), ControlError>(())), until_lifted);
    ended.unwrap();
    assert_eq!((lifts("/c5"), lifts("/c6")), (1, 1));
    assert_eq!(*protected.lock().unwrap(), HashSet::from([5, 6]));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_with_a_mistake_changes_nothing_and_a_good_one_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("guard.toml");
    let source = stage(Events::None);
    let reconfigured = Arc::clone(&source.reconfigured);
    let Scene { writers, .. } = scene(Paper::default(), Paper::default());
    let (looped, ask) = looped(source, writers, acting(Some(file.clone())), Some(Duration::from_secs(20)));
    let mut windows = 0;
    let texts = [
        "[node]\ninterval = \"2s\"\nno_such_key = 1\n",
        "[node]\ninterval = \"2s\"\nstate_dir = \"/elsewhere\"\n",
        "[node]\ninterval = \"2s\"\n",
    ];
    looped
        .run(|_, _| {
            // A request in each of the first three windows, distinguished by what the file says then.
            if let Some(text) = texts.get(windows) {
                std::fs::write(&file, text).unwrap();
                ask.send(Request::Reload).unwrap();
            }
            windows += 1;
            Ok::<(), ControlError>(())
        })
        .await
        .unwrap();
    let taken = reconfigured.lock().unwrap();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(taken[0].node.interval, "2s".parse().unwrap());
    // Three windows of 1 s, then those of 2 s.
    assert!((10..=12).contains(&windows), "{windows} windows");
}

#[tokio::test(start_paused = true)]
async fn a_stop_puts_everything_back_and_the_last_snapshot_tells() {
    let Scene { mut writers, audit, _dir } = scene(Paper::default(), Paper::default());
    writers.want(vec![want(1, Origin::Suppress, Some(5_000)), want(2, Origin::Protect, None)]);
    take(&mut writers).await;
    take(&mut writers).await;
    let (looped, ask) = looped(stage(Events::None), writers, acting(None), None);
    ask.send(Request::Stop).unwrap();
    let mut snapshots = Vec::new();
    looped
        .run(|snapshot, _| {
            snapshots.push(snapshot);
            Ok::<(), ControlError>(())
        })
        .await
        .unwrap();
    let [snapshot] = &snapshots[..] else { panic!("{} snapshots", snapshots.len()) };
    let put_back = snapshot.actions.iter().filter(|action| action.new == "original").count();
    assert_eq!(put_back, 2, "{:?}", snapshot.actions);
    assert_eq!(std::fs::read_to_string(audit).unwrap().lines().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_loop_puts_everything_back_too() {
    let Scene { mut writers, audit, _dir } = scene(Paper::default(), Paper::default());
    writers.want(vec![want(2, Origin::Protect, None)]);
    take(&mut writers).await;
    take(&mut writers).await;
    let (looped, _ask) = looped(stage(Events::None), writers, acting(None), None);
    let error = looped.run(|_, _| Err(ControlError::NoWindow)).await.unwrap_err();
    assert!(matches!(error, ControlError::NoWindow), "{error}");
    let log = std::fs::read_to_string(audit).unwrap();
    // By the plan of the window, or by the end, whichever the lane sees first.
    assert!(log.contains("\"new\":\"original\""), "{log}");
}

#[tokio::test]
async fn dropping_the_hands_puts_everything_back() {
    let Scene { mut writers, audit, _dir } = scene(Paper::default(), Paper::default());
    writers.want(vec![want(2, Origin::Protect, None)]);
    take(&mut writers).await;
    take(&mut writers).await;
    drop(writers);
    let log = std::fs::read_to_string(audit).unwrap();
    assert!(log.contains("put back, because guard ends"), "{log}");
}

/// What the journals of these lanes would put back.
fn journal(files: &[(u64, WriteResult)]) -> executor::Report {
    let file = |(id, result): &(u64, WriteResult)| Restored {
        path: format!("/c{id}"),
        id: *id,
        file: File::MAX,
        found: Some("max 100000".into()),
        original: "original".into(),
        result: result.clone(),
    };
    executor::Report { journal: true, files: files.iter().map(file).collect(), ..executor::Report::default() }
}

/// A loop whose lane for protection panics in one of its calls, with what the journal is said to hold. The error that ends it,
/// the lanes whose journals were asked, the log, and how many windows were shown.
async fn ended_by(panics: Call, report: executor::Report) -> (ControlError, Vec<Which>, String, usize) {
    let asked_of = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&asked_of);
    let by_journal = move |lanes: &[Which]| {
        asked.lock().unwrap().extend_from_slice(lanes);
        Ok(report)
    };
    let Scene { mut writers, audit, _dir } =
        scene_with(Paper::panicking(panics), Paper::default(), Box::new(by_journal));
    let (best_effort, plc) = (want(1, Origin::Suppress, Some(5_000)), want(2, Origin::Protect, None));
    writers.want_also(vec![best_effort.clone()]);
    assert_eq!(take(&mut writers).await.0, Which::Rest);
    writers.want(vec![best_effort, plc]);
    writers.prepare_also(BTreeMap::from([((3, Knob::Quota), "/c3".into())]));
    if panics == Call::RestoreAll {
        while writers.state().0.len() < 2 {
            take(&mut writers).await;
        }
    }
    let (mut looped, ask) = looped(stage(Events::None), writers, acting(None), None);
    // No window ends by itself, after which the plan would be another.
    looped.pace.interval = Duration::from_secs(3600);
    if panics == Call::RestoreAll {
        ask.send(Request::Stop).unwrap();
    }
    let mut windows = 0;
    let count = |_, _| {
        windows += 1;
        Ok::<(), ControlError>(())
    };
    let error = looped.run(count).await.unwrap_err();
    let log = std::fs::read_to_string(audit).unwrap();
    let lanes = asked_of.lock().unwrap().clone();
    (error, lanes, log, windows)
}

#[tokio::test]
async fn a_lane_that_panics_is_put_back_by_its_journal_and_ends_guard() {
    fault::watch();
    for panics in [Call::Prepare, Call::Apply, Call::CheckDrift, Call::RestoreAll] {
        let (error, lanes, log, windows) = ended_by(panics, journal(&[(2, WriteResult::Written)])).await;
        assert_eq!(error.blame(), super::Blame::Defect, "{panics:?}");
        let error = error.to_string();
        assert!(error.starts_with(&format!("thread guard-protect panicked at {}:", file!())), "{error}");
        assert!(error.contains("no paper left"), "{error}");
        assert!(error.ends_with("; everything that guard had changed was put back"), "{error}");
        // Both had ended by then, and so had let go of their journals.
        assert_eq!(lanes, [Which::Protect, Which::Rest], "{panics:?}");
        let because = "put back, because guard ends: thread guard-protect panicked";
        // A lane that panics at the end may not have done so yet when the other one is done.
        let of_the_other = if panics == Call::RestoreAll { "put back, because guard ends" } else { because };
        for (path, because) in [("/c1", of_the_other), ("/c2", because)] {
            let back = |line: &&str| line.contains(path) && line.contains(because) && line.contains("original");
            assert_eq!(log.lines().filter(back).count(), 1, "{panics:?}, {path}: {log}");
        }
        assert_eq!(windows, 1, "{panics:?}: the last window is not shown");
    }
}

#[tokio::test]
async fn what_a_journal_cannot_put_back_is_left_for_guard_restore() {
    let (error, ..) = ended_by(Call::Apply, journal(&[(2, WriteResult::Busy("b".into()))])).await;
    assert_eq!(error.blame(), super::Blame::Defect);
    assert!(error.to_string().ends_with("at least 1 values were not put back; run `guard restore`"), "{error}");
    let damaged = executor::Report { damaged: 3, ..journal(&[]) };
    let (error, ..) = ended_by(Call::Apply, damaged).await;
    assert!(error.to_string().ends_with("3 of its lines are damaged; run `guard restore`"), "{error}");
}

fn take_until_panic(writers: &mut Writers) {
    while writers.panic().is_none() {
        let report = super::run_loop::runtime().unwrap().block_on(writers.report());
        writers.take(report);
    }
}

#[test]
fn a_panic_while_the_journal_is_put_back_leaves_it_to_guard_restore() {
    fault::watch();
    let by_journal = Box::new(|_: &[Which]| panic!("no ink left"));
    let Scene { mut writers, .. } = scene_with(Paper::panicking(Call::Apply), Paper::default(), by_journal);
    writers.want(vec![want(2, Origin::Protect, None)]);
    take_until_panic(&mut writers);
    let error = writers.end(Duration::from_secs(60)).outcome().unwrap_err();
    assert_eq!(error.blame(), super::Blame::Defect);
    let error = error.to_string();
    assert!(error.starts_with("thread guard-protect panicked") && error.contains("no paper left"), "{error}");
    assert!(error.contains("a journal was not put back: thread guard-put-back panicked at "), "{error}");
    assert!(error.ends_with("no ink left; run `guard restore`"), "{error}");
}

#[test]
fn a_lane_that_hangs_does_not_keep_the_journal_of_one_that_panicked_from_being_put_back() {
    let asked_of = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&asked_of);
    let by_journal = move |lanes: &[Which]| {
        asked.lock().unwrap().extend_from_slice(lanes);
        Ok(journal(&[]))
    };
    let (stuck, called, go) = Paper::hanging();
    let Scene { mut writers, .. } = scene_with(Paper::panicking(Call::Apply), stuck, Box::new(by_journal));
    writers.want(vec![want(1, Origin::Suppress, Some(5_000)), want(2, Origin::Protect, None)]);
    called.recv().unwrap();
    take_until_panic(&mut writers);
    let ended = writers.end(Duration::from_millis(500));
    assert_eq!((ended.left.lanes, ended.left.values), (1, 0), "{ended:?}");
    assert_eq!(*asked_of.lock().unwrap(), [Which::Protect]);
    drop(go);
}

/// The controller panics in the middle of what it does, with a lane that is well and with one that panics, too.
#[test]
fn a_controller_that_panics_has_put_everything_back_when_its_panic_is_reported() {
    fault::watch();
    for panics in [None, Some(Call::RestoreAll)] {
        let protect = Paper { panics, ..Paper::default() };
        let by_journal = Box::new(|_: &[Which]| Ok(journal(&[(2, WriteResult::Written)])));
        let Scene { mut writers, audit, _dir } = scene_with(protect, Paper::default(), by_journal);
        writers.want_also(vec![want(2, Origin::Protect, None)]);
        super::run_loop::runtime().unwrap().block_on(take(&mut writers));
        let (looped, _ask) = looped(stage(Events::Panic), writers, acting(None), None);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            super::run_loop::runtime().unwrap().block_on(looped.run(|_, _| Ok::<(), ControlError>(())))
        }));
        assert!(ran.is_err());
        let log = std::fs::read_to_string(audit).unwrap();
        let back = log.lines().filter(|line| line.contains("/c2") && line.contains("\"new\":\"original\""));
        let back: Vec<&str> = back.collect();
        let [back] = &back[..] else { panic!("{panics:?}: {log}") };
        let because = if panics.is_some() { "no paper left" } else { "nobody to wait for" };
        assert!(back.contains("because guard ends: ") && back.contains(because), "{panics:?}: {back}");
    }
}
