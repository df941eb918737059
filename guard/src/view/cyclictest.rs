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
            printable(&thread.policy),
            thread.prio
        )?;
    }

    let end = columns.iter().flat_map(|c| c.rows().last()).map(|(us, _)| us + 1).max().unwrap_or(0);
    let end = end.clamp(hist::LINEAR_US, ROWS_MAX);
    let mut cells = vec![vec![0; columns.len()]; usize::try_from(end).unwrap_or(0)];
    let mut overflows = vec![0; columns.len()];
    for (at, column) in columns.iter().enumerate() {
        for (us, n) in column.rows() {
            match usize::try_from(us).ok().and_then(|us| cells.get_mut(us)) {
                Some(row) => row[at] += n,
                None => overflows[at] += n,
            }
        }
    }

    writeln!(out, "# Histogram")?;
    for (us, row) in cells.iter().enumerate() {
        writeln!(out, "{us:06} {}", joined(row.iter(), "\t", |n| format!("{n:06}")))?;
    }

    let inside = columns.iter().zip(&overflows).map(|(c, over)| c.latency.count() - over);
    let us = |ns: u64| format!("{:05}", ns / 1_000);
    writeln!(out, "# Total: {}", joined(inside, " ", |n| format!("{n:09}")))?;
    writeln!(out, "# Min Latencies: {}", joined(columns, " ", |c| us(c.latency.min_ns())))?;
    writeln!(out, "# Avg Latencies: {}", joined(columns, " ", |c| us(c.latency.mean_ns())))?;
    writeln!(out, "# Max Latencies: {}", joined(columns, " ", |c| us(c.latency.max_ns())))?;
    writeln!(out, "# Histogram Overflows: {}", joined(&overflows, " ", |n| format!("{n:05}")))?;
    writeln!(out, "# Histogram Overflow at cycle number:")?;
    for (i, over) in overflows.iter().enumerate() {
        // guard keeps no cycle numbers: all overflows are among cyclictest's "others".
        let others = if *over > 0 { format!(" # {over:05} others") } else { String::new() };
        writeln!(out, "# Thread {i}:{others}")?;
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
