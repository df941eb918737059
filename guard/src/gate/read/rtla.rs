//! The tables of `rtla timerlat hist` and `rtla osnoise hist`, as rtla 5.17 to 6.18 write them; later ones add columns and
//! a summary over all CPUs. Where a threshold ends the measurement, the analysis follows below.

use std::collections::BTreeMap;
use std::path::Path;

use crate::gate::distribution::Distribution;
use crate::gate::error::{MIXED, Wrong, number};
use crate::gate::facts::{Fact, RunFacts};
use crate::gate::metric::LatencySignal;
use crate::gate::run::{Collected, Run, id_of};

/// A column: stage ("IRQ", "Thr", "Usr", "CPU") and CPU.
type StageOfCpu = (String, String);

/// What the line above the table begins with; it may be glued to what another wrote before it.
pub(super) const TITLE: &str = "# RTLA ";

/// What the line below it begins with.
pub(super) const UNIT: &str = "# Time unit is ";

/// The lines below the histogram that are needed, in their order.
const SUMMARY: [&str; 4] = ["over", "count", "min", "max"];

/// What rtla writes below the table, and what it means for the run.
const REMARKS: [(&str, &str); 2] = [
    ("hit stop tracing", "its threshold ended it (-a, -i or -T)"),
    ("events missed, results might not be accurate", "rtla missed events"),
];

struct Table<'a> {
    tool: &'a str,
    unit_ns: u64,
    columns: Vec<StageOfCpu>,
    /// Latency and counts.
    rows: Vec<(u64, Vec<u64>)>,
    /// Cells of the lines in [`SUMMARY`].
    summary: BTreeMap<&'static str, Vec<&'a str>>,
    summary_line: usize,
}

/// The run in one of rtla's tables.
pub(super) fn parse(path: &Path, text: &str) -> Result<Run, Wrong> {
    let table = read(text)?;
    // The table does not say how wide its buckets are; all begin at a multiple of the width.
    let width = table.rows.iter().fold(0, |width, (value, _)| gcd(width, *value)).max(1);
    let end = table.rows.last().map_or(0, |(value, _)| value.saturating_add(width));
    let last_stage = if table.columns.iter().any(|(stage, _)| stage == "Usr") { "Usr" } else { "Thr" };
    let mut collected = Collected::default();
    for (n, (stage, cpu)) in table.columns.iter().enumerate() {
        let signal = match stage.as_str() {
            "IRQ" => LatencySignal::Irq,
            "CPU" => LatencySignal::Noise,
            stage if stage == last_stage => LatencySignal::Timer,
            "Thr" => continue,
            other => return Err(Wrong::line(table.summary_line, format!("{other:?} is no stage that is known"))),
        };
        let distribution = table.distribution(n, width, end)?;
        collected.add(table.tool, signal, false, &distribution);
        collected.add(&format!("{}:{cpu}", table.tool), signal, true, &distribution);
    }
    let series = collected.figures();
    if series.is_empty() {
        return Err(Wrong::whole("no CPU has counted anything"));
    }
    let mut facts = RunFacts::default();
    facts.set(Fact::Instrument, &format!("rtla {}", table.tool));
    if table.tool == "timerlat" {
        facts.set(Fact::Options, if last_stage == "Usr" { "until user" } else { "until thread" });
    }
    let notes = REMARKS.iter().filter(|(said, _)| text.contains(said)).map(|(_, note)| (*note).to_owned()).collect();
    Ok(Run { source: path.display().to_string(), id: id_of(text), at: None, facts, series, notes })
}

fn read(text: &str) -> Result<Table<'_>, Wrong> {
    let mut lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    let title = |line: &'_ str| line.find(TITLE).map(|at| at + TITLE.len());
    let (first, title) = lines.find_map(|(n, line)| Some((n, &line[title(line)?..]))).unwrap_or((1, ""));
    let tool = match title.split_whitespace().collect::<Vec<_>>().as_slice() {
        [tool @ ("timerlat" | "osnoise"), "histogram"] => *tool,
        _ => return Err(Wrong::line(first, "want \"# RTLA timerlat histogram\" or \"# RTLA osnoise histogram\"")),
    };
    let mut unit_ns = None;
    let mut columns = None;
    for (n, line) in lines.by_ref() {
        if let Some(unit) = line.strip_prefix(UNIT) {
            unit_ns = Some(match unit.trim() {
                "microseconds (us)" => 1000,
                "nanoseconds (ns)" => 1,
                other => return Err(Wrong::line(n, format!("{other:?} is no unit; want us or ns"))),
            });
        }
        if let Some(names) = line.strip_prefix("Index") {
            columns = Some(names.split_whitespace().map(|name| column(n, name)).collect::<Result<Vec<_>, _>>()?);
            break;
        }
        if ["IRQ-", "Thr-", "Usr-", "CPU-"].iter().any(|stage| line.trim_start().starts_with(stage)) {
            return Err(Wrong::line(n, "the rows do not say their latency; record without --no-index"));
        }
    }
    let columns = columns.ok_or_else(|| Wrong::whole("has no line that begins with \"Index\": it is cut off"))?;
    let unit_ns = unit_ns.ok_or_else(|| Wrong::whole("has no line \"# Time unit is …\""))?;
    let mut table = Table { tool, unit_ns, columns, rows: Vec::new(), summary: BTreeMap::new(), summary_line: first };
    for (n, line) in lines {
        table.line(n, line)?;
        // The last line of the summary; what follows is of all CPUs together, or of the event that ended it.
        if table.summary.contains_key(SUMMARY[3]) {
            break;
        }
    }
    Ok(table)
}

fn column(line: usize, name: &str) -> Result<StageOfCpu, Wrong> {
    let (stage, cpu) = name.split_once('-').ok_or_else(|| Wrong::line(line, format!("{name:?} is no column")))?;
    Ok((stage.to_owned(), number(line, cpu)?.to_string()))
}

impl<'a> Table<'a> {
    /// Takes in a line below the head.
    fn line(&mut self, n: usize, line: &'a str) -> Result<(), Wrong> {
        // A name may be glued to its first value where that is long.
        let (first, cells) = match line.split_once(':') {
            Some((name, cells)) => (name.trim(), cells),
            None => line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), "")),
        };
        let cells: Vec<&str> = cells.split_whitespace().collect();
        if line.contains(':') {
            if let Some(name) = SUMMARY.into_iter().find(|known| *known == first) {
                self.expect_columns(n, cells.len())?;
                self.summary.insert(name, cells);
                self.summary_line = n;
            }
            return Ok(());
        }
        if first.is_empty() {
            return Ok(());
        }
        let value = number(n, first).map_err(|_| Wrong::line(n, MIXED))?;
        if self.rows.last().is_some_and(|(before, _)| value <= *before) {
            return Err(Wrong::line(n, format!("{value} is not more than the line above has")));
        }
        self.expect_columns(n, cells.len())?;
        let counts = cells.iter().map(|cell| number(n, cell)).collect::<Result<Vec<_>, _>>()?;
        self.rows.push((value, counts));
        Ok(())
    }

    fn expect_columns(&self, n: usize, found: usize) -> Result<(), Wrong> {
        let columns = self.columns.len();
        // Without any, each line of the summary still has a 0.
        if columns == 0 || found == columns {
            Ok(())
        } else {
            Err(Wrong::line(n, format!("{found} columns, the head has {columns}")))
        }
    }

    fn distribution(&self, column: usize, width: u64, end: u64) -> Result<Distribution, Wrong> {
        let cell = |name: &'static str| {
            let cells = self.summary.get(name);
            cells
                .ok_or_else(|| {
                    Wrong::whole(format!("has no line \"{name}:\": it is cut off, or was made with --no-summary"))
                })
                .map(|cells| cells[column])
        };
        let (over, count) = (number(self.summary_line, cell("over")?)?, number(self.summary_line, cell("count")?)?);
        let (min, max) = (cell("min")?, cell("max")?);
        let mut distribution = Distribution::default();
        if count == 0 {
            return Ok(distribution);
        }
        let (min, max) = (number(self.summary_line, min)?, number(self.summary_line, max)?);
        if min > max {
            return Err(Wrong::line(self.summary_line, format!("the minimum {min} is larger than the maximum {max}")));
        }
        // One may fall between the two: rtla reads the counters while the last latency is counted.
        let counted = self.rows.iter().fold(over, |sum, (_, counts)| sum.saturating_add(counts[column]));
        if counted.abs_diff(count) > 1 {
            let (stage, cpu) = &self.columns[column];
            return Err(Wrong::line(
                self.summary_line,
                format!("{stage} of CPU {cpu}: the rows add up to {counted}, its count is {count}: rows are missing"),
            ));
        }
        for (value, counts) in &self.rows {
            distribution.add(*value, value.saturating_add(width), counts[column]);
        }
        distribution.add(end, max, over);
        distribution.widen(min, max);
        Ok(distribution.in_ns(self.unit_ns))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timerlat_of_a_guest_is_read() {
        let run = parse(Path::new("f"), include_str!("../testdata/rtla-6.1-timerlat.txt")).unwrap();
        let irq = run.figures("timerlat:0", LatencySignal::Irq);
        assert_eq!((irq.count, irq.min_ns, irq.max_ns), (1130, 6_000, 24_130_000));
        let all = run.figures("timerlat", LatencySignal::Timer);
        assert_eq!((all.count, all.min_ns, all.max_ns), (2250, 56_000, 28_982_000));
        assert_eq!(run.facts.get(Fact::Options), Some("until thread"));
    }

    #[test]
    fn nanoseconds_and_wide_buckets_are_read() {
        let run = parse(Path::new("f"), include_str!("../testdata/rtla-6.1-timerlat-nano.txt")).unwrap();
        let irq = run.figures("timerlat:0", LatencySignal::Irq);
        assert_eq!((irq.count, irq.min_ns, irq.max_ns), (297, 136_247, 17_124_114));
        assert!(!irq.p50_ns.unwrap().is_multiple_of(20_000), "spread within its bucket: {irq:?}");
    }

    #[test]
    fn osnoise_is_read() {
        let run = parse(Path::new("f"), include_str!("../testdata/rtla-6.1-osnoise.txt")).unwrap();
        assert_eq!(run.figures("osnoise", LatencySignal::Noise).max_ns, 57_301_000);
        assert_eq!(run.figures("osnoise:1", LatencySignal::Noise).p50_ns, Some(1_612));
    }

    #[test]
    fn a_later_version_with_user_threads_and_totals_is_read() {
        let text = "# RTLA timerlat histogram\n# Time unit is microseconds (us)\n# Duration:   0 00:00:08\n\
                    Index   IRQ-000   Thr-000   Usr-000\n40  1  0  0\n50  3  2  4\nover: 0 2 0\ncount: 4 4 4\nmin: 40 50 50\n\
                    avg: 45 60 55\nmax: 51 90 59\nALL: IRQ Thr Usr\ncount: 4 4 4\n";
        let run = parse(Path::new("f"), text).unwrap();
        assert_eq!(run.figures("timerlat", LatencySignal::Timer).max_ns, 59_000);
        assert_eq!(run.facts.get(Fact::Options), Some("until user"));
    }

    /// As of 6.8 and later when a latency ends it, with the analysis below.
    const STOPPED: &str = "# RTLA timerlat histogram\n# Time unit is microseconds (us)\n# Duration:   0 00:01:12\n\
                           Index   IRQ-003   Thr-003\n0         7001        12 \n1           55      7013 \n27           0         1 \n\
                           over:         0         0 \ncount:     7056      7026 \nmin:          0         0 \n\
                           avg:          0         1 \nmax:          1        27 \n";
    const ANALYSIS: &str = "rtla timerlat hit stop tracing\n## CPU 3 hit stop tracing, analyzing it ##\n  IRQ handler delay:\t\t\t\
                            9.12 us (33.51 %)\n  Blocking thread:\n\t\t    kworker/3:1:77     \t\t\t3.00 us\n    Blocking thread stack trace\n\
                            \t\t-> timerlat_irq\n------------------------------------------------------------------------\n  Thread \
                            latency:\t\t\t\t27.21 us (100%)\n\nMax timerlat IRQ latency from idle: 4.11 us in cpu 3\n  Saving trace to \
                            timerlat_trace.txt\n";

    #[test]
    fn what_follows_the_summary_is_passed_over_and_a_threshold_is_noted() {
        let plain = parse(Path::new("f"), STOPPED).unwrap();
        assert!(plain.notes.is_empty());
        assert_eq!(plain.figures("timerlat", LatencySignal::Timer).max_ns, 27_000);
        let totals = "ALL:         IRQ       Thr\ncount:     7056      7026 \nmin:          0         0 \n";
        for below in [ANALYSIS.to_owned(), format!("{totals}{ANALYSIS}"), format!("\n{ANALYSIS}{totals}")] {
            let stopped = parse(Path::new("f"), &format!("{STOPPED}{below}")).unwrap();
            assert_eq!(stopped.series, plain.series);
            assert_eq!(stopped.notes, ["its threshold ended it (-a, -i or -T)"]);
        }
        let above = parse(Path::new("f"), &format!("rtla timerlat hit stop tracing\n{STOPPED}")).unwrap();
        assert_eq!(above.notes.len(), 1);
        let missed = format!("{STOPPED}18 events missed, results might not be accurate\n");
        assert_eq!(parse(Path::new("f"), &missed).unwrap().notes, ["rtla missed events"]);
    }

    #[test]
    fn a_title_that_is_glued_to_other_output_is_found() {
        let plain = parse(Path::new("f"), STOPPED).unwrap();
        for glued in ["1", "warming up...", "0\n12"] {
            assert_eq!(parse(Path::new("f"), &format!("{glued}{STOPPED}")).unwrap().series, plain.series, "{glued}");
        }
    }

    #[test]
    fn a_long_value_may_touch_its_name_and_a_stage_may_be_missing() {
        let text = "# RTLA timerlat histogram\n# Time unit is nanoseconds (ns)\nIndex   IRQ-000\n0     123456789 \n\
                    over: 1234567890 \ncount:1358024679 \nmin:        811 \navg:        902 \nmax:   91827364 \n";
        let run = parse(Path::new("f"), text).unwrap();
        assert_eq!(run.figures("timerlat", LatencySignal::Irq).count, 1_358_024_679);
        assert_eq!(run.series.len(), 2, "--no-thread");
    }

    #[test]
    fn a_measurement_without_noise_says_so() {
        let text = "# RTLA osnoise histogram\n# Time unit is microseconds (us)\n# Duration:   0 00:00:05\nIndex\n\
                    over: 0\ncount: 0\nmin: 0\navg: 0\nmax: 0\n";
        assert_eq!(parse(Path::new("f"), text).unwrap_err().what, "no CPU has counted anything");
    }

    #[test]
    fn a_cpu_that_counted_nothing_at_a_stage_is_left_out() {
        let text = "# RTLA timerlat histogram\n# Time unit is microseconds (us)\nIndex   IRQ-000   Thr-000   Usr-000\n3           9         9         0 \n\
                    over:         0         0         0 \ncount:        9         9         0 \nmin:          3         3         - \n\
                    avg:          3         3         - \nmax:          3         3         - \n";
        let run = parse(Path::new("f"), text).unwrap();
        assert_eq!(run.series.keys().map(|series| series.signal.as_str()).collect::<Vec<_>>(), ["irq", "irq"]);
    }

    #[test]
    fn damage_is_refused_at_its_line() {
        let good = "# RTLA timerlat histogram\n# Time unit is microseconds (us)\nIndex IRQ-000\n40 2\n50 3\nover: 0\ncount: 5\n\
                    min: 40\nmax: 51\n";
        for good in [good, &good.replace("40 2", "40 1"), &good.replace("40 2", "40 3")] {
            assert!(parse(Path::new("f"), good).is_ok(), "one latency may be counted while rtla reads: {good}");
        }
        for (from, to, said) in [
            ("microseconds (us)", "fortnights", "line 2"),
            ("timerlat histogram", "timerlat top", "line 1"),
            ("IRQ-000", "IRQ", "line 3"),
            ("50 3", "50 3 4", "line 5: 2 columns"),
            ("50 3", "5 3", "line 5: 5 is not more"),
            ("50 3", "50 x", "line 5: \"x\""),
            ("max: 51\n", "", "no line \"max:\""),
            ("Index IRQ-000", "   IRQ-000", "line 3: the rows do not say their latency; record without --no-index"),
            (
                "over: 0\ncount: 5\nmin: 40\nmax: 51\n",
                "",
                "no line \"over:\": it is cut off, or was made with --no-summary",
            ),
            ("40 2\n", "", "IRQ of CPU 0: the rows add up to 3, its count is 5"),
            ("50 3", "rtla: 3", "the rows add up to 2, its count is 5"),
            ("max: 51", "max: 4", "larger than the maximum"),
        ] {
            let wrong = parse(Path::new("f"), &good.replace(from, to)).unwrap_err();
            let text = format!("{}: {}", wrong.place.unwrap_or_default(), wrong.what);
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
