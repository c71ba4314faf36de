//! Registers by type: which block they are in, where, and how wide.
//!
//! A register that does not lie inside its block, or is not aligned, does not compile:
//!
//! ```
//! use wdm::{Block, Register};
//! struct Lcr;
//! impl Block for Lcr {
//!     const LENGTH: u32 = 0x80;
//! }
//! const INTCSR: Register<Lcr, u32> = Register::at(0x4C);
//! ```
//!
//! ```compile_fail,E0080
//! use wdm::{Block, Register};
//! struct Lcr;
//! impl Block for Lcr {
//!     const LENGTH: u32 = 0x80;
//! }
//! const BEYOND: Register<Lcr, u32> = Register::at(0x7E);
//! ```
//!
//! It does not know whether a block lies in memory or port space: its window does.

use core::arch::asm;
use core::marker::PhantomData;

/// A block of registers, as a card has it behind a base address register.
pub trait Block {
    /// Bytes that a window to it must have at least.
    const LENGTH: u32;
}

/// A register of block `B` that is read and written as a `T`.
pub struct Register<B, T> {
    offset: u32,
    of: PhantomData<fn() -> (B, T)>,
}

impl<B, T> Clone for Register<B, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B, T> Copy for Register<B, T> {}

impl<B: Block, T: Width> Register<B, T> {
    /// The register at `offset` bytes.
    ///
    /// # Panics
    /// If it would not lie inside the block, aligned: where it is a constant, when the driver is compiled.
    #[must_use]
    pub const fn at(offset: u32) -> Self {
        assert!(offset.is_multiple_of(T::BYTES), "a register is aligned");
        assert!(Self::fits(offset), "a register lies inside its block");
        Self { offset, of: PhantomData }
    }

    /// The register at an offset that is not known before; `None` if it would not lie inside the block, aligned.
    #[must_use]
    pub const fn try_at(offset: u32) -> Option<Self> {
        let good = Self::fits(offset) && offset.is_multiple_of(T::BYTES);
        if good { Some(Self { offset, of: PhantomData }) } else { None }
    }

    /// Whether it would lie inside the block, wherever `offset` is: nothing wraps.
    const fn fits(offset: u32) -> bool {
        offset < B::LENGTH && T::BYTES <= B::LENGTH - offset
    }

    /// Bytes from the block's start.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.offset
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// What one access to memory moves: 8, 16, 32 or 64 bits.
pub trait Width: Copy + sealed::Sealed {
    /// Bytes.
    const BYTES: u32;

    #[doc(hidden)]
    unsafe fn read_memory(address: usize) -> Self;
    #[doc(hidden)]
    unsafe fn write_memory(address: usize, value: Self);
}

/// What one access to a port moves: 8, 16 or 32 bits.
pub trait PortWidth: Width {
    #[doc(hidden)]
    unsafe fn read_port(port: u16) -> Self;
    #[doc(hidden)]
    unsafe fn write_port(port: u16, value: Self);
}

macro_rules! widths {
    ($($type:ident $bytes:literal;)*) => {$(
        impl Width for $type {
            const BYTES: u32 = $bytes;

            unsafe fn read_memory(address: usize) -> Self {
                // SAFETY: the caller's memory is there; one access of this width, as `READ_REGISTER_*`.
                unsafe { core::ptr::with_exposed_provenance::<Self>(address).read_volatile() }
            }

            unsafe fn write_memory(address: usize, value: Self) {
                // SAFETY: the caller's memory is there; one access of this width, as `WRITE_REGISTER_*`.
                unsafe { core::ptr::with_exposed_provenance_mut::<Self>(address).write_volatile(value) }
            }
        }
    )*};
}

macro_rules! port_widths {
    ($($type:ident $register:tt;)*) => {$(
        impl PortWidth for $type {
            unsafe fn read_port(port: u16) -> Self {
                let value;
                // SAFETY: the caller's window has this port.
                unsafe {
                    asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                        options(nostack, preserves_flags));
                }
                value
            }

            unsafe fn write_port(port: u16, value: Self) {
                // SAFETY: the caller's window has this port.
                unsafe {
                    asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                        options(nostack, preserves_flags));
                }
            }
        }
    )*};
}

widths! {
    u8 1;
    u16 2;
    u32 4;
    u64 8;
}

port_widths! {
    u8 "al";
    u16 "ax";
    u32 "eax";
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lcr;
    impl Block for Lcr {
        const LENGTH: u32 = 0x80;
    }

    #[test]
    fn an_offset_at_the_end_of_all_numbers_is_in_no_block() {
        assert!(Register::<Lcr, u32>::try_at(0x7C).is_some());
        for offset in [0x7D, 0x80, u32::MAX - 3, u32::MAX] {
            assert!(Register::<Lcr, u32>::try_at(offset).is_none(), "{offset:#x}");
        }
    }

    #[test]
    #[should_panic(expected = "inside its block")]
    fn an_offset_whose_end_wraps_is_refused() {
        let _register = Register::<Lcr, u32>::at(core::hint::black_box(u32::MAX - 3));
    }
}
