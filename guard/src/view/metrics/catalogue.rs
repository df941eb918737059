//! Every metric that guard can show, with what it means: the one place that names them. The exporter adds nothing that is
//! not here, and `docs/metrics.md` is made of it.

/// What kind of figure a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// Only grows, until guard is started again.
    Counter,
    /// As it was at the last look.
    Gauge,
    /// Latencies; only grows.
    Histogram,
    /// Always 1: its labels are what it says.
    Info,
}

impl FamilyKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A metric: all its series have these labels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// Name in Prometheus's text; a counter's ends in `_total`, an info's in `_info`.
    pub(super) name: &'static str,
    pub(super) kind: FamilyKind,
    pub(super) labels: &'static [&'static str],
    /// What it is, as one sentence without its full stop.
    pub(super) help: &'static str,
    /// When it is absent though guard runs; empty for never.
    pub(super) absent: &'static str,
}

/// Families about one thing.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) families: &'static [&'static Family],
}

macro_rules! families {
    ($($id:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal $(, absent $absent:literal)?;)*) => {
        $(pub(super) static $id: Family = Family {
            name: $name,
            kind: FamilyKind::$kind,
            labels: &[$($label),*],
            help: $help,
            absent: concat!($($absent)?),
        };)*
    };
}

families! {
    // Cgroups: what waited.
    WAKEUP_LATENCY = "guard_wakeup_latency_seconds" Histogram ["cgroup", "kind"]
        "Runnable until on a CPU: rt (real-time tasks), fair (others, net of throttled), throttled (the part in which a quota held the task back)",
        absent "signal wakeup (throttled: throttled_wait) unseen, or none counted yet";
    TIMER_LATENCY = "guard_timer_latency_seconds" Histogram ["cgroup", "stage"]
        "Requested expiry of a timer until the interrupt (irq), until the thread was on a CPU (thread), until it was back in its own code (user)",
        absent "signal timer (user: user) unseen, or none counted yet";
    TIMER_MISSED = "guard_timer_missed_cycles_total" Counter ["cgroup"]
        "Cycles that recognised cyclic threads skipped",
        absent "signal timer unseen, or no timer wake-up counted yet";
    LATENCY_MAX = "guard_latency_max_seconds" Gauge ["cgroup", "figure"]
        "Largest latency of the last minute (60 to 70 s), exact; figure is wakeup.rt, timer.user and so on",
        absent "none counted in that time";
    BREACHES = "guard_breaches_total" Counter ["cgroup"]
        "Wake-ups later than their budget, or than --threshold",
        absent "signal breach unseen";
    BREACH_CAUSES = "guard_breach_causes_total" Counter ["cause"]
        "The same for the whole node by cause, in the words of guard explain",
        absent "signal breach unseen, or no such cause yet";
    BREACH_SHARES = "guard_breach_share_seconds_total" Counter ["cause"]
        "Their latency, divided among the causes that had a share in it",
        absent "as before";
    BUDGET = "guard_budget_seconds" Gauge ["cgroup", "metric"]
        "Latency that a workload must keep, from the configuration; metric is wakeup.p999, timer.max and so on",
        absent "no budget";
    // Cgroups: quotas.
    THROTTLES = "guard_throttles_total" Counter ["cgroup"]
        "Times that the cgroup's own quota ran out",
        absent "it never had a quota that guard saw";
    THROTTLED_SECONDS = "guard_throttled_seconds_total" Counter ["cgroup"]
        "Time throttled by its own quota, summed over CPUs",
        absent "as before";
    THROTTLE_DURATION = "guard_throttle_duration_seconds" Histogram ["cgroup"]
        "Durations of single throttles, or means of a period where the signal throttle is degraded",
        absent "signal throttle unseen, or none counted yet";
    STAT_PERIODS = "guard_cpu_stat_periods_total" Counter ["cgroup"]
        "Periods in which the quota was in use, by cpu.stat",
        absent "cpu.stat was not read";
    STAT_THROTTLED = "guard_cpu_stat_throttled_periods_total" Counter ["cgroup"]
        "Periods with a throttle, by cpu.stat",
        absent "as before";
    STAT_THROTTLED_SECONDS = "guard_cpu_stat_throttled_seconds_total" Counter ["cgroup"]
        "Time throttled, by cpu.stat",
        absent "as before";
    QUOTA = "guard_quota_cpus" Gauge ["cgroup"]
        "Quota divided by period: CPUs that it may use",
        absent "no quota, or it was not read";
    BURST = "guard_burst_seconds" Gauge ["cgroup"]
        "Burst allowed on top of the quota",
        absent "not read, or not there on this kernel";
    SHARES = "guard_cpu_shares" Gauge ["cgroup"]
        "CPU shares in the unit of cgroup v1, converted from cpu.weight on v2",
        absent "not read";
    // Cgroups: the rest.
    LOCK_WAIT = "guard_lock_wait_seconds" Histogram ["cgroup"]
        "Waits of real-time threads for contended locks",
        absent "signal lock unseen, or none counted yet";
    LOCK_BOOSTS = "guard_lock_boosts_total" Counter ["cgroup"]
        "Times that a thread of it was boosted by priority inheritance",
        absent "signal lock unseen";
    CGROUP_CPU = "guard_cgroup_cpu_seconds_total" Counter ["cgroup"]
        "CPU time that it and everything below it used, since guard first saw it",
        absent "not read";
    CGROUP_PRESSURE = "guard_cgroup_cpu_pressure_seconds_total" Counter ["cgroup", "kind"]
        "Time in which some tasks, or all (full), waited for a CPU, by cpu.pressure",
        absent "the kernel has none";
    CGROUP_INFO = "guard_cgroup_info" Info ["cgroup", "class", "runtime", "container", "pod", "qos"]
        "Class of the cgroup, and the container, pod or unit that it belongs to";
    POD_SHARES = "koordlet_pod_cpu_shares" Gauge ["qos", "pod", "cgroup"]
        "CPU shares of a pod's cgroup, in the unit of cgroup v1; qos is guard's class",
        absent "belongs to no pod, or not read";
    POD_QUOTA = "koordlet_pod_cpu_quota" Gauge ["qos", "pod", "cgroup"]
        "CPU quota of a pod's cgroup in us per period, -1 for none",
        absent "belongs to no pod, or not read";
    POD_CPUS = "koordlet_pod_cpuset_cores" Gauge ["qos", "pod", "cgroup"]
        "Number of CPUs that a pod's cgroup may run on",
        absent "belongs to no pod, or not read";
    // Threads.
    THREAD_TIMER = "guard_thread_timer_latency_seconds" Histogram ["cgroup", "comm", "stage"]
        "As guard_timer_latency_seconds, of the watched threads with this name",
        absent "as there";
    THREAD_WAKEUP = "guard_thread_wakeup_latency_seconds" Histogram ["cgroup", "comm"]
        "Runnable until on a CPU, of the watched threads with this name",
        absent "signal wakeup unseen, or none counted yet";
    THREAD_MISSED = "guard_thread_timer_missed_cycles_total" Counter ["cgroup", "comm"]
        "Cycles that they skipped",
        absent "signal timer unseen";
    THREAD_BREACHES = "guard_thread_breaches_total" Counter ["cgroup", "comm"]
        "Wake-ups of theirs that were too late, those included whose records were lost",
        absent "signal breach unseen";
    // CPUs.
    CPU_BUSY = "guard_cpu_busy_seconds_total" Counter ["cpu"]
        "Time in which the CPU was not idle",
        absent "not read";
    INTERRUPTS = "guard_interrupts_total" Counter ["cpu", "kind"]
        "Interrupts: hardirq, softirq",
        absent "signal irq unseen";
    INTERRUPT_SECONDS = "guard_interrupt_seconds_total" Counter ["cpu", "kind"]
        "Time in them; softirq net of hard interrupts and of preemption",
        absent "as before";
    INTERRUPT_RT_SECONDS = "guard_interrupt_while_rt_seconds_total" Counter ["cpu", "kind"]
        "Part of it in which a real-time thread was runnable on the CPU",
        absent "as before";
    INTERRUPT_MAX = "guard_interrupt_max_seconds" Gauge ["cpu", "kind"]
        "The longest of the last minute (60 to 70 s)",
        absent "as before, or none in that time";
    STOLEN = "guard_rt_stolen_total" Counter ["cpu", "by"]
        "Times that a runnable real-time task lost the CPU to RT throttling (rt_throttle) or to the fair server",
        absent "signal rt_throttle unseen";
    STOLEN_SECONDS = "guard_rt_stolen_seconds_total" Counter ["cpu", "by"]
        "For how long",
        absent "as before";
    NODE_PRESSURE = "guard_node_cpu_pressure_seconds_total" Counter ["kind"]
        "Time in which some tasks of the node, or all (full), waited for a CPU, by /proc/pressure/cpu",
        absent "the kernel has none, or it was not read";
    // What guard did.
    ACTIONS = "guard_actions_total" Counter ["knob", "result"]
        "Changes by knob and by what came of them; planned where guard does not write",
        absent "none yet";
    // guard itself.
    BUILD_INFO = "guard_build_info" Info ["version"]
        "guard itself";
    NODE_INFO = "guard_node_info" Info ["hostname", "kernel", "realtime", "arch", "cgroup_layout"]
        "The node";
    SNAPSHOTS = "guard_snapshots_total" Counter []
        "Intervals that these metrics are made of";
    OBSERVED = "guard_observed_seconds_total" Counter []
        "Their length";
    LAST_SNAPSHOT = "guard_last_snapshot_timestamp_seconds" Gauge []
        "End of the last interval, seconds since 1970";
    SIGNAL_STATE = "guard_signal_state" Gauge ["signal", "state"]
        "1 for the state in which the signal is, 0 for the others: active, degraded, unavailable, off";
    LOST = "guard_lost_total" Counter ["what"]
        "What guard did not count, or not where it belongs; the words are those of overhead.lost in the report";
    OWN_CPU = "guard_own_cpu_seconds_total" Counter []
        "CPU time of guard's own process";
    OWN_MEMORY = "guard_own_memory_bytes" Gauge []
        "Resident memory of guard's own process";
    OWN_MAPS = "guard_own_map_bytes" Gauge []
        "Memory of guard's kernel maps";
    PROGRAM_EVENTS = "guard_program_events_total" Counter []
        "Events that guard's kernel programs handled",
        absent "without --run-time-stats";
    PROGRAM_SECONDS = "guard_program_seconds_total" Counter []
        "Time that they took",
        absent "without --run-time-stats";
    USER_REST = "guard_user_rest_seconds" Gauge []
        "What was added to every user stage, as measured at start",
        absent "signal user unseen";
    PLACES = "guard_metrics_places" Gauge ["of"]
        "Cgroups, and names of threads, that may have series of their own";
    IN_OTHER = "guard_metrics_in_other" Gauge ["of"]
        "How many of the last interval counted under \"(other)\", because there was no place or the kernel side had no slot";
}

/// All of them, in the order in which they are shown.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Latencies of cgroups",
        families: &[
            &WAKEUP_LATENCY,
            &TIMER_LATENCY,
            &TIMER_MISSED,
            &LATENCY_MAX,
            &BREACHES,
            &BREACH_CAUSES,
            &BREACH_SHARES,
            &BUDGET,
        ],
    },
    Section {
        title: "Quotas of cgroups",
        families: &[
            &THROTTLES,
            &THROTTLED_SECONDS,
            &THROTTLE_DURATION,
            &STAT_PERIODS,
            &STAT_THROTTLED,
            &STAT_THROTTLED_SECONDS,
            &QUOTA,
            &BURST,
            &SHARES,
        ],
    },
    Section {
        title: "More about cgroups",
        families: &[
            &LOCK_WAIT,
            &LOCK_BOOSTS,
            &CGROUP_CPU,
            &CGROUP_PRESSURE,
            &CGROUP_INFO,
            &POD_SHARES,
            &POD_QUOTA,
            &POD_CPUS,
        ],
    },
    Section { title: "Threads", families: &[&THREAD_TIMER, &THREAD_WAKEUP, &THREAD_MISSED, &THREAD_BREACHES] },
    Section {
        title: "CPUs and the node",
        families: &[
            &CPU_BUSY,
            &INTERRUPTS,
            &INTERRUPT_SECONDS,
            &INTERRUPT_RT_SECONDS,
            &INTERRUPT_MAX,
            &STOLEN,
            &STOLEN_SECONDS,
            &NODE_PRESSURE,
        ],
    },
    Section { title: "What guard did", families: &[&ACTIONS] },
    Section {
        title: "guard itself",
        families: &[
            &BUILD_INFO,
            &NODE_INFO,
            &SNAPSHOTS,
            &OBSERVED,
            &LAST_SNAPSHOT,
            &SIGNAL_STATE,
            &LOST,
            &OWN_CPU,
            &OWN_MEMORY,
            &OWN_MAPS,
            &PROGRAM_EVENTS,
            &PROGRAM_SECONDS,
            &USER_REST,
            &PLACES,
            &IN_OTHER,
        ],
    },
];

/// The families of all sections.
pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    SECTIONS.iter().flat_map(|section| section.families.iter().copied())
}

/// The hand-written part of the page; the tables take the place of its last line.
const PAGE: &str = include_str!("page.md");

/// `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = PAGE.to_owned();
    for section in SECTIONS {
        page += &format!("\n### {}\n\n| metric | labels | is | absent when |\n|---|---|---|---|\n", section.title);
        for family in section.families {
            let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let Family { name, kind, help, absent, .. } = family;
            page += &format!("| `{name}` {} | {labels} | {help} | {absent} |\n", kind.name());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_keep_to_the_rules_of_prometheus() {
        let mut names = HashSet::new();
        for family in all() {
            let name = family.name;
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("guard_") || name.starts_with("koordlet_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == FamilyKind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), family.kind == FamilyKind::Info, "{name}");
            assert!(family.kind != FamilyKind::Histogram || name.ends_with("_seconds"), "{name}");
            for label in family.labels {
                assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && *label != "le", "{name} {label}");
            }
            assert!(!family.help.is_empty() && !family.help.contains(['\n', '\\']), "{name}");
        }
    }

    /// Metrics that a text names, without what histograms and counters add.
    fn named(text: &str) -> Vec<&str> {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        text.split(|c| !is_name(c))
            .filter(|word| word.starts_with("guard_") || word.starts_with("koordlet_"))
            .map(|word| {
                let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
                histogram
                    .filter(|base| all().any(|f| f.kind == FamilyKind::Histogram && f.name == *base))
                    .unwrap_or(word)
            })
            .collect()
    }

    #[test]
    fn dashboard_and_alert_rules_name_only_metrics_that_there_are() {
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../../deploy/grafana/guard.json")).unwrap();
        let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap());
        let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let queries = variables.iter().filter_map(|variable| variable["query"]["query"].as_str());
        let rules = include_str!("../../../../deploy/prometheus/guard.rules.yml");
        let rule_tests = include_str!("../../../../deploy/prometheus/guard.rules.test.yml");
        let texts = expressions.iter().copied().chain(queries).chain([rules, rule_tests]);
        let names: HashSet<&str> = texts.flat_map(named).collect();
        assert!(names.len() >= 15, "{names:?}");
        let unknown: Vec<_> = names.iter().filter(|name| !all().any(|family| family.name == **name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(expressions.iter().all(|expression| !named(expression).is_empty()), "{expressions:?}");
    }

    #[test]
    fn the_page_is_the_one_of_the_code() {
        let published = include_str!("../../../../docs/metrics.md");
        assert!(
            published == markdown(),
            "docs/metrics.md is out of date: run `guard run --list-metrics > docs/metrics.md`"
        );
    }
}
