//! Commands of the node's own tools, with a deadline.

use std::process::Command;

use anyhow::{Context as _, Result};

pub(super) use crate::checks::container::limit;
use crate::harness::Tool;

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
