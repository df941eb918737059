//! What cyclictest writes without a histogram: the line of each thread (the last of it counts, for it is drawn again and
//! again unless -q is given), which has no more than its extremes; and with -v every latency on a line of its own.

use std::collections::BTreeMap;
use std::path::Path;

use super::cyclictest::{CYCLICTEST_ALONE, WORKLOAD, run};
use crate::gate::distribution::Distribution;
use crate::gate::error::Wrong;
use crate::gate::facts::{Fact, RunFacts};
use crate::gate::run::Run;

/// Width from which on the last and the average latency are ns: the lines do not say their unit, but -N pads to 8
/// characters what else is padded to 5.
const NS_WIDTH: usize = 8;

/// The run in the lines; `None` when there are none.
pub(super) fn parse(path: &Path, text: &str) -> Option<Result<Run, Wrong>> {
    let mut statuses = BTreeMap::new();
    let mut values = Values::default();
    for (n, line) in text.lines().enumerate() {
        if is_of_cyclicdeadline(line) {
            return Some(Err(Wrong::line(n + 1, format!("this is cyclicdeadline's; {CYCLICTEST_ALONE}"))));
        }
        if let Some((thread, status)) = status(line) {
            statuses.insert(thread, status);
        } else if let Some((thread, cycle, us)) = value(line)
            && let Err(what) = values.add(thread, cycle, us)
        {
            return Some(Err(Wrong::line(n + 1, what)));
        }
    }
    let mut notes = Vec::new();
    let threads: Vec<_> = if !statuses.is_empty() {
        let unit_ns = if statuses.values().all(|status| status.width >= NS_WIDTH) { 1 } else { 1000 };
        statuses.iter().map(|(thread, status)| (thread.to_string(), status.distribution().in_ns(unit_ns))).collect()
    } else if !values.0.is_empty() {
        notes.push("the values of -v do not show whether they are cut off".to_owned());
        values.0.into_iter().map(|(thread, of)| (thread.to_string(), of.distribution.in_ns(1000))).collect()
    } else {
        return None;
    };
    let mut facts = RunFacts::default();
    facts.set(Fact::Instrument, WORKLOAD);
    Some(run(path, text, None, facts, &threads, notes))
}

/// A thread's line.
struct Status {
    cycles: u64,
    min: u64,
    max: u64,
    /// Of the narrower of the last and the average latency.
    width: usize,
}

impl Status {
    fn distribution(&self) -> Distribution {
        let mut distribution = Distribution::default();
        if self.cycles > 0 && self.min <= self.max {
            distribution.add_uncounted(self.cycles);
            distribution.widen(self.min, self.max);
        }
        distribution
    }
}

/// `T: 0 ( 4711) P:80 I:1000 C:  12345 Min:      3 Act:    5 Avg:    6 Max:      48`, whatever stands before it.
fn status(line: &str) -> Option<(u64, Status)> {
    let (thread, rest) = line.get(line.rfind("T:")? + 2..)?.split_once('(')?;
    let (_, rest) = rest.split_once("P:")?;
    let (_, rest) = rest.split_once("I:")?;
    let (_, rest) = rest.split_once("C:")?;
    let (cycles, rest) = rest.split_once(" Min:")?;
    let (min, rest) = rest.split_once(" Act:")?;
    let (last, rest) = rest.split_once(" Avg:")?;
    let (average, rest) = rest.split_once(" Max:")?;
    let number = |text: &str| text.trim().parse().ok();
    let max = number(rest.split_whitespace().next()?)?;
    let width = last.len().min(average.len());
    Some((number(thread)?, Status { cycles: number(cycles)?, min: number(min)?, max, width }))
}

/// cyclicdeadline's line has no priority.
fn is_of_cyclicdeadline(line: &str) -> bool {
    let behind = line.rfind("T:").map_or("", |at| &line[at..]);
    behind.split_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with("I:") && rest.contains(" Avg:"))
}

/// `       0:     117:      22`: thread, cycle and latency, the latter two padded to 8 characters.
fn value(line: &str) -> Option<(u64, u64, u64)> {
    let mut parts = line.trim_end().rsplitn(3, ':');
    let (us, cycle, thread) = (parts.next()?, parts.next()?, parts.next()?);
    let padded = |text: &str| if text.len() < 8 { None } else { text.trim_start().parse().ok() };
    Some((thread.split_whitespace().next_back()?.parse().ok()?, padded(cycle)?, padded(us)?))
}

/// Latencies of each thread.
#[derive(Default)]
struct Values(BTreeMap<u64, OfThread>);

struct OfThread {
    distribution: Distribution,
    next: u64,
}

impl Values {
    fn add(&mut self, thread: u64, cycle: u64, us: u64) -> Result<(), String> {
        let of =
            self.0.entry(thread).or_insert_with(|| OfThread { distribution: Distribution::default(), next: cycle });
        if cycle != of.next {
            return Err(format!(
                "thread {thread} goes on with cycle {cycle} after {}: values are missing, as -o leaves them out, or there are \
                 several runs; record with -h US",
                i128::from(of.next) - 1
            ));
        }
        of.next = cycle.saturating_add(1);
        of.distribution.add(us, us.saturating_add(1), 1);
        of.distribution.widen(us, us);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::LatencySignal;

    fn parsed(text: &str) -> Run {
        parse(Path::new("f"), text).expect("there are lines").unwrap()
    }

    #[test]
    fn the_last_line_of_each_thread_counts() {
        let run = parsed(
            "# /dev/cpu_dma_latency set to 0us\npolicy: fifo: loadavg: 0.41 0.35 0.30 2/187 991\n\n\
             T: 0 (  988) P:90 I:500 C:    199 Min:      6 Act:    8 Avg:    9 Max:      31\n\
             T: 1 (  989) P:90 I:500 C:    198 Min:      5 Act:    7 Avg:    9 Max:      29\n\
             T: 0 (  988) P:90 I:500 C:  20004 Min:      4 Act:    9 Avg:    9 Max:      87\n\
             T: 1 (  989) P:90 I:500 C:  20001 Min:      5 Act:    7 Avg:    8 Max:     118 SMI:       0\n\
             T: 2 (    0) P:90 I:500 C:      0 Min:1000000 Act:    0 Avg:    0 Max:       0\n",
        );
        let all = run.figures("cyclictest", LatencySignal::Timer);
        assert_eq!((all.count, all.min_ns, all.max_ns, all.p99_ns), (40_005, 4_000, 118_000, None));
        assert_eq!(run.figures("cyclictest:0", LatencySignal::Timer).max_ns, 87_000);
        assert_eq!(run.series.len(), 3, "the third has not run");
        assert_eq!(run.notes, [""; 0]);
    }

    #[test]
    fn nanoseconds_are_known_by_their_width() {
        let run = parsed(
            "T: 0 (31415) P:95 I:1000 C:   3000 Min:   2718 Act:    3141 Avg:    3999 Max:   81234\n\
             T: 1 (31416) P:95 I:1000 C:   3000 Min:   2613 Act: 1234567 Avg:    3777 Max: 1234567\n",
        );
        assert_eq!(
            (
                run.figures("cyclictest", LatencySignal::Timer).min_ns,
                run.figures("cyclictest", LatencySignal::Timer).max_ns
            ),
            (2_613, 1_234_567)
        );
        let us = parsed("T: 0 (31415) P:95 I:1000 C:   3000 Min:      2 Act:12345678 Avg:   41 Max:12345678\n");
        assert_eq!(us.figures("cyclictest", LatencySignal::Timer).max_ns, 12_345_678_000);
    }

    #[test]
    fn every_value_of_v_is_a_latency_and_the_log_around_it_none() {
        let mut text =
            String::from("Max CPUs = 2\nOnline CPUs = 2\nThread 0 Interval: 1000\n10:20:30: a line of the log\n");
        for cycle in 0..1000 {
            for thread in 0..2 {
                text += &format!("2026-11-02T08:15:00.5Z {thread:8}:{cycle:8}:{:8}\n", 20 + cycle % 10 + 100 * thread);
            }
        }
        let run = parsed(&text);
        let (all, first) =
            (run.figures("cyclictest", LatencySignal::Timer), run.figures("cyclictest:0", LatencySignal::Timer));
        assert_eq!((all.count, all.min_ns, all.max_ns), (2000, 20_000, 129_000));
        assert_eq!((first.count, first.max_ns, first.p50_ns), (1000, 29_000, Some(25_000)));
        assert!(run.notes[0].contains("-v"), "{:?}", run.notes);
    }

    #[test]
    fn values_that_are_missing_are_noticed() {
        let wrong =
            parse(Path::new("f"), "       0:       0:      21\n       0:       2:      21\n").unwrap().unwrap_err();
        assert_eq!(wrong.place.as_deref(), Some("line 2"));
        assert!(wrong.what.contains("goes on with cycle 2 after 0"), "{}", wrong.what);
    }

    #[test]
    fn other_lines_are_not_taken_for_any() {
        for text in ["", "Duration: 0 00:00:08\n", "12:30:45\n", "T: 0 (7) P:80 C: 5\n", "a:b:c\n", "T:\n"] {
            assert!(parse(Path::new("f"), text).is_none(), "{text}");
        }
        let deadline = "T: 0 ( 7) I:1000 C:   50 Min:      3 Act:    5 Avg:    6 Max:      48\n";
        assert!(parse(Path::new("f"), deadline).unwrap().unwrap_err().what.contains("cyclicdeadline"));
    }
}
