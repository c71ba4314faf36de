//! Pages by lines of 64 bytes, as the host's caches have them. Of most pages that a machine writes to only a few lines change:
//! to compare all and copy those is faster than to copy all, which would have to be written back from the caches.

/// Some lines of a page: bit `n` is for the one that begins at byte `64 n`.
pub(super) type Lines = u64;
/// A line.
pub(super) type Line = [u64; 8];
/// A page.
pub(super) type Page = [Line; 64];

/// Where two pages differ.
#[inline]
pub(super) fn differing(one: &Page, other: &Page) -> Lines {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { differing_avx2(one, other) };
    }
    differing_anywhere(one, other)
}

/// With half the loads.
#[target_feature(enable = "avx2")]
fn differing_avx2(one: &Page, other: &Page) -> Lines {
    differing_anywhere(one, other)
}

#[inline(always)]
fn differing_anywhere(one: &Page, other: &Page) -> Lines {
    let mut lines = 0;
    for (number, (one, other)) in one.chunks_exact(4).zip(other.chunks_exact(4)).enumerate() {
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
