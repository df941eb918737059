//! Signal `irq`: time of each CPU in hard and soft interrupts, and the part of it in which a real-time task was runnable.

use super::{
    row::{Row, Source},
    rt_throttle::RT_RUNNABLE,
};
use crate::kernel::programs::tracepoint;
use crate::snapshot::SignalName;

pub(super) static IRQ: Row = Row::new(
    SignalName::Irq,
    &[Source {
        probes: &[
            tracepoint("irq_handler_exit"),
            tracepoint("irq_handler_entry"),
            tracepoint("softirq_exit"),
            tracepoint("softirq_entry"),
        ],
        members: RT_RUNNABLE,
        // Interrupts that are no device's. Each architecture has its own.
        named: &[
            &[tracepoint("local_timer_exit"), tracepoint("local_timer_entry")],
            &[tracepoint("call_function_exit"), tracepoint("call_function_entry")],
            &[tracepoint("call_function_single_exit"), tracepoint("call_function_single_entry")],
            &[tracepoint("irq_work_exit"), tracepoint("irq_work_entry")],
        ],
        configure: |config| config.irq = 1,
        ..Source::new("tp_btf irq_handler, softirq")
    }],
);
