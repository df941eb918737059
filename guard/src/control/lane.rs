//! A lane: one thread that brings held values to wanted ones. It alone waits for the files it writes and for its journal's
//! disk; the controller and the other lane never do. A plan replaces the one before, and urgent wants are added to it. So
//! at most one value per knob waits, however much is asked for while a write hangs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::mpsc;

use super::thread_priority::ThreadPriority;
use super::writer::Writer;
use crate::executor::{Change, Outcome, What, WriteResult};
use crate::fault::{self, Panic};
use crate::knob::{Knob, Setting};
use crate::policy::Want;

/// A knob of a cgroup.
pub(super) type CgroupKnob = (u64, Knob);

/// What is wanted of a lane, by knob.
pub(super) type Wanted = BTreeMap<CgroupKnob, Want>;

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// What protects PLC cgroups, and nothing that could make it wait.
    Protect,
    /// Everything else.
    Rest,
}

impl Which {
    /// Its name, for threads and directories.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Rest => "rest",
        }
    }
}

/// What a lane has done in one go.
#[derive(Debug)]
pub(super) struct Report {
    /// Who reports.
    pub(super) lane: Which,
    /// What was tried, and what came of it.
    pub(super) done: Vec<Done>,
    /// What it holds now.
    pub(super) held: BTreeSet<CgroupKnob>,
    /// Number of the last hand-over that it has served.
    pub(super) served: u64,
    /// How it ended; `None` while it goes on. By then its writer is gone, and with it the lock of its journal.
    pub(super) end: Option<End>,
}

/// How a lane ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to, and has tried to put everything back.
    Asked,
    /// It panicked. What it held is known to its journal only.
    Panicked(Panic),
}

impl Report {
    fn of_panic(lane: Which, panic: Panic) -> Self {
        Self { lane, done: Vec::new(), held: BTreeSet::new(), served: 0, end: Some(End::Panicked(panic)) }
    }
}

/// An outcome with what led to it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// The want that it served; for a release, or for a change by somebody else, the one that had been served.
    pub(super) want: Option<Want>,
    pub(super) why: Why,
}

/// What made a lane write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is wanted.
    Wanted,
    /// It is wanted no more.
    Released,
    /// Somebody else changed it.
    Drifted,
    /// guard ends.
    Ending,
}

/// What waits for the lane.
#[derive(Debug, Default)]
struct Post {
    number: u64,
    wanted: Option<Wanted>,
    urgent: Wanted,
    prepare: BTreeMap<CgroupKnob, String>,
    end: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    post: Mutex<Post>,
    came: Condvar,
}

impl Mailbox {
    fn open(&self) -> MutexGuard<'_, Post> {
        // Nothing is left half done under the lock.
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The controller's end of a lane. Dropping it makes the lane put everything back and end, without waiting for it.
#[derive(Debug)]
pub(super) struct Lane {
    mailbox: Arc<Mailbox>,
    handed_over: u64,
}

impl Lane {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel refuses a thread.
    pub(super) fn start(
        which: Which,
        writer: impl Writer,
        reports: mpsc::Sender<Report>,
        priority: impl FnOnce() -> ThreadPriority + Send + 'static,
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let mut worker = Worker {
            which,
            writer,
            reports: reports.clone(),
            mailbox: Arc::clone(&mailbox),
            number: 0,
            wanted: Wanted::new(),
            served: Wanted::new(),
            reported: BTreeMap::new(),
        };
        thread::Builder::new().name(format!("guard-{}", which.name())).spawn(move || {
            let last = fault::caught(|| worker.run(&priority())).unwrap_or_else(|panic| Report::of_panic(which, panic));
            drop(worker);
            // A controller that has gone needs no report.
            let _ = reports.blocking_send(last);
        })?;
        Ok(Self { mailbox, handed_over: 0 })
    }

    /// Number of the last hand-over; a report that has served it knows all that is wanted.
    pub(super) fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// Hands over all that is wanted from now on.
    pub(super) fn want(&mut self, wanted: Wanted) {
        self.handed_over += 1;
        let mut post = self.mailbox.open();
        post.number = self.handed_over;
        // Those were meant in addition to the plan before.
        post.urgent.clear();
        post.wanted = Some(wanted);
        self.mailbox.came.notify_one();
    }

    /// Adds to what is wanted.
    pub(super) fn want_also(&mut self, urgent: Wanted) {
        self.handed_over += 1;
        let mut post = self.mailbox.open();
        post.number = self.handed_over;
        post.urgent.extend(urgent);
        self.mailbox.came.notify_one();
    }

    /// Hands over the knobs, with the paths of their cgroups, that may soon be written in a hurry.
    pub(super) fn prepare(&self, knobs: BTreeMap<CgroupKnob, String>) {
        self.mailbox.open().prepare = knobs;
        self.mailbox.came.notify_one();
    }

    /// Adds to these knobs.
    pub(super) fn prepare_also(&self, knobs: BTreeMap<CgroupKnob, String>) {
        self.mailbox.open().prepare.extend(knobs);
        self.mailbox.came.notify_one();
    }

    /// Asks it to put everything back and end; its last report says so.
    pub(super) fn end(&self) {
        self.mailbox.open().end = true;
        self.mailbox.came.notify_one();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.end();
    }
}

/// The lane's own end.
struct Worker<W> {
    which: Which,
    writer: W,
    reports: mpsc::Sender<Report>,
    mailbox: Arc<Mailbox>,
    number: u64,
    wanted: Wanted,
    /// The wants whose values are held.
    served: Wanted,
    /// What was tried last and what came of it, so that what fails again and again is reported once.
    reported: BTreeMap<CgroupKnob, (String, String)>,
}

impl<W: Writer> Worker<W> {
    /// Serves until it is asked to end. Returns its last report.
    fn run(&mut self, priority: &ThreadPriority) -> Report {
        loop {
            let Post { number, wanted, urgent, prepare, end } = self.wait();
            self.number = self.number.max(number);
            fault::point(self.which.name());
            if end {
                let outcomes = self.writer.restore_all();
                return Report { end: Some(End::Asked), ..self.report(outcomes, Why::Ending) };
            }
            let in_a_hurry = !urgent.is_empty();
            let (whole, asked) = (wanted.is_some(), wanted.is_some() || !urgent.is_empty());
            self.wanted = wanted.unwrap_or_else(|| std::mem::take(&mut self.wanted));
            self.wanted.extend(urgent);
            // A whole plan of what need not be protected is no answer to anything.
            if self.which == Which::Rest && !in_a_hurry {
                priority.calm();
            }
            if asked {
                let changes = self.changes();
                let outcomes = if changes.is_empty() { Vec::new() } else { self.writer.apply(&changes) };
                // Even if nothing was done: then the controller knows that it has been served.
                self.send(outcomes, Why::Wanted);
            }
            priority.calm();
            if !prepare.is_empty() {
                let knobs: Vec<_> = prepare.into_iter().map(|((id, knob), path)| (path, id, knob)).collect();
                self.writer.prepare(&knobs);
            }
            if whole {
                let outcomes = self.writer.check_drift();
                if !outcomes.is_empty() {
                    self.send(outcomes, Why::Drifted);
                }
            }
            priority.hurry();
        }
    }

    /// Waits until there is something, and takes all of it.
    fn wait(&self) -> Post {
        let idle =
            |post: &mut Post| post.wanted.is_none() && post.urgent.is_empty() && post.prepare.is_empty() && !post.end;
        let post = self.mailbox.came.wait_while(self.mailbox.open(), idle);
        std::mem::take(&mut *post.unwrap_or_else(PoisonError::into_inner))
    }

    /// From what is held to what is wanted.
    fn changes(&self) -> Vec<Change> {
        let held: BTreeMap<CgroupKnob, (String, Setting)> = self.held();
        let set =
            self.wanted.iter().filter(|(key, want)| held.get(*key).is_none_or(|(_, setting)| *setting != want.setting));
        let set = set.map(|((id, _), want)| Change {
            path: want.path.clone(),
            id: *id,
            what: match self.which {
                Which::Protect => What::Lift(want.setting.clone()),
                Which::Rest => What::Set(want.setting.clone()),
            },
        });
        let released = held.iter().filter(|(key, _)| !self.wanted.contains_key(*key));
        let release =
            released.map(|((id, knob), (path, _))| Change { path: path.clone(), id: *id, what: What::Release(*knob) });
        set.chain(release).collect()
    }

    fn held(&self) -> BTreeMap<CgroupKnob, (String, Setting)> {
        let held = self.writer.held().into_iter();
        held.map(|(path, id, setting)| ((id, setting.knob()), (path, setting))).collect()
    }

    fn send(&mut self, outcomes: Vec<Outcome>, why: Why) {
        let report = self.report(outcomes, why);
        // A controller that has gone needs no report; what it wanted is put back all the same.
        let _ = self.reports.blocking_send(report);
    }

    fn report(&mut self, outcomes: Vec<Outcome>, why: Why) -> Report {
        let held: BTreeSet<CgroupKnob> = self.held().into_keys().collect();
        let mut done = Vec::new();
        for outcome in outcomes.into_iter().filter(|outcome| is_worth_reporting(&outcome.result, why == Why::Ending)) {
            let key = (outcome.id, outcome.knob);
            let wanted = self.wanted.get(&key);
            let why = if why == Why::Wanted && wanted.is_none() { Why::Released } else { why };
            let want = wanted.or_else(|| self.served.get(&key)).cloned();
            let said = (outcome.new.clone(), outcome.result.to_string());
            let is_news = self.reported.insert(key, said.clone()).is_none_or(|before| before != said);
            // A value that was written again had been changed: each write is reported.
            if is_news || outcome.result == WriteResult::Written {
                done.push(Done { outcome, want, why });
            }
        }
        self.reported.retain(|key, _| held.contains(key) || self.wanted.contains_key(key));
        self.served.retain(|key, _| held.contains(key));
        let held_wants = self.wanted.iter().filter(|(key, _)| held.contains(*key));
        self.served.extend(held_wants.map(|(key, want)| (*key, want.clone())));
        Report { lane: self.which, done, held, served: self.number, end: None }
    }
}

/// Nothing was done, or something that failed waits for its next try. At the end what waits is left behind.
fn is_worth_reporting(result: &WriteResult, ended: bool) -> bool {
    match result {
        WriteResult::Unchanged => false,
        WriteResult::Limited(_) => ended,
        _ => true,
    }
}
