//! Paged and nonpaged pool.
//!
//! Pages: *ExAllocatePool2 function*, *ExAllocatePoolWithTag function*, *ExFreePoolWithTag function*. Blocks up to a page
//! lie between guard bytes and never cross a page; larger ones have pages of their own, begin at a page and end before
//! an unmapped one; in special pool, all do. Freed blocks are filled and kept back, so that a stale pointer reads as DDh or faults. Lookaside lists
//! and quotas are not here.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;

use abi::DriverPtr;
use engine::windows::PAGE;
use engine::{Fill, Flow, Protection};

use super::map::{self, Page};
use super::memory;
use super::physical::Limits;
use super::pool_check;
use super::pool_own::{Plain, free_or_find, retire_own};
use super::shadow;
use super::space::Zone;
use super::special_pool::{self, Side, Special};
use crate::address_map::AddressMap;
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind as EventKind};
use crate::ke::free_check;
use crate::ps::quota;
use crate::verdict::Tier;
use crate::witness::{self, Noted};

/// Whose pages: paged memory may be away at DISPATCH_LEVEL and above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `NonPagedPool`, `NonPagedPoolNx`.
    NonPaged,
    /// `NonPagedPoolExecute`.
    NonPagedExecute,
    /// `PagedPool`.
    Paged,
}

impl Kind {
    pub(super) const fn zone(self) -> Zone {
        match self {
            Self::NonPaged | Self::NonPagedExecute => Zone::NonPagedPool,
            Self::Paged => Zone::PagedPool,
        }
    }

    pub(super) const fn page(self) -> Page {
        let execute = matches!(self, Self::NonPagedExecute);
        let protection = Protection { execute, ..Protection::READ_WRITE };
        Page { physical: 0, protection, pageable: matches!(self, Self::Paged) }
    }
}

/// Bytes of guard before and, at least, behind a small block; also its alignment.
pub(crate) const GUARD: u64 = 16;
/// What guards hold.
pub(crate) const GUARD_FILL: u8 = 0xFB;
/// What a freed block holds.
pub(crate) const FREED_FILL: u8 = 0xDD;
/// Bytes of a cache line.
const CACHE_LINE: u64 = 64;
/// Freed small blocks that are kept back.
const QUARANTINE: usize = 1024;
/// Freed small blocks of the kernel's own (packets and system buffers of requests) that are kept back: fewer, because each
/// request makes and frees some, and memory that comes round late is cold.
pub(super) const OWN_QUARANTINE: usize = 32;
/// What the host needs to remember each place of a small block, which counts as the machine's memory: a driver decides how many there are.
const KNOWN_OF_BLOCK: u64 = 128;
/// Freed large blocks that are remembered.
const REMEMBERED: usize = 1024;

/// One block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) kind: Kind,
    /// As asked for.
    pub(crate) bytes: u64,
    pub(crate) tag: u32,
    pub(crate) allocator: Allocator,
    /// Begins at a cache line.
    pub(crate) cache_aligned: bool,
    /// It lies in special pool, at this side of its page.
    pub(crate) special: Option<Side>,
    pub(crate) life: Life,
    /// The moment of its allocation.
    pub(crate) allocated: u64,
    /// How it was freed, if it was.
    pub(crate) freed: Freeing,
}

/// A block is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Freeing {
    /// The moment; of the kernel's own, in a checked machine only.
    pub(crate) at: Noted,
    /// Return address of the call, noted in a checked machine; 0 for the kernel's own.
    pub(crate) by: u64,
}

impl Freeing {
    /// It is not freed, or nothing is noted of it.
    pub(crate) const NONE: Self = Self { at: Noted::NONE, by: 0 };

    /// It is freed now, and `noted`: a driver's block is.
    #[inline]
    fn now(cx: &mut Cx<'_>, noted: bool) -> Self {
        let is_checked = cx.engine().is_checked();
        let at = if noted {
            witness::moment(cx).into()
        } else if is_checked {
            cx.next_event().into()
        } else {
            Noted::NONE
        };
        Self { at, by: if is_checked { caller(cx).1 } else { 0 } }
    }
}

/// Who has allocated a block: two words, which pass in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allocator {
    /// Base of the image that the block belongs to; none: the kernel.
    image: Option<NonZeroU64>,
    /// Return address of the call, 0 for the kernel.
    pub(crate) caller: u64,
}

impl Allocator {
    /// The kernel, for itself.
    const KERNEL: Self = Self { image: None, caller: 0 };

    /// Who has called the kernel.
    #[inline]
    pub(crate) fn calling(cx: &mut Cx<'_>) -> Self {
        let (image, caller) = caller(cx);
        Self { image: image.and_then(NonZeroU64::new), caller }
    }

    /// Base of the image that the block belongs to.
    pub(crate) fn image(self) -> Option<u64> {
        self.image.map(NonZeroU64::get)
    }

    /// Whether it is a driver, and not the kernel for itself.
    #[inline]
    pub(crate) const fn is_driver(self) -> bool {
        self.image.is_some()
    }
}

/// What has become of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It is allocated.
    Live,
    /// It is freed, and remembered as such.
    Freed,
    /// It is forgotten: only its place is left.
    Forgotten,
}

impl Block {
    /// A nonpaged one of the kernel's own.
    pub(super) const fn own(bytes: u64, tag: u32) -> Self {
        Request::own(Kind::NonPaged, bytes, tag).block(Allocator::KERNEL, None, 0)
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.life == Life::Freed
    }

    /// Whether it shares a page with others.
    pub(crate) const fn small(&self) -> bool {
        is_small(self.bytes, self.cache_aligned, self.special)
    }

    const fn shelf(&self) -> usize {
        shelf(self.kind, self.cache_aligned)
    }

    /// As [`room`].
    #[inline]
    pub(crate) fn room(&self) -> u64 {
        room(self.bytes)
    }

    /// The same, to the next address that a block may begin at.
    pub(super) fn aligned_room(&self) -> u64 {
        if self.cache_aligned { self.room().next_multiple_of(CACHE_LINE) } else { self.room() }
    }

    pub(crate) fn pages(&self) -> u64 {
        self.bytes.max(1).div_ceil(PAGE)
    }

    /// What is the block's own if it begins at `address`, with what guards it: its pages, or the guards of a small one.
    pub(crate) fn extent(&self, address: u64) -> Range<u64> {
        if self.small() {
            return address - GUARD..address + self.room() + GUARD;
        }
        let base = address & !(PAGE - 1);
        base..base + self.pages() * PAGE
    }
}

/// Bytes between the guards of a small block: what was asked for, up to the alignment.
#[inline]
pub(super) fn room(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(GUARD)
}

/// Whether such a block shares a page with others.
const fn is_small(bytes: u64, cache_aligned: bool, special: Option<Side>) -> bool {
    special.is_none() && bytes <= PAGE - offset(0, cache_aligned) - GUARD
}

/// Where a small block may begin in a page of which `used` bytes are taken.
const fn offset(used: u64, cache_aligned: bool) -> u64 {
    if cache_aligned { (used + GUARD).next_multiple_of(CACHE_LINE) } else { used + GUARD }
}

/// Where places for small blocks are: of [`State::shelves`].
const fn shelf(kind: Kind, cache_aligned: bool) -> usize {
    kind as usize * 2 + cache_aligned as usize
}

/// Places for small blocks of one kind and alignment.
#[derive(Default)]
pub(super) struct Shelf {
    /// Free ones, by room in units of [`GUARD`].
    free: Vec<VecDeque<Known>>,
    /// The page that places are being cut from, and how much of it is used.
    open: Option<(u64, u64)>,
}

impl Shelf {
    pub(super) fn take(&mut self, room: u64) -> Option<Known> {
        self.free.get_mut(usize_of(room / GUARD))?.pop_front()
    }

    /// One that was taken is free again, and the first to be taken.
    #[cold]
    pub(super) fn take_back(&mut self, room: u64, place: Known) {
        self.free[usize_of(room / GUARD)].push_front(place);
    }

    fn give(&mut self, room: u64, place: Known) {
        let index = usize_of(room / GUARD);
        if self.free.len() <= index {
            self.free.resize_with(index + 1, VecDeque::new);
        }
        self.free[index].push_back(place);
    }
}

/// Small blocks that were freed and are kept back: `N`.
#[derive(Default)]
pub(super) struct Quarantine<const N: usize> {
    /// Once it is full, a ring.
    ring: Vec<Known>,
    /// Where the next one goes; there the oldest is.
    next: usize,
}

impl<const N: usize> Quarantine<N> {
    /// Keeps one more; the oldest goes, if it is full.
    #[inline]
    pub(super) fn keep(&mut self, freed: Known) -> Option<Known> {
        let next = self.next;
        self.next = (next + 1) % N;
        let Some(oldest) = self.ring.get_mut(next) else {
            self.ring.push(freed);
            return None;
        };
        Some(std::mem::replace(oldest, freed))
    }
}

/// Where a small block lies, and the number of its record: with both no search is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) address: u64,
    number: u32,
}

/// All blocks.
#[derive(Default)]
pub struct State {
    /// By address; freed ones too, and what was last in a place for small ones.
    blocks: AddressMap<Block>,
    /// By [`shelf`].
    shelves: [Shelf; 6],
    quarantine: Quarantine<QUARANTINE>,
    pub(super) own_quarantine: Quarantine<OWN_QUARANTINE>,
    gone: VecDeque<u64>,
}

impl State {
    /// Where the block that begins at `address` is known; one that is forgotten, too.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<Known> {
        self.blocks.number(0, address).map(|number| Known { address, number })
    }

    /// What is known of a small block.
    #[inline]
    pub(super) fn known(&self, known: Known) -> &Block {
        self.blocks.at(known.number).expect("a small block's place stays known")
    }

    /// As [`State::known`], to change it.
    #[inline]
    pub(super) fn known_mut(&mut self, known: Known) -> &mut Block {
        self.blocks.at_mut(known.number).expect("a small block's place stays known")
    }

    /// Places for nonpaged blocks of the kernel's own.
    #[inline]
    pub(super) fn own_shelf(&mut self) -> &mut Shelf {
        &mut self.shelves[Kind::NonPaged as usize * 2]
    }

    /// The block that begins at `address`; a freed one too, while it is remembered.
    pub(crate) fn block(&self, address: u64) -> Option<&Block> {
        self.blocks.get(address).filter(|block| block.life != Life::Forgotten)
    }

    /// The block that begins last up to `address`, freed or not; looks at all of them.
    pub(crate) fn last_up_to(&self, address: u64) -> Option<(u64, &Block)> {
        self.unordered().filter(|(start, _)| *start <= address).max_by_key(|(start, _)| *start)
    }

    /// All blocks, freed ones that are remembered too, in no order that anything may depend on.
    pub(super) fn unordered(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.blocks.unordered().filter(|(_, block)| block.life != Life::Forgotten)
    }

    /// All blocks by address, freed ones that are remembered too.
    pub(crate) fn all(&self) -> Vec<(u64, Block)> {
        // Made at once for those that are forgotten, too: a list that grows leaves a copy of each size behind.
        let mut all = Vec::with_capacity(self.blocks.len());
        all.extend(self.unordered().map(|(address, block)| (address, *block)));
        all.sort_unstable_by_key(|(address, _)| *address);
        all
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) bytes: u64,
    pub(crate) tag: u32,
    pub(crate) zeroed: bool,
    pub(crate) cache_aligned: bool,
    /// By luck, its pages are contiguous.
    pub(crate) contiguous: bool,
    /// Whether it lies in special pool.
    pub(crate) special: Special,
    /// There, the side that the caller wishes.
    pub(crate) side: Option<Side>,
    /// The share of memory, as `1 / 2^n`, that it leaves to others if it needs more.
    pub(crate) spared: Option<u32>,
}

impl Request {
    /// A zeroed block of the kernel's own.
    const fn own(kind: Kind, bytes: u64, tag: u32) -> Self {
        let (zeroed, cache_aligned, contiguous) = (true, false, false);
        let (special, side, spared) = (Special::AsSet, None, None);
        Self { kind, bytes, tag, zeroed, cache_aligned, contiguous, special, side, spared }
    }

    /// What its bytes hold at first.
    const fn fill(&self) -> Fill {
        if self.zeroed { Fill::of(0) } else { Fill::FRESH }
    }

    /// The block that is asked for, as it is when it is allocated at this moment.
    #[inline]
    const fn block(&self, allocator: Allocator, special: Option<Side>, allocated: u64) -> Block {
        let Self { kind, bytes, tag, cache_aligned, .. } = *self;
        let (life, freed) = (Life::Live, Freeing::NONE);
        Block { kind, bytes, tag, allocator, cache_aligned, special, life, allocated, freed }
    }
}

/// Allocates for the kernel itself: zeroed, 16-byte aligned; null if there is no memory.
///
/// # Errors
/// None today; what allocates may come to stop the machine.
pub fn allocate<T>(cx: &mut Cx<'_>, kind: Kind, bytes: u64, tag: u32) -> Flow<DriverPtr<T>> {
    let request = Request::own(kind, bytes, tag);
    Ok(DriverPtr::new(allocate_block(cx, &request, Allocator::KERNEL).unwrap_or(0)))
}

/// As [`allocate`], a packet that a driver has asked for: nonpaged, and where its own blocks lie.
///
/// # Errors
/// As [`allocate`].
pub(crate) fn allocate_packet<T>(cx: &mut Cx<'_>, bytes: u64, tag: u32) -> Flow<DriverPtr<T>> {
    let request = Request { special: Special::OwnAsSet, ..Request::own(Kind::NonPaged, bytes, tag) };
    Ok(DriverPtr::new(allocate_block(cx, &request, Allocator::KERNEL).unwrap_or(0)))
}

/// Allocates what the calling driver will have to free (as `RtlAnsiStringToUnicodeString` does for it): zeroed; null if
/// there is no memory.
///
/// # Errors
/// As [`allocate`].
pub fn allocate_for_caller<T>(cx: &mut Cx<'_>, kind: Kind, bytes: u64, tag: u32) -> Flow<DriverPtr<T>> {
    let (request, allocator) = (Request::own(kind, bytes, tag), Allocator::calling(cx));
    Ok(DriverPtr::new(allocate_block(cx, &request, allocator).unwrap_or(0)))
}

/// The image that called the kernel, and its return address.
pub(crate) fn caller(cx: &mut Cx<'_>) -> (Option<u64>, u64) {
    match cx.engine().caller() {
        Some(caller) => (cx.with(|k| crate::ldr::image_containing(k, caller.rip)), caller.rip),
        None => (None, 0),
    }
}

/// Frees what `allocate` gave, with the checks of `ExFreePool`. Null is the caller's mistake as any wrong address is.
///
/// # Errors
/// A verdict if the block is none, is freed already, or its guards are damaged.
pub fn free<T>(cx: &mut Cx<'_>, block: DriverPtr<T>) -> Flow<()> {
    free_block(cx, block.address, None)
}

/// A tag from its four characters, as they appear in memory.
#[must_use]
pub const fn tag(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

/// A tag as people read it.
#[must_use]
pub fn tag_text(tag: u32) -> String {
    let printable = |byte: u8| if (0x20..0x7F).contains(&byte) { char::from(byte) } else { '.' };
    tag.to_le_bytes().into_iter().map(printable).collect()
}

pub(crate) fn allocate_block(cx: &mut Cx<'_>, request: &Request, allocator: Allocator) -> Option<u64> {
    let moment = if allocator.is_driver() { witness::moment(cx) } else { 0 };
    let Some(address) = cx.with(|k| take(k, request, allocator, moment)) else {
        memory::tell(cx);
        return None;
    };
    if allocator.is_driver() && cx.count_event(EventKind::Allocated) {
        let paged = request.kind == Kind::Paged;
        cx.emit(Event::Allocated { address, bytes: request.bytes, tag: request.tag, paged });
    }
    Some(address)
}

fn take(k: &mut Kernel, request: &Request, allocator: Allocator, allocated: u64) -> Option<u64> {
    let special = special_pool::side_of(k, request, allocator);
    // The record is written twice, in place each time: moving a freshly written record stalls on store forwarding.
    let address = match take_free(k, request, special, || request.block(allocator, special, allocated)) {
        Some(address) => address,
        None => take_new(k, request, &request.block(allocator, special, allocated))?,
    };
    k.engine.fresh(address, request.bytes);
    if k.engine.is_checked() {
        shadow::allocated(k, address, request);
    }
    Some(address)
}

/// A block that no place was free for.
#[cold]
fn take_new(k: &mut Kernel, request: &Request, block: &Block) -> Option<u64> {
    if k.mm.physical.memory.is_scarce(request.spared) {
        return None;
    }
    let fill = request.fill();
    if let Some(side) = block.special.filter(|_| block.bytes <= PAGE) {
        let address = special_pool::take(k, block, side, (fill, GUARD_FILL))?;
        k.mm.pool.blocks.insert(address, *block);
        return Some(address);
    }
    if !block.small() {
        return take_large(k, block, request.contiguous, fill);
    }
    let address = cut_small(k, block)?;
    lay_small(k, address, block.bytes, fill);
    Some(address)
}

/// The contents of a small block, between guards.
#[inline]
pub(super) fn lay_small(k: &Kernel, address: u64, bytes: u64, fill: Fill) {
    let room = room(bytes);
    let laid = match fill {
        Fill(0) => k.engine.lay::<0, GUARD_FILL>(address, bytes),
        Fill::FRESH => k.engine.lay::<{ Fill::FRESH.0 }, GUARD_FILL>(address, bytes),
        _ => false,
    };
    if laid {
        return;
    }
    guard(k, address - GUARD);
    // Whole rooms: what lies behind the bytes is a guard then.
    fill_with(k, address, room, fill);
    fill_with(k, address + bytes, room - bytes + GUARD, GUARD_FILL);
}

/// Fills pool that is mapped.
#[inline]
fn fill_with(k: &Kernel, address: u64, bytes: u64, fill: impl Into<Fill>) {
    k.engine.fill(address, bytes, fill).expect("pool pages are mapped");
}

/// Fills a freed block.
#[inline]
pub(super) fn fill_freed(k: &Kernel, address: u64, room: u64) {
    fill_with(k, address, room, FREED_FILL);
}

/// A whole guard.
#[inline]
fn guard(k: &Kernel, address: u64) {
    let word = u64::from_ne_bytes([GUARD_FILL; 8]);
    for at in [address, address + 8] {
        k.engine.write(DriverPtr::new(at), word).expect("pool pages are mapped");
    }
}

#[cold]
fn take_large(k: &mut Kernel, block: &Block, contiguous: bool, fill: Fill) -> Option<u64> {
    let address = take_pages(k, block, contiguous, fill)?;
    fill_with(k, address + block.bytes, block.pages() * PAGE - block.bytes, GUARD_FILL);
    k.mm.pool.blocks.insert(address, *block);
    Some(address)
}

/// Pages of its own for a large block.
fn take_pages(k: &mut Kernel, block: &Block, contiguous: bool, fill: Fill) -> Option<u64> {
    let (zone, pages, page) = (block.kind.zone(), block.pages(), block.kind.page());
    if !contiguous {
        return map::allocate(k, zone, pages, page, fill);
    }
    map::allocate_run(k, zone, pages, page, Limits::NONE, fill).map(|(address, _)| address)
}

/// The place of a small block that was free; the block is known from now on.
#[inline]
fn take_free(
    k: &mut Kernel,
    request: &Request,
    special: Option<Side>,
    block: impl FnOnce() -> Block,
) -> Option<u64> {
    let Request { kind, bytes, cache_aligned, .. } = *request;
    if !is_small(bytes, cache_aligned, special) {
        return None;
    }
    let free = k.mm.pool.shelves[shelf(kind, cache_aligned)].take(room(bytes))?;
    *k.mm.pool.known_mut(free) = block();
    lay_small(k, free.address, bytes, request.fill());
    Some(free.address)
}

/// The next place of a page, for a small block.
#[cold]
fn cut_small(k: &mut Kernel, block: &Block) -> Option<u64> {
    if !k.mm.physical.memory.take(KNOWN_OF_BLOCK) {
        return None;
    }
    let (shelf, room) = (block.shelf(), block.room());
    let begin = |used| offset(used, block.cache_aligned);
    let end = |used| begin(used) + room + GUARD;
    let (page, used) = match k.mm.pool.shelves[shelf].open {
        Some((page, used)) if end(used) <= PAGE => (page, used),
        _ => (map::allocate(k, block.kind.zone(), 1, block.kind.page(), Fill::of(GUARD_FILL))?, 0),
    };
    k.mm.pool.shelves[shelf].open = Some((page, end(used)));
    let address = page + begin(used);
    k.mm.pool.blocks.insert(address, *block);
    Some(address)
}

/// Frees a block; `tag` is what the caller says it was allocated with.
pub(crate) fn free_block(cx: &mut Cx<'_>, address: u64, tag: Option<u32>) -> Flow<()> {
    match cx.with(|k| free_or_find(k, address, tag)) {
        Some(Plain::Own(damaged)) => check_quarantined(cx, damaged),
        Some(Plain::Drivers(known)) => free_plainly(cx, known),
        None => free_in_full(cx, address, tag),
    }
}

/// Frees a driver's small block that nothing is to be said about.
fn free_plainly(cx: &mut Cx<'_>, known: Known) -> Flow<()> {
    let freed = Freeing::now(cx, true);
    let damaged = cx.with(|k| retire_small(k, known, freed));
    if cx.count_event(EventKind::Freed) {
        cx.emit(Event::Freed { address: known.address });
    }
    check_quarantined(cx, damaged)
}

/// With all that can be said about it.
#[inline(never)]
fn free_in_full(cx: &mut Cx<'_>, address: u64, tag: Option<u32>) -> Flow<()> {
    let block = pool_check::freeable(cx, address, tag)?;
    while let Some(verdict) = cx.with(|k| free_check::in_memory(k, address, block.bytes)) {
        let verdict = verdict.of_block(&block);
        if verdict.tier != Tier::Verifier {
            return Err(cx.stop(verdict));
        }
        cx.verify(verdict)?;
        cx.with(|k| free_check::forget_locks(k, address, block.bytes));
    }
    cx.with(|k| k.ke.lock_order.forget(address, block.bytes));
    let freed = Freeing::now(cx, block.allocator.is_driver());
    let block = Block { freed, ..block };
    let retire = |cx: &mut Cx<'_>| {
        cx.with(|k| {
            if block.small() {
                let known = k.mm.pool.find(address)?;
                retire_small(k, known, freed)
            } else {
                k.engine.frees(address, block.bytes);
                retire_large(k, address, &block);
                None
            }
        })
    };
    // A driver's free counts as its store to the block, in conflict with any other user. The kernel frees its own when they are unused.
    let damaged =
        if block.allocator.is_driver() { retire(cx) } else { cx.engine().unattributed(|| retire(cx)) };
    if block.allocator.is_driver() && cx.count_event(EventKind::Freed) {
        cx.emit(Event::Freed { address });
    }
    quota::block_freed(cx, address)?;
    check_quarantined(cx, damaged)
}

/// The verdict on a block that was written to while it was kept back.
pub(crate) fn check_quarantined(cx: &mut Cx<'_>, damaged: Option<(u64, Block)>) -> Flow<()> {
    match damaged {
        Some((address, block)) => Err(pool_check::written_after_free(cx, address, &block)),
        None => Ok(()),
    }
}

/// Fills a freed block and keeps it back; the oldest one kept back becomes free, and is returned if it was written to.
pub(super) fn retire_small(k: &mut Kernel, known: Known, freed: Freeing) -> Option<(u64, Block)> {
    let pool = &mut k.mm.pool;
    let block = pool.known_mut(known);
    let room = block.room();
    let damaged = if block.allocator.is_driver() {
        (block.life, block.freed) = (Life::Freed, freed);
        let oldest = pool.quarantine.keep(known);
        fill_freed(k, known.address, room);
        oldest.and_then(|oldest| set_free(k, oldest))
    } else {
        retire_own(k, known, freed)
    };
    if k.engine.is_checked() {
        shadow::freed(k, known.address, room);
    }
    damaged.map(|damaged| after_free(k, damaged))
}

/// The place of a block that was kept back may be used again. Where that is, if it was written to.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "each request ends with two, and a call saves and restores more than it does"
)]
pub(super) fn set_free(k: &mut Kernel, oldest: Known) -> Option<u64> {
    let pool = &mut k.mm.pool;
    let known = pool.known_mut(oldest);
    known.life = Life::Forgotten;
    let (room, shelf) = (known.room(), known.shelf());
    pool.shelves[shelf].give(room, oldest);
    let touched = k.engine.is_filled(oldest.address, room, FREED_FILL) == Ok(false);
    touched.then_some(oldest.address)
}

/// The block that was there before it was set free.
#[cold]
pub(crate) fn after_free(k: &Kernel, address: u64) -> (u64, Block) {
    let block = k.mm.pool.blocks.get(address).expect("it was known until now");
    (address, Block { life: Life::Freed, ..*block })
}

fn retire_large(k: &mut Kernel, address: u64, block: &Block) {
    map::release(k, block.kind.zone(), block.extent(address).start, block.pages());
    let pool = &mut k.mm.pool;
    pool.blocks.insert(address, Block { life: Life::Freed, ..*block });
    pool.gone.push_back(address);
    if pool.gone.len() > REMEMBERED
        && let Some(oldest) = pool.gone.pop_front()
        && pool.blocks.get(oldest).is_some_and(Block::is_freed)
    {
        pool.blocks.remove(oldest);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
const fn usize_of(n: u64) -> usize {
    n as usize
}
