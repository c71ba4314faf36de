//! DMA by bus masters: what the card can do, and its adapter, through which all memory becomes reachable for it.
//!
//! Pages: *IoGetDmaAdapter*, *DEVICE_DESCRIPTION*, *DMA_OPERATIONS*. Both kinds start here: memory that driver and card share for as
//! long as the device is started ([`CommonBuffers`]), and the pages of a request for as long as that is on the card
//! ([`crate::Device::map`]). A card is given [`LogicalAddress`]es, which come from these two only: there is no physical address.
//!
//! There are no channels of the system's controller, no `AllocateAdapterChannel`, and no cards that want one piece at a time: their
//! lists have one.

mod common_buffer;
mod mapped;

use core::ffi::c_void;
use core::mem::transmute_copy;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use abi::{
    Code, DEVICE_DESCRIPTION as Description, DEVICE_OBJECT, DMA_ADAPTER, DMA_OPERATIONS, DriverPtr, Field,
    NtStatus,
};

use crate::device::{Device, Tie};
use crate::irql::{self, Passive};
use crate::{Result, event, raw, sys};

pub use common_buffer::{Caching, CommonBuffer, CommonBuffers};
pub use mapped::{Element, Mapped};

/// An address as the card puts it out. It means something while what it came from is mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogicalAddress(u64);

impl LogicalAddress {
    /// All 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What a register for the lower half takes.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "it is the lower half")]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// What a register for the upper half takes.
    #[must_use]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The address so many bytes further on: inside the same buffer or piece, if it is to mean anything.
    #[must_use]
    pub const fn offset(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }
}

/// A card that reads and writes memory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusMaster {
    /// Bits of the addresses it puts out.
    pub address_bits: u32,
    /// The most bytes of one transfer.
    pub longest: u32,
    /// Whether it takes a transfer in several pieces.
    pub scatter_gather: bool,
}

impl BusMaster {
    /// One that takes transfers in pieces.
    #[must_use]
    pub const fn new(address_bits: u32, longest: u32) -> Self {
        Self { address_bits, longest, scatter_gather: true }
    }

    /// A width that has no bit of its own is said by version 3, from Windows 8 on.
    fn description(&self) -> Description {
        let version = match self.address_bits {
            24 | 32 | 64 => abi::DEVICE_DESCRIPTION_VERSION2,
            _ => abi::DEVICE_DESCRIPTION_VERSION3,
        };
        let mut description = Description::zeroed();
        description.set(Description::Version, version);
        description.set(Description::Master, 1);
        description.set(Description::ScatterGather, self.scatter_gather.into());
        description.set(Description::Dma32BitAddresses, u8::from(self.address_bits >= 32));
        description.set(Description::Dma64BitAddresses, u8::from(self.address_bits >= 64));
        description.set(Description::InterfaceType, abi::PCIBus);
        description.set(Description::MaximumLength, self.longest);
        description.set(Description::DmaAddressWidth, self.address_bits);
        description
    }
}

/// Lists of an adapter's that are asked for or mapped. It lies in the device, which does not go before its adapters.
#[derive(Default)]
pub(crate) struct Lists(AtomicU32);

impl Lists {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn begin(&self) {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "so many lists were forgotten that their count would begin again");
    }

    fn end(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// The adapter of a bus master. Dropping it, at `PASSIVE_LEVEL`, gives it back, when no list of its device is mapped any more: it waits.
///
/// ```
/// use wdm::{BusMaster, Caching, CommonBuffers, Device, DmaAdapter, Function, Passive, Result};
///
/// /// A card that reaches 4 GiB, in as many pieces as it takes, and reads of them in a page.
/// fn take<T: Function>(device: &Device<T>, passive: &mut Passive) -> Result<CommonBuffers<1>> {
///     const CARD: BusMaster = BusMaster::new(32, 0x1_0000);
///     DmaAdapter::get(device, &CARD, passive)?.with_common_buffers([4096], Caching::Cached, passive)
/// }
/// ```
pub struct DmaAdapter {
    adapter: NonNull<DMA_ADAPTER>,
    object: *mut DEVICE_OBJECT,
    map_registers: u32,
    lists: *const Lists,
    _tie: Tie,
}

// SAFETY: an adapter's routines may be called on any processor; the pointers are the device's, which its tie keeps.
unsafe impl Send for DmaAdapter {}
// SAFETY: as above.
unsafe impl Sync for DmaAdapter {}

impl DmaAdapter {
    /// The adapter of a device that can do this.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` where there is none.
    pub fn get<T>(device: &Device<T>, card: &BusMaster, _passive: &mut Passive) -> Result<Self> {
        let mut description = card.description();
        let mut map_registers = 0;
        // SAFETY: at PASSIVE_LEVEL, with the physical device object; both outlive the call.
        let adapter = unsafe {
            sys::IoGetDmaAdapter(device.pdo().object(), &raw mut description, &raw mut map_registers)
        };
        let adapter = NonNull::new(adapter).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        let (object, lists, tie) = (device.object(), &raw const device.lists, device.tie());
        Ok(Self { adapter, object, map_registers, lists, _tie: tie })
    }

    /// How many pages one list may span.
    #[must_use]
    pub fn map_registers(&self) -> u32 {
        self.map_registers
    }

    fn lists(&self) -> &Lists {
        // SAFETY: they lie in the device, which the tie keeps.
        unsafe { &*self.lists }
    }
}

impl Drop for DmaAdapter {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        // SAFETY: at PASSIVE_LEVEL, as the processor has just said.
        let mut passive = unsafe { Passive::assume() };
        while self.lists().0.load(Ordering::Acquire) != 0 {
            event::delay_milliseconds(1, &mut passive);
        }
        // SAFETY: gotten once, and at PASSIVE_LEVEL; nothing of it is mapped, and it is no longer used.
        unsafe {
            let put: unsafe extern "system" fn(*mut DMA_ADAPTER) =
                routine(self.adapter, DMA_OPERATIONS::PutDmaAdapter);
            put(self.adapter.as_ptr());
        }
    }
}

/// A routine of an adapter's.
///
/// # Safety
/// The adapter is there, and `F` is the type of a pointer to this routine.
unsafe fn routine<F: Copy>(
    adapter: NonNull<DMA_ADAPTER>,
    which: Field<DMA_OPERATIONS, DriverPtr<Code>>,
) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the caller's promise; an adapter has its table for as long as it is there.
    unsafe {
        let operations = raw::follow(adapter.as_ptr(), DMA_ADAPTER::DmaOperations);
        transmute_copy::<*mut Code, F>(&raw::follow(operations, which))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_said_by_the_bits_that_every_windows_knows_where_there_are_any() {
        let said = |bits| {
            let description = BusMaster::new(bits, 4096).description();
            let flags = [Description::Dma32BitAddresses, Description::Dma64BitAddresses];
            (description.get(Description::Version), flags.map(|flag| description.get(flag)))
        };
        assert_eq!(said(24), (2, [0, 0]));
        assert_eq!(said(28), (3, [0, 0]));
        assert_eq!(said(32), (2, [1, 0]));
        assert_eq!(said(40), (3, [1, 0]));
        assert_eq!(said(64), (2, [1, 1]));
    }

    #[test]
    fn halves_of_an_address_are_what_registers_take() {
        let address = LogicalAddress(0x1_FFFF_FFF0).offset(0x14);
        assert_eq!((address.high(), address.low(), address.bits()), (2, 4, 0x2_0000_0004));
    }
}
