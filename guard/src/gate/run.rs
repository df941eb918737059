//! One run: what was measured, where, and the few figures of it that can be judged.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::distribution::{Distribution, Figures};
use super::facts::{RunFacts, printable};
use super::metric::LatencySignal;
use crate::snapshot::Word;

/// A run of a measurement, whatever wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The file it stands in, with the line in a history.
    pub source: String,
    /// Hash of what it was read from: the same run is the same wherever it stands.
    pub id: String,
    /// When it began, RFC 3339, where the format says.
    pub at: Option<String>,
    /// Where and how it was made.
    pub facts: RunFacts,
    /// Its figures.
    pub series: BTreeMap<Series, SeriesFigures>,
    /// What its reader should know: events that were lost.
    pub notes: Vec<String>,
}

#[cfg(test)]
impl Run {
    /// Figures that the run must have.
    pub(super) fn figures(&self, workload: &str, signal: LatencySignal) -> &Figures {
        let found = self.series.iter().find(|(series, _)| series.workload == workload && series.signal == signal);
        &found.unwrap_or_else(|| panic!("{workload} {signal} in {:?}", self.series.keys())).1.figures
    }
}

/// What latencies are of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Container or path of a cgroup; "cyclictest" or "timerlat" for the threads of these; with ":" and its name or
    /// number for a single thread.
    pub workload: String,
    /// What its latencies are counted from. A history may have the word of another version.
    pub signal: Word<LatencySignal>,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.workload, self.signal)
    }
}

/// Figures of a series in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesFigures {
    /// The figures.
    pub figures: Figures,
    /// Whether it is a single thread, or belongs to the system: judged only when asked for.
    pub detail: bool,
}

/// The distributions of a run while it is read.
#[derive(Debug, Default)]
pub(super) struct Collected(BTreeMap<Series, (Distribution, bool)>);

impl Collected {
    /// Adds a distribution; those of one name are one.
    pub(super) fn add(&mut self, workload: &str, signal: LatencySignal, detail: bool, distribution: &Distribution) {
        let series = Series { workload: printable(workload), signal: signal.into() };
        let (all, all_detail) = self.0.entry(series).or_insert_with(|| (Distribution::default(), true));
        all.merge(distribution);
        *all_detail &= detail;
    }

    /// The figures of all that counted something.
    pub(super) fn figures(self) -> BTreeMap<Series, SeriesFigures> {
        let entry = |(distribution, detail): (Distribution, bool)| {
            Some(SeriesFigures { figures: distribution.figures()?, detail })
        };
        self.0.into_iter().filter_map(|(series, collected)| Some((series, entry(collected)?))).collect()
    }
}

/// Hash of a run's text (FNV-1a; Fowler, Noll and Vo, 1991), as hexadecimal digits.
pub(super) fn id_of(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
