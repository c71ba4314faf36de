//! A buffer as its MDL has it, page by page, and in runs that a device can take at once.
//!
//! Pages: *Using MDLs*, *PMAP_TRANSFER callback function*. A run is physically contiguous, or it is copied to memory that is.

use abi::{DriverPtr, MDL, MDL_PAGES_LOCKED, MDL_PARTIAL, MDL_SOURCE_IS_NONPAGED_POOL};
use engine::Flow;
use engine::windows::PAGE;

use super::DMA_VIOLATION;
use crate::cx::Cx;
use crate::few::Few;
use crate::mm::mdl;
use crate::verdict::Verdict;

/// More MDLs than any chain has.
const MOST_CHAINED: u32 = 1 << 16;

/// Bytes within one page.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Piece {
    pub(super) physical: u64,
    pub(super) bytes: u64,
}

/// What a device can take at once.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) pieces: Few<Piece, 1>,
    /// Not contiguous, or beyond what the device reaches: only as a copy.
    pub(super) is_copied: bool,
}

impl Run {
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }
}

/// The pieces of `length` bytes from `va` on, which lies in the first MDL; those behind it follow if `is_chain`. None if the MDLs end
/// before that.
pub(super) fn of(
    cx: &mut Cx<'_>,
    name: &str,
    mdl: DriverPtr<MDL>,
    (va, length): (u64, u64),
    is_chain: bool,
) -> Flow<Option<Vec<Piece>>> {
    if length == 0 {
        return Ok(Some(Vec::new()));
    }
    let (start, count) = mdl::buffer(cx, mdl)?;
    if va.wrapping_sub(start) >= count || start.checked_add(count).is_none() {
        let message = format!(
            "{name} was given the address {va:#x}, which is not in its MDL: that has {count:#x} bytes at {start:#x}"
        );
        let verdict = Verdict::error("dma-outside-mdl", message);
        return Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x1B, va, start, count])));
    }
    let (mut pieces, mut left, mut at, mut mdl) = (Vec::new(), length, va, mdl);
    for _ in 0..MOST_CHAINED {
        left = add(cx, name, mdl, (at, left), &mut pieces)?;
        if left == 0 {
            return Ok(Some(pieces));
        }
        mdl = cx.read(mdl + MDL::Next)?;
        if !is_chain || mdl.is_null() {
            return Ok(None);
        }
        at = mdl::buffer(cx, mdl)?.0;
    }
    Err(cx.stop(Verdict::endless_list("MDL.Next", mdl.address)))
}

/// As [`of`], from an offset on into what a chain of MDLs describes, with the address there as if all of it were one buffer that begins where
/// the first MDL's does. None if the chain ends before that.
pub(super) fn at_offset(
    cx: &mut Cx<'_>,
    name: &str,
    mdl: DriverPtr<MDL>,
    (offset, length): (u64, u64),
) -> Flow<Option<(u64, Vec<Piece>)>> {
    let first = mdl::buffer(cx, mdl)?.0;
    let (mut mdl, mut left) = (mdl, offset);
    for _ in 0..MOST_CHAINED {
        let (start, count) = mdl::buffer(cx, mdl)?;
        if left < count {
            let found = of(cx, name, mdl, (start.wrapping_add(left), length), true)?;
            return Ok(found.map(|pieces| (first.wrapping_add(offset), pieces)));
        }
        left -= count;
        mdl = cx.read(mdl + MDL::Next)?;
        if mdl.is_null() {
            return Ok(None);
        }
    }
    Err(cx.stop(Verdict::endless_list("MDL.Next", mdl.address)))
}

/// Those of one MDL; how many bytes it has not.
fn add(
    cx: &mut Cx<'_>,
    name: &str,
    mdl: DriverPtr<MDL>,
    (va, length): (u64, u64),
    pieces: &mut Vec<Piece>,
) -> Flow<u64> {
    let flags = mdl::flags(cx, mdl)?;
    if flags & (MDL_PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARTIAL) == 0 {
        let message = format!(
            "{name} was given the MDL {:#x}, whose pages are not known: it is neither locked nor built for nonpaged pool (flags {flags:#x})",
            mdl.address
        );
        let verdict = Verdict::error("dma-mdl-not-locked", message);
        return Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0xE, va, mdl.address, 0])));
    }
    let (start, count) = mdl::buffer(cx, mdl)?;
    let end = va.saturating_add(length).min(start.saturating_add(count));
    let first = (va / PAGE).wrapping_sub(start / PAGE);
    let pages = mdl::pages(cx, mdl, (first, mdl::span(va, end.saturating_sub(va))))?;
    pieces.reserve(pages.len());
    let mut at = va;
    for page in pages {
        let bytes = (PAGE - at % PAGE).min(end - at);
        pieces.push(Piece { physical: page | (at % PAGE), bytes });
        at += bytes;
    }
    Ok(length - end.saturating_sub(va))
}

/// In runs, for a device that reaches up to `mask`. If it cannot take several, it gets one.
pub(super) fn runs(pieces: Vec<Piece>, mask: u64, takes_several: bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(if takes_several { pieces.len() } else { 1 });
    for piece in pieces {
        let is_copied = piece.physical.saturating_add(piece.bytes - 1) > mask;
        let joins = |run: &&mut Run| {
            let last = run.pieces.last().map_or(0, |last| last.physical.wrapping_add(last.bytes));
            last == piece.physical && run.is_copied == is_copied
        };
        match runs.last_mut().filter(joins) {
            Some(run) => run.pieces.push(piece),
            None => runs.push(Run { pieces: Few::one(piece), is_copied }),
        }
    }
    if takes_several || runs.len() < 2 {
        return runs;
    }
    let mut pieces = Few::default();
    runs.iter().for_each(|run| pieces.extend(run.pieces.iter().copied()));
    vec![Run { pieces, is_copied: true }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_side_by_side_are_one_run_and_those_that_are_not_are_copied_for_who_takes_one() {
        let piece = |physical, bytes| Piece { physical, bytes };
        let pieces =
            vec![piece(0x1800, 0x800), piece(0x2000, 0x1000), piece(0x5000, 0x10), piece(0x1_0000_0000, 8)];
        let several = runs(pieces.clone(), 0xFFFF_FFFF, true);
        let shapes: Vec<_> =
            several.iter().map(|run| (run.pieces.len(), run.bytes(), run.is_copied)).collect();
        assert_eq!(shapes, [(2, 0x1800, false), (1, 0x10, false), (1, 8, true)]);
        let one = runs(pieces, u64::MAX, false);
        assert_eq!((one.len(), one[0].bytes(), one[0].is_copied), (1, 0x1818, true));
        let side_by_side = vec![piece(0x1800, 0x800), piece(0x2000, 0x1000)];
        assert!(!runs(side_by_side, u64::MAX, false)[0].is_copied);
    }
}
