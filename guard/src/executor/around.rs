//! What is around a cgroup once a batch is done: the batch's own settings where it has some, else what the files say.

use std::{collections::BTreeMap, fs};

use crate::{
    cgroup::Hierarchy,
    knob::{Knob, Setting, Surroundings, WeightFormula},
    snapshot::CgroupPath,
};

/// The node with a batch laid over it.
pub(super) struct Around<'a> {
    pub(super) hierarchy: &'a Hierarchy,
    pub(super) formula: WeightFormula,
    pub(super) batch: BTreeMap<(String, Knob), Setting>,
}

impl Surroundings for Around<'_> {
    fn setting(&self, path: &str, knob: Knob) -> Option<Setting> {
        if let Some(setting) = self.batch.get(&(path.to_owned(), knob)) {
            return Some(setting.clone());
        }
        // What cannot be read sets no limit that is known beforehand; the kernel's answer decides.
        self.hierarchy.setting(path, knob, self.formula).ok().flatten()
    }

    fn children(&self, path: &str, knob: Knob) -> Vec<String> {
        let dir = self.hierarchy.dir_of(knob.controller(), path);
        let entries = dir.and_then(Result::ok).and_then(|dir| fs::read_dir(dir).ok());
        let dirs =
            entries.into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| CgroupPath::of(path).child(&entry.file_name().to_string_lossy())).collect()
    }

    fn rt_period_us(&self, path: &str) -> Option<u64> {
        self.hierarchy.rt_period_us(path)
    }
}
