//! The CPUs that the calling thread may run on.

use std::io;

use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use super::call::CallError;
use crate::snapshot::CpuList;

/// CPUs that the calling thread may run on.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed() -> Result<CpuList, CallError> {
    let set = sched_getaffinity(None).map_err(CallError::at("sched_getaffinity"))?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).filter_map(|cpu| u32::try_from(cpu).ok()).collect())
}

/// Has the calling thread, and those it starts from then on, run on these CPUs only.
///
/// # Errors
/// When the kernel refuses.
pub fn run_on(cpus: &CpuList) -> Result<(), CallError> {
    let mut set = CpuSet::new();
    let known = cpus.iter().filter_map(|cpu| usize::try_from(cpu).ok()).filter(|cpu| *cpu < CpuSet::MAX_CPU);
    known.for_each(|cpu| set.set(cpu));
    sched_setaffinity(None, &set).map_err(CallError::at(format!("sched_setaffinity({cpus})")))
}

/// Pins the calling thread to `cpu`; `None` leaves it where it may run.
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
    sched_setaffinity(None, &set).map_err(CallError::at(call))
}

/// Id of the calling thread.
#[must_use]
pub fn tid() -> u32 {
    gettid().as_raw_pid().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_no_kernel_has_is_refused_by_number() {
        assert!(pin(Some(usize::MAX)).unwrap_err().to_string().contains(&usize::MAX.to_string()));
    }
}
