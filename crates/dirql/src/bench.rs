//! What a machine is to be made of: cards, driver images, an INF, processors, a Windows version, readers, a policy.
//!
//! Everything the user gave is read and checked by [`Bench::start`], before a machine exists.

use std::path::{Path, PathBuf};

use devices::pci::Model;
use engine::{Chooser, Defaults};
use kernel::Settings;
use kernel::event::Reader;
use kernel::ldr;
use kernel::nt::WindowsVersion;

use crate::error::{Error, InputError};
use crate::files::{self, DriverFile};
use crate::inf::{self, Inf};
use crate::machine::{Machine, Plan};
use crate::play::Play;
use crate::readers::SymbolBook;

/// A card, as it was given.
pub(crate) enum Card {
    /// As typed after `--device`.
    Spec(String),
    /// Made by the test itself, inside the machine.
    Made(Box<dyn Fn() -> Box<dyn Model>>),
}

/// A machine to be.
///
/// ```no_run
/// # fn main() -> Result<(), dirql::Error> {
/// let machine = dirql::Bench::new().device("pci9052").driver("pci9052.sys").inf("pci9052.inf").start()?;
/// let card = machine.open(r"\\.\Pci9052-0")?;
/// card.write(&[0x3c])?;
/// machine.finish().expect_clean();
/// # Ok(())
/// # }
/// ```
pub struct Bench {
    pub(crate) cards: Vec<Card>,
    driver: Option<PathBuf>,
    inf: Option<PathBuf>,
    with: Vec<PathBuf>,
    pub(crate) settings: Settings,
    pub(crate) readers: Vec<Box<dyn Reader>>,
    pub(crate) chooser: Box<dyn Chooser>,
    pub(crate) symbols: SymbolBook,
    pub(crate) observed: bool,
}

/// Everything given, read and checked.
pub(crate) struct Inputs {
    pub(crate) driver: DriverFile,
    pub(crate) inf: Option<Inf>,
    pub(crate) with: Vec<DriverFile>,
    pub(crate) notes: Vec<String>,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// A machine with one processor, the newest Windows, no card and no driver.
    #[must_use]
    pub fn new() -> Self {
        Self {
            cards: Vec::new(),
            driver: None,
            inf: None,
            with: Vec::new(),
            settings: Settings::default(),
            readers: Vec::new(),
            chooser: Box::new(Defaults),
            symbols: SymbolBook::default(),
            observed: true,
        }
    }

    /// Puts a card on the bus: `MODEL[,key[=value]]…`, see `dirql devices`.
    #[must_use]
    pub fn device(mut self, spec: impl Into<String>) -> Self {
        self.cards.push(Card::Spec(spec.into()));
        self
    }

    /// Puts a card of the test's own on the bus. `make` is called twice: to look at it, and in the machine.
    #[must_use]
    pub fn card(mut self, make: impl Fn() -> Box<dyn Model> + 'static) -> Self {
        self.cards.push(Card::Made(Box::new(make)));
        self
    }

    /// The driver.
    #[must_use]
    pub fn driver(mut self, path: impl Into<PathBuf>) -> Self {
        self.driver = Some(path.into());
        self
    }

    /// Its INF: chooses it for the devices by hardware id, and writes its registry keys.
    #[must_use]
    pub fn inf(mut self, path: impl Into<PathBuf>) -> Self {
        self.inf = Some(path.into());
        self
    }

    /// Another driver image, loaded and initialised first, that the driver may import from.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>) -> Self {
        self.with.push(path.into());
        self
    }

    /// So many virtual processors, 1–64.
    #[must_use]
    pub fn processors(mut self, count: u32) -> Self {
        self.settings.processors = count;
        self
    }

    /// The Windows it is to be.
    #[must_use]
    pub fn windows(mut self, version: WindowsVersion) -> Self {
        self.settings.windows = version;
        self
    }

    /// Driver instructions after which one call counts as an endless loop.
    #[must_use]
    pub fn instruction_budget(mut self, instructions: u64) -> Self {
        self.settings.instruction_budget = instructions;
        self
    }

    /// Who decides what could go otherwise; by default everything goes its usual way.
    #[must_use]
    pub fn chooser(mut self, chooser: impl Chooser + 'static) -> Self {
        self.chooser = Box::new(chooser);
        self
    }

    /// Subscribes a reader of events, from the first one on.
    #[must_use]
    pub fn reader(mut self, reader: impl Reader + 'static) -> Self {
        self.readers.push(Box::new(reader));
        self
    }

    /// Without the readers behind a report's sums and hashes, which then stay empty: for measuring.
    #[must_use]
    pub fn unobserved(mut self) -> Self {
        self.observed = false;
        self
    }

    /// The names of the driver's routines, for readers that show them.
    #[must_use]
    pub fn symbols(&self) -> SymbolBook {
        self.symbols.clone()
    }

    /// Starts the machine: loads the images, installs and starts the driver on its devices.
    ///
    /// A driver that fails here, or breaks a rule, is no error of this call: [`Machine::finish`] tells.
    ///
    /// # Errors
    /// [`Error::Input`] if something given cannot be used; [`Error::Busy`] while another machine of this process is
    /// alive; [`Error::Host`] if this host cannot run one.
    pub fn start(self) -> Result<Machine, Error> {
        let inputs = self.read_inputs()?;
        Machine::start(self, inputs)
    }

    /// Whether the machine to be has what a script names.
    ///
    /// # Errors
    /// [`Error::Input`] if it has not, or something given cannot be used.
    pub fn check(&self, play: &Play) -> Result<(), Error> {
        let inputs = self.read_inputs()?;
        Ok(play.check(&Plan::new(self, &inputs)?)?)
    }

    fn read_inputs(&self) -> Result<Inputs, InputError> {
        if !(1..=64).contains(&self.settings.processors) {
            let count = self.settings.processors;
            return Err(InputError::new(format!(
                "{count} processors: a machine has 1 to 64; choose a number of these"
            )));
        }
        let Some(path) = &self.driver else {
            return Err(InputError::new("no driver is given; name a .sys file"));
        };
        for card in &self.cards {
            if let Card::Spec(spec) = card {
                card_of(spec)?;
            }
        }
        let driver = movable(path)?;
        let with = self.with.iter().map(|path| movable(path)).collect::<Result<Vec<_>, _>>()?;
        let inf = self.inf.as_deref().map(read_inf).transpose()?;
        if inf.is_some() && self.cards.is_empty() {
            let inf = self.inf.as_deref().unwrap_or(Path::new("")).display();
            return Err(InputError::new(format!(
                "{inf}: an INF chooses a driver for a device, and no device is given; add one (see `dirql devices`)"
            )));
        }
        let notes = with.iter().chain([&driver]).flat_map(|file| file.notes.clone()).collect();
        Ok(Inputs { driver, inf, with, notes })
    }
}

/// The card that a specification describes.
pub(crate) fn card_of(spec: &str) -> Result<Box<dyn Model>, InputError> {
    let read_file =
        |path: &str| files::read(Path::new(path), "the file of that key").map_err(|error| error.to_string());
    devices::parse(spec, &read_file).map_err(|error| InputError::new(error.to_string()))
}

/// A driver's file, which can be loaded where the machine has images.
fn movable(path: &Path) -> Result<DriverFile, InputError> {
    let file = DriverFile::read(path)?;
    match file.image.load_at(ldr::exports_base()) {
        Ok(_) => Ok(file),
        Err(error) => Err(InputError::new(format!("{}: {}", path.display(), error.problem))),
    }
}

fn read_inf(path: &Path) -> Result<Inf, InputError> {
    let bytes = files::read(path, "the INF file")?;
    Ok(inf::parse(&path.display().to_string(), &bytes)?)
}
