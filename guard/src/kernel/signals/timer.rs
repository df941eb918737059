//! Signal `timer`: from the requested expiry of a timer to the interrupt, and to the switch-in of the thread that it wakes.

use super::row::{Ask, Row, Source, shortfalls};
use crate::kernel::{
    offer::{DL_TASK_TIMER, HRTIMER_WAKEUP},
    programs::tracepoint,
};
use crate::snapshot::SignalName;

pub(super) static TIMER: Row = Row::new(
    SignalName::Timer,
    &[Source {
        probes: &[tracepoint("hrtimer_expire_exit"), tracepoint("hrtimer_expire_entry")],
        members: &[
            "hrtimer._softexpires",
            "hrtimer.function",
            "hrtimer.base",
            "hrtimer.is_soft",
            "hrtimer_clock_base.offset",
        ],
        weaker,
        ..Source::new("tp_btf hrtimer_expire_entry, sched_waking, sched_switch")
    }],
);

/// From a replenishment timer to its task.
const DEADLINE: [&str; 2] = ["sched_dl_entity.dl_timer", "task_struct.dl"];

fn weaker(ask: &Ask<'_>) -> Vec<String> {
    let deadline = ask.offer.callback(DL_TASK_TIMER).and_then(|()| ask.offer.members(&DEADLINE));
    shortfalls([
        ("sleepers are not told from other timers", ask.offer.callback(HRTIMER_WAKEUP)),
        ("replenishments of SCHED_DEADLINE threads are not seen", deadline),
        ("a wake-up by the tick passes for a timer's", ask.offer.callback(ask.offer.tick())),
    ])
}
