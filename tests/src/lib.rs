//! What a user of guard would see. `workload` holds real programs that time themselves, `harness` starts and ends
//! them and guard, `scenario` runs named checks one after another, `checks` are the checks and say which of them belong
//! to the host and which to a guest. The checks know guard only by its command line and its published JSON; what writes
//! knobs as guard does is its own executor.

pub mod checks;
pub mod compare;
pub mod harness;
pub mod inject;
pub mod scenario;
mod sys;
pub mod trace_events;
pub mod undo;
pub mod values;
pub mod workload;
