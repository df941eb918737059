//! What guard's own process costs, window by window.

use rustix::time::ClockId;

use crate::sched::{clock_ns, now_ns};

/// What guard's own process cost in the window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnCost {
    /// CPU time as a fraction of one CPU.
    pub(super) cpu_fraction: f64,
    /// Resident memory, bytes.
    pub(super) memory_bytes: u64,
}

/// Both clocks at the begin of the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnCostMeter {
    wall_ns: u64,
    cpu_ns: u64,
}

impl OwnCostMeter {
    /// Begins a window now.
    pub(super) fn start() -> Self {
        Self { wall_ns: now_ns(), cpu_ns: clock_ns(ClockId::ProcessCPUTime) }
    }

    /// Ends the window and begins the next one.
    pub(super) fn take(&mut self) -> OwnCost {
        let began = std::mem::replace(self, Self::start());
        let (wall_ns, cpu_ns) = (self.wall_ns.saturating_sub(began.wall_ns), self.cpu_ns.saturating_sub(began.cpu_ns));
        #[allow(clippy::cast_precision_loss, reason = "a window stays far below 2^53 ns")]
        let cpu_fraction = if wall_ns > 0 { cpu_ns as f64 / wall_ns as f64 } else { 0.0 };
        OwnCost { cpu_fraction, memory_bytes: resident_bytes().unwrap_or(0) }
    }
}

/// Resident memory of this process, bytes.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_resident_memory() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
