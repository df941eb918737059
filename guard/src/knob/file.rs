//! Which file of which knob. Name and format stand in the knob's row.

use super::setting::Knob;

/// A file that guard may write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct File {
    pub(super) knob: Knob,
    /// Its place among the knob's files.
    pub(super) at: usize,
}

impl File {
    pub(super) const fn new(knob: Knob, at: usize) -> Self {
        Self { knob, at }
    }

    /// The knob that it belongs to.
    #[must_use]
    pub fn knob(self) -> Knob {
        self.knob
    }
}
