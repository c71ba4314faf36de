//! The end of a machine: handles closed, devices stopped and removed, drivers unloaded, and what came of it all.

use engine::{Flow, outside};
use kernel::Cx;
use kernel::io::{cancel, driver};
use kernel::ke::scheduler::{self, End};
use kernel::ke::{stack, thread};
use kernel::ldr;
use kernel::ob;
use kernel::pnp::{self, node};

use super::boot::{Loaded, LoadedDriver};
use super::{Machine, memory, on_system_thread};
use crate::report::Report;

impl Machine {
    /// Ends the machine, in the order an orderly system does, unless it has stopped; and tells what came of it.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if !self.nt().stopping() {
            self.wind_down();
        }
        let nt = self.nt();
        let engine = self.engine;
        let mut sums = self.readers.summary.sums();
        let (deepest, memory_hash) = self.inside(|nt| {
            let mut cx = nt.cx();
            cx.with(|k| (stack::deepest(k), outside(|| memory::hash(engine, k))))
        });
        sums.stacks.insert("any thread, DPC or ISR".to_owned(), deepest);
        let report = Report {
            verdict: nt.verdict(),
            findings: nt.findings(),
            failure: self.failure.borrow().clone(),
            our_fault: engine.panic_message(),
            sums,
            notes: self.notes.borrow().clone(),
            prints: self.readers.prints.lines(),
            trace_hash: self.readers.trace.value(),
            memory_hash,
            symbols: self.readers.symbols.clone(),
        };
        if let Some(Err(error)) = self.readers.coverage.as_ref().map(crate::readers::Coverage::append) {
            self.notes.borrow_mut().push(format!("the coverage file cannot be written: {error}"));
        }
        self.destroy();
        report
    }

    /// Closes, stops, removes, unloads.
    fn wind_down(&self) {
        let loaded = self.loaded.borrow().clone();
        let process = self.process.get();
        let notes = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let slot = std::rc::Rc::clone(&notes);
        let over = std::rc::Rc::new(std::cell::Cell::new(false));
        let flag = std::rc::Rc::clone(&over);
        self.inside(|nt| {
            let body: thread::Work = Box::new(move |cx| {
                cancel::rundown_thread(cx)?;
                ob::handle::close_all(cx, process)?;
                let note = on_system_thread(cx, "the system's shutdown", move |cx| shut_down(cx, &loaded))?;
                outside(|| slot.borrow_mut().extend(note.clone()));
                flag.set(true);
                Ok(())
            });
            if thread::spawn_application(&mut nt.cx(), "the end of the application", process, body).is_err() {
                return End::Stopped;
            }
            scheduler::run_until(nt, &mut |_| over.get())
        });
        self.notes.borrow_mut().extend(notes.take());
    }

    /// Takes the machine away.
    fn destroy(&mut self) {
        let engine = self.engine;
        if let Some(nt) = self.nt.take() {
            engine.run(&*nt, || nt.teardown());
            engine.inside(|| drop(nt));
            engine.finish();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Stops and removes every device, unloads the driver and then what it stood on. What the user should know of it.
fn shut_down(cx: &mut Cx<'_>, loaded: &Loaded) -> Flow<Vec<String>> {
    for device in pnp::devices(cx) {
        if node::state(cx, device.id) == node::State::Started {
            // A driver may refuse to be stopped; it is removed all the same.
            let _ = pnp::stop(cx, device.id)?;
        }
        if !matches!(node::state(cx, device.id), node::State::Enumerated | node::State::Deleted) {
            let _ = pnp::remove(cx, device.id)?;
        }
    }
    let mut notes = Vec::new();
    let all = loaded.driver.iter().chain(loaded.libraries.iter().rev());
    for LoadedDriver { base, object } in all {
        let Some(object) = object else {
            driver::unload_library(cx, *base)?;
            continue;
        };
        let name = cx.with(|k| ldr::image_name(k, *base).unwrap_or_default().to_owned());
        let status = driver::unload(cx, *object)?;
        if !status.is_success() {
            notes.push(format!("{name}: stays loaded, unloading it ends with {status}"));
        }
    }
    Ok(notes)
}
