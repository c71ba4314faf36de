//! dirql as a library: what tests and the command line start, drive and ask a machine by.
#![forbid(unsafe_code)]

pub mod error;
pub mod files;
pub mod imports;
pub mod inf;
pub mod readers;
pub mod report;
pub mod script;
pub mod windows;

pub use error::{Error, InputError};
pub use report::{Failure, Outcome, Report};
