//! What every thread of a workload needs: a policy, a CPU, clocks, and ways to sleep and to burn time.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::thread::{CapabilitySet, ClockId, CpuSet};
use rustix::time::Timespec;

use crate::lab::sys;

/// A system call that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct CallError {
    call: String,
    source: io::Error,
}

impl CallError {
    /// For use with `map_err`: `call` is the call with its arguments.
    pub fn at<E: Into<io::Error>>(call: impl Into<String>) -> impl FnOnce(E) -> Self {
        let call = call.into();
        move |source| Self { call, source: source.into() }
    }

    /// Whether a privilege is missing.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// Scheduling policy of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// SCHED_OTHER.
    Other,
    /// SCHED_FIFO with this priority.
    Fifo(i32),
    /// SCHED_DEADLINE with this runtime in us; deadline and period are the cycle's interval.
    Deadline(u64),
}

/// A text that names no policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not one of the forms.
    #[error("\"{0}\" is none of other, fifo:PRIORITY, deadline:RUNTIME_US")]
    Form(String),
    /// What should be a number is none.
    #[error("\"{0}\" is not a number")]
    Number(String),
    /// A priority that SCHED_FIFO does not have.
    #[error("priority {0} is not in 1..=99")]
    Priority(u32),
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| PolicyError::Number(text.to_owned()));
        match text.split_once(':') {
            None if text == "other" => Ok(Self::Other),
            Some(("fifo", priority)) => match number(priority)? {
                priority @ 1..=99 => Ok(Self::Fifo(priority.cast_signed())),
                priority => Err(PolicyError::Priority(priority)),
            },
            Some(("deadline", runtime)) => Ok(Self::Deadline(number(runtime)?.into())),
            _ => Err(PolicyError::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("SCHED_OTHER"),
            Self::Fifo(priority) => write!(f, "SCHED_FIFO {priority}"),
            Self::Deadline(runtime_us) => write!(f, "SCHED_DEADLINE {runtime_us} us"),
        }
    }
}

impl Policy {
    /// Gives the calling thread this policy; `interval_us` is the period for SCHED_DEADLINE.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(self, interval_us: u64) -> Result<(), CallError> {
        match self {
            Self::Other => Ok(()),
            Self::Fifo(priority) => {
                sys::set_fifo(priority).map_err(CallError::at(format!("sched_setscheduler(SCHED_FIFO, {priority})")))
            }
            Self::Deadline(runtime_us) => sys::set_deadline(runtime_us * 1000, interval_us * 1000)
                .map_err(CallError::at(format!("sched_setattr(SCHED_DEADLINE, {runtime_us} us of {interval_us} us)"))),
        }
    }

    /// Whether the calling thread is under SCHED_FIFO, as the kernel says.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_fifo_now() -> Result<bool, CallError> {
        let policy = sys::own_policy().map_err(CallError::at("sched_getscheduler"))?;
        Ok(policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO)
    }
}

/// Takes from the calling thread, and from those it starts, what real-time policies need: CAP_SYS_NICE and
/// RLIMIT_RTPRIO. That is how a container starts that was given neither.
///
/// # Errors
/// When the kernel refuses.
pub fn forgo_realtime() -> Result<(), CallError> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Rtprio, none).map_err(CallError::at("setrlimit(RLIMIT_RTPRIO, 0)"))?;
    let mut own = rustix::thread::capabilities(None).map_err(CallError::at("capget"))?;
    own.effective.remove(CapabilitySet::SYS_NICE);
    own.permitted.remove(CapabilitySet::SYS_NICE);
    own.inheritable.remove(CapabilitySet::SYS_NICE);
    rustix::thread::set_capabilities(None, own).map_err(CallError::at("capset without CAP_SYS_NICE"))
}

/// Pins the calling thread to `cpu`; None leaves it where it may run.
///
/// # Errors
/// When the kernel refuses, or no kernel has that CPU.
pub fn pin(cpu: Option<usize>) -> Result<(), CallError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let call = format!("sched_setaffinity(CPU {cpu})");
    if cpu >= CpuSet::MAX_CPU {
        return Err(CallError::at(call)(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(CallError::at(call))
}

/// Id of the calling thread.
#[must_use]
pub fn tid() -> u32 {
    rustix::thread::gettid().as_raw_pid().cast_unsigned()
}

/// CLOCK_MONOTONIC, ns.
#[must_use]
pub fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// Time of a clock, ns.
pub(crate) fn clock_ns(clock: ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
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
    loop {
        match rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &timespec(ns)) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
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
    fn policies_are_read_and_wrong_ones_are_named() {
        assert_eq!("other".parse(), Ok(Policy::Other));
        assert_eq!("fifo:80".parse(), Ok(Policy::Fifo(80)));
        assert_eq!("deadline:300".parse(), Ok(Policy::Deadline(300)));
        assert_eq!("fifo:100".parse::<Policy>(), Err(PolicyError::Priority(100)));
        assert_eq!("fifo:x".parse::<Policy>(), Err(PolicyError::Number("x".into())));
        assert_eq!("idle".parse::<Policy>(), Err(PolicyError::Form("idle".into())));
    }

    #[test]
    fn cpu_time_is_burnt_and_not_only_wall_clock_time() {
        let before = clock_ns(ClockId::ThreadCPUTime);
        burn_cpu_ns(2_000_000);
        assert!(clock_ns(ClockId::ThreadCPUTime) >= before + 2_000_000);
    }

    #[test]
    fn a_cpu_that_no_kernel_has_is_refused_by_number() {
        assert!(pin(Some(usize::MAX)).unwrap_err().to_string().contains(&usize::MAX.to_string()));
    }
}
