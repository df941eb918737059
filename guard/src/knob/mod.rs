//! What can be set on a node, without setting it: knobs and their values, their files on v1 and v2 with encoding and
//! decoding, the order in which a batch of them is written, and what the kernel refuses. Pure.

mod limits;
mod order;
mod property;
mod setting;
mod text;
mod value;
mod version;
mod weight;

pub use limits::{MAX_PERIOD_US, MAX_QUOTA_US, MIN_PERIOD_US};
pub(crate) use limits::{Surroundings, check};
pub(crate) use order::{Move, steps};
pub(crate) use property::{INFINITY, Property};
pub use setting::{Knob, Setting};
pub use text::ParseError;
pub(crate) use text::parse_u64;
pub use value::File;
pub(crate) use value::{Value, files, setting, values, weights_of_idle};
pub use version::Version;
pub use weight::WeightFormula;
