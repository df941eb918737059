//! The kernel's own measure of the same thing: timerlat threads, which know their expiry and time themselves, and rtla's
//! histograms of what they say. Both clocks are this machine's.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::Latency;

use crate::{
    compare::{self, Row, Tolerance, Tolerances},
    harness::{GuardRun, Tool, binary, emulated, patience},
    scenario::Verdict,
};

/// Where tracefs is.
pub(super) const TRACEFS: &str = "/sys/kernel/tracing";

/// The first and the last cycle may be on one side only, and rtla reads its events from a buffer that can overflow. A
/// percentile of a thousand samples moves by a sample or two, and the thread reads its clock some time after its
/// switch-in, in which an emulated interrupt may fall: a thread that guard saw in time may call itself late.
const TOLERANCES: Tolerances = Tolerances {
    count: Tolerance { absolute: 6, fraction: 0.02 },
    percentile: Tolerance { absolute: 50_000, fraction: 0.25 },
    max: Tolerance { absolute: 200_000, fraction: 0.5 },
};

pub(super) fn timerlat() -> Result<Verdict> {
    if binary("rtla").is_err() {
        return Ok(Verdict::Skipped("rtla is not installed".to_owned()));
    }
    mount_tracefs()?;
    if !has_timerlat()? {
        return Ok(Verdict::Skipped("this kernel has no timerlat tracer".to_owned()));
    }
    // The two read the clock at two places, some instructions apart; an emulated CPU can be stopped between them. That is
    // rare and hits another figure every time, unlike a difference in what is measured.
    let attempts = if emulated() { 3 } else { 1 };
    let mut differences = Vec::new();
    for _ in 0..attempts {
        let rows = side_by_side()?;
        let (same, apart): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, row)| row.agrees);
        let told = |rows: Vec<(String, Row)>| {
            rows.into_iter().map(|(column, row)| format!("{column} {row}")).collect::<Vec<_>>().join("; ")
        };
        if apart.is_empty() {
            return Ok(Verdict::Passed(told(same)));
        }
        differences.push(told(apart));
    }
    bail!("{}", differences.join(" | once more: "));
}

/// Runs rtla beside guard: column of rtla's table, compared figure.
fn side_by_side() -> Result<Vec<(String, Row)>> {
    let guard = GuardRun::report().measure()?;
    let rtla = Tool::start(Command::new("rtla").args([
        "timerlat",
        "hist",
        "--duration",
        "20s",
        "--period",
        "5000",
        "--bucket-size",
        "1",
        "--entries",
        "1000000",
    ]))?;
    let printed = rtla.success(Duration::from_secs(60) * patience())?;
    let snapshot = guard.stop()?;
    let histograms = parse(&printed)?;
    ensure!(!histograms.is_empty(), "rtla printed no histogram: {printed}");
    let mut rows = Vec::new();
    for ((stage, cpu), own) in &histograms {
        let comm = format!("timerlat/{cpu}");
        let thread = snapshot.threads.iter().find(|thread| thread.comm == comm);
        let thread = thread.with_context(|| format!("the report has no thread {comm}"))?;
        let latency: &Latency = if stage == "IRQ" { &thread.timer.irq } else { &thread.timer.thread };
        let compared = compare::compare(own, latency, &TOLERANCES);
        rows.extend(compared.into_iter().map(|row| (format!("{stage}-{cpu}"), row)));
    }
    Ok(rows)
}

/// Whether this kernel has the timerlat tracer.
pub(super) fn has_timerlat() -> Result<bool> {
    let path = format!("{TRACEFS}/available_tracers");
    let tracers = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(tracers.split_whitespace().any(|tracer| tracer == "timerlat"))
}

/// Makes tracefs available where nobody did; a guest's mounts end with it.
pub(super) fn mount_tracefs() -> Result<()> {
    if Path::new(TRACEFS).join("available_tracers").exists() {
        return Ok(());
    }
    rustix::mount::mount("tracefs", TRACEFS, "tracefs", rustix::mount::MountFlags::empty(), None)
        .with_context(|| format!("mount tracefs on {TRACEFS}"))
}

type Histograms = BTreeMap<(String, u32), BTreeMap<u64, u64>>;

/// rtla's table: a line of columns such as "IRQ-000" and "Thr-000" (with "Usr-000" where user threads are measured), then
/// lines of a latency in us and the counts, then a summary that begins with "over:".
fn parse(text: &str) -> Result<Histograms> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("Index"));
    let header = lines.next().context("rtla printed no table")?;
    let mut columns = Vec::new();
    for column in header.split_whitespace().skip(1) {
        let (stage, cpu) = column.split_once('-').with_context(|| format!("column \"{column}\""))?;
        columns.push((stage.to_owned(), cpu.parse::<u32>().with_context(|| format!("column \"{column}\""))?));
    }
    let mut histograms = Histograms::new();
    for line in lines {
        let mut cells = line.split_whitespace();
        let Some(Ok(us)) = cells.next().map(str::parse::<u64>) else { break };
        for (column, cell) in columns.iter().zip(cells) {
            let count: u64 = cell.parse().with_context(|| format!("line \"{line}\""))?;
            if count > 0 {
                *histograms.entry(column.clone()).or_default().entry(us).or_insert(0) += count;
            }
        }
    }
    Ok(histograms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_up_to_its_summary() {
        let text = "# RTLA timerlat histogram\n# Duration:   0 00:00:08\n\
                    Index   IRQ-000   Thr-000   IRQ-001\n40            1         0         0 \n50          3         2        14 \n\
                    over:         0         0         0 \ncount:       4         2        14 \nmax:   50   50   50\n";
        let histograms = parse(text).unwrap();
        assert_eq!(histograms[&("IRQ".to_owned(), 0)], BTreeMap::from([(40, 1), (50, 3)]));
        assert_eq!(histograms[&("Thr".to_owned(), 0)], BTreeMap::from([(50, 2)]));
        assert_eq!(histograms[&("IRQ".to_owned(), 1)], BTreeMap::from([(50, 14)]));
    }

    #[test]
    fn text_without_a_table_is_an_error() {
        assert!(parse("rtla: permission denied\n").is_err());
    }
}
