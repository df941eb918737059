//! The figures of a run that can be judged, and what they are figures of.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::words;

words! {
    /// What a latency is counted from.
    enum LatencySignal {
        /// The requested expiry of a timer, to the last stage seen.
        Timer = "timer",
        /// The wake-up of a real-time task.
        Wakeup = "wakeup",
        /// The requested expiry of a timer, to its interrupt.
        Irq = "irq",
        /// Not counted from anything: time that others took from a thread that never sleeps.
        Noise = "noise",
    }
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
