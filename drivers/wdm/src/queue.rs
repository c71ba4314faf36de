//! Requests that wait, and may be cancelled meanwhile.
//!
//! Page: *Cancel-Safe IRP Queues*, done here with a spin lock of the queue's own and the page *Using the System's Cancel
//! Spin Lock*'s rules: the caller that takes the cancel routine away owns the request. The queue links requests through their
//! `DriverContext`.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use abi::{DEVICE_OBJECT, DriverPtr, IRP, NtStatus};

use crate::device::Device;
use crate::irp::{FileId, PendingIrp};
use crate::irql::{AtMostDispatch, DispatchOrBelow};
use crate::lock::SpinLock;
use crate::remove_lock::RemoveLock;
use crate::{raw, sys};

/// Our words in a queued request.
#[derive(Clone, Copy)]
enum Word {
    Queue = 0,
    Next = 1,
    Lock = 2,
    /// Not null: it was here before, and goes before those that were not.
    Again = 3,
}

/// Where in a queue a request is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind all others.
    End,
    /// Behind those that were put so, and before all others.
    Again,
}

/// Why a queue did not take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is as long as it may be.
    Full,
    /// The request was cancelled before: complete it with `STATUS_CANCELLED`.
    Cancelled,
    /// It is another device's request, which this device would not wait for when it is removed.
    Foreign,
}

impl Refused {
    /// What such a request may be completed with.
    pub const fn status(self) -> NtStatus {
        match self {
            Self::Full => NtStatus::DEVICE_BUSY,
            Self::Cancelled => NtStatus::CANCELLED,
            Self::Foreign => NtStatus::INVALID_DEVICE_REQUEST,
        }
    }
}

/// Waiting requests, first come first served. A request that is cancelled leaves by itself.
///
/// It holds requests only where it lies in a device's `T`: see [`Device::park`].
pub struct IrpQueue {
    chain: SpinLock<Chain>,
    capacity: usize,
}

struct Chain {
    first: *mut IRP,
    length: usize,
}

// SAFETY: the requests are owned by the chain.
unsafe impl Send for Chain {}

impl IrpQueue {
    /// An empty queue for at most `capacity` requests.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { chain: SpinLock::new(Chain { first: null_mut(), length: 0 }), capacity }
    }

    /// The longest waiting request; it can no longer be cancelled.
    pub fn pop<L: AtMostDispatch>(&self, level: &mut L) -> Option<PendingIrp> {
        self.take(level, |_| true)
    }

    /// The longest waiting request of a file; it can no longer be cancelled.
    pub fn pop_of<L: AtMostDispatch>(&self, file: FileId, level: &mut L) -> Option<PendingIrp> {
        self.take(level, |irp| irp.file() == file)
    }

    fn take<L: AtMostDispatch>(
        &self,
        level: &mut L,
        wanted: impl Fn(&PendingIrp) -> bool,
    ) -> Option<PendingIrp> {
        self.chain.with(level, |chain, _dispatch| {
            let mut at = chain.first;
            while let Some(irp) = NonNull::new(at) {
                // SAFETY: what is in the chain is the queue's; one whose cancel routine runs stays until that has the lock.
                let taken = unsafe {
                    at = word(irp, Word::Next).cast();
                    let candidate = PendingIrp::from_raw(irp, word(irp, Word::Lock).cast::<RemoveLock>());
                    let wanted = wanted(&candidate);
                    let (irp, lock) = candidate.into_raw();
                    (wanted && !exchange_cancel(irp, None).is_null()).then_some((irp, lock))
                };
                if let Some((irp, lock)) = taken {
                    // SAFETY: in the chain; no cancel routine will look for it.
                    return Some(unsafe {
                        chain.unlink(irp);
                        PendingIrp::from_raw(irp, lock)
                    });
                }
            }
            None
        })
    }
}

impl<T> Device<T> {
    /// Puts a request into a queue of this device, at its end.
    ///
    /// # Errors
    /// The request, and why it is not there.
    pub fn park<L: AtMostDispatch>(
        &self,
        irp: PendingIrp,
        queue: fn(&T) -> &IrpQueue,
        level: &mut L,
    ) -> Result<(), (PendingIrp, Refused)> {
        self.park_in(queue(self), irp, Place::End, level)
    }

    /// As [`Device::park`], at a place of a queue that lies in the device, or for ever.
    pub(crate) fn park_in<L: AtMostDispatch>(
        &self,
        queue: &IrpQueue,
        irp: PendingIrp,
        place: Place,
        level: &mut L,
    ) -> Result<(), (PendingIrp, Refused)> {
        if !irp.is_of(self) {
            return Err((irp, Refused::Foreign));
        }
        queue.chain.with(level, |chain, _dispatch| {
            if chain.length >= queue.capacity {
                return Err((irp, Refused::Full));
            }
            let (irp, lock) = irp.into_raw();
            // SAFETY: the request was given to us; from the moment it has a cancel routine, only the holder of the queue's
            // lock may take it. The queue lies in the device (or for ever), which is not removed before the request has ended:
            // the remove lock that is held for it is the device's own.
            unsafe {
                set_word(irp, Word::Queue, core::ptr::from_ref(queue).cast_mut().cast());
                set_word(irp, Word::Lock, lock.cast_mut().cast());
                exchange_cancel(irp, Some(cancel));
                let cancelled = raw::get(irp.as_ptr(), IRP::Cancel) != 0;
                if cancelled && !exchange_cancel(irp, None).is_null() {
                    return Err((PendingIrp::from_raw(irp, lock), Refused::Cancelled));
                }
                chain.insert(irp, place);
            }
            Ok(())
        })
    }
}

impl Chain {
    /// # Safety
    /// The request is the chain's from now on.
    unsafe fn insert(&mut self, irp: NonNull<IRP>, place: Place) {
        let again = match place {
            Place::End => null_mut(),
            Place::Again => irp.as_ptr().cast(),
        };
        // SAFETY: the caller's promise, and everything linked is the chain's.
        unsafe {
            set_word(irp, Word::Again, again);
            let before = self.last(|irp| place == Place::End || !word(irp, Word::Again).is_null());
            match NonNull::new(before) {
                Some(before) => {
                    set_word(irp, Word::Next, word(before, Word::Next));
                    set_word(before, Word::Next, irp.as_ptr().cast());
                }
                None => {
                    set_word(irp, Word::Next, self.first.cast());
                    self.first = irp.as_ptr();
                }
            }
        }
        self.length += 1;
    }

    /// The last of those at the beginning for which this holds.
    fn last(&self, holds: impl Fn(NonNull<IRP>) -> bool) -> *mut IRP {
        let mut last = null_mut();
        let mut at = self.first;
        while let Some(irp) = NonNull::new(at).filter(|irp| holds(*irp)) {
            last = at;
            // SAFETY: everything linked is the chain's.
            at = unsafe { word(irp, Word::Next) }.cast();
        }
        last
    }

    /// # Safety
    /// The request is in the chain.
    unsafe fn unlink(&mut self, irp: NonNull<IRP>) {
        // SAFETY: everything linked is the chain's.
        unsafe {
            let next = word(irp, Word::Next);
            let mut at = self.first;
            if at == irp.as_ptr() {
                self.first = next.cast();
            }
            while let Some(before) = NonNull::new(at) {
                at = word(before, Word::Next).cast();
                if at == irp.as_ptr() {
                    set_word(before, Word::Next, next);
                }
            }
        }
        self.length -= 1;
    }
}

/// The cancel routine of queued requests. It is called with the cancel spin lock held.
unsafe extern "system" fn cancel(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // SAFETY: the routine was ours to set; the request stays in its queue until this has unlinked it.
    unsafe {
        sys::IoReleaseCancelSpinLock(raw::get(irp, IRP::CancelIrql));
        let Some(irp) = NonNull::new(irp) else { return };
        let queue = &*word(irp, Word::Queue).cast::<IrpQueue>();
        let mut level = DispatchOrBelow::assume();
        queue.chain.with(&mut level, |chain, _dispatch| chain.unlink(irp));
        let lock = word(irp, Word::Lock).cast::<RemoveLock>();
        PendingIrp::from_raw(irp, lock).complete(NtStatus::CANCELLED, 0, &mut level);
    }
}

fn context(irp: NonNull<IRP>, word: usize) -> *mut DriverPtr<()> {
    IRP::Tail_Overlay_DriverContext.of(irp.as_ptr()).cast::<DriverPtr<()>>().wrapping_add(word)
}

/// # Safety
/// The request is the caller's to read.
unsafe fn word(irp: NonNull<IRP>, which: Word) -> *mut () {
    // SAFETY: the caller's promise.
    unsafe { word_of(irp, which as usize) }
}

/// # Safety
/// The request is the caller's to write.
unsafe fn set_word(irp: NonNull<IRP>, which: Word, value: *mut ()) {
    // SAFETY: the caller's promise.
    unsafe { set_word_of(irp, which as usize, value) };
}

/// A word of a request's `DriverContext`, which its owner has for itself.
///
/// # Safety
/// The request is the caller's to read; `word` is less than 4.
pub(crate) unsafe fn word_of(irp: NonNull<IRP>, word: usize) -> *mut () {
    // SAFETY: the caller's promise.
    raw::pointer(unsafe { context(irp, word).read() })
}

/// Changes it.
///
/// # Safety
/// The request is the caller's to write; `word` is less than 4.
pub(crate) unsafe fn set_word_of(irp: NonNull<IRP>, word: usize, value: *mut ()) {
    // SAFETY: the caller's promise.
    unsafe { context(irp, word).write(raw::stored(value)) };
}

/// `IoSetCancelRoutine`: the routine there was before.
///
/// # Safety
/// The request has not been completed.
pub(crate) unsafe fn exchange_cancel(irp: NonNull<IRP>, routine: Option<sys::DeviceIrp>) -> *mut () {
    let routine = routine.map_or(null_mut(), |routine| (routine as *const ()).cast_mut());
    let place = IRP::CancelRoutine.of(irp.as_ptr()).cast::<*mut ()>();
    // SAFETY: the caller's promise; the member is aligned, and changed by exchanges only.
    unsafe { AtomicPtr::from_ptr(place) }.swap(routine, Ordering::SeqCst)
}

/// The word of a request's `DriverContext` that a device queue leaves free.
pub(crate) fn spare_word(irp: NonNull<IRP>) -> *mut DriverPtr<()> {
    context(irp, 3)
}
