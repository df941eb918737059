//! What all intervals since the start come to: Snapshots say what was new in an interval, metrics what there was in all.

use std::collections::{BTreeMap, HashSet};

use super::places::Places;
use crate::snapshot::{
    self, ActionResult, ActionState, Breach, Cause, Cgroup, Class, Cpu, Latency, Lost, Node, Pressure, Signal,
    SignalName, Snapshot, Thread, Timer, Word,
};

/// Path of what found no slot, or has no place.
pub(super) const OTHER: &str = "(other)";
/// Kinds of actions, or causes, that are told apart; those beyond are "(other)". There are fewer in guard's own words.
const WORDS_MAX: usize = 64;

/// How many cgroups, and names of threads, have series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Cgroups.
    pub cgroups: usize,
    /// Pairs of cgroup and thread name.
    pub threads: usize,
}

/// Everything that is shown.
pub(super) struct Totals {
    pub(super) snapshots: u64,
    pub(super) observed_s: f64,
    /// End of the last interval, seconds since 1970; absent before the first, and where its start cannot be read.
    pub(super) ended_s: Option<f64>,
    pub(super) node: Node,
    pub(super) signals: Vec<Signal>,
    pub(super) node_pressure: Option<Pressure>,
    pub(super) lost: Lost,
    pub(super) own_cpu_s: f64,
    pub(super) memory_bytes: u64,
    pub(super) map_bytes: u64,
    /// Events of guard's programs and their time in ns, where they are timed.
    pub(super) programs: Option<(u64, f64)>,
    pub(super) user_rest_ns: Option<u32>,
    pub(super) cgroups: Places<String, CgroupTotal>,
    pub(super) threads: Places<(String, String), ThreadTotal>,
    pub(super) cpus: BTreeMap<u32, CpuTotal>,
    /// By cause: how many, and their shares in ns.
    pub(super) causes: BTreeMap<Word<Cause>, (u64, u64)>,
    pub(super) actions: BTreeMap<(String, &'static str), u64>,
}

/// A cgroup since its first sight.
#[derive(Default)]
pub(super) struct CgroupTotal {
    /// Counts are sums, states are the last ones; but for the next two.
    pub(super) sum: Cgroup,
    pub(super) cpu_ns: Option<u64>,
    pub(super) pressure: Option<Pressure>,
    pub(super) breaches: u64,
    /// Largest latencies, in the order of [`FIGURES`].
    pub(super) recent: [Recent; FIGURES.len()],
}

/// Watched threads of one name in a cgroup.
#[derive(Default)]
pub(super) struct ThreadTotal {
    pub(super) timer: Timer,
    pub(super) wakeup: Latency,
    pub(super) breaches: u64,
}

/// A CPU.
#[derive(Default)]
pub(super) struct CpuTotal {
    pub(super) sum: Cpu,
    pub(super) busy_ns: Option<u64>,
    /// Longest hard and soft interrupt.
    pub(super) recent: [Recent; 2],
}

/// Latencies of a cgroup by the names that they have in reports.
pub(super) const FIGURES: [&str; 8] = [
    "wakeup.rt",
    "wakeup.fair",
    "wakeup.throttled",
    "timer.irq",
    "timer.thread",
    "timer.user",
    "throttle.duration",
    "lock.wait",
];

fn figures(cgroup: &Cgroup) -> [&Latency; FIGURES.len()] {
    [
        &cgroup.wakeup.rt,
        &cgroup.wakeup.fair,
        &cgroup.wakeup.throttled,
        &cgroup.timer.irq,
        &cgroup.timer.thread,
        &cgroup.timer.user,
        &cgroup.throttle.duration,
        &cgroup.lock.wait,
    ]
}

/// The largest of the last minute: of six slots of ten seconds, and of the one that is under way.
#[derive(Clone, Copy, Default)]
pub(super) struct Recent {
    slots: [u64; 7],
    newest: u64,
}

impl Recent {
    const SLOT_S: f64 = 10.0;

    /// Takes one that was seen in the interval that ends at `now_s`.
    fn take(&mut self, ns: u64, now_s: f64) {
        self.turn(now_s);
        let slot = self.slot(self.newest);
        self.slots[slot] = self.slots[slot].max(ns);
    }

    /// The largest, ns; `None` when there was none.
    pub(super) fn largest_ns(mut self, now_s: f64) -> Option<u64> {
        self.turn(now_s);
        self.slots.into_iter().max().filter(|ns| *ns > 0)
    }

    /// Clears what is too old.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "observed time is positive")]
    fn turn(&mut self, now_s: f64) {
        let now = (now_s / Self::SLOT_S) as u64;
        let passed = now.saturating_sub(self.newest).min(self.slots.len() as u64);
        for step in 1..=passed {
            let slot = self.slot(now - passed + step);
            self.slots[slot] = 0;
        }
        self.newest = self.newest.max(now);
    }

    fn slot(self, n: u64) -> usize {
        usize::try_from(n % self.slots.len() as u64).unwrap_or_default()
    }
}

impl Totals {
    pub(super) fn new(limits: SeriesLimits) -> Self {
        Self {
            snapshots: 0,
            observed_s: 0.0,
            ended_s: None,
            node: Node::default(),
            signals: Vec::new(),
            node_pressure: None,
            lost: Lost::default(),
            own_cpu_s: 0.0,
            memory_bytes: 0,
            map_bytes: 0,
            programs: None,
            user_rest_ns: None,
            cgroups: Places::new(limits.cgroups),
            threads: Places::new(limits.threads),
            cpus: BTreeMap::new(),
            causes: BTreeMap::new(),
            actions: BTreeMap::new(),
        }
    }

    /// Adds an interval.
    pub(super) fn take(&mut self, snapshot: &Snapshot) {
        self.take_node(snapshot);
        let now_s = self.observed_s;
        self.cgroups.begin(now_s);
        self.threads.begin(now_s);
        for cgroup in &snapshot.cgroups {
            let matters = cgroup.class == Class::Plc || !cgroup.budgets.is_empty();
            let (total, own) = match cgroup.path.as_str() {
                OTHER => (self.cgroups.other(), false),
                _ => self.cgroups.of(&cgroup.path, matters, now_s),
            };
            total.take(cgroup, now_s);
            self.cgroups.in_other += u64::from(!own);
        }
        for thread in &snapshot.threads {
            let key = (thread.cgroup.clone(), thread.comm.clone());
            let (total, own) = match (thread.cgroup.as_str(), thread.comm.as_str()) {
                (OTHER, OTHER) => (self.threads.other(), false),
                _ => self.threads.of(&key, thread.budget_ns.is_some(), now_s),
            };
            total.take(thread);
            self.threads.in_other += u64::from(!own);
        }
        for cpu in &snapshot.cpus {
            self.cpus.entry(cpu.cpu).or_default().take(cpu, now_s);
        }
        self.take_breaches(&snapshot.breaches);
        for action in &snapshot.actions {
            let key =
                bounded(&self.actions, (action.knob.clone(), result(&action.result)), |(_, r)| (OTHER.to_owned(), r));
            let count = self.actions.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Whether a signal was seen in the last interval.
    pub(super) fn sees(&self, name: SignalName) -> bool {
        snapshot::sees(&self.signals, name)
    }

    fn take_node(&mut self, snapshot: &Snapshot) {
        let seconds = Some(snapshot.window.seconds).filter(|s| s.is_finite() && *s > 0.0).unwrap_or_default();
        let overhead = &snapshot.overhead;
        self.snapshots += 1;
        self.observed_s += seconds;
        let start = snapshot.window.start.parse::<jiff::Timestamp>().ok();
        self.ended_s = start.map(|start| start.as_duration().as_secs_f64() + seconds);
        self.node.clone_from(&snapshot.node);
        self.signals.clone_from(&snapshot.signals);
        add_pressure(&mut self.node_pressure, snapshot.node.cpu_pressure);
        self.lost.absorb(&overhead.lost);
        self.own_cpu_s += overhead.cpu_fraction.max(0.0) * seconds;
        self.memory_bytes = overhead.memory_bytes;
        self.map_bytes = overhead.map_bytes;
        #[allow(clippy::cast_precision_loss, reason = "the product of a mean is no exact figure")]
        if let (Some(events), Some(each_ns)) = (overhead.events, overhead.ns_per_event) {
            let (all, ns) = self.programs.unwrap_or_default();
            self.programs = Some((all.saturating_add(events), ns + each_ns * events as f64));
        }
        self.user_rest_ns = overhead.user_rest_ns;
    }

    fn take_breaches(&mut self, breaches: &[Breach]) {
        let paths: HashSet<&str> = breaches.iter().map(|breach| breach.cgroup.as_str()).collect();
        for path in paths {
            let n = breaches.iter().filter(|breach| breach.cgroup == path).count() as u64;
            let total = match path {
                OTHER => self.cgroups.other(),
                _ => self.cgroups.of(&path.to_owned(), true, self.observed_s).0,
            };
            total.breaches = total.breaches.saturating_add(n);
        }
        for breach in breaches {
            let key = bounded(&self.causes, breach.cause.clone(), |_| OTHER.into());
            self.causes.entry(key).or_default().0 += 1;
            for (cause, ns) in &breach.shares {
                let key = bounded(&self.causes, cause.clone(), |_| OTHER.into());
                let total = &mut self.causes.entry(key).or_default().1;
                *total = total.saturating_add(*ns);
            }
        }
    }
}

/// The key, or, when it is new and there are many already, what stands for all others.
fn bounded<K: Ord, V>(all: &BTreeMap<K, V>, key: K, other: impl FnOnce(K) -> K) -> K {
    if all.len() < WORDS_MAX || all.contains_key(&key) { key } else { other(key) }
}

/// What came of an action, in one word.
fn result(result: &ActionResult) -> &'static str {
    match result.state.known() {
        Some(ActionState::Planned | ActionState::Pending) => "planned",
        Some(ActionState::Written | ActionState::Nearest) => "written",
        Some(ActionState::Unchanged) => "unchanged",
        Some(ActionState::Gone) => "gone",
        Some(ActionState::Refused) => "refused",
        Some(ActionState::Foreign) => "foreign",
        Some(ActionState::Busy) => "busy",
        Some(ActionState::Limited) => "not_tried",
        Some(ActionState::Failed) | None => "failed",
    }
}

fn add_pressure(sum: &mut Option<Pressure>, more: Option<Pressure>) {
    if let Some(more) = more {
        *sum = Some(sum.map_or(more, |sum| sum.plus(more)));
    }
}

impl CgroupTotal {
    fn take(&mut self, cgroup: &Cgroup, now_s: f64) {
        self.sum.absorb(cgroup);
        add_seen(&mut self.cpu_ns, cgroup.cpu_ns);
        add_pressure(&mut self.pressure, cgroup.cpu_pressure);
        for (recent, latency) in self.recent.iter_mut().zip(figures(cgroup)) {
            recent.take(latency.max_ns(), now_s);
        }
    }
}

fn add_seen(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or_default().saturating_add(more));
    }
}

impl ThreadTotal {
    fn take(&mut self, thread: &Thread) {
        self.timer.absorb(&thread.timer);
        self.wakeup.merge(&thread.wakeup);
        self.breaches = self.breaches.saturating_add(thread.breaches);
    }
}

impl CpuTotal {
    fn take(&mut self, cpu: &Cpu, now_s: f64) {
        self.sum.absorb(cpu);
        add_seen(&mut self.busy_ns, cpu.busy_ns);
        for (recent, interrupt) in self.recent.iter_mut().zip([cpu.hardirq, cpu.softirq]) {
            recent.take(interrupt.max_ns, now_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn the_largest_of_the_last_minute_is_remembered_for_it_and_not_for_longer() {
        let mut recent = Recent::default();
        assert_eq!(recent.largest_ns(0.0), None);
        recent.take(900, 5.0);
        recent.take(100, 34.0);
        assert_eq!([10.0, 65.0, 69.0].map(|now| recent.largest_ns(now)), [Some(900); 3]);
        assert_eq!([70.0, 99.0].map(|now| recent.largest_ns(now)), [Some(100); 2]);
        assert_eq!([100.0, 1e6].map(|now| recent.largest_ns(now)), [None; 2]);
        recent.take(50, 1e6);
        assert_eq!(recent.largest_ns(1e6), Some(50));
    }

    #[test]
    fn intervals_add_up_and_states_are_the_last_ones() {
        let mut totals = Totals::new(SeriesLimits { cgroups: 10, threads: 10 });
        let mut second = samples::full();
        second.window.start = "2026-11-22T00:11:10Z".into();
        second.cgroups[0].cpu_ns = Some(5);
        totals.take(&samples::full());
        totals.take(&second);
        assert_eq!((totals.snapshots, totals.observed_s), (2, 20.0));
        assert_eq!(totals.ended_s, Some(1_795_306_280.0));
        assert_eq!((totals.lost.breaches, totals.programs), (6, Some((10_000, 3_100_000.0))));
        let cgroups = totals.cgroups.sorted();
        assert_eq!(
            cgroups.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
            ["/", "/machine", "/machine/libpod-1"]
        );
        let plc = cgroups[2].1;
        assert_eq!((plc.sum.timer.user.count(), plc.sum.timer.missed, plc.breaches, plc.cpu_ns), (6, 4, 2, Some(5)));
        assert_eq!(plc.recent[5].largest_ns(20.0), Some(1_900_000));
        assert_eq!(cgroups[1].1.sum.throttle.count, 24);
        assert_eq!(totals.causes["unknown"], (2, 3_798_000));
        assert_eq!(totals.cpus[&1].sum.hardirq.count, 180);
        assert_eq!(totals.threads.sorted().len(), 2);
    }

    #[test]
    fn cgroups_beyond_the_limit_count_together() {
        let mut totals = Totals::new(SeriesLimits { cgroups: 1, threads: 1 });
        totals.take(&samples::full());
        let own: Vec<_> = totals.cgroups.sorted().into_iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(own, ["/machine/libpod-1"], "the PLC comes first");
        assert_eq!(totals.cgroups.in_other, 2);
        let other = totals.cgroups.other.as_ref().unwrap();
        assert_eq!((other.sum.throttle.count, other.sum.wakeup.fair.count()), (12, 1));
        assert_eq!(totals.threads.in_other, 1);
    }

    #[test]
    fn what_came_of_an_action_is_one_of_a_few_words() {
        for (text, word) in [
            ("written", "written"),
            ("would be written", "planned"),
            ("refused: cpu.max: EINVAL", "refused"),
            ("failed: disk", "failed"),
            ("", "failed"),
        ] {
            assert_eq!(result(&text.into()), word);
        }
    }
}
