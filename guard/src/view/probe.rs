//! What `guard probe` prints: cyclictest's lines, table and JSON to the letter, and the passive view as comments below.

use std::fmt::Write as _;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::cyclictest::{Counted, table};
use super::figures::{max, quantile};
use crate::probe::{Figures, LatencyRequest, Measured, Options, ProbeState, ThreadPlan};
use crate::snapshot::Timer;

/// What is said of power management: whether it goes to stdout, and the line.
#[must_use]
pub fn latency_request(request: &LatencyRequest) -> (bool, String) {
    match request {
        LatencyRequest::Set(us) => (true, format!("# /dev/cpu_dma_latency set to {us}us\n")),
        LatencyRequest::NotSet(why) => (false, format!("WARN: {why}\n")),
    }
}

/// The node's CPUs, as `-v` begins.
#[must_use]
pub fn cpus(configured: usize, online: usize) -> String {
    format!("Max CPUs = {configured}\nOnline CPUs = {online}\n")
}

/// The threads, as `-v` says before they begin. cyclictest names with each thread the cycle of the next one.
#[must_use]
pub fn intervals(plans: &[ThreadPlan], distance_us: u64) -> String {
    let line = |(number, plan): (usize, &ThreadPlan)| {
        format!("Thread {number} Interval: {}\n", plan.interval_us + distance_us)
    };
    plans.iter().enumerate().map(line).collect()
}

/// What is on the screen while it runs: one picture after another, each drawn over the one before.
#[must_use]
pub fn live(state: &ProbeState<'_>, options: &Options, loadavg: &str) -> String {
    let mut out = String::new();
    if let Some(plan) = state.plans.first() {
        let asked = plan.policy.name();
        // What has no priority is SCHED_OTHER.
        let got = if plan.policy.is_realtime() { "" } else { "/other" };
        out += &format!("policy: {asked}{got}: loadavg: {}          \n\n", loadavg.trim_end());
    }
    out + &threads(state.plans, state.figures, options)
}

/// Moves the cursor back to where [`live`] began.
#[must_use]
pub fn back(threads: usize) -> String {
    format!("\x1b[{}A", threads + 2)
}

/// Moves the cursor below what [`live`] drew.
#[must_use]
pub fn below(threads: usize) -> String {
    format!("\x1b[{}B", threads + 2)
}

/// One line for each thread.
#[must_use]
pub fn threads(plans: &[ThreadPlan], figures: &[Figures], options: &Options) -> String {
    let mut out = String::new();
    let width = if options.nsecs { 8 } else { 5 };
    for (number, (plan, figures)) in plans.iter().zip(figures).enumerate() {
        let _ = writeln!(
            out,
            "T:{number:2} ({:5}) P:{:2} I:{} C:{:7} Min:{:7} Act:{:width$} Avg:{:width$} Max:{:8}",
            figures.tid,
            plan.priority,
            plan.interval_us,
            figures.cycles,
            figures.min,
            figures.act,
            average(figures),
            figures.max
        );
    }
    out
}

/// The same as an answer to SIGUSR1.
#[must_use]
pub fn status(state: &ProbeState<'_>, options: &Options) -> String {
    let line = "#---------------------------\n";
    format!("{line}# cyclictest current status:\n{}{line}", threads(state.plans, state.figures, options))
}

/// Single values, as `-v` prints them: thread, cycle, latency.
#[must_use]
pub fn values(values: &[(usize, u64, u64)]) -> String {
    values.iter().map(|(thread, cycle, latency)| format!("{thread:8}:{cycle:8}:{latency:8}\n")).collect()
}

fn average(figures: &Figures) -> u64 {
    figures.sum.checked_div(figures.cycles).unwrap_or(0)
}

/// The histogram with its totals.
#[must_use]
pub fn histogram(measured: &Measured, options: &Options) -> String {
    let counted = |figures: &Figures| Counted {
        rows: figures.histogram.clone(),
        min: figures.min,
        avg: average(figures),
        max: figures.max,
        overflows: figures.overflows,
        outliers: figures.outliers.clone(),
    };
    let sheet: Vec<Counted> = measured.figures.iter().map(counted).collect();
    let mut out = String::new();
    let _ = table(&mut out, &sheet, options.sums);
    out + "\n"
}

/// What `-b` says at the end.
#[must_use]
pub fn broken(measured: &Measured) -> String {
    let tids: String = measured.figures.iter().map(|figures| format!(" {:05}", figures.tid)).collect();
    let broken = measured.broken.map_or_else(String::new, |broken| {
        format!("# Break thread: {}\n# Break value: {}\n", broken.tid, broken.latency)
    });
    format!("# Thread Ids:{tids}\n{broken}")
}

/// What guard's programs in the kernel saw of the same threads, as comments to cyclictest's readers.
#[must_use]
pub fn passive(measured: &Measured) -> String {
    let Some(threads) = &measured.passive else { return String::new() };
    let mut out = String::from(
        "# guard: the same threads as seen from the kernel, from the requested expiry: to the timer interrupt (irq), on the \
         CPU (thread), back in user space (user)\n",
    );
    for (number, thread) in threads.iter().enumerate() {
        let Some(thread) = thread else {
            let _ = writeln!(out, "# guard: T:{number:2} was not seen");
            continue;
        };
        let stage = |name: &str, latency| {
            format!("{name} p50 {} p99 {} max {}", quantile(latency, 0.5), quantile(latency, 0.99), max(latency))
        };
        let Timer { irq, thread: on_cpu, user, missed } = &thread.timer;
        let _ = writeln!(
            out,
            "# guard: T:{number:2} ({:5}) C:{:7} missed {missed} | {} | {} | {}",
            thread.tid,
            on_cpu.count(),
            stage("irq", irq),
            stage("thread", on_cpu),
            stage("user", user)
        );
    }
    out
}

/// The machine in cyclictest's JSON.
#[derive(Debug, Serialize)]
pub struct SysInfo {
    /// `uname -s`.
    pub sysname: String,
    /// `uname -n`.
    pub nodename: String,
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// 1 where /sys/kernel/realtime says so.
    pub realtime: u8,
}

#[derive(Serialize)]
struct Json<'a> {
    file_version: u32,
    #[serde(rename = "cmdline:")]
    cmdline: &'a str,
    #[serde(rename = "rt_test_version:")]
    version: String,
    start_time: String,
    end_time: String,
    return_code: u8,
    sysinfo: &'a SysInfo,
    num_threads: usize,
    resolution_in_ns: u8,
    thread: Numbered<JsonThread<'a>>,
}

#[derive(Serialize)]
struct JsonThread<'a> {
    histogram: Rows<'a>,
    cycles: u64,
    min: u64,
    max: u64,
    avg: f64,
    cpu: i64,
    node: i64,
    /// Not in cyclictest's: what guard's programs saw, in the form of guard's report.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<&'a Timer>,
}

/// An object whose keys are 0, 1, 2, ...
struct Numbered<T>(Vec<T>);

impl<T: Serialize> Serialize for Numbered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate())
    }
}

/// An object of the latencies that occurred.
struct Rows<'a>(&'a [u64]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (latency, n) in self.0.iter().enumerate().filter(|(_, n)| **n > 0) {
            map.serialize_entry(&latency, n)?;
        }
        map.end()
    }
}

/// cyclictest's JSON, with its keys as they are, colons included.
///
/// # Errors
/// None that is known: everything in it has a JSON form.
pub fn json(
    measured: &Measured,
    options: &Options,
    cmdline: &str,
    sysinfo: &SysInfo,
) -> Result<String, serde_json::Error> {
    let instant = |at: jiff::Timestamp| at.strftime("%a, %d %b %Y %T +0000").to_string();
    let number = |n: Option<u32>| n.map_or(-1, i64::from);
    let passive = |at: usize| Some(&measured.passive.as_ref()?.get(at)?.as_ref()?.timer);
    let thread = |at: usize| {
        let (plan, figures) = (measured.plans.get(at)?, measured.figures.get(at)?);
        #[allow(clippy::cast_precision_loss, reason = "two decimals of a mean")]
        let avg = if figures.cycles == 0 { 0.0 } else { figures.sum as f64 / figures.cycles as f64 };
        Some(JsonThread {
            histogram: Rows(&figures.histogram),
            cycles: figures.cycles,
            min: figures.min,
            max: figures.max,
            avg: (avg * 100.0).round() / 100.0,
            cpu: number(plan.cpu),
            node: number(measured.nodes.get(at).copied().flatten()),
            guard: passive(at),
        })
    };
    let json = Json {
        file_version: 1,
        cmdline,
        version: format!("guard {}", env!("CARGO_PKG_VERSION")),
        start_time: instant(measured.began),
        end_time: instant(measured.ended),
        return_code: 0,
        sysinfo,
        num_threads: measured.plans.len(),
        resolution_in_ns: u8::from(options.nsecs),
        thread: Numbered((0..measured.plans.len()).filter_map(thread).collect()),
    };
    Ok(serde_json::to_string_pretty(&json)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Broken, PolicyName};

    fn measured() -> Measured {
        let plan =
            |cpu, interval_us| ThreadPlan { cpu: Some(cpu), priority: 80, policy: PolicyName::Fifo, interval_us };
        let first = Figures {
            tid: 321,
            cycles: 7,
            min: 1,
            max: 900,
            act: 2,
            sum: 910,
            histogram: vec![0, 4, 1],
            overflows: 2,
            outliers: vec![3],
        };
        let second = Figures {
            tid: 123_456,
            cycles: 4,
            min: 2,
            max: 2,
            act: 2,
            sum: 8,
            histogram: vec![0, 0, 4],
            ..first.clone()
        };
        Measured {
            plans: vec![plan(0, 1_000), plan(1, 1_500)],
            figures: vec![first, Figures { overflows: 0, outliers: Vec::new(), ..second }],
            nodes: vec![Some(0), None],
            broken: Some(Broken { tid: 321, latency: 900 }),
            began: "2026-11-24T13:49:47Z".parse().unwrap(),
            ended: "2026-11-24T13:50:47Z".parse().unwrap(),
            passive: None,
        }
    }

    /// The lines were compared with those of cyclictest 2.40, which the host check does again.
    #[test]
    fn lines_are_cyclictests() {
        let (measured, options) = (measured(), Options { sums: true, ..Options::default() });
        assert_eq!(
            threads(&measured.plans, &measured.figures, &options),
            "T: 0 (  321) P:80 I:1000 C:      7 Min:      1 Act:    2 Avg:  130 Max:     900\n\
             T: 1 (123456) P:80 I:1500 C:      4 Min:      2 Act:    2 Avg:    2 Max:       2\n"
        );
        assert_eq!(
            histogram(&measured, &options),
            "# Histogram\n\
             000000 000000\t000000\t000000\n\
             000001 000004\t000000\t000004\n\
             000002 000001\t000004\t000005\n\
             # Total: 000000005 000000004 000000009\n\
             # Min Latencies: 00001 00002\n\
             # Avg Latencies: 00130 00002\n\
             # Max Latencies: 00900 00002 00900\n\
             # Histogram Overflows: 00002 00000 00002\n\
             # Histogram Overflow at cycle number:\n\
             # Thread 0: 00003 # 00001 others\n\
             # Thread 1:\n\n"
        );
        assert_eq!(broken(&measured), "# Thread Ids: 00321 123456\n# Break thread: 321\n# Break value: 900\n");
        assert_eq!(values(&[(1, 20, 300)]), "       1:      20:     300\n");
    }

    #[test]
    fn the_screen_names_the_policy_that_threads_have() {
        let measured = measured();
        let figures = &measured.figures[..1];
        let mut plans = measured.plans[..1].to_vec();
        let first = |plans: &[ThreadPlan]| {
            let state = ProbeState { plans, figures, values: &[], asked: false };
            live(&state, &Options::default(), "1.00 2.00\n").lines().next().unwrap().to_owned()
        };
        assert_eq!(first(&plans), "policy: fifo: loadavg: 1.00 2.00          ");
        plans[0].policy = PolicyName::Batch;
        assert_eq!(first(&plans), "policy: batch/other: loadavg: 1.00 2.00          ");
    }

    #[test]
    fn json_has_cyclictests_keys_in_its_order() {
        let uname = SysInfo {
            sysname: "Linux".into(),
            nodename: "n".into(),
            release: "6.1".into(),
            version: "#1".into(),
            machine: "x86_64".into(),
            realtime: 1,
        };
        let text = json(&measured(), &Options::default(), "guard probe -h 3", &uname).unwrap();
        let keys: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("  \"")?.split_once("\": ")).map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "file_version",
                "cmdline:",
                "rt_test_version:",
                "start_time",
                "end_time",
                "return_code",
                "sysinfo",
                "num_threads",
                "resolution_in_ns",
                "thread"
            ]
        );
        assert!(text.contains("\"start_time\": \"Tue, 24 Nov 2026 13:49:47 +0000\""), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json["thread"]["0"],
            serde_json::json!({"histogram": {"1": 4, "2": 1}, "cycles": 7, "min": 1, "max": 900, "avg": 130.0, "cpu": 0,
                "node": 0})
        );
        assert_eq!(json["thread"]["1"]["node"], -1);
    }

    #[test]
    fn what_the_kernel_side_saw_stands_below_as_comments() {
        let mut seen = crate::snapshot::Thread { tid: 321, ..Default::default() };
        seen.timer.irq.record(2_000);
        seen.timer.thread.record(7_000);
        let measured = Measured { passive: Some(vec![Some(seen), None]), ..measured() };
        let text = passive(&measured);
        assert!(text.lines().all(|line| line.starts_with("# guard: ")), "{text}");
        assert!(text.contains("T: 0 (  321) C:      1 missed 0 | irq p50 2 us"), "{text}");
        assert!(text.contains("user p50 - p99 - max -"), "{text}");
        assert!(text.contains("T: 1 was not seen"), "{text}");
    }
}
