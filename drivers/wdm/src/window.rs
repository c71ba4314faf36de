//! Windows to a card: a block of registers or memory in memory space, mapped, or in port space.
//!
//! Pages: *MmMapIoSpace*, *MmUnmapIoSpace*, *READ_REGISTER_ULONG*, *READ_PORT_ULONG* (inlined on x64: `mov`, `in`, `out`).
//! Mapped uncached. A window is shared freely: an access is one instruction; what takes several is the driver's to guard.

use core::marker::PhantomData;

use abi::NtStatus;

use crate::irql::{self, AtMostDispatch};
use crate::register::{Block, PortWidth, Register, Width};
use crate::resource::{MemoryRange, PortRange};
use crate::{Result, sys};

/// A window's bytes do not reach that far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfWindow;

/// A block mapped from memory space. Dropping it unmaps it, at `DISPATCH_LEVEL` and below: above that its end is a bug check.
pub struct MemoryWindow<B> {
    address: usize,
    length: u32,
    block: PhantomData<fn() -> B>,
}

/// A block in port space.
pub struct PortWindow<B> {
    port: u16,
    block: PhantomData<fn() -> B>,
}

impl<B: Block> MemoryWindow<B> {
    /// Maps the range, uncached.
    ///
    /// # Errors
    /// `STATUS_DEVICE_CONFIGURATION_ERROR` if it is shorter than the block, `STATUS_INSUFFICIENT_RESOURCES` if it cannot
    /// be mapped.
    pub fn map<L: AtMostDispatch>(range: &MemoryRange<'_>, _level: &mut L) -> Result<Self> {
        if range.length() < B::LENGTH {
            return Err(NtStatus::DEVICE_CONFIGURATION_ERROR);
        }
        // SAFETY: the system gave the device this range; at most at DISPATCH_LEVEL.
        let mapped = unsafe { sys::MmMapIoSpace(range.start(), range.length() as usize, abi::MmNonCached) };
        if mapped.is_null() {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        Ok(Self { address: mapped.expose_provenance(), length: range.length(), block: PhantomData })
    }

    /// Bytes mapped; at least the block's.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Reads a register. At any level.
    pub fn read<T: Width>(&self, register: Register<B, T>) -> T {
        // SAFETY: the register lies inside the block, the block inside what is mapped.
        unsafe { T::read_memory(self.address + register.offset() as usize) }
    }

    /// Writes a register. At any level.
    pub fn write<T: Width>(&self, register: Register<B, T>, value: T) {
        // SAFETY: as `read`.
        unsafe { T::write_memory(self.address + register.offset() as usize, value) }
    }

    /// Copies from the card: 32 bits at a time where the card's side is aligned. At any level.
    ///
    /// # Errors
    /// If not all of it lies in the window; then nothing is read.
    pub fn copy_from(&self, offset: u32, to: &mut [u8]) -> core::result::Result<(), OutOfWindow> {
        let mut at = self.at(offset, to.len())?;
        let (head, rest) = to.split_at_mut(bytes_to_alignment(at).min(to.len()));
        let (words, tail) = rest.as_chunks_mut::<4>();
        // SAFETY: `at` and all that follows lie in the window, as `self.at` has seen.
        unsafe {
            for byte in head {
                *byte = u8::read_memory(at);
                at += 1;
            }
            for word in words {
                *word = u32::read_memory(at).to_le_bytes();
                at += 4;
            }
            for byte in tail {
                *byte = u8::read_memory(at);
                at += 1;
            }
        }
        Ok(())
    }

    /// Copies to the card: 32 bits at a time where the card's side is aligned. At any level.
    ///
    /// # Errors
    /// If not all of it lies in the window; then nothing is written.
    pub fn copy_to(&self, offset: u32, from: &[u8]) -> core::result::Result<(), OutOfWindow> {
        let mut at = self.at(offset, from.len())?;
        let (head, rest) = from.split_at(bytes_to_alignment(at).min(from.len()));
        let (words, tail) = rest.as_chunks::<4>();
        // SAFETY: `at` and all that follows lie in the window, as `self.at` has seen.
        unsafe {
            for byte in head {
                u8::write_memory(at, *byte);
                at += 1;
            }
            for word in words {
                u32::write_memory(at, u32::from_le_bytes(*word));
                at += 4;
            }
            for byte in tail {
                u8::write_memory(at, *byte);
                at += 1;
            }
        }
        Ok(())
    }

    fn at(&self, offset: u32, bytes: usize) -> core::result::Result<usize, OutOfWindow> {
        let fits = u64::from(offset) + bytes as u64 <= u64::from(self.length);
        fits.then_some(self.address + offset as usize).ok_or(OutOfWindow)
    }
}

/// Bytes up to the next multiple of 4.
const fn bytes_to_alignment(address: usize) -> usize {
    address.wrapping_neg() & 3
}

impl<B> Drop for MemoryWindow<B> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::DISPATCH_LEVEL);
        let address = core::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: mapped by `map` with this length; at most at DISPATCH_LEVEL.
        unsafe { sys::MmUnmapIoSpace(address, self.length as usize) };
    }
}

impl<B: Block> PortWindow<B> {
    /// The range as a window; nothing need be mapped.
    ///
    /// # Errors
    /// `STATUS_DEVICE_CONFIGURATION_ERROR` if it is shorter than the block, or no port of this processor.
    pub fn open(range: &PortRange<'_>) -> Result<Self> {
        let last = range.start().checked_add(u64::from(B::LENGTH.saturating_sub(1)));
        let fits = range.length() >= B::LENGTH && last.is_some_and(|last| last <= u64::from(u16::MAX));
        match u16::try_from(range.start()) {
            Ok(port) if fits => Ok(Self { port, block: PhantomData }),
            _ => Err(NtStatus::DEVICE_CONFIGURATION_ERROR),
        }
    }

    /// Reads a register. At any level.
    pub fn read<T: PortWidth>(&self, register: Register<B, T>) -> T {
        // SAFETY: the register lies inside the block, the block inside the range that the system gave the device.
        unsafe { T::read_port(self.port_of(register)) }
    }

    /// Writes a register. At any level.
    pub fn write<T: PortWidth>(&self, register: Register<B, T>, value: T) {
        // SAFETY: as `read`.
        unsafe { T::write_port(self.port_of(register), value) }
    }

    fn port_of<T: PortWidth>(&self, register: Register<B, T>) -> u16 {
        let [low, high, ..] = register.offset().to_le_bytes(); // ports have 16 bits, as `open` has seen
        self.port.wrapping_add(u16::from_le_bytes([low, high]))
    }
}

/// A block that is reached through either space, as the driver chose when the device started.
pub enum Window<B> {
    /// Through memory space.
    Memory(MemoryWindow<B>),
    /// Through port space.
    Port(PortWindow<B>),
}

impl<B: Block> Window<B> {
    /// Reads a register. At any level.
    pub fn read<T: PortWidth>(&self, register: Register<B, T>) -> T {
        match self {
            Self::Memory(window) => window.read(register),
            Self::Port(window) => window.read(register),
        }
    }

    /// Writes a register. At any level.
    pub fn write<T: PortWidth>(&self, register: Register<B, T>, value: T) {
        match self {
            Self::Memory(window) => window.write(register, value),
            Self::Port(window) => window.write(register, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ram;
    impl Block for Ram {
        const LENGTH: u32 = 16;
    }

    /// A window to memory of the test's own, which outlives it.
    fn window(memory: &mut [u32; 4]) -> core::mem::ManuallyDrop<MemoryWindow<Ram>> {
        let address = memory.as_mut_ptr().expose_provenance();
        core::mem::ManuallyDrop::new(MemoryWindow { address, length: 16, block: PhantomData })
    }

    #[test]
    fn bytes_at_any_alignment_come_back_as_they_went() {
        for offset in 0..8 {
            for length in 0..8 {
                let mut memory = [0; 4];
                let card = window(&mut memory);
                let sent = &[1, 2, 3, 4, 5, 6, 7, 8][..length];
                card.copy_to(offset, sent).unwrap();
                let mut received = [0; 8];
                card.copy_from(offset, &mut received[..length]).unwrap();
                assert_eq!(&received[..length], sent, "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn a_copy_past_the_end_moves_nothing() {
        let mut memory = [7; 4];
        let card = window(&mut memory);
        assert_eq!(card.copy_to(13, &[1, 2, 3, 4]), Err(OutOfWindow));
        assert_eq!(card.copy_to(u32::MAX, &[1]), Err(OutOfWindow));
        assert_eq!(card.copy_to(12, &[1, 2, 3, 4]), Ok(()));
        assert_eq!(memory, [7, 7, 7, 0x0403_0201]);
    }

    #[test]
    fn a_register_is_one_access_of_its_width_at_its_place() {
        let mut memory = [0; 4];
        let card = window(&mut memory);
        card.write(Register::<Ram, u16>::at(6), 0xBEEF);
        assert_eq!(card.read(Register::<Ram, u32>::at(4)), 0xBEEF_0000);
        assert_eq!(card.read(Register::<Ram, u8>::at(7)), 0xBE);
    }

    #[test]
    fn ports_beyond_64k_are_refused() {
        let open =
            |start, length| PortWindow::<Ram>::open(&PortRange::new(start, length)).map(|window| window.port);
        assert_eq!(open(0xFFF0, 16), Ok(0xFFF0));
        assert_eq!(open(0xFFF4, 16), Err(NtStatus::DEVICE_CONFIGURATION_ERROR));
        assert_eq!(open(0x1_0000, 16), Err(NtStatus::DEVICE_CONFIGURATION_ERROR));
        assert_eq!(open(0xC000, 8), Err(NtStatus::DEVICE_CONFIGURATION_ERROR));
    }
}
