//! Which cgroups there are. A first look lists every directory that has children; each later look costs one stat per
//! cgroup and lists only where something came or went.
//!
//! kernfs keeps the number of child directories in a directory's link count (kernfs_refresh_inode: subdirs + 2). If all
//! children known so far are still there under the same id, and the count agrees, then there is no other child. File
//! systems that keep no such count (it is 1 on some) are listed every time.

use std::{ffi::OsString, fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use super::{
    error::{CgroupError, FileError},
    hierarchy::Hierarchy,
};
use crate::snapshot::CgroupPath;

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupDir {
    /// Path in the hierarchy of the cpu controller: "/" for the root, else "/a/b".
    pub path: String,
    /// Cgroup id: the inode number of its directory, which is what BPF programs see too.
    pub id: u64,
}

#[derive(Debug)]
struct TreeNode {
    name: OsString,
    dir: CgroupDir,
    children: Vec<TreeNode>,
}

/// The cgroups of a hierarchy as last looked at.
#[derive(Debug, Default)]
pub struct Tree {
    root: Option<TreeNode>,
    skipped: usize,
}

impl Hierarchy {
    /// Every cgroup, each after its parent. For looking again and again, keep a [`Tree`].
    ///
    /// # Errors
    /// The mount point cannot be read.
    pub fn walk(&self) -> Result<Vec<CgroupDir>, CgroupError> {
        let mut tree = Tree::default();
        tree.refresh(self)?;
        Ok(tree.dirs().into_iter().cloned().collect())
    }
}

impl Tree {
    /// Looks again. Directories that vanish meanwhile are passed over.
    ///
    /// # Errors
    /// The hierarchy's top directory cannot be read.
    pub fn refresh(&mut self, hierarchy: &Hierarchy) -> Result<(), CgroupError> {
        self.skipped = 0;
        let mut at = hierarchy.mount_point().to_owned();
        let mut root = self.root.take().unwrap_or_else(|| TreeNode {
            name: OsString::new(),
            dir: CgroupDir { path: hierarchy.top().to_owned(), id: 0 },
            children: Vec::new(),
        });
        root.refresh(&mut at, &mut self.skipped).map_err(|source| {
            let path = hierarchy.mount_point().to_owned();
            FileError::Io { op: "list", path, source }
        })?;
        self.root = Some(root);
        Ok(())
    }

    /// All cgroups, each after its parent.
    #[must_use]
    pub fn dirs(&self) -> Vec<&CgroupDir> {
        let mut out = Vec::new();
        let mut todo: Vec<&TreeNode> = self.root.iter().collect();
        while let Some(node) = todo.pop() {
            out.push(&node.dir);
            todo.extend(node.children.iter().rev());
        }
        out
    }

    /// Directories that could not be read at the last look, for another reason than that they had vanished.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

impl TreeNode {
    /// Looks at this directory, which is `at`, and all below. An error means that the node is no more, or unreadable.
    fn refresh(&mut self, at: &mut PathBuf, skipped: &mut usize) -> io::Result<()> {
        let metadata = fs::metadata(&*at)?;
        if metadata.ino() != self.dir.id {
            // Another cgroup of the same name: nothing known of the old one holds.
            self.dir.id = metadata.ino();
            self.children.clear();
        }
        let known = self.children.len();
        self.children.retain_mut(|child| refresh_child(child, at, skipped));
        let counted = metadata.nlink().checked_sub(2);
        if self.children.len() == known && counted == Some(known as u64) {
            return Ok(());
        }
        self.list(at, skipped)
    }

    /// Adds the children that are not known yet.
    fn list(&mut self, at: &mut PathBuf, skipped: &mut usize) -> io::Result<()> {
        // The children known already are sorted; a listing names no child twice.
        let is_new = |name: &OsString| self.children.binary_search_by(|child| child.name.cmp(name)).is_err();
        // Listed in full before going deeper: one open directory at a time, however deep the tree is.
        let names: Vec<OsString> = fs::read_dir(&*at)?
            // An entry that cannot be read has vanished; the next look decides.
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name())
            .filter(is_new)
            .collect();
        for name in names {
            let path = CgroupPath::of(&self.dir.path).child(&name.to_string_lossy());
            let mut child = TreeNode { name, dir: CgroupDir { path, id: 0 }, children: Vec::new() };
            if refresh_child(&mut child, at, skipped) {
                self.children.push(child);
            }
        }
        self.children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }
}

/// Whether the child is still there.
fn refresh_child(child: &mut TreeNode, at: &mut PathBuf, skipped: &mut usize) -> bool {
    at.push(&child.name);
    let result = child.refresh(at, skipped);
    at.pop();
    match result {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound && error.raw_os_error() != Some(libc::ENODEV) {
                *skipped += 1;
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, collections::BTreeSet, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::hierarchy::id_of;
    use crate::knob::Version;

    fn paths(tree: &Tree) -> Vec<String> {
        tree.dirs().iter().map(|dir| dir.path.clone()).collect()
    }

    #[test]
    fn every_cgroup_is_found_after_its_parent_with_its_inode_number() {
        let top = tempfile::tempdir().unwrap();
        for dir in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(top.path().join(dir)).unwrap();
        }
        fs::write(top.path().join("cgroup.procs"), "").unwrap();
        let mut tree = Tree::default();
        tree.refresh(&Hierarchy::for_test(top.path(), Version::V2)).unwrap();
        assert_eq!(paths(&tree), ["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"]);
        for dir in tree.dirs() {
            assert_eq!(dir.id, id_of(&top.path().join(dir.path.trim_start_matches('/'))).unwrap());
        }
        assert_eq!(tree.skipped(), 0);
    }

    #[test]
    fn a_cgroup_that_was_replaced_under_the_same_name_gets_its_new_id() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/old")).unwrap();
        let hierarchy = Hierarchy::for_test(top.path(), Version::V2);
        let mut tree = Tree::default();
        tree.refresh(&hierarchy).unwrap();
        // Made beside the old one, so that the inode number cannot be the same.
        fs::create_dir_all(top.path().join("b/new")).unwrap();
        let id = id_of(&top.path().join("b")).unwrap();
        fs::remove_dir_all(top.path().join("a")).unwrap();
        fs::rename(top.path().join("b"), top.path().join("a")).unwrap();
        tree.refresh(&hierarchy).unwrap();
        assert_eq!(paths(&tree), ["/", "/a", "/a/new"]);
        assert_eq!(tree.dirs()[1].id, id);
    }

    #[test]
    fn a_missing_mount_point_is_an_error() {
        let gone = Hierarchy::for_test(Path::new("/nonexistent/cgroup"), Version::V2);
        let error = Tree::default().refresh(&gone).unwrap_err();
        assert_eq!(error.to_string(), "cannot list /nonexistent/cgroup: No such file or directory (os error 2)");
        assert!(error.is_vanished());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn looking_again_finds_what_a_first_look_would(steps in proptest::collection::vec(
            proptest::collection::vec((any::<bool>(), "[ab](/[ab]){0,2}"), 1..6), 1..5)) {
            let top = tempfile::tempdir().unwrap();
            let hierarchy = Hierarchy::for_test(top.path(), Version::V2);
            let mut again = Tree::default();
            for step in steps {
                for (make, dir) in step {
                    let dir = top.path().join(dir);
                    // Both fail when there is nothing to do.
                    let _ = if make { fs::create_dir_all(dir) } else { fs::remove_dir_all(dir) };
                }
                again.refresh(&hierarchy).unwrap();
                let mut first = Tree::default();
                first.refresh(&hierarchy).unwrap();
                let known = |tree: &Tree| tree.dirs().into_iter().map(|dir| (dir.path.clone(), dir.id)).collect::<BTreeMap<_, _>>();
                prop_assert_eq!(known(&again), known(&first));
                prop_assert_eq!(paths(&again).iter().collect::<BTreeSet<_>>().len(), again.dirs().len());
            }
        }
    }
}
