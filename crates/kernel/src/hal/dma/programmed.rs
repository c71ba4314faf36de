//! What a driver tells its device of a buffer that is mapped in several pieces: the address of one and the length of the whole make it go on behind that
//! piece, over what is others'.
//!
//! Pages: *PGET_SCATTER_GATHER_LIST callback function*, *PMAP_TRANSFER callback function* ("the Length … indicates how many bytes were mapped"). Which of a card's
//! registers takes what is not known: a number that is a piece's address counts as one, and one that is as many bytes as are left of the whole as its length. A
//! device that was given a second address, or the piece's own length in bytes or words, may do with the whole what it likes: that is no finding.

use super::By;
use crate::cx::Cx;
use crate::hal::hardware::Width;
use crate::verdict::Verdict;

/// Pieces of buffers that are mapped in several.
#[derive(Default)]
pub(crate) struct Programmed {
    pieces: Vec<Piece>,
}

struct Piece {
    /// Of its map registers.
    base: u64,
    logical: u64,
    bytes: u64,
    /// What is left of the whole from it on.
    left: u64,
    is_named: bool,
    /// The device was given that length.
    given_whole: Option<By>,
    /// It was given the piece's own.
    given_own: bool,
}

impl Programmed {
    /// A buffer was mapped, or as much of it as was mapped at once: where its pieces are for the device, and how long; and how much was asked for.
    pub(super) fn mapped(&mut self, base: u64, pieces: impl Iterator<Item = (u64, u64)> + Clone, asked: u64) {
        if pieces.clone().next().is_none_or(|(_, first)| first >= asked) {
            return;
        }
        let mut left = asked;
        for (logical, bytes) in pieces {
            let piece =
                Piece { base, logical, bytes, left, is_named: false, given_whole: None, given_own: false };
            self.pieces.push(piece);
            left = left.saturating_sub(bytes);
        }
    }
}

/// A driver writes to a register.
#[inline]
pub(in super::super) fn written(cx: &mut Cx<'_>, width: Width, value: u64) {
    if !cx.with(|k| k.hal.dma.programmed.pieces.is_empty()) {
        note(cx, width, value);
    }
}

#[cold]
fn note(cx: &mut Cx<'_>, width: Width, value: u64) {
    let by = By::now(cx);
    let is_address = |logical: u64| match width {
        Width::Qword => value == logical,
        Width::Dword => value != 0 && value == logical & u64::from(u32::MAX),
        Width::Byte | Width::Word => false,
    };
    cx.with(|k| {
        for piece in &mut k.hal.dma.programmed.pieces {
            let (own, units) = (piece.bytes, [1, 2, 4, 8]);
            if units.iter().any(|unit| value == own / unit) || value == own - 1 {
                piece.given_own = true;
            } else if value == piece.left && piece.left > own {
                piece.given_whole.get_or_insert(by);
            } else if is_address(piece.logical) {
                piece.is_named = true;
            }
        }
    });
}

/// What these map registers map is given back: whether the device was given one piece as the whole.
pub(super) fn judge(cx: &mut Cx<'_>, base: u64) {
    let pieces: Vec<Piece> =
        cx.with(|k| k.hal.dma.programmed.pieces.extract_if(.., |piece| piece.base == base).collect());
    let mut named = pieces.iter().filter(|piece| piece.is_named);
    let (Some(piece), None) = (named.next(), named.next()) else { return };
    let &Piece { logical, bytes, left, given_whole: Some(by), given_own: false, .. } = piece else { return };
    let message = format!(
        "the device was given the address {logical:#x}, where {bytes:#x} bytes of the buffer are mapped, and the length {left:#x}, which the whole has from there on: it goes on behind them, over what is others'"
    );
    cx.report(Verdict::warning("dma-length-of-whole", message).related("written", by.moment));
}
