//! The timeline of each CPU, from the flight recorder: which task had a CPU when, and what a thread did when. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::interrupt::Interrupts;
use super::task::{FAIR, Who};
use guard_common::comm;
use guard_common::event::WakeContext;
use guard_common::flight::{Entry, flags, kind};

/// How far back events are kept, ns: what was longer ago is accounted for by running totals.
const KEEP_NS: u64 = 4_000_000_000;
/// Most events that are kept of all CPUs, and the most and the least of one.
const KEEP_IN_ALL: usize = 1 << 20;
const KEEP: (usize, usize) = (1 << 18, 1 << 12);
/// How far back to search for a thread's state when an interval begins, ns.
const LOOK_BACK_NS: u64 = 300_000_000;

/// What the CPUs did in the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    cpus: BTreeMap<u32, CpuEvents>,
    interrupts: Interrupts,
}

/// Events of one CPU.
#[derive(Clone, Debug, Default)]
struct CpuEvents {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Since when none is missing but for the switch that comes first, ns.
    complete_since_ns: u64,
    /// When the recorder last lost some, ns.
    gap_ns: u64,
}

impl CpuEvents {
    /// Forgets what is too old or too much. The last switch among it stays: what the CPU is doing may have begun long ago.
    fn forget(&mut self, newest_ns: u64, keep: usize) {
        let mut switch = None;
        while self.entries.front().is_some_and(|e| e.at_ns + KEEP_NS < newest_ns) || self.entries.len() > keep {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.complete_since_ns = self.complete_since_ns.max(oldest.at_ns);
            if oldest.kind == kind::SWITCH && oldest.at_ns >= self.gap_ns {
                switch = Some(oldest);
            }
        }
        if let Some(switch) = switch {
            self.entries.push_front(switch);
        }
    }
}

/// What had a CPU for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// A task, with the flags of the switch that brought it and its instant.
    Task(Who, u8, u64),
    /// A hard interrupt of this number.
    Irq(u32),
    /// A soft interrupt of this vector.
    Softirq(u32),
    /// A non-maskable interrupt.
    Nmi,
    /// It is not known.
    Unknown,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It has a CPU.
    Runs,
    /// It could run and waits for this CPU; for so long, ns, because of a quota.
    Waits { cpu: u32, throttled_ns: u64 },
    /// It sleeps, until this task wakes it; `None` when an interrupt does, or nothing has.
    Sleeps { woken_by: Option<u32> },
    /// It is not known.
    Unknown,
}

/// A part of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<T> {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) what: T,
}

impl<T> Span<T> {
    pub(super) fn ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// Most events that are kept of one CPU of so many: a power of two, as the memory of a queue is.
fn keep(cpus: usize) -> usize {
    let room = (KEEP_IN_ALL / cpus.max(1)).clamp(KEEP.1, KEEP.0);
    1 << room.ilog2()
}

fn task_of(entry: &Entry) -> Who {
    Who {
        tid: entry.tid,
        comm: comm::text(&entry.comm).to_string(),
        prio: Some(entry.prio),
        cgroup_id: entry.cgroup_id,
    }
}

impl Timeline {
    /// Adds events in order of time, and forgets the oldest.
    pub fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            let keep = keep(self.cpus.len());
            let cpu = self.cpus.entry(u32::from(entry.cpu)).or_default();
            if cpu.entries.len() >= keep {
                // Before it grows.
                cpu.forget(entry.at_ns, keep / 4 * 3);
            }
            if entry.kind == kind::GAP {
                (cpu.complete_since_ns, cpu.gap_ns) = (entry.at_ns, entry.at_ns);
            } else {
                cpu.entries.push_back(*entry);
            }
        }
        let newest_ns = self.cpus.values().filter_map(|cpu| cpu.entries.back()).map(|e| e.at_ns).max().unwrap_or(0);
        let keep = keep(self.cpus.len());
        self.cpus.values_mut().for_each(|cpu| cpu.forget(newest_ns, keep));
    }

    /// The most memory that events of so many CPUs take, bytes.
    #[must_use]
    pub fn most_bytes(cpus: usize) -> u64 {
        (cpus * keep(cpus) * size_of::<Entry>()) as u64
    }

    fn events(&self) -> impl Iterator<Item = &VecDeque<Entry>> {
        self.cpus.values().map(|cpu| &cpu.entries)
    }

    /// Names of interrupts.
    #[must_use]
    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// The same, to learn further ones.
    pub fn interrupts_mut(&mut self) -> &mut Interrupts {
        &mut self.interrupts
    }

    /// Whether nothing of `cpu` is missing from `from_ns` on, and there is something at all.
    pub(super) fn covers(&self, cpu: u32, from_ns: u64) -> bool {
        self.reaches_back_to(cpu).is_some_and(|begin_ns| begin_ns <= from_ns)
    }

    /// Since when nothing of `cpu` is missing; `None` where there is nothing at all.
    pub(super) fn reaches_back_to(&self, cpu: u32) -> Option<u64> {
        let cpu = self.cpus.get(&cpu)?;
        Some(cpu.entries.front()?.at_ns.max(cpu.complete_since_ns))
    }

    /// Events of all CPUs between two instants, in order of time.
    pub fn between(&self, from_ns: u64, to_ns: u64) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.events().flat_map(|events| within(events, from_ns, to_ns)).copied().collect();
        all.sort_by_key(|e| e.at_ns);
        all
    }

    /// Which task had `cpu` from `from_ns` to `to_ns`, with the interrupts in its time.
    pub(super) fn tasks(&self, cpu: u32, from_ns: u64, to_ns: u64) -> Vec<Span<Occupant>> {
        let Some(CpuEvents { entries: events, .. }) = self.cpus.get(&cpu) else {
            return vec![Span { from_ns, to_ns, what: Occupant::Unknown }];
        };
        let mut spans = Vec::new();
        let begin = events.partition_point(|e| e.at_ns <= from_ns);
        let before = events.iter().take(begin).rev().find(|e| e.kind == kind::SWITCH);
        let mut current = before.filter(|_| self.covers(cpu, from_ns));
        let mut since_ns = from_ns;
        let mut close = |current: Option<&Entry>, next: Option<&Entry>, from: u64, to: u64| {
            let what = current.map_or(Occupant::Unknown, |e| {
                let mut who = task_of(e);
                let left = next.filter(|next| next.other == e.tid && next.flags & flags::RT_LEAVES != 0);
                if left.is_some() && e.prio >= FAIR {
                    // It became real-time while it ran; which priority it got does not show.
                    who.prio = None;
                }
                Occupant::Task(who, e.flags, e.at_ns)
            });
            if to > from {
                spans.push(Span { from_ns: from, to_ns: to, what });
            }
        };
        for event in events.iter().skip(begin).take_while(|e| e.at_ns < to_ns).filter(|e| e.kind == kind::SWITCH) {
            close(current, Some(event), since_ns, event.at_ns);
            (current, since_ns) = (Some(event), event.at_ns);
        }
        let end = events.partition_point(|e| e.at_ns < to_ns);
        let next = events.iter().skip(end).find(|e| e.kind == kind::SWITCH);
        close(current, next, since_ns, to_ns);
        spans
    }

    /// What had `cpu` from `from_ns` to `to_ns`, each instant once: the innermost where they nest.
    pub(super) fn occupants(&self, cpu: u32, from_ns: u64, to_ns: u64) -> Vec<Span<Occupant>> {
        // Tasks first, as they came.
        let mut layers: Vec<(u8, Span<Occupant>)> =
            self.tasks(cpu, from_ns, to_ns).into_iter().map(|span| (0, span)).collect();
        let Some(CpuEvents { entries: events, .. }) = self.cpus.get(&cpu) else { return flatten(&layers) };
        let begin = events.partition_point(|e| e.at_ns <= from_ns);
        // An interrupt that ends after the interval may have begun within it.
        let late = to_ns.saturating_add(LOOK_BACK_NS);
        for (at, event) in events.iter().enumerate().skip(begin).take_while(|(_, e)| e.at_ns < late) {
            let whole = || vec![(event.at_ns.saturating_sub(event.took_ns), event.at_ns)];
            let (depth, what, runs) = match event.kind {
                kind::SOFTIRQ => (1, Occupant::Softirq(event.arg), softirq_runs(events, at, from_ns)),
                kind::IRQ => (2, Occupant::Irq(event.arg), whole()),
                kind::NMI => (3, Occupant::Nmi, whole()),
                _ => continue,
            };
            for (run_from_ns, run_to_ns) in runs {
                let span = Span { from_ns: run_from_ns.max(from_ns), to_ns: run_to_ns.min(to_ns), what: what.clone() };
                if span.ns() > 0 {
                    layers.push((depth, span));
                }
            }
        }
        flatten(&layers)
    }

    /// `Some` if only fair tasks have had `cpu` since it was taken from a runnable real-time task; whether the fair server
    /// took it.
    pub(super) fn taken(&self, cpu: u32, at_ns: u64) -> Option<bool> {
        let CpuEvents { entries: events, gap_ns, .. } = self.cpus.get(&cpu)?;
        let end = events.partition_point(|e| e.at_ns <= at_ns);
        let switches = events.iter().take(end).rev().filter(|e| e.kind == kind::SWITCH);
        let fair = switches.take_while(|e| e.prio >= FAIR && e.at_ns >= *gap_ns);
        fair.into_iter().find(|e| e.flags & flags::STOLEN != 0).map(|e| e.flags & flags::SERVER != 0)
    }

    /// Whether RT throttling held back the real-time thread `tid` when it was woken at `at_ns`.
    pub(super) fn is_rt_throttled(&self, tid: u32, at_ns: u64) -> bool {
        let mut at = self.events().flat_map(|events| within(events, at_ns, at_ns));
        at.any(|e| e.kind == kind::WAKING && e.tid == tid && e.flags & flags::RT_THROTTLED != 0)
    }

    /// What the thread `tid` did from `from_ns` to `to_ns`, in order.
    pub(super) fn activities(&self, tid: u32, from_ns: u64, to_ns: u64) -> Vec<Span<Activity>> {
        let mut state = Activity::Unknown;
        let mut last_cpu = None;
        let mut since_ns = from_ns;
        let mut spans = Vec::new();
        let about = |e: &Entry| match e.kind {
            kind::SWITCH => e.tid == tid || e.other == tid,
            kind::WAKING | kind::MIGRATE => e.tid == tid,
            _ => false,
        };
        let begin_ns = from_ns.saturating_sub(LOOK_BACK_NS);
        let mut own: Vec<&Entry> =
            self.events().flat_map(|events| within(events, begin_ns, to_ns)).filter(|e| about(e)).collect();
        own.sort_by_key(|e| e.at_ns);
        for event in own {
            // A task that leaves a CPU had it.
            if state == Activity::Unknown && event.kind == kind::SWITCH && event.other == tid {
                state = Activity::Runs;
            }
            let cpu = u32::from(event.cpu);
            let quota = event.flags & flags::THROTTLED != 0;
            let next = match (event.kind, state) {
                (kind::SWITCH, _) if event.tid == tid => {
                    // How much of the wait a quota caused is known at its end.
                    if let Activity::Waits { throttled_ns, .. } = &mut state {
                        let all = event.at_ns.saturating_sub(since_ns);
                        *throttled_ns =
                            if event.took_ns > 0 { event.took_ns.min(all) } else { (*throttled_ns).min(all) };
                    }
                    last_cpu = Some(cpu);
                    Activity::Runs
                }
                (kind::SWITCH, _) => {
                    last_cpu = Some(cpu);
                    if event.arg == 0 || event.flags & flags::PREEMPTED != 0 {
                        Activity::Waits { cpu, throttled_ns: if quota { u64::MAX } else { 0 } }
                    } else {
                        Activity::Sleeps { woken_by: None }
                    }
                }
                (kind::WAKING, Activity::Sleeps { .. } | Activity::Unknown) => {
                    if let Activity::Sleeps { woken_by } = &mut state {
                        *woken_by = (event.arg == WakeContext::Task as u32).then_some(event.other);
                    }
                    Activity::Waits { cpu: last_cpu.unwrap_or(cpu), throttled_ns: if quota { u64::MAX } else { 0 } }
                }
                (kind::MIGRATE, Activity::Waits { throttled_ns, .. }) => {
                    last_cpu = Some(event.arg);
                    Activity::Waits { cpu: event.arg, throttled_ns: if throttled_ns > 0 { u64::MAX } else { 0 } }
                }
                (kind::MIGRATE, other) => {
                    last_cpu = Some(event.arg);
                    other
                }
                (_, other) => other,
            };
            if next != state || event.kind == kind::SWITCH {
                push(&mut spans, since_ns.max(from_ns), event.at_ns.max(from_ns), state);
                since_ns = event.at_ns;
            }
            state = next;
        }
        if let Activity::Waits { throttled_ns, .. } = &mut state {
            *throttled_ns = (*throttled_ns).min(to_ns.saturating_sub(since_ns));
        }
        push(&mut spans, since_ns.max(from_ns), to_ns, state);
        spans
    }

    /// The task `tid` by its last switch before `at_ns`.
    pub(super) fn who(&self, tid: u32, at_ns: u64) -> Option<Who> {
        let last = self.events().filter_map(|events| {
            let end = events.partition_point(|e| e.at_ns <= at_ns);
            events.iter().take(end).rev().find(|e| e.kind == kind::SWITCH && e.tid == tid)
        });
        last.max_by_key(|e| e.at_ns).map(task_of)
    }

    /// The CPU that the thread `tid` left last, at `at_ns` at the latest: the wait of a preempted thread begins just then.
    pub(super) fn cpu_before(&self, tid: u32, at_ns: u64) -> Option<u32> {
        let last = self.events().filter_map(|events| {
            let end = events.partition_point(|e| e.at_ns <= at_ns);
            events.iter().take(end).rev().find(|e| e.kind == kind::SWITCH && e.other == tid)
        });
        last.max_by_key(|e| e.at_ns).map(|e| u32::from(e.cpu))
    }
}

fn within(events: &VecDeque<Entry>, from_ns: u64, to_ns: u64) -> impl Iterator<Item = &Entry> {
    let begin = events.partition_point(|e| e.at_ns < from_ns);
    events.iter().skip(begin).take_while(move |e| e.at_ns <= to_ns)
}

/// When the soft interrupt that ended with the entry `at` ran, as far back as `since_ns`. Its time is net of the hard
/// interrupts in it and, on PREEMPT_RT, of the time in which its thread had to leave the CPU to others.
fn softirq_runs(events: &VecDeque<Entry>, at: usize, since_ns: u64) -> Vec<(u64, u64)> {
    let Some(ended) = events.get(at) else { return Vec::new() };
    let owner = events.iter().take(at).rev().find(|e| e.kind == kind::SWITCH).map(|e| e.tid);
    let (mut left_ns, mut runs) = (ended.took_ns, Vec::new());
    // Backwards: the end of this run; `None` while others have the CPU.
    let mut end_ns = Some(ended.at_ns);
    for event in events.iter().take(at).rev() {
        if left_ns == 0 || event.at_ns < since_ns {
            break;
        }
        let before_ns = match event.kind {
            kind::SWITCH if Some(event.other) == owner => {
                end_ns = Some(event.at_ns);
                continue;
            }
            kind::SWITCH if Some(event.tid) == owner => None,
            kind::IRQ | kind::NMI => Some(event.at_ns.saturating_sub(event.took_ns)),
            _ => continue,
        };
        let Some(to_ns) = end_ns else { continue };
        let from_ns = event.at_ns.max(to_ns.saturating_sub(left_ns)).min(to_ns);
        runs.push((from_ns, to_ns));
        left_ns -= to_ns - from_ns;
        end_ns = before_ns.map(|before_ns| before_ns.min(to_ns));
    }
    runs.extend(end_ns.map(|to_ns| (to_ns.saturating_sub(left_ns), to_ns)));
    runs
}

fn push(spans: &mut Vec<Span<Activity>>, from_ns: u64, to_ns: u64, mut what: Activity) {
    if to_ns <= from_ns {
        return;
    }
    if let Activity::Waits { throttled_ns, .. } = &mut what {
        *throttled_ns = (*throttled_ns).min(to_ns - from_ns);
    }
    spans.push(Span { from_ns, to_ns, what });
}

/// For each instant the deepest of the spans that overlap.
fn flatten(layers: &[(u8, Span<Occupant>)]) -> Vec<Span<Occupant>> {
    let mut edges: Vec<u64> = layers.iter().flat_map(|(_, span)| [span.from_ns, span.to_ns]).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut starts: Vec<usize> = (0..layers.len()).collect();
    starts.sort_by_key(|at| layers[*at].1.from_ns);
    let mut starts = starts.into_iter().peekable();
    let mut open: Vec<usize> = Vec::new();
    let mut flat: Vec<Span<Occupant>> = Vec::new();
    for pair in edges.windows(2) {
        let (from_ns, to_ns) = (pair[0], pair[1]);
        while let Some(at) = starts.next_if(|at| layers[*at].1.from_ns <= from_ns) {
            open.push(at);
        }
        open.retain(|at| layers[*at].1.to_ns > from_ns);
        let Some(deepest) = open.iter().max_by_key(|at| layers[**at].0) else { continue };
        let what = &layers[*deepest].1.what;
        match flat.last_mut() {
            Some(last) if last.what == *what && last.to_ns == from_ns => last.to_ns = to_ns,
            _ => flat.push(Span { from_ns, to_ns, what: what.clone() }),
        }
    }
    flat
}
