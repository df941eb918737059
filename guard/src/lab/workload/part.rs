//! What a process of the lab does, and what it reports: JSON over its command line and stdout.

use serde::{Deserialize, Serialize};

use crate::snapshot::Latency;

/// What one process does: the argument of `guard lab-workload`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPart {
    /// Which threads it has.
    pub role: Role,
    /// Length of a cycle, us.
    pub interval_us: u64,
    /// For how long, ms.
    pub duration_ms: u64,
    /// The CPU that its threads share; absent where they may run anywhere or choose themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<usize>,
    /// Wait for a line on stdin before starting threads and for another one before beginning, and end with the process
    /// that started this one.
    #[serde(default)]
    pub held: bool,
}

/// The threads of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A cyclic SCHED_FIFO thread takes a lock in every cycle that a fair thread holds most of the time, for a tenth of a
    /// cycle each time.
    Lock {
        /// Whether the lock has priority inheritance.
        inherit: bool,
        /// How much of the time the fair thread works, percent; 100 when it is always busy.
        busy_percent: u8,
    },
    /// A cyclic thread that asks for SCHED_FIFO, is refused, and goes on; it works for four tenths of its cycle.
    Fallback,
    /// A cyclic SCHED_FIFO thread that needs a new value in every cycle from a fair thread, which works for four tenths of
    /// a cycle on each.
    CoThread,
    /// One fair cyclic thread on each CPU that works for six tenths of its cycle.
    Fair,
    /// Busy threads that walk through memory, two for each CPU.
    Load,
    /// A SCHED_FIFO thread that never sleeps, and a fair one that wants the same CPU.
    Hog,
}

/// First line of a workload's output: its threads exist and have their policies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Process id.
    pub pid: u32,
    /// Thread ids, the measured one first.
    pub tids: Vec<u32>,
}

/// Last line of a workload's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOutcome {
    /// Policy that the cyclic thread had.
    pub policy: String,
    /// Cycles that were due.
    pub cycles: u64,
    /// Those of them that were not done before the next one was due, were skipped for that reason, or had nothing new to
    /// work with.
    pub lost: u64,
    /// From when a cycle was due to when its work was done. Skipped cycles have none.
    pub response: Latency,
    /// From when a cycle was due to when the thread was awake: what cyclictest measures.
    pub wakeup: Latency,
}

impl PartOutcome {
    pub(super) fn add(&mut self, other: &Self) {
        if self.policy.is_empty() {
            self.policy.clone_from(&other.policy);
        }
        self.cycles += other.cycles;
        self.lost += other.lost;
        self.response.merge(&other.response);
        self.wakeup.merge(&other.wakeup);
    }
}
