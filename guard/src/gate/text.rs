//! Text of files that others wrote. A file is read up to a limit whatever length it claims, for pipes and devices claim
//! none; and in the encodings, and with the byte order marks, that editors and shells write.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{GateError, Wrong};

/// Largest file that is read; a report of a node with thousands of cgroups has some MiB.
pub const MAX_BYTES: u64 = 256 << 20;

/// A byte order mark. It says nothing in UTF-8, and yet stands at the beginning of what many editors save.
const MARK: char = '\u{feff}';

/// The bytes of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, GateError> {
    up_to(path, MAX_BYTES)
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, GateError> {
    let bytes = bytes(path)?;
    decode(&bytes).map(Cow::into_owned).map_err(|wrong| wrong.of(path))
}

fn up_to(path: &Path, limit: u64) -> Result<Vec<u8>, GateError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|source| GateError::Io { op: "read", path: path.to_owned(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return Ok(bytes);
    }
    Err(Wrong::whole(format!("has more than {limit} bytes, the most that is read of a file; no run is so long"))
        .of(path))
}

/// The text that `bytes` are, without its byte order mark.
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Wrong> {
    // Windows PowerShell writes UTF-16 where its output is sent to a file.
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            return match str::from_utf8(bytes) {
                Ok(text) => Ok(Cow::Borrowed(text.trim_start_matches(MARK))),
                Err(error) => {
                    let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
                    Err(Wrong::line(line, "this is not text"))
                }
            };
        }
    };
    // Half a unit is no text: half of a surrogate pair stands for it.
    let units = bytes.chunks(2).map(|pair| if let [a, b] = pair { unit([*a, *b]) } else { 0xd800 });
    let text: Result<String, _> = char::decode_utf16(units.skip(1)).collect();
    text.map(Cow::Owned).map_err(|_| Wrong::whole("begins as UTF-16 and is not; save it as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_what_claims_no_length() {
        let error = up_to(Path::new("/dev/zero"), 1000).unwrap_err().to_string();
        assert!(error.starts_with("/dev/zero: has more than 1000 bytes"), "{error}");
        assert!(up_to(Path::new("/dev/null"), 1000).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_exactly_as_long_as_the_limit_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [b'a'; 10]).unwrap();
        assert_eq!(up_to(file.path(), 10).unwrap().len(), 10);
        assert!(up_to(file.path(), 9).is_err());
    }

    #[test]
    fn byte_order_marks_are_no_part_of_the_text() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        for bytes in [
            "µ = 1\n".as_bytes().to_vec(),
            "\u{feff}µ = 1\n".into(),
            "\u{feff}\u{feff}µ = 1\n".into(),
            utf16("µ = 1\n", u16::to_le_bytes),
            utf16("µ = 1\n", u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).unwrap(), "µ = 1\n", "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(decode(b"a\n\xe9").unwrap_err(), Wrong::line(2, "this is not text"));
        assert!(decode(b"\xff\xfea\0b").unwrap_err().what.contains("UTF-16"));
        assert!(decode(b"\xff\xfe\x00\xd8").unwrap_err().what.contains("UTF-16"));
    }
}
