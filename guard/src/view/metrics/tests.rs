//! Whole pages: what is on them, that nothing unseen is, and that every reader can read them.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::snapshot::{Bandwidth, Budget, CpuList, Knobs, Pressure, SignalState};
use crate::view::samples;

const LIMITS: SeriesLimits = SeriesLimits { cgroups: 100, threads: 100 };

/// A Snapshot that has a figure for every metric.
fn complete() -> Snapshot {
    let mut snapshot = samples::full();
    for name in ["user", "throttled_wait"] {
        snapshot.signals.retain(|signal| signal.name.as_str() != name);
        let mut signal = snapshot.signals[2].clone();
        signal.name = name.into();
        snapshot.signals.push(signal);
    }
    snapshot.node.cpu_pressure = Some(Pressure { some_ns: 5, full_ns: Some(3) });
    snapshot.cpus[0].busy_ns = Some(1_000_000_000);
    let pod = &mut snapshot.cgroups[0];
    pod.budgets = vec![Budget { metric: "timer.p999".into(), limit_ns: 100_000 }];
    pod.cpu_ns = Some(2_000_000_000);
    pod.container.as_mut().unwrap().pod = Some("default/plc".into());
    pod.knobs = Some(Knobs {
        quota: Some(Bandwidth::UNLIMITED),
        shares: Some(2048),
        burst_us: Some(10_000),
        cpus_effective: Some("2-3".parse::<CpuList>().unwrap()),
        ..Knobs::default()
    });
    snapshot
}

fn text(snapshots: &[&Snapshot], format: MetricsFormat) -> String {
    let mut exporter = Exporter::new(LIMITS);
    snapshots.iter().for_each(|snapshot| exporter.take(snapshot));
    String::from_utf8(exporter.page(format).to_vec()).unwrap()
}

/// Series with their values. Fails on whatever a reader would refuse.
fn read(text: &str, format: MetricsFormat) -> HashMap<String, f64> {
    let mut series = HashMap::new();
    let mut families = HashSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} begins twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no series: {line:?}"));
            let bare = name.split('{').next().unwrap();
            let suffix = bare.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{name} stands under {family}"));
            assert!(["", "_total", "_info", "_bucket", "_sum", "_count"].contains(&suffix), "{name} under {family}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
            assert!(series.insert(name.to_owned(), value).is_none(), "{name} stands twice");
        }
    }
    assert_eq!(text.ends_with("# EOF\n"), format == MetricsFormat::OpenMetrics);
    series
}

#[test]
fn every_metric_of_the_catalogue_is_shown_when_everything_is_seen() {
    let text = text(&[&complete()], MetricsFormat::Text);
    for family in catalogue::all() {
        assert!(text.contains(&format!("# HELP {} ", family.name)), "{} is missing", family.name);
    }
}

#[test]
fn figures_are_in_seconds_and_add_up_over_intervals() {
    let series = read(&text(&[&complete(), &complete()], MetricsFormat::Text), MetricsFormat::Text);
    for (name, value) in [
        ("guard_timer_latency_seconds_count{cgroup=\"/machine/libpod-1\",stage=\"user\"}", 6.0),
        ("guard_timer_latency_seconds_sum{cgroup=\"/machine/libpod-1\",stage=\"user\"}", 2.0 * 0.001_924),
        ("guard_timer_latency_seconds_bucket{cgroup=\"/machine/libpod-1\",stage=\"user\",le=\"1.6e-05\"}", 4.0),
        ("guard_timer_latency_seconds_bucket{cgroup=\"/machine/libpod-1\",stage=\"user\",le=\"+Inf\"}", 6.0),
        ("guard_timer_missed_cycles_total{cgroup=\"/machine/libpod-1\"}", 4.0),
        ("guard_latency_max_seconds{cgroup=\"/machine/libpod-1\",figure=\"timer.user\"}", 0.0019),
        ("guard_throttles_total{cgroup=\"/machine\"}", 24.0),
        ("guard_throttled_seconds_total{cgroup=\"/machine\"}", 1.92),
        ("guard_cpu_stat_throttled_seconds_total{cgroup=\"/machine\"}", 1.922),
        ("guard_quota_cpus{cgroup=\"/machine\"}", 0.2),
        ("guard_interrupt_while_rt_seconds_total{cpu=\"1\",kind=\"softirq\"}", 0.004),
        ("guard_rt_stolen_total{cpu=\"1\",by=\"rt_throttle\"}", 4.0),
        ("guard_breaches_total{cgroup=\"/machine/libpod-1\"}", 2.0),
        ("guard_breaches_total{cgroup=\"/\"}", 0.0),
        ("guard_breach_causes_total{cause=\"unknown\"}", 2.0),
        ("guard_thread_breaches_total{cgroup=\"/machine/libpod-1\",comm=\"cycle\"}", 2.0),
        ("guard_budget_seconds{cgroup=\"/machine/libpod-1\",metric=\"timer.p999\"}", 0.0001),
        ("guard_own_cpu_seconds_total", 0.024),
        ("guard_lost_total{what=\"breaches\"}", 6.0),
        ("guard_signal_state{signal=\"throttle\",state=\"degraded\"}", 1.0),
        ("guard_signal_state{signal=\"throttle\",state=\"active\"}", 0.0),
        ("koordlet_pod_cpu_shares{qos=\"PLC\",pod=\"default/plc\",cgroup=\"/machine/libpod-1\"}", 2048.0),
        ("koordlet_pod_cpu_quota{qos=\"PLC\",pod=\"default/plc\",cgroup=\"/machine/libpod-1\"}", -1.0),
        ("koordlet_pod_cpuset_cores{qos=\"PLC\",pod=\"default/plc\",cgroup=\"/machine/libpod-1\"}", 2.0),
        ("guard_last_snapshot_timestamp_seconds", 1_795_306_270.0),
    ] {
        let said = series.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!((said - value).abs() <= value.abs() * 1e-9, "{name} {said} instead of {value}");
    }
}

#[test]
fn what_cannot_be_seen_is_absent_and_not_zero() {
    let mut snapshot = complete();
    for signal in &mut snapshot.signals {
        signal.state = SignalState::Unavailable;
    }
    snapshot.cgroups.iter_mut().for_each(|cgroup| {
        cgroup.throttle = crate::snapshot::Throttle::default();
        (cgroup.knobs, cgroup.cpu_ns, cgroup.cpu_pressure) = (None, None, None);
    });
    snapshot.overhead.user_rest_ns = None;
    let text = text(&[&snapshot], MetricsFormat::Text);
    for seen in ["wakeup_latency", "timer", "breach", "throttle", "lock", "interrupt", "stolen", "user_rest", "quota"] {
        let line = text.lines().find(|line| line.starts_with("guard_") && line.contains(&format!("{seen}_")));
        let line = line.filter(|line| !line.starts_with("guard_signal") && !line.starts_with("guard_lost"));
        assert_eq!(line, None);
    }
    assert!(text.contains("guard_signal_state{signal=\"lock\",state=\"unavailable\"} 1\n"), "{text}");
    assert!(!text.contains("koordlet_"), "{text}");
}

#[test]
fn a_guard_that_has_seen_nothing_yet_says_so() {
    let series = read(&text(&[], MetricsFormat::OpenMetrics), MetricsFormat::OpenMetrics);
    assert_eq!(series["guard_snapshots_total"], 0.0);
    assert!(!series.keys().any(|name| name.starts_with("guard_signal_state") || name.starts_with("guard_node")));
}

#[test]
fn what_has_no_place_is_under_other_and_counted() {
    let mut exporter = Exporter::new(SeriesLimits { cgroups: 1, threads: 1 });
    exporter.take(&complete());
    let page = String::from_utf8(exporter.page(MetricsFormat::Text).to_vec()).unwrap();
    let series = read(&page, MetricsFormat::Text);
    assert_eq!(series["guard_throttles_total{cgroup=\"(other)\"}"], 12.0);
    assert_eq!(series["guard_metrics_in_other{of=\"cgroups\"}"], 2.0);
    assert_eq!(series["guard_metrics_places{of=\"cgroups\"}"], 1.0);
    assert!(!page.contains("cgroup=\"/machine\""), "{page}");
}

#[test]
fn a_page_is_made_once_per_snapshot() {
    let mut exporter = Exporter::new(LIMITS);
    exporter.take(&complete());
    let first = exporter.page(MetricsFormat::Text);
    assert_eq!(first.as_ptr(), exporter.page(MetricsFormat::Text).as_ptr());
    exporter.take(&complete());
    assert_ne!(first, exporter.page(MetricsFormat::Text));
}

#[test]
fn openmetrics_names_families_without_their_suffix() {
    let text = text(&[&complete()], MetricsFormat::OpenMetrics);
    for line in [
        "# TYPE guard_throttles counter\n",
        "# TYPE guard_throttled_seconds counter\n# UNIT guard_throttled_seconds seconds\n",
        "# TYPE guard_build info\nguard_build_info{",
        "# TYPE guard_own_memory_bytes gauge\n# UNIT guard_own_memory_bytes bytes\n",
        "# TYPE guard_wakeup_latency_seconds histogram\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
    read(&text, MetricsFormat::OpenMetrics);
}

#[test]
fn the_client_chooses_the_form() {
    let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                  application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let plain = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (header, format) in [
        (native, MetricsFormat::Protobuf),
        (plain, MetricsFormat::OpenMetrics),
        ("", MetricsFormat::Text),
        ("*/*", MetricsFormat::Text),
        ("text/html, application/xhtml+xml", MetricsFormat::Text),
        ("text/plain;q=0.3, application/openmetrics-text; version=1.0.0; q=0.9", MetricsFormat::OpenMetrics),
        ("application/openmetrics-text;version=0.0.1", MetricsFormat::Text),
        ("application/vnd.google.protobuf", MetricsFormat::Text),
        ("application/openmetrics-text;q=0", MetricsFormat::Text),
        (";;;,=,q=", MetricsFormat::Text),
    ] {
        assert_eq!(MetricsFormat::accepted(header), format, "{header}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_snapshots_are_too_strange_to_be_shown(a in samples::any_snapshot(), b in samples::any_snapshot()) {
        for format in [MetricsFormat::Text, MetricsFormat::OpenMetrics] {
            read(&text(&[&a, &b], format), format);
        }
        let mut exporter = Exporter::new(SeriesLimits { cgroups: 3, threads: 2 });
        exporter.take(&a);
        exporter.take(&b);
        prop_assert!(!exporter.page(MetricsFormat::Protobuf).is_empty());
    }

    #[test]
    fn counters_never_go_back(mut a in samples::any_snapshot(), mut b in samples::any_snapshot()) {
        // Longer ones would let cgroups be forgotten.
        (a.window.seconds, b.window.seconds) = (1.0, 1.0);
        let mut exporter = Exporter::new(LIMITS);
        exporter.take(&a);
        let before = read(std::str::from_utf8(&exporter.page(MetricsFormat::Text)).unwrap(), MetricsFormat::Text);
        exporter.take(&b);
        let after = read(std::str::from_utf8(&exporter.page(MetricsFormat::Text)).unwrap(), MetricsFormat::Text);
        for (name, value) in before {
            let counts = ["_total", "_bucket", "_sum", "_count"].iter().any(|s| name.split('{').next().unwrap().ends_with(s));
            if let Some(later) = after.get(&name).filter(|_| counts) {
                prop_assert!(*later >= value, "{}: {} after {}", name, later, value);
            }
        }
    }

    #[test]
    fn no_accept_header_is_too_strange(header in ".{0,80}") {
        let _ = MetricsFormat::accepted(&header);
    }
}
