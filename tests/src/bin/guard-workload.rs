//! The workloads as a program.

use std::process::ExitCode;

use clap::Parser;

/// Programs that wait as real-time programs do, and say themselves what they saw
#[derive(Parser)]
#[command(name = "guard-workload")]
struct Args {
    #[command(subcommand)]
    command: guard_tests::workload::Command,
}

fn main() -> ExitCode {
    match guard_tests::workload::run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-workload: {error:#}");
            ExitCode::FAILURE
        }
    }
}
