//! Bad input, threads that come and go, guard itself coming to an end.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::{Latency, Snapshot};
use rustix::process::Signal;

use crate::{
    compare::{Row, Tolerance},
    harness::{Find as _, GuardRun, Tool, Workload, finish, patience, until},
    scenario::Verdict,
};

fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

fn short_report() -> GuardRun {
    GuardRun::default().with(&["report", "--format", "json", "--duration", "1s"])
}

pub(super) fn no_such_cgroup() -> Result<Verdict> {
    let finished = short_report().with(&["--cgroup", "/guard-test-no-such-*"]).finish(limit())?;
    finished.expect_code(2)?;
    finished.expect_message("/guard-test-no-such-*")?;
    Ok(Verdict::Passed(finished.stderr.trim_end().to_owned()))
}

pub(super) fn no_such_thread() -> Result<Verdict> {
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").context("read kernel.pid_max")?;
    let beyond = pid_max.trim().parse::<u32>().context("kernel.pid_max")? + 1;
    let finished = short_report().tid(beyond).finish(limit())?;
    finished.expect_code(2)?;
    finished.expect_message(&beyond.to_string())?;
    Ok(Verdict::Passed(finished.stderr.trim_end().to_owned()))
}

/// The same command without root and without any capability.
pub(super) fn as_nobody(inner: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return inner;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// Runs guard as nobody; a report of a recording would need no root, a measurement does.
pub(super) fn not_root() -> Result<Verdict> {
    let finished = finish(&mut as_nobody(short_report().command()?), limit())?;
    if finished.status.code() == Some(127) || finished.stderr.contains("setpriv: failed to execute") {
        return Ok(Verdict::Skipped(format!("nobody may not execute guard here: {}", finished.stderr.trim_end())));
    }
    finished.expect_code(3)?;
    ensure!(!finished.stderr.contains("panicked"), "guard panicked: {}", finished.stderr);
    ensure!(
        finished.stderr.contains("root") || finished.stderr.contains("CAP_"),
        "the message names neither root nor a capability: {}",
        finished.stderr
    );
    Ok(Verdict::Passed(finished.stderr.trim_end().to_owned()))
}

pub(super) fn thread_ends() -> Result<Verdict> {
    let mut workload = Workload::hold(&[
        "cycle",
        "clock-nanosleep-abs",
        "--policy",
        "fifo:80",
        "--interval-us",
        "5000",
        "--cycles",
        "100",
    ])?;
    let tid = workload.tid()?;
    let guard = GuardRun::report().tid(tid).measure()?;
    workload.go()?;
    let own = workload.outcome(limit())?;
    // Something else has to happen after the end, so that guard goes on without the thread.
    Workload::start(&["spin", "--seconds", "1"])?.outcome(limit())?;
    let snapshot = guard.stop()?;
    let thread = snapshot.thread(tid)?;
    ensure!(thread.exited, "the thread is gone and guard does not say so");
    let seen = thread.timer.thread.count();
    let row = Row::new("cycles", own.cycles, seen, Tolerance::of_count(&snapshot));
    ensure!(row.agrees, "{row}");
    Ok(Verdict::Passed(format!("{seen} of {} cycles, then its end", own.cycles)))
}

pub(super) fn churn() -> Result<Verdict> {
    let guard = GuardRun::report().measure()?;
    let mut told = Vec::new();
    for policy in ["other", "fifo:10"] {
        let workload = Workload::start(&["churn", "--seconds", "4", "--policy", policy])?;
        let own = workload.outcome(limit())?;
        told.push(format!("{} {policy} threads, {} times round the pid space", own.cycles, own.counter("pid_rounds")?));
    }
    let snapshot = guard.stop()?;
    expect_no_absurd_latency(&snapshot)?;
    Ok(Verdict::Passed(told.join(", ")))
}

/// Nothing can have been late for longer than was measured.
pub(super) fn expect_no_absurd_latency(snapshot: &Snapshot) -> Result<()> {
    let window_ns = Duration::try_from_secs_f64(snapshot.window.seconds).context("window")?.as_nanos();
    for (what, latency) in latencies(snapshot) {
        ensure!(
            u128::from(latency.max_ns()) <= window_ns,
            "{what}: {} ns in a window of {window_ns} ns",
            latency.max_ns()
        );
    }
    for breach in &snapshot.breaches {
        ensure!(
            u128::from(breach.latency_ns) <= window_ns,
            "breach of thread {}: {} ns in a window of {window_ns} ns",
            breach.tid,
            breach.latency_ns
        );
    }
    Ok(())
}

/// All latencies of waking up in a Snapshot.
fn latencies(snapshot: &Snapshot) -> impl Iterator<Item = (String, &Latency)> {
    let of_cgroups = snapshot.cgroups.iter().flat_map(|cgroup| {
        [
            (format!("{} wakeup.rt", cgroup.path), &cgroup.wakeup.rt),
            (format!("{} wakeup.fair", cgroup.path), &cgroup.wakeup.fair),
            (format!("{} timer.irq", cgroup.path), &cgroup.timer.irq),
            (format!("{} timer.thread", cgroup.path), &cgroup.timer.thread),
            (format!("{} timer.user", cgroup.path), &cgroup.timer.user),
        ]
    });
    let of_threads = snapshot.threads.iter().flat_map(|thread| {
        [
            (format!("thread {} wakeup", thread.tid), &thread.wakeup),
            (format!("thread {} timer.irq", thread.tid), &thread.timer.irq),
            (format!("thread {} timer.thread", thread.tid), &thread.timer.thread),
            (format!("thread {} timer.user", thread.tid), &thread.timer.user),
        ]
    });
    of_cgroups.chain(of_threads)
}

pub(super) fn schema() -> Result<Verdict> {
    let printed = GuardRun::default().with(&["report", "--json-schema"]).finish(limit())?;
    printed.expect_code(0)?;
    let schema: serde_json::Value = serde_json::from_str(&printed.stdout).context("the printed schema")?;
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.schema.json");
    if published.exists() {
        let text = fs::read_to_string(&published).with_context(|| format!("read {}", published.display()))?;
        let text: serde_json::Value = serde_json::from_str(&text).context("the published schema")?;
        ensure!(text == schema, "{} is not what guard prints", published.display());
    }
    let validator = jsonschema::validator_for(&schema).context("the schema itself")?;
    let report = short_report().finish(limit())?;
    report.expect_code(0)?;
    let report: serde_json::Value = serde_json::from_str(&report.stdout).context("the report")?;
    let complaints: Vec<String> =
        validator.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).take(5).collect();
    ensure!(complaints.is_empty(), "the report breaks its schema: {}", complaints.join("; "));
    let mut broken = report;
    broken.as_object_mut().context("the report is no object")?.remove("window");
    ensure!(!validator.is_valid(&broken), "the schema accepts a report without its window");
    Ok(Verdict::Passed(String::new()))
}

pub(super) fn killed() -> Result<Verdict> {
    let mut guard = GuardRun::report().measure()?;
    let programs = programs_of(guard.pid())?;
    ensure!(!programs.is_empty(), "guard holds no BPF program");
    guard.tool().signal(Signal::KILL)?;
    guard.tool().wait(limit())?;
    until("guard's programs gone", limit(), || {
        let listed = Tool::start(Command::new("bpftool").args(["prog", "show", "-j"]))?.success(limit())?;
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).context("output of bpftool")?;
        let left = listed.iter().filter_map(|program| program["id"].as_u64()).any(|id| programs.contains(&id));
        Ok((!left).then_some(()))
    })?;
    Ok(Verdict::Passed(format!("{} programs gone", programs.len())))
}

/// Ids of the BPF programs that a process holds.
fn programs_of(pid: u32) -> Result<Vec<u64>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut ids = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read {dir}"))? {
        let path = entry.with_context(|| format!("read {dir}"))?.path();
        let Ok(info) = fs::read_to_string(&path) else { continue };
        if let Some(id) = info.lines().find_map(|line| line.strip_prefix("prog_id:")) {
            match id.trim().parse() {
                Ok(id) => ids.push(id),
                Err(_) => bail!("{}: prog_id is \"{}\"", path.display(), id.trim()),
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
