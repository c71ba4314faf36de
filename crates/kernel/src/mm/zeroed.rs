//! Zeroed physical pages for memory that several address spaces may show, or none yet.
//!
//! Page: *Virtual Address Spaces*. Long ranges get pages that lie side by side in pieces of 64 KiB, so that the host has an area for each
//! piece and not for each page; short ones of an application's get them scattered, as `physical` gives single pages out.

use engine::windows::PAGE;
use engine::{Fill, Protection};

use super::map::{self, Page};
use super::memory;
use super::physical::Limits;
use super::space::Zone;
use crate::cx::{Cx, Kernel};

/// Pages of a piece.
const TOGETHER: u64 = 16;

/// So many pages, in pieces; if there are not so many, none, and that is reported.
pub(super) fn take(cx: &mut Cx<'_>, count: u64) -> Option<Vec<u64>> {
    tell_if_none(cx, |k| take_pieces(k, count))
}

/// The same, no two neighbours contiguous if they are few.
pub(super) fn take_scattered(cx: &mut Cx<'_>, count: u64) -> Option<Vec<u64>> {
    tell_if_none(cx, |k| {
        if count > TOGETHER {
            return take_pieces(k, count);
        }
        let frames = k.mm.physical.take_pages(count)?;
        cleared(k, frames)
    })
}

fn tell_if_none(cx: &mut Cx<'_>, take: impl FnOnce(&mut Kernel) -> Option<Vec<u64>>) -> Option<Vec<u64>> {
    let frames = cx.with(take);
    if frames.is_none() {
        memory::tell(cx);
    }
    frames
}

fn take_pieces(k: &mut Kernel, count: u64) -> Option<Vec<u64>> {
    // Checked at once, not after all remaining pieces have been taken.
    let bytes = count.checked_mul(PAGE).filter(|bytes| k.mm.physical.memory.take(*bytes))?;
    k.mm.physical.memory.give(bytes);
    let mut frames = Vec::new();
    while let Some(left) = count.checked_sub(frames.len() as u64).filter(|left| *left > 0) {
        let pages = left.min(TOGETHER);
        match k.mm.physical.take_run(pages, Limits::NONE) {
            Some(base) => frames.extend((0..pages).map(|page| base + page * PAGE)),
            None => match k.mm.physical.take_pages(pages) {
                Some(pages) => frames.extend(pages),
                None => break,
            },
        }
    }
    if frames.len() as u64 == count {
        return cleared(k, frames);
    }
    give(k, frames);
    None
}

/// Clears pages, by a mapping of the kernel's own.
fn cleared(k: &mut Kernel, frames: Vec<u64>) -> Option<Vec<u64>> {
    let page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };
    let count = frames.len() as u64;
    if count == 0 {
        return Some(frames);
    }
    let Some(at) = map::place(k, Zone::Mappings, &frames, page) else {
        give(k, frames);
        return None;
    };
    map::clear(k.engine, at, count, Fill::of(0));
    map::remove(k, Zone::Mappings, at, count);
    Some(frames)
}

/// Gives pages back. Locked ones stay with the MDL that locked them, which outlives the addresses that it was made of.
pub(super) fn give(k: &mut Kernel, frames: impl IntoIterator<Item = u64>) {
    for frame in frames {
        if !k.mm.physical.is_locked(frame) {
            k.mm.physical.give_page(frame);
        }
    }
}
