//! The checks of a booted field guest as a program.

use std::process::ExitCode;

use clap::Parser;
use guard_tests::{checks, scenario};

/// Checks of guard in a booted field guest
#[derive(Parser)]
struct Cli {
    /// Only the checks in which the guest's kernel has a part
    #[arg(long)]
    brief: bool,
    #[command(flatten)]
    of_scenarios: scenario::Args,
}

fn main() -> ExitCode {
    let Cli { brief, of_scenarios } = Cli::parse();
    scenario::main(&checks::in_field(brief), &of_scenarios)
}
