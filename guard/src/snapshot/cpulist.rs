//! CPU lists in the form that the kernel reads and writes in cpuset files, sysfs and /proc: "0-3,8". Pure.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The highest CPU number that is believed; the kernel's own limit (NR_CPUS) is 8192 at most.
pub const MAX_CPU: u32 = u16::MAX as u32;

/// A text that is no CPU list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a CPU list such as 0-3,8, found {0:?}")]
pub struct CpuListError(String);

impl CpuListError {
    /// The beginning of what was found.
    pub(crate) fn value(&self) -> &str {
        &self.0
    }
}

/// A set of CPUs, or of NUMA nodes, which the kernel writes in the same form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuList {
    /// Ascending, with at least one absent CPU between two neighbours.
    ranges: Vec<RangeInclusive<u32>>,
}

impl CpuList {
    /// Whether the CPU is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(&cpu))
    }

    /// Its CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().cloned().flatten()
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|range| (range.end() - range.start()) as usize + 1).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Reads a list as the kernel reads one on its command line (lib/bitmap-str.c): besides "0-3,8" also `N` for the last
    /// CPU, `all`, the first some of each group ("0-31:2/8"), and commas or white space between the parts, more than one
    /// too. `cpus` is how many CPUs the machine could have.
    ///
    /// # Errors
    /// What the kernel refuses as a whole: what is no list, a range that ends before it begins or beyond the last CPU, a
    /// group that is smaller than what is taken of it.
    pub fn from_boot_option(text: &str, cpus: u32) -> Result<Self, CpuListError> {
        let bad = || CpuListError(text.chars().take(80).collect());
        let last = cpus.checked_sub(1).filter(|last| *last <= MAX_CPU).ok_or_else(bad)?;
        let number = |text: &str| match text {
            "N" => Ok(last),
            // u32::from_str would take a sign.
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|number| *number <= MAX_CPU).ok_or_else(bad)
            }
            _ => Err(bad()),
        };
        let mut ranges = Vec::new();
        let parts = text.split(|c: char| c == ',' || c.is_ascii_whitespace() || c == '\u{b}');
        for part in parts.filter(|part| !part.is_empty()) {
            let (range, pattern) = part.split_once(':').map_or((part, None), |(range, rest)| (range, Some(rest)));
            let (first, end) = match range.split_once('-') {
                Some((first, end)) => (number(first)?, number(end)?),
                None if range.eq_ignore_ascii_case("all") => (0, last),
                // A pattern needs a range.
                None if pattern.is_some() => return Err(bad()),
                None => (number(range)?, number(range)?),
            };
            let (taken, group) = match pattern {
                Some(pattern) => {
                    let (taken, group) = pattern.split_once('/').ok_or_else(bad)?;
                    (number(taken)?, number(group)?)
                }
                None => (end + 1, end + 1),
            };
            if first > end || end > last || group == 0 || taken > group {
                return Err(bad());
            }
            let starts = (first..=end).step_by(group as usize).filter(|_| taken > 0);
            ranges.extend(starts.map(|start| start..=end.min(start + (taken - 1))));
        }
        Ok(Self::from_ranges(ranges))
    }

    fn from_ranges(mut ranges: Vec<RangeInclusive<u32>>) -> Self {
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self::from_ranges(cpus.into_iter().map(|cpu| cpu..=cpu).collect())
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    /// Reads "0-3,8"; an empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let bad = || CpuListError(text.chars().take(80).collect());
        let number = |digits: &str| -> Result<u32, CpuListError> {
            // u32::from_str would take a sign.
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad());
            }
            digits.parse().ok().filter(|cpu| *cpu <= MAX_CPU).ok_or_else(bad)
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Self::default());
        }
        let ranges = trimmed
            .split(',')
            .map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (number(first)?, number(last)?);
                if first > last { Err(bad()) } else { Ok(first..=last) }
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::from_ranges(ranges))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if range.start() == range.end() {
                write!(f, "{}", range.start())?;
            } else {
                write!(f, "{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for CpuList {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CpuList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$" })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        for (text, cpus) in [
            ("0-3,8\n", vec![0, 1, 2, 3, 8]),
            ("0\n", vec![0]),
            ("\n", vec![]),
            ("2,0-1", vec![0, 1, 2]),
            ("1-3,2-5", vec![1, 2, 3, 4, 5]),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!(list.iter().collect::<Vec<_>>(), cpus, "{text:?}");
            assert_eq!(list.len(), cpus.len());
        }
    }

    #[test]
    fn refuses_what_is_no_cpu_list() {
        for text in ["a", "-1", "1-", "3-1", "1,,2", "+1", "0-4294967295", "1 2", "(null)"] {
            assert!(text.parse::<CpuList>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn reads_what_the_kernel_takes_on_its_command_line() {
        for (text, cpus) in [
            ("2-5,7", "2-5,7"),
            ("4-N", "4-11"),
            ("N", "11"),
            ("0,N", "0,11"),
            ("all", "0-11"),
            ("ALL", "0-11"),
            ("all:1/3", "0,3,6,9"),
            ("1-11:1/2", "1,3,5,7,9,11"),
            ("0-11:2/4", "0-1,4-5,8-9"),
            ("0-N:1/N", "0,11"),
            ("4-9:0/2", ""),
            ("9 3-4,,1,", "1,3-4,9"),
            ("", ""),
        ] {
            let list = CpuList::from_boot_option(text, 12).map(|list| list.to_string());
            assert_eq!(list.as_deref(), Ok(cpus), "{text:?}");
        }
        for text in
            ["2-12", "12", "4-2", "1-", "-3", "3:1/2", "1-4:1", "1-4:1/0", "1-4:3/2", "n", "allN", "0x3", "2..4"]
        {
            assert!(CpuList::from_boot_option(text, 12).is_err(), "{text:?}");
        }
        assert!(CpuList::from_boot_option("all", 0).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", part in "[-0-9N:/,al ]{0,12}", cpus in 0_u32..70_000) {
            let _ = text.parse::<CpuList>();
            let _ = (CpuList::from_boot_option(&text, cpus), CpuList::from_boot_option(&part, cpus));
        }

        #[test]
        fn a_plain_list_is_the_same_on_the_command_line(cpus in proptest::collection::btree_set(0_u32..300, 0..80)) {
            let list: CpuList = cpus.into_iter().collect();
            prop_assert_eq!(CpuList::from_boot_option(&list.to_string(), 300), Ok(list));
        }

        #[test]
        fn what_is_written_is_read_back_as_the_same_set(cpus in proptest::collection::btree_set(0_u32..300, 0..80)) {
            let list: CpuList = cpus.iter().copied().collect();
            let read: CpuList = list.to_string().parse().unwrap();
            prop_assert_eq!(&read, &list);
            prop_assert_eq!(read.iter().collect::<BTreeSet<_>>(), cpus.clone());
            prop_assert!((0..300).all(|cpu| read.contains(cpu) == cpus.contains(&cpu)));
        }
    }
}
