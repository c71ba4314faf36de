//! Memory that driver and card share for as long as the device is started.
//!
//! Pages: *AllocateCommonBuffer*, *FreeCommonBuffer*. Adapter and buffers have one owner, so that they go in the right order and
//! nothing is counted. The card may write them at any moment: bytes are copied.

use core::ptr::NonNull;

use abi::{DMA_ADAPTER, DMA_OPERATIONS, NtStatus};

use super::{DmaAdapter, LogicalAddress, routine};
use crate::Result;
use crate::irql::{self, Passive};
use crate::register::Width;
use crate::shared_bytes::{OutOfBuffer, SharedBytes};

/// Whether the processor's caches hold common buffers. On x64 they are coherent with DMA either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// They do.
    Cached,
    /// They do not.
    NonCached,
}

type Allocate = unsafe extern "system" fn(*mut DMA_ADAPTER, u32, *mut u64, u8) -> *mut u8;
type Free = unsafe extern "system" fn(*mut DMA_ADAPTER, u32, u64, *mut u8, u8);

struct Buffer {
    address: NonNull<u8>,
    logical: u64,
    length: u32,
}

/// An adapter with `N` common buffers. Dropping it, at `PASSIVE_LEVEL`, frees them and gives the adapter back.
pub struct CommonBuffers<const N: usize> {
    buffers: [Option<Buffer>; N],
    cached: u8,
    adapter: DmaAdapter,
}

// SAFETY: the buffers are this owner's, and accesses to them volatile.
unsafe impl<const N: usize> Send for CommonBuffers<N> {}
// SAFETY: as above: bytes that two processors write at once are either's.
unsafe impl<const N: usize> Sync for CommonBuffers<N> {}

impl DmaAdapter {
    /// Allocates common buffers of these lengths, with zeroes in them.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; the adapter is given back.
    pub fn with_common_buffers<const N: usize>(
        self,
        lengths: [u32; N],
        caching: Caching,
        _passive: &mut Passive,
    ) -> Result<CommonBuffers<N>> {
        let mut all = CommonBuffers {
            buffers: [const { None }; N],
            cached: (caching == Caching::Cached).into(),
            adapter: self,
        };
        let adapter = all.adapter.adapter;
        for (place, length) in all.buffers.iter_mut().zip(lengths) {
            let mut logical = 0;
            // SAFETY: the routine is this one; at PASSIVE_LEVEL. The memory is ours, this long.
            unsafe {
                let allocate: Allocate = routine(adapter, DMA_OPERATIONS::AllocateCommonBuffer);
                let address = allocate(adapter.as_ptr(), length, &raw mut logical, all.cached);
                let address = NonNull::new(address).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
                address.write_bytes(0, length as usize);
                *place = Some(Buffer { address, logical, length });
            }
        }
        Ok(all)
    }
}

impl<const N: usize> CommonBuffers<N> {
    /// The buffers' adapter, for the pages of requests.
    #[must_use]
    pub fn adapter(&self) -> &DmaAdapter {
        &self.adapter
    }

    /// One of the buffers.
    ///
    /// # Panics
    /// If there is none of that index, which is a bug check.
    #[must_use]
    pub fn buffer(&self, index: usize) -> CommonBuffer<'_> {
        let Some(Some(buffer)) = self.buffers.get(index) else { panic!("there is no such common buffer") };
        CommonBuffer { buffer }
    }
}

impl<const N: usize> Drop for CommonBuffers<N> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        let adapter = self.adapter.adapter;
        for Buffer { address, logical, length } in self.buffers.iter().flatten() {
            // SAFETY: the routine is this one; allocated with these by this adapter, which is given back behind this. At
            // PASSIVE_LEVEL.
            unsafe {
                let free: Free = routine(adapter, DMA_OPERATIONS::FreeCommonBuffer);
                free(adapter.as_ptr(), *length, *logical, address.as_ptr(), self.cached);
            }
        }
    }
}

/// A common buffer. At any level.
#[derive(Clone, Copy)]
pub struct CommonBuffer<'a> {
    buffer: &'a Buffer,
}

impl CommonBuffer<'_> {
    fn bytes(&self) -> SharedBytes {
        let Buffer { address, length, .. } = self.buffer;
        // SAFETY: the buffer is there as long as it is borrowed, and can be read and written.
        unsafe { SharedBytes::new(address.as_ptr(), *length as usize) }
    }

    /// Where the card finds it.
    #[must_use]
    pub fn logical(&self) -> LogicalAddress {
        LogicalAddress(self.buffer.logical)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.length as usize
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.length == 0
    }

    /// Copies from the buffer.
    ///
    /// # Errors
    /// If not all of it lies there; then nothing is copied.
    pub fn copy_from(&self, offset: usize, to: &mut [u8]) -> core::result::Result<(), OutOfBuffer> {
        self.bytes().copy_from(offset, to)
    }

    /// Copies to the buffer.
    ///
    /// # Errors
    /// If not all of it lies there; then nothing is copied.
    pub fn copy_to(&self, offset: usize, from: &[u8]) -> core::result::Result<(), OutOfBuffer> {
        self.bytes().copy_to(offset, from)
    }

    /// Reads a word in one access.
    ///
    /// # Errors
    /// If it does not lie there, aligned.
    pub fn read<T: Width>(&self, offset: usize) -> core::result::Result<T, OutOfBuffer> {
        self.bytes().read(offset)
    }

    /// Writes a word in one access.
    ///
    /// # Errors
    /// If it does not lie there, aligned; then nothing is written.
    pub fn write<T: Width>(&self, offset: usize, value: T) -> core::result::Result<(), OutOfBuffer> {
        self.bytes().write(offset, value)
    }
}
