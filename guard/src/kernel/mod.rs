//! The only room that knows BPF: what this kernel offers, struct offsets from its BTF, load, attach, map reading. It knows
//! neither policy nor view and names nobody: cgroups are ids and threads are tids here.

mod before;
pub mod btf;
mod collect;
mod config;
mod errno;
mod error;
mod flight;
mod handle;
mod load;
pub mod offer;
pub mod offsets;
mod options;
mod phases;
pub mod pretence;
mod programs;
mod records;
mod refusal;
pub mod sample;
mod selfcheck;
mod signals;
pub mod symbols;
mod sys;

pub use error::KernelError;
pub use flight::flight_bytes;
pub use handle::Kernel;
pub use load::Verified;
pub use options::LoadOptions;
pub(crate) use phases::Phases;
pub use records::Event;
