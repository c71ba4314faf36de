//! Details: events that only a reader who asks for them gets. Compiled drivers make each kind of them, they fit together, and a run in which
//! they are read is the run in which they are not.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dirql::{Bench, Report};
use engine::StrandId;
use kernel::event::{Event, Kind, LockKind, Reader, Stamp};
use rig::{QUEUE, checks_made, driver, play, start};

/// Keeps all details. A clone is the same.
#[derive(Clone, Default)]
struct Details(Rc<RefCell<Vec<(Stamp, Event)>>>);

impl Reader for Details {
    fn wants(&self, _kind: Kind) -> bool {
        false
    }

    fn wants_detail(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.0.borrow_mut().push((*stamp, event.clone()));
    }
}

/// All that correct.sys can tell, and then the requests of queue.sys; and the details of both, if they are asked for.
fn run(sys: &str, asked: bool) -> (Report, Vec<(Stamp, Event)>) {
    let details = Details::default();
    let machine = start(|| {
        let bench = Bench::new().driver(driver(sys));
        if asked { bench.reader(details.clone()) } else { bench }
    });
    if sys == "queue.sys" {
        play(&machine, QUEUE);
    } else {
        for name in rig::stories(&machine, CORRECT).unwrap() {
            checks_made(&machine, CORRECT, &name, &[]).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
    let report = machine.finish();
    report.expect_clean();
    let all = details.0.take();
    (report, all)
}

const CORRECT: &str = r"\\.\DirqlCorrect";
const DRIVERS: [&str; 2] = ["correct.sys", "queue.sys"];

#[test]
fn each_kind_of_detail_comes_from_a_compiled_driver() {
    let mut seen: BTreeMap<Kind, u32> = BTreeMap::new();
    for sys in DRIVERS {
        run(sys, true).1.iter().for_each(|(_, event)| *seen.entry(event.kind()).or_default() += 1);
    }
    let details = Kind::ALL.iter().filter(|kind| kind.is_detail());
    let missing: Vec<&Kind> = details.filter(|kind| !seen.contains_key(kind)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

#[test]
fn a_run_whose_details_are_read_is_the_run_without() {
    for sys in DRIVERS {
        let [(unread, none), (read, _)] = [false, true].map(|asked| run(sys, asked));
        assert!(none.is_empty());
        let of = |report: &Report| {
            (report.trace_hash, report.memory_hash, report.sums.time, report.prints.clone())
        };
        assert_eq!(of(&unread), of(&read), "{sys}");
    }
}

/// What begins and has not ended.
#[derive(Default)]
struct Open {
    locks: BTreeMap<u64, Vec<StrandId>>,
    timers: BTreeSet<u64>,
    items: BTreeSet<u64>,
    irps: BTreeSet<u64>,
    locked: BTreeSet<u64>,
    mapped: BTreeSet<(u64, u64)>,
}

impl Open {
    /// What is wrong with an event, if anything is.
    fn follow(&mut self, stamp: &Stamp, event: &Event) -> bool {
        match *event {
            Event::LockAcquired { lock, kind } => {
                let holders = self.locks.entry(lock).or_default();
                let alone =
                    !matches!(kind, LockKind::SharedSpin | LockKind::SharedResource | LockKind::Resource);
                holders.push(stamp.strand);
                alone && holders.len() > 1
            }
            Event::LockReleased { lock, .. } => self.locks.get_mut(&lock).and_then(Vec::pop).is_none(),
            Event::TimerSet { timer, .. } => {
                self.timers.insert(timer);
                false
            }
            Event::TimerFired { timer } => !self.timers.contains(&timer),
            Event::TimerCancelled { timer } => !self.timers.remove(&timer),
            Event::WorkQueued { item, .. } => !self.items.insert(item),
            Event::WorkRun { item } => !self.items.remove(&item),
            Event::IrpAllocated { irp, .. } => !self.irps.insert(irp),
            Event::MdlLocked { mdl, pages } => !self.locked.insert(mdl) || pages == 0,
            Event::MdlUnlocked { mdl } => !self.locked.remove(&mdl),
            Event::MdlMapped { mdl, address } => !self.mapped.insert((mdl, address & !0xFFF)),
            Event::MdlUnmapped { mdl, address } => !self.mapped.remove(&(mdl, address)),
            Event::IrpFreed { irp } => {
                self.irps.remove(&irp);
                false
            }
            _ => false,
        }
    }
}

#[test]
fn what_begins_ends_and_nothing_ends_that_has_not_begun() {
    for sys in DRIVERS {
        let mut open = Open::default();
        for (stamp, event) in run(sys, true).1 {
            assert!(!open.follow(&stamp, &event), "{sys}: {stamp:?} {event:?}");
        }
        open.locks.retain(|_, holders| !holders.is_empty());
        assert!(open.locks.is_empty(), "{sys}: {:?}", open.locks);
        assert!(open.items.is_empty() && open.irps.is_empty(), "{sys}: {:?} {:?}", open.items, open.irps);
        assert!(
            open.locked.is_empty() && open.mapped.is_empty(),
            "{sys}: {:?} {:?}",
            open.locked,
            open.mapped
        );
    }
}
