//! The loop that ties observing together: samples the kernel side, names what it counted by the inventory and the
//! cgroup files, and hands out Snapshots. Everything below it is plain; everything above it takes Snapshots.

mod accounts;
mod accumulate;
mod act;
mod acting;
mod affinity;
mod assign;
mod audit;
mod clock;
mod cpu_times;
mod enforce;
mod error;
mod facts;
mod http;
mod join;
mod known;
mod lane;
mod late;
mod left;
#[cfg(test)]
mod loop_tests;
mod meter;
mod observe;
mod outlet;
mod own_cost;
mod planning;
mod requests;
mod run_loop;
mod selection;
mod serve;
mod slot_holders;
mod source;
mod sys;
mod thread_priority;
mod watch;
mod writer;
mod writers;

pub use accounts::Traces;
pub use acting::{Acting, Enforce, Pace};
pub use affinity::keep_off_reserved_cpus;
pub use enforce::put_back;
pub use error::{Blame, ControlError};
pub use http::{Answer, HttpServer};
pub use left::Left;
pub use observe::Observer;
pub use planning::{Planned, PlannedStep, plan, replay};
pub use run_loop::{act, measure, run, runtime};
pub use selection::Selection;
pub use serve::{SOCKET, Server};
pub use watch::{Recorder, Watch};
