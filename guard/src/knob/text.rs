//! Texts of kernel files that are not what their format says, and numbers in them.

use crate::snapshot::CpuListError;

/// A text that is not in the expected format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {value:?}")]
pub struct ParseError {
    /// What the format asks for.
    pub expected: &'static str,
    /// The beginning of what was found.
    pub value: String,
}

impl ParseError {
    pub(crate) fn new(expected: &'static str, value: &str) -> Self {
        Self { expected, value: value.chars().take(80).collect() }
    }
}

impl From<CpuListError> for ParseError {
    fn from(error: CpuListError) -> Self {
        Self::new("a CPU list such as 0-3,8", error.value())
    }
}

pub(crate) fn parse_u64(text: &str) -> Result<u64, ParseError> {
    let digits = text.trim();
    if digits.starts_with('+') {
        return Err(ParseError::new("an unsigned number", text));
    }
    digits.parse().map_err(|_| ParseError::new("an unsigned number", text))
}
