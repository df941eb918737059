//! For tests: what guard takes for missing on this kernel, or for refused. It takes away and adds nothing, so at worst guard
//! sees less, and says so in its log and in the reason of every signal that is weaker for it.
//!
//! It is in every build, since tests run what users run. docs/development.md says how to use it.

use std::{collections::BTreeSet, fmt, io};

/// The environment variable that holds a [`Pretence`]; see [`Pretence::parse`].
pub const VARIABLE: &str = "GUARD_PRETEND_MISSING";

/// Name for all functions that guard attaches to by a trampoline.
pub const FENTRY: &str = "fentry";
/// Name for all of /proc/kallsyms.
pub const KALLSYMS: &str = "kallsyms";

/// Errors that programs can be refused with.
const ERRORS: [(&str, i32); 7] = [
    ("EPERM", libc::EPERM),
    ("EACCES", libc::EACCES),
    ("EBUSY", libc::EBUSY),
    ("EINVAL", libc::EINVAL),
    ("E2BIG", libc::E2BIG),
    ("ENOENT", libc::ENOENT),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
];

/// What counts as missing, or refused, although it may be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pretence {
    missing: BTreeSet<String>,
    refused: Vec<(String, Step, i32)>,
}

/// A step of a program on its way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The verifier takes it.
    Load,
    /// It is attached.
    Attach,
}

/// An element that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{VARIABLE}: {0:?} is neither the name of something nor PROGRAM:load=ERROR nor PROGRAM:attach=ERROR")]
pub struct NoPretence(String);

impl Pretence {
    /// What the environment says; nothing when it says nothing.
    ///
    /// # Errors
    /// When an element cannot be understood.
    pub fn from_environment() -> Result<Self, NoPretence> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Self::default()),
            Some(text) => Self::parse(&text.to_string_lossy()),
        }
    }

    /// Elements with commas between them. Each is a struct member ("cfs_rq.throttled_clock_self_time"), a tracepoint or a
    /// function that is missing, "fentry" or "kallsyms" for all of these, or a program that is refused
    /// ("rseq_update:load=EINVAL", "rseq_update:attach=EBUSY").
    ///
    /// # Errors
    /// When an element cannot be understood.
    pub fn parse(text: &str) -> Result<Self, NoPretence> {
        let mut pretence = Self::default();
        for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let wrong = || NoPretence(element.to_owned());
            let Some((program, refusal)) = element.split_once(':') else {
                if element.contains('=') {
                    return Err(wrong());
                }
                pretence.missing.insert(element.to_owned());
                continue;
            };
            let (step, error) = refusal.split_once('=').ok_or_else(wrong)?;
            let step = match step {
                "load" => Step::Load,
                "attach" => Step::Attach,
                _ => return Err(wrong()),
            };
            let (_, error) = ERRORS.into_iter().find(|(name, _)| *name == error).ok_or_else(wrong)?;
            pretence.refused.push((program.to_owned(), step, error));
        }
        Ok(pretence)
    }

    /// Whether nothing is pretended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.refused.is_empty()
    }

    /// Whether what has this name is missing.
    #[must_use]
    pub fn misses(&self, name: &str) -> bool {
        self.missing.contains(name)
    }

    /// Refuses the program where that is pretended.
    ///
    /// # Errors
    /// The refusal.
    pub fn admit(&self, program: &str, step: Step) -> io::Result<()> {
        match self.refused.iter().find(|(name, at, _)| name == program && *at == step) {
            Some((.., error)) => Err(io::Error::from_raw_os_error(*error)),
            None => Ok(()),
        }
    }
}

/// In the words of [`Pretence::parse`].
impl fmt::Display for Pretence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = self.refused.iter().map(|(program, step, error)| {
            let step = match step {
                Step::Load => "load",
                Step::Attach => "attach",
            };
            let name = ERRORS.into_iter().find(|(_, number)| number == error).map_or("", |(name, _)| name);
            format!("{program}:{step}={name}")
        });
        f.write_str(&self.missing.iter().cloned().chain(refused).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_refusals_are_told_apart() {
        let pretence = Pretence::parse("fentry, cfs_rq.tg,rseq_update:attach=EBUSY,,rseq_update:load=EINVAL").unwrap();
        assert!(pretence.misses("fentry") && pretence.misses("cfs_rq.tg") && !pretence.misses("cfs_rq.rq"));
        let error = |step| pretence.admit("rseq_update", step).unwrap_err().raw_os_error();
        assert_eq!((error(Step::Load), error(Step::Attach)), (Some(libc::EINVAL), Some(libc::EBUSY)));
        assert!(pretence.admit("sched_switch", Step::Load).is_ok());
        assert!(Pretence::parse("").unwrap().is_empty());
        assert_eq!(Pretence::parse(&pretence.to_string()), Ok(pretence));
    }

    #[test]
    fn what_is_no_pretence_is_named() {
        for wrong in ["a:b", "a:load", "a:load=", "a:load=EWHAT", "a:detach=EBUSY", "a=b"] {
            assert_eq!(Pretence::parse(wrong), Err(NoPretence(wrong.to_owned())), "{wrong}");
        }
    }
}
