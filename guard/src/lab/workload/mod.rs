//! The processes that the lab runs in its cgroups. Each is guard itself under the hidden subcommand `lab-workload`, so that a
//! node needs nothing else. Their threads time themselves; nothing here knows what guard measures. The parts they are
//! made of are shared with the tests' own workloads: locks here, policies and clocks in [`crate::sched`].

pub mod lock;

mod part;
mod roles;

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::spawn;

use serde::Serialize;

pub use part::{PartOutcome, ProcessPart, Ready, Role};

use crate::sched::{CallError, forgo_realtime, now_ns, pin, tid};
use roles::{Run, WorkloadThread};

/// Why a workload could not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The argument is no [`ProcessPart`].
    #[error("\"{text}\" is no part of the lab: {source}")]
    Part {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The kernel refused a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Whoever started the workload does not listen any more, or said nothing.
    #[error("cannot {what}: {source}")]
    Pipe {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread panicked.
    #[error("a thread of the workload panicked")]
    Panicked,
}

/// Plays the part that `text` describes and prints [`Ready`] and [`PartOutcome`], one line each. Meant as the whole of a
/// process: after an error its threads may still run.
///
/// # Errors
/// See [`WorkloadError`].
pub fn run(text: &str) -> Result<(), WorkloadError> {
    let part: ProcessPart =
        serde_json::from_str(text).map_err(|source| WorkloadError::Part { text: text.to_owned(), source })?;
    if part.held {
        // Whoever started this process puts it into a cgroup first: threads are born where it is then.
        await_line()?;
    }
    print_line(&run_part(&part)?)
}

fn run_part(part: &ProcessPart) -> Result<PartOutcome, WorkloadError> {
    if part.role == Role::Fallback {
        forgo_realtime()?;
    }
    let threads = roles::threads(part);
    let go = Arc::new(Barrier::new(threads.len() + 1));
    let (begin_ns, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (entries, entered) = mpsc::channel();
    let mut handles = Vec::new();
    for (number, thread) in threads.into_iter().enumerate() {
        let (go, begin_ns, done, entries) =
            (Arc::clone(&go), Arc::clone(&begin_ns), Arc::clone(&done), entries.clone());
        let (interval_ns, length_ns) = (part.interval_us * 1000, part.duration_ms * 1_000_000);
        handles.push(spawn(move || -> Result<Option<PartOutcome>, CallError> {
            let WorkloadThread { scheduling, may_be_refused, cpu, work } = thread;
            let ready = pin(cpu).and_then(|()| match scheduling.apply(0) {
                Err(error) if may_be_refused && error.is_refusal() => Ok(()),
                result => result,
            });
            // The receiver lives as long as anybody is expected.
            let _ = entries.send(ready.map(|()| (number, tid())));
            go.wait();
            let begin_ns = begin_ns.load(Ordering::Acquire);
            let outcome = work(&Run { begin_ns, end_ns: begin_ns + length_ns, interval_ns, done: &done });
            // Whoever fails or ends first ends the others.
            done.store(true, Ordering::Relaxed);
            outcome
        }));
    }
    let mut tids = Vec::new();
    for _ in 0..handles.len() {
        tids.push(entered.recv().map_err(|_| WorkloadError::Panicked)??);
    }
    tids.sort_unstable();
    print_line(&Ready { pid: std::process::id(), tids: tids.into_iter().map(|(_, tid)| tid).collect() })?;
    if part.held {
        await_line()?;
    }
    // A little ahead, so that no thread begins late.
    begin_ns.store(now_ns() + 2 * part.interval_us * 1000, Ordering::Release);
    go.wait();
    let mut outcome = PartOutcome::default();
    for handle in handles {
        if let Some(own) = handle.join().map_err(|_| WorkloadError::Panicked)?? {
            outcome.add(&own);
        }
    }
    Ok(outcome)
}

fn await_line() -> Result<(), WorkloadError> {
    let mut line = String::new();
    let failed = |source| WorkloadError::Pipe { what: "wait for a line on stdin", source };
    match io::stdin().read_line(&mut line).map_err(failed)? {
        0 => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

/// Prints one line of JSON at once.
///
/// # Errors
/// When stdout is closed.
pub fn print_line<T: Serialize>(value: &T) -> Result<(), WorkloadError> {
    let failed = |source| WorkloadError::Pipe { what: "write to stdout", source };
    let mut line = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(role: Role) -> ProcessPart {
        ProcessPart { role, interval_us: 2_000, duration_ms: 100, cpu: None, held: false }
    }

    #[test]
    fn a_part_survives_its_way_over_the_command_line() {
        let part = ProcessPart { cpu: Some(3), held: true, ..part(Role::Lock { inherit: true, busy_percent: 100 }) };
        let text = serde_json::to_string(&part).unwrap();
        assert_eq!(serde_json::from_str::<ProcessPart>(&text).unwrap(), part);
    }

    #[test]
    fn what_is_no_part_is_refused_with_what_was_given() {
        let error = run("{\"role\":\"hamlet\"}").unwrap_err().to_string();
        assert!(error.contains("hamlet"), "{error}");
    }

    #[test]
    fn a_fair_thread_counts_every_cycle_that_was_due() {
        let outcome = run_part(&part(Role::Fair)).unwrap();
        assert_eq!(outcome.policy, "SCHED_OTHER");
        // 100 ms of 2 ms of whoever is done first. The others may hardly have begun then, and on a busy machine their last cycle
        // runs far beyond the end; what it makes them miss is due all the same.
        assert!(outcome.cycles >= 49, "{outcome:?}");
        assert!(outcome.lost <= outcome.cycles);
        assert!(outcome.response.min_ns() >= 1_200_000, "six tenths of 2 ms: {outcome:?}");
    }

    #[test]
    fn a_load_ends_by_itself() {
        assert_eq!(run_part(&part(Role::Load)).unwrap(), PartOutcome::default());
    }
}
