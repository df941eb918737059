//! Signal `flight`: what each CPU did lately, written by the programs of all signals where late wake-ups are explained.

use super::{
    row::{Ask, Row, Source, shortfalls},
    throttled_wait::MIGRATE,
};
use crate::kernel::programs::tracepoint;
use crate::snapshot::SignalName;

pub(super) static FLIGHT: Row = Row {
    explains: true,
    ..Row::new(
        SignalName::Flight,
        &[Source {
            further: &[&[tracepoint("nmi_handler")], &[tracepoint("page_fault_user")], MIGRATE],
            weaker,
            ..Source::new("per-CPU rings of switches, wake-ups, moves, interrupts and page faults")
        }],
    )
};

fn weaker(ask: &Ask<'_>) -> Vec<String> {
    let registers = ask.offer.registers();
    // Where there is no RT throttling there is nothing of it to see.
    ask.offer.offset("rq.rt.rt_throttled");
    ask.offer.offset("rt_rq.rt_throttled");
    let throttled = ask.offer.members(&["task_struct.se.cfs_rq"]).and(ask.offer.members(&["cfs_rq.throttle_count"]));
    let owner = ask.offer.members(&[registers.number, registers.first, registers.second]);
    shortfalls([("throttled tasks are not marked", throttled), ("owners of futexes are not known", owner)])
}
