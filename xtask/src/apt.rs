//! Debian's packages: how to install or unpack them, and what to print where installing is not allowed.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    place::Cache,
    process::{as_root, find_program, may_be_root, quiet},
};

/// Debian's name of this machine's architecture, in the names of kernel packages.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCH: &str = "amd64";
/// Debian's name of this machine's architecture, in the names of kernel packages.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCH: &str = "arm64";

/// Something is missing that we may not or cannot install; what to type is in the message.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) what: Vec<String>,
    pub(crate) commands: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {}. To install:", self.what.join(", "))?;
        self.commands.iter().try_for_each(|command| write!(f, "\n  {command}"))
    }
}

impl std::error::Error for Missing {}

/// Fetches apt's package lists.
///
/// # Errors
/// [`Missing`] when we may not, otherwise what apt said.
pub(crate) fn refresh_package_lists(cache: &Cache) -> Result<()> {
    if find_program("apt-get").is_none() || !may_be_root() {
        let commands = vec!["sudo apt-get update".to_owned()];
        return Err(Missing { what: vec!["current package lists".to_owned()], commands }.into());
    }
    let mut update = apt_get();
    quiet("fetching the package lists", &cache.log("apt-update")?, update.arg("update"))
}

/// apt-get as root, without questions, waiting for another apt to finish.
pub(crate) fn apt_get() -> Command {
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// Downloads Debian packages by `apt`, an apt-get, and unpacks them, without installing them; returns the tree within
/// `partial` that holds them all.
///
/// # Errors
/// When apt does not know or get one, or it cannot be unpacked.
pub(crate) fn unpack_packages(mut apt: Command, packages: &[String], partial: &Path, log: &Path) -> Result<PathBuf> {
    let tree = partial.join("tree");
    std::fs::create_dir_all(&tree).with_context(|| format!("creating {}", tree.display()))?;
    let names = packages.join(" ");
    // apt as root would download as user _apt, who may not write here, and complain about it.
    apt.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(partial);
    quiet(&format!("downloading {names}"), log, &mut apt)?;
    let debs: Vec<PathBuf> = std::fs::read_dir(partial)
        .with_context(|| format!("listing {}", partial.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    anyhow::ensure!(debs.len() == packages.len(), "apt-get download {names} left {} packages", debs.len());
    for deb in debs {
        quiet(&format!("unpacking {names}"), log, Command::new("dpkg").arg("-x").arg(&deb).arg(&tree))?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_commands_to_type() {
        let missing = Missing { what: vec!["kmod".into()], commands: vec!["sudo apt-get install kmod".into()] };
        assert_eq!(missing.to_string(), "missing: kmod. To install:\n  sudo apt-get install kmod");
    }
}
