//! The operating system's error behind those of libraries.

use std::{error::Error, io};

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
