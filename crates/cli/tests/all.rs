//! All tests of the command, as one program. Each starts the command that was built.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod agreeing;
mod bad_input;
mod book;
mod check_reports;
mod checking;
mod dismissing;
mod drive;
mod exploring;
mod going_on;
mod going_on_checking;
mod help;
mod inf;
mod isolation;
mod judging;
mod keeping;
mod kmdf;
mod many;
mod museum;
mod new;
mod pairs;
mod promptness;
mod questions;
mod registry;
mod replaying;
mod rig;
mod running;
mod verifier;
mod wmi;
