//! Stories of a policy other than the default: it changes who goes first, and nothing else.

use std::cell::Cell;
use std::rc::Rc;

use dirql::{Bench, Report};
use engine::{Chooser, Point, SLICE_END};

use super::rig::{driver, play, start};

/// Lets others go first at every export, and counts how often it was asked; cuts driver code into slices.
#[derive(Clone)]
struct Restless {
    at_exports: Rc<Cell<u32>>,
    give_way: bool,
    slice: u64,
}

impl Chooser for Restless {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        if point != Point("ke.before_export") {
            return u32::from(point == SLICE_END);
        }
        self.at_exports.set(self.at_exports.get() + 1);
        self.give_way.into()
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        self.slice
    }
}

const TWO_WRITERS: &str = r#"open \\.\DirqlLegacy as one
open \\.\DirqlLegacy as two
a: write one text:"aaaa" at 0
b: write two text:"bbbb" at 8
join a
join b
read one 4 at 0 expect text:"aaaa"
read two 4 at 8 expect text:"bbbb""#;

/// How often the policy was asked at an export, and the run.
fn two_writers(give_way: bool, slice: u64) -> (u32, Report) {
    let at_exports = Rc::new(Cell::new(0));
    let policy = Restless { at_exports: at_exports.clone(), give_way, slice };
    let bench = || Bench::new().driver(driver("legacy.sys")).chooser(policy.clone());
    let machine = start(bench);
    play(&machine, TWO_WRITERS);
    let report = machine.finish();
    report.expect_clean();
    (at_exports.get(), report)
}

#[test]
fn at_an_export_the_policy_may_let_the_other_thread_go_first() {
    let (asked, quiet) = two_writers(false, u64::MAX);
    assert!(asked > 0, "two threads were ready while one called an export");
    let (_, restless) = two_writers(true, u64::MAX);
    assert_ne!(quiet.trace_hash, restless.trace_hash, "giving way changes the order of events");
}

#[test]
fn slices_of_one_instruction_interleave_two_writers_and_both_writes_arrive() {
    let (_, whole) = two_writers(false, u64::MAX);
    let (_, sliced) = two_writers(false, 1);
    assert_ne!(whole.trace_hash, sliced.trace_hash, "the threads were interleaved");
    let (_, again) = two_writers(false, 1);
    assert_eq!(sliced.trace_hash, again.trace_hash, "and the same way each time");
}
