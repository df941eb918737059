//! Commands of the node's own tools, with a deadline.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::harness::{Tool, patience};

/// How long one command may take. Runtimes start containers in seconds on a quiet machine, in a minute on a busy one.
pub(super) fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

/// Runs a command to its successful end and returns what it printed, without the last newline.
pub(super) fn run(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    let stdout = Tool::start(command.args(arguments))?.success(limit()).with_context(|| words.join(" "))?;
    Ok(stdout.trim_end().to_owned())
}

/// Runs a command of which only the effect matters, if it has any: stopping what may have ended.
pub(super) fn attempt(words: &[&str]) {
    if let Err(error) = run(words) {
        eprintln!("    {error:#}");
    }
}
