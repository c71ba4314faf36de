//! The allocator scope: inside it, Rust allocations go to the machine's heap at its constant address; outside, to the
//! host's.
//!
//! A block is freed where it was made, whatever the scope, because the address tells. The scope is a flag of the
//! thread, set by [`crate::Engine::inside`] and left by [`outside`]: trace sinks, policies and panic messages must not
//! leave anything behind in a machine that may be rewound under them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

use talc::{ErrOnOom, Span, Talc};

use crate::windows::HEAP;

thread_local! {
    // tidy: no heap behind it, and no destructor: safe to touch from the allocator itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct ScopedAllocator {
    machine: UnsafeCell<Talc<ErrOnOom>>,
}

// SAFETY: the machine's heap is reached only while `INSIDE` is set on the one thread that owns the live machine, or to
// free a block that this thread made there.
unsafe impl Sync for ScopedAllocator {}

#[global_allocator]
static ALLOCATOR: ScopedAllocator = ScopedAllocator { machine: UnsafeCell::new(Talc::new(ErrOnOom)) };

// SAFETY: both allocators behind it are allocators; a block goes back to the one whose range holds it.
unsafe impl GlobalAlloc for ScopedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !INSIDE.get() {
            // SAFETY: the caller's promise is the system allocator's.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: one thread, and the allocator does not call itself.
        match unsafe { (*self.machine.get()).malloc(layout) } {
            Ok(block) => block.as_ptr(),
            Err(()) => exhausted(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if HEAP.contains(block as u64) {
            // SAFETY: the block's address says that the machine's allocator made it.
            unsafe { (*self.machine.get()).free(std::ptr::NonNull::new_unchecked(block), layout) }
        } else {
            // SAFETY: and this one the system's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !HEAP.contains(block as u64) {
            // SAFETY: the block is the system allocator's, and stays there whatever the scope.
            return unsafe { System.realloc(block, layout, size) };
        }
        scope(true, || {
            // SAFETY: the caller's promise on `layout` and `size`; the block is copied as far as both reach.
            unsafe {
                let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
                moved
            }
        })
    }
}

/// Gives the machine's heap, all of it unused, to the allocator. Whatever was there is gone.
pub(crate) fn reset() {
    // SAFETY: the range is mapped and nobody holds a block of an earlier machine any more (`Engine::start`).
    unsafe {
        let machine = &mut *ALLOCATOR.machine.get();
        *machine = Talc::new(ErrOnOom);
        let span = Span::from_base_size(HEAP.base as *mut u8, usize_of(HEAP.size));
        machine.claim(span).expect("the heap window is large enough for the allocator's own data");
    }
}

/// Runs `f` with allocations going to the machine's heap (or, for `false`, to the host's); restores the scope after.
pub(crate) fn scope<R>(inside: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _restore = Restore(INSIDE.replace(inside));
    f()
}

/// Runs `f` outside the machine's heap: for sinks, policies and everything else that a rewind must not touch.
/// Driver code must not be entered from within.
pub fn outside<R>(f: impl FnOnce() -> R) -> R {
    scope(false, f)
}

/// Makes panic messages (whose backtrace allocates a lot) stay out of the machine's heap.
pub(crate) fn install_panic_hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| outside(|| previous(info))));
    });
}

fn exhausted() -> ! {
    INSIDE.set(false);
    let message =
        b"dirql: the machine's own heap is exhausted (16 GiB); this is a fault of dirql, please report it\n";
    // SAFETY: writing a constant to standard error.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    std::process::abort()
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
const fn usize_of(n: u64) -> usize {
    n as usize
}
