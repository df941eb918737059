//! Processes as objects. A process is known again by the instant when it started.

use super::{Place, dir::Dir, node::NodeFiles};
use crate::{
    executor::trouble::Trouble,
    knob::{FileErrors, Kind, Object},
};

/// A process's directory in /proc.
#[derive(Debug)]
struct Process {
    object: Object,
    parent: String,
    dir: Dir,
}

/// The processes of a cgroup, oldest first. Those that end meanwhile are passed over.
pub(super) fn of_cgroup(node: &NodeFiles, path: &str, id: u64) -> Result<Vec<Box<dyn Place>>, Trouble> {
    if node.hierarchy.id(path).ok() != Some(id) {
        return Err(Trouble::Gone);
    }
    let listed = node.hierarchy.processes(path);
    let pids =
        listed.map_err(|error| if error.is_vanished() { Trouble::Gone } else { Trouble::Other(error.to_string()) })?;
    let mut found = Vec::new();
    // 0 is a process outside of guard's pid namespace.
    for pid in pids.into_iter().filter(|pid| *pid != 0) {
        match find(node, &directory(&pid.to_string())) {
            Ok(process) => found.push(process),
            Err(Trouble::Gone) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    found.sort_by_key(|process| process.object.id);
    Ok(found.into_iter().map(|process| Box::new(process) as Box<dyn Place>).collect())
}

/// The process with this identity.
pub(super) fn open(node: &NodeFiles, object: &Object) -> Result<Box<dyn Place>, Trouble> {
    let found = find(node, &object.path)?;
    if found.object == *object { Ok(Box::new(found)) } else { Err(Trouble::Gone) }
}

fn find(node: &NodeFiles, path: &str) -> Result<Process, Trouble> {
    let dir = Dir::open(&node.root.join(path.trim_start_matches('/')))?;
    let stat = dir.read("stat", FileErrors::USUAL)?;
    let Some((parent, started)) = parse(&stat) else {
        return Err(Trouble::Other(format!("cannot understand {path}/stat: {stat:?}")));
    };
    let object = Object { kind: Kind::Process, path: path.to_owned(), id: started };
    Ok(Process { object, parent: directory(parent), dir })
}

fn directory(pid: &str) -> String {
    format!("/proc/{pid}")
}

/// The parent's pid and the start time of /proc/PID/stat (proc(5), fields 4 and 22). The name before them may hold anything.
fn parse(stat: &str) -> Option<(&str, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent = fields.nth(1)?;
    Some((parent, fields.nth(17)?.parse().ok()?))
}

impl Place for Process {
    fn object(&self) -> &Object {
        &self.object
    }

    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn parent(&self) -> Option<&str> {
        Some(&self.parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_start_are_found_behind_any_name() {
        let rest = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        for name in ["sh", "a b", ") S 1 (", "x) y"] {
            assert_eq!(parse(&format!("42 ({name}) {rest}")), Some(("7", 12_345)), "{name}");
        }
        assert_eq!(parse("42 (sh) S 7"), None);
    }
}
