//! dirql as a library: what tests and the command line start, drive and ask a machine by.
//!
//! [`Bench`] says what a machine is made of, [`Machine`] is one that runs, [`Report`] is what came of it. Everything a
//! command can do, a test can do through these. It prints nothing.
#![forbid(unsafe_code)]

mod bench;
pub mod error;
pub mod files;
pub mod imports;
pub mod inf;
mod machine;
mod play;
pub mod readers;
pub mod report;
pub mod script;
pub mod windows;

pub use bench::Bench;
pub use error::{Error, InputError};
pub use machine::{Completion, Handle, Machine};
pub use play::Play;
pub use report::{Failure, Outcome, Report};
