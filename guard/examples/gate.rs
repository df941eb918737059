//! A recording through the gate: each Snapshot is a run, and the verdict says whether they kept a budget.
//!
//! ```text
//! cargo run -p guard --example gate [RECORDING]
//! ```

use std::error::Error;
use std::path::Path;

use guard::gate::{self, Budgets, GateSettings, Verdict, render::VerdictFormat};
use guard::record::Replay;
use guard::view;

/// The recording that comes with guard.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/example.guardrec");
/// What is asked of the control loop: a workload is a cgroup. The form is that of `guard gate --budget`.
const BUDGET: &str = "[[budget]]\nworkload = \"/cell-control\"\nmetric = \"timer.p99\"\nlimit = \"1ms\"\n";

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| RECORDING.into());
    print!("{}", VerdictFormat::Table.render(&verdict(Path::new(&path), BUDGET)?)?);
    Ok(())
}

/// The verdict on the recording `path` by budgets in TOML.
pub(crate) fn verdict(path: &Path, budget: &str) -> Result<Verdict, Box<dyn Error>> {
    let budgets = Budgets::parse(Path::new("budget.toml"), budget)?;
    let mut runs = Vec::new();
    for snapshot in Replay::open(path)? {
        let snapshot = snapshot.map_err(|damage| damage.to_string())?;
        runs.extend(gate::parse(path, view::json::line(&snapshot)?.as_bytes())?);
    }
    Ok(gate::judge(None, runs, Some(&budgets), &GateSettings::default()))
}
