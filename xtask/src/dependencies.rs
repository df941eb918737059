//! What comes in by way of dependencies: licences, versions and sources as deny.toml allows them, and the licences of what
//! is compiled into the eBPF object as guard-ebpf/deny.toml does. cargo-deny checks; this file only calls it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    place::{Cache, Workspace},
    process::visible,
    tools,
};

/// What cargo-deny checks: a crate's directory, whose deny.toml counts, and the checks.
const ASKED: [(&str, &[&str]); 2] = [(".", &["licenses", "bans", "sources"]), ("guard-ebpf", &["licenses"])];

/// The checks that fail, by name, and how many pass. cargo-deny prints what is wrong.
///
/// # Errors
/// When cargo-deny is missing or cannot be started.
pub(crate) fn check(workspace: &Workspace, cache: &Cache) -> Result<(usize, Vec<String>)> {
    let program = tools::cargo_deny(cache).context("no cargo-deny; run cargo xtask setup --for test")?;
    let (mut passed, mut failed) = (0, Vec::new());
    for (dir, checks) in ASKED {
        let dir = workspace.root.join(dir);
        let mut deny = Command::new(&program);
        deny.arg("--locked").arg("--manifest-path").arg(dir.join("Cargo.toml"));
        deny.arg("--config").arg(dir.join("deny.toml")).args(["check", "--hide-inclusion-graph"]).args(checks);
        if visible(&mut deny)?.success() {
            passed += checks.len();
        } else {
            failed.push(format!("{} of {}", checks.join(", "), dir.display()));
        }
    }
    Ok((passed, failed))
}
