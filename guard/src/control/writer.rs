//! What the lanes need of whoever writes: the executor of the cgroup room, or a test's stand-in for it.

use crate::snapshot::{Knob, Setting};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub id: u64,
    pub what: What,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Set(Setting),
    Lift(Setting),
    Release(Knob),
}
impl What {
    pub fn knob(&self) -> Knob {
        match self {
            Self::Set(setting) | Self::Lift(setting) => setting.knob(),
            Self::Release(knob) => *knob,
        }
    }
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub path: String,
    pub id: u64,
    pub knob: Knob,
    pub old: Option<String>,
    pub new: String,
    pub result: WriteResult,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    Written,
    Unchanged,
    Refused(String),
}
impl std::fmt::Display for WriteResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// Writes knobs, and can take every write back.
pub(super) trait Writer: Send + 'static {
    /// Records the present values of knobs, so that the first write to them need not wait for the disk.
    fn prepare(&mut self, knobs: &[(String, u64, Knob)]);
    /// Makes changes, in an order in which the kernel takes them.
    fn apply(&mut self, changes: &[Change]) -> Vec<Outcome>;
    /// Looks whether somebody else has changed what is held.
    fn check_drift(&mut self) -> Vec<Outcome>;
    /// Puts everything back.
    fn restore_all(&mut self) -> Vec<Outcome>;
    /// What is held now: path and id of the cgroup, and the value.
    fn held(&self) -> Vec<(String, u64, Setting)>;
}
