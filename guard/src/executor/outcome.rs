//! What is asked of the executor, and what it says came of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::trouble::Trouble;
use crate::knob::{File, Knob, Setting};
use crate::snapshot::{ActionResult, ActionState};

/// What is to happen to a knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It gets this value. When somebody else changes it afterwards, guard gives way.
    Set(Setting),
    /// The same for a value that protects a PLC: it is not limited in rate, and when somebody else changes it, it is
    /// asserted again a few times before guard gives way.
    Lift(Setting),
    /// It gets back what it had before guard.
    Release(Knob),
}

impl What {
    /// Which knob.
    #[must_use]
    pub fn knob(&self) -> Knob {
        match self {
            Self::Set(setting) | Self::Lift(setting) => setting.knob(),
            Self::Release(knob) => *knob,
        }
    }
}

/// A change of one knob of one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path of the cgroup.
    pub path: String,
    /// Its id; another cgroup under the same path is never written.
    pub id: u64,
    /// What is to happen.
    pub what: What,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Path of the cgroup.
    pub path: String,
    /// Its id.
    pub id: u64,
    /// The knob.
    pub knob: Knob,
    /// What its files held; `None` when they were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What they were to hold, in the files' own words.
    pub new: String,
    /// What came of it.
    #[serde(flatten)]
    pub result: WriteResult,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", content = "detail", rename_all = "snake_case")]
pub enum WriteResult {
    /// Written, and read back.
    Written,
    /// The kernel takes the original no more; what comes nearest was written, and read back.
    Nearest(String),
    /// It was so already; nothing was written.
    Unchanged,
    /// A dry run: it would be written.
    Pending,
    /// The cgroup was removed, or is another one now.
    Gone,
    /// The kernel does not take this value: known beforehand, or by its answer.
    Refused(String),
    /// Somebody else set another value, which stays. guard holds this knob no longer.
    Foreign(String),
    /// Not tried now: too often, or too soon after a failure that was told before.
    Limited(String),
    /// The kernel was busy with it; worth another try.
    Busy(String),
    /// The node does not let guard: read-only, not delegated, no permission, no journal.
    Failed(String),
}

impl WriteResult {
    /// Whether something is left that should have been put back.
    #[must_use]
    pub fn is_left(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy(_) | Self::Failed(_) | Self::Limited(_))
    }

    /// Whether the files are as they were to be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Written | Self::Nearest(_) | Self::Unchanged)
    }
}

impl From<&WriteResult> for ActionResult {
    fn from(result: &WriteResult) -> Self {
        let (state, detail) = match result {
            WriteResult::Written => (ActionState::Written, None),
            WriteResult::Nearest(what) => (ActionState::Nearest, Some(what)),
            WriteResult::Unchanged => (ActionState::Unchanged, None),
            WriteResult::Pending => (ActionState::Pending, None),
            WriteResult::Gone => (ActionState::Gone, None),
            WriteResult::Refused(why) => (ActionState::Refused, Some(why)),
            WriteResult::Foreign(why) => (ActionState::Foreign, Some(why)),
            WriteResult::Limited(why) => (ActionState::Limited, Some(why)),
            WriteResult::Busy(why) => (ActionState::Busy, Some(why)),
            WriteResult::Failed(why) => (ActionState::Failed, Some(why)),
        };
        Self { state: state.into(), detail: detail.cloned() }
    }
}

impl fmt::Display for WriteResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ActionResult::from(self).fmt(f)
    }
}

impl From<&Trouble> for WriteResult {
    fn from(trouble: &Trouble) -> Self {
        let said = trouble.to_string();
        match trouble {
            Trouble::Gone => Self::Gone,
            Trouble::Busy(_) => Self::Busy(said),
            Trouble::Invalid(_) => Self::Refused(said),
            Trouble::ReadOnly(_)
            | Trouble::NotDelegated(_)
            | Trouble::NoPermission(_)
            | Trouble::Journal(_)
            | Trouble::Other(_) => Self::Failed(said),
        }
    }
}

/// What came of putting one file back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Path of the cgroup.
    pub path: String,
    /// Id of its directory in the hierarchy that has the file.
    pub id: u64,
    /// The file.
    pub file: File,
    /// What it held; `None` when it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What it held before guard.
    pub original: String,
    /// What came of it.
    #[serde(flatten)]
    pub result: WriteResult,
}

/// What came of putting one property of a unit back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoredProperty {
    /// The unit.
    pub unit: String,
    /// The property, by its name on D-Bus.
    pub property: String,
    /// What it was; `None` when systemd was not asked, or did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What it was before guard.
    pub original: String,
    /// What came of it.
    #[serde(flatten)]
    pub result: WriteResult,
}

impl fmt::Display for RestoredProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or("?");
        write!(f, "{} {}  {found} -> {}  {}", self.unit, self.property, self.original, self.result)
    }
}

impl From<Restored> for Outcome {
    fn from(restored: Restored) -> Self {
        let Restored { path, id, file, found, original, result } = restored;
        Self { path, id, knob: file.knob(), old: found, new: original, result }
    }
}
