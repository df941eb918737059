//! Has every late wake-up accounted for while the flight recorder's entries of it are still there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use guard_common::event::Breach;

use crate::explain::{Account, Course, Traced, account};
use crate::kernel::sample::KernelSample;

/// Late wake-ups of one sample that are accounted for, of named threads and then the worst: each costs a look through a
/// second of events.
const MOST: usize = 200;
/// How much of the course of events is kept around a late wake-up that is traced, ns.
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
    /// Its account; none when the recorder did not reach back.
    pub(super) account: Option<Account>,
    /// Time that the host took from its CPU in the sample that it is in, ns; none where the kernel does not tell.
    pub(super) steal_ns: Option<u64>,
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
    course: Course,
    /// CPU → stolen since boot, ns.
    stolen: HashMap<u32, u64>,
    traces: Option<Traces>,
    /// Threads that the user named.
    named: Vec<u32>,
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
    fn add(&self, record: &Breach, course: &Course) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TRACES.1.saturating_sub(all.iter().map(|trace| trace.entries.len()).sum());
        if all.len() >= TRACES.0 || room == 0 {
            return;
        }
        let begin_ns = record.since_ns.saturating_sub(TRACED_AROUND_NS);
        let mut entries = course.between(begin_ns, record.switched_in_ns.saturating_add(TRACED_AROUND_NS));
        entries.truncate(room);
        let end = record.comm.iter().position(|b| *b == 0).unwrap_or(record.comm.len());
        all.push(Traced {
            tid: record.tid,
            comm: String::from_utf8_lossy(&record.comm[..end]).into_owned(),
            from_ns: record.since_ns,
            to_ns: record.switched_in_ns,
            entries,
        });
    }
}

impl Accountant {
    /// `named` threads come first. With `traces`, also keeps the course of events around late wake-ups.
    pub(super) fn new(named: Vec<u32>, traces: Option<Traces>) -> Self {
        Self { stolen: stolen(), traces, named, ..Self::default() }
    }

    /// Accounts for the breaches of a sample.
    pub(super) fn look(&mut self, sample: &KernelSample) -> HashMap<Key, Accounted> {
        self.course.add(&sample.flight);
        let now = stolen();
        let before = std::mem::replace(&mut self.stolen, now);
        let mut worst: Vec<&Breach> = sample.breaches.iter().collect();
        worst.sort_by_key(|record| {
            let latency_ns = record.switched_in_ns.saturating_sub(record.since_ns);
            std::cmp::Reverse((self.named.contains(&record.tid), latency_ns))
        });
        worst.truncate(MOST);
        let mut accounts = HashMap::new();
        for record in worst {
            let cpu = if record.expired_ns > 0 { record.waker_cpu } else { record.cpu };
            let steal_ns = self.stolen.get(&cpu).zip(before.get(&cpu)).map(|(now, before)| now.saturating_sub(*before));
            if let Some(traces) = &self.traces {
                traces.add(record, &self.course);
            }
            accounts.insert(key(record), Accounted { account: account(record, &self.course), steal_ns });
        }
        accounts
    }
}

/// Time that the host took from each CPU since boot, ns; empty where the kernel does not tell.
fn stolen() -> HashMap<u32, u64> {
    std::fs::read_to_string("/proc/stat").map(|text| parse_stolen(&text)).unwrap_or_default()
}

/// The eighth figure of each CPU's line, in ticks of 10 ms (USER_HZ): proc(5).
fn parse_stolen(text: &str) -> HashMap<u32, u64> {
    const TICK_NS: u64 = 10_000_000;
    text.lines()
        .filter_map(|line| {
            let (name, figures) = line.strip_prefix("cpu")?.split_once(' ')?;
            let ticks: u64 = figures.split_ascii_whitespace().nth(7)?.parse().ok()?;
            Some((name.parse().ok()?, ticks.saturating_mul(TICK_NS)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_read_per_cpu() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu12 1 2 3 4 5 6 7 0 0 0\nintr 5\ncpu3 bad\n";
        assert_eq!(parse_stolen(text), HashMap::from([(0, 80_000_000), (12, 0)]));
    }
}
