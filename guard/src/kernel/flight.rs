//! Reads the flight recorder, which the programs of each CPU overwrite without waiting for the reader.

use std::mem::offset_of;

use guard_common::flight::{Entry, Head, kind};

use super::sys::Shared;

/// Memory that all CPUs' entries may take, bytes.
const BYTES: usize = 64 << 20;
/// Most entries of one CPU: what a CPU that switches sixty thousand times in a second does in one.
const MOST: usize = 1 << 16;

/// Entries of one CPU, a power of two, on a node with so many CPUs.
pub(super) fn entries(cpus: u32) -> u32 {
    let room = (BYTES / size_of::<Entry>() / cpus.max(1) as usize).clamp(1 << 10, MOST);
    // Down to a power of two.
    1 << room.ilog2()
}

/// Memory of the rings of so many CPUs, bytes.
#[must_use]
pub fn flight_bytes(cpus: usize) -> u64 {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    u64::from(cpus) * u64::from(entries(cpus)) * size_of::<Entry>() as u64
}

/// The rings, and how far they were read.
pub(super) struct Flight {
    entries: Shared<Entry>,
    heads: Shared<Head>,
    read: Vec<u64>,
}

impl Flight {
    pub(super) fn new(entries: Shared<Entry>, heads: Shared<Head>) -> Self {
        let read = (0..heads.len()).map(|cpu| heads.read_field(cpu, offset_of!(Head, count))).collect();
        Self { entries, heads, read }
    }

    /// What was written since the last call, in order of time. Where entries were overwritten before, a gap says so.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        let per_cpu = self.entries.len() / self.heads.len().max(1);
        let mut taken = Vec::new();
        for cpu in 0..self.heads.len() {
            let end: u64 = self.heads.read_field(cpu, offset_of!(Head, count));
            let oldest = end.saturating_sub(per_cpu as u64);
            let first = self.read[cpu].max(oldest);
            let mut gap = first > self.read[cpu];
            for number in first..end {
                #[allow(clippy::cast_possible_truncation, reason = "the remainder of a 32 bit number")]
                let at = cpu * per_cpu + (number % per_cpu as u64) as usize;
                let entry = self.entries.read(at);
                #[allow(clippy::cast_possible_truncation, reason = "numbers are compared modulo 2^32")]
                let whole = entry.seq == (number as u32).wrapping_add(1)
                    && self.entries.read_field::<u32>(at, offset_of!(Entry, seq)) == entry.seq;
                if !whole {
                    // Overwritten meanwhile, or just being written.
                    gap = true;
                    continue;
                }
                if std::mem::take(&mut gap) {
                    taken.push(Entry { kind: kind::GAP, ..entry });
                }
                taken.push(entry);
            }
            self.read[cpu] = end;
        }
        // In place: there may be very many. Entries of one CPU stay in their order, and a gap before what follows it.
        taken.sort_unstable_by_key(|entry| (entry.at_ns, entry.cpu, entry.seq, entry.kind != kind::GAP));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_many_cpus_has_fewer_entries_for_each() {
        assert_eq!([entries(1), entries(2), entries(16)], [1 << 16; 3]);
        assert_eq!(entries(64), 1 << 14);
        assert_eq!(entries(8192), 1 << 10);
    }
}
