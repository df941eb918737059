//! Single figures for people: the unit is chosen per figure, and what was not seen is "-", never 0.

use std::borrow::Cow;

use crate::snapshot::{Cgroup, Latency, Quota, Timer};

/// What stands for a figure that was not seen.
pub(super) const ABSENT: &str = "-";

/// A time: "12 us", "1.9 ms", "3.4 s". Whole microseconds are rounded down, as cyclictest does, because a percentile
/// is the last nanosecond of its bucket; longer times are rounded to the last digit shown.
pub(super) fn time(ns: u64) -> String {
    // Each limit is where rounding would carry into the next unit.
    match ns {
        0..=999 => "<1 us".to_owned(),
        1_000..=999_999 => format!("{} us", ns / 1_000),
        1_000_000..=99_949_999 => tenths(ns, 1_000_000, "ms"),
        99_950_000..=999_499_999 => format!("{} ms", rounded(ns, 1_000_000)),
        999_500_000..=99_949_999_999 => tenths(ns, 1_000_000_000, "s"),
        _ => format!("{} s", rounded(ns, 1_000_000_000)),
    }
}

fn rounded(ns: u64, unit_ns: u64) -> u64 {
    ns.saturating_add(unit_ns / 2) / unit_ns
}

fn tenths(ns: u64, unit_ns: u64, unit: &str) -> String {
    let tenths = rounded(ns, unit_ns / 10);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A configured time, such as a period: "1 ms", "20 ms", "2.5 ms".
pub(super) fn round_time(ns: u64) -> String {
    match ns {
        _ if ns > 0 && ns.is_multiple_of(1_000_000_000) => format!("{} s", ns / 1_000_000_000),
        _ if ns > 0 && ns.is_multiple_of(1_000_000) => format!("{} ms", ns / 1_000_000),
        _ => time(ns),
    }
}

/// A time that may not have been seen.
pub(super) fn time_if(seen: bool, ns: u64) -> String {
    if seen { time(ns) } else { ABSENT.to_owned() }
}

/// A count that may not have been seen.
pub(super) fn count_if(seen: bool, n: u64) -> String {
    if seen { n.to_string() } else { ABSENT.to_owned() }
}

/// A percentile; "-" when nothing was counted.
pub(super) fn quantile(latency: &Latency, quantile: f64) -> String {
    time_if(!latency.is_empty(), latency.quantile_ns(quantile))
}

/// The largest latency; "-" when nothing was counted.
pub(super) fn max(latency: &Latency) -> String {
    time_if(!latency.is_empty(), latency.max_ns())
}

/// Mark behind a timer figure that ends at the switch-in because no return to user space was seen.
pub(super) const THREAD_STAGE_MARK: &str = "*";

/// p50, p99 and maximum of the last stage seen of a timer, marked when that is not the user stage.
pub(super) fn timer(timer: &Timer) -> [String; 3] {
    match timer.last_stage() {
        None => [ABSENT; 3].map(str::to_owned),
        Some((stage, latency)) => {
            let mark = if stage == "user" { "" } else { THREAD_STAGE_MARK };
            [quantile(latency, 0.5), quantile(latency, 0.99), max(latency)].map(|figure| figure + mark)
        }
    }
}

/// A quota: "20 ms per 100 ms".
pub(super) fn quota(quota: Quota) -> String {
    let [quota_ns, period_ns] = [quota.quota_us, quota.period_us].map(|us| us.saturating_mul(1_000));
    format!("{} per {}", round_time(quota_ns), round_time(period_ns))
}

/// Text that came from the kernel or from a container's owner, without anything a terminal would obey.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// What people call a cgroup: the container's, pod's or guest's name where there is one, with the unit inside; else its
/// path.
pub(super) fn cgroup_name(cgroup: &Cgroup) -> String {
    let named = cgroup.container.as_ref().filter(|c| c.runtime != "systemd").map(|c| {
        let mut name = c.name.clone().unwrap_or_else(|| c.id.chars().take(12).collect());
        if let Some(unit) = &c.unit {
            name = format!("{name}:{unit}");
        }
        match &c.pod {
            Some(pod) => format!("{pod}/{name} [{}]", c.runtime),
            None => format!("{name} [{}]", c.runtime),
        }
    });
    printable(&named.unwrap_or_else(|| cgroup.path.clone())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Container;

    #[test]
    fn the_unit_is_chosen_per_figure() {
        for (ns, shown) in [
            (0, "<1 us"),
            (999, "<1 us"),
            (1_000, "1 us"),
            (12_999, "12 us"),
            (999_999, "999 us"),
            (1_000_000, "1.0 ms"),
            (1_949_999, "1.9 ms"),
            (1_950_000, "2.0 ms"),
            (99_949_999, "99.9 ms"),
            (99_950_000, "100 ms"),
            (999_499_999, "999 ms"),
            (999_500_000, "1.0 s"),
            (99_949_999_999, "99.9 s"),
            (99_950_000_000, "100 s"),
            (u64::MAX, "18446744073 s"),
        ] {
            assert_eq!(time(ns), shown, "{ns} ns");
        }
    }

    #[test]
    fn configured_times_lose_their_empty_decimals() {
        assert_eq!(round_time(100_000_000), "100 ms");
        assert_eq!(round_time(2_500_000), "2.5 ms");
        assert_eq!(round_time(2_000_000_000), "2 s");
        assert_eq!(quota(Quota { quota_us: 20_000, period_us: 100_000 }), "20 ms per 100 ms");
        assert_eq!(round_time(0), "<1 us");
    }

    #[test]
    fn what_was_not_seen_is_a_dash() {
        assert_eq!(quantile(&Latency::default(), 0.5), "-");
        assert_eq!(max(&Latency::default()), "-");
        assert_eq!(timer(&Timer::default()), ["-", "-", "-"]);
        assert_eq!(count_if(false, 0), "-");
    }

    #[test]
    fn a_timer_without_user_stage_falls_back_and_says_so() {
        let mut t = Timer::default();
        t.thread.record(12_000);
        assert_eq!(timer(&t), ["12 us*", "12 us*", "12 us*"]);
        t.user.record(15_000);
        assert_eq!(timer(&t), ["15 us", "15 us", "15 us"]);
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a?[2Jb?");
        assert_eq!(printable("plain"), "plain");
    }

    #[test]
    fn a_container_is_called_by_its_name_and_a_unit_by_its_path() {
        let mut cgroup = Cgroup { path: "/machine/libpod-0123456789abcdef".into(), ..Cgroup::default() };
        assert_eq!(cgroup_name(&cgroup), "/machine/libpod-0123456789abcdef");
        let container = Container { runtime: "podman".into(), id: "0123456789abcdef".into(), ..Container::default() };
        cgroup.container = Some(container.clone());
        assert_eq!(cgroup_name(&cgroup), "0123456789ab [podman]");
        cgroup.container = Some(Container { name: Some("plc".into()), ..container.clone() });
        assert_eq!(cgroup_name(&cgroup), "plc [podman]");
        cgroup.container =
            Some(Container { pod: Some("ns/pod".into()), name: Some("plc".into()), ..container.clone() });
        assert_eq!(cgroup_name(&cgroup), "ns/pod/plc [podman]");
        let guest = Container { runtime: "lxc".into(), name: Some("plc1".into()), ..container.clone() };
        cgroup.container = Some(Container { unit: Some("codesys.service".into()), ..guest });
        assert_eq!(cgroup_name(&cgroup), "plc1:codesys.service [lxc]");
        cgroup.container = Some(Container { runtime: "systemd".into(), ..container });
        assert_eq!(cgroup_name(&cgroup), "/machine/libpod-0123456789abcdef");
    }
}
