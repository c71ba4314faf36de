//! `register-update-lost`: a driver reads a register, changes some bits and writes the rest back as it was, and another flow of control of the driver's
//! has written the register in between: what that has changed is undone. Pages: *Using Critical Sections*, *Introduction to Spin Locks*.
//!
//! It is said only where it happened, and where it is certain: that the bits come from the earlier read follows from the driver's instructions
//! ([`engine::Engine::carried`]) and from the masks that they have in registers, and that the register keeps them was seen in this run, of reads that gave what was written. *It does not* see
//! registers that are never read, nor those of one instruction (`or dword ptr`), which one processor does not divide; of registers whose places in the
//! table are the same, it knows the one accessed last.
//!
//! The bits may have been kept in memory, by who reads the register once and clocks some of its bits in one request ([`Clocking`]): that they come from the
//! read does not follow from instructions then. It is said where the request has written the register twice with the same rest before the other's write, and does
//! so once more.

use engine::{Carried, Moved, StrandId};

use super::access::RegisterAccess;
use crate::cx::{Cx, Kernel};
use crate::event::{Class, RegisterUse};
use crate::ldr;
use crate::verdict::{Related, Verdict};
use crate::witness;

/// So many registers are known.
const REGISTERS: u64 = 128;
/// So many reads of one register are remembered, that something may yet be written for.
const READS: usize = 4;
/// So many requests that write one register are remembered.
const CLOCKING: usize = 2;

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
    /// Of a write in a dispatch routine: which of its thread's routines that is.
    request: Option<u64>,
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
    /// The requests that have written it last.
    clocking: [Option<Clocking>; CLOCKING],
}

/// What one request writes to a register that it has read.
#[derive(Clone, Copy)]
struct Clocking {
    /// The read before the first one.
    read: Made,
    last: Made,
    /// Bits that all its writes have alike,
    steady: u64,
    /// and how many there were.
    writes: u32,
}

impl Clocking {
    /// What another has changed in a request of its own since the last write, and this write sets back.
    fn undone(&self, between: Option<Made>, write: Made, kept: u64) -> Option<Undone> {
        let is_meanwhile = |between: &Made| {
            between.request.is_some()
                && between.by.strand != write.by.strand
                && between.event > self.last.event
        };
        let between = between.filter(is_meanwhile)?;
        let is_alike = |one: u64, other: u64| !(one ^ other);
        let own =
            self.steady & is_alike(self.last.value, write.value) & is_alike(self.last.value, self.read.value);
        let bits = own & (self.last.value ^ between.value) & kept;
        // It has bits that it changes, and others which it has read and keeps.
        let is_clocking =
            self.writes > 1 && self.steady != u64::MAX && own & !bits & write.value & between.value != 0;
        (bits != 0 && is_clocking).then_some(Undone { read: self.read, between, bits })
    }
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
#[derive(Clone, Copy)]
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
        Self {
            place,
            kept: 0,
            changed: 0,
            written: None,
            reads: [None; READS],
            oldest: 0,
            clocking: [None; CLOCKING],
        }
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

    fn write(&mut self, write: Made) -> Written {
        let before = self.written.replace(write);
        let own = self.reads.iter_mut().find(|known| known.is_some_and(|known| known.by == write.by));
        let read = own.and_then(Option::take);
        let update = read.map(|read| {
            let between = before.filter(|before| before.by != write.by && before.event > read.event);
            Update { read, between, kept: self.keeps() }
        });
        let clocked = write.request.and_then(|_| self.clock(write, read, before));
        Written { update, clocked }
    }

    /// Someone has read it and may change what was read: which request writes it matters only then.
    fn is_read(&self) -> bool {
        self.clocking[0].is_some() || self.reads.iter().any(Option::is_some)
    }

    /// Bits that it is known to keep.
    const fn keeps(&self) -> u64 {
        self.kept & !self.changed
    }

    /// A request writes the register, which was written `before`, and has `read` it since its last write.
    fn clock(&mut self, write: Made, read: Option<Made>, before: Option<Made>) -> Option<Undone> {
        let kept = self.keeps();
        let is_own = |known: &&mut Clocking| (known.last.by, known.last.request) == (write.by, write.request);
        if let Some(known) = self.clocking.iter_mut().flatten().find(is_own) {
            let undone = known.undone(before, write, kept);
            known.steady &= !(known.last.value ^ write.value);
            (known.last, known.writes) = (write, known.writes + 1);
            return undone;
        }
        let read = read?;
        self.clocking.rotate_right(1);
        self.clocking[0] = Some(Clocking { read, last: write, steady: u64::MAX, writes: 1 });
        None
    }
}

/// What a write of a driver's means.
#[derive(Default)]
struct Written {
    update: Option<Update>,
    /// What it has undone with bits that its request had written before.
    clocked: Option<Undone>,
}

/// A register was read or written.
#[inline]
pub(super) fn accessed(cx: &mut Cx<'_>, access: RegisterAccess, value: u64) {
    let event = witness::moment(cx);
    let engine = cx.engine();
    let by = Flow { strand: engine.strand(), depth: engine.depth() };
    let mut made = Made { by, value, instruction: engine.caller_rip(), event, request: None };
    let Written { update, clocked } = cx.with(|k| {
        let place = (access.address, access.port);
        if access.write && k.hal.lost_updates.at(place).is_read() {
            made.request = request(k);
        }
        let register = k.hal.lost_updates.at(place);
        if access.write {
            return register.write(made);
        }
        register.read(made);
        Written::default()
    });
    if let Some(undone) = update.as_ref().and_then(|update| update.undone(made)) {
        judge(cx, access, made, &undone);
    }
    if let Some(undone) = clocked {
        tell(cx, access, made, &undone);
    }
    if cx.nt().reads_accesses() {
        hand_to_readers(cx, access, made, update.as_ref());
    }
}

/// Which of its thread's requests is being dispatched, if nothing has interrupted that.
fn request(k: &mut Kernel) -> Option<u64> {
    let thread = k.ke.thread()?;
    let is_request = thread.callouts.first()?.role.class() == Class::Dispatch;
    let number = thread.begun;
    (is_request && k.ke.processor().entered.is_empty()).then_some(number)
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
    let bits = undone.bits & carried(cx, undone.read, write).bits(write.value);
    if bits != 0 {
        tell(cx, access, write, &Undone { bits, ..*undone });
    }
}

fn tell(cx: &mut Cx<'_>, access: RegisterAccess, write: Made, undone: &Undone) {
    let Undone { read, between, bits } = undone;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of an EEPROM, and what others set.
    const CLOCK: u64 = 1;
    const PIN: u64 = 0x10;
    const REST: u64 = 0x100;

    /// An access to a register: the thread, the request that writes (0: an interrupt; none reads), and the value.
    type Step = (u32, Option<u64>, u64);

    /// Bits that are undone by writes of requests that have kept them.
    fn undone(steps: &[Step]) -> u64 {
        let mut register = Register::new((0x1000, false));
        let mut bits = 0;
        for (event, &(strand, request, value)) in (1..).zip(steps) {
            let by = Flow { strand: StrandId(strand), depth: 1 };
            let made = Made { by, value, instruction: 0x2000, event, request: request.filter(|&it| it != 0) };
            match request {
                Some(_) => bits |= register.write(made).clocked.map_or(0, |undone| undone.bits),
                None => register.read(made),
            }
        }
        bits
    }

    /// The register keeps its bits; one request reads it and clocks twice, and another one has set a pin.
    const BEHIND: [Step; 7] = [
        (7, Some(1), PIN | REST | CLOCK),
        (7, None, PIN | REST | CLOCK),
        (7, Some(2), REST),
        (1, None, REST),
        (1, Some(1), REST | CLOCK),
        (1, Some(1), REST),
        (2, Some(1), REST | PIN),
    ];

    #[test]
    fn what_a_request_has_kept_undoes_what_another_has_written_between_its_clocks() {
        let then = |steps: &[Step]| undone(&[&BEHIND, steps].concat());
        assert_eq!(then(&[(1, Some(1), REST | CLOCK)]), PIN);
        assert_eq!(
            then(&[(1, None, REST | PIN), (1, Some(1), REST | CLOCK)]),
            PIN,
            "it has read what it undoes"
        );
        assert_eq!(then(&[(1, Some(1), REST | PIN | CLOCK)]), 0, "it writes what the other has written");
        assert_eq!(then(&[(1, Some(2), REST | CLOCK)]), 0, "another request of the same thread");
        assert_eq!(then(&[(1, Some(1), CLOCK)]), 0, "it keeps nothing");
    }

    #[test]
    fn a_request_that_has_changed_nothing_yet_or_waits_for_its_own_interrupt_undoes_nothing() {
        let once = [&BEHIND[..5], &BEHIND[6..], &[(1, Some(1), REST)]].concat();
        assert_eq!(undone(&once), 0, "one write before the other's");
        let mut by_no_request = BEHIND.to_vec();
        by_no_request[6].1 = Some(0);
        assert_eq!(undone(&[&by_no_request[..], &[(1, Some(1), REST | CLOCK)]].concat()), 0);
    }
}
