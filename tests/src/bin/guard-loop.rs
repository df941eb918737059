//! The control loop of `guard lab` as a program of its own, a tenth of guard's size: what stands in a container image is packed,
//! unpacked and hashed by an emulated CPU several times.

use std::process::ExitCode;

use guard::lab::workload;

fn main() -> ExitCode {
    let Some(part) = std::env::args().nth(1) else {
        eprintln!("usage: guard-loop PART, a part of a lab's workload as JSON");
        return ExitCode::from(2);
    };
    match workload::run(&part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
