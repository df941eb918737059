//! How a Snapshot, and what doctor, explain, lab and probe report, look to people and to scripts: one file per output.
//! This room measures and decides nothing; it reads no clock and no file, and returns text for its caller to write.

pub mod cyclictest;
pub mod doctor;
pub mod explain;
mod figures;
pub mod hdr;
pub mod html;
pub mod json;
pub mod lab;
pub mod line;
pub mod metrics;
pub mod plan;
pub mod probe;
#[cfg(test)]
pub(crate) mod samples;
mod table;
pub mod text;
pub mod top;
pub mod trace;
