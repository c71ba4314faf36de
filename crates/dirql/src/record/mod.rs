//! Records of runs: what a machine was made of, every choice that was not the default, and every event's mark, so that the
//! run can be made again and held against it.
//!
//! A record is text: a header of one JSON line ([`Header`]), then lines in the order in which things happened, the end
//! ([`End`]) and a checksum:
//!
//! ```text
//! {"dirql_record":2,"dirql":"0.1.0","policy":"random:7","driver":{"path":"queue.sys","sha256":"…"},…}
//! event 5718 4 request 1a2b3c4d        time in ns, strand, kind, 32 bits of the hash of all its fields
//! choice 4 ke.before_export 17 = 1     the 17th question of strand 4 at this point (from 0) was answered 1
//! preempt 5 after 1234                 strand 5 gave way when it had retired 1234 driver instructions
//! delay 5 after 1234 at 0x20002000104b it was held up there until what was due next had come: `at`, `before`, or `returning` from a call
//! state 1000 0123…cdef                 the hash of the first 1000 events
//! end {"events":1718,"outcome":"clean",…}
//! sha256 0123…cdef                     of everything above
//! ```
//!
//! The `state` lines hash events: all fields of each, times, strands and device values included. The memory that drivers
//! can see is hashed once, at the end. A run that was killed leaves a record without an end, which is not replayed.

mod comparison;
mod header;
mod line;
mod read;
mod recording;
mod setup;

pub use comparison::{Comparison, Difference};
pub(crate) use header::hex;
pub use header::{Header, RecordedFile, RecordedRegistry, RecordedScript};
pub use line::{End, EventMark};
pub use read::Record;
pub use recording::Recording;
