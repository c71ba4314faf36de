//! Images that went while no driver code stands on any stack: what the host has of them, and what was translated from them, stays until
//! driver code runs again, or the kernel looks there. A machine whose last driver is unloaded at the end of a run is mostly taken back before
//! that, and needs neither a mapping nor a translation again.
//!
//! Nothing sees it: the page table says at once that they are gone, and whatever would ask the host or the translator carries it out first.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::heap;
use crate::machine::state;
use crate::translate;
use crate::windows::{IMAGES, Window};

/// Whether there are any. One machine runs at a time.
static ANY: AtomicBool = AtomicBool::new(false);

/// Takes a mapping of an image away, as far as the machine sees it; false, and nothing is done, if that cannot wait.
pub(crate) fn postpone(address: u64, length: u64) -> bool {
    let state = state();
    let waits = IMAGES.contains(address) && state.rewind.stands() && !translate::is_on_any_stack();
    if waits {
        state.memory.unmap_later(address, length);
        heap::outside(|| state.gone.borrow_mut().push(Window { base: address, size: length }));
        ANY.store(true, Relaxed);
    }
    waits
}

/// Driver code is about to run, or something that knows nothing of this.
#[inline]
pub(crate) fn carry_out() {
    if ANY.load(Relaxed) {
        carry_out_all();
    }
}

/// Something is about to look at this address.
#[inline]
pub(crate) fn carry_out_at(address: u64) {
    if IMAGES.contains(address) {
        carry_out();
    }
}

#[cold]
#[inline(never)]
fn carry_out_all() {
    let state = state();
    heap::outside(|| {
        let all = state.gone.take();
        ANY.store(false, Relaxed);
        state.translator.flush();
        for image in all {
            state.memory.carry_out_unmap(image.base, image.size);
        }
    });
}

/// The machine was taken back to where they were there.
pub(crate) fn came_back() {
    heap::outside(|| state().gone.borrow_mut().clear());
    ANY.store(false, Relaxed);
}
