//! What can be set on a node, without setting it. A knob is one file, which says everything about it: its values, its files
//! on v1 and v2 with encoding and decoding, its place in the order of writes, what the kernel refuses, the property by
//! which systemd owns it, how it is undone. `list` names them all. Pure.

#[macro_use]
mod list;

macro_rules! modules {
    ($($file:ident { $($row:tt)* })*) => { $(mod $file;)* };
}

knobs!(modules);

mod around;
mod file;
mod object;
mod order;
mod property;
mod row;
mod setting;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod value;
mod version;
mod weight;

pub(crate) use around::Surroundings;
pub use bandwidth::{MAX_PERIOD_US, MAX_QUOTA_US, MIN_PERIOD_US};
pub(crate) use bandwidth::{SYSTEMD_PERIOD_US, per_second, period};
pub use file::File;
pub use object::{Kind, Object};
pub(crate) use order::{Move, steps};
pub(crate) use property::{INFINITY, Property};
pub use row::SitsOn;
pub(crate) use row::{FileErrors, Undo};
pub use setting::{Knob, Setting};
pub use table::KNOBS;
pub(crate) use table::property;
pub use text::ParseError;
pub(crate) use text::parse_u64;
pub use value::Value;
pub use version::Version;
pub use weight::WeightFormula;
