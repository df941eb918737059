//! Arguments that several subcommands share, and their values: durations such as "10s", cgroup patterns, thread ids.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::{Endpoint, EndpointError, Time, TimeError};
use crate::control::{Recorder, Selection, Watch};
use crate::inventory::CgroupFilter;

/// What to watch.
#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    /// Only cgroups that this pattern matches, by path or by name, id or pod of the container; `*` matches "/" too. May
    /// be repeated.
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    cgroup: Vec<String>,
    /// Only this thread, whatever its scheduling policy. May be repeated; adds to --cgroup.
    #[arg(long, value_name = "TID", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    tid: Vec<u32>,
    /// A wake-up of a watched thread that takes longer is recorded one by one, as a late one.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = threshold)]
    threshold: Duration,
    /// Keep the flight recorder on even where it takes more memory than guard helps itself to, and judge threads named with
    /// --tid whatever their policy is. The recorder keeps who ran on each CPU, by which late wake-ups are explained; it is on
    /// by itself where the 24 MiB per CPU, 192 MiB in all, that it may take are at most an eighth of the available memory
    /// and half of what guard's own cgroup has left.
    #[arg(long)]
    explain: bool,
    /// Keep the flight recorder off: late wake-ups are explained by what is known at their end alone, each switch and wake-up
    /// costs less, and guard takes less memory.
    #[arg(long, conflicts_with_all = ["explain", "stacks"])]
    no_explain: bool,
    /// Keep the kernel stacks of late wake-ups, too: of what ran when the thread was woken, and of the task that left the CPU
    /// for it. Implies --explain; each wake-up of a watched thread costs microseconds more.
    #[arg(long)]
    stacks: bool,
    /// Let the kernel time guard's own programs, for the report's overhead (makes every event a little slower).
    #[arg(long)]
    run_time_stats: bool,
}

impl WatchArguments {
    /// From which latency on a wake-up is late.
    pub(super) fn threshold(&self) -> Duration {
        self.threshold
    }

    /// The same for the control room.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            selection: Selection { cgroups: self.cgroup.clone(), tids: self.tid.clone() },
            threshold: self.threshold,
            act: false,
            recorder: match (self.explain || self.stacks, self.no_explain) {
                (true, _) => Recorder::On,
                (false, true) => Recorder::Off,
                (false, false) => Recorder::WhereItFits,
            },
            traces: None,
            stacks: self.stacks,
            run_time_stats: self.run_time_stats,
            policy: None,
        }
    }
}

/// A pattern, checked.
fn glob(text: &str) -> Result<String, String> {
    CgroupFilter::new(&[text]).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A time with its unit: "10s", "500ms", "1m 30s".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse().map(Time::duration).map_err(|error: TimeError| error.to_string())
}

/// A size with its unit: "64MiB", "1GiB", "500kB".
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    let wanted = || "want a number and a unit, such as 64MiB or 1GiB".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wanted)?;
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(*unit)).ok_or_else(wanted)
}

/// How large a recording may be: from 1 MiB, for a Snapshot must fit in, to 1 TiB.
pub(super) fn recording_size(text: &str) -> Result<u64, String> {
    Some(bytes(text)?).filter(|n| (1 << 20..=1 << 40).contains(n)).ok_or_else(|| "want 1MiB to 1024GiB".to_owned())
}

/// A Unix socket, as "unix:PATH".
pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err("want unix: and the full path of a socket, such as unix:/run/guard/guard.sock".to_owned()),
    }
}

/// Where Snapshots or metrics are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// Snapshots, to `guard top --connect`, on this Unix socket.
    Snapshots(PathBuf),
    /// Metrics, to Prometheus.
    Metrics(Endpoint),
}

/// "unix:PATH" for Snapshots, "IP:PORT" or "http+unix:PATH" for metrics.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    if text.starts_with("unix:") {
        return socket(text).map(Listen::Snapshots);
    }
    text.parse().map(Listen::Metrics).map_err(|_: EndpointError| {
        "want unix: with the full path of a socket (for guard top), or an IP address with its port, such as \
         127.0.0.1:9469, or http+unix: with the full path of a socket (for metrics)"
            .to_owned()
    })
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let value = duration(text)?;
    if value < least || value > most {
        return Err(format!("want {least:?} to {most:?}"));
    }
    Ok(value)
}

/// How long to measure: 10 ms to 366 days.
pub(super) fn window(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(10), Duration::from_secs(366 * 86_400))
}

/// How often to say something: 100 ms, below which guard itself would be a load, to 1 h.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(100), Duration::from_secs(3_600))
}

/// Length of a cycle of the lab: 100 us, below which the cycle itself is a load, to 1 s.
pub(super) fn cycle(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_micros(100), Duration::from_secs(1))
}

/// When a wake-up is late: 1 us, the resolution of the histograms, to 10 s.
fn threshold(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_micros(1), Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_write_times_with_units() {
        for (text, ms) in
            [("10s", 10_000), ("500ms", 500), ("1m", 60_000), ("1m 30s", 90_000), ("1.5s", 1_500), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_time_without_unit_or_below_zero_is_refused_with_an_example() {
        for text in ["", "10", "s", "ten s", "1x", "-", "1 s s"] {
            assert!(duration(text).unwrap_err().contains("such as 10s"), "{text}");
        }
        assert!(duration("-5s").is_err());
        assert_eq!(window("1ms").unwrap_err(), "want 10ms to 31622400s");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([bytes("64MiB"), bytes("2 kB")], [Ok(64 << 20), Ok(2_000)]);
        for text in ["", "64", "MiB", "-1MiB", "99999999999999GiB", "1mib", "é"] {
            assert!(bytes(text).unwrap_err().contains("such as 64MiB"), "{text}");
        }
    }

    #[test]
    fn what_is_shown_follows_from_where() {
        assert_eq!(listen("unix:/run/guard/guard.sock"), Ok(Listen::Snapshots("/run/guard/guard.sock".into())));
        assert!(matches!(listen("127.0.0.1:9469"), Ok(Listen::Metrics(Endpoint::Tcp(_)))));
        assert!(matches!(listen("http+unix:/run/m.sock"), Ok(Listen::Metrics(Endpoint::Unix(_)))));
        for text in ["", "9469", "unix:x", "http://127.0.0.1:9469"] {
            assert!(listen(text).unwrap_err().starts_with("want unix: "), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = (duration(&text), bytes(&text), socket(&text), listen(&text));
        }
    }
}
