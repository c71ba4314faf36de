//! dirql as a library: what tests and the command line start, drive and ask a machine by.
#![forbid(unsafe_code)]

pub mod inf;
pub mod readers;
pub mod script;
