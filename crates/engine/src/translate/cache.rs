//! The code cache: which translations exist, where a fault in one of them belongs, and when all are thrown away.
//!
//! An import is called without a look at its slot (`Cache::import`): the slot's page is watched like a page of code, and a write to the
//! slot drops the translations that relied on it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iced_x86::Instruction;

use super::block::guess::{Guessed, Through};
use super::block::{self, Site, Workshop};
use super::blocks::Blocks;
use super::classify::{is_fence, is_interlocked, may_be_watched};
use super::compare;
use super::cuts::Cuts;
use super::emitter::Emitter;
use super::exit::Exit;
use super::inspect::Inspected;
use super::noted::Access;
use super::short::{ANSWERS, SHORT_EXPORTS, Short, ShortExport};
use super::stubs::{self, PERMANENT, Stubs};
use super::table::{self, Column};
use crate::guest::{FaultKind, MemoryAccess};
use crate::heap;
use crate::machine::state;
use crate::memory;
use crate::windows::{CACHE, PAGE, Window};

/// Driver registers that a translated sequence holds in the scratch page at some point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Saved {
    /// None.
    Nothing,
    /// `r11`.
    R11,
    /// The register with this number, where `r11` would be.
    InR11(u8),
    /// `rcx` and `rdx`.
    RcxRdx,
    /// None; but the register of the countdown is the driver's, and the countdown is there.
    Lent,
    /// As [`Saved::Lent`] and [`Saved::InR11`].
    LentInR11(u8),
    /// None; it is a call through a register, or through memory, whose target is looked at before the push.
    CallThrough(Through),
    /// None; and if the instruction faults, the block goes on at [`Block::retry`].
    Untried,
    /// `rcx`, in a check of the checked translation.
    CheckRcx,
    /// `rcx` and `rdx`, in such a check.
    CheckRcxRdx,
}

/// From this translated address on, until the next entry: which instruction it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapEntry {
    pub(crate) at: u64,
    pub(crate) index: u32,
    pub(crate) saved: Saved,
}

/// What a translated address belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Original address of the instruction.
    pub(crate) rip: u64,
    /// Instructions that were charged and have not retired, this one included.
    pub(crate) unretired: u32,
    pub(crate) saved: Saved,
    /// See [`Block::retry`].
    pub(crate) retry: u64,
}

/// What driver code calls the kernel by.
struct Export {
    address: u64,
    number: u32,
    /// What driver code may do by itself.
    short: Option<ShortExport>,
    /// The code that does it: made when a driver first comes there, which most of a thousand exports never see.
    thunk: Option<u64>,
}

/// The contents of the cache.
pub(crate) struct Cache {
    pub(crate) emitter: Emitter,
    pub(crate) exits: Vec<Exit>,
    /// Instructions that exits need whole.
    decoded: Vec<Instruction>,
    /// What is known of those of them that were inspected, by their numbers.
    inspected: Vec<Option<Rc<Inspected>>>,
    /// Accesses that are noted and reported, wherever they lie: by their numbers.
    reported: Vec<MemoryAccess>,
    pub(crate) blocks: Blocks,
    pub(super) workshop: Workshop,
    pub(crate) cuts: Cuts,
    /// Where translations may lead straight to others, by original addresses: from one page to another, from where and to where; and calls
    /// through registers.
    pub(super) jumps: Vec<(u64, u64)>,
    pub(super) guesses: Vec<Guessed>,
    /// Where blocks begin that end in a switch ([`super::block`]).
    pub(super) switches: BTreeSet<u64>,
    /// Import slots whose contents were taken at translation, and jumps through them that were.
    slots: BTreeSet<u64>,
    /// Translations of code outside the images' window, which the table does not cover.
    outside: BTreeMap<u64, u64>,
    /// Return address → the one translated call sequence in front of it.
    pub(super) call_sites: BTreeMap<u64, Site>,
    /// Instructions that have touched device memory.
    pub(crate) sites: BTreeSet<u64>,
    /// Their two bodies, as made on demand: on RAM, and on the scratch page.
    pub(crate) site_bodies: BTreeMap<(u64, bool), u64>,
    /// The guest is asked before each interlocked instruction.
    watches_interlocked: bool,
    /// The guest is asked before each fence and interlocked instruction whether it keeps stores back.
    watches_fences: bool,
    /// The guest is asked before these instructions.
    watched: BTreeSet<u64>,
    /// Instructions of all blocks that were ever made, where that is wanted: code is translated when it is first come to.
    pub(super) reached: Option<BTreeSet<u64>>,
    pub(crate) stubs: Stubs,
    /// The exports, by ascending address.
    exports: Vec<Export>,
    /// The numbers of the short ones, each at the index of its counter.
    short_numbers: Vec<u32>,
}

/// Translations of an image that are out of use.
pub(crate) struct Shelved {
    /// See [`Translator::generation`].
    generation: u64,
    entries: Vec<table::Entry>,
    /// Guesses elsewhere that led there.
    guesses: Vec<Guessed>,
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
            decoded: Vec::new(),
            inspected: Vec::new(),
            reported: Vec::new(),
            blocks: Blocks::default(),
            workshop: Workshop::default(),
            cuts: Cuts::default(),
            jumps: Vec::new(),
            guesses: Vec::new(),
            switches: BTreeSet::new(),
            slots: BTreeSet::new(),
            outside: BTreeMap::new(),
            call_sites: BTreeMap::new(),
            sites: BTreeSet::new(),
            site_bodies: BTreeMap::new(),
            watches_interlocked: false,
            watches_fences: false,
            watched: BTreeSet::new(),
            reached: None,
            stubs,
            exports: Vec::new(),
            short_numbers: Vec::new(),
        };
        Self { cache: RefCell::new(cache), generation: Cell::new(0) }
    }

    /// Works on the cache, with allocations outside the machine. Nothing in `f` may call the guest.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Cache) -> R) -> R {
        heap::outside(|| f(&mut self.cache.borrow_mut()))
    }

    /// What exit `number` stands for.
    #[inline]
    pub(crate) fn exit(&self, number: u32) -> Exit {
        self.cache.borrow().exits[number as usize]
    }

    /// An instruction of [`Cache::keep`].
    pub(crate) fn kept(&self, decoded: u32) -> Instruction {
        self.cache.borrow().decoded[decoded as usize]
    }

    /// What an inspection of such an instruction needs to know of it.
    #[inline]
    pub(crate) fn inspected(&self, decoded: u32) -> Rc<Inspected> {
        let known = self.cache.borrow().inspected.get(decoded as usize).cloned().flatten();
        known.unwrap_or_else(|| self.with(|cache| cache.look_into(decoded as usize)))
    }

    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// The translated entry for a jump to `target`, made if need be.
    #[inline]
    pub(crate) fn jump_entry(&self, target: u64) -> Result<u64, FaultKind> {
        match table::get(target, Column::Jump) {
            Some(translated) => Ok(translated),
            None => self.entry_not_in_table(target),
        }
    }

    #[cold]
    #[inline(never)]
    fn entry_not_in_table(&self, target: u64) -> Result<u64, FaultKind> {
        if let Some(translated) = self.with(|cache| cache.entry_outside_table(target)) {
            return Ok(translated);
        }
        self.make_room();
        self.with(|cache| block::translate(cache, target))
    }

    /// Makes the copy of the block at `pc`, whose copies are `cuts`, that ends after `count` instructions.
    pub(crate) fn truncate(&self, pc: u64, count: usize, cuts: u32) -> Result<u64, FaultKind> {
        let generation = self.generation();
        self.make_room();
        self.with(|cache| {
            let start = block::translate_truncated(cache, pc, count)?;
            if generation == self.generation() {
                cache.cuts.enter(cuts, count, start);
            }
            Ok(start)
        })
    }

    pub(crate) fn make_room(&self) {
        if self.with(|cache| cache.emitter.here()) + RESERVE > CACHE.end() {
            self.flush();
        }
    }

    pub(crate) fn define_exports(&self, exports: impl Iterator<Item = (u64, u32, Option<Short>)>) {
        let replaced = self.with(|cache| {
            exports.fold(false, |replaced, (address, number, short)| {
                cache.define_export(address, number, short) | replaced
            })
        });
        if replaced {
            self.flush(); // calls lead straight to what was there
        }
    }

    /// The numbers of the [`Short`] exports, in the order of their counters.
    pub(crate) fn short_numbers(&self) -> Vec<u32> {
        self.with(|cache| cache.short_numbers.clone())
    }

    /// Forgets what was translated from a range whose pages change.
    pub(crate) fn forget(&self, address: u64, length: u64) {
        let concerned = state().memory.is_any_translated(address, length)
            && self.with(|cache| {
                let within = |pc: &u64| pc.wrapping_sub(address) < length;
                let slots = cache.slots.iter().any(within);
                slots || cache.blocks.iter().any(|block| block.instructions.iter().any(within))
            });
        if concerned {
            self.flush();
        }
        state().memory.unwatch(address, length);
    }

    /// Takes translations of a range out of use, as if they had never been made, so that they can be used again. None, and nothing is done, if
    /// code elsewhere jumps straight there.
    pub(crate) fn shelve(&self, range: Window) -> Option<Shelved> {
        let leads_in = |from: u64, target: u64| range.contains(target) && !range.contains(from);
        self.with(|cache| {
            if cache.jumps.iter().any(|(from, target)| leads_in(*from, *target)) {
                return None;
            }
            let guesses = cache.guesses.iter().filter(|guess| leads_in(guess.rip, guess.target));
            let guesses: Vec<Guessed> = guesses.copied().collect();
            guesses.iter().for_each(|guess| guess.suspend());
            Some(Shelved { generation: self.generation(), entries: table::take_out(range), guesses })
        })
    }

    /// Puts them back: the code that they were made from is there again. False if they are gone.
    pub(crate) fn put_back(&self, shelved: &Shelved) -> bool {
        let stands = shelved.generation == self.generation();
        if stands {
            table::put_back(&shelved.entries);
            shelved.guesses.iter().for_each(|guess| guess.resume());
        }
        stands
    }

    /// Throws all translations away. Driver frames hold original addresses only, so they go on by new ones.
    pub(crate) fn flush(&self) {
        self.generation.set(self.generation.get() + 1);
        self.with(Cache::flush);
    }

    /// From now on the guest is asked before each interlocked instruction, or no more.
    pub(crate) fn watch_interlocked(&self, on: bool) {
        if self.with(|cache| std::mem::replace(&mut cache.watches_interlocked, on)) != on {
            self.flush();
        }
    }

    /// From now on each fence and interlocked instruction is reported to the guest.
    pub(crate) fn watch_fences(&self) {
        if !self.with(|cache| std::mem::replace(&mut cache.watches_fences, true)) {
            self.flush();
        }
    }

    /// Whether the guest is asked before interlocked instructions.
    pub(crate) fn watches_interlocked(&self) -> bool {
        self.cache.borrow().watches_interlocked
    }

    /// From now on the instructions of blocks are kept that are made. All are made anew: what was come to before counts again.
    pub(crate) fn keep_reached(&self) {
        self.with(|cache| cache.reached = Some(BTreeSet::new()));
        self.flush();
    }

    /// All of them.
    pub(crate) fn reached(&self) -> Vec<u64> {
        self.cache.borrow().reached.iter().flatten().copied().collect()
    }

    /// How many they are.
    pub(crate) fn reached_count(&self) -> usize {
        self.cache.borrow().reached.as_ref().map_or(0, BTreeSet::len)
    }

    /// Whether the guest is asked before the instruction at this address.
    pub(crate) fn watches(&self, rip: u64) -> bool {
        self.cache.borrow().watched.contains(&rip)
    }

    /// From now on the guest is asked before these instructions, and no others but interlocked ones.
    pub(crate) fn watch(&self, instructions: &[u64]) {
        let changes = self.with(|cache| {
            let watched = instructions.iter().copied().collect();
            let before = std::mem::replace(&mut cache.watched, watched);
            before != cache.watched
        });
        if changes {
            self.flush();
        }
    }

    /// The driver wrote to a page that translations were made from: lets it, and forgets them. False if `address` is on
    /// no such page.
    pub(crate) fn written(&self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        let watched = state().memory.is_watched(page);
        if watched {
            state().memory.changes(page);
            self.flush();
        }
        watched
    }

    /// Which instruction a translated address belongs to.
    pub(crate) fn place(&self, translated: u64) -> Option<Place> {
        self.with(|cache| {
            let block = cache.blocks.around(translated)?;
            let entry = block.map.iter().rev().find(|entry| entry.at <= translated)?;
            let rip = block.instructions[entry.index as usize % block.instructions.len()];
            let (saved, retry) = (entry.saved, block.retry);
            Some(Place { rip, unretired: block.charged - entry.index, saved, retry })
        })
    }
}

impl Translator {
    /// Where the instruction (or its next check) begins behind the check that holds a translated address.
    pub(crate) fn behind_check(&self, translated: u64) -> Option<u64> {
        self.with(|cache| {
            let block = cache.blocks.around(translated)?;
            let behind = |entry: &&MapEntry| entry.at > translated && entry.saved == Saved::Nothing;
            block.map.iter().find(behind).map(|entry| entry.at)
        })
    }
}

impl Cache {
    /// Numbers an exit.
    pub(crate) fn exit(&mut self, exit: Exit) -> u32 {
        self.exits.push(exit);
        u32::try_from(self.exits.len() - 1).expect("fewer than 2^32 exits")
    }

    /// The export whose address the import slot at `slot` holds, if that can be relied upon from now on.
    pub(crate) fn import(&mut self, slot: u64) -> Option<u64> {
        let mut target = [0; 8];
        memory::peek(slot, &mut target).ok()?;
        let target = u64::from_le_bytes(target);
        let thunk = self.entry(target)?;
        let whole = table::covers(slot) && slot.is_multiple_of(8);
        if !whole || !stubs::is_thunk(thunk) || !state().memory.translate_from_data(slot) {
            return None;
        }
        self.slots.insert(slot);
        Some(target)
    }

    /// Whether drivers have come to `address` already, and now find another export there.
    fn define_export(&mut self, address: u64, number: u32, short: Option<Short>) -> bool {
        let short = short.map(|what| {
            if let Short::Answer(row, noted) = what {
                assert!(usize::from(row) < ANSWERS, "there is no such row");
                assert!(matches!(noted, 0 | 8..=123), "calls are noted with no such place");
            }
            let counter = if what.is_counted_there() { self.counter_of(number) } else { 0 };
            ShortExport { what, counter }
        });
        let defined = Export { address, number, short, thunk: None };
        match self.find_export(address) {
            // A machine that was taken back defines it again.
            Ok(index) if (self.exports[index].number, self.exports[index].short) == (number, short) => false,
            Ok(index) => std::mem::replace(&mut self.exports[index], defined).thunk.is_some(),
            Err(index) => {
                self.exports.insert(index, defined);
                false
            }
        }
    }

    /// Where the calls of this short export are counted.
    fn counter_of(&mut self, number: u32) -> u8 {
        let known = self.short_numbers.iter().position(|known| *known == number);
        let counter = known.unwrap_or_else(|| {
            assert!(self.short_numbers.len() < SHORT_EXPORTS, "too many short exports");
            self.short_numbers.push(number);
            self.short_numbers.len() - 1
        });
        u8::try_from(counter).expect("they are few")
    }

    /// Where it stands among the exports, or would.
    fn find_export(&self, address: u64) -> Result<usize, usize> {
        // They are mostly defined in the order of their addresses.
        match self.exports.last() {
            Some(last) if last.address >= address => {
                self.exports.binary_search_by_key(&address, |export| export.address)
            }
            _ => Err(self.exports.len()),
        }
    }

    /// The thunk of the export at `address`, if there is one; from now on the table leads there.
    fn export_entry(&mut self, address: u64) -> Option<u64> {
        let index = self.find_export(address).ok()?;
        let export = &mut self.exports[index];
        let make = || self.stubs.export_thunk(export.number, export.short);
        let thunk = *export.thunk.get_or_insert_with(make);
        table::set(address, Column::Jump, thunk);
        Some(thunk)
    }

    /// What the export at `address` does, if driver code may do it by itself in the block of the call.
    pub(super) fn short(&self, address: u64) -> Option<ShortExport> {
        self.find_export(address).ok().and_then(|index| self.exports[index].short)
    }

    /// A translation relies on the code at `address` besides what it was made from.
    pub(super) fn relies_on(&mut self, address: u64) {
        self.slots.insert(address);
    }

    /// Where jumps to `original` go, if it is translated.
    pub(crate) fn entry(&mut self, original: u64) -> Option<u64> {
        table::get(original, Column::Jump).or_else(|| self.entry_outside_table(original))
    }

    /// As [`Cache::entry`], of what the table does not lead to, or not yet.
    fn entry_outside_table(&mut self, original: u64) -> Option<u64> {
        if table::covers(original) {
            self.export_entry(original)
        } else {
            self.outside.get(&original).copied()
        }
    }

    /// Enters a translation.
    pub(crate) fn enter(&mut self, original: u64, translated: u64) {
        if table::covers(original) {
            table::set(original, Column::Jump, translated);
        } else {
            self.outside.insert(original, translated);
        }
    }

    /// Whether the guest is asked before this instruction.
    pub(crate) fn asks_before(&self, instruction: &Instruction) -> bool {
        let interlocked = self.watches_interlocked && is_interlocked(instruction);
        let fence = self.watches_fences && is_fence(instruction);
        let compare = state().compares.is_on() && compare::is_one(instruction);
        interlocked
            || fence
            || compare
            || self.watched.contains(&instruction.ip()) && may_be_watched(instruction)
    }

    /// Numbers the copies of the block at `rip`, whose head charges so many.
    pub(crate) fn cut(&mut self, rip: u64, charged: u32) -> u32 {
        let cuts = self.cuts.next();
        let exit = self.exit(Exit::Slice { rip, cuts });
        self.cuts.add(charged, exit);
        cuts
    }

    #[cold]
    fn look_into(&mut self, decoded: usize) -> Rc<Inspected> {
        if self.inspected.len() <= decoded {
            self.inspected.resize(decoded + 1, None);
        }
        let inspected = Rc::new(Inspected::new(self.decoded[decoded]));
        self.inspected[decoded] = Some(Rc::clone(&inspected));
        inspected
    }

    /// Keeps an instruction for an exit until the next flush.
    pub(crate) fn keep(&mut self, instruction: &Instruction) -> u32 {
        self.decoded.push(*instruction);
        u32::try_from(self.decoded.len() - 1).expect("fewer than 2^32 instructions")
    }

    /// Keeps what an instruction does to an operand, until the next flush.
    pub(super) fn keep_reported(&mut self, access: MemoryAccess) -> Access {
        self.reported.push(access);
        Access(self.reported.len() as u64 - 1)
    }

    /// An access of [`Cache::keep_reported`], if there is one of this number.
    #[inline]
    pub(super) fn reported(&self, number: u64) -> Option<&MemoryAccess> {
        self.reported.get(usize::try_from(number).ok()?)
    }

    fn flush(&mut self) {
        self.reported.clear();
        self.decoded.clear();
        self.inspected.clear();
        self.emitter = Emitter::new(CACHE.base + PERMANENT);
        self.exits.truncate(2);
        self.blocks.clear();
        self.cuts.clear();
        self.jumps.clear();
        self.guesses.clear();
        self.switches.clear();
        self.slots.clear();
        self.outside.clear();
        self.call_sites.clear();
        self.site_bodies.clear();
        state().memory.nothing_translated();
        table::clear();
        self.stubs.enter_in_table();
    }
}
