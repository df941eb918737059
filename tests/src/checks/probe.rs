//! guard probe beside the real cyclictest: the same options, and the same readers for both outputs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{Cgroup, Finished, GuardRun, Tool, finish, patience, scratch_dir, until},
    scenario::Verdict,
};

fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

/// Who is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Guard,
    Cyclictest,
}

fn command(who: Who, arguments: &[&str]) -> Result<Command> {
    Ok(match who {
        Who::Guard => GuardRun::default().with(&["probe"]).with(arguments).command()?,
        Who::Cyclictest => {
            let mut command = Command::new("cyclictest");
            command.args(arguments);
            command
        }
    })
}

fn run(who: Who, arguments: &[&str]) -> Result<Finished> {
    let finished = finish(&mut command(who, arguments)?, limit())?;
    finished.expect_code(0).with_context(|| format!("{who:?} {arguments:?}"))?;
    Ok(finished)
}

/// Lines without their figures: every number, and the blanks that pad it, is one N; what is repeated is there once.
fn shape(text: &str) -> Vec<String> {
    let mut shapes: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut shape = String::new();
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let padded = rest.trim_start_matches(' ');
            let digits = padded.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            if digits.len() < padded.len() {
                shape.push_str(if shape.ends_with('N') { "" } else { "N" });
                rest = digits;
            } else {
                shape.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        // A list of cycles may be empty, or end with how many more there were.
        let shape = shape.split(" #N others").next().unwrap_or_default().replace("# ThreadN:N", "# ThreadN:");
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes
}

/// The same options give lines of the same form, in the same order, on stdout and in the messages.
pub(super) fn lines_are_cyclictests() -> Result<Verdict> {
    let lines: [&[&str]; 11] = [
        &["-q", "-t2", "-p", "80", "-i", "1000", "-l", "100"],
        &["-qm", "-t", "2", "-p80", "-h", "40", "-l100"],
        &["-q", "-S", "-p", "80", "-H", "30", "-D", "1"],
        &["-q", "--threads=2", "--priority=80", "--priospread", "--loops=50"],
        &["-q", "-t1", "-p", "80", "-l", "30", "-N"],
        &["-q", "-v", "-t1", "-p", "80", "-l", "30"],
        &["-q", "-v", "-o", "5", "-t1", "-p", "80", "-l", "30"],
        &["-t1", "-p", "80", "-l", "30"],
        &["-q", "-b", "1", "-t1", "-p", "80", "-l", "1000"],
        &["-q", "--policy=rr", "-p", "3", "-l", "20", "--laptop"],
        &["-q", "-l", "20", "-r", "-c1", "--latency=50", "-a", "0", "-d0"],
    ];
    for arguments in lines {
        let [ours, theirs] = [run(Who::Guard, arguments)?, run(Who::Cyclictest, arguments)?];
        let [mine, their] = [shape(&ours.stdout), shape(&theirs.stdout)];
        ensure!(mine == their, "{arguments:?}: {mine:#?} instead of {their:#?}");
        let [mine, their] = [shape(&ours.stderr), shape(&theirs.stderr)];
        ensure!(mine == their, "{arguments:?}, messages: {mine:#?} instead of {their:#?}");
    }
    Ok(Verdict::Passed(format!("{} command lines", lines.len())))
}

/// A plotting script as there are many: the rows of the histogram for gnuplot, and the largest latency for its title.
const SCRIPT: &str = r#"
grep -v -e '^#' -e '^$' "$1" | tr ' ' '\t' > "$1.plot"
columns=$(awk 'NR == 1 { print NF - 1 }' "$1.plot")
rows=$(wc -l < "$1.plot")
counted=$(awk '{ for (i = 2; i <= NF; i++) n += $i } END { print n }' "$1.plot")
over=$(grep 'Histogram Overflows:' "$1" | cut -d: -f2 | tr ' ' '\n' | awk '{ n += $1 } END { print n }')
max=$(grep 'Max Latencies' "$1" | tr ' ' '\n' | sort -n | tail -1 | sed 's/^0*//')
echo "$columns $rows $((counted + over)) $max"
"#;

/// What the script makes of a histogram: columns, rows, cycles, largest latency.
fn plotted(histogram: &Path) -> Result<[u64; 4]> {
    let finished = finish(Command::new("sh").args(["-c", SCRIPT, "sh"]).arg(histogram), limit())?;
    finished.expect_code(0)?;
    let figures: Vec<u64> = finished.stdout.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    figures.try_into().map_err(|_| anyhow::anyhow!("the script says {:?}: {}", finished.stdout, finished.stderr))
}

/// Keys and kinds of values, numbers in keys aside.
fn keys(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if key.parse::<u64>().is_ok() { "N" } else { key };
                keys(value, &format!("{path}/{key}"), all);
            }
        }
        Value::Number(_) => _ = all.insert(format!("{path} number")),
        Value::String(_) => _ = all.insert(format!("{path} text")),
        other => _ = all.insert(format!("{path} {other}")),
    }
}

/// One script and one JSON reader for the output of both.
pub(super) fn scripts_read_both() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let mut told = Vec::new();
    let mut all_keys = Vec::new();
    for who in [Who::Guard, Who::Cyclictest] {
        let (json, table) = (scratch.path().join("json"), scratch.path().join("table"));
        let (to_json, to_table) = (format!("--json={}", json.display()), format!("--histfile={}", table.display()));
        let arguments = ["-q", "-t2", "-p", "80", "-h", "200", "-l", "200", &to_json, &to_table];
        let finished = run(who, &arguments)?;
        ensure!(!finished.stdout.contains("Histogram"), "{who:?}: the histogram is not only in its file");
        let value: Value = serde_json::from_str(&fs::read_to_string(&json)?).with_context(|| format!("{who:?}"))?;
        let mut found = BTreeSet::new();
        keys(&value, "", &mut found);
        all_keys.push(found);
        let [columns, rows, cycles, max] = plotted(&table)?;
        let figure = |thread: &str, name: &str| value["thread"][thread][name].as_u64().unwrap_or(0);
        let [in_json, longest] =
            [figure("0", "cycles") + figure("1", "cycles"), figure("0", "max").max(figure("1", "max"))];
        ensure!([columns, rows] == [2, 200], "{who:?}: {columns} columns, {rows} rows");
        // cyclictest writes its JSON before its last threads are done.
        let agree = if who == Who::Guard { cycles == in_json } else { cycles >= in_json };
        ensure!(cycles >= 200 && agree, "{who:?}: {cycles} cycles, in JSON {in_json}");
        ensure!(max >= longest, "{who:?}: {max} instead of {longest}");
        told.push(format!("{who:?} {cycles} cycles, max {max} us"));

        // The gate takes either.
        let budget = scratch.path().join("budget.toml");
        fs::write(&budget, "[[budget]]\nworkload = \"*\"\nmetric = \"timer.max\"\nlimit = \"10s\"\n")?;
        let gate = GuardRun::default()
            .with(&["gate", "--budget", &budget.to_string_lossy(), &json.to_string_lossy()])
            .finish(limit())?;
        gate.expect_code(0).with_context(|| format!("{who:?}"))?;
    }
    ensure!(all_keys[0] == all_keys[1], "keys {:#?} instead of {:#?}", all_keys[0], all_keys[1]);
    Ok(Verdict::Passed(told.join("; ")))
}

/// What cannot be done is said by name, before anything is measured.
pub(super) fn refuses() -> Result<Verdict> {
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--smi", "-q"], 2, "--smi of cyclictest"),
        (&["-x", "-l", "1"], 2, "-x of cyclictest"),
        (&["-Z"], 2, "no option -Z"),
        (&["-i", "0"], 2, "-i 0"),
        (&["-l", "1", "--json=/no/such/dir/f"], 2, "/no/such/dir/f"),
        (&["-l", "1", "--cgroup", "/guard-test-no-such"], 2, "/guard-test-no-such"),
    ];
    for (arguments, code, named) in cases {
        let finished = finish(&mut command(Who::Guard, arguments)?, limit())?;
        finished.expect_code(code)?;
        finished.expect_message(named)?;
        ensure!(finished.stdout.is_empty(), "{arguments:?} printed {}", finished.stdout);
    }
    let inner = command(Who::Guard, &["-p", "80", "-l", "1", "-q"])?;
    let mut unprivileged = Command::new("setpriv");
    unprivileged.args(["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "prlimit", "--rtprio=0"]);
    unprivileged.arg(inner.get_program()).args(inner.get_args());
    let finished = finish(&mut unprivileged, limit())?;
    finished.expect_code(3)?;
    finished.expect_message("sched_setscheduler(SCHED_FIFO, 80)")?;
    finished.expect_message("CAP_SYS_NICE")?;
    Ok(Verdict::Passed(finished.stderr.trim_end().to_owned()))
}

/// Threads of a process, by name: (comm, tid, its cgroups).
fn threads(pid: u32) -> Result<Vec<(String, u32, String)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        let tid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).context("a tid")?;
        threads.push((read("comm").trim_end().to_owned(), tid, read("cgroup")));
    }
    Ok(threads)
}

/// The measuring threads run in the cgroup that was named, and SIGINT ends them with a summary.
pub(super) fn in_a_cgroup() -> Result<Verdict> {
    let cgroup = Cgroup::create("probe")?;
    cgroup.allow_rt(100_000)?;
    let mut tool = Tool::start(&mut command(Who::Guard, &["-q", "-t2", "-p", "80", "--cgroup", cgroup.path()])?)?;
    let inside = until("two measuring threads in the cgroup", limit(), || {
        if let Some(status) = tool.ended()? {
            bail!("guard probe ended with {status}: {}", tool.stderr()?);
        }
        let all = threads(tool.pid())?;
        let measuring: Vec<_> = all.iter().filter(|(comm, ..)| comm == "guard-probe").collect();
        let inside =
            measuring.iter().filter(|(.., cgroups)| cgroups.lines().any(|line| line.ends_with(cgroup.path()))).count();
        Ok((inside == 2).then_some(measuring.iter().map(|(_, tid, _)| *tid).collect::<Vec<u32>>()))
    })?;
    std::thread::sleep(Duration::from_millis(200));
    tool.signal(Signal::INT)?;
    let status = tool.wait(limit())?;
    ensure!(status.success(), "it ended with {status}: {}", tool.stderr()?);
    let out = tool.stdout()?;
    for tid in &inside {
        ensure!(out.contains(&format!("({tid:5}) P:80 I:1")), "thread {tid} has no summary: {out}");
    }
    Ok(Verdict::Passed(format!("threads {inside:?} in {}", cgroup.path())))
}

/// guard's programs see what the threads measure of themselves.
pub(super) fn passive_beside() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let file = scratch.path().join("json");
    let to_json = format!("--json={}", file.display());
    let finished = run(Who::Guard, &["-q", "-t2", "-p", "80", "-i", "2000", "-d0", "-D", "3", "--passive", &to_json])?;
    ensure!(finished.stdout.lines().filter(|line| line.starts_with("# guard: T:")).count() == 2, "{}", finished.stdout);
    let value: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let mut told = Vec::new();
    for thread in ["0", "1"] {
        let own = &value["thread"][thread];
        let seen = |stage: &str, figure: &str| own["guard"][stage][figure].as_u64().unwrap_or(0);
        let cycles = own["cycles"].as_u64().context("cycles")?;
        let counted = seen("thread", "count");
        ensure!(cycles > 0 && counted <= cycles + 2, "guard counted {counted} of {cycles} cycles: {own:#}");
        ensure!(counted * 10 >= cycles * 9, "guard counted {counted} of {cycles} cycles");
        ensure!(seen("irq", "p50_ns") <= seen("thread", "p50_ns"), "the interrupt came after the thread: {own:#}");
        told.push(format!(
            "{counted} of {cycles} cycles, mean {} us / own {}",
            seen("user", "mean_ns") / 1_000,
            own["avg"]
        ));
    }
    Ok(Verdict::Passed(told.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn shapes_leave_out_figures_only() {
        assert_eq!(shape("T: 0 (  12) P:80 I:1000 Min:   4\n"), ["T:N (N) P:N I:N Min:N"]);
        assert_eq!(shape("000001 000002\t000003\n000002 000000\t000000"), ["N\tN"]);
        assert_eq!(shape("# Thread 0: 00001 00002 # 00003 others\n# Thread 1:"), ["# ThreadN:"]);
    }
}
