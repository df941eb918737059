//! What a recording costs: bytes on disk and CPU time per Snapshot, for Snapshots of several sizes. The Snapshots are the last
//! one of docs/example.guardrec, its cgroups and threads repeated under other names.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use guard::record::{RecordLimits, Recorder, Replay};
use guard::snapshot::Snapshot;
use guard::view::json;
use rustix::thread::ClockId;
use serde::Serialize;

use crate::table;

/// Cgroups, and as many real-time threads, of the Snapshots.
const SIZES: [usize; 3] = [10, 100, 1_000];

/// How long one Snapshot may take to be on disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Snapshots recorded of each size
    #[arg(long, default_value_t = 200)]
    snapshots: u32,
}

/// One size.
#[derive(Serialize)]
pub(crate) struct Row {
    cgroups: usize,
    threads: usize,
    json_bytes: u64,
    recorded_bytes: u64,
    /// To turn the Snapshot into JSON: what every output pays.
    json_cpu_us: f64,
    /// To compress, check and write it.
    record_cpu_us: f64,
}

pub(crate) fn run(args: &Args) -> Result<(Vec<Row>, bool)> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.guardrec");
    let last = Replay::open(&example)?.filter_map(Result::ok).last().context("no Snapshot in the example")?;
    let mut rows = Vec::new();
    for size in SIZES {
        let row = measured(&widened(&last, size), args.snapshots)?;
        rows.push(row);
    }
    let cells = |row: &Row| {
        vec![
            row.cgroups.to_string(),
            row.threads.to_string(),
            row.json_bytes.to_string(),
            row.recorded_bytes.to_string(),
            format!("{:.0}", row.json_cpu_us),
            format!("{:.0}", row.record_cpu_us),
        ]
    };
    table::print(
        &["cgroups", "threads", "JSON bytes", "recorded bytes", "JSON us of CPU", "recording us of CPU"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    );
    Ok((rows, true))
}

/// The Snapshot with so many cgroups and threads; figures of copies differ a little, as those of real ones would.
fn widened(snapshot: &Snapshot, size: usize) -> Snapshot {
    let mut wide = snapshot.clone();
    for n in wide.cgroups.len()..size {
        let mut copy = snapshot.cgroups[n % snapshot.cgroups.len()].clone();
        copy.path = format!("/kubepods/pod-{n}{}", copy.path);
        copy.id = n as u64 + 1_000_000;
        copy.wakeup.fair.record(10_000 + 777 * n as u64);
        wide.cgroups.push(copy);
    }
    for n in wide.threads.len()..size {
        let mut copy = snapshot.threads[n % snapshot.threads.len()].clone();
        copy.tid = 1_000_000 + u32::try_from(n).unwrap_or(0);
        copy.timer.user.record(10_000 + 777 * n as u64);
        wide.threads.push(copy);
    }
    wide
}

fn measured(snapshot: &Snapshot, count: u32) -> Result<Row> {
    let dir = tempfile::tempdir()?;
    let begin = cpu();
    let mut text = String::new();
    for _ in 0..count {
        text = json::line(snapshot)?;
    }
    let json_cpu = cpu() - begin;

    let limits = RecordLimits { bytes: 1 << 40, age: Duration::from_secs(86_400) };
    let mut recorder = Recorder::start(dir.path(), limits)?;
    for _ in 0..count {
        let before = size(dir.path())?;
        recorder.record(text.as_bytes().into());
        // What comes faster than it is written is left out.
        let end = Instant::now() + PATIENCE;
        while size(dir.path())? == before {
            ensure!(Instant::now() < end, "nothing was written in {PATIENCE:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let record_cpu = recorder_cpu()?;
    drop(recorder);
    let back = Replay::open(dir.path())?.filter_map(Result::ok).count();
    ensure!(back as u64 == u64::from(count), "{back} of {count} Snapshots are in the recording");
    let bytes = size(dir.path())?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    Ok(Row {
        cgroups: snapshot.cgroups.len(),
        threads: snapshot.threads.len(),
        json_bytes: text.len() as u64,
        recorded_bytes: bytes / u64::from(count),
        json_cpu_us: each(json_cpu),
        record_cpu_us: each(record_cpu),
    })
}

/// Bytes of a recording.
fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// CPU time of the thread that records, by the scheduler's clock.
fn recorder_cpu() -> Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm"))?.trim_end() == "guard-record" {
            let text = fs::read_to_string(path.join("schedstat"))?;
            let ns = text.split_whitespace().next().and_then(|field| field.parse().ok());
            return Ok(Duration::from_nanos(ns.with_context(|| format!("schedstat is {text:?}"))?));
        }
    }
    anyhow::bail!("there is no thread guard-record")
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
