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
        assert!(offset + T::BYTES <= B::LENGTH, "a register lies inside its block");
        Self { offset, of: PhantomData }
    }

    /// The register at an offset that is not known before; `None` if it would not lie inside the block, aligned.
    #[must_use]
    pub const fn try_at(offset: u32) -> Option<Self> {
        let fits = offset < B::LENGTH && T::BYTES <= B::LENGTH - offset;
        if fits && offset.is_multiple_of(T::BYTES) { Some(Self { offset, of: PhantomData }) } else { None }
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
}

/// What one access moves: 8, 16 or 32 bits.
pub trait Width: Copy + sealed::Sealed {
    /// Bytes.
    const BYTES: u32;

    #[doc(hidden)]
    unsafe fn read_memory(address: usize) -> Self;
    #[doc(hidden)]
    unsafe fn write_memory(address: usize, value: Self);
    #[doc(hidden)]
    unsafe fn read_port(port: u16) -> Self;
    #[doc(hidden)]
    unsafe fn write_port(port: u16, value: Self);
}

macro_rules! widths {
    ($($type:ident $bytes:literal $register:tt;)*) => {$(
        impl Width for $type {
            const BYTES: u32 = $bytes;

            unsafe fn read_memory(address: usize) -> Self {
                // SAFETY: the caller's window is mapped here; one access of this width, as `READ_REGISTER_*`.
                unsafe { core::ptr::with_exposed_provenance::<Self>(address).read_volatile() }
            }

            unsafe fn write_memory(address: usize, value: Self) {
                // SAFETY: the caller's window is mapped here; one access of this width, as `WRITE_REGISTER_*`.
                unsafe { core::ptr::with_exposed_provenance_mut::<Self>(address).write_volatile(value) }
            }

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
    u8 1 "al";
    u16 2 "ax";
    u32 4 "eax";
}
