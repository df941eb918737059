//! The checks of this machine, run by `cargo test`.

use std::process::ExitCode;

use clap::Parser as _;
use guard_tests::{checks, scenario};

fn main() -> ExitCode {
    scenario::main(&checks::on_host(), &scenario::Args::parse())
}
