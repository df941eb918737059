//! The histogram of cyclictest's `-h`, `-H` and `--histfile=FILE`, from rt-tests 1.0 to 2.10. The later ones leave out the
//! totals and the rows without a count. cyclicdeadline of rt-tests writes the same table.

use std::collections::BTreeMap;
use std::path::Path;

use super::cyclictest::{WORKLOAD, run};
use crate::gate::distribution::Distribution;
use crate::gate::error::{MIXED, Wrong, number};
use crate::gate::facts::{Fact, RunFacts, printable};
use crate::gate::run::Run;

/// The line above the rows.
pub(super) const TITLE: &str = "# Histogram";

/// The run in the table. Its unit is taken to be us: the table does not say when it was made with -N.
pub(super) fn parse(path: &Path, text: &str) -> Result<Run, Wrong> {
    let mut table = Table::default();
    let title = |line: &str| line.trim_end().ends_with(TITLE);
    for (n, line) in text.lines().enumerate().skip_while(|(_, line)| !title(line)).skip(1) {
        table.line(n + 1, line)?;
    }
    let notes = table.broken_at.iter().map(|value| format!("-b ended it, at a latency of {value}")).collect();
    let threads = table.threads()?;
    let mut facts = RunFacts::default();
    facts.set(Fact::Instrument, WORKLOAD);
    run(path, text, None, facts, &threads, notes)
}

/// What the table says so far.
#[derive(Default)]
struct Table {
    /// (latency in us, counts of the threads and, with -H, their sum).
    rows: Vec<(u64, Vec<u64>)>,
    /// Values of the lines in [`SUMMARY`], in its order.
    summary: [Option<Vec<u64>>; 4],
    /// Overflows of a thread that its own line counts up.
    listed: BTreeMap<usize, u64>,
    broken_at: Option<String>,
}

/// The lines below the rows that are needed; those without totals have no other.
const SUMMARY: [&str; 4] = ["Total", "Min Latencies", "Max Latencies", "Histogram Overflows"];

impl Table {
    fn line(&mut self, n: usize, line: &str) -> Result<(), Wrong> {
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(n, comment);
        }
        // Below the summary begins whatever else stands in a log.
        if line.trim().is_empty() || self.summary.iter().any(Option::is_some) {
            return Ok(());
        }
        self.row(n, line)
    }

    fn row(&mut self, n: usize, line: &str) -> Result<(), Wrong> {
        if !line.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Wrong::line(n, MIXED));
        }
        let cells = numbers(n, line)?;
        let [us, counts @ ..] = cells.as_slice() else { return Ok(()) };
        let (before, columns) = self.rows.last().map_or((None, counts.len()), |(us, row)| (Some(*us), row.len()));
        if counts.is_empty() || counts.len() != columns {
            return Err(Wrong::line(n, format!("{} counts, where the lines above have {columns}", counts.len())));
        }
        if before.is_some_and(|before| *us <= before) {
            return Err(Wrong::line(n, format!("{us} us is not more than the line above has")));
        }
        self.rows.push((*us, counts.to_vec()));
        Ok(())
    }

    fn comment(&mut self, n: usize, comment: &str) -> Result<(), Wrong> {
        let Some((name, values)) = comment.split_once(':') else { return Ok(()) };
        let name = name.trim();
        if let Some(slot) = SUMMARY.iter().position(|known| *known == name) {
            // The overflows are the last of them; what follows in a log may begin like one.
            if self.summary[slot].is_none() && self.summary[SUMMARY.len() - 1].is_none() {
                // Padded with zeroes: a shorter number is the beginning of one.
                if values.split_whitespace().any(|cell| cell.len() < 5) {
                    return Err(Wrong::line(n, "the line is cut off"));
                }
                self.summary[slot] = Some(numbers(n, values)?);
            }
        } else if let Some(thread) = name.strip_prefix("Thread ").and_then(|number| number.parse().ok()) {
            // The cycles, as many as fit into cyclictest's memory; then how many more there were.
            let (cycles, others) = values.split_once('#').unwrap_or((values, ""));
            let others = others.split_whitespace().next().and_then(|others| others.parse().ok()).unwrap_or(0);
            let cycles = u64::try_from(cycles.split_whitespace().count()).unwrap_or(u64::MAX);
            self.listed.entry(thread).or_insert(cycles.saturating_add(others));
        } else if name == "Break value" {
            self.broken_at = Some(printable(values.trim()));
        }
        Ok(())
    }

    /// The columns of the table as distributions, named by their number.
    fn threads(self) -> Result<Vec<(String, Distribution)>, Wrong> {
        let Self { rows, summary: [totals, mins, maxes, overflows], listed, .. } = self;
        let end = |name: &str| Wrong::whole(format!("has no line \"# {name}:\": it is cut off"));
        let mins = mins.ok_or_else(|| end(SUMMARY[1]))?;
        let maxes = maxes.ok_or_else(|| end(SUMMARY[2]))?;
        let overflows = overflows.ok_or_else(|| end(SUMMARY[3]))?;
        // With -H all lines but the minima may have one more column, the sum; which do depends on the version.
        let threads = mins.len();
        let columns = [Some(maxes.len()), Some(overflows.len()), totals.as_ref().map(Vec::len)].into_iter().flatten();
        if columns.chain(rows.first().map(|(_, row)| row.len())).any(|columns| columns < threads) {
            return Err(Wrong::whole(format!("has minima of {threads} threads, but fewer columns elsewhere")));
        }
        let top = rows.last().map_or(0, |(us, _)| us.saturating_add(1));
        let mut all = Vec::new();
        for thread in 0..threads {
            let column = ThreadColumn {
                thread,
                rows: rows.iter().map(|(us, counts)| (*us, counts[thread])).filter(|(_, n)| *n > 0).collect(),
                total: totals.as_ref().map(|totals| totals[thread]),
                min: mins[thread],
                max: maxes[thread],
                overflows: overflows[thread],
                listed: listed.get(&thread).copied(),
            };
            column.check()?;
            all.push((thread.to_string(), column.distribution(top).in_ns(1000)));
        }
        Ok(all)
    }
}

/// A thread's part of the table.
struct ThreadColumn {
    thread: usize,
    /// Rows with a count.
    rows: Vec<(u64, u64)>,
    total: Option<u64>,
    min: u64,
    max: u64,
    overflows: u64,
    listed: Option<u64>,
}

impl ThreadColumn {
    fn counted(&self) -> u64 {
        self.rows.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// Whether all of it is there: the total says so, or else the ends of what is there.
    fn check(&self) -> Result<(), Wrong> {
        let Self { thread, rows, total, min, max, overflows, listed } = self;
        let counted = self.counted();
        if (counted > 0 || *overflows > 0) && min > max {
            return Err(Wrong::whole(format!("the minimum of thread {thread} is larger than its maximum")));
        }
        if let Some(total) = total {
            return if counted == *total {
                Ok(())
            } else {
                Err(Wrong::whole(format!("the rows of thread {thread} add up to {counted}, its total says {total}")))
            };
        }
        if listed.is_none_or(|listed| listed != *overflows) {
            let found = listed.map_or("none".to_owned(), |listed| listed.to_string());
            return Err(Wrong::whole(format!(
                "of the {overflows} overflows of thread {thread} its line \"# Thread {thread}:\" lists {found}: it is cut off"
            )));
        }
        let lost = |rows: &str, extreme: &str| {
            Err(Wrong::whole(format!("the rows of thread {thread} {rows} us, and its {extreme}: rows are missing")))
        };
        match (rows.first(), rows.last()) {
            (Some((first, _)), _) if first != min => lost(&format!("begin at {first}"), &format!("minimum is {min}")),
            (_, Some((last, _))) if last > max || (*overflows == 0 && last != max) => {
                lost(&format!("end at {last}"), &format!("maximum is {max}"))
            }
            _ => Ok(()),
        }
    }

    /// Latencies of `top` us and more are overflows.
    fn distribution(&self, top: u64) -> Distribution {
        let mut distribution = Distribution::default();
        for (us, n) in &self.rows {
            distribution.add(*us, us.saturating_add(1), *n);
        }
        distribution.add(top, self.max, self.overflows);
        if self.counted() > 0 || self.overflows > 0 {
            distribution.widen(self.min, self.max);
        }
        distribution
    }
}

fn numbers(n: usize, text: &str) -> Result<Vec<u64>, Wrong> {
    text.split_whitespace().map(|cell| number(n, cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cyclictest;
    use super::*;
    use crate::gate::{LatencySignal, Metric};

    fn histogram(text: &str) -> Result<Run, Wrong> {
        parse(Path::new("f"), text)
    }

    /// What rt-tests 2.6 and later write: no totals, no rows without a count.
    const WITHOUT_TOTALS: &str = "# Histogram\n000011 000002\t000000\n000012 000700\t000005\n000014 000001\t000640\n\
                                  000019 000003\t000001\n# Min Latencies: 00011 00012\n# Avg Latencies: 00012 00014\n\
                                  # Max Latencies: 00019 00333\n# Histogram Overflows: 00000 00003\n\
                                  # Histogram Overflow at cycle number:\n# Thread 0: \n# Thread 1: 00017 00408 # 00001 others\n\n";

    #[test]
    fn a_table_without_totals_and_empty_rows_is_read() {
        let run = histogram(WITHOUT_TOTALS).unwrap();
        let all = run.figures("cyclictest", LatencySignal::Timer);
        assert_eq!((all.count, all.min_ns, all.max_ns), (706 + 646 + 3, 11_000, 333_000));
        let second = run.figures("cyclictest:1", LatencySignal::Timer);
        assert_eq!((second.count, second.min_ns, second.max_ns), (649, 12_000, 333_000));
        assert!((14_000..15_000).contains(&second.get(Metric::P50).unwrap()), "{second:?}");
        assert!(run.notes.is_empty());
    }

    #[test]
    fn sums_stand_where_the_version_has_them() {
        let several = WITHOUT_TOTALS
            .replace("000002\t000000", "000002\t000000\t000002")
            .replace("000700\t000005", "000700\t000005\t000705")
            .replace("000001\t000640", "000001\t000640\t000641")
            .replace("000003\t000001", "000003\t000001\t000004")
            .replace("Max Latencies: 00019 00333", "Max Latencies: 00019 00333 00333")
            .replace("Overflows: 00000 00003", "Overflows: 00000 00003 00003");
        assert_eq!(histogram(&several).unwrap().series, histogram(WITHOUT_TOTALS).unwrap().series);
        // -H of a single thread: of rt-tests 2.10 the rows alone have a sum.
        let single = "# Histogram\n000008 000041\t000041\n000009 000006\t000006\n# Min Latencies: 00008\n\
                      # Avg Latencies: 00008\n# Max Latencies: 00009\n# Histogram Overflows: 00000\n\
                      # Histogram Overflow at cycle number:\n# Thread 0:\n";
        let run = histogram(single).unwrap();
        assert_eq!((run.series.len(), run.figures("cyclictest", LatencySignal::Timer).count), (1, 47));
    }

    #[test]
    fn a_table_without_totals_that_lost_something_is_refused() {
        for (from, to, said) in [
            ("# Thread 1: 00017 00408 # 00001 others\n\n", "", "of the 3 overflows of thread 1 its line"),
            ("00408 # 00001 others\n\n", "", "lists 1: it is cut off"),
            ("# Thread 0: \n", "", "of thread 0 its line \"# Thread 0:\" lists none"),
            ("000011 000002\t000000\n", "", "rows of thread 0 begin at 12 us, and its minimum is 11: rows are missing"),
            ("000019 000003\t000001\n", "", "rows of thread 0 end at 14 us, and its maximum is 19: rows are missing"),
            ("# Max Latencies: 00019 00333\n", "", "no line \"# Max Latencies:\""),
            ("# Histogram Overflows: 00000 00003", "# Histogram Overflows: 00000", "fewer columns"),
            ("000014 000001\t000640", "oops", "line 4: this is no row of the table"),
        ] {
            let damaged = WITHOUT_TOTALS.replacen(from, to, 1);
            assert_ne!(damaged, WITHOUT_TOTALS);
            let wrong = histogram(&damaged).unwrap_err();
            let text = format!("{}: {}", wrong.place.unwrap_or_default(), wrong.what);
            assert!(text.contains(said), "{said}: {text}");
        }
        let end = WITHOUT_TOTALS.find("00408").unwrap();
        for cut in "# Histogram\n".len()..end {
            assert!(histogram(&WITHOUT_TOTALS[..cut]).is_err(), "{}", &WITHOUT_TOTALS[..cut]);
        }
    }

    #[test]
    fn what_follows_the_table_in_a_log_is_passed_over() {
        let clean = include_str!("../testdata/cyclictest-2.40-h60.txt");
        let noise = "\nreal\t0m5.021s\n000001 2 3 4\n# Total: all of it\n# Max Latencies: 7\n[ 12.3] oom\n";
        for text in [clean, WITHOUT_TOTALS] {
            let (alone, noisy) = (histogram(text).unwrap(), histogram(&format!("{text}{noise}")).unwrap());
            assert_eq!(alone.series, noisy.series);
        }
    }

    #[test]
    fn a_run_that_a_latency_ended_says_so() {
        let text = format!("{WITHOUT_TOTALS}# Thread Ids: 00411 00412\n# Break thread: 412\n# Break value: 333\n");
        assert_eq!(histogram(&text).unwrap().notes, ["-b ended it, at a latency of 333"]);
    }

    #[test]
    fn json_and_table_of_one_run_agree() {
        let table = histogram(include_str!("../testdata/cyclictest-2.40-h60.txt")).unwrap();
        let json =
            cyclictest::json(Path::new("f"), include_str!("../testdata/cyclictest-2.40-h60.json"), false).unwrap();
        for workload in ["cyclictest", "cyclictest:0"] {
            let (a, b) = (table.figures(workload, LatencySignal::Timer), json.figures(workload, LatencySignal::Timer));
            assert_eq!((a.min_ns, a.p50_ns, a.max_ns), (b.min_ns, b.p50_ns, b.max_ns), "{workload}");
            // cyclictest's own count of cycles may be a few more than what its table holds.
            assert!(a.count.abs_diff(b.count) <= 5, "{workload}: {a:?} {b:?}");
        }
        let all = table.figures("cyclictest", LatencySignal::Timer);
        assert_eq!((all.count, all.min_ns, all.max_ns), (3997, 9_000, 1_006_000));
        // 118 of 3997 lie beyond the table, so the 99th percentile is between its end and the largest.
        assert!((60_000..1_006_000).contains(&all.get(Metric::P99).unwrap()), "{all:?}");
    }

    #[test]
    fn the_sum_column_of_h_is_no_thread() {
        let run = histogram(include_str!("../testdata/cyclictest-2.40-H500.txt")).unwrap();
        let names: Vec<&str> = run.series.keys().map(|series| series.workload.as_str()).collect();
        assert_eq!(names, ["cyclictest", "cyclictest:0", "cyclictest:1"]);
        assert_eq!(run.figures("cyclictest", LatencySignal::Timer).count, 1995 + 1976 + 4);
    }

    #[test]
    fn a_damaged_table_is_refused_at_its_line() {
        let good = "# Histogram\n000000 000001\n000001 000002\n# Total: 000000003\n# Min Latencies: 00000\n# Avg Latencies: 00001\n\
                    # Max Latencies: 00001\n# Histogram Overflows: 00000\n";
        assert!(histogram(good).is_ok());
        for (from, to, said) in [
            ("000001 000002", "000001 00000x", "line 3: \"00000x\" is no count"),
            ("000001 000002", "000001", "line 3: 0 counts"),
            ("000001 000002", "000000 000002", "line 3: 0 us is not more"),
            ("# Total: 000000003", "# Total: 000000004", "add up to 3, its total says 4"),
            ("# Histogram Overflows: 00000\n", "", "no line \"# Histogram Overflows:\""),
            ("# Histogram Overflows: 00000\n", "# Histogram Overflows: 000", "line 8: the line is cut off"),
            ("# Min Latencies: 00000", "# Min Latencies: 00009", "larger than its maximum"),
            ("# Min Latencies: 00000", "# Min Latencies: 00000 00000", "fewer columns"),
        ] {
            let wrong = histogram(&good.replace(from, to)).unwrap_err();
            let text = format!("{}: {}", wrong.place.unwrap_or_default(), wrong.what);
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
