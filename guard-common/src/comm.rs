//! The name of a task as the kernel keeps it: sixteen bytes, the text up to the first NUL.

use core::fmt;

/// The text of a comm, with what is not UTF-8 replaced.
#[must_use]
pub fn text(comm: &[u8; 16]) -> impl fmt::Display + '_ {
    Text(comm.split(|byte| *byte == 0).next().unwrap_or_default())
}

struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            f.write_str(if chunk.invalid().is_empty() { "" } else { "\u{fffd}" })
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_comm_ends_at_its_nul_or_fills_its_bytes() {
        assert_eq!(text(b"cycle\0\0\0\0\0\0old\0\0").to_string(), "cycle");
        assert_eq!(text(b"sixteen-letters!").to_string(), "sixteen-letters!");
        assert_eq!(text(&[0; 16]).to_string(), "");
    }

    proptest! {
        #[test]
        fn what_is_not_utf8_is_replaced_as_the_standard_library_does(comm in any::<[u8; 16]>()) {
            let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
            prop_assert_eq!(text(&comm).to_string(), std::string::String::from_utf8_lossy(&comm[..end]));
        }
    }
}
