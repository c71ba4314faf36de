//! All tests of the engine from outside: one program, so that the rig is built once, and the engine linked once.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed; numbers in tests are small"
)]

mod accesses;
mod attacks;
mod carried;
mod checked;
mod compares;
mod corpora;
mod corpus;
mod counter;
mod differential;
mod driver_code;
mod elements;
mod extended;
mod fences;
mod forms;
mod hostile;
mod interlocked;
mod leaves;
mod random;
mod reporting;
mod returns;
mod rewind;
mod rewind_memory;
mod rig;
mod safe_callers;
mod seams;
mod sequences;
mod shared;
mod short_calls;
mod slices;
mod stepping;
mod strings;
mod switches;
mod system;
mod unwinding;
mod views;
