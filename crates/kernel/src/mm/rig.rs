//! For tests: a machine without hardware, and a place to stand in it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::{Defaults, Engine, StartError};

use crate::hal::hardware::{Function, Hardware, PciAddress, Refusal, Width};
use crate::{Cx, Nt, Settings};

/// Runs `test` in a machine of its own; waits until no other test has one.
pub(crate) fn machine(test: impl FnOnce(&mut Cx<'_>)) {
    machine_with(&Settings::default(), Vec::new(), test);
}

/// As [`machine`], with PCI functions to be found.
pub(crate) fn machine_with(settings: &Settings, functions: Vec<Function>, test: impl FnOnce(&mut Cx<'_>)) {
    let engine = loop {
        match Engine::start() {
            Ok(engine) => break engine,
            Err(StartError::Busy) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let hardware = Silent { functions };
    let nt = engine.inside(|| Nt::new(engine, settings, Box::new(hardware), Box::new(Defaults)));
    let outcome = engine.run(&nt, || catch_unwind(AssertUnwindSafe(|| test(&mut nt.cx()))));
    engine.inside(|| drop(nt));
    let failure = outcome.err().map(|payload| {
        // The payload lies on the machine's heap, which ends here: only a copy of its words goes on.
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
        std::mem::forget(payload);
        text
    });
    engine.finish();
    if let Some(text) = failure {
        panic!("{text}");
    }
}

/// The rule of the verdict that ended the machine.
pub(crate) fn verdict(cx: &Cx<'_>) -> Option<&'static str> {
    cx.nt().verdict().map(|verdict| verdict.rule)
}

/// Its sentence.
pub(crate) fn message(cx: &Cx<'_>) -> String {
    cx.nt().verdict().map(|verdict| verdict.message).unwrap_or_default()
}

/// Its bug check code and first parameter.
pub(crate) fn bug_check(cx: &Cx<'_>) -> Option<(u32, u64)> {
    cx.nt().verdict().and_then(|verdict| verdict.bug_check).map(|check| (check.code, check.parameters[0]))
}

/// Hardware that nobody answers from.
struct Silent {
    functions: Vec<Function>,
}

impl Hardware for Silent {
    fn port_read(&mut self, _now: u64, _port: u16, _width: Width) -> Result<u32, Refusal> {
        Ok(u32::MAX)
    }
    fn port_write(&mut self, _now: u64, _port: u16, _width: Width, _value: u32) -> Result<(), Refusal> {
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
        self.functions.clone()
    }
    fn describe(&self, _port: bool, _address: u64) -> Option<String> {
        None
    }
    fn lines(&self) -> u64 {
        0
    }
    fn asserting(&self, _line: u32) -> Vec<String> {
        Vec::new()
    }
    fn deadline(&self) -> Option<u64> {
        None
    }
    fn advance(&mut self, _now: u64) {}
    fn poke(&mut self, _now: u64, device: &str, _signal: &str, _value: &str) -> Result<(), String> {
        Err(format!("there is no {device}"))
    }
}
