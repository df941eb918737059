//! The only I/O of the executor beside its journal: the objects that knobs sit on, one file per kind. Each kind has its own
//! identity, so that a want never lands on a successor.

mod cgroup;
mod dir;
mod node;
mod process;

use std::fmt;

pub(super) use node::NodeFiles;

use dir::Dir;

use super::trouble::Trouble;
use crate::knob::{File, FileErrors, Kind, Knob, Object};

/// An object that is open: whatever goes through it reaches this object and no other.
pub(super) trait Place: fmt::Debug + Send {
    /// Which object.
    fn object(&self) -> &Object;
    /// Its directory.
    fn dir(&self) -> &Dir;
    /// What a file says, without the newline.
    fn read(&self, file: File) -> Result<String, Trouble> {
        self.dir().read(file.name(), file.knob().row().errors)
    }
    /// Writes a text with one call.
    fn write(&self, file: File, text: &str) -> Result<(), Trouble> {
        self.dir().write(file.name(), text, file.knob().row().errors)
    }
    /// What a file of the object around it says; `None` where there is no such file.
    fn read_around(&self, file: &str) -> Option<String> {
        self.dir().read(&format!("../{file}"), FileErrors::USUAL).ok()
    }
    /// Path of the object whose values it began with, if it came from one.
    fn parent(&self) -> Option<&str> {
        None
    }
}

/// A file on an object that is open.
pub(super) type Placed = (Box<dyn Place>, File);

/// Opens the object with this identity.
pub(super) fn open(node: &NodeFiles, object: &Object, file: File) -> Result<Box<dyn Place>, Trouble> {
    match object.kind {
        Kind::Cgroup => cgroup::open(node, object, file),
        Kind::Process => process::open(node, object),
    }
}

/// The objects on which a knob of a cgroup sits, each with a file of it.
pub(super) fn of_cgroup(node: &NodeFiles, path: &str, id: u64, knob: Knob) -> Result<Vec<Placed>, Trouble> {
    let mut out = Vec::new();
    for file in knob.all_files(node.hierarchy.version()) {
        match knob.kind() {
            Kind::Cgroup => out.push((cgroup::of_path(node, path, id, file)?, file)),
            Kind::Process => out.extend(process::of_cgroup(node, path, id)?.into_iter().map(|place| (place, file))),
        }
    }
    Ok(out)
}

/// A place whose files take no empty text, as cpusets of cgroups with processes.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Populated(pub(super) Box<dyn Place>);

#[cfg(test)]
impl Place for Populated {
    fn object(&self) -> &Object {
        self.0.object()
    }

    fn dir(&self) -> &Dir {
        self.0.dir()
    }

    fn write(&self, file: File, text: &str) -> Result<(), Trouble> {
        if text.trim().is_empty() {
            Err(Trouble::Invalid("no empty text".to_owned()))
        } else {
            self.0.write(file, text)
        }
    }
}
