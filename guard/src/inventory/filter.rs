//! Which cgroups somebody asked for, by glob.

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::CgroupInfo;

/// A pattern that is no glob.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is not a glob: {source}")]
pub struct GlobError {
    /// The pattern.
    pattern: String,
    /// What is wrong with it.
    source: globset::Error,
}

/// Globs over cgroups. `*` matches "/" too, so that `*plc*` finds a cgroup at any depth.
#[derive(Clone, Debug)]
pub struct CgroupFilter {
    set: GlobSet,
}

impl CgroupFilter {
    /// Cgroups that match any of the patterns; no pattern matches nothing.
    ///
    /// # Errors
    /// A pattern is no glob.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, GlobError> {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns.iter().map(AsRef::as_ref) {
            let error = |source| GlobError { pattern: pattern.to_owned(), source };
            builder.add(Glob::new(pattern).map_err(error)?);
        }
        let all = || patterns.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        Ok(Self { set: builder.build().map_err(|source| GlobError { pattern: all(), source })? })
    }

    /// Whether a pattern matches the cgroup's path, or the name, id (in full, or the first 12 digits that people
    /// write), pod or unit of what it belongs to.
    #[must_use]
    pub fn matches(&self, cgroup: &CgroupInfo) -> bool {
        if self.set.is_match(&cgroup.path) {
            return true;
        }
        let Some(container) = &cgroup.container else {
            return false;
        };
        [Some(container.id.as_str()), container.id.get(..12), container.name.as_deref(), container.pod.as_deref()]
            .into_iter()
            .flatten()
            .any(|text| self.set.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::{Class, Container};

    fn cgroup() -> CgroupInfo {
        CgroupInfo {
            path: "/machine.slice/libpod-575db3970d26.scope".to_owned(),
            id: 7,
            container: Some(Container {
                runtime: "podman".to_owned(),
                id: "575db3970d26d3f17196e44becb0767529f425def48fe11641702c2457bd2ae6".to_owned(),
                name: Some("plc-loop".to_owned()),
                pod: Some("factory/line-1".to_owned()),
                ..Container::default()
            }),
            class: Class::Plc,
            vanished: false,
        }
    }

    #[test]
    fn path_name_id_and_pod_are_matched() {
        for (pattern, matches) in [
            ("/machine.slice/*", true),
            ("*scope", true),
            ("/machine.slice", false),
            ("plc-*", true),
            ("plc", false),
            ("575db3970d26", true),
            ("575db3970d26d3f1*", true),
            ("factory/*", true),
            ("{a,plc-loop}", true),
            ("", false),
        ] {
            assert_eq!(CgroupFilter::new(&[pattern]).unwrap().matches(&cgroup()), matches, "{pattern}");
        }
        assert!(!CgroupFilter::new::<&str>(&[]).unwrap().matches(&cgroup()));
        assert!(CgroupFilter::new(&["x", "plc*"]).unwrap().matches(&cgroup()));
    }

    #[test]
    fn a_bad_glob_is_named() {
        let error = CgroupFilter::new(&["ok", "plc["]).unwrap_err().to_string();
        assert!(error.starts_with("\"plc[\" is not a glob: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in ".{0,40}") {
            if let Ok(filter) = CgroupFilter::new(&[pattern]) {
                let _ = filter.matches(&cgroup());
            }
        }

        #[test]
        fn a_path_matches_itself(name in "[a-z0-9/._-]{1,30}") {
            let cgroup = CgroupInfo { path: format!("/{name}"), ..cgroup() };
            prop_assert!(CgroupFilter::new(&[&cgroup.path]).unwrap().matches(&cgroup));
        }
    }
}
