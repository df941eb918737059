//! Signal `breach`: late wake-ups of watched threads, each as a record in the ring buffer.

use super::row::{Row, Source, shortfalls};
use crate::snapshot::SignalName;

pub(super) static BREACH: Row = Row::new(
    SignalName::Breach,
    &[Source {
        weaker: |ask| {
            let call = ask.offer.members(&[ask.offer.registers().number]);
            shortfalls([("the system calls in which threads sleep are not known", call)])
        },
        ..Source::new("ring buffer")
    }],
);
