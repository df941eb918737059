//! Scheduling policies by the kernel's numbers and by their names.

/// A scheduling policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedPolicy {
    /// SCHED_OTHER, the fair class.
    Other,
    /// SCHED_FIFO.
    Fifo,
    /// SCHED_RR.
    Rr,
    /// SCHED_BATCH.
    Batch,
    /// SCHED_IDLE.
    Idle,
    /// SCHED_DEADLINE.
    Deadline,
    /// SCHED_EXT.
    Ext,
    /// One that guard does not know.
    Unknown(u32),
}

impl SchedPolicy {
    /// From the number of include/uapi/linux/sched.h.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Other,
            1 => Self::Fifo,
            2 => Self::Rr,
            3 => Self::Batch,
            5 => Self::Idle,
            6 => Self::Deadline,
            7 => Self::Ext,
            other => Self::Unknown(other),
        }
    }

    /// Its name without SCHED_.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "OTHER",
            Self::Fifo => "FIFO",
            Self::Rr => "RR",
            Self::Batch => "BATCH",
            Self::Idle => "IDLE",
            Self::Deadline => "DEADLINE",
            Self::Ext => "EXT",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    /// Whether it is above the fair class: FIFO, RR or DEADLINE.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::Rr | Self::Deadline)
    }
}
