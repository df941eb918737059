//! The gate on real reports of this machine: what it judges and that its exit codes come out.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};

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
