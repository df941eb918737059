//! The gate on real runs of this machine: what it judges, that its exit codes come out, and that the examples for pipelines
//! in deploy/ci do what they say.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    harness::{GuardRun, Workload, binary, emulated, finish, patience, scratch_dir},
    scenario::Verdict,
};

/// Two reports of a cyclic FIFO thread: they keep a wide budget, break one of 1 us, and are too few to be compared.
pub(super) fn budgets_and_baselines() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let file = |name: &str| scratch.path().join(name);
    for name in ["first.json", "second.json"] {
        record(&file(name))?;
    }
    let budget = |name: &str, limit: &str| -> Result<_> {
        let text =
            format!("[[budget]]\nworkload = \"*:guard-workload\"\nmetric = \"timer.max\"\nlimit = \"{limit}\"\n");
        fs::write(file(name), text).with_context(|| format!("write {name}"))?;
        Ok(file(name))
    };
    let gate = |options: &[&Path], code: i32| -> Result<String> {
        let mut command = Command::new(binary("guard")?);
        command.arg("gate").args(options);
        let finished = finish(&mut command, Duration::from_secs(30) * patience())?;
        finished.expect_code(code)?;
        Ok(finished.stdout)
    };
    let (first, second) = (file("first.json"), file("second.json"));
    let kept = gate(&["--budget".as_ref(), &budget("wide.toml", "10s")?, &first, &second], 0)?;
    gate(&["--budget".as_ref(), &budget("narrow.toml", "1us")?, &first, &second], 1)?;
    gate(&["--each".as_ref(), "--baseline".as_ref(), &first, &second], 4)?;
    Ok(Verdict::Passed(kept.lines().next().unwrap_or_default().to_owned()))
}

fn record(output: &Path) -> Result<()> {
    let (interval, cycles) = if emulated() { ("20000", "100") } else { ("1000", "1000") };
    let arguments =
        ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", interval, "--cycles", cycles];
    let mut workload = Workload::hold(&arguments)?;
    let guard = GuardRun::report().with(&["--label", "one cyclic thread"]).tid(workload.tid()?).measure()?;
    workload.go()?;
    workload.outcome(Duration::from_secs(60) * patience())?;
    let snapshot = guard.stop()?;
    anyhow::ensure!(snapshot.node.label.as_deref() == Some("one cyclic thread"), "label {:?}", snapshot.node.label);
    anyhow::ensure!(snapshot.node.cpu_model.is_some(), "the report names no CPU model");
    fs::write(output, serde_json::to_string(&snapshot)?).with_context(|| format!("write {}", output.display()))
}

const GITHUB: &str = include_str!("../../../deploy/ci/github-actions.yml");
const GITLAB: &str = include_str!("../../../deploy/ci/gitlab-ci.yml");
/// What the examples measure, and what is enough for a p99 of each run. By cycles: an emulated guest does not keep to time.
const EXAMPLE: [(&str, &str); 3] = [("seq -w 1 20", "seq -w 1 5"), ("-i250", "-i2000"), ("-D10s", "-l600")];

/// The commands of both examples, run as a pipeline would run them: cyclictest measures this machine, the gate judges.
///
/// Five runs a side are too few to call anything a regression, so the outcome does not hang on how steady the machine is.
pub(super) fn pipelines() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let dir = scratch.path();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).with_context(|| format!("write {name}"));
    fs::create_dir_all(dir.join("bin")).context("mkdir")?;
    fs::create_dir_all(dir.join("latency")).context("mkdir")?;
    // Whoever runs this is root already.
    write("bin/sudo", "#!/bin/sh\nexec \"$@\"\n")?;
    fs::set_permissions(dir.join("bin/sudo"), fs::Permissions::from_mode(0o755)).context("chmod")?;
    let budget = |limit: &str| {
        let text = format!("[[budget]]\nworkload = \"cyclictest\"\nmetric = \"timer.max\"\nlimit = \"{limit}\"\n");
        write("latency/budget.toml", &text)
    };

    // Once, by hand: the history, as the head of the example says.
    shell(dir, &shortened(&block(GITHUB, "- name: Measure")?)?, 0)?;
    shell(dir, &made_once(GITHUB)?, 0)?;
    let history = fs::read_to_string(dir.join("latency/history.gate.jsonl")).context("history")?;
    ensure!(history.lines().count() == 5, "{} runs in the history", history.lines().count());
    fs::rename(dir.join("runs"), dir.join("first")).context("rename")?;

    // GitHub: too little data is a warning, a broken budget fails, another node is a warning.
    budget("10s")?;
    shell(dir, &shortened(&block(GITHUB, "- name: Measure")?)?, 0)?;
    let judge = block(GITHUB, "- name: Judge")?;
    let said = shell(dir, &judge, 0)?;
    ensure!(said.contains("::warning::Too little data"), "{said}");
    let junit = fs::read_to_string(dir.join("gate.xml")).context("gate.xml")?;
    ensure!(junit.contains("<testcase") && dir.join("summary.md").exists(), "no JUnit file or no summary: {junit}");
    budget("1us")?;
    let said = shell(dir, &judge, 1)?;
    ensure!(said.contains("::error title=guard gate"), "{said}");
    budget("10s")?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    write("latency/history.gate.jsonl", &history.replace(&kernel, "5.0.0-elsewhere"))?;
    let said = shell(dir, &judge, 0)?;
    ensure!(said.contains("::warning::The node has changed"), "{said}");

    // GitLab: the codes themselves, which the job's allow_failure names. Too little data adds to the history.
    ensure!(GITLAB.contains("exit_codes: [3, 4]"), "the job no longer allows 3 and 4");
    let judge = block(GITLAB, "- >-")?.replace('\n', " ");
    ensure!(block(GITLAB, "- |")?.contains("cyclictest -q"), "the job no longer measures with cyclictest");
    shell(dir, &judge, 3)?;
    write("latency/history.gate.jsonl", &history)?;
    shell(dir, &judge, 4)?;
    let grown = fs::read_to_string(dir.join("latency/history.gate.jsonl")).context("history")?;
    ensure!(grown.lines().count() == 10, "{} runs in the history", grown.lines().count());
    budget("1us")?;
    shell(dir, &judge, 1)?;
    Ok(Verdict::Passed("10 runs of cyclictest; GitHub: 0, 1, 0; GitLab: 3, 4, 1".to_owned()))
}

/// The block of text below the line `head` of a YAML file: its `run: |`, or the list entry itself.
fn block(yaml: &str, head: &str) -> Result<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines().skip_while(|line| line.trim() != head).peekable();
    let mut opening = lines.next().with_context(|| format!("no {head}"))?;
    if head.starts_with("- name") {
        opening = lines.find(|line| line.trim() == "run: |").with_context(|| format!("{head} runs nothing"))?;
    }
    let body: Vec<&str> =
        lines.take_while(|line| line.trim().is_empty() || indent(line) > indent(opening)).map(str::trim_end).collect();
    let least = body.iter().filter(|line| !line.is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    ensure!(!body.is_empty(), "{head} is empty");
    Ok(body.iter().map(|line| line.get(least..).unwrap_or_default().to_owned() + "\n").collect())
}

/// The command that an example's head says makes the history.
fn made_once(yaml: &str) -> Result<String> {
    let line =
        yaml.lines().find(|line| line.starts_with("# Make the history once")).context("no word about the history")?;
    Ok(line.split_once("trust: ").context("no command")?.1.to_owned())
}

/// With fewer and shorter runs.
fn shortened(script: &str) -> Result<String> {
    EXAMPLE.iter().try_fold(script.to_owned(), |text, (from, to)| {
        ensure!(text.contains(from), "the example has no {from} any more: {text}");
        Ok(text.replace(from, to))
    })
}

/// Runs a script as GitHub's runners do, checks its exit code and returns what it said.
fn shell(dir: &Path, script: &str, code: i32) -> Result<String> {
    let guard = binary("guard")?;
    let own = [dir.join("bin"), guard.parent().context("directory of guard")?.to_owned()];
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(own.into_iter().chain(env::split_paths(&path))).context("PATH")?;
    let mut command = Command::new("bash");
    command.args(["-e", "-c", script]).current_dir(dir).env("PATH", path);
    command.env("GITHUB_STEP_SUMMARY", dir.join("summary.md"));
    let finished = finish(&mut command, Duration::from_secs(120) * patience())?;
    finished.expect_code(code).with_context(|| script.to_owned())?;
    Ok(finished.stdout)
}
