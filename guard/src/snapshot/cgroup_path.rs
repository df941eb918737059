//! Paths of cgroups: which is above which. Snapshots and maps keep them as text; whoever asks how two lie to each other asks
//! here.

use std::iter::successors;

/// The path of a cgroup from the root of its hierarchy, as `/kubepods.slice/x`; `/` is the root. Text that is no path, as of
/// a cgroup that has no name, has nothing above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupPath<'a>(&'a str);

impl<'a> CgroupPath<'a> {
    /// The path that a text is.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        Self(text)
    }

    /// The cgroup above; `None` for the root.
    #[must_use]
    pub fn parent(self) -> Option<&'a str> {
        match self.0.rsplit_once('/')? {
            ("", "") => None,
            ("", _) => Some("/"),
            (parent, _) => Some(parent),
        }
    }

    /// Itself and what is above, the nearest first, up to the root.
    pub fn and_above(self) -> impl Iterator<Item = &'a str> {
        successors(Some(self.0), |path| Self(path).parent())
    }

    /// What is above, the nearest first, without the root, which has no limits.
    pub fn above(self) -> impl Iterator<Item = &'a str> {
        self.and_above().skip(1).filter(|path| *path != "/")
    }

    /// Whether another is this cgroup or below it.
    #[must_use]
    pub fn contains(self, other: &str) -> bool {
        let below = other.strip_prefix(self.0.trim_end_matches('/'));
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The names of the cgroups on the way from the root.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The path of a child.
    #[must_use]
    pub fn child(self, name: &str) -> String {
        format!("{}/{name}", self.0.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_is_named_from_the_nearest_up() {
        let all = |path| CgroupPath::of(path).and_above().collect::<Vec<_>>();
        assert_eq!(all("/a/b"), ["/a/b", "/a", "/"]);
        assert_eq!(all("/"), ["/"]);
        assert_eq!(all("(id 5)"), ["(id 5)"]);
        assert_eq!(CgroupPath::of("/a/b/c").above().collect::<Vec<_>>(), ["/a/b", "/a"]);
        assert_eq!(CgroupPath::of("/a").above().count() + CgroupPath::of("/").above().count(), 0);
        assert_eq!(CgroupPath::of("/a").parent(), Some("/"));
    }

    #[test]
    fn a_cgroup_contains_itself_and_what_is_below_it() {
        let contains = |path, other| CgroupPath::of(path).contains(other);
        assert!(contains("/a", "/a") && contains("/a", "/a/b") && contains("/", "/a") && contains("/", "/"));
        assert!(!contains("/a", "/ab") && !contains("/a/b", "/a") && !contains("/a", "/"));
    }

    #[test]
    fn a_childs_name_is_the_last_on_its_way() {
        for parent in ["/", "/a", "/a/b"] {
            let child = CgroupPath::of(parent).child("c.scope");
            assert_eq!(CgroupPath::of(&child).parent(), Some(parent));
            assert_eq!(CgroupPath::of(&child).names().last(), Some("c.scope"));
        }
        assert_eq!(CgroupPath::of("/").names().count(), 0);
    }
}
