//! Images that go while the machine can be taken back. It mostly is before anything comes to lie in their place, so what was translated from
//! them is put aside, and used again when they are back.
//!
//! One that goes while no driver code stands on any stack keeps even what the host has of it, and its translations in use, until driver
//! code runs again, or the kernel looks there: of the last one nothing has to be made anew.
//!
//! Nothing sees it: the page table says at once that they are gone, and whatever would ask the host or the translator carries it out first.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::heap;
use crate::machine::state;
use crate::memory::Relied;
use crate::translate::{self, Shelved};
use crate::windows::{IMAGES, Window};

/// Whether there is one that waits. One machine runs at a time.
static ANY: AtomicBool = AtomicBool::new(false);

/// An image that has gone.
pub(crate) struct Gone {
    range: Window,
    pages: Vec<Relied>,
    /// The frames that translations were made from; none if these may hold something else when the machine is taken back.
    frames: Option<Vec<u32>>,
}

/// An image whose translations are put aside.
pub(crate) struct Aside {
    image: Gone,
    shelved: Shelved,
}

/// Takes a mapping of an image away, as far as the machine sees it; false, and nothing is done, if that cannot wait.
pub(crate) fn postpone(address: u64, length: u64) -> bool {
    let state = state();
    let waits = IMAGES.contains(address) && state.rewind.stands() && !translate::is_on_any_stack();
    if waits {
        let image = heap::outside(|| {
            let (pages, frames) = state.memory.relied_on(address, length);
            let unchanged = frames.iter().all(|frame| state.rewind.is_unchanged(*frame));
            Gone { range: Window { base: address, size: length }, pages, frames: unchanged.then_some(frames) }
        });
        state.memory.unmap_later(address, length);
        heap::outside(|| state.gone.borrow_mut().push(image));
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

/// Something is about to be mapped there.
pub(crate) fn make_room(address: u64, length: u64) {
    carry_out_at(address);
    let overlaps =
        |aside: &Aside| aside.image.range.base < address + length && address < aside.image.range.end();
    if state().aside.borrow().iter().any(overlaps) {
        forget();
    }
}

#[cold]
#[inline(never)]
fn carry_out_all() {
    let state = state();
    heap::outside(|| {
        let all = state.gone.take();
        ANY.store(false, Relaxed);
        for image in all {
            let range = image.range;
            let shelved = image.frames.as_ref().and_then(|_| state.translator.shelve(range));
            state.memory.unwatch(range.base, range.size);
            match shelved {
                Some(shelved) => {
                    state.memory.not_translated(image.frames.as_deref().unwrap_or_default());
                    state.aside.borrow_mut().push(Aside { image, shelved });
                }
                None => forget(),
            }
            state.memory.close(range.base, range.size);
        }
    });
}

/// What is put aside will not be used again. All translations go with it: those of other images may lead to it.
pub(crate) fn forget() {
    heap::outside(|| state().aside.borrow_mut().clear());
    state().translator.flush();
}

/// The machine is about to be taken back to where they were there.
pub(crate) fn came_back() {
    heap::outside(|| state().gone.borrow_mut().clear());
    ANY.store(false, Relaxed);
}

/// Whether translations were made from this frame that are put aside. They are right for what it held at the newest snapshot, and at older
/// ones only if it held the same there.
pub(crate) fn was_translated(frame: u32) -> bool {
    let is_of = |aside: &Aside| aside.image.frames.as_ref().is_some_and(|frames| frames.contains(&frame));
    state().aside.borrow().iter().any(is_of)
}

/// The machine was taken back: what is put aside is used again.
pub(crate) fn restore() {
    let state = state();
    if state.aside.borrow().is_empty() {
        return;
    }
    let all = heap::outside(|| state.aside.take());
    let is_used = |Aside { image, shelved }: &Aside| {
        let frames = image.frames.as_deref().unwrap_or_default();
        state.memory.rely_again(&image.pages, frames) && state.translator.put_back(shelved)
    };
    if !heap::outside(|| all.iter().all(is_used)) {
        state.translator.flush();
    }
    heap::outside(|| drop(all));
}
