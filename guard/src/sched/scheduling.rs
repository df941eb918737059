//! How the calling thread is scheduled: policies with their parameters.

use std::fmt;
use std::str::FromStr;

use rustix::thread::CapabilitySet;

use super::call::CallError;
use super::sys;
use crate::snapshot::SchedPolicy;

/// A scheduling policy with its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// As the thread was started: SCHED_OTHER.
    Other,
    /// SCHED_FIFO with this priority.
    Fifo(i32),
    /// SCHED_RR with this priority.
    RoundRobin(i32),
    /// SCHED_DEADLINE with this runtime in us; deadline and period are the cycle's interval.
    Deadline(u64),
}

/// A text that names no scheduling.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchedulingError {
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

impl FromStr for Scheduling {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| SchedulingError::Number(text.to_owned()));
        match text.split_once(':') {
            None if text == "other" => Ok(Self::Other),
            Some(("fifo", priority)) => match number(priority)? {
                priority @ 1..=99 => Ok(Self::Fifo(priority.cast_signed())),
                priority => Err(SchedulingError::Priority(priority)),
            },
            Some(("deadline", runtime)) => Ok(Self::Deadline(number(runtime)?.into())),
            _ => Err(SchedulingError::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("SCHED_OTHER"),
            Self::Fifo(priority) => write!(f, "SCHED_FIFO {priority}"),
            Self::RoundRobin(priority) => write!(f, "SCHED_RR {priority}"),
            Self::Deadline(runtime_us) => write!(f, "SCHED_DEADLINE {runtime_us} us"),
        }
    }
}

impl Scheduling {
    /// Gives it to the calling thread; `interval_us` is the period for SCHED_DEADLINE.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(self, interval_us: u64) -> Result<(), CallError> {
        let set = |policy, name: &str, priority| {
            let call = || format!("sched_setscheduler({name}, {priority})");
            sys::set_scheduler(0, policy, priority).map_err(|error| CallError::at(call())(error))
        };
        match self {
            Self::Other => Ok(()),
            Self::Fifo(priority) => set(libc::SCHED_FIFO, "SCHED_FIFO", priority),
            Self::RoundRobin(priority) => set(libc::SCHED_RR, "SCHED_RR", priority),
            Self::Deadline(runtime_us) => sys::set_deadline(runtime_us * 1000, interval_us * 1000)
                .map_err(CallError::at(format!("sched_setattr(SCHED_DEADLINE, {runtime_us} us of {interval_us} us)"))),
        }
    }

    /// Whether the calling thread is under SCHED_FIFO, as the kernel says.
    #[must_use]
    pub fn is_fifo_now() -> bool {
        sys::policy_of(0) == Some(SchedPolicy::Fifo)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_wrong_ones_are_named() {
        assert_eq!("other".parse(), Ok(Scheduling::Other));
        assert_eq!("fifo:80".parse(), Ok(Scheduling::Fifo(80)));
        assert_eq!("deadline:300".parse(), Ok(Scheduling::Deadline(300)));
        assert_eq!("fifo:100".parse::<Scheduling>(), Err(SchedulingError::Priority(100)));
        assert_eq!("fifo:x".parse::<Scheduling>(), Err(SchedulingError::Number("x".into())));
        assert_eq!("idle".parse::<Scheduling>(), Err(SchedulingError::Form("idle".into())));
    }
}
