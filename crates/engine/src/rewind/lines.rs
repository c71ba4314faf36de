//! Pages by lines of 64 bytes, as the host's caches have them. Of most pages that a machine writes to only a few lines change:
//! to compare all and copy those is faster than to copy all, which would have to be written back from the caches.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Some lines of a page: bit `n` is for the one that begins at byte `64 n`.
pub(super) type Lines = u64;
/// A line.
pub(super) type Line = [u64; 8];
/// A page.
pub(super) type Page = [Line; 64];

/// Where two pages differ. `next` are the two that are compared next: what the host's caches have not is fetched meanwhile, which
/// they do not do by themselves beyond the end of a page.
#[inline]
pub(super) fn differing(one: &Page, other: &Page, next: [*const u8; 2]) -> Lines {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { differing_avx2(one, other, next) };
    }
    differing_anywhere(one, other, next)
}

/// With half the loads.
#[target_feature(enable = "avx2")]
fn differing_avx2(one: &Page, other: &Page, next: [*const u8; 2]) -> Lines {
    differing_anywhere(one, other, next)
}

#[inline(always)]
fn differing_anywhere(one: &Page, other: &Page, next: [*const u8; 2]) -> Lines {
    let mut lines = 0;
    for (number, (one, other)) in one.chunks_exact(4).zip(other.chunks_exact(4)).enumerate() {
        for line in 4 * number..4 * number + 4 {
            for page in next {
                // SAFETY: a hint, which may name any address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(page.wrapping_add(64 * line).cast()) };
            }
        }
        let words = one.as_flattened().iter().zip(other.as_flattened());
        if words.fold(0, |difference, (one, other)| difference | (one ^ other)) != 0 {
            for (within, (one, other)) in one.iter().zip(other).enumerate() {
                lines |= Lines::from(one != other) << (4 * number + within);
            }
        }
    }
    lines
}

/// Copies some lines.
#[inline]
pub(super) fn copy(from: &Page, to: &mut Page, lines: Lines) {
    for number in numbers(lines) {
        to[number] = from[number];
    }
}

/// The lines' numbers, in order.
#[inline]
pub(super) fn numbers(mut lines: Lines) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = lines.trailing_zeros();
        (number < Lines::BITS).then(|| {
            lines &= lines - 1;
            number as usize
        })
    })
}
