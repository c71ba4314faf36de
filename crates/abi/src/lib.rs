//! Windows x64 kernel types and constants, as `wdm.h` lays them out.
//!
//! A type here is a size, an alignment and a list of fields at stated offsets; fields may overlap, as the members of
//! Microsoft's unions do. Names are Microsoft's, with `_` for the `.` of a nested member
//! (`IRP::Tail_Overlay_CurrentStackLocation`). The kernel adds a field to a [`DriverPtr`]; a driver calls
//! [`Field::of`] on a raw pointer. A C file of static assertions, generated from these lists, is compiled against
//! mingw's `ddk/wdm.h`, so that something we did not write holds them.
//!
//! It does not touch memory: `engine` reads and writes for the kernel, raw pointers do for a driver.
#![no_std]
#![allow(non_upper_case_globals, non_camel_case_types)]
#![allow(clippy::cast_possible_truncation, reason = "usize is 64 bits on every target of this crate")]

mod field;
mod status;
pub mod ke;

pub use field::{DriverPtr, Field, FieldLayout, TypeLayout};
pub use ke::*;
pub use status::NtStatus;
