//! Which cgroups and threads the user asked for.

use std::collections::HashSet;

use super::error::ControlError;
use crate::inventory::{CgroupFilter, CgroupInfo, Inventory};
use crate::snapshot::{Breach, Cgroup, Snapshot, Thread};

/// The part of the node to report on; everything when it names nothing.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Patterns for cgroups; see [`CgroupFilter`].
    pub cgroups: Vec<String>,
    /// Threads, in addition.
    pub tids: Vec<u32>,
}

impl Selection {
    /// Whether the user named nothing.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.cgroups.is_empty() && self.tids.is_empty()
    }
}

/// A selection that was checked against the node.
#[derive(Debug)]
pub(super) struct Selected {
    /// As the user named it.
    pub(super) by: Selection,
    /// Its patterns.
    pub(super) filter: CgroupFilter,
}

impl Selected {
    /// # Errors
    /// When a pattern is none, or matches no cgroup that is there.
    pub(super) fn new(by: &Selection, inventory: &Inventory) -> Result<Self, ControlError> {
        for pattern in &by.cgroups {
            let filter = CgroupFilter::new(&[pattern])?;
            if !inventory.cgroups().any(|cgroup| filter.matches(cgroup)) {
                return Err(ControlError::NoCgroup {
                    pattern: pattern.clone(),
                    cgroups: inventory.cgroups().count(),
                    similar: similar(pattern, inventory.cgroups().flat_map(names)),
                });
            }
        }
        Ok(Self { by: by.clone(), filter: CgroupFilter::new(&by.cgroups)? })
    }

    /// What it means among the cgroups that are there now.
    pub(super) fn keep<'a>(&self, cgroups: impl IntoIterator<Item = &'a CgroupInfo>) -> Keep {
        Keep::new(&self.by, &self.filter, cgroups)
    }
}

/// What a cgroup can be asked for by.
fn names(cgroup: &CgroupInfo) -> impl Iterator<Item = &str> {
    let container = cgroup.container.iter().flat_map(|c| [c.name.as_deref(), c.pod.as_deref()]).flatten();
    std::iter::once(cgroup.path.as_str()).chain(container)
}

/// What to keep of a Snapshot.
#[derive(Clone, Debug, Default)]
pub(super) enum Keep {
    /// Everything.
    #[default]
    All,
    /// The named part.
    Some {
        /// Paths of the cgroups that a pattern matches.
        paths: HashSet<String>,
        /// Named threads.
        tids: Vec<u32>,
    },
}

impl Keep {
    /// What the selection means among the cgroups that are there now.
    fn new<'a>(
        selection: &Selection,
        filter: &CgroupFilter,
        cgroups: impl IntoIterator<Item = &'a CgroupInfo>,
    ) -> Self {
        if selection.is_everything() {
            return Self::All;
        }
        let paths = cgroups.into_iter().filter(|c| filter.matches(c)).map(|c| c.path.clone()).collect();
        Self::Some { paths, tids: selection.tids.clone() }
    }

    /// Removes what was not asked for from a Snapshot.
    pub(super) fn narrow(&self, snapshot: &mut Snapshot) {
        self.apply(&mut snapshot.cgroups, &mut snapshot.threads, &mut snapshot.breaches);
    }

    /// Removes what was not asked for. With a thread named, its cgroup stays too.
    pub(super) fn apply(&self, cgroups: &mut Vec<Cgroup>, threads: &mut Vec<Thread>, breaches: &mut Vec<Breach>) {
        let Self::Some { paths, tids } = self else { return };
        threads.retain(|t| tids.contains(&t.tid) || paths.contains(&t.cgroup));
        breaches.retain(|b| tids.contains(&b.tid) || paths.contains(&b.cgroup));
        cgroups.retain(|c| paths.contains(&c.path) || threads.iter().any(|t| t.cgroup == c.path));
    }
}

/// Up to three of `existing` that look like what was asked for, the most similar first.
pub(super) fn similar<'a>(asked: &str, existing: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    // The root resembles everything that begins with a slash.
    let existing = existing.into_iter().filter(|path| *path != "/");
    let plain = asked.replace(['*', '?', '[', ']', '{', '}'], "");
    let last = |path: &'a str| path.rsplit('/').next().unwrap_or(path);
    let asked_last = plain.trim_end_matches('/').rsplit('/').next().unwrap_or(&plain);
    let mut scored: Vec<(f64, &str)> = existing
        .map(|path| (strsim::jaro_winkler(asked_last, last(path)).max(strsim::jaro_winkler(&plain, path)), path))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, path)| path.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(path: &str) -> CgroupInfo {
        CgroupInfo { path: path.into(), id: 1, container: None, class: crate::snapshot::Class::Ls, vanished: false }
    }

    fn keep(selection: &Selection, cgroups: &[CgroupInfo]) -> Keep {
        Keep::new(selection, &CgroupFilter::new(&selection.cgroups).unwrap(), cgroups)
    }

    #[test]
    fn a_named_thread_keeps_its_cgroup() {
        let selection = Selection { cgroups: vec!["/plc".into()], tids: vec![7] };
        let paths = ["/plc", "/plc/sub", "/home", "/other"];
        let keep = keep(&selection, &paths.map(info));
        let thread = |tid, cgroup: &str| Thread { tid, cgroup: cgroup.into(), ..Thread::default() };
        let mut cgroups: Vec<Cgroup> = paths.map(|path| Cgroup { path: path.into(), ..Cgroup::default() }).into();
        let mut threads = vec![thread(1, "/plc"), thread(7, "/home"), thread(8, "/home"), thread(9, "/other")];
        keep.apply(&mut cgroups, &mut threads, &mut vec![]);
        assert_eq!(cgroups.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["/plc", "/home"]);
        assert_eq!(threads.iter().map(|t| t.tid).collect::<Vec<_>>(), [1, 7]);
    }

    #[test]
    fn naming_nothing_keeps_everything() {
        let mut threads = vec![Thread::default()];
        keep(&Selection::default(), &[]).apply(&mut vec![], &mut threads, &mut vec![]);
        assert_eq!(threads.len(), 1);
    }

    #[test]
    fn similar_names_are_offered() {
        let existing = ["/system.slice/ssh.service", "/system.slice/plc.service", "/user.slice", "/"];
        assert_eq!(similar("/system.slice/pcl.service", existing)[0], "/system.slice/plc.service");
        assert_eq!(similar("/sytem.slice/*", existing[..1].iter().copied()), ["/system.slice/ssh.service"]);
        assert!(similar("zzzz", existing).is_empty());
        assert!(similar("/*", existing[3..].iter().copied()).is_empty());
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_path_panics(pattern in ".{0,20}", path in ".{0,30}") {
            similar(&pattern, [path.as_str()]);
        }
    }
}
