//! guard measures how long real-time threads and cgroups wait on a Linux node, and keeps apart what they wait for: a
//! CPU, a CPU quota, a lock, interrupts. By itself it only observes; what it is told to change it puts back. The rooms and
//! the way of the data are described in `docs/design.md`, how it acts in `docs/acting.md`.

pub mod cgroup;
pub mod cli;
pub mod config;
pub mod control;
pub mod dashboard;
pub mod doctor;
pub mod executor;
pub mod explain;
pub mod fault;
pub mod gate;
pub mod inventory;
pub mod kernel;
pub mod knob;
pub mod lab;
pub mod policy;
pub mod probe;
pub mod random;
pub mod record;
pub mod sched;
pub mod snapshot;
pub mod view;
