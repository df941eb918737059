//! What a row of the table says about a knob, and the files that rows name.

use super::{
    around::Surroundings,
    property::Property,
    setting::{Knob, Setting},
    value::{Format, NUMBER, Value},
    version::Version,
    weight::WeightFormula,
};
use crate::snapshot::Knobs;

/// Everything about a knob.
pub(crate) struct Row {
    /// The word for it in configuration, plans, audit log, JSON, metrics and docs.
    pub(crate) name: &'static str,
    /// For people, one line.
    pub(crate) help: &'static str,
    /// What it sits on.
    pub(crate) sits_on: SitsOn,
    /// How its value is shown.
    pub(crate) format: Format,
    /// Its files, of all versions.
    pub(crate) files: &'static [FileRow],
    /// What its files of a version hold for a value, in their order.
    pub(crate) encode: fn(&Value, Version, WeightFormula) -> Vec<Value>,
    /// The value that its files of a version make; `None` when they do not belong together, which no parser makes.
    pub(crate) decode: fn(&[Value], Version, WeightFormula) -> Option<Value>,
    /// When it is written within a batch.
    pub(crate) order: Order,
    /// What the kernel is known to refuse. An error is the rule that a setting breaks.
    pub(crate) check: fn(&Setting, &str, Version, &dyn Surroundings) -> Result<(), String>,
    /// What two that want less each can both have; `None` when one of them must win.
    pub(crate) join: fn(&Setting, &Setting) -> Option<Setting>,
    /// The properties by which systemd owns it on the own cgroup of a unit.
    pub(crate) properties: &'static [PropertyRow],
    /// A file of another knob that the kernel changes with it.
    pub(crate) along: Option<Along>,
    /// What the kernel's errors mean at its files.
    pub(crate) errors: FileErrors,
    /// How it is put back.
    pub(crate) undo: Undo,
    /// Its value in a Snapshot's reading.
    pub(crate) reading: fn(&Knobs) -> Option<Setting>,
}

impl Row {
    /// A knob with one file and no peculiarities, for rows to differ from.
    pub(super) const PLAIN: Self = Self {
        name: "",
        help: "",
        sits_on: SitsOn::Cgroup { controller: "cpu" },
        format: NUMBER,
        files: &[],
        encode: |value, _, _| vec![value.clone()],
        decode: |values, _, _| values.first().cloned(),
        order: Order::Free,
        check: |_, _, _, _| Ok(()),
        join: |_, _| None,
        properties: &[],
        along: None,
        errors: FileErrors::USUAL,
        undo: Undo::WriteBack,
        reading: |_| None,
    };
}

/// The kind of object that a knob sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SitsOn {
    /// A cgroup, in the hierarchy of a controller: on v1 each may have its own.
    Cgroup {
        /// Its name in cgroup.controllers.
        controller: &'static str,
    },
    /// The processes of a cgroup: it is wanted of the cgroup, and each of them carries it.
    Processes,
}

/// What the kernel's errors mean at a file, where that differs from file to file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileErrors {
    /// Whether EACCES is about the value, as that of a cpuset beyond its parent.
    pub(crate) eacces_is_of_the_value: bool,
    /// What whoever enables the controller because the file is missing should know, behind a comma.
    pub(crate) mind: Option<&'static str>,
}

impl FileErrors {
    /// Of most files.
    pub(crate) const USUAL: Self = Self { eacces_is_of_the_value: false, mind: None };
}

/// How a knob is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undo {
    /// The text that its file had before guard is written.
    WriteBack,
    /// The same. A cgroup with processes takes no empty list on v2 (ENOSPC; validate_change in kernel/cgroup/cpuset.c): where
    /// there was one it gets all that there may be, which means the same.
    WriteBackOrAll {
        /// The file below the node's root that says what there may be.
        all: &'static str,
        /// The parent's file that says what it has: beside a partition not all is taken.
        effective: &'static str,
    },
}

/// When a knob is written within a batch, so that the kernel refuses nothing on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Any time.
    Free,
    /// It lies within its parent's: what grows, parent first; then what shrinks, child first. Two files are a limit and its
    /// period, each checked against the other.
    GrowsWithParent,
    /// It lies within another knob of its cgroup: before that one shrinks, after it grows.
    Within(Knob),
    /// Those of children sum up to no more than their parent's: what shrinks, child first; then what grows, parent first.
    Sum,
    /// A list within its parent's. v1: parent first, everything to the union of old and new; then child first to the new.
    Union,
    /// It is switched off before others of its cgroup are written and on after them.
    Switch {
        /// The others are those of the same order as this knob.
        around: Knob,
        /// Whether this value is off.
        is_off: fn(&Value) -> bool,
    },
}

/// A file of another knob that the kernel changes with this one, so that it has to be put back with it.
pub(crate) struct Along {
    /// The other knob.
    pub(crate) knob: Knob,
    /// What the kernel may make of its file.
    pub(crate) texts: fn(Version) -> &'static [&'static str],
    /// Why a setting cannot be had while guard holds the other knob.
    pub(crate) clash: fn(&Setting) -> Option<&'static str>,
}

/// A property of systemd's units.
pub(crate) struct PropertyRow {
    pub(crate) name: &'static str,
    /// What systemd calls its drop-in, between "50-" and ".conf".
    pub(crate) drop_in: &'static str,
    pub(crate) versions: &'static [Version],
    /// Its value for a setting; `None` when systemd cannot be told.
    pub(crate) of: fn(&Setting, WeightFormula) -> Option<Property>,
}

/// A file of a knob.
pub(crate) struct FileRow {
    pub(crate) name: &'static str,
    pub(crate) versions: &'static [Version],
    pub(crate) format: Format,
}

pub(super) const V1: &[Version] = &[Version::V1];
pub(super) const V2: &[Version] = &[Version::V2];
pub(super) const BOTH: &[Version] = &[Version::V1, Version::V2];
