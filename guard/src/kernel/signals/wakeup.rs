//! Signal `wakeup`: from sched_waking, or from a preemption, to the switch-in.

use super::row::{Row, Source};
use crate::kernel::programs::tracepoint;
use crate::snapshot::SignalName;

pub(super) static WAKEUP: Row = Row {
    indispensable: true,
    ..Row::new(
        SignalName::Wakeup,
        &[Source {
            probes: &[
                tracepoint("sched_process_exit"),
                tracepoint("sched_process_exec"),
                tracepoint("sched_switch"),
                tracepoint("sched_wakeup_new"),
                tracepoint("sched_waking"),
            ],
            ..Source::new("tp_btf sched_waking, sched_switch")
        }],
    )
};
