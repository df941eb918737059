//! A refused system call, by its name and arguments.

use std::io;

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
