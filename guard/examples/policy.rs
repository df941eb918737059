//! A recording through the policies: what guard would change after each Snapshot, and why it would not. Only the recording
//! is read, and nothing is written.
//!
//! ```text
//! cargo run -p guard --example policy [RECORDING]
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use guard::policy::{self, PolicySettings, PolicyState};
use guard::record::Replay;

/// The recording that comes with guard.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/example.guardrec");

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| RECORDING.into());
    print!("{}", plans(Path::new(&path))?);
    Ok(())
}

/// One paragraph per Snapshot of the recording `path`.
pub(crate) fn plans(path: &Path) -> Result<String, Box<dyn Error>> {
    let settings = PolicySettings::default();
    // What the policies remember from one Snapshot to the next.
    let mut state = PolicyState::default();
    let mut text = String::new();
    for snapshot in Replay::open(path)? {
        // A damaged part of a recording names itself and does not end it; here it does.
        let snapshot = snapshot.map_err(|damage| damage.to_string())?;
        let plan = policy::decide(&snapshot, &settings, &mut state);
        writeln!(text, "{}: {} cgroups, {} changes", snapshot.window.start, snapshot.cgroups.len(), plan.wants.len())?;
        for want in &plan.wants {
            writeln!(text, "  {} of {}: {}", want.setting.knob().name(), want.path, want.reason)?;
        }
        for note in &plan.notes {
            writeln!(text, "  {note}")?;
        }
    }
    Ok(text)
}
