//! The end of a machine: handles closed, devices stopped and removed, drivers unloaded, and what came of it all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use abi::NtStatus;
use engine::{Flow, StrandId, outside};
use kernel::io::{self, cancel, driver};
use kernel::kd::print;
use kernel::ke::{self, scheduler};
use kernel::ke::{depth, stack, thread};
use kernel::ldr;
use kernel::ob;
use kernel::pnp::{self, node, serve_again};
use kernel::verdict::Verdict;
use kernel::{Cx, Nt, po, ps, wdf};

use super::Machine;
use super::boot::{Loaded, LoadedDriver};
use crate::archive;
use crate::bench::Saved;
use crate::readers::{Coverage, export_name};
use crate::reg;
use crate::report::{Dismissed, Failure, Report, dismissals};

impl Machine {
    /// Ends the machine, in the order an orderly system does, unless it has stopped; and tells what came of it.
    #[must_use]
    pub fn finish(self) -> Report {
        let report = self.end();
        self.cover();
        report
    }

    /// The same, and the machine stays where it ended.
    pub(super) fn end(&self) -> Report {
        self.end_processes();
        let process = self.process.get();
        let notes =
            self.inside(|nt| wind_down(nt, process, &self.overlapped.borrow(), &self.loaded.borrow()));
        self.notes.borrow_mut().extend(notes);
        self.inside(Nt::conclude);
        self.save();
        self.report(self.failure.borrow().clone(), &[])
    }

    /// Writes what is on drive `C:`, and in the registry, if that is wanted.
    fn save(&self) {
        let Saved { files, registry } = &mut *self.saved.borrow_mut();
        let note = |what: &str, written: std::io::Result<()>| {
            if let Err(error) = written {
                self.notes.borrow_mut().push(format!("{what} cannot be written: {error}"));
            }
        };
        if let (Some(out), Some(files)) = (files, self.files()) {
            note("the archive of drive C:", archive::write(&files, out).and_then(|()| out.flush()));
        }
        if let Some(out) = registry {
            let bytes = reg::encode(&self.registry());
            note("the file of the registry", out.write_all(&bytes).and_then(|()| out.flush()));
        }
    }

    /// Writes down which exports were called, if that is wanted.
    pub(super) fn cover(&self) {
        if let Some(Err(error)) = self.readers.coverage.as_ref().map(Coverage::append) {
            self.notes.borrow_mut().push(format!("the coverage file cannot be written: {error}"));
        }
    }

    /// What has come of it by now.
    pub(super) fn report(&self, failure: Option<Failure>, more: &[String]) -> Report {
        let nt = self.nt();
        let engine = *self.host;
        self.inside(|nt| print::flush(&mut nt.cx()));
        let mut sums = self.readers.summary.sums();
        let memory_hash = if self.observed { self.memory_hash() } else { 0 };
        let (deepest, depths) = self
            .inside(|nt| nt.cx().with(|k| (outside(|| stack::deepest(k)), outside(|| depth::measured(k)))));
        (sums.stacks, sums.routine_stacks) = (deepest, depths);
        (sums.time, sums.irql_high_water) = (engine.now(), engine.highest_level());
        for (row, calls) in nt.calls_of_exports() {
            *sums.exports.entry(export_name(row)).or_default() += calls;
        }
        if let Some(coverage) = &self.readers.coverage {
            coverage.add(sums.exports.keys().copied());
        }
        let symbols = &self.readers.symbols;
        let verdict = nt.verdict();
        let framework_logs = match verdict {
            Some(_) => self.inside(|nt| nt.cx().with(|k| outside(|| wdf::log::all(k)))),
            None => Vec::new(),
        };
        let in_lines =
            |verdict: Verdict| Verdict { message: symbols.with_lines(&verdict.message), ..verdict };
        let mut dismissed = Vec::new();
        let mut counts = |verdict: Verdict| {
            let verdict = in_lines(verdict);
            let Some(by) = dismissals::of(&self.dismissals, &verdict, symbols) else { return Some(verdict) };
            dismissed.push(Dismissed { verdict, by: by.clone() });
            None
        };
        let findings = nt.findings().into_iter().filter_map(&mut counts).collect();
        let ended = verdict.is_some();
        let verdict = verdict.and_then(&mut counts);
        let mut notes: Vec<String> = self.notes.borrow().iter().chain(more).cloned().collect();
        if ended && verdict.is_none() {
            notes.push(
                "the run ended at what is dismissed: what would have come behind it is not known".to_owned(),
            );
        }
        Report {
            verdict,
            findings,
            dismissed,
            failure: failure
                .map(|failure| Failure { message: symbols.with_lines(&failure.message), ..failure }),
            our_fault: engine.panic_message(),
            sums,
            notes,
            prints: self.readers.prints.lines(),
            trace_hash: self.readers.trace.value(),
            memory_hash,
            events: nt.cx().next_event(),
            framework_logs,
            witnessed: nt.witnessed(),
            departures: nt.departures(),
            checked: engine.is_checked(),
            symbols: self.readers.symbols.clone(),
        }
    }

    /// Takes away what lies in the machine, which ends with its host's side.
    fn destroy(&mut self) {
        if let Some(nt) = self.nt.take() {
            self.host.run(&*nt, || nt.teardown());
            self.host.inside(|| drop(nt));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Closes, stops, removes, unloads, unless the machine has stopped. Inside a run. What the user should know of it lies
/// outside the machine.
pub(super) fn wind_down(nt: &Nt, process: u64, overlapped: &[ob::Handle], loaded: &Loaded) -> Vec<String> {
    if nt.stopping() {
        return Vec::new();
    }
    if nt.cx().with(|k| po::system::is_off(k)) {
        return outside(|| {
            vec![
                "the system was shut down: its devices are not removed and its drivers not unloaded"
                    .to_owned(),
            ]
        });
    }
    let (loaded, overlapped) = (loaded.clone(), overlapped.to_vec());
    let notes = Rc::new(RefCell::new(Vec::new()));
    let slot = Rc::clone(&notes);
    have_devices_serve_again(nt);
    // The process ends with its last thread, and the system goes on without it.
    let exit: thread::Work = Box::new(move |cx| {
        cancel::rundown_thread(cx)?;
        for handle in overlapped {
            cancel::rundown_file(cx, handle)?;
        }
        ob::handle::close_all(cx, process)
    });
    let rest: thread::Work = Box::new(move |cx| {
        ps::process::end(cx, process)?;
        *slot.borrow_mut() = shut_down(cx, &loaded)?;
        Ok(())
    });
    let done =
        run(nt, exit, |cx, work| thread::spawn_application(cx, "end of the application", process, work));
    if done && run(nt, rest, |cx, work| thread::spawn(cx, "system's shutdown", work)) {
        // Of a driver that stays loaded a routine may stand in the middle, on another processor.
        scheduler::run_until(nt, &mut |nt| nt.cx().with(|k| stack::processors_are_free(k)));
    }
    outside(|| notes.borrow().clone())
}

/// Has devices serve again, if an application's thread waits for that.
pub(crate) fn have_devices_serve_again(nt: &Nt) {
    if nt.cx().with(|k| serve_again::is_waited_for(k)) {
        let serving: thread::Work = Box::new(serve_again::serve_again);
        run(nt, serving, |cx, work| thread::spawn(cx, "PnP manager", work));
    }
}

/// Has a thread that `spawn` makes do the work. Whether it came to its end.
pub(super) fn run(
    nt: &Nt,
    work: thread::Work,
    spawn: impl FnOnce(&mut Cx<'_>, thread::Work) -> Flow<StrandId>,
) -> bool {
    let over = Rc::new(Cell::new(false));
    let flag = Rc::clone(&over);
    let body: thread::Work = Box::new(move |cx| {
        work(cx)?;
        flag.set(true);
        Ok(())
    });
    if spawn(&mut nt.cx(), body).is_ok() {
        scheduler::run_until(nt, &mut |_| over.get());
    }
    over.get()
}

/// Whether no driver has a device any more.
fn is_removed(cx: &mut Cx<'_>, id: pnp::NodeId) -> bool {
    matches!(node::state(cx, id), node::State::Enumerated | node::State::Deleted)
}

/// Stops every device, as for new resources, starts it again with others and removes it; unloads the driver and then what it stood on. What the
/// user should know of it.
fn shut_down(cx: &mut Cx<'_>, loaded: &Loaded) -> Flow<Vec<String>> {
    let mut notes = pnp::installer::notes(cx);
    io::integrity::check_all(cx)?;
    ke::integrity::check_all(cx)?;
    if cx.with(|k| po::system::sleeps(k)) {
        let _ = po::system::set(cx, abi::PowerSystemWorking)?;
    }
    pnp::usage::end_all(cx)?;
    for device in pnp::devices(cx) {
        if device.detected {
            // A driver that has detected its device may know nothing else of Plug and Play.
            if pnp::detected::answers(cx, device.id)? {
                let _ = pnp::remove(cx, device.id)?;
            }
            continue;
        }
        // A driver may refuse to be stopped; it is removed all the same.
        if node::state(cx, device.id) == node::State::Started
            && pnp::stop(cx, device.id)?.is_success()
            && let Err(failure) = pnp::elsewhere::restart(cx, device.id)?
        {
            notes.push(format!("{}: stopped, it does not start again: {failure}", device.name));
        }
        if !is_removed(cx, device.id) {
            let status = pnp::remove(cx, device.id)?;
            // One that was gone may have been removed before its turn came.
            if !status.is_success() && !is_removed(cx, device.id) {
                notes.push(format!("{}: stays, its removal ends with {status}", device.name));
            }
        }
    }
    let given: Vec<_> =
        loaded.driver.iter().chain(&loaded.libraries).filter_map(|given| given.object).collect();
    for other in driver::loaded_by_name(cx, &given) {
        let status = driver::unload(cx, other)?;
        if !status.is_success() {
            let name = driver::service(cx, other);
            notes.push(format!("{name}: stays loaded, unloading it ends with {status}"));
        }
    }
    let mut deferred = Vec::new();
    let all = loaded.driver.iter().chain(loaded.libraries.iter().rev());
    for LoadedDriver { base, object } in all {
        let Some(object) = object else {
            driver::unload_library(cx, *base)?;
            continue;
        };
        if !cx.with(|k| driver::is_loaded(k, *object)) {
            continue; // another driver has had it unloaded
        }
        let name = cx.with(|k| ldr::image_name(k, *base).unwrap_or_default().to_owned());
        let service = driver::service(cx, *object);
        wdf::library::leave(cx, &service)?;
        let status = driver::unload(cx, *object)?;
        if status == NtStatus::PENDING {
            deferred.push((name, *object));
        } else if !status.is_success() {
            notes.push(format!("{name}: stays loaded, unloading it ends with {status}"));
        }
    }
    for (name, object) in deferred {
        if cx.with(|k| driver::is_loaded(k, object)) {
            notes.push(format!("{name}: stays loaded, a file on one of its devices is still open"));
        }
    }
    Ok(notes)
}
