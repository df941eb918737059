//! The timer latencies of the watched threads as cyclictest's histogram (`cyclictest -h`), for the scripts that plot
//! and compare those.

use std::fmt::Write as _;

use guard_common::hist;

use super::figures::printable;
use crate::snapshot::{Latency, Snapshot, Thread};

/// Rows at most; latencies beyond are counted as overflows, as cyclictest does beyond its `-h`.
const ROWS_MAX: u64 = 10_000;

/// The histogram of all threads that a timer woke: one row per microsecond, one column per thread.
///
/// The last seen stage of a thread is taken: user, else thread. A latency of 64 us or more stands in the row of the
/// lower edge of guard's bucket.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let columns: Vec<Column<'_>> = snapshot.threads.iter().filter_map(Column::of).collect();
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write(&mut out, &columns);
    out
}

struct Column<'a> {
    thread: &'a Thread,
    stage: &'static str,
    latency: &'a Latency,
}

impl<'a> Column<'a> {
    fn of(thread: &'a Thread) -> Option<Self> {
        thread.timer.last_stage().map(|(stage, latency)| Self { thread, stage, latency })
    }

    /// (row in us, count) of the non-empty buckets.
    fn rows(&self) -> impl Iterator<Item = (u64, u64)> {
        self.latency.indexed().map(|(i, n)| (hist::lower_ns(i) / 1_000, n))
    }

    /// The same as cyclictest's rows up to `end`. guard keeps no cycle numbers: all overflows are among cyclictest's
    /// "others".
    fn counted(&self, end: usize) -> Counted {
        let us = |ns: u64| ns / 1_000;
        let mut counted = Counted {
            rows: vec![0; end],
            min: us(self.latency.min_ns()),
            avg: us(self.latency.mean_ns()),
            max: us(self.latency.max_ns()),
            ..Counted::default()
        };
        for (us, n) in self.rows() {
            match usize::try_from(us).ok().and_then(|us| counted.rows.get_mut(us)) {
                Some(row) => *row += n,
                None => counted.overflows += n,
            }
        }
        counted
    }
}

fn write(out: &mut String, columns: &[Column<'_>]) -> std::fmt::Result {
    if columns.is_empty() {
        return writeln!(out, "# guard: no watched thread was woken by a timer in this window");
    }

    writeln!(
        out,
        "# guard: from the requested expiry; above 63 us a row stands for itself and the empty rows after it"
    )?;
    for (i, Column { thread, stage, .. }) in columns.iter().enumerate() {
        let (comm, cgroup) = (printable(&thread.comm), printable(&thread.cgroup));
        let stage = if *stage == "user" { "to user space" } else { "to the switch-in (user space not seen)" };
        writeln!(
            out,
            "# guard: thread {i} is tid {} {comm} {} {} in {cgroup}, {stage}",
            thread.tid,
            printable(thread.policy.as_str()),
            thread.prio
        )?;
    }

    let end = columns.iter().flat_map(|c| c.rows().last()).map(|(us, _)| us + 1).max().unwrap_or(0);
    let end = usize::try_from(end.clamp(hist::LINEAR_US, ROWS_MAX)).unwrap_or(0);
    let sheet: Vec<Counted> = columns.iter().map(|column| column.counted(end)).collect();
    table(out, &sheet, false)
}

/// One thread of cyclictest's histogram.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Counts of the latencies 0, 1, 2, ...; as many for every thread.
    pub(super) rows: Vec<u64>,
    pub(super) min: u64,
    pub(super) avg: u64,
    pub(super) max: u64,
    /// Latencies beyond the rows, and the numbers of the first cycles that had one, as far as known.
    pub(super) overflows: u64,
    pub(super) outliers: Vec<u64>,
}

/// cyclictest's histogram and the totals below it; with a column of sums where there are several threads.
pub(super) fn table(out: &mut String, threads: &[Counted], sums: bool) -> std::fmt::Result {
    let sums = sums && threads.len() > 1;
    let with_sum = |figures: Vec<u64>, sum: u64| figures.into_iter().chain(sums.then_some(sum)).collect::<Vec<_>>();
    let all = |figure: fn(&Counted) -> u64| threads.iter().map(figure).collect::<Vec<_>>();
    let summed = |figures: Vec<u64>| {
        let sum = figures.iter().sum();
        with_sum(figures, sum)
    };

    writeln!(out, "# Histogram")?;
    for row in 0..threads.first().map_or(0, |thread| thread.rows.len()) {
        let counts = threads.iter().map(|thread| thread.rows.get(row).copied().unwrap_or(0)).collect();
        writeln!(out, "{row:06} {}", joined(summed(counts), "\t", |n| format!("{n:06}")))?;
    }
    let us = |n: u64| format!("{n:05}");
    let max = threads.iter().map(|thread| thread.max).max().unwrap_or(0);
    let total = summed(all(|thread| thread.rows.iter().sum()));
    writeln!(out, "# Total: {}", joined(total, " ", |n| format!("{n:09}")))?;
    writeln!(out, "# Min Latencies: {}", joined(all(|thread| thread.min), " ", us))?;
    writeln!(out, "# Avg Latencies: {}", joined(all(|thread| thread.avg), " ", us))?;
    writeln!(out, "# Max Latencies: {}", joined(with_sum(all(|thread| thread.max), max), " ", us))?;
    writeln!(out, "# Histogram Overflows: {}", joined(summed(all(|thread| thread.overflows)), " ", us))?;
    writeln!(out, "# Histogram Overflow at cycle number:")?;
    for (number, thread) in threads.iter().enumerate() {
        let known: String = thread.outliers.iter().map(|cycle| format!(" {cycle:05}")).collect();
        let others = thread.overflows.saturating_sub(thread.outliers.len() as u64);
        let others = if others > 0 { format!(" # {others:05} others") } else { String::new() };
        writeln!(out, "# Thread {number}:{known}{others}")?;
    }
    Ok(())
}

fn joined<T>(items: impl IntoIterator<Item = T>, separator: &str, text: impl Fn(T) -> String) -> String {
    items.into_iter().map(text).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::samples;

    #[test]
    fn it_reads_like_cyclictest() {
        let mut snapshot = samples::empty();
        for (tid, values) in [(10, &[3_500, 3_900, 70_000][..]), (11, &[5_000, 20_000_000])] {
            let mut thread = Thread {
                tid,
                comm: "cyclictest".into(),
                policy: "FIFO".into(),
                prio: 95,
                cgroup: "/rt".into(),
                ..Thread::default()
            };
            values.iter().for_each(|v| thread.timer.user.record(*v));
            snapshot.threads.push(thread);
        }
        snapshot.threads.push(Thread::default());
        let text = render(&snapshot);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..8],
            [
                "# guard: from the requested expiry; above 63 us a row stands for itself and the empty rows after it",
                "# guard: thread 0 is tid 10 cyclictest FIFO 95 in /rt, to user space",
                "# guard: thread 1 is tid 11 cyclictest FIFO 95 in /rt, to user space",
                "# Histogram",
                "000000 000000\t000000",
                "000001 000000\t000000",
                "000002 000000\t000000",
                "000003 000002\t000000",
            ]
        );
        assert!(lines.contains(&"000005 000000\t000001"));
        // 70 us is in the bucket from 68 to 71 us.
        assert!(lines.contains(&"000068 000001\t000000"), "{text}");
        assert_eq!(lines[4 + 9_999], "009999 000000\t000000");
        assert_eq!(
            lines[4 + 10_000..],
            [
                "# Total: 000000003 000000001",
                "# Min Latencies: 00003 00005",
                "# Avg Latencies: 00025 10002",
                "# Max Latencies: 00070 20000",
                "# Histogram Overflows: 00000 00001",
                "# Histogram Overflow at cycle number:",
                "# Thread 0:",
                "# Thread 1: # 00001 others",
            ]
        );
    }

    #[test]
    fn a_thread_without_user_stage_is_shown_by_its_switch_in_and_says_so() {
        let mut thread = Thread { tid: 5, ..Thread::default() };
        thread.timer.thread.record(9_000);
        let snapshot = Snapshot { threads: vec![thread], ..samples::empty() };
        let text = render(&snapshot);
        assert!(text.contains("to the switch-in (user space not seen)"), "{text}");
        assert!(text.contains("\n000009 000001\n"), "{text}");
    }

    #[test]
    fn without_a_timer_thread_there_is_only_a_remark() {
        assert_eq!(render(&samples::empty()), "# guard: no watched thread was woken by a timer in this window\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_latency_is_in_a_row_or_an_overflow(snapshot in samples::any_snapshot()) {
            let text = render(&snapshot);
            let count: u64 = snapshot.threads.iter().filter_map(|t| t.timer.last_stage()).map(|(_, l)| l.count()).sum();
            let rows: u64 = text
                .lines()
                .filter(|l| !l.starts_with('#'))
                .flat_map(|l| l.split_once(' ').unwrap().1.split('\t'))
                .map(|n| n.parse::<u64>().unwrap())
                .sum();
            let over: u64 = text
                .lines()
                .find_map(|l| l.strip_prefix("# Histogram Overflows: "))
                .map_or(0, |l| l.split(' ').map(|n| n.parse::<u64>().unwrap()).sum());
            prop_assert_eq!(rows + over, count);
        }
    }
}
