//! The totals as series: which figure belongs to which family, with which labels. What was not seen has no series.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::buckets::seconds;
use super::catalogue::{self as c, Family};
use super::totals::{CgroupTotal, FIGURES, OTHER, ThreadTotal, Totals};
use crate::snapshot::{Bandwidth, Histogram, Knobs, SignalName, SignalState};

/// A series of a family.
pub(super) struct Sample<'a> {
    /// In the order of the family's labels.
    pub(super) labels: Vec<Cow<'a, str>>,
    pub(super) value: Value<'a>,
}

/// Its figure.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(f64),
    Histogram(&'a Histogram),
}

/// All series, by family.
#[derive(Default)]
pub(super) struct Exposition<'a> {
    by_family: HashMap<&'static str, Vec<Sample<'a>>>,
}

impl<'a> Exposition<'a> {
    /// The totals' series.
    pub(super) fn new(totals: &'a Totals) -> Self {
        let mut page = Self::default();
        page.guard(totals);
        if totals.snapshots > 0 {
            page.node(totals);
            page.cpus(totals);
            page.cgroups(totals);
            page.threads(totals);
        }
        page
    }

    /// The families that have any, in the order of the catalogue.
    pub(super) fn families(&self) -> impl Iterator<Item = (&'static Family, &[Sample<'a>])> {
        c::all().filter_map(|family| Some((family, self.by_family.get(family.name)?.as_slice())))
    }

    fn add<const N: usize>(&mut self, family: &'static Family, labels: [&'a str; N], value: f64) {
        self.add_owned(family, labels.map(Cow::Borrowed), value);
    }

    fn add_owned<const N: usize>(&mut self, family: &'static Family, labels: [Cow<'a, str>; N], value: f64) {
        self.push(family, labels.into(), Value::Number(value));
    }

    #[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 lose their last digits in Prometheus too")]
    fn count<const N: usize>(&mut self, family: &'static Family, labels: [&'a str; N], count: u64) {
        self.add(family, labels, count as f64);
    }

    /// A histogram with anything in it.
    fn histogram<const N: usize>(&mut self, family: &'static Family, labels: [&'a str; N], histogram: &'a Histogram) {
        if !histogram.is_empty() {
            self.push(family, labels.map(Cow::Borrowed).into(), Value::Histogram(histogram));
        }
    }

    fn push(&mut self, family: &'static Family, labels: Vec<Cow<'a, str>>, value: Value<'a>) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        self.by_family.entry(family.name).or_default().push(Sample { labels, value });
    }

    /// What guard says of itself before it has seen anything.
    #[allow(clippy::cast_precision_loss, reason = "limits are small")]
    fn guard(&mut self, totals: &'a Totals) {
        self.add(&c::BUILD_INFO, [env!("CARGO_PKG_VERSION")], 1.0);
        self.count(&c::SNAPSHOTS, [], totals.snapshots);
        self.add(&c::OBSERVED, [], totals.observed_s);
        for (of, limit, in_other) in [
            ("cgroups", totals.cgroups.limit(), totals.cgroups.in_other),
            ("threads", totals.threads.limit(), totals.threads.in_other),
        ] {
            self.add(&c::PLACES, [of], limit as f64);
            self.count(&c::IN_OTHER, [of], in_other);
        }
    }

    fn node(&mut self, totals: &'a Totals) {
        let node = &totals.node;
        let realtime = if node.realtime { "true" } else { "false" };
        let layout = match node.cgroup {
            crate::snapshot::CgroupLayout::V1 => "v1",
            crate::snapshot::CgroupLayout::V2 => "v2",
            crate::snapshot::CgroupLayout::Hybrid => "hybrid",
            crate::snapshot::CgroupLayout::None => "none",
        };
        self.add(&c::NODE_INFO, [&node.hostname, &node.kernel, realtime, &node.arch, layout], 1.0);
        if let Some(ended_s) = totals.ended_s {
            self.add(&c::LAST_SNAPSHOT, [], ended_s);
        }
        let by_name: BTreeMap<&str, SignalState> =
            totals.signals.iter().map(|signal| (signal.name.as_str(), signal.state)).collect();
        for (signal, is) in by_name {
            for (state, name) in [
                (SignalState::Active, "active"),
                (SignalState::Degraded, "degraded"),
                (SignalState::Unavailable, "unavailable"),
                (SignalState::Off, "off"),
            ] {
                self.add(&c::SIGNAL_STATE, [signal, name], f64::from(u8::from(is == state)));
            }
        }
        let lost = &totals.lost;
        for (what, n) in [
            ("missed_events", lost.missed_events),
            ("collisions", lost.collisions),
            ("other_cgroups", lost.other_cgroups),
            ("unwatched_threads", lost.unwatched_threads),
            ("breaches", lost.breaches),
            ("failed_reads", lost.failed_reads),
            ("past_timers", lost.past_timers),
            ("dropped_threads", lost.dropped_threads),
        ] {
            self.count(&c::LOST, [what], n);
        }
        self.add(&c::OWN_CPU, [], totals.own_cpu_s);
        self.count(&c::OWN_MEMORY, [], totals.memory_bytes);
        self.count(&c::OWN_MAPS, [], totals.map_bytes);
        if let Some((events, ns)) = totals.programs {
            self.count(&c::PROGRAM_EVENTS, [], events);
            self.add(&c::PROGRAM_SECONDS, [], ns / 1e9);
        }
        if let Some(ns) = totals.user_rest_ns {
            self.add(&c::USER_REST, [], seconds(ns.into()));
        }
        if let Some(pressure) = totals.node_pressure {
            self.add(&c::NODE_PRESSURE, ["some"], seconds(pressure.some_ns));
            if let Some(full_ns) = pressure.full_ns {
                self.add(&c::NODE_PRESSURE, ["full"], seconds(full_ns));
            }
        }
        for ((knob, result), n) in &totals.actions {
            self.count(&c::ACTIONS, [knob, result], *n);
        }
        if totals.sees(SignalName::Breach) {
            for (cause, (n, share_ns)) in &totals.causes {
                self.count(&c::BREACH_CAUSES, [cause.as_str()], *n);
                self.add(&c::BREACH_SHARES, [cause.as_str()], seconds(*share_ns));
            }
        }
    }

    fn cpus(&mut self, totals: &'a Totals) {
        for (number, cpu) in &totals.cpus {
            let name = || Cow::from(number.to_string());
            if let Some(ns) = cpu.busy_ns {
                self.add_owned(&c::CPU_BUSY, [name()], seconds(ns));
            }
            if totals.sees(SignalName::Irq) {
                let kinds = [("hardirq", cpu.sum.hardirq), ("softirq", cpu.sum.softirq)];
                for ((kind, interrupt), recent) in kinds.into_iter().zip(cpu.recent) {
                    let labels = || [name(), Cow::from(kind)];
                    #[allow(clippy::cast_precision_loss, reason = "as in count")]
                    self.add_owned(&c::INTERRUPTS, labels(), interrupt.count as f64);
                    self.add_owned(&c::INTERRUPT_SECONDS, labels(), seconds(interrupt.total_ns));
                    self.add_owned(&c::INTERRUPT_RT_SECONDS, labels(), seconds(interrupt.while_rt_ns));
                    if let Some(ns) = recent.largest_ns(totals.observed_s) {
                        self.add_owned(&c::INTERRUPT_MAX, labels(), seconds(ns));
                    }
                }
            }
            if totals.sees(SignalName::RtThrottle) {
                for (by, stolen) in [("rt_throttle", cpu.sum.rt_throttle), ("fair_server", cpu.sum.fair_server)] {
                    let labels = || [name(), Cow::from(by)];
                    #[allow(clippy::cast_precision_loss, reason = "as in count")]
                    self.add_owned(&c::STOLEN, labels(), stolen.count as f64);
                    self.add_owned(&c::STOLEN_SECONDS, labels(), seconds(stolen.total_ns));
                }
            }
        }
    }

    fn cgroups(&mut self, totals: &'a Totals) {
        for (path, total) in totals.cgroups.sorted() {
            self.cgroup(totals, path, total);
            self.cgroup_state(path, total);
        }
        if let Some(other) = &totals.cgroups.other {
            self.cgroup(totals, OTHER, other);
        }
    }

    /// What was counted.
    fn cgroup(&mut self, totals: &'a Totals, path: &'a str, total: &'a CgroupTotal) {
        let sum = &total.sum;
        for (kind, signal, latency) in [
            ("rt", SignalName::Wakeup, &sum.wakeup.rt),
            ("fair", SignalName::Wakeup, &sum.wakeup.fair),
            ("throttled", SignalName::ThrottledWait, &sum.wakeup.throttled),
        ] {
            if totals.sees(signal) {
                self.histogram(&c::WAKEUP_LATENCY, [path, kind], latency);
            }
        }
        if totals.sees(SignalName::Timer) {
            self.histogram(&c::TIMER_LATENCY, [path, "irq"], &sum.timer.irq);
            self.histogram(&c::TIMER_LATENCY, [path, "thread"], &sum.timer.thread);
            if totals.sees(SignalName::User) {
                self.histogram(&c::TIMER_LATENCY, [path, "user"], &sum.timer.user);
            }
            if !sum.timer.thread.is_empty() || sum.timer.missed > 0 {
                self.count(&c::TIMER_MISSED, [path], sum.timer.missed);
            }
        }
        for (figure, recent) in FIGURES.into_iter().zip(total.recent) {
            if let Some(ns) = recent.largest_ns(totals.observed_s) {
                self.add(&c::LATENCY_MAX, [path, figure], seconds(ns));
            }
        }
        if totals.sees(SignalName::Breach) {
            self.count(&c::BREACHES, [path], total.breaches);
        }
        if sum.throttle.source.is_some() {
            self.count(&c::THROTTLES, [path], sum.throttle.count);
            self.add(&c::THROTTLED_SECONDS, [path], seconds(sum.throttle.total_ns));
            self.histogram(&c::THROTTLE_DURATION, [path], &sum.throttle.duration);
        }
        if let Some(stat) = sum.throttle.cpu_stat {
            self.count(&c::STAT_PERIODS, [path], stat.nr_periods);
            self.count(&c::STAT_THROTTLED, [path], stat.nr_throttled);
            self.add(&c::STAT_THROTTLED_SECONDS, [path], seconds(stat.throttled_ns));
        }
        if totals.sees(SignalName::Lock) {
            self.histogram(&c::LOCK_WAIT, [path], &sum.lock.wait);
            self.count(&c::LOCK_BOOSTS, [path], sum.lock.boosts);
        }
        if let Some(ns) = total.cpu_ns {
            self.add(&c::CGROUP_CPU, [path], seconds(ns));
        }
        if let Some(pressure) = total.pressure {
            self.add(&c::CGROUP_PRESSURE, [path, "some"], seconds(pressure.some_ns));
            if let Some(full_ns) = pressure.full_ns {
                self.add(&c::CGROUP_PRESSURE, [path, "full"], seconds(full_ns));
            }
        }
    }

    /// What it is and how it is set.
    fn cgroup_state(&mut self, path: &'a str, total: &'a CgroupTotal) {
        let sum = &total.sum;
        let class = crate::view::text::class(sum);
        let container = sum.container.as_ref();
        let said = |text: Option<&'a str>| text.unwrap_or_default();
        let name = container.map(|container| container.name.as_deref().unwrap_or(&container.id));
        let pod = container.and_then(|container| container.pod.as_deref());
        let labels = [
            path,
            class,
            said(container.map(|container| container.runtime.as_str())),
            said(name),
            said(pod),
            said(container.and_then(|container| container.qos.as_deref())),
        ];
        self.add(&c::CGROUP_INFO, labels, 1.0);
        let budgets: BTreeMap<String, u64> =
            sum.budgets.iter().map(|budget| (budget.metric.to_string(), budget.limit_ns)).collect();
        for (metric, limit_ns) in budgets {
            self.add_owned(&c::BUDGET, [path.into(), metric.into()], seconds(limit_ns));
        }
        let knobs = sum.knobs.as_ref();
        let quota = sum
            .throttle
            .quota
            .map(|quota| Bandwidth { quota_us: Some(quota.quota_us), period_us: quota.period_us })
            .or_else(|| knobs?.quota);
        #[allow(clippy::cast_precision_loss, reason = "quotas are far below 2^53 us")]
        if let Some(Bandwidth { quota_us: Some(quota_us), period_us }) = quota {
            self.add(&c::QUOTA, [path], quota_us as f64 / period_us.max(1) as f64);
        }
        let Some(knobs) = knobs else { return };
        if let Some(us) = knobs.burst_us {
            self.add(&c::BURST, [path], seconds(us.saturating_mul(1_000)));
        }
        if let Some(shares) = knobs.shares {
            self.count(&c::SHARES, [path], shares);
        }
        if let Some(pod) = pod {
            self.pod(knobs, [class, pod, path]);
        }
    }

    /// A pod under the names of Koordinator's documents.
    #[allow(clippy::cast_precision_loss, reason = "quotas are far below 2^53 us, CPUs are few")]
    fn pod(&mut self, knobs: &'a Knobs, labels: [&'a str; 3]) {
        if let Some(shares) = knobs.shares {
            self.count(&c::POD_SHARES, labels, shares);
        }
        if let Some(quota) = knobs.quota {
            self.add(&c::POD_QUOTA, labels, quota.quota_us.map_or(-1.0, |us| us as f64));
        }
        if let Some(cpus) = &knobs.cpus_effective {
            self.add(&c::POD_CPUS, labels, cpus.iter().count() as f64);
        }
    }

    fn threads(&mut self, totals: &'a Totals) {
        for ((cgroup, comm), total) in totals.threads.sorted() {
            self.thread(totals, [cgroup, comm], total);
        }
        if let Some(other) = &totals.threads.other {
            self.thread(totals, [OTHER, OTHER], other);
        }
    }

    fn thread(&mut self, totals: &'a Totals, of: [&'a str; 2], total: &'a ThreadTotal) {
        let [cgroup, comm] = of;
        if totals.sees(SignalName::Timer) {
            self.histogram(&c::THREAD_TIMER, [cgroup, comm, "irq"], &total.timer.irq);
            self.histogram(&c::THREAD_TIMER, [cgroup, comm, "thread"], &total.timer.thread);
            if totals.sees(SignalName::User) {
                self.histogram(&c::THREAD_TIMER, [cgroup, comm, "user"], &total.timer.user);
            }
            self.count(&c::THREAD_MISSED, of, total.timer.missed);
        }
        if totals.sees(SignalName::Wakeup) {
            self.histogram(&c::THREAD_WAKEUP, of, &total.wakeup);
        }
        if totals.sees(SignalName::Breach) {
            self.count(&c::THREAD_BREACHES, of, total.breaches);
        }
    }
}
