//! What a run of a small machine ends with, as searches of it in several ways are compared by.
#![allow(dead_code, reason = "each test program uses its part of it")]

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use dirql::{Bench, Platform, Play, Report, ScriptText};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::driver;
use super::small_machines::SmallMachine;

impl SmallMachine {
    pub(crate) fn bench(&self) -> Bench {
        let own = driver(self.driver);
        let inf = self.inf(own.parent().unwrap(), || super::folder(self.name));
        let mut bench = Bench::new().driver(own).processors(self.processors).checked(self.checked);
        if let Some(inf) = inf {
            bench = bench.inf(inf);
        }
        if let Some(card) = self.card {
            bench = bench.device(card);
        }
        if let Some(platform) = self.platform {
            bench = bench.platform(platform.parse::<Platform>().unwrap());
        }
        bench
    }

    pub(crate) fn play(&self) -> Play {
        ScriptText::typed(self.script).play().unwrap()
    }
}

const STATUS_PENDING: u32 = 0x103;

/// A request of an application, or how it ended.
#[derive(Clone)]
enum Said {
    Asked(u64, String),
    Answered(u64, String),
}

/// What applications ask, and what they are answered. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Answers(Rc<RefCell<Vec<Said>>>);

impl Reader for Answers {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Request | Kind::Answer)
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let said = match event {
            Event::Request { name, file, code, .. } => {
                Said::Asked(stamp.number, format!("{name} {file} {:x}", code.unwrap_or(0)))
            }
            Event::Answer { request, status, information, .. } if *status != STATUS_PENDING => {
                Said::Answered(*request, format!("{status:x} {information}"))
            }
            _ => return,
        };
        self.0.borrow_mut().push(said);
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.borrow().len()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        if let Some(length) = saved.downcast_ref() {
            self.0.borrow_mut().truncate(*length);
        }
    }
}

impl Answers {
    /// Each request with its answer, sorted: in which order they came is no outcome.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let (mut asked, mut answered) = (BTreeMap::new(), Vec::new());
        for said in &*self.0.borrow() {
            match said {
                Said::Asked(number, what) => drop(asked.insert(*number, what.clone())),
                Said::Answered(number, how) => answered.push(format!("{}: {how}", asked[number])),
            }
        }
        answered.sort();
        answered
    }
}

/// The verdict's rule, the findings', what failed of the script, what the driver printed, and what applications were answered. Not
/// addresses, times and numbers of events: they differ between schedules that end alike.
pub(crate) fn outcome(report: &Report, answers: &Answers) -> String {
    let mut text = String::new();
    for rule in super::rules(report) {
        let _ = writeln!(text, "{rule}");
    }
    if let Some(failure) = &report.failure {
        // What stands in parentheses of a request that does not end is where it is, and since when.
        let message = failure.message.split(" (").next().unwrap_or_default();
        let _ = writeln!(text, "{}: {message}", failure.place);
    }
    let _ = write!(text, "{:?} {:?} {:?}", report.our_fault, report.prints, answers.sorted());
    text
}
