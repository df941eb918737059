//! guard's own programs as a guest gets them: copies, so that a build beside it changes nothing there, and without what only a
//! debugger needs, three quarters of each. An emulated guest reads every page of a program over an emulated file system, and a
//! container image with one in it is packed and unpacked there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::process::{command_line, visible};

/// Copies guard's programs in the directory `from` to the new directory `to`, stripped.
///
/// # Errors
/// When there are none, or strip(1) is missing or fails.
pub(super) fn strip(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("creating {}", to.display()))?;
    let mut programs = 0;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let name = entry.file_name();
        // Beside them lie their lists of dependencies, as NAME.d.
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("guard") && !name.contains('.'));
        if !is_ours || !entry.path().is_file() {
            continue;
        }
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(to.join(&name)).arg(entry.path());
        let status = visible(&mut strip).context("strip is in the package binutils")?;
        ensure!(status.success(), "{} failed ({status})", command_line(&strip));
        programs += 1;
    }
    ensure!(programs > 0, "{} has no programs of guard's", from.display());
    Ok(())
}
