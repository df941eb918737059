//! The loop and the lanes against writers that hang, floods of events, and configurations with mistakes. Time is virtual;
//! the lanes are real threads, and what they do is waited for, never slept for.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guard_common::event::Throttled;
use tokio::sync::mpsc;

use super::ControlError;
use super::act::Actor;
use super::audit::Audit;
use super::hands::{Hands, Left};
use super::lane::{Key, Lane, Report, Which};
use super::run_loop::{Acting, Ask, Enforce, Loop, Pace, Request};
use super::selection::Keep;
use super::source::Source;
use super::writer::Writer;
use crate::cgroup::{Change, Outcome, What, WriteResult};
use crate::config::Config;
use crate::kernel::Event;
use crate::policy::{Direction, Origin, Want};
use crate::snapshot::{Bandwidth, Knob, Setting, Snapshot};
use crate::view::samples;

/// A writer that keeps its values in memory, and may hang.
#[derive(Default)]
struct Paper {
    held: BTreeMap<Key, (String, Setting)>,
    prepared: Arc<Mutex<Vec<(String, u64, Knob)>>>,
    /// Each call of `apply` says so here and waits for an answer.
    gate: Option<(Sender<usize>, Receiver<()>)>,
}

impl Paper {
    fn hanging() -> (Self, Receiver<usize>, Sender<()>) {
        let (calls, called) = channel();
        let (go, may_go) = channel();
        (Self { gate: Some((calls, may_go)), ..Self::default() }, called, go)
    }
}

impl Writer for Paper {
    fn prepare(&mut self, knobs: &[(String, u64, Knob)]) {
        self.prepared.lock().unwrap().extend_from_slice(knobs);
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<Outcome> {
        if let Some((calls, may_go)) = &self.gate {
            calls.send(changes.len()).unwrap();
            may_go.recv().unwrap();
        }
        let outcome = |change: &Change| {
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
        changes.iter().map(outcome).collect()
    }

    fn check_drift(&mut self) -> Vec<Outcome> {
        Vec::new()
    }

    fn restore_all(&mut self) -> Vec<Outcome> {
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
    hands: Hands,
    audit: PathBuf,
    _dir: tempfile::TempDir,
}

fn scene(protect: Paper, rest: Paper) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.jsonl");
    let (reports, received) = Hands::channel();
    let protect = Lane::start(Which::Protect, protect, reports.clone(), || ()).unwrap();
    let rest = Lane::start(Which::Rest, rest, reports, || ()).unwrap();
    Scene { hands: Hands::new(protect, rest, received, Audit::open(&audit).unwrap()), audit, _dir: dir }
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

async fn take(hands: &mut Hands) -> (Which, Vec<String>) {
    let report: Report = hands.report().await;
    let told = (report.lane, report.done.iter().map(|done| done.outcome.new.clone()).collect());
    hands.take(report);
    told
}

#[tokio::test]
async fn a_write_that_hangs_does_not_delay_protection() {
    let (slow, called, go) = Paper::hanging();
    let Scene { mut hands, .. } = scene(Paper::default(), slow);
    hands.want(vec![want(1, Origin::Suppress, Some(5_000))]);
    assert_eq!(take(&mut hands).await, (Which::Protect, vec![]));
    called.recv().unwrap();
    // The lane for the rest hangs in its write from here on.
    for n in 0..100 {
        hands.want_also(vec![want(2 + n, Origin::Protect, None)]);
        assert_eq!(take(&mut hands).await, (Which::Protect, vec!["max 100000".to_owned()]));
        hands.want(vec![want(1, Origin::Suppress, Some(6_000 + n))]);
        assert_eq!(take(&mut hands).await, (Which::Protect, vec!["original".to_owned()]));
    }
    // Then it serves the newest of the hundred plans, and none of those between.
    go.send(()).unwrap();
    assert_eq!(take(&mut hands).await, (Which::Rest, vec!["5000 100000".to_owned()]));
    assert_eq!(called.recv().unwrap(), 1);
    go.send(()).unwrap();
    assert_eq!(take(&mut hands).await, (Which::Rest, vec!["6099 100000".to_owned()]));
}

#[tokio::test]
async fn what_is_wanted_no_more_is_put_back_and_the_log_says_why() {
    let Scene { mut hands, audit, _dir } = scene(Paper::default(), Paper::default());
    hands.want(vec![want(1, Origin::Suppress, Some(5_000)), want(2, Origin::Protect, None)]);
    take(&mut hands).await;
    take(&mut hands).await;
    hands.want(vec![want(2, Origin::Protect, None)]);
    take(&mut hands).await;
    take(&mut hands).await;
    let (held, touched) = hands.state();
    assert_eq!((held, touched), (HashSet::from([(2, Knob::Quota)]), HashSet::from([1, 2])));
    assert_eq!(hands.end(Duration::from_secs(60)), Left::default());
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
    let Scene { mut hands, .. } = scene(Paper::default(), Paper::default());
    hands.want(vec![want(1, Origin::Suppress, Some(5_000))]);
    let mut reports = vec![take(&mut hands).await, take(&mut hands).await];
    // The best-effort cgroup has become a PLC.
    hands.want_also(vec![want(1, Origin::Protect, None)]);
    assert_eq!(take(&mut hands).await, (Which::Rest, vec!["max 100000".to_owned()]));
    hands.want(vec![]);
    reports.extend([take(&mut hands).await, take(&mut hands).await]);
    assert!(reports.contains(&(Which::Rest, vec!["original".to_owned()])));
    hands.want_also(vec![want(1, Origin::Protect, None)]);
    assert_eq!(take(&mut hands).await, (Which::Protect, vec!["max 100000".to_owned()]));
}

#[tokio::test]
async fn a_lane_that_never_comes_to_its_end_is_not_waited_for_for_ever() {
    let (stuck, called, go) = Paper::hanging();
    let Scene { mut hands, .. } = scene(Paper::default(), stuck);
    hands.want(vec![want(1, Origin::Suppress, Some(5_000))]);
    called.recv().unwrap();
    assert_eq!(take(&mut hands).await, (Which::Protect, vec![]));
    let left = hands.end(Duration::from_millis(500));
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
    /// As many as there is room for, at once, again and again.
    Flood {
        batches: Arc<Mutex<u32>>,
    },
}

impl Source for Stage {
    fn sample(&mut self) -> Result<(), ControlError> {
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(Snapshot, Keep), ControlError> {
        self.snapshots += 1;
        Ok((samples::empty(), Keep::All))
    }

    async fn events(&mut self) -> Result<Vec<Event>, ControlError> {
        match &self.events {
            Events::None => std::future::pending().await,
            Events::Flood { batches } => {
                *batches.lock().unwrap() += 1;
                let event = |n: u64| Event::Throttled(Throttled { cgroup_id: n % 3, at_ns: n });
                Ok((0..10_000).map(event).collect())
            }
        }
    }

    fn protect(&mut self, ids: &HashSet<u64>) -> Result<(), ControlError> {
        self.protected.lock().unwrap().clone_from(ids);
        Ok(())
    }

    fn acted(&mut self, _: HashSet<Key>, _: HashSet<u64>) {}

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
    hands: Hands,
    acting: Acting,
    duration: Option<Duration>,
) -> (Loop<Stage, Requests>, mpsc::UnboundedSender<Request>) {
    let (ask, asked) = mpsc::unbounded_channel();
    let actor = Some(Actor::new(acting.config.policy.clone(), Some(hands)));
    let pace = Pace { interval: Duration::from_secs(1), duration };
    (Loop { source, actor, asked: Requests(asked), acting: Some(acting), pace }, ask)
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_is_answered_in_batches_and_does_not_hold_up_the_windows() {
    let batches = Arc::new(Mutex::new(0));
    let source = stage(Events::Flood { batches: Arc::clone(&batches) });
    let Scene { hands, .. } = scene(Paper::default(), Paper::default());
    let (looped, _ask) = looped(source, hands, acting(None), Some(Duration::from_secs(5)));
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

#[tokio::test(start_paused = true)]
async fn a_configuration_with_a_mistake_changes_nothing_and_a_good_one_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("guard.toml");
    let source = stage(Events::None);
    let reconfigured = Arc::clone(&source.reconfigured);
    let Scene { hands, .. } = scene(Paper::default(), Paper::default());
    let (looped, ask) = looped(source, hands, acting(Some(file.clone())), Some(Duration::from_secs(20)));
    let mut windows = 0;
    let texts = [
        "[node]\ninterval = \"2s\"\nno_such_key = 1\n",
        "[node]\ninterval = \"2s\"\nstate_dir = \"/elsewhere\"\n",
        "[node]\ninterval = \"2s\"\n",
    ];
    looped
        .run(|_, _| {
            // A request in each of the first three windows, told apart by what the file says then.
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
    let Scene { mut hands, audit, _dir } = scene(Paper::default(), Paper::default());
    hands.want(vec![want(1, Origin::Suppress, Some(5_000)), want(2, Origin::Protect, None)]);
    take(&mut hands).await;
    take(&mut hands).await;
    let (looped, ask) = looped(stage(Events::None), hands, acting(None), None);
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
    let Scene { mut hands, audit, _dir } = scene(Paper::default(), Paper::default());
    hands.want(vec![want(2, Origin::Protect, None)]);
    take(&mut hands).await;
    take(&mut hands).await;
    let (looped, _ask) = looped(stage(Events::None), hands, acting(None), None);
    let error = looped.run(|_, _| Err(ControlError::NoWindow)).await.unwrap_err();
    assert!(matches!(error, ControlError::NoWindow), "{error}");
    let log = std::fs::read_to_string(audit).unwrap();
    // The window that could not be handed over had decided already, to want it no more: whichever comes first puts back.
    assert!(log.contains("put back, because"), "{log}");
}

#[tokio::test]
async fn dropping_the_hands_puts_everything_back() {
    let Scene { mut hands, audit, _dir } = scene(Paper::default(), Paper::default());
    hands.want(vec![want(2, Origin::Protect, None)]);
    take(&mut hands).await;
    take(&mut hands).await;
    drop(hands);
    let log = std::fs::read_to_string(audit).unwrap();
    assert!(log.contains("put back, because guard ends"), "{log}");
}
