//! What guard did or would do: a change, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{ActionState, Word};

/// A change guard made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// When, RFC 3339.
    pub at: String,
    /// Which knob.
    pub knob: String,
    /// Which cgroup.
    pub path: String,
    /// Value before.
    pub old: String,
    /// Value wanted.
    pub new: String,
    /// Why.
    pub reason: String,
    /// Snapshot values that led to it.
    pub evidence: BTreeMap<String, f64>,
    /// What came of it.
    #[schemars(with = "String")]
    pub result: ActionResult,
}

/// What came of a change. In JSON one text: the state and, behind ": ", why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ActionResult {
    /// What came of it; of another version's text all that stands there.
    pub state: Word<ActionState>,
    /// Why, or what instead.
    pub detail: Option<String>,
}

impl From<ActionState> for ActionResult {
    fn from(state: ActionState) -> Self {
        Self { state: state.into(), detail: None }
    }
}

impl From<&str> for ActionResult {
    fn from(text: &str) -> Self {
        let (state, detail) = text.split_once(": ").map_or((text, None), |(state, detail)| (state, Some(detail)));
        match state.parse::<ActionState>() {
            Ok(state) => Self { state: state.into(), detail: detail.map(str::to_owned) },
            Err(_) => Self { state: text.into(), detail: None },
        }
    }
}

impl fmt::Display for ActionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        self.detail.iter().try_for_each(|detail| write!(f, ": {detail}"))
    }
}

impl From<String> for ActionResult {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<ActionResult> for String {
    fn from(result: ActionResult) -> Self {
        result.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_and_written_as_it_stands() {
        for (text, state, detail) in [
            ("written", Some(ActionState::Written), None),
            ("refused: it is no cpu: 9", Some(ActionState::Refused), Some("it is no cpu: 9")),
            ("written as near as the kernel takes it: 0-3", Some(ActionState::Nearest), Some("0-3")),
            ("refused: ", Some(ActionState::Refused), Some("")),
            ("refused", Some(ActionState::Refused), None),
            ("put off: for\nlater", None, None),
            ("", None, None),
        ] {
            let json = serde_json::to_string(text).unwrap();
            let result: ActionResult = serde_json::from_str(&json).unwrap();
            assert_eq!((result.state.known(), result.detail.as_deref()), (state, detail), "{text:?}");
            assert_eq!(serde_json::to_string(&result).unwrap(), json);
        }
    }
}
