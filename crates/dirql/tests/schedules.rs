//! Who goes first: policies, searches, records and replays, machines that are taken back or booted again, and load that goes on for long.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod boots;
mod both_ways;
mod delays;
mod histories;
mod in_turn;
mod outcomes;
mod policies;
mod preemption;
mod replays;
mod rewinds;
mod rig;
mod searches;
mod seeds;
mod soak;
mod ticks;
mod unheard;
