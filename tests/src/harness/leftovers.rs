//! What a check may leave behind on the machine: nothing.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{Cgroup, Hierarchy, until};

/// What was there before a check. Only what a check or guard could have made is looked at: others use this machine too.
#[derive(Debug, PartialEq, Eq)]
pub struct MachineState {
    cgroups: BTreeSet<String>,
    children: BTreeSet<u32>,
    pinned: BTreeSet<String>,
    traces: BTreeSet<String>,
    settings: Vec<(&'static str, Option<String>)>,
}

/// Trace buffers beside the kernel's own.
const TRACES: &str = "/sys/kernel/tracing/instances";

const SETTINGS: [&str; 1] = ["/proc/sys/kernel/sched_rt_runtime_us"];

impl MachineState {
    /// Looks around.
    ///
    /// # Errors
    /// When /proc or the cpu hierarchy cannot be read.
    pub fn look() -> Result<Self> {
        let mount = Hierarchy::find()?.mount;
        let there = |dir: &str| if Path::new(dir).is_dir() { names(Path::new(dir)) } else { Ok(BTreeSet::new()) };
        Ok(Self {
            cgroups: names(&mount)?
                .into_iter()
                .filter(|name| name.starts_with(Cgroup::PREFIX) || name.starts_with(guard::lab::PREFIX))
                .collect(),
            children: children()?,
            traces: there(TRACES)?.into_iter().filter(|name| name.starts_with(Cgroup::PREFIX)).collect(),
            // Not guard's: crun keeps the device filters of containers there.
            pinned: there("/sys/fs/bpf")?.into_iter().filter(|name| name != "crun").collect(),
            settings: SETTINGS.map(|path| (path, fs::read_to_string(path).ok())).into(),
        })
    }

    /// Checks that everything is as it was, giving the kernel a moment to finish what was ended.
    ///
    /// # Errors
    /// When something is not; the message says what.
    pub fn expect_unchanged(&self) -> Result<()> {
        let as_it_was = until("the machine as it was", Duration::from_secs(20) * super::patience(), || {
            Ok((Self::look()? == *self).then_some(()))
        });
        if as_it_was.is_err() {
            let now = Self::look()?;
            bail!("the check leaves the machine changed: before {self:?}, now {now:?}");
        }
        Ok(())
    }
}

fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The children of this process.
fn children() -> Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task").context("read /proc/self/task")? {
        let path = task.context("read /proc/self/task")?.path().join("children");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        pids.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(pids)
}
