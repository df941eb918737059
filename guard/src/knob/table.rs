//! The table: every knob's row, and what follows from the rows.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    around::Surroundings,
    file::File,
    object::Kind,
    property::Property,
    row::{FileRow, PropertyRow, Row, SitsOn},
    setting::{Knob, Setting},
    text::ParseError,
    value::Value,
    version::Version,
    weight::WeightFormula,
};
use crate::snapshot::Knobs;

macro_rules! table {
    ($($file:ident { $($name:ident($carries:ty) = $row:ident),* })*) => {
        /// Everything that guard can set.
        pub const KNOBS: &[Knob] = &[$($(Knob::$name,)*)*];

        impl Knob {
            /// What is known of it.
            pub(crate) fn row(self) -> &'static Row {
                match self {
                    $($(Self::$name => const { &super::$file::$row },)*)*
                }
            }
        }
    };
}

knobs!(table);

impl Knob {
    /// Its name in reports, plans and the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it sits on.
    #[must_use]
    pub fn sits_on(self) -> SitsOn {
        self.row().sits_on
    }

    /// The kind of object that it sits on.
    pub(crate) fn kind(self) -> Kind {
        match self.sits_on() {
            SitsOn::Cgroup { .. } => Kind::Cgroup,
            SitsOn::Processes => Kind::Process,
        }
    }

    /// The controller whose hierarchy has the cgroups that it is wanted of.
    #[must_use]
    pub fn controller(self) -> &'static str {
        match self.sits_on() {
            SitsOn::Cgroup { controller } => controller,
            SitsOn::Processes => "cpu",
        }
    }

    /// What it is, in one line.
    #[must_use]
    pub fn help(self) -> &'static str {
        self.row().help
    }

    /// The value that was read; `None` when it was not read or does not exist.
    #[must_use]
    pub fn reading(self, knobs: &Knobs) -> Option<Setting> {
        (self.row().reading)(knobs)
    }

    /// Its files, the one that names it first; none when this version of cgroups has no such knob.
    pub fn files(self, version: Version) -> impl Iterator<Item = File> {
        let files = self.row().files.iter().enumerate();
        files.filter(move |(_, file)| file.versions.contains(&version)).map(move |(at, _)| File::new(self, at))
    }

    /// Its files, and those of the knob that the kernel changes with it.
    pub(crate) fn all_files(self, version: Version) -> impl Iterator<Item = File> {
        let along = self.row().along.as_ref().map(|along| along.knob);
        self.files(version).chain(along.into_iter().flat_map(move |knob| knob.files(version)))
    }

    /// The setting that its files make; `None` when they do not belong together.
    pub(crate) fn decode(self, values: &[Value], version: Version, formula: WeightFormula) -> Option<Setting> {
        (self.row().decode)(values, version, formula).and_then(|value| self.setting(&value))
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Setting {
    /// What the knob's files hold with it; none when this version of cgroups has no such knob.
    #[must_use]
    pub fn values(&self, version: Version, formula: WeightFormula) -> Vec<(File, Value)> {
        let knob = self.knob();
        knob.files(version).zip((knob.row().encode)(&self.value(), version, formula)).collect()
    }

    /// Whether the kernel can be expected to take it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn check(&self, path: &str, version: Version, around: &dyn Surroundings) -> Result<(), String> {
        (self.knob().row().check)(self, path, version, around)
    }

    /// What two that want less each can both have; `None` when one of them must win.
    pub(crate) fn join(&self, other: &Self) -> Option<Self> {
        (self.knob().row().join)(self, other)
    }

    /// The properties of systemd that it is; none when systemd knows nothing of that knob.
    pub(crate) fn properties(&self, version: Version, formula: WeightFormula) -> Vec<(&'static str, Property)> {
        let rows = self.knob().row().properties.iter().filter(|row| row.versions.contains(&version));
        rows.filter_map(|row| Some((row.name, (row.of)(self, formula)?))).collect()
    }
}

/// The value alone, as plans and the audit log show it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.knob().row().format.show)(&self.value()))
    }
}

/// The row of a systemd property; `None` for one that guard never sets.
pub(crate) fn property(name: &str) -> Option<&'static PropertyRow> {
    KNOBS.iter().flat_map(|knob| knob.row().properties).find(|row| row.name == name)
}

impl File {
    fn row(self) -> &'static FileRow {
        &self.knob.row().files[self.at]
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What its text says.
    pub(crate) fn parse(self, text: &str) -> Result<Value, ParseError> {
        (self.row().format.parse)(text.trim())
    }

    /// The text to write for a value.
    #[must_use]
    pub fn text(self, value: &Value) -> String {
        let text = (self.row().format.show)(value);
        // An empty write never reaches the file's handler.
        if text.is_empty() { "\n".to_owned() } else { text }
    }

    /// Whether two texts of this file mean the same to whoever wrote them: that the kernel does not honour a value, now or
    /// no more, is no other value.
    pub(crate) fn same(self, one: &str, other: &str) -> bool {
        match (self.parse(one), self.parse(other)) {
            (Ok(one), Ok(other)) => one.as_written() == other.as_written(),
            // What is not understood is compared as it stands.
            _ => one.trim() == other.trim(),
        }
    }

    fn named(name: &str) -> Option<Self> {
        let files = |knob: &Knob| (0..knob.row().files.len()).map(|at| Self::new(*knob, at)).collect::<Vec<_>>();
        KNOBS.iter().flat_map(files).find(|file| file.name() == name)
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for File {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| D::Error::custom(format!("no knob has a file {name}")))
    }
}
