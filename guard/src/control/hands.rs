//! The hands of the controller: two lanes that write, and the audit log of what they did. Each knob of a cgroup belongs to
//! one lane at a time: to the one that holds it, until that lane has put it back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::audit::Audit;
use super::lane::{Done, Key, Lane, Report, Wanted, Which, Why};
use crate::cgroup::WriteResult;
use crate::policy::{Origin, Want};
use crate::snapshot::Action;

/// Reports that may wait for the controller before a lane waits too.
const REPORTS_WAITING: usize = 64;
/// Actions kept for one Snapshot; later ones stand in the audit log only.
const ACTIONS_MAX: usize = 10_000;
/// How long a controller that fails waits until everything is put back.
const PATIENCE_AT_FAILURE: Duration = Duration::from_secs(5);

/// Time between two looks for the last reports.
const LOOK_AT_END: Duration = Duration::from_millis(2);

/// Where lanes put their reports.
pub(super) type Reports = mpsc::Sender<Report>;

/// Both lanes and the log.
#[derive(Debug)]
pub(super) struct Hands {
    protect: Side,
    rest: Side,
    reports: mpsc::Receiver<Report>,
    audit: Option<Audit>,
    owners: HashMap<Key, Which>,
    touched: HashSet<u64>,
    actions: Vec<Action>,
    /// Values that could not be put back at the end.
    left_behind: usize,
}

/// One lane as the controller sees it.
#[derive(Debug)]
struct Side {
    lane: Lane,
    wanted: BTreeSet<Key>,
    held: BTreeSet<Key>,
    ended: bool,
}

impl Side {
    fn new(lane: Lane) -> Self {
        Self { lane, wanted: BTreeSet::new(), held: BTreeSet::new(), ended: false }
    }
}

/// What was not put back at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Lanes that did not come to their end.
    pub(super) lanes: usize,
    /// Values that the kernel did not take back.
    pub(super) values: usize,
}

impl Hands {
    /// The channel for lanes that are to be started.
    pub(super) fn channel() -> (Reports, mpsc::Receiver<Report>) {
        mpsc::channel(REPORTS_WAITING)
    }

    pub(super) fn new(protect: Lane, rest: Lane, reports: mpsc::Receiver<Report>, audit: Audit) -> Self {
        Self {
            protect: Side::new(protect),
            rest: Side::new(rest),
            reports,
            audit: Some(audit),
            owners: HashMap::new(),
            touched: HashSet::new(),
            actions: Vec::new(),
            left_behind: 0,
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
    pub(super) fn prepare(&mut self, protect: BTreeMap<Key, String>, rest: BTreeMap<Key, String>) {
        self.protect.lane.prepare(protect);
        self.rest.lane.prepare(rest);
    }

    /// Hands over further ones for what protects.
    pub(super) fn prepare_also(&mut self, protect: BTreeMap<Key, String>) {
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

    /// Takes a report in.
    pub(super) fn take(&mut self, report: Report) {
        let side = match report.lane {
            Which::Protect => &mut self.protect,
            Which::Rest => &mut self.rest,
        };
        side.ended |= report.ended;
        side.held = report.held;
        // Nothing that was asked of the lane meanwhile can be under way.
        if report.served == side.lane.handed_over() {
            let (held, wanted) = (&side.held, &side.wanted);
            self.owners.retain(|key, owner| *owner != report.lane || held.contains(key) || wanted.contains(key));
        }
        for done in report.done {
            self.touched.insert(done.outcome.id);
            self.left_behind += usize::from(report.ended && is_left(&done.outcome.result));
            let action = action(done);
            if let Some(audit) = &mut self.audit {
                audit.append(&action);
            }
            if self.actions.len() < ACTIONS_MAX {
                self.actions.push(action);
            }
        }
    }

    /// What was done since the last call.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What is held, and the cgroups that were written to since the last call.
    pub(super) fn state(&mut self) -> (HashSet<Key>, HashSet<u64>) {
        let held = self.protect.held.union(&self.rest.held).copied().collect();
        (held, std::mem::take(&mut self.touched))
    }

    /// Opens the audit log again.
    pub(super) fn reopen_audit(&self, path: &std::path::Path) {
        if let Some(audit) = &self.audit {
            audit.reopen(path);
        }
    }

    /// Puts everything back, for no longer than `limit`, and waits for it: there is nothing else to do then. Returns what
    /// was left.
    pub(super) fn end(&mut self, limit: Duration) -> Left {
        self.protect.lane.end();
        self.rest.lane.end();
        let give_up = Instant::now() + limit;
        while !(self.protect.ended && self.rest.ended) && Instant::now() < give_up {
            match self.reports.try_recv() {
                Ok(report) => self.take(report),
                Err(TryRecvError::Disconnected) => break,
                // Also called where there is no event loop to wait in.
                Err(TryRecvError::Empty) => std::thread::sleep(LOOK_AT_END),
            }
        }
        if let Some(audit) = self.audit.take() {
            audit.end(limit);
        }
        let lanes = usize::from(!self.protect.ended) + usize::from(!self.rest.ended);
        Left { lanes, values: self.left_behind }
    }
}

/// A controller that fails puts everything back, too.
impl Drop for Hands {
    fn drop(&mut self) {
        if self.audit.is_some() {
            self.end(PATIENCE_AT_FAILURE);
        }
    }
}

fn is_left(result: &WriteResult) -> bool {
    matches!(result, WriteResult::Refused(_) | WriteResult::Busy(_) | WriteResult::Failed(_) | WriteResult::Limited(_))
}

fn action(done: Done) -> Action {
    let Done { outcome, want, why } = done;
    let said = want.as_ref().map(|want| want.reason.as_str());
    let reason = match (why, said) {
        (Why::Wanted, Some(reason)) => reason.to_owned(),
        (Why::Released, Some(reason)) => format!("put back, because this holds no longer: {reason}"),
        (Why::Wanted | Why::Released, None) => "put back".to_owned(),
        (Why::Drifted, Some(reason)) => format!("somebody else changed what guard had set: {reason}"),
        (Why::Drifted, None) => "somebody else changed what guard had set".to_owned(),
        (Why::Ending, _) => "put back, because guard ends".to_owned(),
    };
    Action {
        at: now(),
        knob: outcome.knob.name().to_owned(),
        path: outcome.path,
        old: outcome.old.unwrap_or_default(),
        new: outcome.new,
        reason,
        evidence: want.map(|want| want.evidence).unwrap_or_default(),
        result: outcome.result.to_string(),
    }
}

/// The instant, RFC 3339, to the microsecond.
pub(super) fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
