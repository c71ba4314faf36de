//! What a driver can get wrong with a block of pool, seen when it frees it or when its driver is unloaded.
//!
//! Pages: *Bug Check 0xC2: BAD_POOL_CALLER*, *Bug Check 0x19: BAD_POOL_HEADER*, *Bug Check 0xC1*, *Bug Check 0xC4*. A damaged guard is
//! seen late; which instruction wrote there is the checked translation's to say.

use abi::DriverPtr;
use engine::windows::{PAGE, USER_DEVICE};
use engine::{Engine, Flow, Leave};

use super::pool::{self, Block, FREED_FILL, GUARD, GUARD_FILL, Kind, tag_text};
use super::space::Zone;
use super::special_pool::is_tag_like;
use crate::cx::{Cx, Kernel};
use crate::ex;
use crate::ke::free_check;
use crate::ldr;
use crate::verdict::Verdict;

/// The block that begins at `address` and may be freed now by a caller that says `tag`.
pub(crate) fn freeable(cx: &mut Cx<'_>, address: u64, tag: Option<u32>) -> Flow<Block> {
    let block = match cx.with(|k| k.mm.pool.block(address).copied()) {
        Some(block) if block.is_freed() => return Err(freed_twice(cx, address, &block)),
        Some(block) => block,
        None => return Err(not_a_block(cx, address)),
    };
    if let Some(tag) = tag
        && tag != block.tag
    {
        return Err(wrong_tag(cx, address, &block, tag));
    }
    let irql = crate::ke::irql::current(cx);
    let highest = if block.kind == Kind::Paged { 1 } else { 2 };
    if irql > highest {
        let what = describe(address, &block);
        let message = format!("{what} was freed at IRQL {irql}; at most {highest} is allowed");
        let pool_type = u64::from(block.kind == Kind::Paged);
        let verdict =
            Verdict::error("pool-irql", message).bug_check(0xC2, [9, irql.into(), pool_type, address]);
        let verdict = verdict.of_block(&block);
        return Err(cx.stop(verdict));
    }
    if let Some(verdict) = cx.with(|k| damage(k.engine, address, &block)) {
        return Err(cx.stop(verdict));
    }
    if let Some(verdict) = cx.with(|k| still_in_use(k, address, &block)) {
        return Err(cx.stop(verdict));
    }
    if let Some(page) = locked_page(cx, address, &block) {
        let message = format!("{} was freed while an MDL holds its pages locked", describe(address, &block));
        let verdict =
            Verdict::error("freed-while-locked", message).bug_check(0x4E, [0x9A, page / PAGE, 0, 0]);
        let verdict = verdict.of_block(&block);
        return Err(cx.stop(verdict));
    }
    Ok(block)
}

/// `a 64-byte block 'Dirq' at 0x2020…`.
pub(crate) fn describe(address: u64, block: &Block) -> String {
    format!("{} at {address:#x}", kind_of(block))
}

/// `a 64-byte nonpaged block 'Dirq'`.
pub(crate) fn kind_of(block: &Block) -> String {
    let kind = if block.kind == Kind::Paged { "paged" } else { "nonpaged" };
    let eight = |bytes: &str| {
        bytes.starts_with('8')
            || (bytes.len() % 3 == 2 && (bytes.starts_with("11") || bytes.starts_with("18")))
    };
    let article = if eight(&block.bytes.to_string()) { "an" } else { "a" };
    format!("{article} {}-byte {kind} block '{}'", block.bytes, tag_text(block.tag))
}

fn freed_twice(cx: &mut Cx<'_>, address: u64, block: &Block) -> Leave {
    let message = format!("{} was freed a second time", describe(address, block));
    let parameters = [7, 0, u64::from(block.tag), address];
    cx.stop(Verdict::error("double-free", message).bug_check(0xC2, parameters).of_block(block))
}

fn wrong_tag(cx: &mut Cx<'_>, address: u64, block: &Block, tag: u32) -> Leave {
    let message = format!("{} was freed with the tag '{}'", describe(address, block), tag_text(tag));
    let parameters = [0xA, address, block.tag.into(), tag.into()];
    cx.stop(Verdict::error("pool-tag-mismatch", message).bug_check(0xC2, parameters).of_block(block))
}

fn not_a_block(cx: &mut Cx<'_>, address: u64) -> Leave {
    let around = cx.with(|k| containing(k, address));
    let (sub, what) = match (&around, Zone::of(address)) {
        (Some((start, block)), _) => {
            let inside = format!("{:#x} bytes into {}", address - start, describe(*start, block));
            (0x99, if block.is_freed() { format!("{inside}, which is freed") } else { inside })
        }
        (None, Some(Zone::NonPagedPool)) => (0x41, "not an allocated block of nonpaged pool".into()),
        (None, Some(Zone::PagedPool)) => (0x48, "not an allocated block of paged pool".into()),
        (None, _) if address < USER_DEVICE.end() => (0x40, "a user-mode address".into()),
        (None, _) => (0x46, "no pool address".into()),
    };
    let message = format!("{address:#x} was freed, which is {what}");
    let verdict = Verdict::error("bad-free", message).bug_check(0xC2, [sub, address, 0, 0]);
    cx.stop(match &around {
        Some((_, block)) => verdict.of_block(block),
        None => verdict,
    })
}

/// The block that `address` lies in, behind its first byte; freed ones too.
pub(crate) fn containing(k: &Kernel, address: u64) -> Option<(u64, Block)> {
    let (start, &block) = k.mm.pool.last_up_to(address)?;
    (address - start < block.bytes.max(1)).then_some((start, block))
}

/// What an address in pool was, for the verdict on a fault there: a freed block, or what lies just before it.
pub(crate) fn explain(cx: &mut Cx<'_>, address: u64) -> Option<(String, Block)> {
    let (start, block) = cx.with(|k| {
        let (start, &block) = k.mm.pool.last_up_to(address)?;
        (address - start < block.bytes + PAGE).then_some((start, block))
    })?;
    let offset = address - start;
    let what = describe(start, &block);
    let words = match offset.checked_sub(block.bytes) {
        Some(behind) => format!("{behind} bytes behind the end of {what}"),
        None if block.is_freed() => format!("{offset:#x} bytes into {what}, which is freed"),
        None => format!("{offset:#x} bytes into {what}"),
    };
    Some((words, block))
}

/// The verdict on damaged guards of a live block.
fn damage(engine: Engine, address: u64, block: &Block) -> Option<Verdict> {
    let (extent, end) = (block.extent(address), address + block.bytes);
    if let Some((at, value)) = first_other(engine, end, extent.end - end, GUARD_FILL) {
        let message = format!(
            "{} was overrun: {:#x}, {} bytes behind its end, holds {value:#04x}",
            describe(address, block),
            at,
            at - address - block.bytes
        );
        let (code, parameters) = match block.special {
            None => (0x19, [0x21, address, block.bytes, value.into()]),
            Some(_) => (0xC1, [address, at, block.bytes, 0x23]),
        };
        return Some(Verdict::error("pool-overrun", message).bug_check(code, parameters).of_block(block));
    }
    if let Some((at, value)) = first_other(engine, extent.start, address - extent.start, GUARD_FILL) {
        let before = address - at;
        let what = describe(address, block);
        let message = format!("{what} was underrun: {at:#x}, {before} bytes before it, holds {value:#04x}");
        let parameters = [address, at, block.bytes, 0x23];
        return Some(Verdict::error("pool-underrun", message).bug_check(0xC1, parameters).of_block(block));
    }
    None
}

/// Whether the guards of a small live block of so many bytes are as they were made.
#[inline]
pub(crate) fn guards_hold(engine: Engine, address: u64, bytes: u64) -> bool {
    if let Some(guarded) = engine.is_guarded::<GUARD_FILL>(address, bytes) {
        return guarded;
    }
    let room = pool::room(bytes);
    let (behind, end) = (address + bytes, address + room + GUARD);
    engine.is_filled(address - GUARD, GUARD, GUARD_FILL) == Ok(true)
        && engine.is_filled(behind, end - behind, GUARD_FILL) == Ok(true)
}

/// Whether [`is_anything_in`] finds nothing, wherever it looks.
#[inline]
pub(crate) fn is_nothing_anywhere(k: &Kernel) -> bool {
    let ex = &k.ex;
    let nothing = ex.resources.is_empty() && ex.lookasides.is_empty() && ex.work_items.is_empty();
    nothing && free_check::is_nothing_anywhere(k)
}

/// Whether `ke` or `ex` still use anything in memory that is about to be freed; what it is, [`freeable`] and `ke::free_check` say.
#[inline(never)]
pub(crate) fn is_anything_in(k: &Kernel, address: u64, bytes: u64) -> bool {
    let range = address..address.saturating_add(bytes);
    let ex = &k.ex;
    ex.resources.range(range.clone()).next().is_some()
        || ex.lookasides.range(range.clone()).next().is_some()
        || ex.work_items.range(range).next().is_some()
        || free_check::is_any_in(k, address, bytes)
}

/// Whether a freed block still has the bytes it was filled with.
pub(crate) fn untouched(engine: Engine, address: u64, bytes: u64) -> bool {
    first_other(engine, address, bytes, FREED_FILL).is_none()
}

/// The first byte of a range that is not `fill`.
fn first_other(engine: Engine, address: u64, bytes: u64, fill: u8) -> Option<(u64, u8)> {
    const CHUNK: usize = 256;
    if bytes >= 16 && engine.is_filled(address, bytes, fill).ok()? {
        return None;
    }
    let (mut contents, expected) = ([0; CHUNK], [fill; CHUNK]);
    let mut at = address;
    while at < address + bytes {
        let length = usize::try_from(address + bytes - at).unwrap_or(CHUNK).min(CHUNK);
        let chunk = &mut contents[..length];
        engine.read_bytes(at, chunk).ok()?;
        if *chunk != expected[..length] {
            return (at..).zip(chunk).find(|(_, byte)| **byte != fill).map(|(at, byte)| (at, *byte));
        }
        at += length as u64;
    }
    None
}

/// The verdict on a freed block that was written to.
pub(crate) fn written_after_free(cx: &mut Cx<'_>, address: u64, block: &Block) -> Leave {
    let verdict = after_free(cx, address, block);
    cx.stop(verdict)
}

fn after_free(cx: &mut Cx<'_>, address: u64, block: &Block) -> Verdict {
    let place = first_other(cx.engine(), address, block.bytes.max(1), FREED_FILL);
    let (at, value) = place.unwrap_or((address, 0));
    let owner =
        block.allocator.image().and_then(|base| cx.with(|k| ldr::image_name(k, base).map(str::to_owned)));
    let owner = owner.map_or(String::new(), |name| format!(" (of {name})"));
    let what = describe(address, block);
    let message = format!("{what}{owner} was written to after it was freed: {at:#x} holds {value:#04x}");
    let parameters = [address, at, block.bytes, 0x24];
    Verdict::error("write-after-free", message).bug_check(0xC1, parameters).of_block(block)
}

/// Looks at every block's guards and every freed block's fill: when a driver is unloaded, and at the end.
///
/// # Errors
/// A verdict on the first damaged block.
pub fn all(cx: &mut Cx<'_>) -> Flow<()> {
    for (address, block) in cx.with(|k| k.mm.pool.all()) {
        if !block.is_freed() {
            if let Some(verdict) = damage(cx.engine(), address, &block) {
                return Err(cx.stop(verdict));
            }
        } else if block.small()
            && !untouched(cx.engine(), address, block.bytes.max(1).next_multiple_of(GUARD))
        {
            return Err(written_after_free(cx, address, &block));
        }
    }
    Ok(())
}

/// The verdict on a block with an object of the executive's in it that is still in use; the kernel's own are `ke`'s.
fn still_in_use(k: &Kernel, address: u64, block: &Block) -> Option<Verdict> {
    let range = address..address.saturating_add(block.bytes);
    let resource = k.ex.resources.range(range.clone()).next();
    let lookaside = k.ex.lookasides.range(range.clone()).next();
    let item = k.ex.work_items.range(range).next();
    let (object, sub, what) = resource
        .map(|(&at, _)| (at, 0x17, "an initialized ERESOURCE"))
        .or_else(|| lookaside.map(|(&at, _)| (at, 0xCC, "an initialized lookaside list")))
        .or_else(|| item.map(|(&at, _)| (at, 0, "a work item that is queued")))?;
    let message = format!("{} was freed with {what} in it, at {object:#x}", describe(address, block));
    let acquired = resource.map(|(&at, _)| ex::resource::acquired(k, at)).unwrap_or_default();
    let verdict = Verdict::error("freed-while-in-use", message).acquired(acquired).of_block(block);
    let queued = k.ex.work_items.get(&object).copied();
    Some(if sub == 0 {
        verdict.related_if("queued", queued)
    } else {
        verdict.bug_check(0xC4, [sub, object, address, block.bytes])
    })
}

fn locked_page(cx: &mut Cx<'_>, address: u64, block: &Block) -> Option<u64> {
    if block.small() {
        // Other blocks of the page may be locked by right.
        return None;
    }
    cx.with(|k| {
        let pages = block.extent(address);
        let mut at = pages.start;
        while at < pages.end {
            let physical = k.mm.map.physical(at)?;
            if k.mm.physical.is_locked(physical) {
                return Some(physical);
            }
            at += PAGE;
        }
        None
    })
}

/// A block a driver has not freed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outstanding {
    /// Where.
    pub address: u64,
    /// As asked for.
    pub bytes: u64,
    /// Its tag.
    pub tag: u32,
    /// Paged pool.
    pub paged: bool,
    /// Who allocated it, as a symbol.
    pub allocated_by: String,
    /// The moment when, as verdicts name it.
    pub allocated: u64,
}

/// Every block the image at `driver` allocated and has not freed, by address.
pub fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<Outstanding> {
    let is_its = |block: &Block| !block.is_freed() && block.allocator.image() == Some(driver);
    let mut blocks: Vec<(u64, Block)> = cx.with(|k| {
        let blocks = k.mm.pool.unordered().filter(|(_, block)| is_its(block));
        blocks.map(|(address, block)| (address, *block)).collect()
    });
    blocks.sort_unstable_by_key(|(address, _)| *address);
    let tell = |(address, block): (u64, Block)| Outstanding {
        address,
        bytes: block.bytes,
        tag: block.tag,
        paged: block.kind == Kind::Paged,
        allocated_by: ldr::symbols::describe(cx, block.allocator.caller),
        allocated: block.allocated,
    };
    blocks.into_iter().map(tell).collect()
}

/// How many blocks drivers have allocated and not freed whose tags are like `tag` (`?` and `*` stand for any characters), and their bytes.
#[must_use]
pub fn held(k: &Kernel, tag: &str) -> (u64, u64) {
    let live = k.mm.pool.unordered().map(|(_, block)| block);
    let live =
        live.filter(|block| !block.is_freed() && block.allocator.is_driver() && is_tag_like(block.tag, tag));
    live.fold((0, 0), |(blocks, bytes), block| (blocks + 1, bytes + block.bytes))
}

/// Whether the bytes at `pointer` belong to a live block of nonpaged pool, as `KeInitialize…` objects must.
pub fn is_nonpaged<T>(cx: &mut Cx<'_>, pointer: DriverPtr<T>) -> bool {
    cx.with(|k| k.mm.map.page(pointer.address).is_some_and(|page| !page.pageable))
}
