//! `dpc-stalls`: a DPC routine busies its processor with `KeStallExecutionProcessor` for more than 100 microseconds in one call of it. `long-dpc` and
//! `long-service-routine`: it, or a service routine, takes longer in all by the machine's clock, by which an instruction takes one nanosecond and an access to
//! a device what buses need: advice, as how fast a processor is, no driver decides.
//!
//! Pages: *Guidelines for Writing DPC Routines*, by which a DPC routine runs no longer than 100 microseconds, and hands the rest to a
//! CustomTimerDpc or a work item; *Example 15: Measuring DPC/ISR Time*, of 25 microseconds of a service routine. One stall that is long at any level is the
//! kernel's `long-stall`, too. What a service routine takes that interrupts the DPC is its own. *It does not* measure where another processor works meanwhile:
//! the clock is that of all.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use engine::StrandId;
use kernel::event::{Class, Event, Kind, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "dpc-stalls";
/// A DPC routine's time, in microseconds,
const MOST: u64 = 100;
/// and a service routine's.
const MOST_OF_SERVICE: u64 = 25;

/// A routine that came between and has not returned.
#[derive(Clone, Copy)]
struct Open {
    class: Class,
    routine: u64,
    /// Microseconds that it has stalled, in so many calls.
    stalled: u64,
    calls: u64,
    reported: bool,
    /// When it was called, and how long others took that came between, in nanoseconds.
    began: u64,
    others: u64,
    /// Another processor has worked meanwhile.
    is_disturbed: bool,
}

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct DpcStalls {
    /// By strand, innermost last.
    open: BTreeMap<StrandId, Vec<Open>>,
    /// The strand of the event before.
    last: Option<StrandId>,
    found: Option<Verdict>,
}

impl Follower for DpcStalls {
    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Enter | Kind::Leave | Kind::Call)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        if self.last.replace(stamp.strand) != Some(stamp.strand) {
            let others = self.open.iter_mut().filter(|(strand, _)| **strand != stamp.strand);
            others.flat_map(|(_, open)| open).for_each(|open| open.is_disturbed = true);
        }
        match event {
            Event::Enter { role, routine, .. } if matters(role.class()) => {
                let (class, routine) = (role.class(), *routine);
                let open = Open {
                    class,
                    routine,
                    stalled: 0,
                    calls: 0,
                    reported: false,
                    began: stamp.time,
                    others: 0,
                    is_disturbed: false,
                };
                self.open.entry(stamp.strand).or_default().push(open);
            }
            Event::Leave { role, .. } if matters(role.class()) => {
                let Some(open) = self.open.get_mut(&stamp.strand) else { return };
                let Some(left) = open.pop() else { return };
                let whole = stamp.time - left.began;
                if let Some(around) = open.last_mut() {
                    around.others += whole;
                }
                self.found = left.was_long((whole - left.others).saturating_sub(1_000 * left.stalled));
            }
            Event::Call { export, arguments, .. } if is_stall(*export) => {
                let inside = self.open.get_mut(&stamp.strand).and_then(|open| open.last_mut());
                let message = inside.and_then(|inside| inside.stalls(arguments[0] & 0xFFFF_FFFF));
                self.found = message.map(|message| Verdict::warning("dpc-stalls", message));
            }
            _ => {}
        }
    }

    fn shows(&self) -> bool {
        self.found.is_some()
    }

    fn found(&mut self) -> Option<Verdict> {
        self.found.take()
    }
}

impl Open {
    /// It has returned, and has taken so many nanoseconds of its own, besides what it stalled.
    fn was_long(&self, nanoseconds: u64) -> Option<Verdict> {
        let (rule, what, most) = match self.class {
            Class::Isr => ("long-service-routine", "service", MOST_OF_SERVICE),
            _ => ("long-dpc", "DPC", MOST),
        };
        if nanoseconds <= most * 1_000 || self.reported || self.is_disturbed {
            return None;
        }
        let (routine, microseconds) = (self.routine, nanoseconds / 1_000);
        let message = format!(
            "the {what} routine {routine:#x} took {microseconds} microseconds besides what it stalled, by the machine's clock (one nanosecond an instruction, and what accesses to devices take): it should be over after {most}"
        );
        Some(Verdict::advice(rule, message))
    }

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

#[cfg(test)]
mod tests {
    use kernel::event::Role;

    use super::*;
    use crate::rig::{enter, leave};

    /// The rules of what is found at these times, in microseconds, each on its strand.
    fn found(events: impl IntoIterator<Item = (u64, u32, Event)>) -> Vec<&'static str> {
        let mut stalls = DpcStalls::default();
        let rules = (0..).zip(events).filter_map(|(number, (time, strand, event))| {
            let strand = StrandId(strand);
            stalls.follow(&Stamp { number, time: time * 1_000, processor: 0, irql: 0, strand }, &event);
            stalls.found().map(|verdict| verdict.rule)
        });
        rules.collect()
    }

    #[test]
    fn a_routine_is_not_charged_with_one_that_comes_between() {
        let nested = |service: u64, behind: u64| {
            [
                (0, 1, enter(Role::DpcForIsr, 0)),
                (10, 1, enter(Role::Isr, 0)),
                (10 + service, 1, leave(Role::Isr)),
                (10 + service + behind, 1, leave(Role::DpcForIsr)),
            ]
        };
        assert!(found(nested(25, 90)).is_empty());
        assert_eq!(found(nested(26, 90)), ["long-service-routine"]);
        assert_eq!(found(nested(25, 91)), ["long-dpc"]);
    }

    #[test]
    fn where_another_processor_works_meanwhile_nothing_is_known() {
        let call = || Event::Call { export: 0, arguments: [0; 4], caller: 0 };
        let run = |strand| [(0, 1, enter(Role::Isr, 0)), (5, strand, call()), (50, 1, leave(Role::Isr))];
        assert_eq!(found(run(1)), ["long-service-routine"]);
        assert!(found(run(2)).is_empty());
    }
}
