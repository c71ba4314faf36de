//! The code cache: which translations exist, where a fault in one of them belongs, and when all are thrown away.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::block;
use super::emitter::Emitter;
use super::exit::Exit;
use super::stubs::{self, PERMANENT, Stubs};
use super::table::{self, Column};
use crate::guest::FaultKind;
use crate::heap;
use crate::machine::state;
use crate::memory::Protection;
use crate::windows::{CACHE, PAGE};

/// Driver registers that a translated sequence holds in the scratch page at some point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Saved {
    /// None.
    Nothing,
    /// `r11`.
    R11,
    /// `rcx` and `rdx`.
    RcxRdx,
}

/// From this translated address on, until the next entry: which instruction it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapEntry {
    pub(crate) at: u64,
    pub(crate) index: u32,
    pub(crate) saved: Saved,
}

/// A translated stretch of code.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) end: u64,
    /// How many instructions its head charged.
    pub(crate) charged: u32,
    /// Original addresses of its instructions.
    pub(crate) instructions: Vec<u64>,
    pub(crate) map: Vec<MapEntry>,
}

/// What a translated address belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Original address of the instruction.
    pub(crate) rip: u64,
    /// Instructions that were charged and have not retired, this one included.
    pub(crate) unretired: u32,
    pub(crate) saved: Saved,
}

/// The contents of the cache.
pub(crate) struct Cache {
    pub(crate) emitter: Emitter,
    pub(crate) exits: Vec<Exit>,
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// (original address, instructions) → block cut short there.
    pub(crate) truncated: BTreeMap<(u64, u32), u64>,
    /// Return address → the one translated call sequence in front of it.
    pub(crate) call_sites: BTreeMap<u64, u64>,
    /// Instructions that have touched device memory.
    pub(crate) sites: BTreeSet<u64>,
    /// Their two bodies, as made on demand: on RAM, and on the scratch page.
    pub(crate) site_bodies: BTreeMap<(u64, bool), u64>,
    /// Pages that hold translated code and that the driver may write: made read-only meanwhile.
    pub(crate) watched_pages: BTreeSet<u64>,
    pub(crate) stubs: Stubs,
    exports: Vec<(u64, u64)>,
}

/// A cache is flushed when less than this is left before a translation.
const RESERVE: u64 = 64 << 10;

/// Translations of the live machine.
pub(crate) struct Translator {
    cache: RefCell<Cache>,
    /// Counts flushes: a translated address is good for one generation.
    generation: Cell<u64>,
}

impl Translator {
    pub(crate) fn new() -> Self {
        let exits = vec![Exit::HostFault, Exit::ReturnMiss { rip: 0 }];
        let stubs = stubs::write(1);
        let cache = Cache {
            emitter: Emitter::new(CACHE.base + PERMANENT),
            exits,
            blocks: BTreeMap::new(),
            truncated: BTreeMap::new(),
            call_sites: BTreeMap::new(),
            sites: BTreeSet::new(),
            site_bodies: BTreeMap::new(),
            watched_pages: BTreeSet::new(),
            stubs,
            exports: Vec::new(),
        };
        Self { cache: RefCell::new(cache), generation: Cell::new(0) }
    }

    /// Works on the cache, with allocations outside the machine. Nothing in `f` may call the guest.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Cache) -> R) -> R {
        heap::outside(|| f(&mut self.cache.borrow_mut()))
    }

    pub(crate) fn stubs(&self) -> Stubs {
        self.cache.borrow().stubs
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// The translated entry for a jump to `target`, made if need be.
    pub(crate) fn jump_entry(&self, target: u64) -> Result<u64, FaultKind> {
        if let Some(translated) = table::get(target, Column::Jump) {
            return Ok(translated);
        }
        self.make_room();
        self.with(|cache| block::translate(cache, target))
    }

    /// A copy of the block at `pc` that ends after `count` instructions.
    pub(crate) fn truncated(&self, pc: u64, count: u32) -> Result<u64, FaultKind> {
        self.make_room();
        self.with(|cache| block::translate_truncated(cache, pc, count))
    }

    pub(crate) fn make_room(&self) {
        if self.with(|cache| cache.emitter.here()) + RESERVE > CACHE.end() {
            self.flush();
        }
    }

    pub(crate) fn define_export(&self, address: u64, number: u32) {
        self.with(|cache| {
            let thunk = cache.stubs.export_thunk(number);
            cache.exports.push((address, thunk));
            table::set(address, Column::Jump, thunk);
        });
    }

    /// Forgets what was translated from a range whose pages change.
    pub(crate) fn forget(&self, address: u64, length: u64) {
        let concerned = self.with(|cache| {
            let within = |pc: &u64| pc.wrapping_sub(address) < length;
            cache.blocks.values().any(|block| block.instructions.iter().any(within))
        });
        if concerned {
            self.flush();
        }
        self.with(|cache| cache.watched_pages.retain(|page| page.wrapping_sub(address) >= length));
    }

    /// Throws all translations away. Driver frames hold original addresses only, so they go on by new ones.
    pub(crate) fn flush(&self) {
        self.generation.set(self.generation.get() + 1);
        self.with(Cache::flush);
    }

    /// The driver wrote to a page that translations were made from: lets it, and forgets them. False if `address` is on
    /// no such page.
    pub(crate) fn written(&self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        let watched = self.with(|cache| cache.watched_pages.contains(&page));
        if watched {
            self.flush();
        }
        watched
    }

    /// Which instruction a translated address belongs to.
    pub(crate) fn place(&self, translated: u64) -> Option<Place> {
        self.with(|cache| {
            let (_, block) = cache.blocks.range(..=translated).next_back()?;
            if translated >= block.end {
                return None;
            }
            let entry = block.map.iter().rev().find(|entry| entry.at <= translated)?;
            let rip = *block.instructions.get(entry.index as usize)?;
            Some(Place { rip, unretired: block.charged - entry.index, saved: entry.saved })
        })
    }
}

impl Cache {
    /// Numbers an exit.
    pub(crate) fn exit(&mut self, exit: Exit) -> u32 {
        self.exits.push(exit);
        u32::try_from(self.exits.len() - 1).expect("fewer than 2^32 exits")
    }

    fn flush(&mut self) {
        self.emitter = Emitter::new(CACHE.base + PERMANENT);
        self.exits.truncate(2);
        self.blocks.clear();
        self.truncated.clear();
        self.call_sites.clear();
        self.site_bodies.clear();
        for page in std::mem::take(&mut self.watched_pages) {
            let writable = Protection { read: true, write: true, execute: true };
            state().memory.protect(page, PAGE, writable);
        }
        table::clear();
        self.stubs.enter_in_table();
        for (address, thunk) in &self.exports {
            table::set(*address, Column::Jump, *thunk);
        }
    }
}
