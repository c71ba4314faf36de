//! Stores that other processors see late: `--platform late-stores`.
//!
//! Intel SDM volume 3A, *Memory Ordering in P6 and More Recent Processor Families* and *Store Buffer*: a processor sees its own stores at once, others see
//! them when they leave its store buffer, all in the order in which they were made. So a load may be done before an earlier store to another address is
//! seen: two processors that each store to one word and then load the other's may both load what was there before. A locked instruction, `mfence` or a
//! serializing one waits until the buffer is empty. A driver that lacks one there runs well wherever stores are seen at once.
//!
//! *Ours*, since no page says how late a store may be: a store stays in the buffer while other processors have their turn, once. What lies in memory is what the
//! processor sees that has the turn: when its turn ends, what its buffered stores have overwritten is put back, and when its next one begins they are
//! stored for all. Sooner the buffer is empty behind each locked or serializing
//! instruction and fence, access to a device, interrupt, call of the kernel and return from a routine that it has called. Whether another processor goes first
//! is asked before these, so it may come between.
//!
//! Buffered is what is [reported](engine::Engine::report_accesses) as an access. What the stack pointer alone addresses is not: where another processor's code
//! touches the stack of a routine whose stores are in a buffer, that is emptied first, so that no order of stores is broken. What devices read is
//! what the processor sees that has the turn.

use engine::{AccessKind, MemoryAccess};

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::stack;
use crate::mm::shadow;

/// Stores of a buffer: as many as Intel's optimization manual counts for Skylake. The architecture leaves it open.
const STORES: usize = 56;
/// Bytes of the widest store that is kept; wider ones, which are repeated string instructions, empty the buffer.
const WIDEST: usize = 64;

/// A store of driver code.
struct Store {
    address: u64,
    length: usize,
    bytes: [u8; WIDEST],
    /// The instruction.
    code: u64,
}

/// What a processor has stored, and others do not see.
#[derive(Default)]
struct Buffer {
    /// In the order in which they were made. While the processor has the turn, what each has overwritten; else what it has stored.
    stores: Vec<Store>,
    /// Where the stacks lie that what runs on the processor uses.
    stack: std::ops::Range<u64>,
    is_hidden: bool,
}

/// The buffers of all processors.
#[derive(Default)]
pub(crate) struct LateStores {
    of: Vec<Buffer>,
    hidden: usize,
}

impl LateStores {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// Driver code is about to access memory.
pub(crate) fn about_to_access(k: &mut Kernel, access: &MemoryAccess) {
    if k.ke.processors.len() < 2 {
        return;
    }
    show_owner_of(k, access.address);
    if access.kind == AccessKind::Load || access.atomic {
        return;
    }
    let length = usize::try_from(access.bytes).unwrap_or(usize::MAX);
    let current = k.ke.current;
    if length > WIDEST {
        return drain(k);
    }
    let mut bytes = [0; WIDEST];
    if k.engine.read_bytes(access.address, &mut bytes[..length]).is_err() {
        return; // the store itself will fault
    }
    let limits = stack::limits(k);
    let count = k.ke.processors.len();
    let late = &mut k.hal.late_stores;
    late.of.resize_with(count, Buffer::default);
    let buffer = &mut late.of[current];
    buffer.stack = limits.limit..limits.base;
    buffer.stores.push(Store { address: access.address, length, bytes, code: access.rip });
    if buffer.stores.len() > STORES {
        buffer.stores.remove(0);
    }
}

/// Others see from now on what the current processor has stored.
pub(crate) fn drain(k: &mut Kernel) {
    let current = k.ke.current;
    if let Some(buffer) = k.hal.late_stores.of.get_mut(current) {
        buffer.stores.clear();
    }
}

/// The current processor's turn is over: others do not see what it has stored.
#[inline]
pub(crate) fn hide(cx: &mut Cx<'_>) {
    if cx.with(|k| k.hal.late_stores.of.get(k.ke.current).is_some_and(|buffer| !buffer.stores.is_empty())) {
        put_back(cx);
    }
}

#[cold]
fn put_back(cx: &mut Cx<'_>) {
    cx.with(|k| {
        let current = k.ke.current;
        let engine = k.engine;
        let late = &mut k.hal.late_stores;
        let buffer = &mut late.of[current];
        // Of two stores to one byte the later has overwritten the earlier.
        buffer.stores.reverse();
        buffer.stores.retain_mut(|store| exchange(engine, store));
        buffer.stores.reverse();
        buffer.is_hidden = true;
        late.hidden += 1;
    });
    if cx.nt().wants(Kind::StoreKept) {
        let kept = |store: &Store| (store.address, store.length as u64, store.code);
        let kept: Vec<_> = cx.with(|k| k.hal.late_stores.of[k.ke.current].stores.iter().map(kept).collect());
        for (address, bytes, code) in kept {
            cx.detail(Kind::StoreKept, || Event::StoreKept { address, bytes, code });
        }
    }
}

/// The current processor's turn begins: all see what it has stored.
#[inline]
pub(crate) fn show(k: &mut Kernel) {
    if k.hal.late_stores.hidden > 0 {
        show_of(k, k.ke.current);
    }
}

/// Code is about to touch the stack of a routine on another processor: what that has stored is seen first.
#[inline]
fn show_owner_of(k: &mut Kernel, address: u64) {
    if k.hal.late_stores.hidden == 0 {
        return;
    }
    let owner =
        k.hal.late_stores.of.iter().position(|buffer| buffer.is_hidden && buffer.stack.contains(&address));
    if let Some(owner) = owner {
        show_of(k, owner);
    }
}

#[cold]
fn show_of(k: &mut Kernel, processor: usize) {
    let engine = k.engine;
    let late = &mut k.hal.late_stores;
    let Some(buffer) = late.of.get_mut(processor).filter(|buffer| buffer.is_hidden) else { return };
    buffer.is_hidden = false;
    late.hidden -= 1;
    for mut store in std::mem::take(&mut buffer.stores) {
        // What was freed meanwhile without waiting for the processor is left alone.
        if !shadow::is_gone(k, store.address, store.length as u64) {
            exchange(engine, &mut store);
        }
    }
    k.ke.sched.made_progress();
}

/// Has memory and the store change places; false if there is no such memory any more.
fn exchange(engine: engine::Engine, store: &mut Store) -> bool {
    let Store { address, length, bytes, .. } = store;
    let mut there = [0; WIDEST];
    let there_now = &mut there[..*length];
    if engine.read_bytes(*address, there_now).is_err() {
        return false;
    }
    let is_written = engine.write_bytes(*address, &bytes[..*length]).is_ok();
    *bytes = there;
    is_written
}
