//! Reads records that the programs wrote to the ring buffer. Each says what it is; what this guard does not know is counted
//! as lost.

use bytemuck::AnyBitPattern;
use bytes::Buf as _;
use guard_common::event::{Breach, Framed, LateFair, NewRealTime, Record, RecordKind, Stacks, Throttled};

/// What happened that guard acts on before it takes the next sample.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "events are few and soon gone; an allocation for each would cost more")]
pub enum Event {
    /// A quota stopped a protected cgroup.
    Throttled(Throttled),
    /// A watched thread was late. It is in the next sample, too.
    Late(Breach),
    /// Fair tasks of a cgroup with a budget were late.
    LateFair(LateFair),
    /// A cgroup turned out to have a real-time thread.
    NewRealTime(NewRealTime),
}

impl Event {
    /// When it was seen, CLOCK_MONOTONIC, ns.
    #[must_use]
    pub fn at_ns(&self) -> u64 {
        match self {
            Self::Throttled(event) => event.at_ns,
            Self::Late(breach) => breach.switched_in_ns,
            Self::LateFair(event) => event.at_ns,
            Self::NewRealTime(event) => event.at_ns,
        }
    }
}

/// What was in the ring buffer.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) breaches: Vec<Breach>,
    pub(super) stacks: Vec<Stacks>,
    /// All but [`Event::Late`].
    pub(super) others: Vec<Event>,
    /// Records of a kind, or of a length, that is not known.
    pub(super) unknown: u64,
}

impl Records {
    /// Adds the record in these bytes.
    pub(super) fn add(&mut self, framed: &[u8]) {
        if self.read(framed).is_none() {
            self.unknown += 1;
        }
    }

    fn read(&mut self, framed: &[u8]) -> Option<()> {
        match (&*framed).try_get_u32_ne().ok()? {
            kind if kind == RecordKind::Breach as u32 => self.breaches.push(body(framed)?),
            kind if kind == RecordKind::Stacks as u32 => self.stacks.push(body(framed)?),
            kind if kind == RecordKind::Throttled as u32 => self.others.push(Event::Throttled(body(framed)?)),
            kind if kind == RecordKind::LateFair as u32 => self.others.push(Event::LateFair(body(framed)?)),
            kind if kind == RecordKind::NewRealTime as u32 => self.others.push(Event::NewRealTime(body(framed)?)),
            _ => return None,
        }
        Some(())
    }
}

/// The record in its frame; `None` when it has another length.
fn body<T: Record + AnyBitPattern>(framed: &[u8]) -> Option<T> {
    let body = framed.get(std::mem::offset_of!(Framed<T>, record)..)?;
    (framed.len() == size_of::<Framed<T>>()).then(|| bytemuck::pod_read_unaligned(body))
}

#[cfg(test)]
mod tests {
    use bytemuck::{NoUninit, Zeroable as _, bytes_of};

    use super::*;

    fn framed<T: NoUninit>(kind: u32, record: &T) -> Vec<u8> {
        [&kind.to_ne_bytes()[..], &[0; 4], bytes_of(record)].concat()
    }

    #[test]
    fn a_record_is_read_as_what_it_says_it_is() {
        let mut records = Records::default();
        records.add(&framed(1, &Breach { tid: 7, ..Breach::zeroed() }));
        records.add(&framed(2, &Stacks { tid: 8, ..Stacks::zeroed() }));
        records.add(&framed(3, &Throttled { at_ns: 1, cgroup_id: 9 }));
        records.add(&framed(4, &LateFair { at_ns: 2, late: 3, ..LateFair::zeroed() }));
        records.add(&framed(5, &NewRealTime { at_ns: 3, tid: 10, ..NewRealTime::zeroed() }));
        assert_eq!((records.breaches[0].tid, records.stacks[0].tid, records.unknown), (7, 8, 0));
        assert!(matches!(records.others[0], Event::Throttled(Throttled { at_ns: 1, cgroup_id: 9 })));
        assert!(matches!(records.others[1], Event::LateFair(LateFair { at_ns: 2, late: 3, .. })));
        assert!(matches!(records.others[2], Event::NewRealTime(NewRealTime { at_ns: 3, tid: 10, .. })));
        assert_eq!(records.others.iter().map(Event::at_ns).collect::<Vec<_>>(), [1, 2, 3]);
    }

    /// Told apart by length, a new kind of a known length would pass for the known one.
    #[test]
    fn an_unknown_kind_is_lost_whatever_its_length() {
        let mut records = Records::default();
        records.add(&framed(99, &Throttled { at_ns: 1, cgroup_id: 9 }));
        records.add(&framed(0, &Breach::zeroed()));
        records.add(&framed(99, &[0u8; 4]));
        assert_eq!((records.breaches.len(), records.others.len(), records.unknown), (0, 0, 3));
    }

    #[test]
    fn a_known_kind_of_another_length_is_lost() {
        let mut records = Records::default();
        records.add(&framed(1, &Throttled { at_ns: 1, cgroup_id: 9 }));
        records.add(&framed(3, &[0u8; 24]));
        records.add(&[1, 0]);
        records.add(&[]);
        assert_eq!((records.breaches.len(), records.others.len(), records.unknown), (0, 0, 4));
    }
}
