//! Why the kernel refuses a program: the line of the verifier's log that says so.

use std::{error::Error, fmt, io};

use aya::{programs::ProgramError, sys::SyscallError};

use super::error::KernelError;

/// A program that was not loaded, or loaded and not attached.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) program: &'static str,
    /// The error of the system call, if it came to one.
    errno: Option<i32>,
    reason: String,
}

impl Refusal {
    pub(super) fn new(program: &'static str, error: &ProgramError) -> Self {
        let reason = match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                tracing::debug!(program, log, "the verifier's log");
                complaint(&log).map_or_else(|| io_error.to_string(), |said| format!("{io_error}: {said}"))
            }
            ProgramError::SyscallError(SyscallError { call, io_error }) => format!("{io_error} ({call})"),
            error => error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
        };
        Self { program, errno: errno(error), reason }
    }

    /// The error, and what the verifier objects to.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether a privilege is missing. EACCES does not say so: it is the verifier's word for a bad program.
    pub(super) fn is_for_privilege(&self) -> bool {
        self.errno == Some(libc::EPERM)
    }
}

impl From<(&'static str, io::Error)> for Refusal {
    fn from((program, error): (&'static str, io::Error)) -> Self {
        Self { program, errno: error.raw_os_error(), reason: error.to_string() }
    }
}

impl From<Refusal> for KernelError {
    /// Of an indispensable program.
    fn from(refusal: Refusal) -> Self {
        if refusal.is_for_privilege() {
            return Self::NoPrivilege { what: format!("the program {refusal}") };
        }
        Self::Refused { program: refusal.program, reason: refusal.reason().to_owned() }
    }
}

impl KernelError {
    /// Whether memory was refused.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Bpf { source, .. } if errno(&**source) == Some(libc::ENOMEM))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.program, self.reason)
    }
}

/// The operating system's error at the root of an error.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut at = Some(error);
    while let Some(e) = at {
        if let Some(errno) = e.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        at = e.source();
    }
    None
}

/// The verifier's objection. Its log has the instructions that led there, with the states of registers and source lines
/// between them, before it, and statistics behind it.
fn complaint(log: &str) -> Option<&str> {
    log.lines().map(str::trim_end).rfind(|line| !line.is_empty() && !is_trace(line) && !is_statistics(line))
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "].iter().any(|begin| line.starts_with(begin))
}

/// Whether a line shows the way to the objection: an instruction ("12: (85) call"), the state of registers ("R0=0
/// R10=fp0"), alone or behind a number or a title, or the source ("; a += b; @ file.rs:1").
fn is_trace(line: &str) -> bool {
    let titles = ["; ", "from ", "frame", "cur state:", "old state:", "func#", "last_idx", "mark_precise", "caller:"];
    if titles.iter().any(|title| line.trim_start().starts_with(title)) {
        return true;
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let rest = line.split_once(": ").filter(|(number, _)| is_number(number.trim())).map_or(line, |(_, rest)| rest);
    let is_register = |word: &str| {
        let name = word.strip_prefix('R').and_then(|word| word.split_once('=')).map(|(name, _)| name);
        name.is_some_and(|name| is_number(name.split('_').next().unwrap_or(name)))
    };
    rest.len() < line.len() && rest.starts_with('(') || rest.split(' ').next().is_some_and(is_register)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends of logs that kernels wrote when they refused guard's programs with offsets that were wrong on purpose, and
    /// programs of a few instructions.
    #[test]
    fn the_line_that_says_why_is_found_in_real_logs() {
        macro_rules! log {
            ($name:literal) => {
                ($name, include_str!(concat!("testdata/verifier/", $name, ".log")))
            };
        }
        for ((name, log), said) in [
            (log!("6.18-offset-of-all-ones"), "math between ptr_ pointer and 4294967295 is not allowed"),
            (log!("6.18-beyond-a-struct"), "access beyond struct task_struct at off 100000 size 8"),
            (
                log!("6.18-end-of-member"),
                "access beyond the end of member prio (mend:112) in struct task_struct with off 108 size 8",
            ),
            (log!("6.18-scalar"), "R1 invalid mem access 'scalar'"),
            (log!("6.18-helper-type"), "program of this type cannot use helper bpf_xdp_adjust_head#44"),
            (log!("6.18-loop"), "infinite loop detected at insn 1"),
            (log!("6.18-large"), "The sequence of 8193 jumps is too complex."),
            (log!("6.18-million"), "BPF program is too large. Processed 1000001 insn"),
            (log!("6.1-rt-scalar"), "R1 invalid mem access 'scalar'"),
            (log!("6.1-rt-loop"), "infinite loop detected at insn 1"),
            (log!("6.1-rt-million"), "BPF program is too large. Processed 1000001 insn"),
            (log!("6.1-rt-unreach"), "unreachable insn 2"),
        ] {
            assert_eq!(complaint(log), Some(said), "{name}");
        }
    }

    #[test]
    fn a_log_without_an_objection_has_none() {
        assert_eq!(complaint(""), None);
        assert_eq!(complaint("0: R1=ctx() R10=fp0\n0: (95) exit\nprocessed 1 insns (limit 1000000)\n"), None);
    }

    #[test]
    fn a_refusal_names_program_error_and_objection() {
        let refusal = Refusal::from(("rseq_update", io::Error::from_raw_os_error(libc::EPERM)));
        assert_eq!(refusal.to_string(), "rseq_update: Operation not permitted (os error 1)");
        assert!(refusal.is_for_privilege());
        let error = ProgramError::from(SyscallError {
            call: "bpf_raw_tracepoint_open",
            io_error: io::Error::from_raw_os_error(libc::EBUSY),
        });
        let refusal = Refusal::new("rseq_update", &error);
        assert_eq!(refusal.to_string(), "rseq_update: Device or resource busy (os error 16) (bpf_raw_tracepoint_open)");
        assert!(!refusal.is_for_privilege());
    }
}
