//! Signal `user`: from the requested expiry of a timer to the return of the thread that it wakes to its own code.

use super::{
    row::{Row, Source},
    timer::TIMER,
};
use crate::kernel::programs::tracepoint;
use crate::snapshot::SignalName;

pub(super) static USER: Row = Row {
    needs: |ask| match TIMER.decide(ask).sight {
        Ok(_) => Ok(()),
        Err(reason) => Err(format!("it follows the timer signal: {reason}")),
    },
    ..Row::new(
        SignalName::User,
        &[Source { probes: &[tracepoint("rseq_update")], ..Source::new("tp_btf rseq_update") }],
    )
};
