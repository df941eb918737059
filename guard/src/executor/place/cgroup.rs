//! Cgroups as objects. A cgroup is known again by the inode number of its directory.

use super::{Place, dir::Dir, node::NodeFiles};
use crate::{
    cgroup::CgroupError,
    executor::trouble::Trouble,
    knob::{File, Kind, Object, Version},
};

/// A cgroup's directory in the hierarchy of one controller.
#[derive(Debug)]
struct Cgroup {
    object: Object,
    dir: Dir,
}

/// The cgroup in the hierarchy that has this file, given its path and its id in the hierarchy of the cpu controller.
pub(super) fn of_path(node: &NodeFiles, path: &str, id: u64, file: File) -> Result<Box<dyn Place>, Trouble> {
    let is_elsewhere = node.hierarchy.version() == Version::V1 && file.knob().controller() != "cpu";
    if is_elsewhere && node.hierarchy.id(path).ok() != Some(id) {
        return Err(Trouble::Gone);
    }
    let found = find(node, path, file)?;
    if !is_elsewhere && found.object.id != id {
        return Err(Trouble::Gone);
    }
    Ok(Box::new(found))
}

/// The cgroup with this identity in the hierarchy that has the file.
pub(super) fn open(node: &NodeFiles, object: &Object, file: File) -> Result<Box<dyn Place>, Trouble> {
    let found = find(node, &object.path, file)?;
    if found.object == *object { Ok(Box::new(found)) } else { Err(Trouble::Gone) }
}

fn find(node: &NodeFiles, path: &str, file: File) -> Result<Cgroup, Trouble> {
    let controller = file.knob().controller();
    let dir = match node.hierarchy.dir_of(controller, path) {
        Some(Ok(dir)) => dir,
        Some(Err(error @ CgroupError::Outside { .. })) => return Err(Trouble::NotDelegated(error.to_string())),
        Some(Err(_)) => return Err(Trouble::Gone),
        None => return Err(Trouble::NotDelegated(format!("no {controller} hierarchy is mounted"))),
    };
    let dir = Dir::open(&dir)?;
    Ok(Cgroup { object: Object { kind: Kind::Cgroup, path: path.to_owned(), id: dir.inode()? }, dir })
}

impl Place for Cgroup {
    fn object(&self) -> &Object {
        &self.object
    }

    fn dir(&self) -> &Dir {
        &self.dir
    }
}
