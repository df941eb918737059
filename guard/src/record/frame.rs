//! The bytes of a segment: a header, then one frame per Snapshot.
//!
//! ```text
//! header  "GUARDREC"  version u32  schema u32
//! frame   "SNAP"  length u32  crc32 u32  payload: the Snapshot's JSON, compressed with zstd
//! ```
//!
//! Integers are little-endian; the checksum is over length and payload. The mark at the begin of a frame is what a reader
//! looks for behind damage.

use std::io;

/// Longest Snapshot that is read, bytes of JSON. One of 1,024 cgroups and 1,024 threads with full histograms has less.
pub(super) const MAX_JSON: usize = 256 << 20;

/// First bytes of a segment.
pub(super) const MAGIC: &[u8; 8] = b"GUARDREC";
/// Version of this form.
const VERSION: u32 = 1;
/// Bytes of the header.
pub(super) const HEADER: usize = 16;
const MARK: &[u8; 4] = b"SNAP";
/// Bytes of a frame before its payload.
const HEAD: usize = 12;
/// zstd's fastest usual level: a Snapshot is written every interval, next to what it measures.
const LEVEL: i32 = 1;

/// The header of a segment that holds Snapshots of `schema`.
pub(super) fn header(schema: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&schema.to_le_bytes());
    header
}

/// The Snapshot schema that a header names.
///
/// # Errors
/// When it is no header, or one of another version; the text says which.
pub(super) fn schema(bytes: &[u8]) -> Result<u32, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("it does not begin as a segment of a recording does".to_owned());
    }
    match (u32_at(bytes, 8), u32_at(bytes, 12)) {
        (Some(VERSION), Some(schema)) => Ok(schema),
        (Some(version), Some(_)) => Err(format!("recording of version {version}; this guard reads {VERSION}")),
        _ => Err("it ends within its header".to_owned()),
    }
}

/// One Snapshot as a frame.
///
/// # Errors
/// When zstd refuses, or the Snapshot is larger than any reader takes.
pub(super) fn encode(json: &[u8]) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("a Snapshot of {} bytes", json.len()));
    if json.len() > MAX_JSON {
        return Err(too_large());
    }
    let payload = zstd::bulk::compress(json, LEVEL)?;
    let length = u32::try_from(payload.len()).map_err(|_| too_large())?.to_le_bytes();
    Ok([MARK.as_slice(), &length, &checksum(&length, &payload).to_le_bytes(), &payload].concat())
}

/// What stands at an offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A Snapshot's JSON, and where the next frame begins.
    Json(Vec<u8>, usize),
    /// Something unreadable; where the next whole frame begins, if there is one.
    Damage(Option<usize>),
    /// The end.
    End,
}

/// Reads what stands at `offset`.
pub(super) fn read(bytes: &[u8], offset: usize) -> Found {
    if offset >= bytes.len() {
        return Found::End;
    }
    let next = |from: usize| (from..bytes.len()).find(|at| payload(bytes, *at).is_some());
    let Some(payload) = payload(bytes, offset) else { return Found::Damage(next(offset + 1)) };
    let end = offset + HEAD + payload.len();
    match zstd::bulk::decompress(payload, MAX_JSON) {
        Ok(json) => Found::Json(json, end),
        Err(_) => Found::Damage(next(end)),
    }
}

/// The payload of the whole frame at `offset`; `None` when there is none.
fn payload(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let frame = bytes.get(offset..).filter(|frame| frame.starts_with(MARK))?;
    let length = u32_at(frame, 4)?;
    let payload = frame.get(HEAD..)?.get(..usize::try_from(length).ok()?)?;
    (u32_at(frame, 8)? == checksum(&length.to_le_bytes(), payload)).then_some(payload)
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (mut offset, mut found, mut damaged) = (0, vec![], 0);
        loop {
            match read(bytes, offset) {
                Found::Json(json, next) => {
                    found.push(json);
                    offset = next;
                }
                Found::Damage(next) => {
                    damaged += 1;
                    offset = next.unwrap_or(bytes.len());
                }
                Found::End => return (found, damaged),
            }
        }
    }

    #[test]
    fn frames_come_back_in_order() {
        let bytes = [encode(b"one").unwrap(), encode(b"").unwrap(), encode(b"three").unwrap()].concat();
        assert_eq!(all(&bytes), (vec![b"one".to_vec(), vec![], b"three".to_vec()], 0));
    }

    #[test]
    fn a_header_says_what_it_is() {
        assert_eq!(schema(&header(7)), Ok(7));
        let mut newer = header(7);
        newer[8] = 9;
        assert_eq!(schema(&newer).unwrap_err(), "recording of version 9; this guard reads 1");
        assert_eq!(schema(b"GUARDREC").unwrap_err(), "it ends within its header");
        assert!(schema(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn one_flipped_bit_costs_one_frame(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let json: Vec<Vec<u8>> = (0..4).map(|i| format!("{{\"n\":{i}}}").into_bytes()).collect();
            let mut bytes = json.iter().flat_map(|j| encode(j).unwrap()).collect::<Vec<u8>>();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (found, damaged) = all(&bytes);
            prop_assert_eq!((found.len(), damaged), (3, 1));
            prop_assert!(found.iter().all(|f| json.contains(f)));
        }

        #[test]
        fn a_cut_costs_what_is_behind_it(cut in any::<prop::sample::Index>()) {
            let frames: Vec<Vec<u8>> = (0..4).map(|i| encode(&[i; 9]).unwrap()).collect();
            let bytes = frames.concat();
            let cut = cut.index(bytes.len());
            let whole = frames.iter().scan(0, |end, f| { *end += f.len(); Some(*end) }).filter(|end| *end <= cut).count();
            prop_assert_eq!(all(&bytes[..cut]).0.len(), whole);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (all(&bytes), schema(&bytes));
        }
    }
}
