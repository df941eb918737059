//! Programs in the cache that no installed package brings.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    apt,
    place::Cache,
    process::{find_program, output_of},
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
    // What is left of it serves nobody.
    let _ = std::fs::remove_dir_all(&partial);
    result?;
    anyhow::ensure!(prometheus(cache).is_some(), "Debian's prometheus holds no prometheus and promtool");
    Ok(())
}
