//! Has every late wake-up accounted for while the flight recorder's entries of it are still there, and names what only this
//! node can name now: owners of futexes, interrupts, functions on kernel stacks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use guard_common::comm;
use guard_common::event::{Breach, breach_flags};
use guard_common::flight::kind;

use super::cpu_times;
use crate::explain::{Account, Timeline, Traced, account};
use crate::kernel::sample::KernelSample;
use crate::kernel::symbols::Functions;
use crate::snapshot::Stacks;

/// Late wake-ups of one sample that are accounted for, of named threads and then the worst: each costs a look through a
/// second of events.
const MOST: usize = 200;
/// How much of the timeline of events is kept around a late wake-up that is traced, ns.
const TRACED_AROUND_NS: u64 = 5_000_000;
/// Most late wake-ups with a trace, and most events of all of them.
const TRACES: (usize, usize) = (20, 200_000);

/// Names a breach record: thread and switch-in.
pub(super) type Key = (u32, u64);

pub(super) fn key(record: &Breach) -> Key {
    (record.tid, record.switched_in_ns)
}

/// What is known of a late wake-up beside its record.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounted {
    /// Its account; `None` when the recorder did not reach back.
    pub(super) account: Option<Account>,
    /// Time that the host took from its CPU in the sample that it is in, ns; `None` where the kernel does not report it.
    pub(super) steal_ns: Option<u64>,
    /// Its kernel stacks, where they were asked for.
    pub(super) stacks: Option<Stacks>,
}

impl Accounted {
    /// Ids of the cgroups that it names.
    pub(super) fn cgroups(&self) -> impl Iterator<Item = u64> {
        let parts = self.account.iter().flat_map(|account| &account.parts).filter_map(|part| part.by.as_ref());
        let links = self.account.iter().flat_map(|account| &account.chain).map(|link| &link.who);
        parts.chain(links).map(|who| who.cgroup_id)
    }
}

/// Accounts, sample by sample.
#[derive(Debug, Default)]
pub(super) struct Accountant {
    timeline: Timeline,
    /// CPU → stolen since boot, ns.
    stolen: HashMap<u32, u64>,
    traces: Option<Traces>,
    /// Threads that the user named.
    named: Vec<u32>,
    /// Where kernel stacks were asked for.
    functions: Option<Functions>,
}

/// What happened around the first late wake-ups, for whoever asked for it to take.
#[derive(Clone, Debug, Default)]
pub struct Traces(Arc<Mutex<Vec<Traced>>>);

impl Traces {
    /// Takes them.
    #[must_use]
    pub fn take(&self) -> Vec<Traced> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds one, if there is room.
    fn add(&self, record: &Breach, timeline: &Timeline) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TRACES.1.saturating_sub(all.iter().map(|trace| trace.entries.len()).sum());
        if all.len() >= TRACES.0 || room == 0 {
            return;
        }
        let begin_ns = record.since_ns.saturating_sub(TRACED_AROUND_NS);
        let mut entries = timeline.between(begin_ns, record.switched_in_ns.saturating_add(TRACED_AROUND_NS));
        entries.truncate(room);
        all.push(Traced {
            tid: record.tid,
            comm: comm::text(&record.comm).to_string(),
            from_ns: record.since_ns,
            to_ns: record.switched_in_ns,
            entries,
            interrupts: timeline.interrupts().clone(),
        });
    }
}

impl Accountant {
    /// `named` threads come first. With `traces`, also keeps the timeline of events around late wake-ups; with `functions`,
    /// their kernel stacks.
    pub(super) fn new(named: Vec<u32>, traces: Option<Traces>, functions: Option<Functions>) -> Self {
        Self { stolen: stolen(), traces, named, functions, ..Self::default() }
    }

    /// Learns the names of interrupts that nobody has named yet.
    fn name_interrupts(&mut self, sample: &KernelSample) {
        let interrupts = self.timeline.interrupts_mut();
        for entry in sample.flight.iter().filter(|entry| entry.kind == kind::IRQ) {
            if interrupts.lacks(entry.arg) {
                // https://docs.kernel.org/admin-guide/abi-testing.html: /sys/kernel/irq/<irq>/actions
                let devices = std::fs::read_to_string(format!("/sys/kernel/irq/{}/actions", entry.arg));
                interrupts.insert(entry.arg, devices.unwrap_or_default().trim().replace(',', ", "));
            }
        }
    }

    /// Accounts for the breaches of a sample.
    pub(super) fn look(&mut self, sample: &KernelSample) -> HashMap<Key, Accounted> {
        self.timeline.add(&sample.flight);
        self.name_interrupts(sample);
        let now = stolen();
        let before = std::mem::replace(&mut self.stolen, now);
        let mut worst: Vec<&Breach> = sample.breaches.iter().collect();
        worst.sort_by_key(|record| {
            let latency_ns = record.switched_in_ns.saturating_sub(record.since_ns);
            std::cmp::Reverse((self.named.contains(&record.tid), latency_ns))
        });
        worst.truncate(MOST);
        let stacks: HashMap<Key, _> = sample.stacks.iter().map(|s| ((s.tid, s.switched_in_ns), s)).collect();
        let mut accounts = HashMap::new();
        for record in worst {
            let cpu = if record.expired_ns > 0 { record.waker_cpu } else { record.cpu };
            let steal_ns = self.stolen.get(&cpu).zip(before.get(&cpu)).map(|(now, before)| now.saturating_sub(*before));
            if let Some(traces) = &self.traces {
                traces.add(record, &self.timeline);
            }
            let stacks = self.functions.as_ref().zip(stacks.get(&key(record))).map(|(functions, stacks)| Stacks {
                waking: functions.stack(&stacks.waking),
                leaving: functions.stack(&stacks.leaving),
            });
            accounts.insert(key(record), Accounted { account: account(record, &self.timeline), steal_ns, stacks });
        }
        accounts
    }
}

/// Takes back owners that a futex's word named and that are neither the waker nor another thread of the same process: the
/// word means something else then, for only the program knows what it keeps there.
pub(super) fn doubt_futex_owners(breaches: &mut [Breach]) {
    for breach in breaches.iter_mut().filter(|breach| breach.flags & breach_flags::FUTEX_OWNER != 0) {
        let (owner, thread) = (breach.lock_owner, format!("/proc/{}/task/{}", breach.tgid, breach.lock_owner));
        if owner == breach.tid || owner != breach.waker && !std::path::Path::new(&thread).exists() {
            breach.flags &= !breach_flags::FUTEX_OWNER;
            breach.lock_owner = 0;
        }
    }
}

/// Time that the host took from each CPU since boot, ns; empty where the kernel does not report it.
fn stolen() -> HashMap<u32, u64> {
    cpu_times::read().into_iter().map(|(cpu, times)| (cpu, times.stolen_ns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_threads_of_the_process_own_its_futexes() {
        use bytemuck::Zeroable as _;
        let process = std::process::id();
        let own = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let owned_by = |lock_owner, flags| Breach { tid: own, tgid: process, lock_owner, flags, ..Breach::zeroed() };
        let mut breaches = [
            owned_by(process, breach_flags::FUTEX_OWNER),
            owned_by(own, breach_flags::FUTEX_OWNER),
            owned_by(1, breach_flags::FUTEX_OWNER),
            owned_by(1, breach_flags::LOCK),
            Breach { waker: 1, ..owned_by(1, breach_flags::FUTEX_OWNER) },
        ];
        doubt_futex_owners(&mut breaches);
        assert_eq!(breaches.map(|b| b.lock_owner), [process, 0, 0, 1, 1]);
        assert_eq!(
            breaches.map(|b| b.flags),
            [breach_flags::FUTEX_OWNER, 0, 0, breach_flags::LOCK, breach_flags::FUTEX_OWNER]
        );
    }
}
