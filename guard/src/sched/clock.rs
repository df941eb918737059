//! Clocks in ns, and ways to let time pass: asleep or busy.

use rustix::io::Errno;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::call::CallError;

/// CLOCK_MONOTONIC, ns.
#[must_use]
pub fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// Time of a clock, ns.
#[must_use]
pub fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// `ns` in the kernel's form.
#[must_use]
pub fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() }
}

/// Sleeps until `ns` of CLOCK_MONOTONIC, through signals.
///
/// # Errors
/// When the kernel refuses.
pub fn sleep_until(ns: u64) -> Result<(), CallError> {
    sleep_until_by(ClockId::Monotonic, ns)
}

/// Sleeps until `ns` of a clock, through signals.
///
/// # Errors
/// When the kernel refuses.
pub fn sleep_until_by(clock: ClockId, ns: u64) -> Result<(), CallError> {
    loop {
        match clock_nanosleep_absolute(clock, &timespec(ns)) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(CallError::at("clock_nanosleep")(error)),
        }
    }
}

/// Burns CPU until `ns` of CLOCK_MONOTONIC.
pub fn burn_until(ns: u64) {
    while now_ns() < ns {
        std::hint::spin_loop();
    }
}

/// Burns `ns` of the calling thread's own CPU time, however often it is preempted.
pub fn burn_cpu_ns(ns: u64) {
    let end = clock_ns(ClockId::ThreadCPUTime) + ns;
    while clock_ns(ClockId::ThreadCPUTime) < end {
        // Reading this clock is a system call that takes the run-queue lock: not without pause.
        for _ in 0..64 {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_burnt_and_not_only_wall_clock_time() {
        let before = clock_ns(ClockId::ThreadCPUTime);
        burn_cpu_ns(2_000_000);
        assert!(clock_ns(ClockId::ThreadCPUTime) >= before + 2_000_000);
    }
}
