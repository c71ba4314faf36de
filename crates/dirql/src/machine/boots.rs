//! One machine, booted again and again: taken back to where its kernel is up and nothing is loaded, and given another policy.
//!
//! Up to there no policy is asked. From there on everything happens as in a new machine: the driver is loaded, its translations are
//! made, its devices start. What a boot saves is a new process, reserving the machine's addresses, and reading the files again. A policy that
//! decides from the script on saves the driver's start, too: the machine is taken back to where that has gone its usual way.

use std::cell::RefCell;
use std::rc::Rc;

use engine::{Chooser, Compare, Defaults, Tracking, outside};
use explore::{Counted, Occurrences, Policy};
use image::Image;
use kernel::Nt;
use kernel::cm::absent::{self, Absent};
use kernel::hal::platform::Promptness;
use kernel::hal::writes::Sketch;

use super::Machine;
use super::boot::{self, Loaded, Work};
use super::explore::{Exploration, Mark, host};
use crate::bench::{Bench, Inputs};
use crate::error::Error;
use crate::play::{Play, device};
use crate::report::Report;

/// A machine that is booted as often as is asked.
pub struct Boots {
    machine: Machine,
    /// Where its kernel is up.
    bare: Place,
    work: Rc<Work>,
    started: Option<Started>,
    /// What drivers have asked the registry for in any boot and what was not there.
    absent: RefCell<Vec<Absent>>,
}

/// A place that the machine is taken back to, and what is known outside of a run that has come there.
struct Place {
    mark: Mark,
    /// The application's.
    process: u64,
    loaded: Loaded,
    notes: Vec<String>,
}

/// How prompt a driver's surroundings are, or how late it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tempo {
    /// The cards are so prompt,
    Cards(Promptness),
    /// or the drivers below are, which answer later.
    Below(Promptness),
    /// So many nanoseconds the computer has been running.
    Uptime(u64),
}

/// Where the driver is loaded and its devices are started.
struct Started {
    place: Place,
    /// What its surroundings' time is like, if not as the machine was described.
    tempo: Option<Tempo>,
    /// What was asked until then, if that was counted.
    asked: Option<Occurrences>,
}

impl Machine {
    /// How often drivers have written to devices.
    pub(crate) fn register_writes(&self) -> u64 {
        self.inside(|nt| nt.cx().with(|k| k.register_writes()))
    }

    /// How often drivers have looked how long the computer has been running.
    pub(crate) fn looks_at_uptime(&self) -> u64 {
        self.inside(|nt| nt.cx().with(|k| k.ke.looks_at_uptime()))
    }

    /// A sketch of what drivers have written to which registers.
    pub(crate) fn registers_written(&self) -> Sketch {
        self.inside(|nt| nt.cx().with(|k| k.registers_written()))
    }

    /// How many instructions drivers have come to, while [`Boots::keep_reached`].
    pub(crate) fn reached_count(&self) -> usize {
        self.host.reached_count()
    }

    /// What drivers have compared since this was asked last: see [`Boots::note_compares`].
    pub(crate) fn compared(&self) -> Vec<Compare> {
        self.host.compared()
    }

    /// A place where nothing has failed.
    fn place(&self) -> Result<Place, Error> {
        let (loaded, notes) = (self.loaded.borrow().clone(), self.notes.borrow().clone());
        Ok(Place { mark: self.mark()?, process: self.process.get(), loaded, notes })
    }

    /// Takes the machine back to a place. What is not named here has been taken back, or is the same in all runs.
    fn back_to(&self, place: &Place) {
        self.back(&place.mark);
        let Self {
            process,
            processes,
            loaded,
            overlapped,
            notes,
            failure,
            stuck,
            host: _,
            nt: _,
            readers: _,
            observed: _,
            dismissals: _,
            work: _,
            saved: _,
        } = self;
        process.set(place.process);
        processes.take();
        loaded.replace(place.loaded.clone());
        overlapped.take();
        notes.replace(place.notes.clone());
        failure.take();
        stuck.set(false);
    }
}

impl Boots {
    pub(crate) fn new(bench: Bench, inputs: Inputs) -> Result<Self, Error> {
        let (machine, work) = boot::make(bench, inputs)?;
        machine.host.track(Tracking::Faults).map_err(host)?;
        let bare = machine.place()?;
        Ok(Self { machine, bare, work, started: None, absent: RefCell::default() })
    }

    /// Boots the machine, with `policy` deciding; has `act` work with it, whether its driver is ready or not; and ends it. What comes of
    /// it is what would come of a machine of its own.
    ///
    /// # Errors
    /// [`Error::Input`] if something given cannot be used after all; [`Error::Stopped`].
    pub fn boot<R>(
        &mut self,
        policy: Box<dyn Chooser>,
        act: impl FnOnce(&Machine) -> R,
    ) -> Result<(R, Report), Error> {
        self.start(None, policy)?;
        Ok(self.end(act))
    }

    /// As [`Boots::boot`]; but the driver is loaded and started the usual way, and `policy` decides from there.
    ///
    /// # Errors
    /// As [`Boots::boot`].
    pub fn boot_to_script<R>(
        &mut self,
        policy: Box<dyn Chooser>,
        act: impl FnOnce(&Machine) -> R,
    ) -> Result<(R, Report), Error> {
        self.boot_with(None, policy, act)
    }

    /// As [`Boots::boot`], by a policy with its name.
    ///
    /// # Errors
    /// As [`Boots::boot`].
    pub fn boot_by<R>(
        &mut self,
        policy: Policy,
        act: impl FnOnce(&Machine) -> R,
    ) -> Result<(R, Report), Error> {
        // Up to the script that policy goes the usual way, too.
        let is_at_script = policy.is_at_script() || policy == Policy::default();
        let chooser = policy.chooser();
        if is_at_script { self.boot_to_script(chooser, act) } else { self.boot(chooser, act) }
    }

    /// As [`Boots::boot_to_script`], of a machine whose surroundings are so prompt, and not as it was described.
    pub(crate) fn boot_with<R>(
        &mut self,
        tempo: Option<Tempo>,
        policy: Box<dyn Chooser>,
        act: impl FnOnce(&Machine) -> R,
    ) -> Result<(R, Report), Error> {
        match &self.started {
            Some(started) if started.tempo == tempo => self.machine.back_to(&started.place),
            _ => {
                self.start(tempo, Box::new(Defaults))?;
                self.note_start(tempo, None)?;
            }
        }
        self.machine.nt().decide_by(policy);
        self.machine.inside(Nt::script_begins);
        Ok(self.end(act))
    }

    /// Boots the machine the usual way, registers of a card holding this from the beginning: whether its driver is ready, and what it has compared until then. What
    /// the card does not have, it does not hold.
    pub(crate) fn boot_holding(
        &mut self,
        card: &str,
        registers: &[(String, u32)],
    ) -> Result<(bool, Vec<Compare>), Error> {
        let Self { machine, bare, work, started, absent: _ } = self;
        *started = None;
        machine.back_to(bare);
        machine.nt().decide_by(Box::new(Defaults));
        machine.inside(|nt| {
            let mut cx = nt.cx();
            for (register, value) in registers {
                let _ = device::set(&mut cx, card, register, u64::from(*value));
            }
        });
        drop(machine.compared());
        machine.set_up(work)?;
        let (compared, is_ready) = (machine.compared(), machine.is_ready());
        let ((), _) = self.end(|_| ());
        Ok((is_ready, compared))
    }

    /// Boots the machine the usual way to where a script begins, for a search. If its driver is not ready there, that is the run's end.
    pub(crate) fn start_to_search(&mut self) -> Result<Option<Report>, Error> {
        match &self.started {
            Some(Started { place, tempo: None, asked: Some(_) }) => self.machine.back_to(place),
            _ => {
                let count = Counted::default();
                self.start(None, Box::new(count.clone()))?;
                self.note_start(None, Some(count))?;
            }
        }
        Ok((!self.machine.is_ready()).then(|| self.machine.end()))
    }

    /// Behind [`Boots::start_to_search`], of a driver that is ready: as [`Machine::explore`]. `explore` gets what was asked before, too.
    pub(crate) fn explore<R>(
        &self,
        play: &Play,
        explore: impl FnOnce(&mut Exploration<'_>, Occurrences) -> R,
    ) -> Result<R, Error> {
        let asked = self.started.as_ref().and_then(|started| started.asked.clone());
        self.machine.explore_tracked(play, |exploration| explore(exploration, asked.unwrap_or_default()))
    }

    /// The machine has been started the usual way. What has failed, or does not end, is gone through again each time.
    fn note_start(&mut self, tempo: Option<Tempo>, count: Option<Counted>) -> Result<(), Error> {
        if self.machine.is_ready() {
            let asked = count.map(|count| count.asked());
            self.started = Some(Started { place: self.machine.place()?, tempo, asked });
        }
        Ok(())
    }

    /// Takes the machine back to where its kernel is up, and has the driver loaded and started.
    fn start(&mut self, tempo: Option<Tempo>, policy: Box<dyn Chooser>) -> Result<(), Error> {
        let Self { machine, bare, work, started, absent: _ } = self;
        *started = None;
        machine.back_to(bare);
        machine.nt().decide_by(policy);
        if let Some(tempo) = tempo {
            machine.inside(|nt| {
                nt.cx().with(|k| {
                    let platform = &mut k.hal.platform;
                    platform.later_bus |= matches!(tempo, Tempo::Below(_));
                    match tempo {
                        Tempo::Cards(promptness) | Tempo::Below(promptness) => platform.cards = promptness,
                        Tempo::Uptime(time) => platform.uptime = time,
                    }
                });
            });
        }
        machine.set_up(work)
    }

    fn end<R>(&self, act: impl FnOnce(&Machine) -> R) -> (R, Report) {
        let result = act(&self.machine);
        self.note_absent();
        (result, self.machine.end())
    }
}

impl Boots {
    fn note_absent(&self) {
        let fresh: Vec<Absent> = self.machine.inside(|nt| nt.cx().with(|k| outside(|| k.cm.absent.clone())));
        let mut all = self.absent.borrow_mut();
        fresh.into_iter().for_each(|one| absent::add(&mut all, one, usize::MAX));
    }

    /// What drivers have asked the registry for in any boot and what was not there, in the order in which they did.
    #[must_use]
    pub(crate) fn absent(&self) -> Vec<Absent> {
        self.absent.borrow().clone()
    }

    /// The name of the driver's service.
    #[must_use]
    pub(crate) fn service(&self) -> &str {
        self.work.driver_service()
    }

    /// From now on it is kept which code of the driver's is come to, in all boots.
    pub fn keep_reached(&self) {
        self.machine.host.keep_reached();
    }

    /// From now on it is kept what the driver compares ([`Machine::compared`]), in all boots, or no more.
    pub(crate) fn note_compares(&self, on: bool) {
        self.machine.host.note_compares(on);
    }

    /// The instructions of the driver's that were come to since, as offsets in its image, sorted: whole blocks, up to a jump.
    #[must_use]
    pub fn reached(&self) -> Vec<u32> {
        self.machine.host.reached().into_iter().filter_map(|address| self.offset_in_driver(address)).collect()
    }

    /// Where in the driver's image an address is, if it is there.
    #[must_use]
    pub(crate) fn offset_in_driver(&self, address: u64) -> Option<u32> {
        let base = self.machine.loaded.borrow().driver.as_ref()?.base;
        let offset = u32::try_from(address.checked_sub(base)?).ok()?;
        (offset < self.driver_image().size()).then_some(offset)
    }

    /// The driver's image.
    pub(crate) fn driver_image(&self) -> &Image {
        self.work.driver_image()
    }
}

impl Drop for Boots {
    fn drop(&mut self) {
        self.machine.cover();
    }
}
