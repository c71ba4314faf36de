//! `dpc-stalls`: a DPC routine busies its processor with `KeStallExecutionProcessor` for more than 100 microseconds in one call of it.
//!
//! Page: *Guidelines for Writing DPC Routines*, by which a DPC routine runs no longer than 100 microseconds, and hands the rest to a
//! CustomTimerDpc or a work item. One stall that is long at any level is the kernel's `long-stall`, too. *It does not* measure what the
//! routine does otherwise: how fast a processor is, no driver decides. What a service routine stalls that interrupts the DPC is its own.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use engine::StrandId;
use kernel::event::{Class, Event, Kind, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "dpc-stalls";
/// A DPC routine's time, in microseconds.
const MOST: u64 = 100;

/// A routine that came between and has not returned.
#[derive(Clone, Copy)]
struct Open {
    class: Class,
    routine: u64,
    /// Microseconds that it has stalled, in so many calls.
    stalled: u64,
    calls: u64,
    reported: bool,
}

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct DpcStalls {
    /// By strand, innermost last.
    open: BTreeMap<StrandId, Vec<Open>>,
    found: Option<String>,
}

impl Follower for DpcStalls {
    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Enter | Kind::Leave | Kind::Call)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        match event {
            Event::Enter { role, routine, .. } if matters(role.class()) => {
                let (class, routine) = (role.class(), *routine);
                let open = Open { class, routine, stalled: 0, calls: 0, reported: false };
                self.open.entry(stamp.strand).or_default().push(open);
            }
            Event::Leave { role, .. } if matters(role.class()) => {
                self.open.get_mut(&stamp.strand).map(Vec::pop);
            }
            Event::Call { export, arguments, .. } if is_stall(*export) => {
                let inside = self.open.get_mut(&stamp.strand).and_then(|open| open.last_mut());
                self.found = inside.and_then(|inside| inside.stalls(arguments[0] & 0xFFFF_FFFF));
            }
            _ => {}
        }
    }

    fn found(&mut self) -> Option<Verdict> {
        let message = self.found.take()?;
        Some(Verdict::warning("dpc-stalls", message))
    }
}

impl Open {
    /// It stalls for so many microseconds more. What there is to say, once.
    fn stalls(&mut self, microseconds: u64) -> Option<String> {
        (self.stalled, self.calls) = (self.stalled + microseconds, self.calls + 1);
        if self.class != Class::Dpc || self.stalled <= MOST || self.reported {
            return None;
        }
        self.reported = true;
        let Self { routine, stalled, calls, .. } = self;
        Some(format!(
            "the DPC routine {routine:#x} has stalled its processor for {stalled} microseconds in {calls} calls of KeStallExecutionProcessor: \
             it should be over after {MOST}"
        ))
    }
}

/// Whether a routine of this class has an account of its own.
fn matters(class: Class) -> bool {
    matches!(class, Class::Isr | Class::Dpc)
}

fn is_stall(export: u32) -> bool {
    static ROW: OnceLock<Option<u32>> = OnceLock::new();
    let find =
        || (0..).find(|row| exports::row(*row).is_none_or(|row| row.name == "KeStallExecutionProcessor"));
    *ROW.get_or_init(find) == Some(export)
}
