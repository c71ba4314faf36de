//! The machine's own record, at the start of its heap: everything the engine knows of a machine that a rewind must put
//! back.
//!
//! It lies where the machine lies, so it is saved and put back with the pages around it. What the host must remember
//! whatever the machine was taken back to (translations, the file behind the memory) is in [`crate::machine::State`].

use std::cell::{OnceCell, RefCell, UnsafeCell};

use talc::Talc;

use crate::heap::Grow;
use crate::root::Root;
use crate::sharing::Behalf;
use crate::small_blocks::SmallBlocks;
use crate::strand::Strands;
use crate::translate::{Answers, Reported};
use crate::windows::{HEAP, PAGE};

/// The record.
pub(crate) struct Arena {
    /// The allocator of the heap behind this page.
    pub(crate) heap: UnsafeCell<Talc<Grow>>,
    /// What stands in front of it.
    pub(crate) small: SmallBlocks,
    pub(crate) strands: Strands,
    pub(crate) root: Root,
    pub(crate) behalf: Behalf,
    pub(crate) reported: Reported,
    /// None before [`crate::Engine::make_answers`].
    pub(crate) answers: OnceCell<Answers>,
    /// The first panic of ours that was caught at the gate.
    pub(crate) panic: RefCell<Option<String>>,
}

/// Where the heap's blocks begin.
pub(crate) fn blocks() -> u64 {
    HEAP.base() + PAGE
}

const _: () = assert!(size_of::<Arena>() as u64 <= PAGE, "the record fits its page");

/// Lays a fresh record. Whatever was there is gone, and not dropped.
pub(crate) fn lay() {
    let fresh = Arena {
        heap: UnsafeCell::new(Talc::new(Grow::none())),
        small: SmallBlocks::none(),
        strands: Strands::default(),
        root: Root::default(),
        behalf: Behalf::default(),
        reported: Reported::default(),
        answers: OnceCell::new(),
        panic: RefCell::default(),
    };
    // SAFETY: the heap's window is mapped and writable, and no reference to an earlier machine's record is left
    // (`Host::start`).
    unsafe { (HEAP.base() as *mut Arena).write(fresh) };
}

/// The live machine's record. Only after [`lay`].
///
/// Its address is the process's own (see [`crate::windows`]), and the same for all its machines.
#[inline]
pub(crate) fn arena() -> &'static Arena {
    // SAFETY: laid by `Host::start` before anybody gets here, at an address that stays mapped; one thread uses it, and
    // a rewind replaces its bytes by those of another valid record.
    unsafe { &*(HEAP.base() as *const Arena) }
}
