//! What guard leaves behind when it ends.

use std::fmt;

/// What was not put back at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Lanes that did not come to their end.
    pub(super) lanes: usize,
    /// Values that the kernel did not take back.
    pub(super) values: usize,
    /// Why the journal of a lane that had panicked was not put back.
    pub(super) journal: Option<String>,
}

impl Left {
    /// Whether everything was.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("everything that guard had changed was put back");
        }
        let mut what = Vec::new();
        if self.values > 0 {
            what.push(format!("at least {} values were not put back", self.values));
        }
        if self.lanes > 0 {
            what.push(format!("{} of 2 lanes did not put back in time what they held", self.lanes));
        }
        what.extend(self.journal.as_ref().map(|why| format!("a journal was not put back: {why}")));
        write!(f, "{}; run `guard restore`", what.join(", "))
    }
}
