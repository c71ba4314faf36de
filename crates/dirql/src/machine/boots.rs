//! One machine, booted again and again: taken back to where its kernel is up and nothing is loaded, and given another policy.
//!
//! Up to there no policy is asked. From there on everything happens as in a new machine: the driver is loaded, its translations are
//! made, its devices start. What a boot saves is a new process, reserving the machine's addresses, and reading the files again.

use std::rc::Rc;

use engine::{Chooser, Tracking};
use image::Image;
use kernel::hal::platform::Promptness;

use super::Machine;
use super::boot::{self, Work};
use super::explore::{Mark, host};
use crate::bench::{Bench, Inputs};
use crate::error::Error;
use crate::report::Report;

/// A machine that is booted as often as is asked.
pub struct Boots {
    machine: Machine,
    mark: Mark,
    work: Rc<Work>,
    /// The application's.
    process: u64,
    notes: Vec<String>,
}

impl Machine {
    /// What is known outside of a run is forgotten: as if it had not begun. What is not named has been taken back, or is the same in all
    /// runs.
    fn forget(&mut self, application: u64, before: &[String]) {
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
        process.set(application);
        processes.take();
        loaded.take();
        overlapped.take();
        notes.replace(before.to_vec());
        failure.take();
        stuck.set(false);
    }
}

impl Boots {
    pub(crate) fn new(bench: Bench, inputs: Inputs) -> Result<Self, Error> {
        let (machine, work) = boot::make(bench, inputs)?;
        machine.host.track(Tracking::Faults).map_err(host)?;
        let mark = machine.mark()?;
        let (process, notes) = (machine.process.get(), machine.notes.borrow().clone());
        Ok(Self { machine, mark, work, process, notes })
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
        self.boot_with(None, policy, act)
    }

    /// As [`Boots::boot`], of a machine whose cards are so prompt, and not as it was described.
    pub(crate) fn boot_with<R>(
        &mut self,
        cards: Option<Promptness>,
        policy: Box<dyn Chooser>,
        act: impl FnOnce(&Machine) -> R,
    ) -> Result<(R, Report), Error> {
        let Self { machine, mark, work, process, notes } = self;
        machine.back(mark);
        machine.nt().decide_by(policy);
        machine.forget(*process, notes);
        if let Some(cards) = cards {
            machine.inside(|nt| nt.cx().with(|k| k.hal.platform.cards = cards));
        }
        machine.set_up(work)?;
        let result = act(machine);
        Ok((result, machine.end()))
    }
}

impl Boots {
    /// From now on it is kept which code of the driver's is come to, in all boots.
    pub fn keep_reached(&self) {
        self.machine.host.keep_reached();
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
