//! dirql as a library: what tests and the command line start, drive and ask a machine by.
//!
//! [`Bench`] says what a machine is made of, [`Machine`] is one that runs, [`Report`] is what came of it. Everything a
//! command can do, a test can do through these. It prints nothing.
#![forbid(unsafe_code)]

mod archive;
mod bench;
pub mod check;
pub mod error;
mod explain;
pub mod files;
mod folder;
pub mod framework;
pub mod imports;
pub mod inf;
mod machine;
mod play;
pub mod processor;
pub mod readers;
pub mod record;
mod reg;
pub mod report;
pub mod rules;
pub mod script;
mod search;
pub mod windows;

pub use bench::Bench;
pub use engine::{Jail, interrupts, outbox, pass, standard_output};
pub use error::{Error, InputError};
pub use explain::{Explanation, Moments, explain};
pub use explore;
pub use kernel::etw::TraceProviders;
pub use kernel::fs::{Folder, Item};
pub use kernel::hal::platform::{Platform, Promptness};
pub use kernel::mm::special_pool::{Side, SpecialPool};
pub use kernel::pcw::query::{Question as CounterQuestion, Seen as CounterInstance};
pub use kernel::verifier::{Verifier, VerifierOption};
pub use kernel::wmi::consumer::{Offered as WmiBlock, Question as WmiQuestion, Which as WmiInstance};
pub use machine::{
    Boots, Completion, CompletionPort, Exploration, Handle, Machine, Mark, Packet, Process, Request, User,
    put,
};
pub use play::{Play, ScriptText};
pub use report::{Dismissal, Dress, Failure, HANGS, Outcome, Report};
