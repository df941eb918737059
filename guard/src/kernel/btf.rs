//! A reader of the kernel's type information (BTF): where a struct keeps a member, what an enumerator is worth, which
//! tracepoints and functions exist. It parses bytes and does no I/O.
//!
//! A kernel describes some hundred thousand types and guard asks for a few dozen: reading notes where each type begins, and
//! a question looks at the types themselves.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>.

use std::ops::Range;

/// Parsed type information.
pub struct Btf {
    /// As the kernel gave it.
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Where in `bytes` each type begins, by id. Type 0 is void and has no place.
    places: Vec<usize>,
    /// Ids of the kinds that are looked for by name.
    structs: Vec<u32>,
    enums: Vec<u32>,
    typedefs: Vec<u32>,
    functions: Vec<u32>,
}

/// Why type information could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes do not begin with a BTF header of this machine's byte order.
    #[error("not BTF: magic is {0:#06x}, not 0xeb9f")]
    Magic(u16),
    /// A part reaches beyond the end.
    #[error("BTF is cut off: {0} reaches beyond its end")]
    CutOff(&'static str),
    /// A kind that this reader does not know, so that all that follows cannot be found.
    #[error("BTF type {id} has unknown kind {kind}")]
    UnknownKind {
        /// Type id.
        id: usize,
        /// Kind number.
        kind: u32,
    },
}

const MAGIC: u16 = 0xeb9f;
/// Magic, version and flags, and five words.
const HEADER_BYTES: u32 = 24;

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const TYPE_TAG: u32 = 18;

/// What every type begins with: its name, kind and count, and its size or the type that it refers to.
const TYPE_WORDS: usize = 3;
const MEMBER_WORDS: usize = 3;
const ENUMERATOR_WORDS: usize = 2;

/// A type's first words.
#[derive(Clone, Copy)]
struct Type {
    /// Where what follows them begins.
    tail: usize,
    name: u32,
    kind: u32,
    count: usize,
    /// Of a struct: offsets of its members hold the widths of bit fields, too.
    has_bit_fields: bool,
    /// Referred type, by kind.
    target: u32,
}

#[derive(Clone, Copy)]
struct Member {
    name: u32,
    target: u32,
    bits: u32,
}

/// The name of the type by which BPF attaches to a tracepoint.
fn trace_typedef(tracepoint: &str) -> String {
    format!("btf_trace_{tracepoint}")
}

/// A place or length within type information, which the format bounds by its 32 bits.
fn word_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Type {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let (name, info, target) = (word(bytes, at)?, word(bytes, at + 4)?, word(bytes, at + 8)?);
        Some(Self {
            tail: at + TYPE_WORDS * 4,
            name,
            kind: (info >> 24) & 0x1f,
            count: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 != 0,
            target,
        })
    }

    /// Words that follow the first ones; nothing for an unknown kind.
    fn tail_words(&self) -> Option<usize> {
        Some(match self.kind {
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => 1,
            // ARRAY
            3 => 3,
            STRUCT | UNION => self.count * MEMBER_WORDS,
            ENUM => self.count * ENUMERATOR_WORDS,
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            2 | 7..=12 | 16 | 18 => 0,
            // FUNC_PROTO
            13 => self.count * 2,
            // DATASEC, ENUM64
            15 | 19 => self.count * 3,
            _ => return None,
        })
    }
}

impl Btf {
    /// Parses the content of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When the bytes are not BTF, end too early, or hold a kind of type from a future format.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let magic = bytes.first_chunk().map_or(0, |b| u16::from_ne_bytes(*b));
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let field = |number: usize| word(&bytes, number * 4).map(|w| w as usize).ok_or(BtfError::CutOff("header"));
        let length = field(1)?;
        let section = |at: usize, len: usize, what| {
            let from = length.checked_add(at).ok_or(BtfError::CutOff(what))?;
            let to = from.checked_add(len).ok_or(BtfError::CutOff(what))?;
            if to > bytes.len() { Err(BtfError::CutOff(what)) } else { Ok(from..to) }
        };
        let types = section(field(2)?, field(3)?, "type section")?;
        let strings = section(field(4)?, field(5)?, "string section")?;

        let mut places = vec![usize::MAX];
        let (mut structs, mut enums, mut typedefs, mut functions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut at = types.start;
        while at < types.end {
            let cut_off = BtfError::CutOff("type section");
            let Some(header) = Type::read(&bytes[..types.end], at) else { return Err(cut_off) };
            let id = places.len();
            let tail_words = header.tail_words().ok_or(BtfError::UnknownKind { id, kind: header.kind })?;
            #[allow(clippy::cast_possible_truncation, reason = "type ids are 32 bits wide in the format")]
            match header.kind {
                STRUCT | UNION => structs.push(id as u32),
                ENUM => enums.push(id as u32),
                TYPEDEF => typedefs.push(id as u32),
                FUNC => functions.push(id as u32),
                _ => {}
            }
            places.push(at);
            at = header.tail + tail_words * 4;
            if at > types.end {
                return Err(cut_off);
            }
        }
        Ok(Self { bytes, strings, places, structs, enums, typedefs, functions })
    }

    fn type_of(&self, id: u32) -> Option<Type> {
        Type::read(&self.bytes, *self.places.get(id as usize)?)
    }

    /// Whether the string at `at` is this one.
    fn is_named(&self, at: u32, name: &[u8]) -> bool {
        let strings = self.bytes.get(self.strings.clone()).unwrap_or_default();
        let rest = strings.get(at as usize..).and_then(|tail| tail.strip_prefix(name));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    fn named<'a>(&'a self, ids: &'a [u32], name: &'a [u8]) -> impl Iterator<Item = Type> {
        ids.iter().filter_map(|id| self.type_of(*id)).filter(|of| self.is_named(of.name, name))
    }

    /// Follows typedefs and qualifiers to the type itself.
    fn resolve(&self, id: u32) -> Option<Type> {
        let mut at = self.type_of(id)?;
        // No chain of qualifiers is as long as this; a longer one is a cycle in broken input.
        for _ in 0..32 {
            if !matches!(at.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(at);
            }
            at = self.type_of(at.target)?;
        }
        None
    }

    /// Offset in bytes of a member such as ("task_struct", "se.cfs_rq"); members of anonymous parts are found by their
    /// own name. `None` when the struct or a member does not exist, or is a bit field that begins inside a byte.
    #[must_use]
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        self.named(&self.structs, structure.as_bytes()).find_map(|of| self.follow(of, path))
    }

    fn follow(&self, structure: Type, path: &str) -> Option<u32> {
        let (mut bits, mut at) = (0u32, structure);
        for part in path.split('.') {
            let (offset, target) = self.member(at, part.as_bytes(), 0)?;
            bits = bits.checked_add(offset)?;
            at = self.resolve(target)?;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn members(&self, of: Type) -> impl Iterator<Item = Member> {
        let count = if matches!(of.kind, STRUCT | UNION) { of.count } else { 0 };
        (0..count).map_while(move |number| {
            let at = of.tail + number * MEMBER_WORDS * 4;
            let offset = word(&self.bytes, at + 8)?;
            Some(Member {
                name: word(&self.bytes, at)?,
                target: word(&self.bytes, at + 4)?,
                // The upper byte is the width of a bit field.
                bits: if of.has_bit_fields { offset & 0x00ff_ffff } else { offset },
            })
        })
    }

    fn member(&self, of: Type, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        if let Some(m) = self.members(of).find(|m| self.is_named(m.name, name)) {
            return Some((m.bits, m.target));
        }
        // Anonymous structs nest a few levels at most; broken input could nest without end.
        if depth > 8 {
            return None;
        }
        self.members(of).filter(|m| self.is_named(m.name, b"")).find_map(|m| {
            let (bits, target) = self.member(self.resolve(m.target)?, name, depth + 1)?;
            Some((bits.checked_add(m.bits)?, target))
        })
    }

    /// Type information of the same number of types of which only those are left that programs attach to by name: a typedef
    /// for each of these tracepoints and a function for each of these names, at their ids, where the kernel has them. A
    /// loader that reads all types into memory of its own has next to nothing to read.
    #[must_use]
    pub fn attach_points(&self, tracepoints: &[&str], functions: &[&str]) -> Vec<u8> {
        let typedefs: Vec<String> = tracepoints.iter().map(|name| trace_typedef(name)).collect();
        let typedefs: Vec<&str> = typedefs.iter().map(String::as_str).collect();
        // Without name and size, and next to nothing to read.
        let nothing = [0, FORWARD << 24, 0];
        let mut types = vec![nothing; self.places.len() - 1];
        let mut strings = vec![0];
        for (ids, names, kind) in [(&self.typedefs, &typedefs[..], TYPEDEF), (&self.functions, functions, FUNC)] {
            for id in ids {
                let Some(of) = self.type_of(*id) else { continue };
                if let Some(name) = names.iter().find(|name| self.is_named(of.name, name.as_bytes())) {
                    types[*id as usize - 1] = [word_of(strings.len()), kind << 24, 0];
                    strings.extend(name.as_bytes());
                    strings.push(0);
                }
            }
        }
        let length = types.len() * size_of_val(&nothing);
        let header = [HEADER_BYTES, 0, word_of(length), word_of(length), word_of(strings.len())];
        let magic = MAGIC.to_ne_bytes().into_iter().chain([1, 0]);
        let words = header.into_iter().chain(types.into_iter().flatten()).flat_map(u32::to_ne_bytes);
        magic.chain(words).chain(strings).collect()
    }

    /// Value of an enumerator, whichever enum of 32 bits it is in.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        let of_enum = |of: Type| (0..of.count).map(move |number| of.tail + number * ENUMERATOR_WORDS * 4);
        let mut all = self.enums.iter().filter_map(|id| self.type_of(*id)).flat_map(of_enum);
        let at = all.find(|at| word(&self.bytes, *at).is_some_and(|n| self.is_named(n, name.as_bytes())))?;
        Some(i64::from(word(&self.bytes, at + 4)?.cast_signed()))
    }

    /// Whether the kernel has a tracepoint of this name that BPF can attach to.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.named(&self.typedefs, trace_typedef(name).as_bytes()).next().is_some()
    }

    /// Whether the kernel describes a function of this name.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.named(&self.functions, name.as_bytes()).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// struct inner { int x; int y; }; struct outer { char pad[8]; struct { struct inner in; }; const struct inner *p; }
    fn sample() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut name = |s: &str| {
            let at = strings.len() as u32;
            strings.extend(s.as_bytes());
            strings.push(0);
            at
        };
        let (int, inner, outer, x, y, r#in, p, trace) = (
            name("int"),
            name("inner"),
            name("outer"),
            name("x"),
            name("y"),
            name("in"),
            name("p"),
            name("btf_trace_tick"),
        );
        let kind = |k: u32, n: u32| (k << 24) | n;
        let mut w: Vec<u32> = Vec::new();
        w.extend([int, kind(1, 0), 4, 32]); // 1
        w.extend([inner, kind(4, 2), 8, x, 1, 0, y, 1, 32]); // 2
        w.extend([0, kind(4, 1), 8, r#in, 2, 0]); // 3
        w.extend([0, kind(10, 0), 2]); // 4
        w.extend([0, kind(2, 0), 4]); // 5
        w.extend([outer, kind(4, 2), 24, 0, 3, 64, p, 5, 128]); // 6
        w.extend([trace, kind(8, 0), 5]); // 7
        let types: Vec<u8> = w.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let mut out = Vec::new();
        out.extend(0xeb9fu16.to_ne_bytes());
        out.extend([1, 0]);
        for v in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            out.extend(v.to_ne_bytes());
        }
        out.extend(types);
        out.extend(strings);
        out
    }

    #[test]
    fn members_are_found_through_anonymous_parts_and_dots() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset_of("outer", "in.y"), Some(12));
        assert_eq!(btf.offset_of("outer", "p"), Some(16));
        assert_eq!(btf.offset_of("outer", "z"), None);
        assert_eq!(btf.offset_of("other", "x"), None);
        assert!(btf.has_tracepoint("tick"));
        assert!(!btf.has_tracepoint("tock"));
    }

    #[test]
    fn what_is_left_of_the_types_has_its_ids() {
        let all = Btf::parse(sample()).unwrap();
        let bytes = all.attach_points(&["tick", "tock"], &["inner"]);
        let left = Btf::parse(bytes.clone()).unwrap();
        assert_eq!(left.places.len(), all.places.len());
        assert!(left.has_tracepoint("tick") && !left.has_tracepoint("tock"));
        assert_eq!(left.typedefs, all.typedefs);
        assert_eq!(left.offset_of("outer", "p"), None);
        let read_by_aya = aya::Btf::parse(&bytes, aya::Endianness::default()).unwrap();
        assert_eq!(read_by_aya.to_bytes(), bytes);
    }

    #[test]
    fn the_running_kernels_own_types_are_readable() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            println!("SKIPPED: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        let btf = Btf::parse(bytes).unwrap();
        // task_struct begins with thread_info, so no scheduler field is at 0.
        assert!(btf.offset_of("task_struct", "pid").unwrap() > 0);
        assert!(btf.has_tracepoint("sched_switch"));
        assert!(btf.has_function("schedule"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Btf::parse(bytes);
        }

        #[test]
        fn damaged_types_never_panic(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
            let mut bytes = sample();
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.truncate(len - cut % len);
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = (btf.offset_of("outer", "in.y"), btf.enumerator("x"), btf.has_function("outer"));
            }
        }
    }
}
