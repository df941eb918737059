//! The checks of a booted PREEMPT_RT guest as a program.

use std::process::ExitCode;

use guard_tests::{checks, scenario};

fn main() -> ExitCode {
    scenario::main_in_guest(checks::in_guest)
}
