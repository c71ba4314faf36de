//! For tests: machines with threads in Rust, compiled drivers, and a device whose line a test moves.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use engine::{Chooser, Defaults, Engine, Point, StartError};

use super::scheduler::{self, End};
use super::thread;
use crate::event::{Event, Kind, Reader, Stamp};
use crate::hal::hardware::{Function, Hardware, PciAddress, Refusal, Width};
use crate::{Cx, Nt, Settings};
use engine::Flow;

/// Runs `test` on the scheduler's stack of a machine with one processor.
pub(crate) fn machine(test: impl FnOnce(&mut Cx<'_>)) {
    Rig::default().run(test);
}

/// What a machine is made of.
pub(crate) struct Rig {
    pub(crate) settings: Settings,
    pub(crate) chooser: Box<dyn Chooser>,
    pub(crate) line: Rc<RefCell<Line>>,
}

impl Default for Rig {
    fn default() -> Self {
        Self { settings: Settings::default(), chooser: Box::new(Defaults), line: Rc::default() }
    }
}

impl Rig {
    pub(crate) fn processors(count: u32) -> Self {
        let mut rig = Self::default();
        rig.settings.processors = count;
        rig
    }

    /// Runs `test` in the machine; waits until no other test has one.
    pub(crate) fn run<R>(self, test: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let engine = loop {
            match Engine::start() {
                Ok(engine) => break engine,
                Err(StartError::Busy) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let hardware = OneLine(self.line);
        let nt = engine.inside(|| Nt::new(engine, &self.settings, Box::new(hardware), self.chooser));
        let outcome = engine.run(&nt, || {
            catch_unwind(AssertUnwindSafe(|| {
                nt.boot().unwrap();
                let result = test(&mut nt.cx());
                nt.teardown();
                engine::outside(|| result)
            }))
        });
        engine.inside(|| drop(nt));
        // The payload lies on the machine's heap, which ends here: only a copy of its words goes on.
        let outcome = outcome.map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text =
                text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
            std::mem::forget(payload);
            text
        });
        let inner = engine.panic_message();
        engine.finish();
        match (outcome, inner) {
            (Ok(result), None) => result,
            (Err(text), _) | (_, Some(text)) => panic!("{text}"),
        }
    }
}

/// A thread of an application's that runs `work`.
pub(crate) fn spawn(
    cx: &mut Cx<'_>,
    name: &str,
    work: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static,
) -> engine::StrandId {
    thread::spawn_application(cx, name, 0, Box::new(work)).unwrap()
}

/// Runs the machine until nothing can run.
pub(crate) fn settle(cx: &mut Cx<'_>) -> End {
    scheduler::run(cx.nt(), &mut |_| false)
}

/// The rule of the verdict that ended the machine.
pub(crate) fn rule(cx: &Cx<'_>) -> Option<&'static str> {
    cx.nt().verdict().map(|verdict| verdict.rule)
}

/// Its bug check code.
pub(crate) fn bug_check(cx: &Cx<'_>) -> Option<u32> {
    cx.nt().verdict().and_then(|verdict| verdict.bug_check).map(|check| check.code)
}

/// Its sentence.
pub(crate) fn message(cx: &Cx<'_>) -> String {
    cx.nt().verdict().map(|verdict| verdict.message).unwrap_or_default()
}

/// Words that threads leave in the order in which they run.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn say(&self, word: impl Into<String>) {
        let word = word.into();
        self.0.borrow_mut().push(word);
    }

    pub(crate) fn words(&self) -> String {
        self.0.borrow().join(" ")
    }
}

/// Everything that happens, as text, outside the machine.
#[derive(Clone, Default)]
pub(crate) struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    pub(crate) fn of(cx: &mut Cx<'_>) -> Self {
        let trace = engine::outside(Self::default);
        let reader = engine::outside(|| Box::new(trace.clone()));
        cx.nt().subscribe(reader);
        trace
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        engine::outside(|| self.0.borrow().clone())
    }
}

impl Reader for Trace {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let Stamp { number, time, processor, irql, strand } = stamp;
        self.0
            .borrow_mut()
            .push(format!("{number} t={time} p{processor} irql{irql} s{} {event:?}", strand.0));
    }
}

/// Answers from a list, then 0; slices of one length.
pub(crate) struct Scripted {
    pub(crate) answers: Vec<(&'static str, u32)>,
    pub(crate) slice: u64,
}

impl Chooser for Scripted {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        match self.answers.iter().position(|(name, _)| *name == point.0) {
            Some(at) => self.answers.remove(at).1.min(n - 1),
            None => 0,
        }
    }

    fn slice(&mut self, _strand: u32) -> u64 {
        self.slice
    }
}

/// Line 5 of a device: what a test and the device's one register do to it.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) asserted: bool,
    /// When it will be asserted by itself.
    pub(crate) at: Option<u64>,
}

/// The line of the rig's device.
pub(crate) const LINE: u32 = 5;

struct OneLine(Rc<RefCell<Line>>);

impl Hardware for OneLine {
    fn port_read(&mut self, _now: u64, _port: u16, _width: Width) -> Result<u32, Refusal> {
        Ok(self.0.borrow().asserted.into())
    }
    fn port_write(&mut self, _now: u64, _port: u16, _width: Width, value: u32) -> Result<(), Refusal> {
        self.0.borrow_mut().asserted = value != 0;
        Ok(())
    }
    fn memory_read(&mut self, _now: u64, _address: u64, _width: Width) -> Result<u64, Refusal> {
        Ok(u64::MAX)
    }
    fn memory_write(&mut self, _now: u64, _address: u64, _width: Width, _value: u64) -> Result<(), Refusal> {
        Ok(())
    }
    fn config_read(&mut self, _at: PciAddress, _offset: u8, _width: Width) -> u32 {
        u32::MAX
    }
    fn config_write(&mut self, _at: PciAddress, _offset: u8, _width: Width, _value: u32) {}
    fn functions(&self) -> Vec<Function> {
        Vec::new()
    }
    fn set_present(&mut self, _at: PciAddress, _present: bool) {}
    fn describe(&self, _port: bool, _address: u64) -> Option<String> {
        None
    }
    fn lines(&self) -> u64 {
        u64::from(self.0.borrow().asserted) << LINE
    }
    fn asserting(&self, line: u32) -> Vec<String> {
        if self.lines() & 1 << line != 0 { vec!["rig#0".to_owned()] } else { Vec::new() }
    }
    fn deadline(&self) -> Option<u64> {
        self.0.borrow().at
    }
    fn advance(&mut self, now: u64) {
        let mut line = self.0.borrow_mut();
        if line.at.is_some_and(|at| at <= now) {
            (line.asserted, line.at) = (true, None);
        }
    }
    fn poke(&mut self, _now: u64, device: &str, _signal: &str, _value: &str) -> Result<(), String> {
        Err(format!("there is no {device}"))
    }
}
