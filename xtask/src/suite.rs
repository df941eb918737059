//! The Debian suite after this machine's: its parts are unpacked, never installed here. apt gets package lists of its own
//! for it, so that what this machine installs for itself stays as it is.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::{
    apt::{self, ARCH},
    place::Cache,
    process::{output_of, quiet},
};

/// Testing, by its own name. It has what unstable has a few days later, but a package comes only when everything that it
/// needs is there, so that an image can be made on any day.
pub(crate) const SUITE: &str = "forky";
/// Signs every suite.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The mirror of Debian that this machine's apt uses.
///
/// # Errors
/// When apt knows none.
pub(crate) fn mirror(cache: &Cache) -> Result<String> {
    if let Some(mirror) = known_mirror() {
        return Ok(mirror);
    }
    apt::refresh_package_lists(cache)?;
    known_mirror().context("apt knows no mirror of Debian, from which the field image and newer kernels come")
}

fn known_mirror() -> Option<String> {
    let format = ["indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE)", "Created-By: Packages"];
    mirror_in(&output_of(Command::new("apt-get").args(format))?)
}

/// The first of apt's lines `ORIGIN LABEL SITE` that is Debian's own, not its security updates.
fn mirror_in(lines: &str) -> Option<String> {
    lines.lines().find_map(|line| line.strip_prefix("Debian Debian ")).map(str::to_owned)
}

/// `program` of apt with the lists of this suite only.
///
/// # Errors
/// When the cache cannot be written.
pub(crate) fn apt(cache: &Cache, program: &str) -> Result<Command> {
    let (lists, archives) = (cache.dir("suite/lists")?, cache.dir("suite/archives")?);
    cache.dir("suite/lists/partial")?;
    let mut command = Command::new(program);
    for option in [
        format!("Dir::Etc::sourcelist={}", cache.path(SOURCES).display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", lists.display()),
        "Dir::State::status=/dev/null".to_owned(),
        format!("Dir::Cache={}", archives.display()),
        "APT::Default-Release=".to_owned(),
        // As root it would act as user _apt, who may not write here.
        "APT::Sandbox::User=root".to_owned(),
        // By the clock of a machine that is behind or ahead, a suite under development soon counts as expired.
        "Acquire::Check-Valid-Until=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    Ok(command)
}

/// Where apt reads which mirror and suite.
const SOURCES: &str = "suite/sources.list";

/// Fetches the package lists of this suite.
///
/// # Errors
/// When no mirror is known, or what apt said.
pub(crate) fn refresh_package_lists(cache: &Cache) -> Result<()> {
    let mirror = mirror(cache)?;
    let mut update = apt(cache, "apt-get")?;
    let sources = cache.path(SOURCES);
    fs::write(&sources, format!("deb [arch={ARCH} signed-by={KEYRING}] {mirror} {SUITE} main\n"))
        .with_context(|| format!("writing {}", sources.display()))?;
    quiet(&format!("fetching the package lists of {SUITE}"), &cache.log("apt-update-suite")?, update.arg("update"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_and_has_newer_suites() {
        let lines =
            "Other Debian http://other\nDebian Debian-Security http://security\nDebian Debian http://mirror/debian\n";
        assert_eq!(mirror_in(lines).as_deref(), Some("http://mirror/debian"));
        assert_eq!(mirror_in("Other Debian http://other\n"), None);
    }
}
