//! The loop of `guard report` and `guard run`: waits, samples, decides, and hands a Snapshot of every window to its
//! caller. One thread, no busy work; it sleeps between samples. What may hang (writes, the journal's disk, the audit log,
//! the output) is done by threads of its own, see [`super::writers`] and [`super::outlet`].

use std::collections::HashSet;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::act::Actor;
use super::acting::{Acting, Pace};
use super::error::ControlError;
use super::lane::Report;
use super::observe::{FirstLook, Observer};
use super::outlet::Outlet;
use super::source::Source;
use super::thread_priority::ThreadPriority;
use super::watch::Watch;
use crate::config::{Config, ConfigError};
use crate::fault;
use crate::kernel::{Event, Phases};
use crate::snapshot::Snapshot;

/// Least time between two looks at events: however many there are, they are answered together.
const QUIET: Duration = Duration::from_millis(1);
/// How long a clean stop may take to put everything back.
const PATIENCE_AT_END: Duration = Duration::from_secs(30);

/// The runtime for everything in this room: one thread, timers and signals.
///
/// # Errors
/// When the kernel refuses an epoll instance.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().enable_io().build()
}

/// Observes for `duration`, or until SIGINT or SIGTERM, and returns the Snapshot of that time.
///
/// # Errors
/// See [`ControlError`].
pub async fn measure(watch: &Watch, duration: Duration, begun: impl FnOnce()) -> Result<Snapshot, ControlError> {
    run(watch, Pace { interval: duration, duration: Some(duration) }, begun, |_| Ok(())).await
}

/// Observes and hands over a Snapshot per window, `begun` being called when all that happens from then on counts, until
/// the duration is over, a SIGINT or SIGTERM comes (the begun window is handed over), all threads that were named have
/// ended, or `sink` fails. Returns the last Snapshot.
///
/// # Errors
/// See [`ControlError`], and what `sink` returns.
pub async fn run<E: From<ControlError>>(
    watch: &Watch,
    pace: Pace,
    begun: impl FnOnce(),
    mut sink: impl FnMut(&Snapshot) -> Result<(), E>,
) -> Result<Snapshot, E> {
    // Before anything is loaded, so that an early Ctrl-C ends cleanly too.
    let asked = Asked::new(false).map_err(ControlError::Signals)?;
    let observer = Observer::start(watch)?;
    begun();
    let mut last = None;
    let deliver = |snapshot: Snapshot, _| {
        let outcome = sink(&snapshot);
        last = Some(snapshot);
        outcome
    };
    Loop { source: observer, actor: None, asked, acting: None, pace, priority: ThreadPriority::steady() }
        .run(deliver)
        .await?;
    last.ok_or_else(|| ControlError::NoWindow.into())
}

/// As [`run`], and decides after each window by the policies of a configuration. With [`Acting::enforce`] what they want
/// is written, until the end puts everything back; without it the Snapshots' actions say what would be written, and
/// nothing on the node is changed. Reads the configuration again on SIGHUP. `sink` is called in a thread of its own.
///
/// # Errors
/// See [`ControlError`], and what `sink` returns.
pub async fn act<E: From<ControlError> + Send + 'static>(
    watch: &Watch,
    pace: Pace,
    acting: Acting,
    begun: impl FnOnce(),
    sink: impl FnMut(&Snapshot) -> Result<(), E> + Send + 'static,
) -> Result<(), E> {
    let asked = Asked::new(true).map_err(ControlError::Signals)?;
    // Before this thread hurries, which its children would inherit.
    let mut outlet = Outlet::start(sink).map_err(ControlError::Thread)?;
    let looped = ready(watch, pace, acting, asked)?;
    begun();
    let looped = looped.run(|snapshot, _| outlet.hand_over(snapshot)).await;
    // Also after an error: the last interval reports what was put back.
    let shown = outlet.end();
    looped.and(shown)
}

/// As [`act`], but hands over in this thread, together with what the policies said.
///
/// # Errors
/// See [`ControlError`], and what `deliver` returns.
pub(super) async fn act_by<E: From<ControlError>>(
    watch: &Watch,
    pace: Pace,
    acting: Acting,
    begun: impl FnOnce(),
    deliver: impl FnMut(Snapshot, Vec<String>) -> Result<(), E>,
) -> Result<(), E> {
    let asked = Asked::new(false).map_err(ControlError::Signals)?;
    let looped = ready(watch, pace, acting, asked)?;
    begun();
    looped.run(deliver).await
}

/// Begins to observe, and gets ready to write where that is asked for. What has to be protected is protected first: loading
/// the kernel side takes longer.
fn ready<A>(watch: &Watch, pace: Pace, acting: Acting, asked: A) -> Result<Loop<Observer, A>, ControlError> {
    let watch = Watch { policy: Some(Arc::clone(&acting.config)), act: acting.enforce.is_some(), ..watch.clone() };
    let mut phase = Phases::begin();
    let mut look = FirstLook::take(&watch)?;
    phase.end("looked at the node");
    let writers = acting.enforce.is_some().then(|| super::enforce::writers(look.hierarchy(), &acting)).transpose()?;
    let mut actor = Actor::new(acting.config.policy.clone(), writers);
    phase.end("opened journals and audit log");
    let urgent = if actor.may_act() { actor.discover(&look.plc()) } else { HashSet::new() };
    let loaded = Observer::load(look, &watch).and_then(|mut observer| {
        observer.report_throttles_also_of(&urgent)?;
        Ok(observer)
    });
    let source = match (loaded, actor.writers()) {
        (Ok(observer), _) => observer,
        (Err(error), Some(writers)) => {
            // Nothing stays as guard made it when guard does not stay.
            return Err(match writers.end(PATIENCE_AT_END).outcome() {
                Ok(()) => error,
                Err(left) => {
                    tracing::error!("{error}");
                    left
                }
            });
        }
        (Err(error), None) => return Err(error),
    };
    // Last: threads that were started before do not take it over.
    let priority = acting
        .enforce
        .as_ref()
        .map_or_else(ThreadPriority::steady, |_| ThreadPriority::urgent(acting.config.node.priority));
    Ok(Loop { source, actor: Some(actor), asked, acting: Some(acting), pace, priority })
}

/// Everything that the loop turns.
pub(super) struct Loop<S, A> {
    pub(super) source: S,
    pub(super) actor: Option<Actor>,
    pub(super) asked: A,
    pub(super) acting: Option<Acting>,
    pub(super) pace: Pace,
    /// This thread's.
    pub(super) priority: ThreadPriority,
}

/// Why the loop woke up.
enum Woken {
    /// To end.
    End,
    /// The window is over.
    Window,
    /// It is time for a sample.
    Sample,
    /// Something cannot wait.
    Events(Vec<Event>),
    /// A lane has done something.
    Report(Report),
    /// The configuration is to be read again.
    Reload,
    /// The configuration was read again.
    Read(Box<Result<Config, ReloadError>>),
}

/// A configuration that is being read. The disk may be slow.
type ConfigReader = JoinHandle<Result<Config, ConfigError>>;

/// How the last window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It is still to be handed over.
    Open,
    /// It was handed over.
    Delivered,
}

impl<S: Source, A: Ask> Loop<S, A> {
    /// Turns until its end, and puts back whatever was changed, also when it fails.
    pub(super) async fn run<E: From<ControlError>>(
        mut self,
        mut deliver: impl FnMut(Snapshot, Vec<String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let outcome = self.turn(&mut deliver).await;
        let put_back = self.put_back();
        if let (Err(_), Err(error)) = (&outcome, &put_back) {
            // The other error is the one that ends guard.
            tracing::error!("{error}");
        }
        let reported = match outcome? {
            Ending::Open => self.last_window(deliver),
            Ending::Delivered => Ok(()),
        };
        // What was left behind, or has to be reported, counts more than what could not be shown.
        put_back?;
        reported
    }

    fn last_window<E: From<ControlError>>(
        &mut self,
        mut deliver: impl FnMut(Snapshot, Vec<String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut snapshot, keep) = self.source.snapshot(&mut |_| ())?;
        if let Some(actor) = &mut self.actor {
            actor.conclude(&mut snapshot);
        }
        keep.narrow(&mut snapshot);
        deliver(snapshot, self.notes())
    }

    /// Turns until the last window is to end.
    async fn turn<E: From<ControlError>>(
        &mut self,
        deliver: &mut impl FnMut(Snapshot, Vec<String>) -> Result<(), E>,
    ) -> Result<Ending, E> {
        let begin = Instant::now();
        let end = self.pace.duration.map(|duration| begin + duration);
        let mut window = windows(self.pace.interval);
        let mut timing = Timing { end, sample: begin + self.source.sample_every(), quiet_until: begin };
        let mut reading: Option<ConfigReader> = None;
        loop {
            fault::point("controller");
            match self.wait(&mut window, &timing, &mut reading).await? {
                Woken::End => return Ok(Ending::Open),
                Woken::Sample => {
                    timing.sample = Instant::now() + self.source.sample_every();
                    self.priority.calm();
                    self.source.sample()?;
                    self.priority.hurry();
                }
                Woken::Report(report) => {
                    if self.take(report) {
                        return Ok(Ending::Open);
                    }
                }
                Woken::Events(events) => {
                    let begun = Instant::now();
                    self.react(&events)?;
                    // Whatever reacting takes, half of the time is left for everything else.
                    timing.quiet_until = Instant::now() + QUIET.max(begun.elapsed());
                }
                Woken::Reload => reading = self.read_again(),
                Woken::Read(read) => {
                    reading = None;
                    if self.reload(*read) {
                        window = windows(self.pace.interval);
                    }
                }
                Woken::Window => {
                    // The last window may end a little before the end; a sliver after it would say nothing.
                    if end.is_some_and(|end| Instant::now() + self.pace.interval / 10 >= end) {
                        return Ok(Ending::Open);
                    }
                    timing.sample = Instant::now() + self.source.sample_every();
                    self.priority.calm();
                    let snapshot = self.window()?;
                    deliver(snapshot, self.notes())?;
                    self.priority.hurry();
                    if self.source.all_named_ended() {
                        tracing::warn!("every thread named with --tid has ended");
                        return Ok(Ending::Delivered);
                    }
                }
            }
        }
    }

    async fn wait(
        &mut self,
        window: &mut Interval,
        timing: &Timing,
        reading: &mut Option<ConfigReader>,
    ) -> Result<Woken, ControlError> {
        let Self { source, actor, asked, pace, .. } = self;
        let sample_every = source.sample_every();
        let events = async {
            if timing.quiet_until > Instant::now() {
                sleep_until(timing.quiet_until).await;
            }
            source.events().await
        };
        let report = async {
            match actor.as_mut().and_then(Actor::writers) {
                Some(writers) => writers.report().await,
                None => pending().await,
            }
        };
        let read = async {
            match reading {
                Some(reading) => match reading.await {
                    Ok(read) => read.map_err(ReloadError::Config),
                    Err(error) => Err(ReloadError::Task(error)),
                },
                None => pending().await,
            }
        };
        Ok(tokio::select! {
            biased;
            asked = asked.next() => match asked {
                Request::Stop => Woken::End,
                Request::Reload => Woken::Reload,
            },
            events = events => Woken::Events(events?),
            report = report => Woken::Report(report),
            read = read => Woken::Read(Box::new(read)),
            () = until(timing.end) => Woken::End,
            _ = window.tick() => Woken::Window,
            () = sleep_until(timing.sample), if pace.interval > sample_every => Woken::Sample,
        })
    }

    /// Answers events at once: first those of throttles and late wake-ups, which need no more than what is known.
    fn react(&mut self, events: &[Event]) -> Result<(), ControlError> {
        let Some(actor) = self.actor.as_mut().filter(|actor| actor.may_act()) else { return Ok(()) };
        actor.react(events);
        let new: HashSet<u64> = events
            .iter()
            .filter_map(|event| match event {
                Event::NewRealTime(event) => Some(event.cgroup_id),
                _ => None,
            })
            .collect();
        if !new.is_empty() {
            let discovered = self.source.discover(&new);
            let urgent = actor.discover(&discovered);
            self.source.report_throttles_also_of(&urgent)?;
        }
        Ok(())
    }

    /// Ends a window, decides, and begins the next one.
    fn window(&mut self) -> Result<Snapshot, ControlError> {
        let actor = &mut self.actor;
        let mut react = |events: &[Event]| {
            if let Some(actor) = actor.as_mut().filter(|actor| actor.may_act()) {
                actor.react(events);
            }
        };
        let (mut snapshot, keep) = self.source.snapshot(&mut react)?;
        if let Some(actor) = &mut self.actor {
            let urgent = actor.decide(&mut snapshot);
            let late_from = actor.late_from();
            if let Some(writers) = actor.writers() {
                let (held, touched) = writers.state();
                self.source.acted(held, touched);
                self.source.report_throttles_of(&urgent)?;
                self.source.set_fair_budgets(&late_from)?;
            }
        }
        keep.narrow(&mut snapshot);
        Ok(snapshot)
    }

    fn notes(&mut self) -> Vec<String> {
        self.actor.as_mut().map(Actor::notes).unwrap_or_default()
    }

    /// Takes a report of a lane; true when that lane has panicked, without which guard does not go on.
    fn take(&mut self, report: Report) -> bool {
        let Some(writers) = self.actor.as_mut().and_then(Actor::writers) else { return false };
        writers.take(report);
        writers.panic().is_some()
    }

    fn put_back(&mut self) -> Result<(), ControlError> {
        let Some(writers) = self.actor.as_mut().and_then(Actor::writers) else { return Ok(()) };
        writers.end(PATIENCE_AT_END).outcome()
    }

    /// Begins to read the configuration again, and opens the audit log again: whoever rotates logs sends this signal.
    fn read_again(&mut self) -> Option<ConfigReader> {
        let (acting, actor) = (self.acting.as_ref()?, self.actor.as_mut()?);
        if let Some(writers) = actor.writers() {
            writers.reopen_audit(&acting.audit());
        }
        let file = acting.file.clone()?;
        Some(tokio::task::spawn_blocking(move || {
            fault::point("config");
            Config::load(&file)
        }))
    }

    /// Takes a configuration: all of it counts, or nothing. Returns whether it counts.
    fn reload(&mut self, read: Result<Config, ReloadError>) -> bool {
        match self.accept(read) {
            Ok(()) => tracing::info!("the configuration was read again"),
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                return false;
            }
        }
        true
    }

    fn accept(&mut self, read: Result<Config, ReloadError>) -> Result<(), ReloadError> {
        let config = Arc::new(read?);
        let (Some(acting), Some(actor)) = (&mut self.acting, &mut self.actor) else { return Ok(()) };
        let state_dir_counts = acting.enforce.as_ref().is_some_and(|enforce| enforce.state_dir.is_none());
        if state_dir_counts && config.node.state_dir != acting.config.node.state_dir {
            return Err(ReloadError::StateDir);
        }
        if config.metrics != acting.config.metrics {
            return Err(ReloadError::Metrics);
        }
        // Nothing after this can fail.
        self.source.reconfigure(&config)?;
        actor.reconfigure(config.policy.clone());
        if !acting.fixed_interval {
            self.pace.interval = config.node.interval.duration();
        }
        let audit = acting.audit();
        acting.config = config;
        if let Some(writers) = actor.writers().filter(|_| acting.audit() != audit) {
            writers.reopen_audit(&acting.audit());
        }
        Ok(())
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(ConfigError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("node.state_dir: cannot be changed while guard runs; restart it")]
    StateDir,
    #[error("[metrics]: cannot be changed while guard runs; restart it")]
    Metrics,
    #[error("cannot read it: {0}")]
    Task(tokio::task::JoinError),
}

/// When to wake up.
struct Timing {
    /// To end.
    end: Option<Instant>,
    /// For the next sample within a window.
    sample: Instant,
    /// Not before this for events.
    quiet_until: Instant,
}

fn windows(length: Duration) -> Interval {
    let mut window = interval_at(Instant::now() + length, length);
    window.set_missed_tick_behavior(MissedTickBehavior::Delay);
    window
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => pending().await,
    }
}

/// What the user can ask of a running guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// End.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Where requests come from.
pub(super) trait Ask {
    /// Returns when one has come.
    async fn next(&mut self) -> Request;
}

/// SIGINT and SIGTERM, and SIGHUP where it is asked for.
struct Asked {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Asked {
    fn new(with_hangup: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: with_hangup.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }
}

impl Ask for Asked {
    async fn next(&mut self) -> Request {
        let hangup = async {
            match &mut self.hangup {
                Some(signal) => signal.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.terminate.recv() => Request::Stop,
            _ = hangup => Request::Reload,
        }
    }
}
