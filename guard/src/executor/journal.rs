//! The undo journal's format. One line per record: eight hex digits of CRC-32, a space, JSON, a newline. Every record of
//! a thing (a cgroup's file, a unit's property) says all that is known of it: what was there before guard, and what may be
//! there by guard. So the last readable one is enough, whatever happened to the others. Pure; the file itself is in `store`.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::knob::{File, Object, Property};

/// Version of the format: the key is an object and a file.
const FORMAT: u32 = 2;
/// The format before: all objects were cgroups, and it was not said.
const OLDEST_FORMAT: u32 = 1;

/// Which file of which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    /// The object.
    #[serde(flatten)]
    pub(super) object: Object,
    /// The file.
    pub(super) file: File,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.file, self.object.path)
    }
}

/// What has to be known of a file to put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    /// Its text before guard's first write.
    pub(super) original: String,
    /// Texts that may be there by guard: what it wrote last, and what it was about to write. Empty before the first.
    pub(super) ours: Vec<String>,
    /// Texts that may be there by systemd, which made them from what guard had sent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) by_systemd: Vec<String>,
    /// In journals of guards that kept a unit's properties beside its file: the unit, with them. Only read.
    #[serde(default, skip_serializing)]
    pub(super) unit: Option<Unit>,
}

/// A systemd unit, and what its properties were before guard.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) properties: Vec<(String, Property)>,
}

/// What keys and entries of a journal have in common.
pub(super) trait Recorded: Clone + Debug + Serialize + DeserializeOwned {}

impl<T: Clone + Debug + Serialize + DeserializeOwned> Recorded for T {}

impl JournalEntry {
    /// Of a file that guard has not written yet.
    pub(super) fn new(original: &str) -> Self {
        Self { original: original.to_owned(), ours: Vec::new(), by_systemd: Vec::new(), unit: None }
    }

    /// Whether `text` is guard's.
    pub(super) fn is_ours(&self, file: File, text: &str) -> bool {
        self.ours.iter().chain(&self.by_systemd).any(|own| file.same(own, text))
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record<K, E> {
    /// The first line.
    Journal {
        /// Version of the format.
        format: u32,
        /// Boot in which it was written.
        boot: String,
    },
    /// What has to be put back.
    Held {
        /// Boot in which it was held: in another one the cgroup's id is somebody else's, and the property is not set.
        boot: String,
        #[serde(flatten)]
        key: K,
        #[serde(flatten)]
        entry: E,
    },
    /// What no longer has to be.
    Dropped {
        #[serde(flatten)]
        key: K,
        /// For people: restored, foreign or gone.
        why: String,
    },
}

impl<K: Recorded, E: Recorded> Record<K, E> {
    pub(super) fn first(boot: &str) -> Self {
        Self::Journal { format: FORMAT, boot: boot.to_owned() }
    }

    /// The line, with its newline.
    pub(super) fn encode(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
    }

    /// `None` when the line is damaged.
    fn decode(line: &[u8]) -> Option<Self> {
        let (crc, json) = (line.get(..8)?, line.get(9..)?);
        let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
        if line.get(8) != Some(&b' ') || crc != crc32fast::hash(json) {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

/// What has to be put back.
pub(super) type Book<K, E> = BTreeMap<K, E>;
/// Files to put back.
pub(super) type Files = Book<Key, JournalEntry>;

/// What a journal's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoded<K: Ord, E> {
    /// What has to be put back, of this boot.
    pub(super) book: Book<K, E>,
    /// What was held in another boot: it is no more.
    pub(super) other_boot: usize,
    /// Lines in the middle that are damaged.
    pub(super) damaged: usize,
    /// Whether the last line was cut off.
    pub(super) torn: bool,
    /// The format's version, when it is not ours.
    pub(super) foreign_format: Option<u32>,
}

impl<K: Ord, E> Default for Decoded<K, E> {
    fn default() -> Self {
        Self { book: Book::new(), other_boot: 0, damaged: 0, torn: false, foreign_format: None }
    }
}

/// Reads a journal. Damaged lines are counted and passed over.
pub(super) fn decode<K: Recorded + Ord, E: Recorded>(bytes: &[u8], boot: &str) -> Decoded<K, E> {
    let mut decoded = Decoded::default();
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        match Record::decode(line) {
            Some(record) => decoded.add(record, boot),
            // What has no newline behind it was being written when the writer was stopped.
            None if lines.peek().is_none() => decoded.torn = true,
            None => decoded.damaged += 1,
        }
    }
    decoded
}

impl<K: Ord, E> Decoded<K, E> {
    fn add(&mut self, record: Record<K, E>, boot: &str) {
        match record {
            Record::Journal { format, .. } if !(OLDEST_FORMAT..=FORMAT).contains(&format) => {
                self.foreign_format = Some(format);
            }
            Record::Journal { .. } => {}
            Record::Held { boot: of, key, entry } if of == boot => drop(self.book.insert(key, entry)),
            Record::Held { .. } => self.other_boot += 1,
            Record::Dropped { key, .. } => drop(self.book.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::knob::Kind;

    type FileRecord = Record<Key, JournalEntry>;

    fn key(number: u64) -> Key {
        Key { object: Object { kind: Kind::Cgroup, path: format!("/a/{number}"), id: number }, file: File::MAX }
    }

    fn decode(bytes: &[u8], boot: &str) -> Decoded<Key, JournalEntry> {
        super::decode(bytes, boot)
    }

    fn held(number: u64, original: &str, ours: &[&str]) -> FileRecord {
        let ours = ours.iter().map(|&text| text.to_owned()).collect();
        let entry = JournalEntry { ours, ..JournalEntry::new(original) };
        Record::Held { boot: "b".to_owned(), key: key(number), entry }
    }

    fn bytes(records: &[FileRecord]) -> Vec<u8> {
        records.iter().flat_map(|record| record.encode().unwrap().into_bytes()).collect()
    }

    #[test]
    fn the_last_record_of_a_file_counts() {
        let records = [
            Record::first("b"),
            held(1, "max 100000", &[]),
            held(2, "max 100000", &["1000 100000"]),
            held(1, "max 100000", &["2000 100000", "3000 100000"]),
            Record::Dropped { key: key(2), why: "restored".to_owned() },
        ];
        let decoded = decode(&bytes(&records), "b");
        assert_eq!(decoded.book.keys().collect::<Vec<_>>(), [&key(1)]);
        assert!(decoded.book[&key(1)].is_ours(File::MAX, "3000 100000\n"));
        assert!(!decoded.book[&key(1)].is_ours(File::MAX, "max 100000\n"));
        assert_eq!((decoded.damaged, decoded.torn), (0, false));
    }

    #[test]
    fn a_journal_can_be_read_by_people() {
        let line = held(7, "max 100000", &["20000 100000"]).encode().unwrap();
        assert_eq!(
            &line[9..],
            "{\"record\":\"held\",\"boot\":\"b\",\"object\":\"cgroup\",\"path\":\"/a/7\",\"id\":7,\"file\":\"cpu.max\",\
             \"original\":\"max 100000\",\"ours\":[\"20000 100000\"]}\n"
        );
    }

    #[test]
    fn another_boot_leaves_nothing_to_put_back() {
        let decoded = decode(&bytes(&[Record::first("b"), held(1, "x", &["y"])]), "c");
        assert!(decoded.book.is_empty());
        assert_eq!(decoded.other_boot, 1);
    }

    #[test]
    fn a_newer_format_is_reported() {
        let newer = Record::Journal { format: FORMAT + 1, boot: "b".to_owned() };
        assert_eq!(decode(&bytes(&[newer]), "b").foreign_format, Some(FORMAT + 1));
    }

    #[test]
    fn a_damaged_middle_costs_only_its_line() {
        let records = [Record::first("b"), held(1, "x", &["y"]), held(2, "x", &["y"]), held(3, "x", &["y"])];
        let mut all = bytes(&records);
        let middle = bytes(&records[..2]).len() + 30;
        all[middle] ^= 0x20;
        let decoded = decode(&all, "b");
        assert_eq!(decoded.damaged, 1);
        assert_eq!(decoded.book.keys().map(|key| key.object.id).collect::<Vec<_>>(), [1, 3]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, "b");
        }

        #[test]
        fn every_prefix_says_what_was_complete_by_then(numbers in proptest::collection::vec((0_u64..4, any::<bool>()), 1..12), cut in any::<prop::sample::Index>()) {
            let records: Vec<FileRecord> = numbers.iter().enumerate().map(|(step, (number, keep))| {
                if *keep { held(*number, "x", &[&step.to_string()]) }
                else { Record::Dropped { key: key(*number), why: "restored".to_owned() } }
            }).collect();
            let all = bytes(&records);
            let cut = cut.index(all.len() + 1);
            let mut expected = Decoded::default();
            let mut end = 0;
            let mut complete = 0;
            for record in &records {
                let length = record.encode().unwrap().len();
                // A line that lacks only its newline is complete.
                if end + length - 1 > cut { break; }
                end += length;
                complete = end;
                expected.add(record.clone(), "b");
            }
            expected.torn = cut > complete;
            prop_assert_eq!(decode(&all[..cut], "b"), expected);
        }

        #[test]
        fn one_flipped_bit_spoils_no_other_line(flip in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let records: Vec<FileRecord> = (0..6).map(|number| held(number, "x", &["y"])).collect();
            let mut all = bytes(&records);
            let at = flip.index(all.len());
            all[at] ^= 1 << bit;
            let decoded = decode(&all, "b");
            // A spoilt newline joins two lines, and splits none.
            prop_assert!(decoded.book.len() >= 4);
            prop_assert!(decoded.book.iter().all(|(key, entry)| *key == self::key(key.object.id) && entry.original == "x"));
        }
    }
}
