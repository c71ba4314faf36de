//! Pool of the kernel's own, as each request takes and frees some (its packet, its system buffer): found once, and in few steps.
//!
//! Whatever is wrong, or needs a page, is left to the general path of `pool`, which does and reports the same in its order.

use super::pool::{Block, Freeing, Kind, Known, Life, fill_freed, lay_small, retire_small, room, set_free};
use super::pool_check;
use crate::cx::Kernel;
use crate::ke::irql::{APC_LEVEL, DISPATCH_LEVEL};
use engine::Fill;

/// A small block that nothing is to be said about when it is freed.
pub(super) enum Plain {
    /// The kernel's own, which each request ends with: it is freed. What was written to while it was kept back, if anything was.
    Own(Option<(u64, Block)>),
    /// A driver's.
    Drivers(Known),
}

/// Frees a block of the kernel's own, or finds a driver's, if it is small and in order. None: something is wrong;
/// the full check, made in its order, reports what.
pub(super) fn free_or_find(k: &mut Kernel, address: u64, tag: Option<u32>) -> Option<Plain> {
    if k.ps.quota.is_charged(address) {
        return None;
    }
    let known = k.mm.pool.find(address)?;
    let engine = k.engine;
    let block = k.mm.pool.known(known);
    if block.allocator.is_driver() {
        let named = tag.is_none_or(|tag| tag == block.tag);
        return (named && is_drivers_free_to_go(k, known, block)).then_some(Plain::Drivers(known));
    }
    let plain = tag.is_none() && !engine.is_checked() && is_free_to_go(k, known);
    plain.then(|| Plain::Own(engine.unattributed(|| retire_small(k, known, Freeing::NONE))))
}

/// As [`is_free_to_go`], of a driver's.
#[inline]
fn is_drivers_free_to_go(k: &Kernel, known: Known, block: &Block) -> bool {
    let highest = if block.kind == Kind::Paged { APC_LEVEL } else { DISPATCH_LEVEL };
    block.life == Life::Live
        && block.small()
        && k.level() <= highest
        && pool_check::guards_hold(k.engine, known.address, block.bytes)
        && (pool_check::is_nothing_anywhere(k) || !pool_check::is_anything_in(k, known.address, block.bytes))
}

/// Whether nothing is to be said about freeing this small block of the kernel's own, at this level and in a machine that is not checked.
#[inline]
fn is_free_to_go(k: &Kernel, known: Known) -> bool {
    are_free_to_go(k, [known])
}

/// The same of several.
#[inline]
pub(crate) fn are_free_to_go<const N: usize>(k: &Kernel, blocks: [Known; N]) -> bool {
    let unused = pool_check::is_nothing_anywhere(k);
    let is_one = |known: Known| {
        let block = k.mm.pool.known(known);
        let own = block.life == Life::Live
            && !block.allocator.is_driver()
            && block.kind != Kind::Paged
            && block.small();
        own && pool_check::guards_hold(k.engine, known.address, block.bytes)
            && (unused || !pool_check::is_anything_in(k, known.address, block.bytes))
    };
    k.level() <= DISPATCH_LEVEL && blocks.into_iter().all(is_one)
}

/// Two small nonpaged blocks of the kernel's own, by bytes and tag, that were free places before, as one allocation after the other
/// would find them: zeroed. None if either would need a page; nothing is taken then.
#[inline]
pub(crate) fn take_two(k: &mut Kernel, first: (u64, u32), second: Option<(u64, u32)>) -> Option<[Known; 2]> {
    let shelf = k.mm.pool.own_shelf();
    let one = shelf.take(room(first.0))?;
    let two = match second.map(|second| shelf.take(room(second.0))) {
        None => one,
        Some(Some(two)) => two,
        Some(None) => {
            shelf.take_back(room(first.0), one);
            return None;
        }
    };
    begin_own(k, one, first);
    if let Some(second) = second {
        begin_own(k, two, second);
    }
    Some([one, two])
}

#[inline]
fn begin_own(k: &mut Kernel, known: Known, (bytes, tag): (u64, u32)) {
    *k.mm.pool.known_mut(known) = Block::own(bytes, tag);
    lay_small(k, known.address, bytes, Fill::of(0));
}

/// Fills a block of the kernel's own that is freed, and keeps it back. Where the oldest one kept back lies, if that was written to.
pub(crate) fn retire_own(k: &mut Kernel, known: Known, freed: Freeing) -> Option<u64> {
    let block = k.mm.pool.known_mut(known);
    (block.life, block.freed) = (Life::Freed, freed);
    let room = block.room();
    let oldest = k.mm.pool.own_quarantine.keep(known);
    fill_freed(k, known.address, room);
    oldest.and_then(|oldest| set_free(k, oldest))
}
