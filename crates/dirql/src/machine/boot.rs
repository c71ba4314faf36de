//! From what was given to a running machine: hardware, kernel, images, installation, start.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use abi::{DRIVER_EXTENSION, DRIVER_OBJECT, DriverPtr, NtStatus};
use engine::{Flow, Host, Jail, StartError, outside};
use image::{Image, Symbols};
use kernel::event::{Event, Kind, Reader, Stamp};
use kernel::fs;
use kernel::io::driver;
use kernel::ke::thread;
use kernel::ldr::{self, LoadedImage, Module};
use kernel::mm::ready;
use kernel::pnp::{self, Drivers, Installer, NodeId, root};
use kernel::ps::process;
use kernel::se::sddl;
use kernel::verifier::Verifier;
use kernel::{Cx, Nt, Settings, wdf};

use super::plan::{self, Plan};
use super::{Machine, Readers, preset, registry};
use crate::bench::{Bench, Inputs};
use crate::error::{Error, InputError};
use crate::files::DriverFile;
use crate::framework::{self, is_client, is_framework};
use crate::inf::{DeviceIds, Filters, Inf, Installation, RegistryWrite, Service, Target};
use crate::readers::{Coverage, SymbolBook};
use crate::reg::RegFile;
use crate::report::Failure;

/// The environment variable that names an export to put a stub in the place of, for `cargo xtask stubs`.
const STUB: &str = "DIRQL_STUB";

/// What is in the machine, in the order it came: it goes in the other order.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    /// Images given beside the driver.
    pub(super) libraries: Vec<LoadedDriver>,
    /// The driver, once `DriverEntry` has succeeded.
    pub(super) driver: Option<LoadedDriver>,
}

/// An image, and its driver object unless it is a library only.
#[derive(Clone, Copy)]
pub(super) struct LoadedDriver {
    pub(super) base: u64,
    pub(super) object: Option<DriverPtr<DRIVER_OBJECT>>,
}

/// What is to be loaded and installed, as plain values.
pub(super) struct Work {
    driver: File,
    /// Given beside the driver.
    others: Vec<File>,
    cards: Vec<Card>,
    infs: Vec<Inf>,
    /// What they write without a device.
    registry: Vec<RegistryWrite>,
    /// What the user gives of the registry.
    presets: Vec<RegFile>,
    target: Target,
    /// Driver Verifier watches, and with it that of a framework.
    is_verified: bool,
}

struct File {
    path: String,
    name: String,
    service: Service,
    image: Rc<Image>,
    symbols: Symbols,
}

struct Card {
    name: String,
    installation: Option<Installation>,
    filters: Filters,
    /// One that is on no bus.
    root: Option<root::Device>,
}

/// The driver objects of the drivers that are loaded for devices, by the names of their services in lower case.
type Objects = BTreeMap<String, DriverPtr<DRIVER_OBJECT>>;

/// What came of loading.
#[derive(Default)]
struct Outcome {
    loaded: Loaded,
    notes: Vec<String>,
    /// Something given cannot be used after all.
    refused: Option<InputError>,
    failure: Option<Failure>,
}

/// A machine with the driver loaded and started, as far as that goes.
pub(super) fn start(bench: Bench, inputs: Inputs) -> Result<Machine, Error> {
    let (machine, work) = make(bench, inputs)?;
    machine.set_up(&work)?;
    Ok(machine)
}

/// A machine whose kernel is up, with nothing loaded yet; and what is to be.
pub(super) fn make(bench: Bench, inputs: Inputs) -> Result<(Machine, Rc<Work>), Error> {
    let plan = Plan::new(&bench, &inputs)?;
    let stubbed = stubbed()?;
    let work = Work::new(&inputs, &plan, bench.settings.verifier != Verifier::NONE);
    let begin = if bench.settings.checked { Host::start_checked } else { Host::start };
    let host = begin().map_err(|error| match error {
        StartError::Busy => Error::Busy,
        error => Error::Host(error.to_string()),
    })?;
    let readers =
        Readers { symbols: bench.symbols.clone(), coverage: Coverage::asked_for(), ..Readers::default() };
    let Bench { cards, settings, readers: own, chooser, observed, jail, saved, dismissals, .. } = bench;
    let settings = Settings { folder: inputs.folder.clone(), stubbed, ..settings };
    let nt = host.inside(|| {
        let bus = plan::bus(&cards).expect("the same cards were placed a moment ago");
        Box::new(Nt::new(*host, &settings, Box::new(bus), chooser))
    });
    let machine = Machine {
        host,
        nt: Some(nt),
        process: Cell::new(0),
        processes: RefCell::default(),
        loaded: RefCell::default(),
        overlapped: RefCell::default(),
        readers,
        notes: RefCell::new(inputs.notes.clone()),
        failure: RefCell::default(),
        stuck: Cell::new(false),
        observed,
        dismissals,
        work: RefCell::default(),
        saved: RefCell::new(saved),
    };
    machine.subscribe(&inputs, own, observed);
    if let Some(jail) = jail {
        let jail = machine.readers.coverage.iter().filter_map(Coverage::file).fold(jail, Jail::may_write);
        machine.host.lock_in(&jail).map_err(|error| Error::Host(error.to_string()))?;
    }
    machine.boot()?;
    Ok((machine, Rc::new(work)))
}

/// The export that is to do nothing, if the environment asks for one.
fn stubbed() -> Result<Option<String>, InputError> {
    let Ok(name) = std::env::var(STUB) else { return Ok(None) };
    if ldr::export_address(&name).is_none() {
        return Err(InputError::new(format!("{STUB} names {name}, which is no export of dirql")));
    }
    Ok(Some(name))
}

impl Machine {
    fn subscribe(&self, inputs: &Inputs, own: Vec<Box<dyn Reader>>, observed: bool) {
        let Readers { summary, trace, prints, symbols, .. } = &self.readers;
        for file in inputs.with.iter().chain([&inputs.driver]) {
            symbols.add(file);
        }
        let nt = self.nt();
        nt.subscribe(Box::new(Places(symbols.clone())));
        nt.subscribe(Box::new(prints.clone()));
        if observed {
            nt.subscribe(Box::new(summary.clone()));
            nt.subscribe(Box::new(trace.clone()));
        }
        // What is read of each call and not judged costs all the same.
        let has_client = inputs.with.iter().chain([&inputs.driver]).any(|file| is_client(&file.image));
        let judging = own.into_iter().filter(|reader| has_client || !reader.is_of_framework());
        judging.for_each(|reader| nt.subscribe(reader));
    }

    /// Boots the kernel.
    fn boot(&self) -> Result<(), Error> {
        let booted = self.inside(|nt| {
            nt.boot()?;
            process::create(&mut nt.cx(), "application")
        });
        let Ok(process) = booted else { return Err(Error::Stopped) };
        self.process.set(process);
        Ok(())
    }

    /// Does the work on a system thread.
    pub(super) fn set_up(&self, work: &Rc<Work>) -> Result<(), Error> {
        self.work.replace(Some(Rc::clone(work)));
        let work = Rc::clone(work);
        let outcome = Rc::new(RefCell::new(Outcome::default()));
        let slot = Rc::clone(&outcome);
        let done = self.on_thread("the start of the driver", move |cx| {
            thread::wait_for_system(cx, "system's start", move |cx| work.carry_out(cx, &slot))
        });
        self.inside(|nt| nt.cx().with(ready::fill_up));
        let Outcome { loaded, notes, refused, failure } = outcome.take();
        *self.loaded.borrow_mut() = loaded;
        self.notes.borrow_mut().extend(notes);
        if let Some(error) = refused {
            return Err(error.into());
        }
        *self.failure.borrow_mut() = failure;
        self.inside(Nt::script_begins);
        if let Err(Error::Stuck(why)) = done {
            self.fail(&why);
        }
        Ok(())
    }

    fn fail(&self, message: &str) {
        let failure = Failure {
            place: "start".to_owned(),
            command: "start".to_owned(),
            message: message.to_owned(),
            moments: Vec::new(),
        };
        self.failure.borrow_mut().get_or_insert(failure);
    }

    /// Whether the driver is loaded and started on its devices: else a script has nothing to talk to.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.failure.borrow().is_none() && !self.nt().stopping()
    }
}

impl Work {
    /// The driver's image.
    pub(super) fn driver_image(&self) -> &Image {
        &self.driver.image
    }

    /// The name of the driver's service.
    pub(super) fn driver_service(&self) -> &str {
        &self.driver.service.name
    }

    fn new(inputs: &Inputs, plan: &Plan, is_verified: bool) -> Self {
        let mut others: Vec<File> = inputs.with.iter().map(|file| File::new(file, plan)).collect();
        let framework = others.first_mut().filter(|file| is_framework(&file.image));
        if let Some(file) = framework {
            file.service = Service::of_file(&file.name, wdf::SERVICE.to_owned());
        }
        let card = |card: &plan::PlannedCard| Card {
            name: card.name.clone(),
            installation: card.installation.clone(),
            filters: card.installation.as_ref().map(Installation::all_filters).unwrap_or_default(),
            root: card.root.clone(),
        };
        let mut driver = File::new(&inputs.driver, plan);
        // Whatever its file is called, it is the first device's driver, unless another file is.
        let services = plan.cards.iter().filter_map(|card| card.installation.as_ref()?.service.as_ref());
        let is_other = |service: &&Service| others.iter().any(|file| file.service.name == service.name);
        let own = services.clone().find(|service| service.binary.eq_ignore_ascii_case(&driver.name));
        if let Some(service) = own.or_else(|| services.clone().find(|service| !is_other(service))) {
            driver.service = service.clone();
        }
        let cards = plan.cards.iter().map(card).collect();
        Self {
            driver,
            others,
            cards,
            infs: inputs.infs.clone(),
            registry: plan.registry.clone(),
            presets: inputs.registry.clone(),
            target: plan.target,
            is_verified,
        }
    }

    /// Loads, installs and starts, on a system thread.
    fn carry_out(self: &Rc<Self>, cx: &mut Cx<'_>, outcome: &RefCell<Outcome>) -> Flow<()> {
        fs::mount(cx)?;
        for file in self.others.iter().chain([&self.driver]) {
            written(outcome, registry::write_service(cx, &file.service));
            if self.is_verified && is_client(&file.image) {
                written(outcome, registry::verify_client(cx, &file.service));
            }
        }
        if self.others.first().is_some_and(|file| is_framework(&file.image)) {
            written(outcome, wdf::library::install(cx));
        }
        written(outcome, registry::write_machine(cx, &self.registry));
        if let Err(refused) = preset::write(cx, &self.presets) {
            refuse(outcome, &refused);
            return Ok(());
        }
        let (lower, upper) = (self.filters(|filters| &filters.lower), self.filters(|filters| &filters.upper));
        let mut objects = Objects::new();
        for library in self.others.iter().filter(|file| !lower.contains(file) && !upper.contains(file)) {
            let Some(loaded) = library.load(cx, outcome)? else { return Ok(()) };
            outside(|| outcome.borrow_mut().loaded.libraries.push(loaded));
            if let Some(object) = loaded.object {
                objects.insert(library.service.name.to_lowercase(), object);
            }
        }
        let Some(nodes) = self.install(cx, outcome)? else { return Ok(()) };
        for file in lower.into_iter().chain([&self.driver]).chain(upper) {
            let Some(loaded) = file.load_as_driver(cx, outcome)? else { return Ok(()) };
            let is_driver = std::ptr::eq(file, &raw const self.driver);
            outside(|| {
                let loads = &mut outcome.borrow_mut().loaded;
                if is_driver { loads.driver = Some(loaded) } else { loads.libraries.push(loaded) }
            });
            let Some(object) = loaded.object else {
                let notes = pnp::installer::notes(cx);
                outside(|| outcome.borrow_mut().notes.extend(notes.iter().cloned()));
                return Ok(());
            };
            objects.insert(file.service.name.to_lowercase(), object);
        }
        self.compare_versions(cx, &objects, outcome);
        let finder = Finder { work: Rc::clone(self), objects: objects.clone() };
        pnp::installer::set(cx, Rc::new(finder));
        self.start_devices(cx, &objects, &nodes, outcome)?;
        pnp::detected::settle(cx)?;
        driver::booted(cx)
    }

    /// What INFs say of the framework, and what their drivers have asked for.
    fn compare_versions(&self, cx: &mut Cx<'_>, objects: &Objects, outcome: &RefCell<Outcome>) {
        for installation in self.cards.iter().filter_map(|card| card.installation.as_ref()) {
            let Some(object) = self.function(Some(installation), objects) else { continue };
            let bound = cx.with(|k| wdf::bind::version_of(k, object));
            let note = outside(|| framework::disagreement(installation, bound));
            outside(|| outcome.borrow_mut().notes.extend(note));
        }
    }

    /// The files of the cards' filters on one side of the function driver, each once.
    fn filters(&self, side: impl Fn(&Filters) -> &Vec<String>) -> Vec<&File> {
        let mut files: Vec<&File> = Vec::new();
        for name in self.cards.iter().flat_map(|card| side(&card.filters)) {
            if let Some(file) = self.others.iter().find(|file| file.service.name.eq_ignore_ascii_case(name))
                && !files.contains(&file)
            {
                files.push(file);
            }
        }
        files
    }

    /// Finds the devices on the bus and writes what is installed for them to the registry. None if what the user gives does not go there.
    fn install(&self, cx: &mut Cx<'_>, outcome: &RefCell<Outcome>) -> Flow<Option<Vec<(NodeId, &Card)>>> {
        let mut nodes = Vec::new();
        if !self.cards.is_empty() {
            pnp::enumerate(cx)?;
        }
        for card in &self.cards {
            let node = match &card.root {
                Some(device) => pnp::root::add(cx, device.clone())?,
                None => match pnp::named(cx, &card.name) {
                    Some(node) => node,
                    None => continue,
                },
            };
            if !self.infs.is_empty() && card.installation.is_none() {
                let note = format!("{}: the INF has no driver for it; it is left alone", card.name);
                outside(|| outcome.borrow_mut().notes.push(note.clone()));
                continue;
            }
            pnp::install(cx, node, installed(&self.driver.service.name, card.installation.as_ref()))?;
            if let Some(installation) = &card.installation {
                written(outcome, registry::write_device(cx, node, installation));
                outside(|| outcome.borrow_mut().notes.extend(remarks(installation)));
            }
            let keys = registry::touched(cx, node, card.installation.as_ref());
            if let Err(refused) = preset::write_again(cx, &self.presets, &keys) {
                refuse(outcome, &refused);
                return Ok(None);
            }
            nodes.push((node, card));
        }
        Ok(Some(nodes))
    }

    /// The driver that an INF names, if its file was given. The driver of the run is that of its devices, whatever its file is called.
    fn function(
        &self,
        installation: Option<&Installation>,
        objects: &Objects,
    ) -> Option<DriverPtr<DRIVER_OBJECT>> {
        let service = installation?.service.as_ref()?;
        let by_file = || {
            let files = self.others.iter().chain([&self.driver]);
            let file = files.into_iter().find(|file| file.name.eq_ignore_ascii_case(&service.binary))?;
            objects.get(&file.service.name.to_lowercase())
        };
        objects.get(&service.name.to_lowercase()).or_else(by_file).copied()
    }

    /// Whether the devices that are known from the beginning are all its driver's.
    fn drives_all(&self) -> bool {
        let mut services = self.cards.iter().filter_map(|card| card.installation.as_ref()?.service.as_ref());
        services.all(|service| !self.others.iter().any(|file| file.service.name == service.name))
    }

    fn start_devices(
        &self,
        cx: &mut Cx<'_>,
        objects: &Objects,
        nodes: &[(NodeId, &Card)],
        outcome: &RefCell<Outcome>,
    ) -> Flow<()> {
        let function = objects[&self.driver.service.name.to_lowercase()];
        let note = match (plug_and_play(cx, function)?, nodes.is_empty()) {
            (true, true) => Some(
                "the driver has an AddDevice routine, and there is no device for it: give one with --device",
            ),
            (false, false) if self.drives_all() => Some(
                "the driver has no AddDevice routine: it is no Plug and Play driver, and the devices are left alone",
            ),
            _ => None,
        };
        if let Some(note) = note {
            outside(|| outcome.borrow_mut().notes.push(format!("{}: {note}", self.driver.name)));
            return Ok(());
        }
        for (node, card) in nodes {
            let function = self.function(card.installation.as_ref(), objects).unwrap_or(function);
            let (filters, notes) = find_filters(&card.name, card.installation.as_ref(), objects);
            outside(|| outcome.borrow_mut().notes.extend(notes.clone()));
            let [lower, upper] = filters;
            for &filter in lower.iter().chain(&upper) {
                if !plug_and_play(cx, filter)? {
                    let message = "it has no AddDevice routine, so it cannot be a filter of the device";
                    let service = driver::service(cx, filter);
                    fail(outcome, &service, &format!("start {}", card.name), message);
                    return Ok(());
                }
            }
            if let Err(failure) = pnp::start(cx, *node, &Drivers { lower, function, upper })? {
                fail(outcome, &self.driver.name, &format!("start {}", card.name), &failure.to_string());
            }
        }
        Ok(())
    }
}

/// The drivers that are filters of a device, those below its function driver and those above; and what is to be said of those that are missing.
fn find_filters(
    device: &str,
    installation: Option<&Installation>,
    objects: &Objects,
) -> ([Vec<DriverPtr<DRIVER_OBJECT>>; 2], Vec<String>) {
    let filters = installation.map(Installation::all_filters).unwrap_or_default();
    let mut missing = Vec::new();
    let found = [&filters.lower, &filters.upper].map(|names| {
        let mut found = Vec::new();
        for name in names {
            match objects.get(&name.to_lowercase()) {
                Some(object) => found.push(*object),
                None => missing.push(absent(device, installation, name)),
            }
        }
        found
    });
    (found, missing)
}

/// Finds drivers for what drivers report, among the INFs and files that were given. It lies in the machine.
struct Finder {
    work: Rc<Work>,
    objects: Objects,
}

impl Installer for Finder {
    fn install(&self, cx: &mut Cx<'_>, id: NodeId) -> Flow<Option<Drivers>> {
        let Some(device) = pnp::devices(cx).into_iter().find(|device| device.id == id) else {
            return Ok(None);
        };
        let answers = device.answers;
        let ids = DeviceIds { hardware: answers.hardware_ids, compatible: answers.compatible_ids };
        let Some(Ok(installation)) = plan::best(&self.work.infs, &ids, self.work.target) else {
            return Ok(None);
        };
        // An INF may install a device without a function driver.
        let own = installation.service.as_ref();
        pnp::install(cx, id, installed(own.map_or("", |own| &own.name), Some(&installation)))?;
        if let Err(status) = registry::write_device(cx, id, &installation) {
            pnp::installer::note(cx, unwritten(status));
        }
        let keys = registry::touched(cx, id, Some(&installation));
        if let Err(refused) = preset::write_again(cx, &self.work.presets, &keys) {
            pnp::installer::note(cx, refused.to_string());
        }
        for remark in remarks(&installation) {
            pnp::installer::note(cx, remark);
        }
        let Some(function) = self.work.function(Some(&installation), &self.objects) else {
            let Some(Service { name, binary, .. }) = own else { return Ok(None) };
            let note = format!(
                "{}: the INF names the driver {name}, and its file is not given; give it by --with {binary}",
                device.name
            );
            pnp::installer::note(cx, note);
            return Ok(None);
        };
        let (filters, notes) = find_filters(&device.name, Some(&installation), &self.objects);
        notes.into_iter().for_each(|note| pnp::installer::note(cx, note));
        let [lower, upper] = filters;
        for &driver in lower.iter().chain([&function]).chain(&upper) {
            if !plug_and_play(cx, driver)? {
                let service = driver::service(cx, driver);
                let note =
                    format!("{}: {service} has no AddDevice routine, so it can drive no device", device.name);
                pnp::installer::note(cx, note);
                return Ok(None);
            }
        }
        Ok(Some(Drivers { lower, function, upper }))
    }
}

/// Whether the driver has an `AddDevice` routine.
fn plug_and_play(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<bool> {
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    Ok(!cx.read(extension + DRIVER_EXTENSION::AddDevice)?.is_null())
}

/// A filter has no file: the INF knows what that is called, if it has the filter's service.
fn absent(device: &str, installation: Option<&Installation>, filter: &str) -> String {
    let installed = installation.iter().flat_map(|installation| &installation.other_services);
    let service = installed.into_iter().find(|service| service.name.eq_ignore_ascii_case(filter));
    let file = service.map_or_else(|| format!("{filter}.sys"), |service| service.binary.clone());
    format!(
        "{device}: the INF names the filter {filter}, and its file is not given: the device starts without it; give it by --with {file}"
    )
}

/// What the registry would not take is for the user to know.
fn written(outcome: &RefCell<Outcome>, result: Result<(), NtStatus>) {
    if let Err(status) = result {
        outside(|| outcome.borrow_mut().notes.push(unwritten(status)));
    }
}

/// What the user gives of the registry does not go there.
fn refuse(outcome: &RefCell<Outcome>, refused: &preset::Refused<'_>) {
    outside(|| outcome.borrow_mut().refused = Some(InputError::new(refused.to_string())));
}

fn unwritten(status: NtStatus) -> String {
    format!("the INF's registry settings were not all written: {status}")
}

fn fail(outcome: &RefCell<Outcome>, place: &str, command: &str, message: &str) {
    outside(|| {
        let failure = Failure {
            place: place.to_owned(),
            command: command.to_owned(),
            message: message.to_owned(),
            moments: Vec::new(),
        };
        outcome.borrow_mut().failure.get_or_insert(failure);
    });
}

/// A file is itself: of two that were given, one may be a copy of the other.
impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl File {
    /// A file, with the service that an INF installs it as.
    fn new(file: &DriverFile, plan: &Plan) -> Self {
        let installed = plan.cards.iter().filter_map(|card| card.installation.as_ref());
        let services = installed.flat_map(|it| &it.other_services).chain(&plan.services);
        let service = services.into_iter().find(|service| service.binary.eq_ignore_ascii_case(&file.name));
        Self {
            path: file.path.display().to_string(),
            name: file.name.clone(),
            service: service.cloned().unwrap_or_else(|| Service::of_file(&file.name, file.service())),
            image: Rc::clone(&file.image),
            symbols: file.symbols.clone(),
        }
    }

    /// Puts the image into the machine.
    fn place(&self, cx: &mut Cx<'_>, outcome: &RefCell<Outcome>) -> Flow<Option<LoadedImage>> {
        let image = self.image.as_ref().clone();
        let module = Module { name: self.name.clone(), image, symbols: Some(self.symbols.clone()) };
        match ldr::load(cx, module)? {
            Ok(loaded) => Ok(Some(loaded)),
            Err(error) => {
                let text = error.to_string();
                let message = text.strip_prefix(&format!("{}: ", self.name)).unwrap_or(&text);
                let refused = outside(|| InputError::new(format!("{}: {message}", self.path)));
                outside(|| outcome.borrow_mut().refused = Some(refused));
                Ok(None)
            }
        }
    }

    /// Loads an image given beside the driver: an export library waits for its first importer, another one is a driver.
    fn load(&self, cx: &mut Cx<'_>, outcome: &RefCell<Outcome>) -> Flow<Option<LoadedDriver>> {
        let Some(placed) = self.place(cx, outcome)? else { return Ok(None) };
        if placed.entry.is_none() || ldr::initializer(cx, placed.base).is_some() {
            return Ok(Some(LoadedDriver { base: placed.base, object: None }));
        }
        self.start(cx, placed, outcome)
    }

    fn load_as_driver(&self, cx: &mut Cx<'_>, outcome: &RefCell<Outcome>) -> Flow<Option<LoadedDriver>> {
        match self.place(cx, outcome)? {
            Some(placed) => self.start(cx, placed, outcome),
            None => Ok(None),
        }
    }

    /// Makes the driver object and calls `DriverEntry`.
    fn start(
        &self,
        cx: &mut Cx<'_>,
        placed: LoadedImage,
        outcome: &RefCell<Outcome>,
    ) -> Flow<Option<LoadedDriver>> {
        if placed.entry.is_none() {
            let text = format!("{}: has no entry point, so it is no driver; give it with --with", self.path);
            outside(|| outcome.borrow_mut().refused = Some(InputError::new(text.clone())));
            return Ok(None);
        }
        match driver::load(cx, &self.service.name, &placed)? {
            Ok(object) => Ok(Some(LoadedDriver { base: placed.base, object: Some(object) })),
            Err(status) => {
                let message = format!("returned {status}; the driver is not loaded");
                fail(outcome, &self.name, "DriverEntry", &message);
                Ok(None)
            }
        }
    }
}

fn installed(service: &str, installation: Option<&Installation>) -> pnp::Installation {
    let Some(installation) = installation else {
        return pnp::Installation { service: service.to_owned(), ..pnp::Installation::default() };
    };
    pnp::Installation {
        inf: installation.file.clone(),
        service: installation.service.as_ref().map_or(service, |own| &own.name).to_owned(),
        filters: installation.filters.clone(),
        class_filters: installation.class_filters.clone(),
        description: installation.description.clone(),
        manufacturer: installation.manufacturer.clone(),
        class: installation.class.clone(),
        class_guid: installation.class_guid.clone().unwrap_or_default(),
        provider: installation.provider.clone(),
        version: installation.version.clone(),
        date: installation.date.clone(),
        matching_id: installation.matched_id.clone(),
        section: installation.undecorated(),
        // The INF was refused if it is no descriptor.
        security: installation.security.as_ref().and_then(|text| sddl::parse(text).ok()),
        configuration: installation.configuration.clone(),
    }
}

/// What the INF says and was passed over though it may matter.
fn remarks(installation: &Installation) -> Vec<String> {
    installation
        .unsupported
        .iter()
        .map(|remark| format!("INF line {}: {}", remark.line, remark.text))
        .collect()
}

/// Learns where images lie, before any other reader asks for a name.
struct Places(SymbolBook);

impl Reader for Places {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Image
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Image { name, base, loaded: true } = event {
            self.0.place(name, *base);
        }
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.places()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        if let Some(places) = saved.downcast_ref() {
            self.0.lie_at(places);
        }
    }
}
