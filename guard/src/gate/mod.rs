//! The gate: runs of a candidate against budgets and against runs of a baseline, and a verdict with a sentence for each
//! figure. Runs come from guard's own reports, from cyclictest and from rtla; nothing here measures, and nothing but
//! [`read`] and [`Budgets::read`] touches a file.
//!
//! In this order: are the runs comparable at all, do they keep the absolute budgets, and is the candidate slower than the
//! baseline. How it decides, and why so, stands in docs/gate.md.

mod budget;
mod distribution;
mod facts;
mod history;
mod judge;
mod power;
mod read;
pub mod render;
mod run;
mod stats;
mod verdict;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use budget::{Budget, Budgets};
pub use distribution::Figures;
pub use facts::{Difference, Fact, Facts};
pub use history::History;
pub use judge::{MIN_RUNS, Settings, Smallest, judge};
pub use power::{Explanation, Needed, explain};
pub use read::{MAX_BYTES, parse, read};
pub use run::{Entry, Run, Series};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use stats::{Shift, holm, median, probability, relative_spread, shift, smallest_probability, without_largest};
pub use verdict::{Budgeted, Comparison, Judged, Outcome, Status, Verdict, json_schema};

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The kernel refused to read it.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: "read" or "list".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}{}: {what}", path.display(), place.as_ref().map_or(String::new(), |place| format!(", {place}")))]
    Format {
        /// The file.
        path: PathBuf,
        /// Where in it, as far as that can be said: "line 7", "line 7, column 3".
        place: Option<String>,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// A figure of a run that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Median.
    P50,
    /// 90th percentile.
    P90,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// 99.99th percentile.
    P9999,
    /// Largest.
    Max,
}

impl Metric {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::P9999, Self::Max];

    /// What is judged unless the user names metrics.
    pub const USUAL: [Self; 3] = [Self::P99, Self::P999, Self::Max];

    /// Latencies that a run must have counted for this figure to mean something: five above the percentile.
    #[must_use]
    pub fn latencies_needed(self) -> u64 {
        match self {
            Self::P50 => 10,
            Self::P90 => 50,
            Self::P99 => 500,
            Self::P999 => 5_000,
            Self::P9999 => 50_000,
            Self::Max => 1,
        }
    }

    /// Its name in budgets, options and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::P9999 => "p9999",
            Self::Max => "max",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::P999 => "p99.9",
            Self::P9999 => "p99.99",
            other => other.name(),
        })
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|metric| metric.name() == text || metric.to_string() == text);
        known.ok_or_else(|| format!("{text:?} is no metric; want p50, p90, p99, p999, p9999 or max"))
    }
}
