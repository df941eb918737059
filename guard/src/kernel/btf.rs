//! A reader of the kernel's type information (BTF): where a struct keeps a member, what an enumerator is worth, which
//! tracepoints and functions exist. It parses bytes and does no I/O.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>.

use std::collections::HashMap;

/// Parsed type information.
pub struct Btf {
    types: Vec<Type>,
    strings: Vec<u8>,
    /// Structs and unions by name.
    structs: HashMap<u32, Vec<u32>>,
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

#[derive(Clone, Debug)]
struct Type {
    name: u32,
    kind: u32,
    /// Size or referred type, by kind.
    target: u32,
    detail: Detail,
}

#[derive(Clone, Debug)]
enum Detail {
    None,
    Members(Vec<Member>),
    Enumerators(Vec<(u32, i64)>),
}

#[derive(Clone, Copy, Debug)]
struct Member {
    name: u32,
    target: u32,
    bits: u32,
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const TYPE_TAG: u32 = 18;

/// Reads little-endian words one after the other.
struct Words<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u32, BtfError> {
        let (word, rest) = self.bytes.split_first_chunk().ok_or(BtfError::CutOff(self.what))?;
        self.bytes = rest;
        Ok(u32::from_ne_bytes(*word))
    }

    fn skip(&mut self, words: usize) -> Result<(), BtfError> {
        self.bytes = self.bytes.get(words * 4..).ok_or(BtfError::CutOff(self.what))?;
        Ok(())
    }
}

impl Btf {
    /// Parses the content of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When the bytes are not BTF, end too early, or hold a kind of type from a future format.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let magic = bytes.first_chunk().map_or(0, |b| u16::from_ne_bytes(*b));
        if magic != 0xeb9f {
            return Err(BtfError::Magic(magic));
        }
        let mut header = Words { bytes: bytes.get(4..).unwrap_or_default(), what: "header" };
        let length = header.next()? as usize;
        let (type_at, type_len) = (header.next()? as usize, header.next()? as usize);
        let (string_at, string_len) = (header.next()? as usize, header.next()? as usize);
        let section = |at: usize, len: usize, what| {
            let from = length.checked_add(at).ok_or(BtfError::CutOff(what))?;
            let to = from.checked_add(len).ok_or(BtfError::CutOff(what))?;
            bytes.get(from..to).ok_or(BtfError::CutOff(what))
        };
        let strings = section(string_at, string_len, "string section")?.to_vec();
        let mut words = Words { bytes: section(type_at, type_len, "type section")?, what: "type section" };

        // Type 0 is void.
        let mut types = vec![Type { name: 0, kind: 0, target: 0, detail: Detail::None }];
        let mut structs: HashMap<u32, Vec<u32>> = HashMap::new();
        while !words.bytes.is_empty() {
            let parsed = parse_type(&mut words, types.len())?;
            if matches!(parsed.kind, STRUCT | UNION) {
                #[allow(clippy::cast_possible_truncation, reason = "type ids are 32 bits wide in the format")]
                structs.entry(parsed.name).or_default().push(types.len() as u32);
            }
            types.push(parsed);
        }
        Ok(Self { types, strings, structs })
    }

    fn name(&self, at: u32) -> &[u8] {
        let tail = self.strings.get(at as usize..).unwrap_or_default();
        tail.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// Follows typedefs and qualifiers to the type itself.
    fn resolve(&self, id: u32) -> Option<&Type> {
        let mut at = self.types.get(id as usize)?;
        // No chain of qualifiers is as long as this; a longer one is a cycle in broken input.
        for _ in 0..32 {
            if !matches!(at.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(at);
            }
            at = self.types.get(at.target as usize)?;
        }
        None
    }

    /// Offset in bytes of a member such as ("task_struct", "se.cfs_rq"); members of anonymous parts are found by their
    /// own name. `None` when the struct or a member does not exist, or is a bit field that begins inside a byte.
    #[must_use]
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        let ids =
            self.structs.iter().filter(|(name, _)| self.name(**name) == structure.as_bytes()).flat_map(|(_, v)| v);
        ids.filter_map(|id| self.follow(self.types.get(*id as usize)?, path)).next()
    }

    fn follow(&self, structure: &Type, path: &str) -> Option<u32> {
        let (mut bits, mut at) = (0u32, structure);
        for part in path.split('.') {
            let (offset, target) = self.member(at, part.as_bytes(), 0)?;
            bits = bits.checked_add(offset)?;
            at = self.resolve(target)?;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn member(&self, structure: &Type, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let Detail::Members(members) = &structure.detail else { return None };
        if let Some(m) = members.iter().find(|m| m.name != 0 && self.name(m.name) == name) {
            return Some((m.bits, m.target));
        }
        // Anonymous structs nest a few levels at most; broken input could nest without end.
        if depth > 8 {
            return None;
        }
        members.iter().filter(|m| self.name(m.name).is_empty()).find_map(|m| {
            let (bits, target) = self.member(self.resolve(m.target)?, name, depth + 1)?;
            Some((bits.checked_add(m.bits)?, target))
        })
    }

    /// Value of an enumerator, whichever enum it is in.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        self.types.iter().find_map(|t| match &t.detail {
            Detail::Enumerators(list) => list.iter().find(|(n, _)| self.name(*n) == name.as_bytes()).map(|(_, v)| *v),
            _ => None,
        })
    }

    /// Whether the kernel has a tracepoint of this name that BPF can attach to.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        let typedef = format!("btf_trace_{name}");
        self.types.iter().any(|t| t.kind == TYPEDEF && self.name(t.name) == typedef.as_bytes())
    }

    /// Whether the kernel describes a function of this name.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.types.iter().any(|t| t.kind == FUNC && self.name(t.name) == name.as_bytes())
    }
}

fn parse_type(words: &mut Words<'_>, id: usize) -> Result<Type, BtfError> {
    let (name, info, target) = (words.next()?, words.next()?, words.next()?);
    let (kind, count, flag) = ((info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 != 0);
    let mut detail = Detail::None;
    match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => words.skip(1)?,
        // ARRAY
        3 => words.skip(3)?,
        STRUCT | UNION => {
            let mut members = Vec::with_capacity(count.min(words.bytes.len() / 12));
            for _ in 0..count {
                let (name, target, offset) = (words.next()?, words.next()?, words.next()?);
                // With the flag the upper byte is the width of a bit field.
                members.push(Member { name, target, bits: if flag { offset & 0x00ff_ffff } else { offset } });
            }
            detail = Detail::Members(members);
        }
        // ENUM
        6 => {
            let mut list = Vec::with_capacity(count.min(words.bytes.len() / 8));
            for _ in 0..count {
                list.push((words.next()?, i64::from(words.next()?.cast_signed())));
            }
            detail = Detail::Enumerators(list);
        }
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => {}
        // FUNC_PROTO
        13 => words.skip(count * 2)?,
        // DATASEC, ENUM64
        15 | 19 => words.skip(count * 3)?,
        _ => return Err(BtfError::UnknownKind { id, kind }),
    }
    Ok(Type { name, kind, target, detail })
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
        let btf = Btf::parse(&sample()).unwrap();
        assert_eq!(btf.offset_of("outer", "in.y"), Some(12));
        assert_eq!(btf.offset_of("outer", "p"), Some(16));
        assert_eq!(btf.offset_of("outer", "z"), None);
        assert_eq!(btf.offset_of("other", "x"), None);
        assert!(btf.has_tracepoint("tick"));
        assert!(!btf.has_tracepoint("tock"));
    }

    #[test]
    fn the_running_kernels_own_types_are_readable() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            println!("SKIPPED: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        let btf = Btf::parse(&bytes).unwrap();
        // task_struct begins with thread_info, so no scheduler field is at 0.
        assert!(btf.offset_of("task_struct", "pid").unwrap() > 0);
        assert!(btf.has_tracepoint("sched_switch"));
        assert!(btf.has_function("schedule"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Btf::parse(&bytes);
        }

        #[test]
        fn damaged_types_never_panic(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
            let mut bytes = sample();
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.truncate(len - cut % len);
            if let Ok(btf) = Btf::parse(&bytes) {
                let _ = (btf.offset_of("outer", "in.y"), btf.enumerator("x"), btf.has_function("outer"));
            }
        }
    }
}
