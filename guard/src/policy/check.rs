//! Checks of settings that several policies share.

use crate::snapshot::{BudgetMetric, BudgetMetricError, Word};
use std::{fmt, ops::RangeInclusive};

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Which one, with its section: "suppress.latency.hold_s".
    pub field: &'static str,
    /// What is wrong with it, with its value.
    pub message: String,
}

impl Invalid {
    pub(super) fn new(field: &'static str, message: String) -> Self {
        Self { field, message }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for Invalid {}

pub(super) fn within(field: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{value} is not within {} to {}", range.start(), range.end())))
}

/// A share, 0 to 1.
pub(super) fn fraction(field: &'static str, value: f64) -> Result<(), Invalid> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{value} is no share between 0 and 1")))
}

/// A time of at most a year; NaN is none.
pub(super) fn seconds(field: &'static str, value: f64) -> Result<(), Invalid> {
    if (0.0..=31_536_000.0).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{value} is no time between 0 and 31536000 s")))
}

pub(super) fn metric(field: &'static str, value: &Word<BudgetMetric>) -> Result<(), Invalid> {
    match value {
        Word::Known(_) => Ok(()),
        Word::Other(text) => Err(Invalid::new(field, BudgetMetricError::new(text).to_string())),
    }
}
