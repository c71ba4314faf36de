//! Calls that fail where they could succeed: each one once, while a story runs.

use std::cell::RefCell;
use std::rc::Rc;

use dirql::{Bench, Outcome};
use engine::{Chooser, Point};

/// Which calls fail, of those that could: from the one with this number on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// That one.
    One,
    /// All.
    All,
}

struct Fails {
    nth: u32,
    which: Failing,
    asked: Rc<RefCell<u32>>,
}

impl Chooser for Fails {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        if !point.0.starts_with("fault.") {
            return 0;
        }
        let asked = &mut *self.asked.borrow_mut();
        *asked += 1;
        u32::from(*asked == self.nth || self.which == Failing::All && *asked > self.nth)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// Tells a story again and again, with other calls failing each time, until none is left that could: no rule is broken, and nothing is left
/// behind. How many could fail.
#[track_caller]
pub(crate) fn whichever_fails(bench: impl Fn() -> Bench, which: Failing, script: &str) -> u32 {
    for nth in 1.. {
        let asked = Rc::new(RefCell::new(0));
        let chooser = Fails { nth, which, asked: Rc::clone(&asked) };
        let machine = bench().chooser(chooser).start().unwrap_or_else(|error| panic!("{error}"));
        // Without a device, or a handle to it, its commands fail.
        let _ = super::try_play(&machine, script);
        let report = machine.finish();
        let wrong = matches!(report.outcome(), Outcome::Broken | Outcome::OurFault);
        assert!(!wrong, "call {nth} fails: {report}");
        assert!(report.findings.is_empty(), "call {nth} fails: {report}");
        assert_eq!(report.sums.still_allocated(), 0, "call {nth} fails: {report}");
        if *asked.borrow() < nth {
            return nth - 1;
        }
    }
    unreachable!("a story has an end")
}
