//! Signal `lock`: waits of watched threads for contended locks, and boosts by priority inheritance.

use super::row::{Ask, Row, Source, shortfalls};
use crate::kernel::programs::tracepoint;
use crate::snapshot::SignalName;

pub(super) static LOCK: Row = Row::new(
    SignalName::Lock,
    &[Source {
        probes: &[tracepoint("contention_end"), tracepoint("contention_begin"), tracepoint("sched_pi_setprio")],
        weaker,
        ..Source::new("tp_btf contention_begin, contention_end, sched_pi_setprio; pi_blocked_on")
    }],
);

fn weaker(ask: &Ask<'_>) -> Vec<String> {
    let registers = ask.offer.registers();
    let waiter = ask.offer.members(&["task_struct.pi_blocked_on", "rt_mutex_waiter.lock"]);
    let of_futexes = ["rt_mutex_waiter.wake_state", registers.number, registers.second];
    let futexes = waiter.clone().and_then(|()| ask.offer.members(&of_futexes));
    shortfalls([
        ("waits for PI futexes are not seen", waiter),
        ("owners of locks are not known", ask.offer.members(&["rt_mutex_base.owner"])),
        ("boosts for PI futexes are not told from others", futexes),
    ])
}
