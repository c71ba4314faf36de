//! Accesses of driver code as the guest hears of them: one for each stretch of memory that an instruction is about to load or store, once for
//! each time that the instruction runs.
//!
//! They come by the inspections of `inspect`, which find out where an instruction's accesses lie. An instruction that will fault because of its
//! memory reports nothing, a repeated string instruction what it does before it faults. Not reported: devices, which have their own events, what lies
//! behind `gs`, what the stack pointer alone addresses (locals, `push`, `call`, `ret`), the fetching of instructions. An instruction that faults for
//! another reason (its operand is not aligned as it asks, a division by zero) has reported its accesses all the same.

use std::cell::Cell;

use iced_x86::Register;

use super::classify::{adds, is_interlocked};
use super::exit::{charge, take_back};
use super::inspect::{Inspected, Stretch};
use super::operands::Operand;
use super::{noted, site};
use crate::arena::arena;
use crate::clock::clock;
use crate::guest::{AccessKind, MemoryAccess, Reports};
use crate::leave::Flow;
use crate::machine::state;
use crate::strand::StrandId;
use crate::windows::{DRIVER_MEMORY, PAGE};
use crate::{memory, page_table};

/// Whether, and how, accesses are reported to the live machine's guest.
#[derive(Default)]
pub(crate) struct Reporting {
    how: Cell<Reports>,
}

impl Reporting {
    /// Whether they are at all.
    pub(crate) fn is_on(&self) -> bool {
        self.how.get() != Reports::None
    }

    /// Whether they are written down, and reported when the kernel is next entered ([`super::noted`]).
    pub(crate) fn is_noted(&self) -> bool {
        self.how.get() == Reports::Noted
    }

    /// From now on so. True if that is a change.
    pub(crate) fn switch(&self, how: Reports) -> bool {
        memory::set_reported(how != Reports::None);
        self.how.replace(how) != how
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        memory::set_reported(false);
    }
}

/// The instruction whose accesses were reported last: who was about to run it, and when. It is inspected again where it has to begin anew, at the same
/// time (its translation was thrown away, or turns out to need another). Taken back with the machine.
#[derive(Default)]
pub(crate) struct Reported(Cell<Option<(StrandId, u64, u64)>>);

impl Reported {
    /// The instruction at `rip` is about to run; false if that was known.
    fn is_news(&self, rip: u64) -> bool {
        let now = Some((arena().strands.current(), rip, clock().now()));
        self.0.replace(now) != now
    }
}

/// Whether an access by these registers is reported.
pub(super) fn is_reported(gs: bool, base: Register, index: Register) -> bool {
    !gs && (base != Register::RSP || index != Register::None)
}

/// The same of one whose registers are known when it is translated.
pub(super) fn reports_of(operand: &Operand) -> bool {
    is_reported(operand.gs, operand.base, operand.index)
}

/// Reports what an instruction that is about to run will do to memory; its block has charged `unretired` instructions that have not run, it
/// included.
pub(super) fn report(inspected: &Inspected, stretches: &[Stretch], unretired: u32) -> Flow<()> {
    let instruction = inspected.instruction();
    let Some(done) = done(stretches) else { return Ok(()) };
    take_back(unretired);
    if arena().reported.is_news(instruction.ip())
        && let Err(leave) = report_each(inspected, stretches, done)
    {
        // Whatever comes of that: if the instruction is run after all, it is another time.
        arena().reported.0.set(None);
        return Err(leave);
    }
    charge(unretired);
    if state().reporting.is_noted() {
        noted::open_on_stack();
    }
    Ok(())
}

/// Its loads first.
fn report_each(inspected: &Inspected, stretches: &[Stretch], done: u64) -> Flow<()> {
    let instruction = inspected.instruction();
    let (rip, interlocked) = (instruction.ip(), is_interlocked(instruction));
    for kind in [AccessKind::Load, AccessKind::Update, AccessKind::Store] {
        let reported =
            stretches.iter().filter(|stretch| stretch.kind == Some(kind) && is_memory(stretch.address));
        for stretch in reported {
            let (address, bytes) = stretch.first(done);
            let atomic = interlocked && kind == AccessKind::Update;
            let adds = atomic && adds(instruction);
            let stored_back = inspected.stored_back().filter(|_| kind == AccessKind::Load);
            let access = MemoryAccess { address, bytes, kind, atomic, adds, stored_back, rip };
            state().guest().accesses(&access)?;
        }
    }
    Ok(())
}

pub(super) fn is_memory(address: u64) -> bool {
    DRIVER_MEMORY.into_iter().any(|window| window.contains(address))
}

/// How many elements of each stretch the instruction gets to; none if it faults before it has done anything.
fn done(stretches: &[Stretch]) -> Option<u64> {
    let reported = stretches.iter().filter_map(|stretch| Some(there(stretch, stretch.kind?)));
    reported.min().filter(|least| *least > 0)
}

/// How many elements of a stretch, in the order in which they are accessed, may be accessed so.
fn there(stretch: &Stretch, kind: AccessKind) -> u64 {
    let Stretch { address, bytes, element, down, .. } = *stretch;
    if site::is_device(address) {
        return bytes / element;
    }
    let allowed = |page: u64| {
        let protection = page_table::get(page).protection();
        (kind == AccessKind::Store || protection.read) && (kind == AccessKind::Load || protection.write)
    };
    let end = address.saturating_add(bytes);
    let mut good = 0;
    while good < bytes {
        let (page, more) = if down {
            let last = end - good - 1;
            (last, last % PAGE + 1)
        } else {
            let first = address + good;
            (first, PAGE - first % PAGE)
        };
        if !allowed(page) {
            break;
        }
        good += more;
    }
    good.min(bytes) / element
}
