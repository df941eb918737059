//! The checks of a booted field guest as a program.

use std::process::ExitCode;

use clap::Parser as _;
use guard_tests::{checks, scenario};

fn main() -> ExitCode {
    scenario::main(&checks::in_field(), &scenario::Args::parse())
}
