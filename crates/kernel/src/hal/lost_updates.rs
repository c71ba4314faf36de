//! `register-update-lost`: a driver reads a register, changes some bits and writes the rest back as it was, and another flow of control of the driver's
//! has written the register in between: what that has changed is undone. Pages: *Using Critical Sections*, *Introduction to Spin Locks*.
//!
//! It is said only where it happened, and where it is certain: that the bits come from the earlier read follows from the driver's instructions
//! ([`engine::Engine::carried`]) and from the masks that they have in registers, and that the register keeps them was seen in this run, of reads that gave what was written. *It does not* see
//! registers that are never read, nor those of one instruction (`or dword ptr`), which one processor does not divide; of registers whose places in the
//! table are the same, it knows the one accessed last.

use engine::{Carried, Moved, StrandId};

use super::access::RegisterAccess;
use crate::cx::Cx;
use crate::event::RegisterUse;
use crate::ldr;
use crate::verdict::{Related, Verdict};
use crate::witness;

/// So many registers are known.
const REGISTERS: u64 = 128;
/// So many reads of one register are remembered, that something may yet be written for.
const READS: usize = 4;

/// Who accesses: a strand, and how far in, for what interrupts is not what it interrupts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    strand: StrandId,
    depth: u32,
}

/// An access.
#[derive(Clone, Copy)]
struct Made {
    by: Flow,
    value: u64,
    instruction: u64,
    /// The event that comes with it.
    event: u64,
}

/// A register.
struct Register {
    /// Its address, and whether that is a port.
    place: (u64, bool),
    /// Bits that were read as they had been written last.
    kept: u64,
    /// Bits that were not.
    changed: u64,
    /// The last write.
    written: Option<Made>,
    /// The last reads, of flows that have not written since.
    reads: [Option<Made>; READS],
    oldest: usize,
}

/// The registers that drivers have accessed lately, each at the place that its address gives.
pub(crate) struct LostUpdates(Vec<Option<Box<Register>>>);

impl Default for LostUpdates {
    fn default() -> Self {
        Self((0..REGISTERS).map(|_| None).collect())
    }
}

impl LostUpdates {
    #[inline]
    fn at(&mut self, place: (u64, bool)) -> &mut Register {
        let (address, _) = place;
        let index = (address >> 2 ^ address >> 12) % REGISTERS;
        let slot = &mut self.0[usize::try_from(index).expect("the table is small")];
        if slot.as_ref().is_none_or(|known| known.place != place) {
            *slot = Some(Box::new(Register::new(place)));
        }
        slot.as_mut().expect("it was made")
    }
}

/// A write by who has read the register before.
struct Update {
    read: Made,
    /// The write of another's that came between.
    between: Option<Made>,
    /// Bits that the register is known to keep.
    kept: u64,
}

/// What a write has undone.
struct Undone {
    /// The read that it follows from, and the write of another's that came between.
    read: Made,
    between: Made,
    /// Bits that the latter has changed, and that have their old values again.
    bits: u64,
}

impl Update {
    /// What another has changed meanwhile and this write sets back, if that may be so.
    fn undone(&self, write: Made) -> Option<Undone> {
        let (read, between) = (self.read, self.between?);
        let bits = (read.value ^ between.value) & !(read.value ^ write.value) & self.kept;
        (bits != 0).then_some(Undone { read, between, bits })
    }
}

impl Register {
    const fn new(place: (u64, bool)) -> Self {
        Self { place, kept: 0, changed: 0, written: None, reads: [None; READS], oldest: 0 }
    }

    fn read(&mut self, read: Made) {
        if let Some(written) = self.written {
            self.changed |= written.value ^ read.value;
            self.kept |= !(written.value ^ read.value) & (written.value | read.value);
        }
        let own = self.reads.iter().position(|known| known.is_some_and(|known| known.by == read.by));
        let at = own.unwrap_or_else(|| {
            self.oldest = (self.oldest + 1) % READS;
            self.oldest
        });
        self.reads[at] = Some(read);
    }

    fn write(&mut self, write: Made) -> Option<Update> {
        let between = self.written.replace(write);
        let own = self.reads.iter_mut().find(|known| known.is_some_and(|known| known.by == write.by))?;
        let read = own.take()?;
        let between = between.filter(|between| between.by != write.by && between.event > read.event);
        Some(Update { read, between, kept: self.kept & !self.changed })
    }
}

/// A register was read or written.
#[inline]
pub(super) fn accessed(cx: &mut Cx<'_>, access: RegisterAccess, value: u64) {
    let event = witness::moment(cx);
    let engine = cx.engine();
    let by = Flow { strand: engine.strand(), depth: engine.depth() };
    let made = Made { by, value, instruction: engine.caller_rip(), event };
    let update = cx.with(|k| {
        let register = k.hal.lost_updates.at((access.address, access.port));
        if access.write {
            return register.write(made);
        }
        register.read(made);
        None
    });
    if let Some(undone) = update.as_ref().and_then(|update| update.undone(made)) {
        judge(cx, access, made, &undone);
    }
    if cx.nt().reads_accesses() {
        hand_to_readers(cx, access, made, update.as_ref());
    }
}

/// What the write that is being made has of that read.
fn carried(cx: &Cx<'_>, read: Made, write: Made) -> Carried {
    let caller = cx.engine().caller().filter(|caller| caller.rip == write.instruction);
    let moved = Moved { loaded: read.value, stored: write.value };
    let registers = caller.map(|caller| caller.registers);
    cx.engine().carried(read.instruction, write.instruction, registers, Some(moved))
}

/// Readers of accesses get the register's, too.
#[cold]
fn hand_to_readers(cx: &Cx<'_>, access: RegisterAccess, made: Made, update: Option<&Update>) {
    let keeps = update.filter(|update| update.kept != 0).map_or(0, |update| {
        let carried = carried(cx, update.read, made);
        carried.bits(made.value) & update.kept
    });
    let RegisterAccess { port, write, address, .. } = access;
    let Made { value, instruction: code, .. } = made;
    cx.nt().deliver_register(&RegisterUse { port, address, write, value, keeps, code });
}

#[cold]
fn judge(cx: &mut Cx<'_>, access: RegisterAccess, write: Made, undone: &Undone) {
    let Undone { read, between, bits } = undone;
    let carried = carried(cx, *read, write);
    let bits = bits & carried.bits(write.value);
    if bits == 0 {
        return;
    }
    let name = cx.with(|k| k.hal.hardware.describe(access.port, access.address));
    let name = name.unwrap_or_else(|| {
        format!("the {} {:#x}", if access.port { "port" } else { "register at bus address" }, access.address)
    });
    let other = ldr::symbols::describe(cx, between.instruction);
    let message = format!(
        "the driver wrote {:#x} to {name}, with bits {bits:#x} as it had read them before: {other} has written {:#x} meanwhile, and what it \
         changed in these bits is undone",
        write.value, between.value
    );
    let related = [("read", read.event), ("written by another", between.event)];
    let related = related.map(|(what, event)| Related { what, event }).to_vec();
    cx.report(Verdict { related, ..Verdict::warning("register-update-lost", message) });
}
