//! `guard restore`: puts back what guard changed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::exit::Failure;
use super::output;
use crate::{control, executor};

/// Put back every value that guard changed
///
/// Reads the undo journal that `guard run --enforce` leaves when it is killed. A file that still holds what guard wrote
/// gets its original value back; a value that somebody else has set since stays, and is reported. Cgroups that have
/// gone, or were made anew, are passed over. A second run does nothing. A clean stop of guard restores by itself; the
/// service manager runs this after a crash.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Where the journal is.
    #[arg(long, value_name = "DIR", default_value = executor::DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// Say what would be put back, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to say it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One line per file, or property of a unit: what it held, its original, what came of it.
    Text,
    /// The same for scripts.
    Json,
}

const AFTER_HELP: &str = "\
Examples:
  guard restore
  guard restore --dry-run
  guard restore --format json --state-dir /run/guard

Needs root. Exit codes: 0 done (also when there was nothing to do), 1 something could not be put back, 2 wrong usage,
3 this node cannot do it: no cpu controller, an unusable state directory, or a guard that is enforcing now.";

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = control::put_back(Path::new("/"), &arguments.state_dir, arguments.dry_run)?;
    output::stdout(&match arguments.format {
        Format::Text => report.to_string(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    })?;
    if report.is_complete() {
        return Ok(());
    }
    let failures = report.failures().count() + report.failed_properties().count();
    Err(Failure::NotRestored(format!(
        "{failures} of {} values could not be put back, {} lines of the undo journals are damaged; see above",
        report.files.len() + report.properties.len(),
        report.damaged
    )))
}
