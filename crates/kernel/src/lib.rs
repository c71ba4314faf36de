//! The Windows kernel services a WDM driver stands on, laid out as NT's own prefixes: look for `KeSetEvent` in
//! `ke/waits/event.rs`.
//!
//! `exports` is the map: one line an export. A routine gets a [`Cx`], reads and changes kernel state inside
//! [`Cx::with`], and hands [`engine::Leave`] on with `?`. The kernel never prints, and calls no rule, trace or policy
//! by name: it emits events ([`event`]) and asks the chooser.
#![forbid(unsafe_code)]

pub(crate) mod address_map;
pub(crate) mod addresses;
pub mod cm;
pub mod cx;
pub mod departures;
pub mod etw;
pub mod event;
pub(crate) mod ex;
pub mod exports;
mod few;
pub(crate) mod fields;
mod findings;
pub mod fs;
pub mod hal;
pub mod io;
pub mod kd;
pub mod ke;
pub mod ldr;
pub mod mm;
pub mod nt;
pub mod ob;
pub mod pcw;
pub mod pnp;
pub mod po;
pub mod ps;
#[cfg(test)]
mod rig;
pub mod rtl;
pub mod rules;
pub mod se;
mod sorted_map;
pub mod verdict;
pub mod verifier;
pub mod wdf;
mod witness;
pub mod wmi;

pub use cx::{Cx, Kernel};
pub use nt::{Nt, Settings};
