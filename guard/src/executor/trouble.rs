//! What can go wrong at a cgroup file, sorted by what is to be done about it.

use std::{fmt, io, path::Path, time::Duration};

use rustix::io::Errno;

use crate::knob::FileErrors;

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The cgroup was removed, or is another one now. Nothing is left to do.
    Gone,
    /// The kernel is at it (EBUSY, EAGAIN, EINTR): the same write may succeed soon.
    Busy(String),
    /// The kernel does not take this value (EINVAL, ERANGE, ENOSPC, EACCES of a cpuset beyond its parent).
    Invalid(String),
    /// The file system is mounted read-only.
    ReadOnly(String),
    /// The cgroup has no such file: the controller is not enabled here, or lies outside of what is mounted.
    NotDelegated(String),
    /// guard may not.
    NoPermission(String),
    /// The undo journal could not be written, so nothing was tried.
    Journal(String),
    /// Whatever else.
    Other(String),
}

impl Trouble {
    /// Sorts the failure of `op` on `file`. `alive` says whether the cgroup is still there.
    pub(super) fn of(
        op: &str,
        file: &Path,
        text: Option<&str>,
        error: &io::Error,
        errors: FileErrors,
        alive: bool,
    ) -> Self {
        let value = text.map_or(String::new(), |text| format!(" {:?} to", text.trim_end()));
        let said = format!("cannot {op}{value} {}: {error}", file.display());
        let Some(errno) = error.raw_os_error().map(Errno::from_raw_os_error) else {
            return Self::Other(said);
        };
        match errno {
            // Of a cgroup, of a process.
            Errno::NODEV | Errno::SRCH => Self::Gone,
            Errno::NOENT if !alive => Self::Gone,
            Errno::NOENT => Self::NotDelegated(format!(
                "{said}; the controller is not enabled for this cgroup: see the parent's cgroup.subtree_control{}",
                errors.mind.map_or(String::new(), |mind| format!(", {mind}"))
            )),
            Errno::BUSY | Errno::AGAIN | Errno::INTR => Self::Busy(said),
            Errno::INVAL | Errno::RANGE | Errno::NOSPC | Errno::OPNOTSUPP => Self::Invalid(said),
            Errno::ROFS => Self::ReadOnly(format!("{said}; mount it read-write for guard")),
            Errno::ACCESS | Errno::PERM if errors.eacces_is_of_the_value => Self::Invalid(said),
            Errno::ACCESS | Errno::PERM => Self::NoPermission(format!("{said}; run guard as root, with CAP_SYS_ADMIN")),
            _ => Self::Other(said),
        }
    }

    /// Sorts the failure to open an object's directory.
    pub(super) fn of_open_dir(dir: &Path, errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::SRCH => Self::Gone,
            errno => Self::of("open", dir, None, &errno.into(), FileErrors::USUAL, true),
        }
    }

    /// How long not to try again after `times` failures in a row; `None` when there is nothing to try again.
    ///
    /// Busy passes soon. A value that the kernel refuses may become possible when a neighbour changes. What is wrong
    /// with the node needs a human, so it is asked seldom and told once.
    pub(super) fn back_off(&self, times: u32) -> Option<Duration> {
        let (first, most) = match self {
            Self::Gone => return None,
            Self::Busy(_) => (Duration::from_millis(10), Duration::from_secs(1)),
            Self::Invalid(_) | Self::Other(_) => (Duration::from_secs(1), Duration::from_secs(60)),
            Self::ReadOnly(_) | Self::NotDelegated(_) | Self::NoPermission(_) | Self::Journal(_) => {
                (Duration::from_secs(30), Duration::from_secs(300))
            }
        };
        Some(first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(most))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the cgroup has gone"),
            Self::Busy(said)
            | Self::Invalid(said)
            | Self::ReadOnly(said)
            | Self::NotDelegated(said)
            | Self::NoPermission(said)
            | Self::Journal(said)
            | Self::Other(said) => f.write_str(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knob::{Knob, Version};

    fn of(errno: Errno, knob: Knob, alive: bool) -> Trouble {
        let file = Path::new("/c").join(knob.files(Version::V2).next().unwrap().name());
        Trouble::of("write", &file, Some("1\n"), &errno.into(), knob.row().errors, alive)
    }

    #[test]
    fn each_answer_of_the_kernel_has_its_class() {
        assert_eq!(of(Errno::NODEV, Knob::Quota, true), Trouble::Gone);
        assert_eq!(of(Errno::SRCH, Knob::OomScoreAdj, true), Trouble::Gone);
        assert_eq!(of(Errno::NOENT, Knob::Quota, false), Trouble::Gone);
        assert!(
            matches!(of(Errno::NOENT, Knob::Quota, true), Trouble::NotDelegated(said) if !said.contains("affinity"))
        );
        assert!(matches!(of(Errno::NOENT, Knob::Cpus, true), Trouble::NotDelegated(said) if said.contains("affinity")));
        assert!(matches!(of(Errno::BUSY, Knob::Cpus, true), Trouble::Busy(_)));
        assert!(matches!(of(Errno::INVAL, Knob::Quota, true), Trouble::Invalid(_)));
        assert!(matches!(of(Errno::ACCESS, Knob::Cpus, true), Trouble::Invalid(_)));
        assert!(matches!(of(Errno::ACCESS, Knob::Quota, true), Trouble::NoPermission(_)));
        assert!(matches!(of(Errno::ROFS, Knob::Quota, true), Trouble::ReadOnly(_)));
        assert!(matches!(of(Errno::IO, Knob::Quota, true), Trouble::Other(_)));
    }

    #[test]
    fn a_message_names_file_operation_value_and_answer() {
        let said = of(Errno::INVAL, Knob::Quota, true).to_string();
        assert_eq!(said, "cannot write \"1\" to /c/cpu.max: Invalid argument (os error 22)");
    }

    #[test]
    fn waiting_grows_and_ends_growing() {
        assert_eq!(Trouble::Gone.back_off(1), None);
        let waits: Vec<_> = (1..12).map(|times| Trouble::Busy(String::new()).back_off(times).unwrap()).collect();
        assert_eq!(waits[0], Duration::from_millis(10));
        assert!(waits.is_sorted() && waits[10] == Duration::from_secs(1));
        assert_eq!(Trouble::Invalid(String::new()).back_off(u32::MAX), Some(Duration::from_secs(60)));
    }
}
