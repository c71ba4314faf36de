//! Plug and Play and power: trees and stacks of devices, resources, what an INF installs, removals, sleep, PoFx; and frameworks, which
//! drive a driver through all of it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod bus_rust;
mod claims;
mod correct_pnp;
mod detected;
mod installed;
mod kmdf;
mod kmdf_rules;
mod pofx;
mod power;
mod power_level;
mod relations;
mod relay_rust;
mod resources;
mod rig;
mod sequences;
mod stacks;
mod tree;
mod usage;
mod watched;
mod wdfldr;
