//! What limits the node's cgroups: by their files, and by systemd's own view of its units.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::shell::run;

const MOUNT: &str = "/sys/fs/cgroup";
/// Files that guard may write without further configuration.
const FILES: [&str; 6] = ["cpu.max", "cpu.max.burst", "cpu.weight", "cpu.idle", "cpuset.cpus", "cpuset.mems"];
/// Properties by which systemd owns these files, and the drop-ins that would change them at its next reload.
const PROPERTIES: &str =
    "Id,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,CPUWeight,AllowedCPUs,AllowedMemoryNodes,DropInPaths,ControlGroup";

const DROP_INS: &str = "DropInPaths=";

/// A picture of all limits at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    files: BTreeMap<PathBuf, String>,
    /// By unit, what `systemctl show` prints.
    units: BTreeMap<String, String>,
}

impl Picture {
    pub(super) fn take() -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(Path::new(MOUNT), &mut files)?;
        let shown = run(&["systemctl", "show", "--property", PROPERTIES, "*.service", "*.scope", "*.slice"])?;
        let units = shown.split("\n\n").filter_map(|block| {
            let id = block.lines().find_map(|line| line.strip_prefix("Id="))?;
            let lines: Vec<String> = block.trim().lines().map(there).collect();
            Some((id.to_owned(), lines.join("\n")))
        });
        Ok(Self { files, units: units.collect() })
    }

    /// Checks that all that is there in both pictures is the same. What has come or gone meanwhile belongs to others.
    pub(super) fn expect_as_in(&self, before: &Self) -> Result<()> {
        let files = differences(&before.files, &self.files, |path| path.display().to_string());
        let units = differences(&before.units, &self.units, Clone::clone);
        let all: Vec<String> = files.chain(units).collect();
        ensure!(all.is_empty(), "not as it was: {}", all.join("; "));
        Ok(())
    }

    /// How many files were compared.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }
}

/// A line of `systemctl show`, of drop-ins those that are there: systemd lists one that has gone until it is told to reload, which
/// guard does not do.
fn there(line: &str) -> String {
    let Some(paths) = line.strip_prefix(DROP_INS) else { return line.to_owned() };
    let paths: Vec<&str> = paths.split(' ').filter(|path| Path::new(path).exists()).collect();
    format!("{DROP_INS}{}", paths.join(" "))
}

fn differences<'a, K: Ord + 'a>(
    before: &'a BTreeMap<K, String>,
    after: &'a BTreeMap<K, String>,
    name: impl Fn(&K) -> String + 'a,
) -> impl Iterator<Item = String> + 'a {
    before.iter().filter_map(move |(key, was)| {
        let is = after.get(key).filter(|is| *is != was)?;
        let changed: Vec<String> = was
            .lines()
            .zip(is.lines())
            .filter(|(was, is)| was != is)
            .map(|(was, is)| format!("\"{was}\" became \"{is}\""))
            .collect();
        Some(format!("{}: {}", name(key), changed.join(", ")))
    })
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for name in FILES {
        let path = dir.join(name);
        if let Ok(text) = fs::read_to_string(&path) {
            files.insert(path, text.trim_end().to_owned());
        }
    }
    // A cgroup may go while it is looked at.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().with_context(|| format!("type of {}", entry.path().display()))?.is_dir() {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The quotas of a cgroup and of all that contain it but the root: path and cpu.max.
pub(super) fn quotas(cgroup: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut path = cgroup;
    while !path.is_empty() && path != "/" {
        if let Ok(text) = fs::read_to_string(format!("{MOUNT}{path}/cpu.max")) {
            out.push((path.to_owned(), text.trim_end().to_owned()));
        }
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    out
}

/// The cgroup of a process.
pub(super) fn cgroup_of(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let cgroup = text.lines().find_map(|line| line.strip_prefix("0::")).with_context(|| format!("{path}: {text}"))?;
    Ok(cgroup.to_owned())
}
