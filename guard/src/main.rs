//! The binary: hands the arguments to the command line room and its exit code to the shell.

use std::process::ExitCode;

use guard::cli::{self, Exit};
use guard::fault;

fn main() -> ExitCode {
    fault::watch();
    // What it had changed was put back on the way here, and that was said.
    fault::caught(|| cli::main(std::env::args_os())).unwrap_or_else(|panic| Exit::of_panic(&panic)).into()
}
