//! guard measures how long real-time threads and cgroups wait on a Linux node, and keeps apart what they wait for: a
//! CPU, a CPU quota, a lock, interrupts. It only observes; nothing on the node is changed. The rooms and the way of the
//! data are described in `docs/design.md`.

pub mod cgroup;
pub mod cli;
pub mod control;
pub mod dashboard;
pub mod inventory;
pub mod kernel;
pub mod policy;
pub mod record;
pub mod snapshot;
pub mod view;
