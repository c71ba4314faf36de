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

mod bugcheck;
mod bugcheck_code;
mod bus;
mod cm;
mod constant;
mod create;
mod csq;
mod debug;
mod device_type;
mod dma;
mod ex;
mod exception;
mod field;
mod file;
mod guid;
mod interrupt;
mod io;
mod irp;
mod irql;
mod ke;
mod kuser;
mod ldr;
mod list;
mod major;
mod mm;
mod ob;
mod pci;
mod pcw;
mod pnp;
mod pool;
mod power;
mod power_fx;
mod processor;
mod ps;
mod remove_lock;
mod resource;
mod rtl;
mod se;
mod stack_location;
mod status;
mod wdf;
mod wmi;

pub use bugcheck::*;
pub use bugcheck_code::*;
pub use bus::*;
pub use cm::*;
pub use constant::Constant;
pub use create::*;
pub use csq::*;
pub use debug::*;
pub use device_type::*;
pub use dma::*;
pub use ex::*;
pub use exception::*;
pub use field::{Code, DriverPtr, Field, FieldLayout, Mingw, TypeLayout};
pub use file::*;
pub use guid::*;
pub use interrupt::*;
pub use io::*;
pub use irp::*;
pub use irql::*;
pub use ke::*;
pub use kuser::*;
pub use ldr::*;
pub use list::*;
pub use major::*;
pub use mm::*;
pub use ob::*;
pub use pci::*;
pub use pcw::*;
pub use pnp::*;
pub use pool::*;
pub use power::*;
pub use power_fx::*;
pub use processor::*;
pub use ps::*;
pub use remove_lock::*;
pub use resource::*;
pub use rtl::*;
pub use se::*;
pub use stack_location::*;
pub use status::NtStatus;
pub use wdf::*;
pub use wmi::*;

/// Every layout of this crate, file by file.
pub fn all_layouts() -> impl Iterator<Item = &'static TypeLayout> {
    [
        bugcheck::LAYOUTS,
        cm::LAYOUTS,
        csq::LAYOUTS,
        dma::LAYOUTS,
        ex::LAYOUTS,
        exception::LAYOUTS,
        file::LAYOUTS,
        guid::LAYOUTS,
        interrupt::LAYOUTS,
        io::LAYOUTS,
        irp::LAYOUTS,
        ke::LAYOUTS,
        kuser::LAYOUTS,
        ldr::LAYOUTS,
        list::LAYOUTS,
        mm::LAYOUTS,
        ob::LAYOUTS,
        pci::LAYOUTS,
        pcw::LAYOUTS,
        pnp::LAYOUTS,
        power::LAYOUTS,
        power_fx::LAYOUTS,
        processor::LAYOUTS,
        ps::LAYOUTS,
        remove_lock::LAYOUTS,
        resource::LAYOUTS,
        rtl::LAYOUTS,
        se::LAYOUTS,
        stack_location::LAYOUTS,
        wdf::LAYOUTS,
        wmi::LAYOUTS,
    ]
    .into_iter()
    .flatten()
}

/// Every constant of this crate but the statuses, file by file.
pub fn all_constants() -> impl Iterator<Item = &'static Constant> {
    [
        bugcheck::CONSTANTS,
        bugcheck_code::CONSTANTS,
        bus::CONSTANTS,
        cm::CONSTANTS,
        create::CONSTANTS,
        csq::CONSTANTS,
        debug::CONSTANTS,
        device_type::CONSTANTS,
        dma::CONSTANTS,
        ex::CONSTANTS,
        exception::CONSTANTS,
        file::CONSTANTS,
        interrupt::CONSTANTS,
        io::CONSTANTS,
        irp::CONSTANTS,
        irql::CONSTANTS,
        ke::CONSTANTS,
        kuser::CONSTANTS,
        major::CONSTANTS,
        mm::CONSTANTS,
        ob::CONSTANTS,
        pci::CONSTANTS,
        pcw::CONSTANTS,
        pnp::CONSTANTS,
        pool::CONSTANTS,
        power::CONSTANTS,
        power_fx::CONSTANTS,
        processor::CONSTANTS,
        resource::CONSTANTS,
        rtl::CONSTANTS,
        se::CONSTANTS,
        stack_location::CONSTANTS,
        wmi::CONSTANTS,
    ]
    .into_iter()
    .flatten()
    .copied()
    .flatten()
}
