//! The binary: hands the arguments to the command line room and its exit code to the shell.

use std::panic::catch_unwind;
use std::process::ExitCode;

use guard::cli::{self, Exit};

fn main() -> ExitCode {
    // A panic has printed its message already; its exit code is the one for defects.
    catch_unwind(|| cli::main(std::env::args_os())).unwrap_or(Exit::Defect).into()
}
