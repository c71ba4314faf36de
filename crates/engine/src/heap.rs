//! The allocator scope: inside it, Rust allocations go to the machine's heap at its constant address; outside, to the
//! host's.
//!
//! A block is freed where it was made, whatever the scope, because the address tells. The scope is a flag of the
//! thread, set by [`crate::Host::inside`] and left by [`outside`]: trace sinks, policies and panic messages must not
//! leave anything behind in a machine that may be rewound under them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::mm::{MprotectFlags, mprotect};
use talc::{OomHandler, Span, Talc};

use crate::arena::{self, arena, blocks};
use crate::emergency_log::{Words, say};
use crate::jail;
use crate::machine;
use crate::memory::usize_of;
use crate::small_blocks::SmallBlocks;
use crate::windows::{HEAP, PAGE, Window};

thread_local! {
    // tidy: no heap behind it, and no destructor: safe to touch from the allocator itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    // tidy: as above. Whether the live machine is this thread's.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Lets the heap grow step by step, so that what is in use stays close together.
pub(crate) struct Grow {
    /// Behind the last byte the allocator has been given; 0 if it has been given nothing yet.
    end: u64,
}

/// How far the heap grows at once.
const STEP: u64 = 1 << 20;

impl Grow {
    /// Of a heap that has been given nothing yet.
    pub(crate) const fn none() -> Self {
        Self { end: 0 }
    }

    fn end(&self) -> u64 {
        if self.end == 0 { blocks() } else { self.end }
    }
}

impl OomHandler for Grow {
    fn handle_oom(talc: &mut Talc<Self>, layout: Layout) -> Result<(), ()> {
        let end = talc.oom_handler.end();
        let asked = layout.size() as u64 + 2 * layout.align() as u64 + PAGE;
        let wanted = asked.checked_next_multiple_of(STEP).ok_or(())?;
        if wanted > HEAP.end() - end {
            return Err(());
        }
        let given = span(blocks(), end + wanted);
        open(end + wanted)?;
        // SAFETY: both lie in the part of the heap's window that is open; the first is what the allocator has already.
        unsafe {
            if end == blocks() {
                talc.claim(given)?;
            } else {
                talc.extend(span(blocks(), end), given);
            }
        }
        talc.oom_handler.end = end + wanted;
        Ok(())
    }
}

/// How much of the heap's window may be accessed, whatever the machine was taken back to.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// What of the heap's window may be accessed: no more than was ever in use, so that a stray access hits nothing.
pub(crate) fn opened() -> Window {
    Window { base: HEAP.base(), size: OPEN.load(Relaxed) }
}

/// From now on the heap's window may be accessed up to this address.
fn open(end: u64) -> Result<(), ()> {
    let now = opened();
    if end <= now.end() {
        return Ok(());
    }
    let more = Window { base: now.end(), size: end - now.end() };
    // Where written pages are found by their first fault, these are, too.
    let tracked = machine::try_state().is_some_and(|state| state.rewind.faults_are_tracked());
    let protection = if tracked { MprotectFlags::READ } else { MprotectFlags::READ | MprotectFlags::WRITE };
    // SAFETY: the range lies in the heap's window, where nothing is in use yet.
    let opened = unsafe { mprotect(more.base as *mut _, usize_of(more.size), protection) };
    OPEN.store(end - HEAP.base(), Relaxed);
    opened.map_err(drop)
}

fn span(from: u64, to: u64) -> Span {
    Span::from_base_size(from as *mut u8, usize_of(to - from))
}

/// Behind the last byte of the heap that is in use.
pub(crate) fn end() -> u64 {
    // SAFETY: a read of a plain number; the allocator is not at work while anybody asks.
    unsafe { (*arena().heap.get()).oom_handler.end() }
}

struct ScopedAllocator;

#[global_allocator]
static ALLOCATOR: ScopedAllocator = ScopedAllocator;

impl ScopedAllocator {
    /// The machine's allocator, reached only while `INSIDE` is set on the one thread that owns the live machine, or to
    /// free a block that this thread made there.
    fn machine() -> *mut Talc<Grow> {
        arena().heap.get()
    }

    /// A block where none is free. Not inlined: what it takes of registers would be saved in each call.
    ///
    /// # Safety
    /// On the thread that owns the live machine, in its scope.
    #[inline(never)]
    unsafe fn make(layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and the allocator does not call itself.
        match unsafe { (*Self::machine()).malloc(SmallBlocks::whole(layout)) } {
            Ok(block) => block.as_ptr(),
            Err(()) => exhausted(),
        }
    }

    /// Gives a block that is not small back.
    ///
    /// # Safety
    /// As [`ScopedAllocator::make`], which made the block for this layout.
    #[inline(never)]
    unsafe fn unmake(block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { (*Self::machine()).free(NonNull::new_unchecked(block), layout) }
    }
}

// SAFETY: both allocators behind it are allocators; a block goes back to the one whose range holds it.
unsafe impl GlobalAlloc for ScopedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !INSIDE.get() {
            // SAFETY: the caller's promise is the system allocator's.
            return unsafe { System.alloc(layout) };
        }
        match arena().small.take(layout) {
            Some(block) => block.as_ptr(),
            // SAFETY: `INSIDE` is set.
            None => unsafe { Self::make(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !INSIDE.get() {
            // A large table is fresh memory, which is zero as it comes: its pages are not touched before they are used.
            // SAFETY: the caller's promise is the system allocator's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise; the block is as long as its layout says.
        unsafe {
            let block = self.alloc(layout);
            block.write_bytes(0, layout.size());
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if HEAP.contains(block as u64) {
            if !OWN.get() {
                return; // it went with its machine, or goes with that of another thread
            }
            // SAFETY: the block's address says that it was made here.
            unsafe {
                if !arena().small.give(block, layout) {
                    Self::unmake(block, layout);
                }
            }
        } else {
            guard_host_block();
            // SAFETY: and this one the system's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !HEAP.contains(block as u64) {
            guard_host_block();
            // SAFETY: the block is the system allocator's, and stays there whatever the scope.
            return unsafe { System.realloc(block, layout, size) };
        }
        if SmallBlocks::fits(layout, size) && OWN.get() {
            return block;
        }
        // Of a machine that has ended, or of another thread's: it goes on where this thread may have it.
        scope(OWN.get(), || {
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

/// A block of the host's is freed or moved. From inside a machine that can be taken back that would happen once more after
/// each time it is: the value was made outside and taken along. Where debug assertions are on, that ends the process.
fn guard_host_block() {
    if cfg!(debug_assertions) && INSIDE.get() && machine::is_explored() {
        INSIDE.set(false);
        say(&[Words::Text(
            "a value from outside the machine is dropped or grown inside one that is explored",
        )]);
        std::process::abort()
    }
}

/// Begins a heap of which nothing is used. Whatever was there is gone.
pub(crate) fn reset() {
    OPEN.store(0, Relaxed);
    open(blocks()).expect("the host opens a page that it has reserved");
    arena::lay();
    // SAFETY: the record was just written, and no block of an earlier machine is in use any more.
    let claimed = unsafe { Grow::handle_oom(&mut *ScopedAllocator::machine(), Layout::new::<u64>()) };
    claimed.expect("the heap window is large enough for the allocator's own data");
    OWN.set(true);
}

/// Ends the heap, if this thread has one. What still refers to it can be read and dropped until the next machine begins, and frees
/// nothing: a request that an application's side has forgotten outlives its machine so.
pub(crate) fn close() {
    OWN.set(false);
}

/// Whether allocations go to the machine's heap now.
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
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
        std::panic::set_hook(Box::new(move |info| outside(|| jail::telling(|| previous(info)))));
    });
}

fn exhausted() -> ! {
    INSIDE.set(false);
    say(&[Words::Text("the machine's own heap is exhausted (16 GiB)")]);
    std::process::abort()
}
