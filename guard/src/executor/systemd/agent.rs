//! The agent: a thread with an event loop and a connection of its own, which tells systemd what guard holds. It alone waits
//! for the bus. Whatever goes wrong there (no bus, a silent one, a panic in the library) ends one connection, is said once,
//! and is tried again.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Builder;

use super::{
    bus::{Answer, Bus},
    mailbox::{Post, Shared},
    unit::{Failure, Ledger},
};
use crate::{
    executor::outcome::{RestoredProperty, WriteResult},
    knob::WeightFormula,
};

/// systemd answers in about a millisecond, but not during a daemon-reload, which may take seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How systemd is reached.
#[derive(Clone, Debug)]
pub struct UnitsOptions {
    /// "/" except in tests: where systemd keeps its drop-ins.
    pub root: PathBuf,
    /// Address of the bus; `None` for the system bus.
    pub bus: Option<String>,
    /// How shares become a weight on v2.
    pub weight: WeightFormula,
    /// How long to wait for an answer.
    pub patience: Duration,
    /// The path of a cgroup; the first look at its unit panics.
    #[cfg(test)]
    pub panic_on: Option<String>,
}

impl Default for UnitsOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            bus: None,
            weight: WeightFormula::default(),
            patience: PATIENCE,
            #[cfg(test)]
            panic_on: None,
        }
    }
}

/// How long not to connect again, and not to try a unit again, after failures in a row.
const BUS_BACK_OFF: BackOff = BackOff { first: Duration::from_millis(100), most: Duration::from_secs(30) };
const UNIT_BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

#[derive(Clone, Copy)]
struct BackOff {
    first: Duration,
    most: Duration,
}

impl BackOff {
    fn wait(self, times: u32) -> Duration {
        self.first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(self.most)
    }
}

/// A unit that could not be brought to what is wanted. What was said of it is kept until it can.
struct Waiting {
    until: Instant,
    times: u32,
    why: Failure,
}

pub(super) struct Agent {
    ledger: Ledger,
    options: UnitsOptions,
    shared: Arc<Shared>,
    bus: Option<Bus>,
    /// Failures to reach systemd in a row, until when not to try again, and what was said of it.
    away: u32,
    away_until: Instant,
    away_why: Option<Answer>,
    /// Units to look at, by the paths of their cgroups.
    dirty: BTreeSet<String>,
    /// The one that is being looked at.
    current: Option<String>,
    waiting: BTreeMap<String, Waiting>,
    /// Until when everything has to be put back, once that is asked for.
    deadline: Option<Instant>,
    put_back: Vec<RestoredProperty>,
}

impl Agent {
    pub(super) fn new(ledger: Ledger, options: UnitsOptions, shared: Arc<Shared>) -> Self {
        let dirty = ledger.paths();
        Self {
            ledger,
            options,
            shared,
            bus: None,
            away: 0,
            away_until: Instant::now(),
            away_why: None,
            dirty,
            current: None,
            waiting: BTreeMap::new(),
            deadline: None,
            put_back: Vec::new(),
        }
    }

    /// Runs until everything is to be put back and is, or nobody is there any more who could ask for it.
    pub(super) fn run(mut self) {
        while let Err(why) = self.once() {
            tracing::error!("the agent for systemd failed, and begins anew: {why}");
            self.bus = None;
            self.away += 1;
            self.away_until = Instant::now() + BUS_BACK_OFF.wait(self.away);
            if let Some(path) = self.current.take() {
                self.wait_for(path, Failure::Answer(Answer::Refused(why)));
            }
            // Where not even a loop can be had; a short time, since the end may be waited for.
            std::thread::sleep(BUS_BACK_OFF.first);
        }
        let Self { ledger, shared, mut put_back, waiting, away_why, .. } = self;
        put_back.extend(ledger.left(|path| {
            let why = waiting.get(path).map(|waiting| waiting.why.to_string());
            let why = why.or_else(|| away_why.as_ref().map(Answer::to_string));
            WriteResult::Failed(why.unwrap_or_else(|| "there was no time for it".to_owned()))
        }));
        // Whoever waits for the report may want the journal.
        drop(ledger);
        shared.report(put_back);
    }

    /// One life of the event loop.
    fn once(&mut self) -> Result<(), String> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|error: io::Error| format!("cannot start an event loop: {error}"))?;
        // The journal knows what a panic may leave half done, as after kill -9.
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.serve()))).map_err(|panic| said(panic.as_ref()))
    }

    async fn serve(&mut self) {
        loop {
            let shared = Arc::clone(&self.shared);
            let Post { changed, end, is_alone } = shared.take();
            self.dirty.extend(changed);
            let now = Instant::now();
            if let (None, Some(deadline)) = (self.deadline, end) {
                self.deadline = Some(deadline);
                (self.away, self.away_until) = (0, now);
                self.dirty = self.ledger.paths();
            }
            if is_alone || self.deadline.is_some_and(|deadline| self.dirty.is_empty() || deadline <= now) {
                return;
            }
            let due = self.waiting.iter().filter(|(_, waiting)| waiting.until <= now).map(|(path, _)| path.clone());
            self.dirty.extend(due.collect::<Vec<_>>());
            if !self.dirty.is_empty() && self.away_until <= now {
                if self.connect().await {
                    self.bring().await;
                }
                // There is nothing to reach.
                if self.deadline.is_some() && matches!(self.away_why, Some(Answer::NoBus(_))) {
                    return;
                }
                continue;
            }
            let retry = if self.dirty.is_empty() { None } else { Some(self.away_until) };
            let later = self.waiting.values().map(|waiting| waiting.until).filter(|until| *until > now);
            let next = later.chain(retry).chain(self.deadline).min();
            let posted = shared.posted.notified();
            match next {
                Some(next) => {
                    let _ = tokio::time::timeout_at(next.into(), posted).await;
                }
                None => posted.await,
            }
        }
    }

    /// How long to wait for an answer.
    fn patience(&self) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(self.options.patience, |left| left.min(self.options.patience))
    }

    async fn connect(&mut self) -> bool {
        if self.bus.is_some() {
            return true;
        }
        match Bus::connect(self.options.bus.as_deref(), self.patience()).await {
            Ok(bus) => {
                self.bus = Some(bus);
                true
            }
            Err(answer) => {
                self.lost(answer);
                false
            }
        }
    }

    /// Brings all units that are to be looked at to what is wanted of them, as long as systemd answers.
    async fn bring(&mut self) {
        while let Some(path) = self.dirty.pop_first() {
            let patience = self.patience();
            let Some(bus) = &mut self.bus else { return };
            bus.set_patience(patience);
            let wanted = if self.deadline.is_some() { BTreeMap::new() } else { self.shared.wanted(&path) };
            self.current = Some(path.clone());
            #[cfg(test)]
            assert!(self.options.panic_on.take_if(|of| *of == path).is_none(), "a defect, made on purpose");
            self.shared.sending(&path, &wanted);
            let outcome = self.ledger.bring(bus, &path, &wanted).await;
            self.current = None;
            match outcome {
                Ok(put_back) => {
                    self.reached();
                    self.waiting.remove(&path);
                    self.shared.sent(&path, wanted);
                    if self.deadline.is_some() {
                        self.put_back.extend(put_back);
                    } else {
                        put_back.iter().for_each(|each| tracing::debug!("{each}"));
                    }
                }
                Err(Failure::Answer(answer @ (Answer::Away(_) | Answer::NoBus(_)))) => {
                    self.dirty.insert(path);
                    self.lost(answer);
                    return;
                }
                Err(failure) => {
                    self.reached();
                    self.wait_for(path, failure);
                }
            }
            // What has come meanwhile may be more urgent; and the end may have.
            if self.shared.has_post() {
                return;
            }
        }
    }

    fn lost(&mut self, answer: Answer) {
        self.bus = None;
        self.away += 1;
        self.away_until = Instant::now() + BUS_BACK_OFF.wait(self.away);
        if self.away_why.is_none() && self.deadline.is_none() {
            tracing::warn!(
                "{answer}; units of systemd are changed in their cgroup files alone, which a daemon-reload would undo; guard goes \
                 on trying to reach systemd"
            );
        }
        self.away_why = Some(answer);
    }

    fn reached(&mut self) {
        self.away = 0;
        if self.away_why.take().is_some() {
            tracing::info!("systemd answers again, and is told what guard holds");
        }
    }

    fn wait_for(&mut self, path: String, why: Failure) {
        let before = self.waiting.get(&path);
        let times = before.map_or(0, |before| before.times) + 1;
        // A file that somebody else has written is for its writer to answer, which will then ask again.
        if before.is_none_or(|before| before.why != why) && why != Failure::Changed {
            tracing::warn!("systemd could not be told of {path}: {why}; its files are changed all the same");
        }
        self.waiting.insert(path, Waiting { until: Instant::now() + UNIT_BACK_OFF.wait(times), times, why });
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}
