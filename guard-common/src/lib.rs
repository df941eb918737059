//! The only thing guard's two sides share: the histogram layout, the values in the maps, the records in the ring
//! buffer and the read-only configuration that user space hands to the programs at load.
#![no_std]

pub mod comm;
pub mod config;
pub mod event;
pub mod flight;
pub mod hist;
pub mod maps;
