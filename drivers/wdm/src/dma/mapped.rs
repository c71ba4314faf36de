//! The pages of a request, mapped for the card in pieces for as long as the request is on it.
//!
//! Pages: *GetScatterGatherList*, *PutScatterGatherList*, *Using Scatter/Gather DMA*. The request is given away until its list is there: the
//! adapter calls the driver's routine with both, at once or when map registers are free. The list is put, at `DISPATCH_LEVEL`, before
//! its request can be had back, and so before that can be completed; what the card wrote is in the application's pages then.
//!
//! What was asked for cannot be taken back, and chains of lists are not read.

use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;

use abi::{
    DEVICE_OBJECT, DMA_ADAPTER, DMA_OPERATIONS, IRP, MDL, NtStatus, SCATTER_GATHER_ELEMENT,
    SCATTER_GATHER_LIST,
};

use super::{DmaAdapter, Lists, LogicalAddress, routine};
use crate::device::Device;
use crate::direct::Way;
use crate::irp::PendingIrp;
use crate::irql::{self, Dispatch};
use crate::queue::{set_word_of, word_of};
use crate::{raw, sys};

/// One piece of mapped pages, contiguous for the card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Element {
    /// Where the card finds it.
    pub address: LogicalAddress,
    /// Bytes.
    pub length: u32,
}

/// A request whose pages, or a part of them, are mapped for the card. Dropping it unmaps them and fails the request, at `DISPATCH_LEVEL` and
/// below.
///
/// ```
/// use wdm::{Device, Dispatch, DmaAdapter, Function, Mapped, NtStatus, PendingIrp};
///
/// fn begin<T: Function>(device: &Device<T>, adapter: &DmaAdapter, irp: PendingIrp, dispatch: &mut Dispatch) {
///     let length = irp.transfer().length;
///     if let Err((irp, status)) = device.map(adapter, irp, 0..length, go::<T>, dispatch) {
///         irp.complete(status, 0, dispatch);
///     }
/// }
///
/// fn go<T>(_device: &Device<T>, mapped: Mapped, dispatch: &mut Dispatch) {
///     for _piece in mapped.elements() { /* tells the card */ }
///     // in the DPC at the end of the transfer:
///     let irp = mapped.end(dispatch);
///     irp.complete(NtStatus::SUCCESS, 0, dispatch);
/// }
/// ```
pub struct Mapped {
    irp: ManuallyDrop<PendingIrp>,
    list: NonNull<SCATTER_GATHER_LIST>,
    adapter: NonNull<DMA_ADAPTER>,
    lists: *const Lists,
    /// Where in the request its part begins.
    start: u32,
    to_device: u8,
}

// SAFETY: its owner may be on any processor; the adapter is not given back before this is dropped, and the device, whose remove lock
// is held for the request, not removed.
unsafe impl Send for Mapped {}

type Control = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP, *mut SCATTER_GATHER_LIST, *mut c_void);
type Get = unsafe extern "system" fn(
    *mut DMA_ADAPTER,
    *mut DEVICE_OBJECT,
    *mut MDL,
    *mut c_void,
    u32,
    Control,
    *mut c_void,
    u8,
) -> NtStatus;
type Put = unsafe extern "system" fn(*mut DMA_ADAPTER, *mut SCATTER_GATHER_LIST, u8);
/// What is called when the pages are mapped.
type Then<T> = fn(&Device<T>, Mapped, &mut Dispatch);

/// Our words in a request whose list was asked for.
#[derive(Clone, Copy)]
enum Word {
    Adapter = 0,
    Then = 1,
    Lock = 2,
    /// Bit 0: which way the bytes go, 1 to the device. Above it where the part begins.
    Part = 3,
}

impl<T: Sync + 'static> Device<T> {
    /// Has `part` of the request's pages mapped for the card, and `then` called with it: before this returns, or when enough map registers
    /// are free. The bytes go where those of the request do.
    ///
    /// # Errors
    /// The request, and why: `STATUS_INVALID_DEVICE_REQUEST` if it is not a direct request of this device or the adapter is another's,
    /// `STATUS_INVALID_PARAMETER` if it has no such part, and what the adapter says (`STATUS_INSUFFICIENT_RESOURCES`: the part is longer
    /// than its map registers reach).
    pub fn map(
        &self,
        adapter: &DmaAdapter,
        irp: PendingIrp,
        part: Range<u32>,
        then: Then<T>,
        _dispatch: &mut Dispatch,
    ) -> core::result::Result<(), (PendingIrp, NtStatus)> {
        let to_device = match irp.direct() {
            Some(way) if irp.is_of(self) && adapter.object == self.object() => way == Way::FromApplication,
            _ => return Err((irp, NtStatus::INVALID_DEVICE_REQUEST)),
        };
        let Some((list, start)) = pages(&irp, &part) else {
            return Err((irp, NtStatus::INVALID_PARAMETER));
        };
        adapter.lists().begin();
        let (irp, lock) = irp.into_raw();
        // SAFETY: the request was ours and has no owner until `mapped` has it, or the adapter refuses; its words are ours as long. The
        // list is the request's, `start` lies in it. At DISPATCH_LEVEL, by the proof.
        unsafe {
            set_word_of(irp, Word::Then as usize, (then as *const ()).cast_mut());
            set_word_of(irp, Word::Lock as usize, lock.cast_mut().cast());
            let word = (part.start as usize) << 1 | usize::from(to_device);
            set_word_of(irp, Word::Part as usize, core::ptr::without_provenance_mut(word));
            set_word_of(irp, Word::Adapter as usize, adapter.adapter.as_ptr().cast());
            let get: Get = routine(adapter.adapter, DMA_OPERATIONS::GetScatterGatherList);
            let status = get(
                adapter.adapter.as_ptr(),
                self.object(),
                list,
                start,
                part.end - part.start,
                mapped::<T>,
                irp.as_ptr().cast(),
                to_device.into(),
            );
            if status.is_success() {
                return Ok(());
            }
            adapter.lists().end();
            Err((PendingIrp::from_raw(irp, lock), status))
        }
    }
}

/// The request's list, and where this part of it begins, as the list counts (`MmGetMdlVirtualAddress`). None if it has no such part.
fn pages(irp: &PendingIrp, part: &Range<u32>) -> Option<(*mut MDL, *mut c_void)> {
    // SAFETY: the request is ours, and so is its list.
    unsafe {
        let list = raw::follow(irp.as_ptr(), IRP::MdlAddress);
        let fits = !list.is_null() && part.start < part.end && part.end <= raw::get(list, MDL::ByteCount);
        let start = || {
            let page = raw::follow(list, MDL::StartVa).cast::<c_void>();
            page.wrapping_byte_add(raw::get(list, MDL::ByteOffset) as usize + part.start as usize)
        };
        fits.then(|| (list, start()))
    }
}

unsafe extern "system" fn mapped<T: Sync + 'static>(
    object: *mut DEVICE_OBJECT,
    _current: *mut IRP,
    list: *mut SCATTER_GATHER_LIST,
    irp: *mut c_void,
) {
    let (Some(irp), Some(list)) = (NonNull::new(irp.cast::<IRP>()), NonNull::new(list)) else { return };
    // SAFETY: `map` gave the request with its words; the device is there because the request is, and the adapter because a list of it
    // was asked for. Called at DISPATCH_LEVEL.
    unsafe {
        let device = Device::<T>::of(object);
        let word = |which: Word| word_of(irp, which as usize);
        let then = core::mem::transmute::<*mut (), Then<T>>(word(Word::Then));
        let part = word(Word::Part).addr();
        let owned = Mapped {
            irp: ManuallyDrop::new(PendingIrp::from_raw(irp, word(Word::Lock).cast())),
            list,
            adapter: NonNull::new_unchecked(word(Word::Adapter).cast()),
            lists: &raw const device.lists,
            start: u32::try_from(part >> 1).unwrap_or(0), // it was one when `map` was called
            to_device: u8::from(part & 1 != 0),
        };
        then(device, owned, &mut Dispatch::assume());
    }
}

impl Mapped {
    /// The request, whose bytes the card has.
    #[must_use]
    pub fn request(&self) -> &PendingIrp {
        &self.irp
    }

    /// Its pages as the card finds them, in order.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = Element> + '_ {
        let list = self.list.as_ptr();
        // SAFETY: the list lives, unchanged, until it is put.
        let count = unsafe { raw::get(list, SCATTER_GATHER_LIST::NumberOfElements) };
        (0..count as usize).map(move |index| {
            let element = SCATTER_GATHER_LIST::Elements.of(list).wrapping_add(index);
            // SAFETY: the list has its number of elements, and lives until it is put.
            unsafe {
                let address = LogicalAddress(raw::get(element, SCATTER_GATHER_ELEMENT::Address));
                Element { address, length: raw::get(element, SCATTER_GATHER_ELEMENT::Length) }
            }
        })
    }

    /// The part of the request's pages that is mapped.
    #[must_use]
    pub fn part(&self) -> Range<u32> {
        self.start..self.start + self.elements().map(|element| element.length).sum::<u32>()
    }

    /// The transfer is over: the pages are unmapped, and the request is its driver's again.
    pub fn end(self, _dispatch: &mut Dispatch) -> PendingIrp {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: at DISPATCH_LEVEL, by the proof; `this`, which is not dropped, is not used behind it.
        unsafe {
            this.put();
            ManuallyDrop::take(&mut this.irp)
        }
    }

    /// # Safety
    /// At `DISPATCH_LEVEL`; once.
    unsafe fn put(&mut self) {
        // SAFETY: the caller's promise; the adapter is not given back before the count of its lists falls.
        unsafe {
            let put: Put = routine(self.adapter, DMA_OPERATIONS::PutScatterGatherList);
            put(self.adapter.as_ptr(), self.list.as_ptr(), self.to_device);
            (*self.lists).end();
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        irql::expect_at_most(abi::DISPATCH_LEVEL);
        // SAFETY: at most at DISPATCH_LEVEL, as the processor has just said, so that it may be raised; once, because this is the end.
        unsafe {
            let level = sys::KfRaiseIrql(abi::DISPATCH_LEVEL);
            self.put();
            sys::KeLowerIrql(level);
            ManuallyDrop::drop(&mut self.irp);
        }
    }
}
