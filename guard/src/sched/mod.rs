//! What a thread asks of the kernel for itself: clocks, sleeping until an instant, CPUs to run on, and how it is scheduled.
//! It knows nobody who asks.

mod call;
mod clock;
mod cpus;
mod scheduling;
mod sys;

pub use crate::snapshot::SchedPolicy;
pub use call::CallError;
pub use clock::{burn_cpu_ns, burn_until, clock_ns, now_ns, sleep_until, sleep_until_by, timespec};
pub use cpus::{allowed, pin, run_on, tid};
pub use scheduling::{Scheduling, SchedulingError, forgo_realtime};
pub use sys::{deadline_period_ns, policy_of, set_scheduler, sleep_and_read};
