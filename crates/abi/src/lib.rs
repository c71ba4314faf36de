//! Windows x64 kernel types and constants, as `wdm.h` lays them out.
//!
//! A type here is a size, an alignment and a list of fields at stated offsets; fields may overlap, as the members of
//! Microsoft's unions do. Names are Microsoft's, with `_` for the `.` of a nested member
//! (`IRP::Tail_Overlay_CurrentStackLocation`). The kernel adds a field to a [`DriverPtr`]; a driver calls
//! [`Field::of`] on a raw pointer. A C file of static assertions, generated from these lists, is compiled against
//! mingw's `ddk/wdm.h`, so that something we did not write holds them.
//!
//! It does not touch memory: `engine` reads and writes for the kernel, raw pointers do for a driver.
//!
//! Types of one byte are `u8`, whatever C says of their sign; enumerations are `u32`, `LARGE_INTEGER` is `i64`,
//! `PHYSICAL_ADDRESS` and `HANDLE` are `u64`; a flexible array at a type's end is a field of its first element's type.
//! A field need not be aligned in memory: a driver reads it with `read_unaligned` where the type says align 4 or less.
#![no_std]
#![allow(non_upper_case_globals, non_camel_case_types)]
#![allow(clippy::cast_possible_truncation, reason = "usize is 64 bits on every target of this crate")]

mod field;
mod io;
mod irp;
mod ke;
mod major;
mod mm;
mod rtl;
mod stack_location;
mod status;

pub use field::{Code, DriverPtr, Field, FieldLayout, Mingw, TypeLayout};
pub use io::*;
pub use irp::*;
pub use ke::*;
pub use major::*;
pub use mm::*;
pub use rtl::*;
pub use stack_location::*;
pub use status::NtStatus;

/// Every layout of this crate, file by file.
pub fn all_layouts() -> impl Iterator<Item = &'static TypeLayout> {
    [io::LAYOUTS, irp::LAYOUTS, ke::LAYOUTS, mm::LAYOUTS, rtl::LAYOUTS, stack_location::LAYOUTS]
        .into_iter()
        .flatten()
}
