//! What a machine is to be made of: cards, driver images, an INF, processors, files of the registry, a Windows version, readers, a policy.
//!
//! Everything the user gave is read and checked by [`Bench::start`], before a machine exists.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use devices::pci::Model;
use devices::root::RootSpec;
use engine::{Chooser, Cpu, Defaults, Jail};
use explore::Policy;
use kernel::Settings;
use kernel::etw::TraceProviders;
use kernel::event::Reader;
use kernel::fs::Folder;
use kernel::hal::platform::Platform;
use kernel::ldr;
use kernel::mm::special_pool::SpecialPool;
use kernel::nt::WindowsVersion;
use kernel::verifier::Verifier;

use crate::error::{Error, InputError};
use crate::files::{self, DriverFile};
use crate::folder;
use crate::framework;
use crate::inf::{self, Inf};
use crate::machine::{Boots, Machine, Plan};
use crate::play::Play;
use crate::processor;
use crate::readers::SymbolBook;
use crate::reg::{self, RegFile};
use crate::report::{Dismissal, Report};

/// The least and the most bytes of memory that a machine can have.
const LEAST_MEMORY: u64 = 16 << 20;
const MOST_MEMORY: u64 = 4 << 30;

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
    pub(crate) driver: Option<PathBuf>,
    pub(crate) infs: Vec<PathBuf>,
    pub(crate) with: Vec<PathBuf>,
    /// Which of these must be a framework.
    pub(crate) framework: Option<PathBuf>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) settings: Settings,
    pub(crate) readers: Vec<Box<dyn Reader>>,
    /// The names of those that judge.
    pub(crate) judges: Vec<&'static str>,
    pub(crate) chooser: Box<dyn Chooser>,
    pub(crate) symbols: SymbolBook,
    pub(crate) observed: bool,
    pub(crate) jail: Option<Jail>,
    pub(crate) registry: Vec<GivenRegistry>,
    pub(crate) saved: Saved,
    pub(crate) dismissals: Vec<Dismissal>,
}

/// What is to be in the registry, as it was given.
#[derive(Clone)]
pub(crate) enum GivenRegistry {
    File(PathBuf),
    /// The text of a file, by this name.
    Text {
        name: String,
        text: String,
    },
    /// One value, as [`Bench::registry_value`] has it.
    Value(String),
}

/// Where what is to be kept of a machine goes at its end.
#[derive(Default)]
pub(crate) struct Saved {
    /// What is on drive `C:`.
    pub(crate) files: Option<Box<dyn Write>>,
    /// What the registry holds.
    pub(crate) registry: Option<Box<dyn Write>>,
}

/// Everything given, read and checked.
pub(crate) struct Inputs {
    pub(crate) driver: DriverFile,
    pub(crate) infs: Vec<Inf>,
    pub(crate) with: Vec<DriverFile>,
    pub(crate) folder: Option<Rc<Folder>>,
    pub(crate) registry: Vec<RegFile>,
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
            infs: Vec::new(),
            with: Vec::new(),
            framework: None,
            folder: None,
            settings: Settings::default(),
            readers: Vec::new(),
            judges: Vec::new(),
            chooser: Box::new(Defaults),
            symbols: SymbolBook::default(),
            observed: true,
            jail: None,
            registry: Vec::new(),
            saved: Saved::default(),
            dismissals: Vec::new(),
        }
    }

    /// Puts a card on the bus: `MODEL[,key[=value]]…`, see `dirql devices`; or a device on no bus: `root[,id=ID]`. Without either, an INF that
    /// names `Root\\NAME` has the device that it is for.
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

    /// Its INF: chooses it for the devices by hardware id, and writes its registry keys. There may be several, as for a bus driver and the
    /// drivers of its children: for each device the one that fits it best counts.
    #[must_use]
    pub fn inf(mut self, path: impl Into<PathBuf>) -> Self {
        self.infs.push(path.into());
        self
    }

    /// Another driver image, loaded and initialised first, that the driver may import from; or the framework that it runs on, `Wdf01000.sys`,
    /// which comes before all others.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>) -> Self {
        self.with.push(path.into());
        self
    }

    /// The framework that a KMDF driver runs on, `Wdf01000.sys`: as [`Bench::with`], of a file that must be one.
    #[must_use]
    pub fn framework(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.framework = Some(path.clone());
        self.with(path)
    }

    /// What is below this folder of the host's is drive `C:`, and its folder `Windows` is `\SystemRoot`. It is read before the machine is
    /// made, which works on a copy: the folder stays as it is. [`Machine::files`] tells what the copy has become.
    #[must_use]
    pub fn files(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Writes what is on drive `C:` at the machine's end as a tar archive.
    #[must_use]
    pub fn save_files(mut self, archive: impl Write + 'static) -> Self {
        self.saved.files = Some(Box::new(archive));
        self
    }

    /// Keys and values that are in the registry before the driver is loaded, as a registry file (`.reg`) has them: they win over what INFs write,
    /// in the keys of services, devices, and anywhere else. There may be several, one behind the other.
    #[must_use]
    pub fn registry(mut self, file: impl Into<PathBuf>) -> Self {
        self.registry.push(GivenRegistry::File(file.into()));
        self
    }

    /// The same, by the text of such a file; `name` is what messages call it.
    #[must_use]
    pub fn registry_text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.registry.push(GivenRegistry::Text { name: name.into(), text: text.into() });
        self
    }

    /// One value that is in the registry before the driver is loaded, as `KEY\NAME=DATA`; `KEY\` alone is a key. Key and data are written as in a registry file, and
    /// the name without quotes: `HKLM\System\CurrentControlSet\Services\card\Parameters\Depth=dword:1`.
    #[must_use]
    pub fn registry_value(mut self, value: impl Into<String>) -> Self {
        self.registry.push(GivenRegistry::Value(value.into()));
        self
    }

    /// Writes what the registry holds at the machine's end as a registry file: UTF-16, as the Registry Editor does. [`Machine::registry`] tells it at any time.
    #[must_use]
    pub fn save_registry(mut self, file: impl Write + 'static) -> Self {
        self.saved.registry = Some(Box::new(file));
        self
    }

    /// So many virtual processors, 1–64.
    #[must_use]
    pub fn processors(mut self, count: u32) -> Self {
        self.settings.processors = count;
        self
    }

    /// So many processors in a group: 1, 2, 4, … 64, as Windows' boot option `groupsize` has it. By default all are in one.
    #[must_use]
    pub fn group_size(mut self, processors: u32) -> Self {
        self.settings.group_size = processors;
        self
    }

    /// Tests each access of driver code against a byte shadow before it happens: pool beyond its ends or freed, paged memory at
    /// raised IRQL, applications' memory elsewhere, stores into dirql itself are reported at their instruction. Slower, and
    /// otherwise the same: the same events at the same instructions and addresses.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.settings.checked = checked;
        self
    }

    /// Whether it is to be a checked one.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.settings.checked
    }

    /// The processor that driver code finds: x86-64-v2 unless said otherwise.
    #[must_use]
    pub fn processor(mut self, cpu: Cpu) -> Self {
        self.settings.cpu = cpu;
        self
    }

    /// The Windows it is to be.
    #[must_use]
    pub fn windows(mut self, version: WindowsVersion) -> Self {
        self.settings.windows = version;
        self
    }

    /// Notes where the schedule departs from the usual, for the report: which thread gave way, where, to which.
    #[must_use]
    pub fn narrated(mut self) -> Self {
        self.settings.narrated = true;
        self
    }

    /// Driver Verifier's options: what only Verifier would stop for is a finding in every run, and an error with its option.
    #[must_use]
    pub fn verifier(mut self, options: Verifier) -> Self {
        self.settings.verifier = options;
        self
    }

    /// Kernel stacks of so many bytes, a multiple of a page: 24 KiB unless said otherwise, as on x64; on x86 they have 12.
    #[must_use]
    pub fn stack(mut self, bytes: u64) -> Self {
        self.settings.stack = bytes;
        self
    }

    /// Measures how deep each routine of the driver goes into its stack, for the report. Each call of one costs more then, and finds
    /// zeroes in the stack below it.
    #[must_use]
    pub fn stack_depths(mut self, measured: bool) -> Self {
        self.settings.stack_depths = measured;
        self
    }

    /// The drivers whose blocks of pool lie on pages of their own, beside a page that is never mapped: an access beyond a block, or to
    /// a freed one, stops at its instruction, in a machine that is not checked too.
    #[must_use]
    pub fn special_pool(mut self, whose: SpecialPool) -> Self {
        self.settings.special_pool = whose;
        self
    }

    /// So many bytes of paged, and as many of nonpaged, pool may be charged to each process but the system's (`ExAllocatePoolWithQuotaTag` and its like):
    /// beyond them such a call fails with STATUS_QUOTA_EXCEEDED. Without it there is no limit.
    #[must_use]
    pub fn quota(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.settings.quota = bytes.into();
        self
    }

    /// A trace session, begun before the driver is loaded, has enabled these providers of events: their enable callbacks run, and what
    /// they write is in the trace. By default there is no session.
    #[must_use]
    pub fn trace_providers(mut self, providers: TraceProviders) -> Self {
        self.settings.trace_providers = providers;
        self
    }

    /// So many bytes of memory can be given out, to the driver, to applications, and to what the kernel keeps for them; beyond them a
    /// call fails that asks for more. 256 MiB unless said otherwise.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.settings.memory = bytes;
        self
    }

    /// Driver instructions after which one call counts as an endless loop.
    #[must_use]
    pub fn instruction_budget(mut self, instructions: u64) -> Self {
        self.settings.instruction_budget = instructions;
        self
    }

    /// How many nanoseconds of virtual time a request may take while drivers are busy and nothing comes of it: a minute, if not
    /// said otherwise.
    #[must_use]
    pub fn patience(mut self, nanoseconds: u64) -> Self {
        self.settings.patience = nanoseconds;
        self
    }

    /// The kind of computer: what reaches a driver's paths that an ordinary PC does not.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.settings.platform = platform;
        self
    }

    /// Who decides what could go otherwise; by default everything goes its usual way.
    #[must_use]
    pub fn chooser(mut self, chooser: impl Chooser + 'static) -> Self {
        self.chooser = Box::new(chooser);
        self
    }

    /// As [`Bench::chooser`], for one that is in a box already.
    #[must_use]
    pub fn decided_by(mut self, chooser: Box<dyn Chooser>) -> Self {
        self.chooser = chooser;
        self
    }

    /// Decides by a policy that has a name.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.chooser = policy.chooser();
        self
    }

    /// Subscribes a reader of events, from the first one on.
    #[must_use]
    pub fn reader(mut self, reader: impl Reader + 'static) -> Self {
        self.readers.push(Box::new(reader));
        self
    }

    /// Attaches readers that judge: [`crate::rules::judges`] says which there are.
    #[must_use]
    pub fn rules(mut self, judges: &[rules::Judge]) -> Self {
        self.readers.extend(judges.iter().map(|judge| (judge.make)()));
        self.judges.extend(judges.iter().map(|judge| judge.name));
        self
    }

    /// Looks for data races: accesses of the driver's to the same memory that nothing orders, whether or not they meet in this run (`docs/races.md`).
    /// As [`Bench::rules`] with the judge `data-race`; several times slower.
    #[must_use]
    pub fn races(self, on: bool) -> Self {
        let has = self.judges.contains(&rules::RACES);
        if on && !has { self.rules(&[rules::races()]) } else { self }
    }

    /// Findings that do not count: each is reported with its reason, and a run in which there is nothing else is clean.
    #[must_use]
    pub fn dismiss(mut self, dismissals: impl IntoIterator<Item = Dismissal>) -> Self {
        self.dismissals.extend(dismissals);
        self
    }

    /// Without the readers behind a report's sums and hashes, which then stay empty: for measuring.
    #[must_use]
    pub fn unobserved(mut self) -> Self {
        self.observed = false;
        self
    }

    /// Locks the calling thread into `jail` before the first driver instruction, for ever. Only for a process that runs one
    /// machine and then ends: it can open nothing any more. `dirql run` does so in a process of its own.
    #[must_use]
    pub fn jailed(mut self, jail: Jail) -> Self {
        self.jail = Some(jail);
        self
    }

    /// The names of the driver's routines, for readers that show them.
    #[must_use]
    pub fn symbols(&self) -> SymbolBook {
        self.symbols.clone()
    }

    /// Starts the machine: loads the images, installs and starts the driver on its devices.
    ///
    /// A process has one machine at a time: while another thread has one, this waits until it is finished or dropped. So the tests of
    /// one program need nothing of their own to run beside each other (and gain nothing by it; `cargo nextest` runs each in a process).
    ///
    /// A driver that fails here, or breaks a rule, is no error of this call: [`Machine::finish`] tells.
    ///
    /// # Errors
    /// [`Error::Input`] if something given cannot be used; [`Error::Busy`] if this thread has a machine
    /// already; [`Error::Host`] if this host cannot run one.
    pub fn start(self) -> Result<Machine, Error> {
        let inputs = self.read_inputs()?;
        Machine::start(self, inputs)
    }

    /// A machine that is booted as often as is asked, each time as if it were new, with another policy: see [`Boots::boot`]. Nothing is
    /// loaded yet. Readers of the caller's own are taken back as far as they can be ([`Reader::save`]).
    ///
    /// # Errors
    /// As [`Bench::start`]; [`Error::Host`] also if this host cannot watch the machine's memory.
    pub fn boots(self) -> Result<Boots, Error> {
        let inputs = self.read_inputs()?;
        Boots::new(self, inputs)
    }

    /// Starts the machine, carries a script out in it if the driver is ready for one (without one, leaves it alone for 100 ms
    /// of its time), and ends it.
    ///
    /// # Errors
    /// As [`Bench::start`]; what goes wrong in the machine stands in the report.
    pub fn run(self, play: Option<Play>) -> Result<Report, Error> {
        if let Some(play) = &play {
            self.check(play)?;
        }
        Ok(self.start()?.carry_out(play))
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
        let size = self.settings.group_size;
        if !size.is_power_of_two() || size > 64 {
            return Err(InputError::new(format!(
                "groups of {size} processors: a group has 1, 2, 4, 8, 16, 32 or 64; choose one of these"
            )));
        }
        if !(LEAST_MEMORY..=MOST_MEMORY).contains(&self.settings.memory) {
            return Err(InputError::new(format!(
                "{} bytes of memory: a machine has 16 MiB to 4 GiB; choose a size between",
                self.settings.memory
            )));
        }
        processor::check(self.settings.cpu)?;
        let Some(path) = &self.driver else {
            return Err(InputError::new("no driver is given; name a .sys file"));
        };
        for card in &self.cards {
            if let Card::Spec(spec) = card
                && root_of(spec)?.is_none()
            {
                card_of(spec)?;
            }
        }
        let driver = movable(path)?;
        let mut with = self.with.iter().map(|path| movable(path)).collect::<Result<Vec<_>, _>>()?;
        framework::order(&driver, &mut with, self.framework.as_deref())?;
        let infs = self.infs.iter().map(|path| read_inf(path)).collect::<Result<Vec<_>, _>>()?;
        let folder = self.folder.as_deref().map(folder::read).transpose()?;
        let registry = self.registry.iter().map(GivenRegistry::read).collect::<Result<_, _>>()?;
        let notes = with.iter().chain([&driver]).flat_map(|file| file.notes.clone()).collect();
        Ok(Inputs { driver, infs, with, folder, registry, notes })
    }
}

impl GivenRegistry {
    /// What it says.
    pub(crate) fn read(&self) -> Result<RegFile, InputError> {
        match self {
            Self::File(path) => {
                let bytes = files::read(path, "the registry file")?;
                Ok(reg::parse(&path.display().to_string(), &bytes)?)
            }
            Self::Text { name, text } => Ok(reg::parse_text(name, text.clone())?),
            Self::Value(value) => Ok(reg::parse_value(value)?),
        }
    }
}

/// The device on no bus that a specification describes, if it does.
pub(crate) fn root_of(spec: &str) -> Result<Option<RootSpec>, InputError> {
    devices::root::parse(spec).transpose().map_err(|error| InputError::new(error.to_string()))
}

/// The card that a specification describes.
pub(crate) fn card_of(spec: &str) -> Result<Box<dyn Model>, InputError> {
    let mut files = Vec::new();
    card_with_files(spec, &mut files)
}

/// The same; the files that its keys name are added to `read`.
pub(crate) fn card_with_files(
    spec: &str,
    read: &mut Vec<(String, Vec<u8>)>,
) -> Result<Box<dyn Model>, InputError> {
    let files = RefCell::new(read);
    let read_file = |path: &str| {
        let bytes =
            files::read(Path::new(path), "the file of that key").map_err(|error| error.to_string())?;
        files.borrow_mut().push((path.to_owned(), bytes.clone()));
        Ok(bytes)
    };
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
