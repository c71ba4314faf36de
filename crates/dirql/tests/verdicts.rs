//! What is said of a driver, and what can be relied on: mistakes and their correct counterparts, attacks, races, readers that judge,
//! checked machines.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod accesses;
mod checked;
mod correct;
mod costly;
mod damage;
mod details;
mod events;
mod executes;
mod faults;
mod fuzz;
mod guide;
mod hostile;
mod hostile_unwind;
mod judges;
#[rustfmt::skip]
mod kept;
mod moments;
mod mutilation;
mod orders;
mod pairs;
mod races;
mod rig;
mod script_docs;
mod stuck;
