//! Builds guard and its bench and runs them on this machine, as root where that can be had.

use std::{
    io::IsTerminal,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{
    place::{Cache, Profile, Workspace},
    process::{command_line, find_program, is_root, visible},
    setup::{self, Purpose},
};

/// Builds `packages`. cargo shows its own progress.
///
/// # Errors
/// When the build fails.
pub(crate) fn build(workspace: &Workspace, profile: Profile, packages: &[&str]) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--locked", "--profile", profile.name()])
        .args(packages.iter().flat_map(|&package| ["--package", package]));
    let status = visible(&mut cargo)?;
    ensure!(status.success(), "{} failed ({status})", command_line(&cargo));
    Ok(())
}

/// `cargo xtask run`: guard's live view of this machine, or a report where stdout is no terminal.
///
/// # Errors
/// When guard cannot be built or started.
pub(crate) fn guard(workspace: &Workspace, args: Vec<String>) -> Result<ExitCode> {
    build(workspace, Profile::Quick, &["guard"])?;
    let args = if args.is_empty() { default_arguments(std::io::stdout().is_terminal()) } else { args };
    pass_on(as_root(&workspace.binaries(Profile::Quick).join("guard")).args(args))
}

/// `cargo xtask bench`.
///
/// # Errors
/// When a peer is missing, or the bench cannot be built or started.
pub(crate) fn bench(workspace: &Workspace, cache: &Cache, args: Vec<String>) -> Result<ExitCode> {
    setup::ensure(cache, Purpose::Bench)?;
    // The bench starts the workloads of the tests.
    build(workspace, Profile::Release, &["guard", "guard-bench", "guard-tests"])?;
    pass_on(as_root(&workspace.binaries(Profile::Release).join("guard-bench")).args(args))
}

fn default_arguments(terminal: bool) -> Vec<String> {
    let words: &[&str] = if terminal { &["top"] } else { &["report", "--duration", "10s"] };
    words.iter().map(|&word| word.to_owned()).collect()
}

/// `program` as root: by sudo, which may ask for a password. Without sudo the program itself says what it lacks.
fn as_root(program: &Path) -> Command {
    if is_root() || find_program("sudo").is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

/// Becomes `command`; comes back only when that fails.
fn pass_on(command: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    // In our place: signals and the terminal are then the program's own affair.
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", command_line(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_the_view_ends_by_itself() {
        assert_eq!(default_arguments(false), ["report", "--duration", "10s"]);
        assert_eq!(default_arguments(true), ["top"]);
    }
}
