//! A card on dirql's bench: the driver's own bytes, run against the model of a PCI 9052.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;

use dirql::{Bench, Handle, Machine};

use crate::card::{Card, Device};
use crate::codes;
use crate::error::{Error, Result};

/// The card's name in the machine.
const CARD: &str = "pci9052#0";
/// The name by which applications open the first card.
const PATH: &str = r"\\.\Pci9052-0";
/// How long nothing happens before the outside world acts, ns.
const PAUSE: u64 = 1_000_000;

/// What stands on the bench.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `pci9052.sys`, with its INF beside it.
    pub driver: PathBuf,
    /// The card, as `dirql run --device` takes it.
    pub device: String,
    /// What the outside world does while the driver waits for an interrupt: a signal of the card's and its value, one after the other.
    pub pokes: Vec<(String, u64)>,
}

/// Starts the machine, opens the card for `work`, and ends the machine.
///
/// # Errors
/// What `work` says; the machine cannot be made; the driver broke a rule, with the whole report.
pub fn with_card<R>(setup: &Setup, work: impl FnOnce(&Card<'_>) -> Result<R>) -> Result<R> {
    let bench = Bench::new().driver(&setup.driver).inf(setup.driver.with_extension("inf"));
    let machine = bench.device(&setup.device).checked(true).start().map_err(failed)?;
    let done = machine.open_overlapped(PATH).map_err(failed).and_then(|handle| {
        let pokes = RefCell::new(setup.pokes.iter().cloned().collect());
        work(&Card::new(&Opened { machine: &machine, handle, pokes }))
    });
    let report = machine.finish();
    if report.outcome() == dirql::Outcome::Clean { done } else { Err(Error::new(report.to_string())) }
}

fn failed(error: dirql::Error) -> Error {
    Error::new(error.to_string())
}

/// A file of the driver's, open on the bench.
struct Opened<'m> {
    machine: &'m Machine,
    handle: Handle<'m>,
    pokes: RefCell<VecDeque<(String, u64)>>,
}

impl Opened<'_> {
    /// The outside world does what comes next, if there is something left for it to do.
    fn poke(&self) -> Result<()> {
        let Some((signal, value)) = self.pokes.borrow_mut().pop_front() else { return Ok(()) };
        self.machine.wait(PAUSE).map_err(failed)?;
        self.machine.poke(CARD, &signal, value).map_err(failed)
    }
}

impl Device for Opened<'_> {
    fn control(&self, code: u32, input: &[u8], output: u32) -> Result<Vec<u8>> {
        if code != codes::WAIT {
            return self.handle.device_control(code, input, output).map_err(failed);
        }
        let request = self.handle.begin_device_control(code, input, output).map_err(failed)?;
        self.poke()?;
        let end = request.wait().map_err(failed)?;
        if end.status != 0 {
            let what = format!("DeviceIoControl on {PATH}");
            return Err(failed(dirql::Error::Status { what, status: end.status }));
        }
        Ok(end.data)
    }

    fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.handle.read_at(length, Some(offset)).map_err(failed)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.handle.write_at(bytes, Some(offset)).map_err(failed).map(|_| ())
    }
}
