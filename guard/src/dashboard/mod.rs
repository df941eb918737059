//! The live dashboard: brings Snapshots from a source and keys from the terminal to [`view::top`](crate::view::top), and draws what it shows.
//! Between events it sleeps. Whatever ends it, the terminal is left as it was.

mod error;
mod live;
mod replay;
mod screen;
mod socket;
mod source;

pub use error::DashboardError;
pub use screen::Screen;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event as Input};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::{Watch, runtime};
use crate::doctor;
use crate::fault;
use crate::record::Replay;
use crate::snapshot::Snapshot;
use crate::view::json;
use crate::view::top::{App, AppEvent, AppOptions, Effect, SourceKind, SourceState, Theme, render, svg};
use source::{LoopSender, SnapshotSource, SourceEvent};

/// Events that wait to be taken in, at most: a source that is faster waits.
const WAITING: usize = 16;

/// Where Snapshots come from.
#[derive(Clone, Debug)]
pub enum From {
    /// This node, observed by this process, one Snapshot per interval.
    Node {
        /// What to observe.
        watch: Watch,
        /// Length of an interval.
        interval: Duration,
    },
    /// A running controller, by its socket.
    Socket(PathBuf),
    /// A recording, a Snapshot or lines of them, at a multiple of its own speed.
    Replay(PathBuf, f64),
}

/// How the dashboard is run.
#[derive(Clone, Debug)]
pub struct DashboardOptions {
    /// Where Snapshots come from.
    pub from: From,
    /// When a wake-up is late.
    pub limit: Duration,
    /// Where Snapshots are written on request.
    pub snapshot_dir: PathBuf,
    /// Whether to use colours.
    pub colour: bool,
}

/// Shows the dashboard until the user, a signal or a lost terminal ends it.
///
/// # Errors
/// See [`DashboardError`].
pub fn run(options: &DashboardOptions) -> Result<(), DashboardError> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(DashboardError::NoTerminal);
    }
    // Before the screen is touched, so that a wrong name is reported on the command line.
    let source = open(&options.from)?;
    let start = |what| move |source| DashboardError::Start { what, source };
    runtime().map_err(start("the event loop"))?.block_on(async {
        let mut stop = StopSignals::new().map_err(start("signal handling"))?;
        let mut screen = Screen::open().map_err(DashboardError::Terminal)?;
        let (sender, mut events) = mpsc::channel(WAITING);
        let (orders, received) = std::sync::mpsc::channel();
        spawn("guard-source", move |outlet| source.run(&outlet, &received), &sender).map_err(start("a thread"))?;
        spawn("guard-keys", |outlet| keys(&outlet), &sender).map_err(start("a thread"))?;
        let doctors = sender.downgrade();
        drop(sender);

        let size = screen.size().map_err(DashboardError::Terminal)?;
        let mut app = App::new(view(options, size), SourceState::Loading(loading(&options.from)));
        loop {
            if app.take_changed() {
                screen.draw(|frame| render(frame, &app)).map_err(DashboardError::Terminal)?;
            }
            let told = tokio::select! {
                biased;
                () = stop.asked() => return Ok(()),
                told = events.recv() => told,
            };
            let event = match told {
                Some(SourceEvent::Event(event)) => event,
                Some(SourceEvent::Failed(error)) => return Err(error),
                Some(SourceEvent::InputEnded) | None => return Ok(()),
            };
            for effect in app.update(event) {
                match effect {
                    Effect::Quit => return Ok(()),
                    Effect::Save(snapshot) => {
                        let text = save(&snapshot, &options.snapshot_dir);
                        app.update(AppEvent::Message(text));
                    }
                    // It reads hundreds of files: not while keys wait.
                    Effect::Examine => {
                        let work = |outlet: LoopSender| {
                            let report = doctor::examine(&doctor::collect(Path::new("/")));
                            outlet.event(AppEvent::Examined(Box::new(report)));
                        };
                        // The senders are gone only when everything is.
                        if let Some(sender) = doctors.upgrade() {
                            spawn("guard-doctor", work, &sender).map_err(start("a thread"))?;
                        }
                    }
                    // A source that has ended takes no orders.
                    Effect::Order(order) => _ = orders.send(order),
                }
            }
        }
    })
}

/// The screen after the last Snapshot of a recording, as SVG.
///
/// # Errors
/// When the recording cannot be read.
pub fn picture(path: &Path, limit: Duration, size: (u16, u16)) -> Result<String, DashboardError> {
    let mut view = view(
        &DashboardOptions {
            from: From::Replay(path.to_owned(), 1.0),
            limit,
            snapshot_dir: PathBuf::new(),
            colour: true,
        },
        size,
    );
    view.kind = SourceKind::Live;
    let mut app = App::new(view, SourceState::Running);
    for snapshot in Replay::open(path)?.filter_map(Result::ok) {
        app.update(AppEvent::Snapshot(Box::new(snapshot)));
    }
    let Ok(mut terminal) = Terminal::new(TestBackend::new(size.0, size.1));
    let Ok(frame) = terminal.draw(|frame| render(frame, &app));
    Ok(svg(frame.buffer))
}

fn open(from: &From) -> Result<Box<dyn SnapshotSource>, DashboardError> {
    Ok(match from {
        From::Node { watch, interval } => Box::new(live::Live::new(watch.clone(), *interval)),
        From::Socket(path) => Box::new(socket::Socket::connect(path)?),
        From::Replay(path, speed) => Box::new(replay::Replayed::new(Replay::open(path)?, *speed)),
    })
}

fn view(options: &DashboardOptions, size: (u16, u16)) -> AppOptions {
    let (kind, speed) = match &options.from {
        From::Node { .. } => (SourceKind::Live, 1.0),
        From::Socket(_) => (SourceKind::Socket, 1.0),
        From::Replay(_, speed) => (SourceKind::Replay, *speed),
    };
    AppOptions {
        kind,
        limit_ns: u64::try_from(options.limit.as_nanos()).unwrap_or(u64::MAX),
        speed,
        theme: if options.colour { Theme::Colour } else { Theme::Plain },
        size,
    }
}

fn loading(from: &From) -> String {
    match from {
        From::Node { .. } => "Loading guard's programs into the kernel".to_owned(),
        From::Socket(path) => format!("Waiting for the controller at {}", path.display()),
        From::Replay(path, _) => format!("Reading {}", path.display()),
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce(LoopSender) + Send + 'static,
    sender: &mpsc::Sender<SourceEvent>,
) -> io::Result<()> {
    let (outlet, after) = (LoopSender::new(sender.clone()), LoopSender::new(sender.clone()));
    let work = move || {
        fault::caught(|| work(outlet)).unwrap_or_else(|panic| after.failed(DashboardError::Panicked(panic)));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(|_| ())
}

/// Reads keys and sizes until the terminal is gone.
fn keys(outlet: &LoopSender) {
    loop {
        let event = match event::read() {
            Ok(Input::Key(key)) => AppEvent::Key(key),
            Ok(Input::Resize(columns, rows)) => AppEvent::Resize(columns, rows),
            Ok(_) => continue,
            Err(_) => return outlet.input_ended(),
        };
        if !outlet.event(event) {
            return;
        }
    }
}

/// Writes a Snapshot into a new file; says what came of it.
fn save(snapshot: &Snapshot, dir: &Path) -> String {
    let time: String = snapshot.window.start.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = dir.join(format!("guard-{time}.json"));
    let written = json::pretty(snapshot).map_err(io::Error::other).and_then(|text| {
        OpenOptions::new().write(true).create_new(true).open(&path)?.write_all((text + "\n").as_bytes())
    });
    match written {
        Ok(()) => format!("written to {}", path.display()),
        Err(error) => format!("cannot write {}: {error}", path.display()),
    }
}

/// The signals that end the dashboard; SIGHUP is a lost terminal.
struct StopSignals([Signal; 3]);

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_snapshot_is_written_once_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let told = save(&samples::full(), dir.path());
        assert!(told.starts_with("written to ") && told.ends_with("guard-20261122T001100Z.json"), "{told}");
        let back: Vec<_> = Replay::open(&dir.path().join("guard-20261122T001100Z.json")).unwrap().collect();
        assert_eq!(back, [Ok(samples::full())]);
        assert!(save(&samples::full(), dir.path()).starts_with("cannot write"));
    }

    #[test]
    fn a_hostile_instant_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshot = samples::full();
        snapshot.window.start = "/../../etc/x".into();
        assert!(save(&snapshot, dir.path()).ends_with("guard-etcx.json"));
    }

    /// The picture in the README is what this code draws of the recording beside it; on a change:
    /// `guard top --replay docs/example.guardrec --picture 112x28 > docs/top.svg`.
    #[test]
    fn the_published_picture_is_current() {
        let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.guardrec");
        let drawn = picture(&recording, Duration::from_millis(1), (112, 28)).unwrap();
        assert!(drawn == include_str!("../../../docs/top.svg"), "docs/top.svg is out of date: see this test's comment");
    }

    #[test]
    fn a_thread_that_panics_ends_the_dashboard_with_its_words() {
        let (sender, mut told) = mpsc::channel(1);
        spawn("guard-x", |_| panic!("no picture"), &sender).unwrap();
        match told.blocking_recv() {
            Some(SourceEvent::Failed(error @ DashboardError::Panicked(_))) => {
                let error = error.to_string();
                assert!(error.starts_with("thread guard-x panicked") && error.ends_with(": no picture"), "{error}");
            }
            _ => panic!("it is not told"),
        }
    }
}
