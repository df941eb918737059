//! What cyclictest writes: `--json=FILE`, and the histogram of `-h`, `-H` and `--histfile=FILE`. Read as cyclictest 2.40
//! of rt-tests writes them, stray colons in the keys of the JSON included; also what guard writes in their form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::gate::distribution::Distribution;
use crate::gate::error::{Wrong, number};
use crate::gate::facts::{Fact, RunFacts};
use crate::gate::run::{Collected, Run, id_of};

const WORKLOAD: &str = "cyclictest";
const SIGNAL: &str = "timer";

/// The version of its JSON that cyclictest has written since it has any.
const FILE_VERSION: u64 = 1;

#[derive(Deserialize)]
struct Json {
    #[serde(rename = "cmdline:", alias = "cmdline")]
    cmdline: Option<String>,
    start_time: Option<String>,
    sysinfo: Option<SysInfo>,
    /// 1 when the figures are ns (-N), 0 when they are us.
    #[serde(default)]
    resolution_in_ns: u64,
    thread: BTreeMap<String, Thread>,
}

#[derive(Deserialize)]
struct SysInfo {
    release: Option<String>,
    machine: Option<String>,
    realtime: Option<u64>,
}

#[derive(Deserialize)]
struct Thread {
    #[serde(default)]
    histogram: BTreeMap<String, u64>,
    cycles: u64,
    min: u64,
    max: u64,
}

/// The text with null where cyclictest writes no JSON: the average of a thread that never woke is "nan" or "-nan".
pub(super) fn with_json_for_nan(text: &str) -> Cow<'_, str> {
    let averages = ["\"avg\": -nan", "\"avg\": nan"];
    if !averages.iter().any(|average| text.contains(average)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(averages.iter().fold(text.to_owned(), |text, average| text.replace(average, "\"avg\": null")))
}

/// The run in cyclictest's JSON.
pub(super) fn json(path: &Path, text: &str) -> Result<Run, Wrong> {
    #[derive(Deserialize)]
    struct Version {
        file_version: u64,
    }
    let Version { file_version } = serde_json::from_str(text).map_err(|error| Wrong::json(&error, 1))?;
    if file_version != FILE_VERSION {
        return Err(Wrong::whole(format!(
            "has version {file_version} of cyclictest's JSON; only {FILE_VERSION} is known"
        )));
    }
    let json: Json = serde_json::from_str(text).map_err(|error| Wrong::json(&error, 1))?;
    let unit_ns = if json.resolution_in_ns == 0 { 1000 } else { 1 };
    let mut threads = Vec::new();
    for (name, thread) in &json.thread {
        let distribution =
            thread.distribution(unit_ns).map_err(|what| Wrong::whole(format!("thread {name:?}: {what}")))?;
        threads.push((name.clone(), distribution));
    }
    let mut facts = RunFacts::default();
    let cmdline = json.cmdline.unwrap_or_default();
    facts.set(Fact::Instrument, instrument(&cmdline));
    facts.set(Fact::Options, &options(&cmdline));
    if let Some(system) = json.sysinfo {
        facts.set(Fact::Kernel, &system.release.unwrap_or_default());
        facts.set(Fact::Arch, &system.machine.unwrap_or_default());
        facts.set(Fact::Realtime, system.realtime.map_or("", |n| if n == 0 { "no" } else { "yes" }));
    }
    let at = json.start_time.and_then(|at| jiff::fmt::rfc2822::parse(&at).ok()).map(|at| at.timestamp().to_string());
    run(path, text, at, facts, &threads)
}

impl Thread {
    fn distribution(&self, unit_ns: u64) -> Result<Distribution, String> {
        let mut distribution = Distribution::default();
        let (mut counted, mut end) = (0_u64, 0_u64);
        for (value, n) in &self.histogram {
            let value: u64 = value.parse().map_err(|_| format!("the histogram has a latency {value:?}"))?;
            distribution.add(value.saturating_mul(unit_ns), value.saturating_add(1).saturating_mul(unit_ns), *n);
            counted = counted.saturating_add(*n);
            end = end.max(value.saturating_add(1));
        }
        if self.cycles == 0 {
            return Ok(distribution);
        }
        if self.min > self.max {
            return Err(format!("min {} is larger than max {}", self.min, self.max));
        }
        distribution.widen(self.min.saturating_mul(unit_ns), self.max.saturating_mul(unit_ns));
        let overflows = self.cycles.saturating_sub(counted);
        if self.histogram.is_empty() {
            distribution.add_uncounted(self.cycles);
        } else {
            // Where the histogram ends is not said: somewhere from its last latency on.
            distribution.add(end.saturating_mul(unit_ns), self.max.saturating_mul(unit_ns), overflows);
        }
        Ok(distribution)
    }
}

/// Who wrote JSON of this form. guard's probe measures as cyclictest does.
fn instrument(cmdline: &str) -> &str {
    let program = cmdline.split_whitespace().next().unwrap_or_default();
    match program.rsplit('/').next() {
        None | Some("" | "guard") => WORKLOAD,
        Some(name) => name,
    }
}

/// The options that change what is measured: without where the output goes, how long it took, and how far the histogram
/// reaches.
fn options(cmdline: &str) -> String {
    let passing = ["--json", "--histfile", "--fifo", "--duration", "--loops", "--histogram", "--histofall"];
    let passing_short = ["-F", "-D", "-l", "-h", "-H"];
    let mut words = cmdline.split_whitespace().skip(1).filter(|word| *word != "probe").peekable();
    let mut lasting = Vec::new();
    while let Some(word) = words.next() {
        let is = |all: &[&str]| all.contains(&word);
        if is(&passing) || is(&passing_short) {
            words.next_if(|value| !value.starts_with('-'));
        } else if !(is(&["-q", "--quiet", "-v", "--verbose", "-u", "--unbuffered"])
            || passing.iter().any(|long| word.strip_prefix(long).is_some_and(|rest| rest.starts_with('=')))
            || passing_short.iter().any(|short| word.starts_with(short)))
        {
            lasting.push(word);
        }
    }
    lasting.join(" ")
}

/// The run in cyclictest's table. Its unit is taken to be us: the table does not say when it was made with -N.
pub(super) fn histogram(path: &Path, text: &str) -> Result<Run, Wrong> {
    let mut table = Table::default();
    let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim_end() != "# Histogram").skip(1);
    for (n, line) in lines {
        table.line(n + 1, line)?;
    }
    let threads = table.threads()?;
    let mut facts = RunFacts::default();
    facts.set(Fact::Instrument, WORKLOAD);
    run(path, text, None, facts, &threads)
}

/// What the table says so far.
#[derive(Default)]
struct Table {
    /// (line, latency in us, counts of the threads and, with -H, their sum).
    rows: Vec<(usize, u64, Vec<u64>)>,
    totals: Option<Vec<u64>>,
    mins: Option<Vec<u64>>,
    maxes: Option<Vec<u64>>,
    overflows: Option<Vec<u64>>,
}

impl Table {
    fn line(&mut self, n: usize, line: &str) -> Result<(), Wrong> {
        let numbers = |text: &str| text.split_whitespace().map(|cell| number(n, cell)).collect::<Result<Vec<_>, _>>();
        let Some(comment) = line.strip_prefix('#') else {
            if line.trim().is_empty() {
                return Ok(());
            }
            let cells = numbers(line)?;
            let [us, counts @ ..] = cells.as_slice() else { return Ok(()) };
            let (before, columns) =
                self.rows.last().map_or((None, counts.len()), |(_, us, row)| (Some(*us), row.len()));
            if counts.is_empty() || counts.len() != columns {
                return Err(Wrong::line(n, format!("{} counts, where the lines above have {columns}", counts.len())));
            }
            if before.is_some_and(|before| *us <= before) {
                return Err(Wrong::line(n, format!("{us} us is not more than the line above has")));
            }
            self.rows.push((n, *us, counts.to_vec()));
            return Ok(());
        };
        let Some((name, values)) = comment.split_once(':') else { return Ok(()) };
        let slot = match name.trim() {
            "Total" => &mut self.totals,
            "Min Latencies" => &mut self.mins,
            "Max Latencies" => &mut self.maxes,
            "Histogram Overflows" => &mut self.overflows,
            _ => return Ok(()),
        };
        *slot = Some(numbers(values)?);
        Ok(())
    }

    /// The columns of the table as distributions, named by their number.
    fn threads(self) -> Result<Vec<(String, Distribution)>, Wrong> {
        let end = |name: &str| Wrong::whole(format!("has no line \"# {name}:\": it is cut off"));
        let totals = self.totals.ok_or_else(|| end("Total"))?;
        let mins = self.mins.ok_or_else(|| end("Min Latencies"))?;
        let maxes = self.maxes.ok_or_else(|| end("Max Latencies"))?;
        let overflows = self.overflows.ok_or_else(|| end("Histogram Overflows"))?;
        // With -H all lines but the minima have one more column, the sum; of the rows only if there are several threads.
        let threads = mins.len();
        let short = [totals.len(), maxes.len(), overflows.len()].into_iter().any(|columns| columns < threads);
        if short || self.rows.first().is_some_and(|(_, _, row)| row.len() < threads) {
            return Err(Wrong::whole(format!("has minima of {threads} threads, but fewer columns elsewhere")));
        }
        let top = self.rows.last().map_or(0, |(_, us, _)| us.saturating_add(1));
        let mut all = Vec::new();
        for thread in 0..threads {
            let mut distribution = Distribution::default();
            let mut counted = 0_u64;
            for (_, us, counts) in &self.rows {
                distribution.add(us.saturating_mul(1000), us.saturating_add(1).saturating_mul(1000), counts[thread]);
                counted = counted.saturating_add(counts[thread]);
            }
            if counted != totals[thread] {
                let total = totals[thread];
                return Err(Wrong::whole(format!(
                    "the rows of thread {thread} add up to {counted}, its total says {total}"
                )));
            }
            let max_ns = maxes[thread].saturating_mul(1000);
            distribution.add(top.saturating_mul(1000), max_ns, overflows[thread]);
            if counted > 0 || overflows[thread] > 0 {
                if mins[thread] > maxes[thread] {
                    return Err(Wrong::whole(format!("the minimum of thread {thread} is larger than its maximum")));
                }
                distribution.widen(mins[thread].saturating_mul(1000), max_ns);
            }
            all.push((thread.to_string(), distribution));
        }
        Ok(all)
    }
}

fn run(
    path: &Path,
    text: &str,
    at: Option<String>,
    facts: RunFacts,
    threads: &[(String, Distribution)],
) -> Result<Run, Wrong> {
    let mut collected = Collected::default();
    for (name, distribution) in threads {
        collected.add(WORKLOAD, SIGNAL, false, distribution);
        if threads.len() > 1 {
            collected.add(&format!("{WORKLOAD}:{name}"), SIGNAL, true, distribution);
        }
    }
    let series = collected.figures();
    if series.is_empty() {
        return Err(Wrong::whole("no thread has counted anything"));
    }
    Ok(Run { source: path.display().to_string(), id: id_of(text), at, facts, series, notes: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Figures, Metric};

    fn figures(run: &Run, workload: &str) -> Figures {
        let found = run.series.iter().find(|(series, _)| series.workload == workload);
        found.unwrap_or_else(|| panic!("{workload} in {:?}", run.series.keys())).1.figures.clone()
    }

    fn p() -> &'static Path {
        Path::new("f")
    }

    #[test]
    fn the_json_of_a_guest_is_read_with_its_facts() {
        let run = json(p(), include_str!("../testdata/cyclictest-2.40.json")).unwrap();
        assert_eq!(run.facts.get(Fact::Kernel), Some("6.12.117+deb12-rt-amd64"));
        assert_eq!(run.facts.get(Fact::Realtime), Some("yes"));
        assert_eq!(run.facts.get(Fact::Options), Some("-m -S -p95 -i10000"));
        assert_eq!(run.facts.get(Fact::CpuModel), None);
        assert!(run.at.unwrap().starts_with("2026-11-24T00:30:34"));
        assert_eq!(run.series.len(), 3, "two threads and both together");
    }

    #[test]
    fn json_and_table_of_one_run_agree() {
        let table = histogram(p(), include_str!("../testdata/cyclictest-2.40-h60.txt")).unwrap();
        let json = json(p(), include_str!("../testdata/cyclictest-2.40-h60.json")).unwrap();
        for workload in ["cyclictest", "cyclictest:0"] {
            let (a, b) = (figures(&table, workload), figures(&json, workload));
            assert_eq!((a.min_ns, a.p50_ns, a.max_ns), (b.min_ns, b.p50_ns, b.max_ns), "{workload}");
            // cyclictest's own count of cycles may be a few more than what its table holds.
            assert!(a.count.abs_diff(b.count) <= 5, "{workload}: {a:?} {b:?}");
        }
        let all = figures(&table, "cyclictest");
        assert_eq!((all.count, all.min_ns, all.max_ns), (3997, 9_000, 1_006_000));
        // 118 of 3997 lie beyond the table, so the 99th percentile is between its end and the largest.
        assert!((60_000..1_006_000).contains(&all.get(Metric::P99).unwrap()), "{all:?}");
    }

    #[test]
    fn the_sum_column_of_h_is_no_thread() {
        let run = histogram(p(), include_str!("../testdata/cyclictest-2.40-H500.txt")).unwrap();
        let names: Vec<&str> = run.series.keys().map(|series| series.workload.as_str()).collect();
        assert_eq!(names, ["cyclictest", "cyclictest:0", "cyclictest:1"]);
        assert_eq!(figures(&run, "cyclictest").count, 1995 + 1976 + 4);
    }

    #[test]
    fn nanoseconds_are_known_by_the_resolution_and_no_histogram_leaves_the_maximum() {
        let run = json(p(), include_str!("../testdata/cyclictest-2.40-nsecs.json")).unwrap();
        let figures = figures(&run, "cyclictest");
        assert_eq!((figures.min_ns, figures.max_ns, figures.p99_ns), (12_817, 192_021, None));
    }

    #[test]
    fn output_and_duration_are_no_part_of_how_it_was_measured() {
        assert_eq!(
            options("/usr/bin/cyclictest -q -m -t 2 -p 95 -D 5s -h400 --json=a.json --histfile b -i200 -v"),
            "-m -t 2 -p 95 -i200"
        );
        assert_eq!(instrument("/usr/bin/oslat -D 1"), "oslat");
        assert_eq!((instrument("guard probe -t1"), options("guard probe -t1").as_str()), ("cyclictest", "-t1"));
    }

    #[test]
    fn a_damaged_table_is_refused_at_its_line() {
        let good = "# Histogram\n000000 000001\n000001 000002\n# Total: 000000003\n# Min Latencies: 00000\n# Avg Latencies: 00001\n\
                    # Max Latencies: 00001\n# Histogram Overflows: 00000\n";
        assert!(histogram(p(), good).is_ok());
        for (from, to, said) in [
            ("000001 000002", "000001 00000x", "line 3: \"00000x\" is no count"),
            ("000001 000002", "000001", "line 3: 0 counts"),
            ("000001 000002", "000000 000002", "line 3: 0 us is not more"),
            ("# Total: 000000003", "# Total: 000000004", "add up to 3, its total says 4"),
            ("# Histogram Overflows: 00000\n", "", "no line \"# Histogram Overflows:\""),
            ("# Min Latencies: 00000", "# Min Latencies: 00009", "larger than its maximum"),
            ("# Min Latencies: 00000", "# Min Latencies: 00000 00000", "fewer columns"),
        ] {
            let wrong = histogram(p(), &good.replace(from, to)).unwrap_err();
            let text = format!("{}: {}", wrong.place.unwrap_or_default(), wrong.what);
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
