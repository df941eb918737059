//! The JSON of cyclictest (`--json=FILE`), as rt-tests 2.0 to 2.10 write it, stray colons in its keys included; also what
//! guard's probe writes in its form. What all of cyclictest's formats have in common stands here, too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::gate::distribution::Distribution;
use crate::gate::error::Wrong;
use crate::gate::facts::{Fact, RunFacts, printable};
use crate::gate::metric::LatencySignal;
use crate::gate::run::{Collected, Run, id_of};

/// The workload that its latencies are of, and the program that it names.
pub(super) const WORKLOAD: &str = "cyclictest";
const SIGNAL: LatencySignal = LatencySignal::Timer;

/// Why another tool's run is refused.
pub(super) const CYCLICTEST_ALONE: &str = "of the tools of rt-tests the gate judges cyclictest alone";

/// The version of its JSON that cyclictest has written since it has any.
const FILE_VERSION: u64 = 1;

/// What all tools of rt-tests write.
#[derive(Deserialize)]
struct Head {
    file_version: u64,
    #[serde(rename = "cmdline:", alias = "cmdline")]
    cmdline: Option<String>,
    return_code: Option<i64>,
}

#[derive(Deserialize)]
struct Json {
    start_time: Option<String>,
    sysinfo: Option<SysInfo>,
    /// 1 when the figures are ns (-N), 0 when they are us.
    #[serde(default)]
    resolution_in_ns: u64,
    thread: BTreeMap<String, ThreadJson>,
}

#[derive(Deserialize)]
struct SysInfo {
    release: Option<String>,
    machine: Option<String>,
    realtime: Option<u64>,
}

#[derive(Deserialize)]
struct ThreadJson {
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

/// The run in cyclictest's JSON; `more` when more JSON follows it.
pub(super) fn json(path: &Path, text: &str, more: bool) -> Result<Run, Wrong> {
    let Head { file_version, cmdline, return_code } =
        serde_json::from_str(text).map_err(|error| Wrong::json(&error, 1))?;
    if file_version != FILE_VERSION {
        return Err(Wrong::whole(format!(
            "has version {file_version} of cyclictest's JSON; only {FILE_VERSION} is known"
        )));
    }
    if more {
        return Err(Wrong::whole("holds several results; a file is one run: have cyclictest write one file per run"));
    }
    let cmdline = cmdline.unwrap_or_default();
    let instrument = instrument(&cmdline)?;
    let json: Json = serde_json::from_str(text).map_err(|error| Wrong::json(&error, 1))?;
    let unit_ns = if json.resolution_in_ns == 0 { 1000 } else { 1 };
    let mut notes = Vec::new();
    if let Some(code) = return_code.filter(|code| *code != 0) {
        notes.push(format!("{instrument} failed (return code {code}): its figures may not be of a whole run"));
    }
    let max_ns = json.thread.values().map(|thread| thread.max.saturating_mul(unit_ns)).max();
    if let Some(limit_us) = break_limit_us(&cmdline)
        && max_ns.is_some_and(|max| max > limit_us.saturating_mul(1000))
    {
        notes.push(format!("-b {limit_us} ended it, at the first latency above"));
    }
    let mut threads = Vec::new();
    for (name, thread) in &json.thread {
        let distribution = thread.distribution().map_err(|what| Wrong::whole(format!("thread {name:?}: {what}")))?;
        threads.push((name.clone(), distribution.in_ns(unit_ns)));
    }
    let mut facts = RunFacts::default();
    facts.set(Fact::Instrument, instrument);
    facts.set(Fact::Options, &options(&cmdline));
    if let Some(system) = json.sysinfo {
        facts.set(Fact::Kernel, &system.release.unwrap_or_default());
        facts.set(Fact::Arch, &system.machine.unwrap_or_default());
        facts.set(Fact::Realtime, system.realtime.map_or("", |n| if n == 0 { "no" } else { "yes" }));
    }
    let at = json.start_time.and_then(|at| jiff::fmt::rfc2822::parse(&at).ok()).map(|at| at.timestamp().to_string());
    run(path, text, at, facts, &threads, notes)
}

impl ThreadJson {
    fn distribution(&self) -> Result<Distribution, String> {
        let mut distribution = Distribution::default();
        let (mut counted, mut end) = (0_u64, 0_u64);
        for (value, n) in &self.histogram {
            let value: u64 = value.parse().map_err(|_| format!("the histogram has a latency {value:?}"))?;
            let upper = value.saturating_add(1);
            distribution.add(value, upper, *n);
            counted = counted.saturating_add(*n);
            end = end.max(upper);
        }
        if self.cycles == 0 {
            return Ok(distribution);
        }
        if self.min > self.max {
            return Err(format!("min {} is larger than max {}", self.min, self.max));
        }
        distribution.widen(self.min, self.max);
        if self.histogram.is_empty() {
            distribution.add_uncounted(self.cycles);
        } else {
            // Where the histogram ends is not said: somewhere from its last latency on.
            distribution.add(end, self.max, self.cycles.saturating_sub(counted));
        }
        Ok(distribution)
    }
}

/// Who wrote JSON of this form: cyclictest, or guard's probe, which measures as it does.
fn instrument(cmdline: &str) -> Result<&str, Wrong> {
    let program = cmdline.split_whitespace().next().unwrap_or_default();
    match program.rsplit('/').next().unwrap_or_default() {
        "guard" => Ok(WORKLOAD),
        name if name.contains(WORKLOAD) => Ok(name),
        name => {
            let who = if name.is_empty() {
                "does not say which program wrote it (\"cmdline:\")".to_owned()
            } else {
                format!("was written by {}", printable(name))
            };
            Err(Wrong::whole(format!(
                "{who}; {CYCLICTEST_ALONE}: cyclicdeadline, oslat, pmqtest, ptsematest, signaltest, sigwaittest, ssdd, \
                 svsematest and others write JSON of the same form and measure something else"
            )))
        }
    }
}

/// The latency above which cyclictest ends (-b US).
fn break_limit_us(cmdline: &str) -> Option<u64> {
    let mut words = cmdline.split_whitespace();
    while let Some(word) = words.next() {
        let value = match word {
            "-b" | "--breaktrace" => words.next()?,
            _ => match word.strip_prefix("--breaktrace=").or_else(|| word.strip_prefix("-b")) {
                Some(value) => value,
                None => continue,
            },
        };
        return value.parse().ok().filter(|us| *us > 0);
    }
    None
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

/// A run of these threads.
pub(super) fn run(
    path: &Path,
    text: &str,
    at: Option<String>,
    facts: RunFacts,
    threads: &[(String, Distribution)],
    notes: Vec<String>,
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
    Ok(Run { source: path.display().to_string(), id: id_of(text), at, facts, series, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p() -> &'static Path {
        Path::new("f")
    }

    #[test]
    fn the_json_of_a_guest_is_read_with_its_facts() {
        let run = json(p(), include_str!("../testdata/cyclictest-2.40.json"), false).unwrap();
        assert_eq!(run.facts.get(Fact::Kernel), Some("6.12.117+deb12-rt-amd64"));
        assert_eq!(run.facts.get(Fact::Realtime), Some("yes"));
        assert_eq!(run.facts.get(Fact::Options), Some("-m -S -p95 -i10000"));
        assert_eq!(run.facts.get(Fact::CpuModel), None);
        assert!(run.at.unwrap().starts_with("2026-11-24T00:30:34"));
        assert_eq!(run.series.len(), 3, "two threads and both together");
    }

    #[test]
    fn nanoseconds_are_known_by_the_resolution_and_no_histogram_leaves_the_maximum() {
        let run = json(p(), include_str!("../testdata/cyclictest-2.40-nsecs.json"), false).unwrap();
        let figures = run.figures("cyclictest", SIGNAL);
        assert_eq!((figures.min_ns, figures.max_ns, figures.p99_ns), (12_817, 192_021, None));
    }

    #[test]
    fn output_and_duration_are_no_part_of_how_it_was_measured() {
        assert_eq!(
            options("/usr/bin/cyclictest -q -m -t 2 -p 95 -D 5s -h400 --json=a.json --histfile b -i200 -v"),
            "-m -t 2 -p 95 -i200"
        );
        assert_eq!(instrument("/opt/cyclictest-2.8 -D 1"), Ok("cyclictest-2.8"));
        assert_eq!((instrument("guard probe -t1"), options("guard probe -t1").as_str()), (Ok("cyclictest"), "-t1"));
    }

    /// A result in the form of rt-tests.
    fn result(cmdline: &str, return_code: i64) -> String {
        format!(
            "{{\n  \"file_version\": 1,\n  \"cmdline:\": \"{cmdline}\",\n  \"rt_test_version:\": \"2.80\",\n  \
             \"return_code\": {return_code},\n  \"num_threads\": 1,\n  \"thread\": {{\n    \"0\": {{\n      \
             \"cycles\": 5012,\n      \"min\": 4,\n      \"max\": 71,\n      \"avg\": 9.50,\n      \"cpu\": 2\n    }}\n  \
             }}\n}}\n"
        )
    }

    #[test]
    fn other_tools_of_rt_tests_are_refused_by_their_name() {
        for tool in ["cyclicdeadline", "/usr/bin/signaltest", "ptsematest", "./oslat", "ssdd"] {
            let wrong = json(p(), &result(&format!("{tool} -t 2 -D 5 --json=x.json"), 0), false).unwrap_err().what;
            let name = tool.rsplit('/').next().unwrap();
            assert!(wrong.starts_with(&format!("was written by {name}; of the tools")), "{wrong}");
        }
        let nobody = json(p(), &result("", 0), false).unwrap_err().what;
        assert!(nobody.starts_with("does not say which program wrote it"), "{nobody}");
        for own in ["cyclictest -q", "/snap/rt-tests/7/usr/bin/cyclictest -q", "guard probe -q"] {
            assert_eq!(json(p(), &result(own, 0), false).unwrap().notes, [""; 0], "{own}");
        }
    }

    #[test]
    fn a_run_that_failed_or_was_ended_by_a_latency_says_so() {
        let notes = |cmdline, code| json(p(), &result(cmdline, code), false).unwrap().notes;
        assert_eq!(
            notes("cyclictest -q -p 80", 1),
            ["cyclictest failed (return code 1): its figures may not be of a whole run"]
        );
        for cmdline in
            ["cyclictest -b 60", "cyclictest -b60 -q", "cyclictest --breaktrace=60", "cyclictest --breaktrace 60"]
        {
            assert_eq!(notes(cmdline, 0), ["-b 60 ended it, at the first latency above"], "{cmdline}");
        }
        assert_eq!(notes("cyclictest -b 100", 0), [""; 0]);
    }

    #[test]
    fn several_results_in_one_file_are_refused() {
        assert!(json(p(), &result("cyclictest", 0), true).unwrap_err().what.contains("one file per run"));
    }
}
