//! Free small blocks of the machine's heap, in lists by size: most of what the machine allocates is given back soon, and the next block of that
//! size is the one that was in use last. So it takes a few instructions, and lines that are in the host's caches and differ from the last snapshot
//! already.
//!
//! Lies in the arena, in front of the allocator, which makes these blocks and never gets them back.

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// Sizes are multiples of this, and so are addresses.
const STEP: usize = 16;
/// The largest size is so many steps.
const CLASSES: usize = 64;

/// A list of free blocks for each size; the first word of each block leads to the next.
pub(crate) struct SmallBlocks([Cell<*mut u8>; CLASSES]);

/// Which list blocks of this layout are in; none if they are not small.
#[inline]
fn class(layout: Layout) -> Option<usize> {
    let class = layout.size().wrapping_sub(1) / STEP;
    (class < CLASSES && layout.align() <= STEP).then_some(class)
}

impl SmallBlocks {
    /// No block is free.
    pub(crate) const fn none() -> Self {
        Self([const { Cell::new(ptr::null_mut()) }; CLASSES])
    }

    /// A block for this layout that is free.
    #[inline]
    pub(crate) fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        let list = &self.0[class(layout)?];
        let block = NonNull::new(list.get())?;
        // SAFETY: a block in a list is free, its first word was written by `give`, and it is aligned for that.
        list.set(unsafe { block.cast::<*mut u8>().read() });
        Some(block)
    }

    /// What the allocator is to be asked for where no block is free.
    pub(crate) fn whole(layout: Layout) -> Layout {
        // SAFETY: the alignment is a power of two, and the size far from the limit.
        class(layout)
            .map_or(layout, |class| unsafe { Layout::from_size_align_unchecked((class + 1) * STEP, STEP) })
    }

    /// Whether a block of this layout is also one of that size.
    #[inline]
    pub(crate) fn fits(layout: Layout, size: usize) -> bool {
        class(layout).is_some_and(|class| size.wrapping_sub(1) / STEP == class)
    }

    /// Keeps a block that is free now; false if it is not small.
    ///
    /// # Safety
    /// The allocator made the block for [`SmallBlocks::whole`] of this layout, and nothing refers to it.
    #[inline]
    pub(crate) unsafe fn give(&self, block: *mut u8, layout: Layout) -> bool {
        let Some(class) = class(layout) else { return false };
        // SAFETY: the block is free, a step long at the least and aligned for a word.
        unsafe { block.cast::<*mut u8>().write(self.0[class].replace(block)) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn the_block_that_was_given_last_is_taken_first_by_any_of_its_size() {
        let mut memory = [[0_u128; 2]; 2];
        let blocks = SmallBlocks::none();
        let [one, two] = memory.each_mut().map(|block| ptr::from_mut(block).cast::<u8>());
        // SAFETY: both are blocks of 32 bytes of the test's own.
        assert!(unsafe { blocks.give(one, layout(20)) && blocks.give(two, layout(32)) });
        assert_eq!(blocks.take(layout(16)), None, "a block of another size");
        assert_eq!(blocks.take(layout(17)), NonNull::new(two));
        assert_eq!(blocks.take(layout(32)), NonNull::new(one));
        assert_eq!(blocks.take(layout(32)), None);
    }

    #[test]
    fn large_and_strictly_aligned_blocks_are_the_allocators() {
        let aligned = Layout::from_size_align(64, 64).unwrap();
        for layout in [layout(1025), aligned] {
            assert_eq!(SmallBlocks::whole(layout), layout);
            assert_eq!(SmallBlocks::none().take(layout), None);
        }
        assert_eq!(SmallBlocks::whole(layout(1)), Layout::from_size_align(16, 16).unwrap());
        assert_eq!(SmallBlocks::whole(layout(1024)), Layout::from_size_align(1024, 16).unwrap());
        assert!(SmallBlocks::fits(layout(17), 32) && !SmallBlocks::fits(layout(17), 33));
        assert!(!SmallBlocks::fits(layout(17), 16) && !SmallBlocks::fits(layout(2000), 2000));
    }
}
