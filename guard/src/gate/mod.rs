//! The gate: runs of a candidate against budgets and against runs of a baseline, and a verdict with a sentence for each
//! figure. Runs come from guard's own reports, from cyclictest and from rtla; nothing here measures, and nothing but
//! [`read()`], [`Budgets::read`] and [`History::read`] touches a file.
//!
//! In this order: are the runs comparable at all, do they keep the absolute budgets, and is the candidate slower than the
//! baseline. How it decides, and why so, stands in docs/gate.md.

mod budget;
mod distribution;
mod error;
mod facts;
mod history;
mod judge;
mod metric;
mod power;
mod read;
pub mod render;
mod run;
mod stats;
mod text;
mod verdict;

pub use budget::{Budgets, FigureBudget};
pub use distribution::Figures;
pub use error::GateError;
pub use facts::{Difference, Fact, RunFacts};
pub use history::History;
pub use judge::{GateSettings, MIN_RUNS, Smallest, judge};
pub use metric::{LatencySignal, Metric};
pub use power::{Needed, SampleSizes, explain};
pub use read::{nothing_in, parse, read};
pub use run::{Run, Series, SeriesFigures};
pub use stats::{Shift, holm, median, probability, relative_spread, shift, smallest_probability, without_largest};
pub use text::MAX_BYTES;
pub use verdict::{Budgeted, Comparison, GateOutcome, Judged, Status, Verdict, json_schema};
