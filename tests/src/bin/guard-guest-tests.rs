//! The checks of a booted PREEMPT_RT guest as a program.

use std::process::ExitCode;

use clap::Parser;
use guard_tests::{checks, scenario};

/// Checks of guard in a booted PREEMPT_RT guest
#[derive(Parser)]
struct Cli {
    /// Only the checks whose outcome may depend on the kernel
    #[arg(long)]
    brief: bool,
    #[command(flatten)]
    of_scenarios: scenario::Args,
}

fn main() -> ExitCode {
    let Cli { brief, of_scenarios } = Cli::parse();
    scenario::main(&checks::in_guest(brief), &of_scenarios)
}
