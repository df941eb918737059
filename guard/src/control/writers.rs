//! The controller's writers: two lanes, and the audit log of what they did. Each knob of a cgroup belongs to one lane at a
//! time: the lane that holds it keeps it until it has put it back. The journal of a lane that panicked puts back what it held.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::audit::Audit;
use super::error::ControlError;
use super::lane::{CgroupKnob, Done, End, Lane, Report, Wanted, Which, Why};
use super::left::Left;
use crate::executor::{self, RestoreError, Units, WriteResult};
use crate::fault::{self, Panic};
use crate::policy::{Origin, Want};
use crate::snapshot::Action;

/// Reports that may wait for the controller before a lane waits too.
const REPORTS_WAITING: usize = 64;
/// Actions kept for one Snapshot; later ones stand in the audit log only.
const ACTIONS_MAX: usize = 10_000;
/// How long a controller that panics waits until everything is put back.
const PATIENCE_AT_FAILURE: Duration = Duration::from_secs(30);

/// How long, of that, systemd may take: so that guard ends before whoever stops it loses patience.
const PATIENCE_WITH_SYSTEMD: Duration = Duration::from_secs(15);
/// Time between two polls for the last reports.
const POLL_AT_END: Duration = Duration::from_millis(2);

/// Where lanes put their reports.
pub(super) type Reports = mpsc::Sender<Report>;

/// Puts back by the journals of these lanes, whose locks nobody has.
pub(super) type ByJournal = Box<dyn FnOnce(&[Which]) -> Result<executor::Report, RestoreError> + Send>;

/// Both lanes and the log.
pub(super) struct Writers {
    protect: Side,
    rest: Side,
    reports: mpsc::Receiver<Report>,
    audit: Option<Audit>,
    units: Units,
    owners: HashMap<CgroupKnob, Which>,
    touched: HashSet<u64>,
    actions: Vec<Action>,
    /// Values that could not be put back at the end.
    left_behind: usize,
    by_journal: Option<ByJournal>,
}

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writers").field("protect", &self.protect).field("rest", &self.rest).finish_non_exhaustive()
    }
}

/// One lane as the controller sees it.
#[derive(Debug)]
struct Side {
    lane: Lane,
    wanted: BTreeSet<CgroupKnob>,
    held: BTreeSet<CgroupKnob>,
    end: Option<End>,
}

impl Side {
    fn new(lane: Lane) -> Self {
        Self { lane, wanted: BTreeSet::new(), held: BTreeSet::new(), end: None }
    }

    fn panic(&self) -> Option<&Panic> {
        match &self.end {
            Some(End::Panicked(panic)) => Some(panic),
            _ => None,
        }
    }
}

/// How an end went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// The first panic of a lane.
    pub(super) panic: Option<Panic>,
    pub(super) left: Left,
}

impl Ended {
    /// As the controller's own outcome.
    ///
    /// # Errors
    /// When a lane panicked, or not everything was put back.
    pub(super) fn outcome(self) -> Result<(), ControlError> {
        match self {
            Self { panic: Some(panic), left } => Err(ControlError::Panicked { panic, left }),
            Self { left, .. } if left.is_nothing() => Ok(()),
            Self { left, .. } => Err(ControlError::NotPutBack { left }),
        }
    }
}

impl Writers {
    /// The channel for lanes that are to be started.
    pub(super) fn channel() -> (Reports, mpsc::Receiver<Report>) {
        mpsc::channel(REPORTS_WAITING)
    }

    pub(super) fn new(
        [protect, rest]: [Lane; 2],
        reports: mpsc::Receiver<Report>,
        audit: Audit,
        units: Units,
        by_journal: ByJournal,
    ) -> Self {
        Self {
            protect: Side::new(protect),
            rest: Side::new(rest),
            reports,
            audit: Some(audit),
            units,
            owners: HashMap::new(),
            touched: HashSet::new(),
            actions: Vec::new(),
            left_behind: 0,
            by_journal: Some(by_journal),
        }
    }

    /// Hands over a whole plan.
    pub(super) fn want(&mut self, wants: Vec<Want>) {
        let (protect, rest) = self.split(wants);
        self.protect.wanted = protect.keys().copied().collect();
        self.rest.wanted = rest.keys().copied().collect();
        self.protect.lane.want(protect);
        self.rest.lane.want(rest);
    }

    /// Hands over what cannot wait for the next plan.
    pub(super) fn want_also(&mut self, wants: Vec<Want>) {
        let (protect, rest) = self.split(wants);
        for (side, wanted) in [(&mut self.protect, protect), (&mut self.rest, rest)] {
            if !wanted.is_empty() {
                side.wanted.extend(wanted.keys().copied());
                side.lane.want_also(wanted);
            }
        }
    }

    /// Hands over the knobs that may have to be written in a hurry.
    pub(super) fn prepare(&mut self, protect: BTreeMap<CgroupKnob, String>, rest: BTreeMap<CgroupKnob, String>) {
        self.protect.lane.prepare(protect);
        self.rest.lane.prepare(rest);
    }

    /// Hands over further ones for what protects.
    pub(super) fn prepare_also(&mut self, protect: BTreeMap<CgroupKnob, String>) {
        self.protect.lane.prepare_also(protect);
    }

    fn split(&mut self, wants: Vec<Want>) -> (Wanted, Wanted) {
        let (mut protect, mut rest) = (Wanted::new(), Wanted::new());
        for want in wants {
            let key = (want.id, want.setting.knob());
            let by_origin = if want.origin == Origin::Protect { Which::Protect } else { Which::Rest };
            match self.owners.entry(key).or_insert(by_origin) {
                Which::Protect => protect.insert(key, want),
                Which::Rest => rest.insert(key, want),
            };
        }
        (protect, rest)
    }

    /// Waits for a lane to report. For ever when both have ended.
    pub(super) async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// Records a report.
    pub(super) fn take(&mut self, report: Report) {
        let side = match report.lane {
            Which::Protect => &mut self.protect,
            Which::Rest => &mut self.rest,
        };
        let is_last = report.end.is_some();
        side.end = report.end;
        if side.panic().is_some() {
            // It cannot say what it holds.
            return;
        }
        side.held = report.held;
        // Nothing that was asked of the lane meanwhile can be under way.
        if report.served == side.lane.handed_over() {
            let (held, wanted) = (&side.held, &side.wanted);
            self.owners.retain(|key, owner| *owner != report.lane || held.contains(key) || wanted.contains(key));
        }
        for done in report.done {
            self.left_behind += usize::from(is_last && done.outcome.result.is_left());
            self.record(done);
        }
    }

    fn record(&mut self, done: Done) {
        self.touched.insert(done.outcome.id);
        let action = action(done, self.panic().or(fault::under_way().as_ref()));
        if let Some(audit) = &mut self.audit {
            audit.append(&action);
        }
        if self.actions.len() < ACTIONS_MAX {
            self.actions.push(action);
        }
    }

    /// The panic of a lane, upon which guard has to end.
    pub(super) fn panic(&self) -> Option<&Panic> {
        self.protect.panic().or_else(|| self.rest.panic())
    }

    /// What was done since the last call.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What is held, and the cgroups that were written to since the last call.
    pub(super) fn state(&mut self) -> (HashSet<CgroupKnob>, HashSet<u64>) {
        let held = self.protect.held.union(&self.rest.held).copied().collect();
        (held, std::mem::take(&mut self.touched))
    }

    /// Opens the audit log again.
    pub(super) fn reopen_audit(&self, path: &std::path::Path) {
        if let Some(audit) = &self.audit {
            audit.reopen(path);
        }
    }

    /// Puts everything back, each step of it for no longer than `limit`, and waits for it: there is nothing else to do then.
    pub(super) fn end(&mut self, limit: Duration) -> Ended {
        self.protect.lane.end();
        self.rest.lane.end();
        let give_up = Instant::now() + limit;
        while (self.protect.end.is_none() || self.rest.end.is_none()) && Instant::now() < give_up {
            match self.reports.try_recv() {
                Ok(report) => self.take(report),
                Err(TryRecvError::Disconnected) => break,
                // Also called where there is no event loop to wait in.
                Err(TryRecvError::Empty) => thread::sleep(POLL_AT_END),
            }
        }
        let journal = self.panic().is_some().then(|| self.put_back_by_journal(limit)).and_then(Result::err);
        self.end_units(give_up.saturating_duration_since(Instant::now()));
        if let Some(audit) = self.audit.take() {
            audit.end(limit);
        }
        let lanes = usize::from(self.protect.end.is_none()) + usize::from(self.rest.end.is_none());
        Ended { panic: self.panic().cloned(), left: Left { lanes, values: self.left_behind, journal } }
    }

    /// Puts back what the journals still name of lanes that have ended, in a thread of its own, which may hang or panic as well.
    /// An error says why it was not done.
    fn put_back_by_journal(&mut self, limit: Duration) -> Result<(), String> {
        let by_journal = self.by_journal.take().ok_or("it was tried before")?;
        let sides = [(Which::Protect, &self.protect), (Which::Rest, &self.rest)];
        let lanes: Vec<Which> =
            sides.into_iter().filter(|(_, side)| side.end.is_some()).map(|(lane, _)| lane).collect();
        let (done, is_done) = channel();
        let work = move || {
            let put_back = fault::caught(|| {
                fault::point("put-back");
                by_journal(&lanes)
            });
            // Nobody waits for it any more once the limit is over.
            let _ = done.send(put_back);
        };
        thread::Builder::new().name("guard-put-back".to_owned()).spawn(work).map_err(|error| error.to_string())?;
        let put_back = is_done.recv_timeout(limit).map_err(|_| format!("not within {limit:?}"))?;
        let report = put_back.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())?;
        // The journals name what the lanes themselves had left behind, too.
        self.left_behind = report.failures().count();
        let damaged = report.damaged;
        for file in report.files.into_iter().filter(|file| file.result != WriteResult::Unchanged) {
            self.record(Done { outcome: file.into(), want: None, why: Why::Ending });
        }
        if damaged == 0 { Ok(()) } else { Err(format!("{damaged} of its lines are damaged")) }
    }

    /// Files are back by now; what systemd knows of its units comes last, since the bus may be silent.
    fn end_units(&mut self, limit: Duration) {
        let Some(restored) = self.units.end(limit.min(PATIENCE_WITH_SYSTEMD)) else {
            tracing::error!("the agent for systemd did not come to its end; run `guard restore`");
            self.left_behind += 1;
            return;
        };
        for property in restored.iter().filter(|property| property.result.is_left()) {
            tracing::error!("{property}");
            self.left_behind += 1;
        }
    }
}

/// A controller that panics puts everything back, too, and says so: nobody else can.
impl Drop for Writers {
    fn drop(&mut self) {
        if self.audit.is_none() {
            return;
        }
        // A second panic must not leave a destructor, for that ends the process at once.
        match fault::caught(|| self.end(PATIENCE_AT_FAILURE)) {
            Ok(ended) => tracing::error!("guard ends in the middle of its work; {}", ended.left),
            Err(panic) => tracing::error!("not everything was put back: {panic}; run `guard restore`"),
        }
    }
}

/// `panic` is the one that ends guard.
fn action(done: Done, panic: Option<&Panic>) -> Action {
    let Done { outcome, want, why } = done;
    let said = want.as_ref().map(|want| want.reason.as_str());
    let reason = match (why, said) {
        (Why::Wanted, Some(reason)) => reason.to_owned(),
        (Why::Released, Some(reason)) => format!("put back, because this holds no longer: {reason}"),
        (Why::Wanted | Why::Released, None) => "put back".to_owned(),
        (Why::Drifted, Some(reason)) => format!("somebody else changed what guard had set: {reason}"),
        (Why::Drifted, None) => "somebody else changed what guard had set".to_owned(),
        (Why::Ending, _) => match panic {
            Some(panic) => format!("put back, because guard ends: {panic}"),
            None => "put back, because guard ends".to_owned(),
        },
    };
    Action {
        at: now(),
        knob: outcome.knob.name().to_owned(),
        path: outcome.path,
        old: outcome.old.unwrap_or_default(),
        new: outcome.new,
        reason,
        evidence: want.map(|want| want.evidence).unwrap_or_default(),
        result: (&outcome.result).into(),
    }
}

/// The instant, RFC 3339, to the microsecond.
pub(super) fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
