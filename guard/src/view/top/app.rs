//! What changes the dashboard: Snapshots, keys, the size of the terminal.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{App, Prompt, SourceKind, SourceState, View};
use super::{overview, screen};
use crate::doctor::DoctorReport;
use crate::snapshot::Snapshot;

/// What happens to the dashboard.
#[derive(Debug)]
pub enum AppEvent {
    /// A key.
    Key(KeyEvent),
    /// The terminal's size.
    Resize(u16, u16),
    /// The newest Snapshot.
    Snapshot(Box<Snapshot>),
    /// How the source is now.
    Source(SourceState),
    /// A message, shown once.
    Message(String),
    /// What doctor found on this node.
    Examined(Box<DoctorReport>),
}

/// What the dashboard wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// End.
    Quit,
    /// Write the Snapshot to a file.
    Save(Box<Snapshot>),
    /// Send the source an order.
    Order(Order),
    /// Have doctor look at this node.
    Examine,
}

/// An order to a source, which does not answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Stop bringing Snapshots (replay).
    Pause,
    /// Go on (replay).
    Resume,
    /// Bring one more (replay, paused).
    Step,
    /// Go at this speed (replay).
    Speed(f64),
    /// From which latency on a wake-up is late (live).
    Threshold(Duration),
}

/// Longest line that can be typed.
const PROMPT_MAX: usize = 64;
/// Speeds of a replay.
const SPEEDS: (f64, f64) = (0.125, 1024.0);

impl App {
    /// Takes in what happened, and says what has to be done.
    pub fn update(&mut self, event: AppEvent) -> Vec<Effect> {
        let effects = match event {
            AppEvent::Key(key) if key.kind == KeyEventKind::Release => return Vec::new(),
            AppEvent::Key(key) => {
                self.changed = true;
                self.key(key)
            }
            AppEvent::Resize(columns, rows) => {
                self.options.size = (columns, rows);
                self.changed = true;
                Vec::new()
            }
            AppEvent::Snapshot(snapshot) => self.take(*snapshot),
            AppEvent::Source(state) => {
                self.changed |= self.source != state;
                self.source = state;
                Vec::new()
            }
            AppEvent::Examined(report) => {
                self.examined = Some(*report);
                self.examining = false;
                self.changed = true;
                Vec::new()
            }
            AppEvent::Message(text) => {
                self.message = Some(text);
                self.changed = true;
                Vec::new()
            }
        };
        let index = self.view as usize;
        self.scroll[index] = self.scroll[index].min(screen::last_line(self));
        effects
    }

    fn take(&mut self, snapshot: Snapshot) -> Vec<Effect> {
        let late = snapshot.breaches.iter().any(|b| b.latency_ns >= self.options.limit_ns);
        self.history.push(snapshot);
        self.source = SourceState::Running;
        // While time stands still only the distance to the newest changes, which is shown too.
        self.changed = true;
        if self.freeze && late && self.held.is_none() {
            self.message = Some("stopped at a late wake-up; space goes on".to_owned());
            return self.hold();
        }
        Vec::new()
    }

    fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return vec![Effect::Quit];
        }
        self.message = None;
        if let Some(prompt) = self.prompt.take() {
            return self.typed(prompt, key.code);
        }
        match key.code {
            KeyCode::Char('q') => return vec![Effect::Quit],
            KeyCode::Char(' ') => return if self.held.is_some() { self.resume() } else { self.hold() },
            KeyCode::Left | KeyCode::Char(',') => return self.back(),
            KeyCode::Right | KeyCode::Char('.') => return self.forward(),
            KeyCode::Char('f') => {
                self.freeze = !self.freeze;
                let text =
                    if self.freeze { "will stop at the next late wake-up" } else { "late wake-ups do not stop it" };
                self.message = Some(text.to_owned());
            }
            KeyCode::Char('p') => {
                return self.shown().cloned().map(|s| Effect::Save(Box::new(s))).into_iter().collect();
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') if self.view == View::Doctor => return self.examine(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.prompt = Some(Prompt::Filter(self.filter.clone())),
            KeyCode::Char('t') => self.prompt = Some(Prompt::Threshold(String::new())),
            KeyCode::Char('+') => return self.speed(2.0),
            KeyCode::Char('-') => return self.speed(0.5),
            KeyCode::Esc if self.view == View::Overview => self.filter.clear(),
            KeyCode::Esc => return self.show(View::Overview),
            KeyCode::Enter if self.view == View::Overview => return self.show(View::Workload),
            KeyCode::Tab => return self.turn(1),
            KeyCode::BackTab => return self.turn(View::ALL.len() - 1),
            KeyCode::Char(c) if View::by_key(c).is_some() => return self.show(View::by_key(c).unwrap_or(self.view)),
            KeyCode::Up | KeyCode::Char('k') => self.walk(-1),
            KeyCode::Down | KeyCode::Char('j') => self.walk(1),
            KeyCode::PageUp => self.walk(-self.page()),
            KeyCode::PageDown => self.walk(self.page()),
            KeyCode::Home => self.walk(isize::MIN),
            KeyCode::End => self.walk(isize::MAX),
            _ => {}
        }
        Vec::new()
    }

    fn turn(&mut self, by: usize) -> Vec<Effect> {
        self.show(View::ALL[(self.view as usize + by) % View::ALL.len()])
    }

    /// Goes to a view. The workload under the cursor becomes the selected one, also where the cursor is there only because
    /// the one that was selected is not shown.
    fn show(&mut self, view: View) -> Vec<Effect> {
        if self.view == View::Overview {
            let ids = overview::ids(self);
            let under_cursor = overview::cursor(self, &ids).and_then(|at| ids.get(at).copied());
            self.selected = under_cursor.or(self.selected);
        }
        self.view = view;
        if view == View::Doctor && self.examined.is_none() { self.examine() } else { Vec::new() }
    }

    /// doctor examines the live node, so it is not offered in a replay.
    fn examine(&mut self) -> Vec<Effect> {
        if self.options.kind == SourceKind::Replay || std::mem::replace(&mut self.examining, true) {
            return Vec::new();
        }
        vec![Effect::Examine]
    }

    fn page(&self) -> isize {
        isize::from(i16::try_from(self.options.size.1.saturating_sub(5).max(1)).unwrap_or(i16::MAX))
    }

    /// Moves the cursor of the overview, or what the other views show.
    fn walk(&mut self, by: isize) {
        if self.view == View::Overview {
            let ids = overview::ids(self);
            let at = overview::cursor(self, &ids).unwrap_or(0).saturating_add_signed(by);
            self.selected = ids.get(at.min(ids.len().saturating_sub(1))).copied();
        } else {
            let scroll = &mut self.scroll[self.view as usize];
            *scroll = scroll.saturating_add_signed(by);
        }
    }

    fn hold(&mut self) -> Vec<Effect> {
        self.held = self.shown_number();
        self.order(Order::Pause)
    }

    fn resume(&mut self) -> Vec<Effect> {
        self.held = None;
        self.order(Order::Resume)
    }

    fn back(&mut self) -> Vec<Effect> {
        let effects = if self.held.is_none() { self.hold() } else { Vec::new() };
        self.held = self.held.map(|held| held.saturating_sub(1).max(self.history.oldest()));
        effects
    }

    /// One Snapshot on; where there is none yet, a replay is asked for it.
    fn forward(&mut self) -> Vec<Effect> {
        let (Some(held), Some(newest)) = (self.shown_number(), self.history.newest()) else { return Vec::new() };
        let mut effects = if self.held.is_none() { self.hold() } else { Vec::new() };
        self.held = Some(held + 1);
        if held == newest {
            effects.extend(self.order(Order::Step));
        }
        effects
    }

    fn speed(&mut self, factor: f64) -> Vec<Effect> {
        if self.options.kind == SourceKind::Replay {
            self.options.speed = (self.options.speed * factor).clamp(SPEEDS.0, SPEEDS.1);
        }
        self.order(Order::Speed(self.options.speed))
    }

    /// Only a replay takes orders about time.
    fn order(&self, order: Order) -> Vec<Effect> {
        if self.options.kind == SourceKind::Replay { vec![Effect::Order(order)] } else { Vec::new() }
    }

    /// A key while a line is being typed.
    fn typed(&mut self, prompt: Prompt, code: KeyCode) -> Vec<Effect> {
        let (mut text, wrap): (String, fn(String) -> Prompt) = match prompt {
            Prompt::Filter(text) => (text, Prompt::Filter),
            Prompt::Threshold(text) => (text, Prompt::Threshold),
        };
        match code {
            KeyCode::Esc => return Vec::new(),
            KeyCode::Enter => {
                return match wrap(text) {
                    Prompt::Filter(text) => {
                        self.filter = text;
                        Vec::new()
                    }
                    Prompt::Threshold(text) => self.threshold(&text),
                };
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(c) if text.chars().count() < PROMPT_MAX => text.push(c),
            _ => {}
        }
        self.prompt = Some(wrap(text));
        Vec::new()
    }

    fn threshold(&mut self, text: &str) -> Vec<Effect> {
        let parsed = text.trim().parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let range = Duration::from_micros(1)..=Duration::from_secs(10);
        let Some(limit) = parsed.filter(|limit| range.contains(limit)) else {
            self.message = Some(format!("\"{text}\" is no time between 1us and 10s, such as 200us"));
            return Vec::new();
        };
        self.options.limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        match self.options.kind {
            SourceKind::Live => vec![Effect::Order(Order::Threshold(limit))],
            SourceKind::Socket | SourceKind::Replay => {
                self.message =
                    Some("marks from now on; what is recorded as late is decided by who measures".to_owned());
                Vec::new()
            }
        }
    }
}
