//! hdrhistogram's interval log with V2 histograms, for the tools that read it (HistogramLogProcessor and others): one
//! line per Snapshot and histogram, in nanoseconds, the maximum in milliseconds.
//!
//! Tags are `cgroup/PATH/timer.user` and `thread/COMM-TID/timer.user` with the other figures' names in the last place. What
//! the log does not allow in a tag (commas, blanks) is an underscore.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::snapshot::{Cgroup, Latency, Snapshot, Thread, Timer};

/// The maximum of a line is in milliseconds, as in logs of other tools.
const NS_PER_MS: f64 = 1e6;

/// Writes all Snapshots as one log.
///
/// # Errors
/// What `out` returns; a histogram that cannot be encoded as [`io::ErrorKind::InvalidData`].
pub fn write(snapshots: impl Iterator<Item = Snapshot>, out: &mut impl io::Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut snapshots = snapshots.peekable();
    let begin = snapshots.peek().and_then(started).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("guard: latencies in nanoseconds, Interval_Max in milliseconds")
        .with_start_time(begin)
        .with_base_time(begin)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(out, &mut serializer)?;
    for snapshot in snapshots {
        let start = started(&snapshot).and_then(|at| at.duration_since(begin).ok()).unwrap_or_default();
        let length = Duration::try_from_secs_f64(snapshot.window.seconds).unwrap_or_default();
        for (tag, latency) in histograms(&snapshot) {
            let hdr = latency.to_hdr().map_err(invalid)?;
            log.write_histogram(&hdr, start, length, Tag::new(&tag)).map_err(|error| match error {
                hdrhistogram::serialization::interval_log::IntervalLogWriterError::IoError(kind) => kind,
                other => io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}")),
            })?;
        }
    }
    Ok(())
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn started(snapshot: &Snapshot) -> Option<SystemTime> {
    snapshot.window.start.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// All histograms with anything in them, with their tags.
fn histograms(snapshot: &Snapshot) -> Vec<(String, &Latency)> {
    let cgroups = snapshot.cgroups.iter().flat_map(of_cgroup);
    let threads = snapshot.threads.iter().flat_map(of_thread);
    cgroups.chain(threads).filter(|(_, latency)| !latency.is_empty()).map(|(tag, l)| (cleaned(&tag), l)).collect()
}

fn of_cgroup(cgroup: &Cgroup) -> Vec<(String, &Latency)> {
    let own = [
        ("wakeup.rt", &cgroup.wakeup.rt),
        ("wakeup.fair", &cgroup.wakeup.fair),
        ("wakeup.throttled", &cgroup.wakeup.throttled),
        ("throttle.duration", &cgroup.throttle.duration),
        ("lock.wait", &cgroup.lock.wait),
    ];
    named(&format!("cgroup{}", cgroup.path), own.into_iter().chain(stages(&cgroup.timer)))
}

fn of_thread(thread: &Thread) -> Vec<(String, &Latency)> {
    let own = [("wakeup", &thread.wakeup), ("lock.wait", &thread.lock.wait)];
    named(&format!("thread/{}-{}", thread.comm, thread.tid), own.into_iter().chain(stages(&thread.timer)))
}

fn stages(timer: &Timer) -> [(&'static str, &Latency); 3] {
    [("timer.irq", &timer.irq), ("timer.thread", &timer.thread), ("timer.user", &timer.user)]
}

fn named<'a>(whose: &str, all: impl Iterator<Item = (&'static str, &'a Latency)>) -> Vec<(String, &'a Latency)> {
    let whose = whose.trim_end_matches('/');
    all.map(|(figure, latency)| (format!("{whose}/{figure}"), latency)).collect()
}

fn cleaned(tag: &str) -> String {
    tag.chars().map(|c| if c == ',' || c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::Histogram;
    use crate::view::samples;

    fn log(snapshots: &[Snapshot]) -> Vec<u8> {
        let mut out = vec![];
        write(snapshots.iter().cloned(), &mut out).unwrap();
        out
    }

    /// Intervals by tag: start, length, histogram.
    fn read(log: &[u8]) -> Vec<(String, Duration, Duration, Histogram)> {
        let mut deserializer = Deserializer::new();
        IntervalLogIterator::new(log)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(i) => {
                    let hdr = deserialize(&mut deserializer, i.encoded_histogram());
                    Some((i.tag().unwrap().as_str().to_owned(), i.start_timestamp(), i.duration(), hdr))
                }
                _ => None,
            })
            .collect()
    }

    fn deserialize(deserializer: &mut Deserializer, base64: &str) -> Histogram {
        let bytes = base64_decoded(base64);
        Histogram::from_hdr(&deserializer.deserialize::<u64, _>(&mut bytes.as_slice()).unwrap())
    }

    fn base64_decoded(text: &str) -> Vec<u8> {
        let digit = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u32> = text.bytes().filter(|c| *c != b'=').map(|c| digit(c).into()).collect();
        digits
            .chunks(4)
            .flat_map(|four| {
                let bits = four.iter().fold(0, |sum, d| sum << 6 | d) << (6 * (4 - four.len()));
                bits.to_be_bytes()[1..four.len()].to_vec()
            })
            .collect()
    }

    #[test]
    fn hdrhistograms_own_reader_finds_every_histogram() {
        let mut later = samples::full();
        later.window.start = "2026-11-22T00:11:10Z".into();
        let entries = read(&log(&[samples::full(), later]));
        let of = |tag: &str| entries.iter().filter(|e| e.0 == tag).collect::<Vec<_>>();
        let user = of("thread/cycle-1234/timer.user");
        assert_eq!(user.len(), 2);
        assert_eq!((user[1].1, user[1].2), (Duration::from_secs(10), Duration::from_secs(10)));
        assert!(user[0].3.indexed().eq(samples::full().threads[0].timer.user.indexed()));
        assert_eq!(of("cgroup/wakeup.fair").len(), 2);
        assert_eq!(of("cgroup/machine/throttle.duration").len(), 2);
    }

    #[test]
    fn an_empty_stream_is_an_empty_log() {
        assert!(read(&log(&[])).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_snapshot_is_a_readable_log(snapshot in samples::any_snapshot()) {
            let entries = read(&log(std::slice::from_ref(&snapshot)));
            let mut expected: HashMap<String, u32> = HashMap::new();
            histograms(&snapshot).into_iter().for_each(|(tag, _)| *expected.entry(tag).or_default() += 1);
            prop_assert_eq!(entries.len(), expected.values().sum::<u32>() as usize);
        }
    }
}
