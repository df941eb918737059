//! One line on stderr that says what is going on and for how long, once something takes longer than two seconds.
//! On a terminal the line is rewritten in place; elsewhere it is a plain line, repeated rarely.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// Nothing is shown for work that ends within this time.
const QUIET: Duration = Duration::from_secs(2);
/// How often the line is refreshed on a terminal.
const REFRESH: Duration = Duration::from_secs(1);
/// How often a plain line is repeated where stderr is no terminal.
const REPEAT: Duration = Duration::from_secs(30);

/// A piece of work under way. Whoever waits for it calls [`Progress::tick`] now and then.
pub(crate) struct Progress {
    what: String,
    begun: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Work described by `what`, beginning now.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), begun: Instant::now(), shown: None, terminal: std::io::stderr().is_terminal() }
    }

    /// The same as plain lines even on a terminal, for work that goes on beside other work.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self { terminal: false, ..Self::new(what) }
    }

    /// Shows the line if it is due.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        let pause = if self.terminal { REFRESH } else { REPEAT };
        let due = match self.shown {
            None => now - self.begun >= QUIET,
            Some(last) => now - last >= pause,
        };
        if !due {
            return;
        }
        self.shown = Some(now);
        let seconds = (now - self.begun).as_secs();
        // A failed write to stderr must not end the work that it reports on.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r\x1b[K{} … {seconds} s", self.what)
        } else {
            writeln!(std::io::stderr(), "xtask: {} … {seconds} s", self.what)
        };
    }

    /// Takes the line off a terminal, because something else is about to be printed. It comes back when due.
    pub(crate) fn clear(&mut self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// Ends the work: takes the line away and, if it was ever shown, says how long the work took.
    pub(crate) fn finish(mut self, outcome: &str) {
        self.clear();
        if self.shown.is_some() {
            let _ = writeln!(
                std::io::stderr(),
                "xtask: {}: {outcome} after {} s",
                self.what,
                self.begun.elapsed().as_secs()
            );
        }
    }
}
