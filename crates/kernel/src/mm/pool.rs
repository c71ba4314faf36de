//! Paged and nonpaged pool.
//!
//! Pages: *ExAllocatePool2 function*, *ExAllocatePoolWithTag function*, *ExFreePoolWithTag function*. Blocks up to a page
//! lie between guard bytes and never cross a page; larger ones have pages of their own, begin at a page and end before
//! an unmapped one. Freed blocks are filled and kept back, so that a stale pointer reads as DDh or faults. Lookaside and
//! quota accounting are not here.

use std::collections::{BTreeMap, VecDeque};

use abi::DriverPtr;
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::map::{self, Page};
use super::physical::Limits;
use super::pool_check;
use super::space::Zone;
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::ke::leftover;

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
    const fn zone(self) -> Zone {
        match self {
            Self::NonPaged | Self::NonPagedExecute => Zone::NonPagedPool,
            Self::Paged => Zone::PagedPool,
        }
    }

    const fn page(self) -> Page {
        let execute = matches!(self, Self::NonPagedExecute);
        let protection = Protection { execute, ..Protection::READ_WRITE };
        Page { physical: 0, protection, pageable: matches!(self, Self::Paged) }
    }
}

/// Bytes of guard before and, at least, behind a small block; also its alignment.
pub(crate) const GUARD: u64 = 16;
/// What guards hold.
pub(crate) const GUARD_FILL: u8 = 0xFB;
/// What a driver finds in a block it has not written to, if it did not ask for zeroes.
const FRESH_FILL: u8 = 0xCD;
/// What a freed block holds.
pub(crate) const FREED_FILL: u8 = 0xDD;
/// Bytes of a cache line.
const CACHE_LINE: u64 = 64;
/// Freed small blocks that are kept back.
const QUARANTINE: usize = 1024;
/// Freed large blocks that are remembered.
const REMEMBERED: usize = 1024;

/// One block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) kind: Kind,
    /// As asked for.
    pub(crate) bytes: u64,
    pub(crate) tag: u32,
    /// Base of the image it belongs to; none: the kernel's own.
    pub(crate) owner: Option<u64>,
    /// Return address of the call that allocated it, 0 for the kernel's own.
    pub(crate) caller: u64,
    /// Begins at a cache line.
    pub(crate) cache_aligned: bool,
    pub(crate) freed: bool,
}

impl Block {
    /// Whether it shares a page with others.
    pub(crate) const fn small(&self) -> bool {
        self.bytes <= PAGE - self.offset(0) - GUARD
    }

    /// Where it may begin in a page of which `used` bytes are taken.
    const fn offset(&self, used: u64) -> u64 {
        if self.cache_aligned { (used + GUARD).next_multiple_of(CACHE_LINE) } else { used + GUARD }
    }

    const fn shelf(&self) -> Shelf {
        (self.kind as u8, self.cache_aligned)
    }

    /// Bytes between its guards: what was asked for, up to the alignment.
    fn room(&self) -> u64 {
        self.bytes.max(1).next_multiple_of(GUARD)
    }

    fn pages(&self) -> u64 {
        self.bytes.div_ceil(PAGE)
    }
}

/// What pages of small blocks have in common: kind and alignment.
type Shelf = (u8, bool);

/// All blocks.
#[derive(Default)]
pub struct State {
    /// By address; freed ones too, while they are remembered.
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// Places for small blocks, by room.
    free: BTreeMap<(Shelf, u64), VecDeque<u64>>,
    /// The page that small blocks are being cut from, and how much of it is used.
    open: BTreeMap<Shelf, (u64, u64)>,
    quarantine: VecDeque<u64>,
    gone: VecDeque<u64>,
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
    pub(crate) owner: Option<u64>,
    pub(crate) caller: u64,
}

impl Request {
    /// A zeroed block of the kernel's own.
    const fn own(kind: Kind, bytes: u64, tag: u32) -> Self {
        let (zeroed, cache_aligned, contiguous) = (true, false, false);
        Self { kind, bytes, tag, zeroed, cache_aligned, contiguous, owner: None, caller: 0 }
    }
}

/// Allocates for the kernel itself: zeroed, 16-byte aligned; null if there is no memory.
///
/// # Errors
/// None today; what allocates may come to stop the machine.
pub fn allocate<T>(cx: &mut Cx<'_>, kind: Kind, bytes: u64, tag: u32) -> Flow<DriverPtr<T>> {
    Ok(DriverPtr::new(allocate_block(cx, &Request::own(kind, bytes, tag)).unwrap_or(0)))
}

/// Allocates what the calling driver will have to free (as `RtlAnsiStringToUnicodeString` does for it): zeroed; null if
/// there is no memory.
///
/// # Errors
/// As [`allocate`].
pub fn allocate_for_caller<T>(cx: &mut Cx<'_>, kind: Kind, bytes: u64, tag: u32) -> Flow<DriverPtr<T>> {
    let (owner, caller) = caller(cx);
    let request = Request { owner, caller, ..Request::own(kind, bytes, tag) };
    Ok(DriverPtr::new(allocate_block(cx, &request).unwrap_or(0)))
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

pub(crate) fn allocate_block(cx: &mut Cx<'_>, request: &Request) -> Option<u64> {
    let address = cx.with(|k| take(k, request))?;
    if request.owner.is_some() {
        let paged = request.kind == Kind::Paged;
        cx.emit(Event::Allocated { address, bytes: request.bytes, tag: request.tag, paged });
    }
    Some(address)
}

fn take(k: &mut Kernel, request: &Request) -> Option<u64> {
    let Request { kind, bytes, tag, owner, caller, cache_aligned, .. } = *request;
    let block = Block { kind, bytes, tag, owner, caller, cache_aligned, freed: false };
    let fill = if request.zeroed { 0 } else { FRESH_FILL };
    let address = if block.small() {
        let address = take_small(k, &block)?;
        let room = usize_of(block.room());
        let mut contents = vec![GUARD_FILL; room + usize_of(2 * GUARD)];
        contents[usize_of(GUARD)..][..usize_of(bytes)].fill(fill);
        k.engine.write_bytes(address - GUARD, &contents).expect("pool pages are mapped");
        address
    } else {
        let address = take_pages(k, &block, request.contiguous, fill)?;
        let tail = vec![GUARD_FILL; usize_of(block.pages() * PAGE - bytes)];
        k.engine.write_bytes(address + bytes, &tail).expect("pool pages are mapped");
        address
    };
    k.mm.pool.blocks.insert(address, block);
    Some(address)
}

/// Pages of its own for a large block.
fn take_pages(k: &mut Kernel, block: &Block, contiguous: bool, fill: u8) -> Option<u64> {
    let (zone, pages, page) = (block.kind.zone(), block.pages(), block.kind.page());
    if !contiguous {
        return map::allocate(k, zone, pages, page, fill);
    }
    let (address, _) = map::allocate_run(k, zone, pages, page, Limits::NONE)?;
    let contents = vec![fill; usize_of(pages * PAGE)];
    k.engine.write_bytes(address, &contents).expect("pool pages are mapped");
    Some(address)
}

/// A place for a small block: one that was free, or the next of a page.
fn take_small(k: &mut Kernel, block: &Block) -> Option<u64> {
    let (shelf, room) = (block.shelf(), block.room());
    let free = k.mm.pool.free.get_mut(&(shelf, room)).and_then(VecDeque::pop_front);
    if free.is_some() {
        return free;
    }
    let end = |used| block.offset(used) + room + GUARD;
    let (page, used) = match k.mm.pool.open.get(&shelf) {
        Some(&(page, used)) if end(used) <= PAGE => (page, used),
        _ => (map::allocate(k, block.kind.zone(), 1, block.kind.page(), GUARD_FILL)?, 0),
    };
    k.mm.pool.open.insert(shelf, (page, end(used)));
    Some(page + block.offset(used))
}

/// Frees a block; `tag` is what the caller says it was allocated with.
pub(crate) fn free_block(cx: &mut Cx<'_>, address: u64, tag: Option<u32>) -> Flow<()> {
    let block = pool_check::freeable(cx, address, tag)?;
    if let Some(verdict) = cx.with(|k| leftover::in_memory(k, address, block.bytes)) {
        return Err(cx.stop(verdict));
    }
    let damaged = cx.with(|k| {
        if block.small() {
            retire_small(k, address, &block)
        } else {
            retire_large(k, address, &block);
            None
        }
    });
    if block.owner.is_some() {
        cx.emit(Event::Freed { address });
    }
    match damaged {
        Some((address, block)) => Err(pool_check::written_after_free(cx, address, &block)),
        None => Ok(()),
    }
}

/// Fills a freed block and keeps it back; the oldest one kept back becomes free, and is told if it was written to.
fn retire_small(k: &mut Kernel, address: u64, block: &Block) -> Option<(u64, Block)> {
    k.engine.write_bytes(address, &vec![FREED_FILL; usize_of(block.room())]).expect("pool pages are mapped");
    let pool = &mut k.mm.pool;
    pool.blocks.insert(address, Block { freed: true, ..*block });
    pool.quarantine.push_back(address);
    if pool.quarantine.len() <= QUARANTINE {
        return None;
    }
    let oldest = pool.quarantine.pop_front()?;
    let block = pool.blocks.remove(&oldest)?;
    pool.free.entry((block.shelf(), block.room())).or_default().push_back(oldest);
    (!pool_check::untouched(k.engine, oldest, block.room())).then_some((oldest, block))
}

fn retire_large(k: &mut Kernel, address: u64, block: &Block) {
    map::release(k, block.kind.zone(), address, block.pages());
    let pool = &mut k.mm.pool;
    pool.blocks.insert(address, Block { freed: true, ..*block });
    pool.gone.push_back(address);
    if pool.gone.len() > REMEMBERED
        && let Some(oldest) = pool.gone.pop_front()
        && pool.blocks.get(&oldest).is_some_and(|block| block.freed)
    {
        pool.blocks.remove(&oldest);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
const fn usize_of(n: u64) -> usize {
    n as usize
}
