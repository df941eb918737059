//! `guard doctor`: what on this node endangers real-time work, and the exact change that mends it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::exit::Failure;
use super::output;
use crate::doctor::{self, FACTS_SCHEMA, Facts};
use crate::view;

/// Say what on this node endangers real-time work, and the exact change that mends it
///
/// Looks at the kernel, its boot options, CPUs, interrupts, memory, cgroups, container runtimes and real-time
/// processes. It changes nothing. Without root it sees less and says what it could not see.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print the changes as a shell script to be reviewed, each with what undoes it.
    #[arg(long, conflicts_with = "format")]
    fix_plan: bool,
    /// Look at the node whose file system is seen at this directory.
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "from")]
    root: PathBuf,
    /// Judge a node that was recorded with --facts.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Print what was read of the node, as JSON, and judge nothing: for a ticket, and for --from.
    #[arg(long, conflicts_with_all = ["format", "fix_plan"])]
    facts: bool,
    /// Print the JSON schema of --format json, and look at nothing.
    #[arg(long)]
    json_schema: bool,
    /// Print the table of all checks, and look at nothing.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people: 80 columns, worst first.
    Text,
    /// For scripts; see --json-schema.
    Json,
}

const AFTER_HELP: &str = "\
Examples:
  guard doctor
  guard doctor --fix-plan > fix.sh
  guard doctor --facts > edge-7.json; guard doctor --from edge-7.json
  guard doctor --format json --root /host

Exit codes: 0 nothing to act on, 1 something must be acted on (critical or warning), 2 wrong usage, 70 a defect of guard.
All checks: docs/doctor.md.";

/// Runs the subcommand; true when something must be acted on.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    if arguments.json_schema {
        return output::stdout(&view::doctor::schema()?).map(|()| false);
    }
    if arguments.list {
        return output::stdout(&view::doctor::table(&doctor::checks())).map(|()| false);
    }
    let facts = match &arguments.from {
        Some(file) => recorded(file)?,
        None => {
            let usage = |message: &str| Failure::Input { path: arguments.root.clone(), message: message.to_owned() };
            if !arguments.root.join("proc").is_dir() {
                return Err(usage("it has no proc: name the directory that shows the node's root"));
            }
            doctor::collect(&arguments.root)
        }
    };
    if arguments.facts {
        return output::stdout(&(serde_json::to_string_pretty(&facts)? + "\n")).map(|()| false);
    }
    let report = doctor::examine(&facts);
    output::stdout(&match arguments.format {
        _ if arguments.fix_plan => view::doctor::fix_plan(&report),
        Format::Text => view::doctor::text(&report),
        Format::Json => view::doctor::json(&report)?,
    })?;
    Ok(report.must_act())
}

fn recorded(file: &Path) -> Result<Facts, Failure> {
    let failed = |message: String| Failure::Input { path: file.to_owned(), message };
    let text = std::fs::read_to_string(file).map_err(|error| failed(format!("cannot read it: {error}")))?;
    // Editors and shells begin a text with a byte order mark, which is no JSON.
    let text = text.trim_start_matches('\u{feff}');
    let facts: Facts =
        serde_json::from_str(text).map_err(|error| failed(format!("no output of guard doctor --facts: {error}")))?;
    if facts.schema > FACTS_SCHEMA {
        return Err(failed(format!(
            "recorded by a newer guard: schema {}, this one knows {FACTS_SCHEMA}",
            facts.schema
        )));
    }
    Ok(facts)
}
