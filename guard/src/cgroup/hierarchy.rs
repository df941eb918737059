//! Where the cpu controller is mounted, and how a cgroup's path and the directory that shows it belong together.
//!
//! A path is counted from the top of the hierarchy as far as it can be seen. Three things come between it and the
//! directory: the mount point; a bind mount of a part ("root" of mountinfo); and a cgroup namespace, from which
//! everything outside looks like "/../..". The last is daily life for an agent that runs in a Kubernetes pod with the
//! node's cgroup file system mounted into it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::FsWord;

use super::{
    error::{CgroupError, FileError},
    mountinfo::{CgroupMount, cgroup_mounts},
};
use crate::{
    knob::Version,
    snapshot::{CgroupLayout, CgroupPath},
};

/// linux/magic.h: CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC.
const CGROUP_MAGIC: [FsWord; 2] = [0x27e0eb, 0x63677270];

const REMEDY_V1: &str =
    "mount it with: mkdir -p /sys/fs/cgroup/cpu && mount -t cgroup -o cpu cgroup /sys/fs/cgroup/cpu";
const REMEDY_V2: &str = "mount it with: mount -t cgroup2 cgroup2 /sys/fs/cgroup";
const REMEDY_KERNEL: &str = "the kernel needs CONFIG_CGROUP_SCHED and a command line without cgroup_disable=cpu";

/// The hierarchy that has the cpu controller.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    layout: CgroupLayout,
    version: Version,
    cpu: Mount,
    /// Where the files of v1's other controllers are; on v2 they are with the cpu controller's.
    others: Vec<(String, Mount)>,
}

#[derive(Clone, Debug)]
struct Mount {
    /// Mount point.
    point: PathBuf,
    /// Path of the cgroup that the mount point shows.
    top: String,
    /// Where the reader's cgroup namespace begins, when the mount reaches above it.
    namespace: Option<Namespace>,
}

/// The root of the reader's cgroup namespace.
#[derive(Clone, Debug)]
struct Namespace {
    /// How many levels it lies below the top of the hierarchy.
    depth: usize,
    /// Its path from there; `None` when guard's own cgroup was not found.
    path: Option<String>,
}

impl Hierarchy {
    /// Finds the hierarchy by `root`/proc/self/mountinfo; mount points are taken below `root`, which is "/" except in
    /// tests and for an agent that sees the node's file system elsewhere.
    ///
    /// # Errors
    /// [`CgroupError::NoCpuController`] says what to mount; [`CgroupError::File`] when mountinfo is unreadable.
    pub fn detect(root: &Path) -> Result<Self, CgroupError> {
        let path = root.join("proc/self/mountinfo");
        let text = fs::read(&path).map_err(FileError::io("read", &path))?;
        let mounts: Vec<CgroupMount> = cgroup_mounts(&text)
            .into_iter()
            .map(|mount| CgroupMount { point: below(root, &mount.point), ..mount })
            .filter(|mount| shows_cgroups(root, &mount.point))
            .collect();
        let v1 = |controller: &str| {
            widest(mounts.iter().filter(|mount| !mount.v2 && mount.controllers.iter().any(|name| name == controller)))
        };
        let v2 = widest(mounts.iter().filter(|mount| mount.v2));
        if let Some(cpu) = v1("cpu") {
            let others = mounts.iter().filter(|mount| !mount.v2).flat_map(|mount| &mount.controllers);
            let controllers: BTreeSet<&str> = others.map(String::as_str).filter(|name| *name != "cpu").collect();
            let other = |name: &str| Some((name.to_owned(), Mount::new(root, v1(name)?, name)));
            return Ok(Self {
                layout: if v2.is_some() { CgroupLayout::Hybrid } else { CgroupLayout::V1 },
                version: Version::V1,
                cpu: Mount::new(root, cpu, "cpu"),
                others: controllers.into_iter().filter_map(other).collect(),
            });
        }
        let hierarchy_of_cpu = v1_hierarchy_of_cpu(root);
        let Some(v2) = v2 else {
            let (reason, remedy) = match hierarchy_of_cpu {
                Some(1..) => ("the controller is in a v1 hierarchy that is not mounted", REMEDY_V1),
                _ if mounts.is_empty() => ("no cgroup file system is mounted", REMEDY_V2),
                _ => ("the v1 hierarchies that are mounted are other controllers'", REMEDY_V1),
            };
            return Err(CgroupError::NoCpuController { reason: reason.to_owned(), remedy });
        };
        if !has_cpu(&v2.point)? {
            let reason = format!("{} does not list cpu", v2.point.join("cgroup.controllers").display());
            let remedy = if matches!(hierarchy_of_cpu, Some(1..)) { REMEDY_V1 } else { REMEDY_KERNEL };
            return Err(CgroupError::NoCpuController { reason, remedy });
        }
        let cpu = Mount::new(root, v2, "");
        Ok(Self { layout: CgroupLayout::V2, version: Version::V2, cpu, others: Vec::new() })
    }

    /// How the node's hierarchies are mounted.
    #[must_use]
    pub fn layout(&self) -> CgroupLayout {
        self.layout
    }

    /// Version of the hierarchy with the cpu controller.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.cpu.point
    }

    /// Path of the cgroup that the mount point shows; "/" unless only a part is mounted.
    #[must_use]
    pub fn top(&self) -> &str {
        &self.cpu.top
    }

    /// The directory of a cgroup.
    ///
    /// # Errors
    /// [`CgroupError::Outside`] when the path is not below [`Self::top`].
    pub fn dir(&self, path: &str) -> Result<PathBuf, CgroupError> {
        self.cpu.dir(path)
    }

    /// The directory with the files that a controller has for a cgroup; `None` when no hierarchy with it is mounted.
    pub fn dir_of(&self, controller: &str, path: &str) -> Option<Result<PathBuf, CgroupError>> {
        if self.version == Version::V2 || controller == "cpu" {
            return Some(self.dir(path));
        }
        self.others.iter().find(|(name, _)| name == controller).map(|(_, mount)| mount.dir(path))
    }

    /// Cgroup id of a path.
    ///
    /// # Errors
    /// The cgroup does not exist, or lies outside what is mounted.
    pub fn id(&self, path: &str) -> Result<u64, CgroupError> {
        let dir = self.dir(path)?;
        Ok(id_of(&dir).map_err(FileError::io("stat", &dir))?)
    }

    /// The cgroup that a /proc/PID/cgroup file names in this hierarchy; `None` when it names none, or one that lies
    /// outside of what can be seen from here.
    #[must_use]
    pub fn path_in(&self, proc_cgroup: &str) -> Option<String> {
        let controller = match self.version {
            Version::V1 => "cpu",
            Version::V2 => "",
        };
        self.cpu.seen_from_top(entry(proc_cgroup, controller)?)
    }

    #[cfg(test)]
    pub(crate) fn for_test(point: &Path, version: Version) -> Self {
        let mount = Mount { point: point.to_owned(), top: "/".to_owned(), namespace: None };
        let layout = match version {
            Version::V1 => CgroupLayout::V1,
            Version::V2 => CgroupLayout::V2,
        };
        let others = ["cpuset", "cpuacct"].map(|name| (name.to_owned(), mount.clone())).into();
        Self { layout, version, cpu: mount, others }
    }

    /// One in a directory of its own, whose cgroup "/a" has these files.
    #[cfg(test)]
    pub(super) fn with_cgroup(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Self) {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("a")).unwrap();
        for (name, text) in files {
            std::fs::write(top.path().join("a").join(name), text).unwrap();
        }
        let hierarchy = Self::for_test(top.path(), version);
        (top, hierarchy)
    }
}

impl Mount {
    fn new(root: &Path, mount: &CgroupMount, controller: &str) -> Self {
        let (depth, top) = split_ups(&mount.root);
        let mut new = Self { point: mount.point.clone(), top: top.to_owned(), namespace: None };
        if depth > 0 {
            let path = new.find_namespace(root, controller);
            new.namespace = Some(Namespace { depth, path });
        }
        new
    }

    fn dir(&self, path: &str) -> Result<PathBuf, CgroupError> {
        let outside = || CgroupError::Outside { path: path.to_owned(), top: self.top.clone() };
        let below = path.strip_prefix(self.top.trim_end_matches('/')).ok_or_else(outside)?;
        if !(below.is_empty() || below.starts_with('/')) || below.split('/').any(|name| name == "..") {
            return Err(outside());
        }
        Ok(self.point.join(below.trim_start_matches('/')))
    }

    /// The path, counted from the top of the hierarchy, of a cgroup as /proc shows it to the reader.
    fn seen_from_top(&self, shown: &str) -> Option<String> {
        let (ups, rest) = split_ups(shown);
        let Some(namespace) = &self.namespace else {
            return (ups == 0).then(|| rest.to_owned());
        };
        let kept = namespace.depth.checked_sub(ups)?;
        if kept == 0 {
            return Some(rest.to_owned());
        }
        let base: String =
            namespace.path.as_ref()?.split('/').skip(1).take(kept).flat_map(|name| ["/", name]).collect();
        Some(if rest == "/" { base } else { base + rest })
    }

    /// Looks for the cgroup that holds guard itself: where it really is, less what /proc says, is the namespace.
    fn find_namespace(&self, root: &Path, controller: &str) -> Option<String> {
        let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let own = entry(&own, controller)?;
        let stat = fs::read_to_string(root.join("proc/self/stat")).ok()?;
        let pid = stat.split(' ').next()?;
        let mut todo = vec![(self.point.clone(), self.top.clone())];
        while let Some((dir, path)) = todo.pop() {
            let holds_guard =
                fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.lines().any(|line| line == pid));
            if holds_guard {
                return path.strip_suffix(own.trim_end_matches('/')).map(str::to_owned);
            }
            // What cannot be listed has vanished or is not ours to see.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push((entry.path(), CgroupPath::of(&path).child(&entry.file_name().to_string_lossy())));
                }
            }
        }
        None
    }
}

/// Cgroup id of a directory.
pub(super) fn id_of(dir: &Path) -> io::Result<u64> {
    fs::metadata(dir).map(|metadata| metadata.ino())
}

/// "/../../a" as (2, "/a"), "/.." as (1, "/").
fn split_ups(path: &str) -> (usize, &str) {
    let (mut ups, mut rest) = (0, path);
    while let Some(after) = rest.strip_prefix("/..").filter(|after| after.is_empty() || after.starts_with('/')) {
        ups += 1;
        rest = after;
    }
    (ups, if rest.is_empty() { "/" } else { rest })
}

/// The path of the hierarchy with the given controller ("" for v2) in the text of a /proc/PID/cgroup file.
fn entry<'a>(proc_cgroup: &'a str, controller: &str) -> Option<&'a str> {
    proc_cgroup.lines().find_map(|line| {
        // 4:cpu,cpuacct:/a/b   or   0::/a/b
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if !controllers.split(',').any(|name| name == controller) || !path.starts_with('/') {
            return None;
        }
        // A cgroup that was removed while a dead task still belongs to it.
        Some(path.strip_suffix(" (deleted)").unwrap_or(path))
    })
}

fn below(root: &Path, point: &Path) -> PathBuf {
    root.join(point.strip_prefix("/").unwrap_or(point))
}

/// Whether the mount point can be seen: it may be hidden by a later mount, or lie outside of guard's own root.
fn shows_cgroups(root: &Path, point: &Path) -> bool {
    if root == Path::new("/") {
        rustix::fs::statfs(point).is_ok_and(|fs| CGROUP_MAGIC.contains(&fs.f_type))
    } else {
        point.is_dir()
    }
}

/// Of several mounts of one hierarchy the one that shows most.
fn widest<'a>(mounts: impl Iterator<Item = &'a CgroupMount>) -> Option<&'a CgroupMount> {
    mounts.min_by_key(|mount| {
        let (ups, rest) = split_ups(&mount.root);
        let below_top = rest.split('/').filter(|name| !name.is_empty()).count();
        (below_top, usize::MAX - ups)
    })
}

/// Number of the v1 hierarchy of the cpu controller by /proc/cgroups, 0 for v2; `None` when the file says nothing of it
/// (newer kernels list only what can be mounted as v1).
fn v1_hierarchy_of_cpu(root: &Path) -> Option<u32> {
    // #subsys_name	hierarchy	num_cgroups	enabled
    let text = fs::read_to_string(root.join("proc/cgroups")).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "cpu").then(|| words.next()?.parse().ok()).flatten()
    })
}

/// Whether the v2 hierarchy has the cpu controller. Below the root a cgroup lists what was delegated to it, so there a
/// missing cpu only means that it has no cpu files of its own.
fn has_cpu(point: &Path) -> Result<bool, CgroupError> {
    let path = point.join("cgroup.controllers");
    let controllers = fs::read_to_string(&path).map_err(FileError::io("read", &path))?;
    let is_root = match fs::metadata(point.join("cgroup.events")) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    Ok(!is_root || controllers.split_ascii_whitespace().any(|name| name == "cpu"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::tree::CgroupDir;

    /// A tree with a recorded mountinfo and the given directories and files.
    fn tree(mountinfo: &str, dirs: &[&str], files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), mountinfo).unwrap();
        for dir in dirs {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    // Debian 12, 6.12.117 PREEMPT_RT, without systemd.
    const V2: &str = "32 26 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
    // 6.18: v2 mounted beside, without controllers.
    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    // systemd with systemd.unified_cgroup_hierarchy=0 and legacy force.
    const V1: &str = "26 25 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n\
        27 26 0:23 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n\
        30 26 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:14 - cgroup cgroup rw,cpu,cpuacct\n\
        31 26 0:27 / /sys/fs/cgroup/cpuset rw,nosuid shared:15 - cgroup cgroup rw,cpuset\n";

    #[test]
    fn v2_alone_is_v2() {
        let root = tree(V2, &["sys/fs/cgroup/a"], &[("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n")]);
        let hierarchy = Hierarchy::detect(root.path()).unwrap();
        assert_eq!((hierarchy.layout(), hierarchy.version()), (CgroupLayout::V2, Version::V2));
        assert_eq!(hierarchy.walk().unwrap().len(), 2);
        assert_eq!(hierarchy.path_in("0::/a/b\n").as_deref(), Some("/a/b"));
        assert_eq!(hierarchy.path_in("0::/a (deleted)\n").as_deref(), Some("/a"));
        assert_eq!(hierarchy.id("/a").unwrap(), id_of(&root.path().join("sys/fs/cgroup/a")).unwrap());
    }

    #[test]
    fn cpu_on_v1_beside_v2_is_hybrid_with_the_paths_of_v1() {
        let root = tree(HYBRID, &["sys/fs/cgroup/cpu/x", "sys/fs/cgroup/cpuset", "sys/fs/cgroup/unified/y"], &[]);
        let hierarchy = Hierarchy::detect(root.path()).unwrap();
        assert_eq!((hierarchy.layout(), hierarchy.version()), (CgroupLayout::Hybrid, Version::V1));
        let paths: Vec<_> = hierarchy.walk().unwrap().into_iter().map(|dir| dir.path).collect();
        assert_eq!(paths, ["/", "/x"]);
        let proc_cgroup = "9:name=systemd:/s\n3:cpuset:/c\n2:cpuacct:/wrong\n1:cpu:/x\n0::/y\n";
        assert_eq!(hierarchy.path_in(proc_cgroup).as_deref(), Some("/x"));
    }

    #[test]
    fn cpu_and_cpuacct_together_on_v1_are_v1() {
        let root = tree(V1, &["sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuset"], &[]);
        let hierarchy = Hierarchy::detect(root.path()).unwrap();
        assert_eq!((hierarchy.layout(), hierarchy.version()), (CgroupLayout::V1, Version::V1));
        assert_eq!(hierarchy.path_in("5:cpu,cpuacct:/docker/1\n").as_deref(), Some("/docker/1"));
    }

    #[test]
    fn without_a_cpu_controller_the_error_says_what_to_mount() {
        for (mountinfo, cgroups, reason, remedy) in [
            ("", "", "no cgroup file system is mounted", REMEDY_V2),
            ("", "cpu\t4\t1\t1\n", "in a v1 hierarchy that is not mounted", REMEDY_V1),
            (HYBRID, "cpu\t1\t1\t1\n", "cgroup.controllers does not list cpu", REMEDY_V1),
            (HYBRID, "cpu\t0\t1\t0\n", "cgroup.controllers does not list cpu", REMEDY_KERNEL),
        ] {
            let files = [("proc/cgroups", cgroups), ("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n")];
            // The mount point of cpu is missing: hidden, or outside of the root.
            let root = tree(mountinfo, &[], &files);
            let error = Hierarchy::detect(root.path()).unwrap_err().to_string();
            assert!(error.contains(reason) && error.ends_with(remedy), "{error}");
        }
    }

    #[test]
    fn a_delegated_cgroup_without_cpu_is_still_v2() {
        let files =
            [("sys/fs/cgroup/cgroup.controllers", "memory pids\n"), ("sys/fs/cgroup/cgroup.events", "populated 1\n")];
        let root = tree(V2, &[], &files);
        assert_eq!(Hierarchy::detect(root.path()).unwrap().layout(), CgroupLayout::V2);
    }

    #[test]
    fn a_bind_mount_of_a_part_keeps_the_paths_of_the_whole() {
        let mountinfo = "36 30 0:26 /docker/abc /sys/fs/cgroup/cpu ro shared:14 - cgroup cgroup rw,cpu,cpuacct\n";
        let root = tree(mountinfo, &["sys/fs/cgroup/cpu/inner"], &[]);
        let hierarchy = Hierarchy::detect(root.path()).unwrap();
        let paths: Vec<_> = hierarchy.walk().unwrap().into_iter().map(|dir| dir.path).collect();
        assert_eq!(paths, ["/docker/abc", "/docker/abc/inner"]);
        assert_eq!(hierarchy.path_in("4:cpu,cpuacct:/docker/abc/inner\n").as_deref(), Some("/docker/abc/inner"));
        assert_eq!(hierarchy.dir("/docker/abc/inner").unwrap(), root.path().join("sys/fs/cgroup/cpu/inner"));
        for outside in ["/docker", "/docker/abcd", "/docker/abc/../x", "/"] {
            assert!(matches!(hierarchy.dir(outside), Err(CgroupError::Outside { .. })), "{outside}");
        }
    }

    #[test]
    fn the_widest_of_several_mounts_is_taken() {
        let mountinfo =
            "36 30 0:26 /pod /narrow rw - cgroup cgroup rw,cpu\n37 30 0:26 / /wide rw - cgroup cgroup rw,cpu\n";
        let root = tree(mountinfo, &["narrow", "wide"], &[]);
        assert_eq!(Hierarchy::detect(root.path()).unwrap().mount_point(), root.path().join("wide"));
    }

    /// A pod with a cgroup namespace of its own and the node's cgroup file system mounted at /host.
    fn pod(own_procs: &str) -> (tempfile::TempDir, Hierarchy) {
        let root = tree(
            "40 30 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
             41 30 0:26 /../../.. /host rw - cgroup2 cgroup rw\n",
            &["sys/fs/cgroup", "host/kubepods.slice/other.slice/x.scope", "host/system.slice"],
            &[
                ("host/cgroup.controllers", "cpu memory\n"),
                ("host/kubepods.slice/own.slice/cri.scope/cgroup.procs", own_procs),
                ("proc/self/stat", "4711 (guard) S 1 1\n"),
                ("proc/self/cgroup", "0::/\n"),
            ],
        );
        let hierarchy = Hierarchy::detect(root.path()).unwrap();
        (root, hierarchy)
    }

    #[test]
    fn paths_seen_from_a_cgroup_namespace_are_counted_from_the_top() {
        let (root, hierarchy) = pod("1\n4711\n");
        assert_eq!(hierarchy.mount_point(), root.path().join("host"));
        for (shown, path) in [
            ("0::/\n", Some("/kubepods.slice/own.slice/cri.scope")),
            ("0::/sub\n", Some("/kubepods.slice/own.slice/cri.scope/sub")),
            ("0::/../../other.slice/x.scope\n", Some("/kubepods.slice/other.slice/x.scope")),
            ("0::/../../../system.slice\n", Some("/system.slice")),
            ("0::/../../..\n", Some("/")),
            ("0::/../../../../above\n", None),
        ] {
            assert_eq!(hierarchy.path_in(shown).as_deref(), path, "{shown}");
        }
        assert!(hierarchy.id("/kubepods.slice/other.slice/x.scope").is_ok());
    }

    #[test]
    fn a_namespace_that_cannot_be_found_leaves_only_what_is_certain() {
        let (_root, hierarchy) = pod("1\n");
        assert_eq!(hierarchy.path_in("0::/../../../system.slice\n").as_deref(), Some("/system.slice"));
        assert_eq!(hierarchy.path_in("0::/../../other.slice\n"), None);
    }

    #[test]
    fn this_node_has_a_hierarchy_whose_paths_and_ids_agree_with_proc() {
        let hierarchy = match Hierarchy::detect(Path::new("/")) {
            Ok(hierarchy) => hierarchy,
            Err(error @ CgroupError::NoCpuController { .. }) => {
                eprintln!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let own = hierarchy.path_in(&fs::read_to_string("/proc/self/cgroup").unwrap()).unwrap();
        let id = hierarchy.id(&own).unwrap();
        assert!(hierarchy.walk().unwrap().contains(&CgroupDir { path: own, id }));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_path_parser_panic(text in "(?s).{0,120}") {
            let hierarchy = Hierarchy::for_test(Path::new("/x"), Version::V1);
            let _ = hierarchy.path_in(&text);
            let _ = hierarchy.dir(&text);
        }

        #[test]
        fn a_path_is_found_among_the_controllers(path in "(/[a-z:.]{1,6}){1,4}", id in 1_u32..20) {
            prop_assume!(!path.split('/').any(|name| name == ".."));
            let text = format!("{id}:memory:/m\n{}:cpu,cpuacct:{path}\n0::/v2\n", id + 1);
            let hierarchy = Hierarchy::for_test(Path::new("/x"), Version::V1);
            prop_assert_eq!(hierarchy.path_in(&text), Some(path));
        }
    }
}
