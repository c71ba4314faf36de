//! A machine with modelled cards, the compiled driver `pciline.sys`, and an application: what a story needs, in short words.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use abi::{DRIVER_OBJECT, DriverPtr, NtStatus};
use devices::pci::PciBus;
use engine::{Chooser, Defaults, Flow, Host, StartError, outside};
use image::Image;
use kernel::event::{Event, Kind, Reader, Stamp};
use kernel::io::driver::{self, NewDriver};
use kernel::io::file::{self, Buffer, OpenOptions};
use kernel::ke::{scheduler, thread};
use kernel::ldr::{self, Module};
use kernel::mm::user;
use kernel::pnp::{self, NodeId};
use kernel::verdict::Verdict;
use kernel::{Cx, Nt, Settings, cm};

/// `IOCTL_PCILINE_WAIT`.
pub(crate) const WAIT: u32 = 0x0022_6400;
/// `IOCTL_PCILINE_STATE`.
pub(crate) const STATE: u32 = 0x0022_6404;

/// How a run ended.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) verdict: Option<Verdict>,
    pub(crate) findings: Vec<Verdict>,
    pub(crate) steps: Vec<String>,
    pub(crate) done: bool,
}

impl Ended {
    /// The story came to its end, and there are no findings.
    pub(crate) fn clean(&self) {
        let said = self.verdict.iter().chain(&self.findings).map(|v| format!("{}: {}", v.rule, v.message));
        let said: Vec<String> = said.collect();
        assert!(said.is_empty(), "{said:#?}");
        assert!(self.done, "the story did not come to its end: {:#?}", self.steps);
    }
}

/// Keeps what Plug and Play did, and what was printed.
struct Steps(Rc<RefCell<Vec<String>>>);

impl Reader for Steps {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Pnp | Kind::Print)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        match event {
            Event::Pnp { step, of, .. } => self.0.borrow_mut().push(format!("{step} {of}")),
            Event::Print { text } => self.0.borrow_mut().push(format!("prints: {text}")),
            _ => {}
        }
    }
}

/// The compiled driver; built first where it is not.
fn pciline() -> Image {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("target/drivers/pciline.sys");
    if !path.exists() {
        let status = Command::new(env!("CARGO")).args(["xtask", "drivers"]).current_dir(&root).status();
        assert!(status.is_ok_and(|status| status.success()), "`cargo xtask drivers` must build the drivers");
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Image::parse("pciline.sys", &bytes).unwrap()
}

/// Loads the driver and runs its `DriverEntry`.
pub(crate) fn load(cx: &mut Cx<'_>) -> Flow<DriverPtr<DRIVER_OBJECT>> {
    let image = outside(pciline);
    let loaded = ldr::load(cx, Module { name: "pciline.sys".to_owned(), image, symbols: None })?.unwrap();
    let new = NewDriver {
        directory: "\\Driver",
        service: "pciline".to_owned(),
        base: loaded.base,
        size: loaded.size,
        entry: loaded.entry.unwrap(),
        section: loaded.section,
    };
    let object = driver::create_driver(cx, &new)?.unwrap();
    assert_eq!(driver::start(cx, object)?, NtStatus::SUCCESS);
    Ok(object)
}

/// A number in the device's hardware key.
pub(crate) fn set_hardware(cx: &mut Cx<'_>, id: NodeId, name: &str, value: u32) {
    let keys = pnp::install::keys(cx, id);
    cm::access::set_number(cx, &keys.hardware, name, value).unwrap();
}

/// A number in the service's `Parameters` key.
pub(crate) fn set_parameter(cx: &mut Cx<'_>, name: &str, value: u32) {
    let path = format!(r"{}\pciline\Parameters", cm::access::SERVICES);
    cm::access::set_number(cx, &path, name, value).unwrap();
}

/// Runs `story` on a thread of a machine with these cards, until it is over or nothing can run.
pub(crate) fn run(cards: &[&str], story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static) -> Ended {
    run_with(cards, Settings::default(), Box::new(Defaults), story)
}

/// As [`run`], with other settings and another policy.
pub(crate) fn run_with(
    cards: &[&str],
    settings: Settings,
    chooser: Box<dyn Chooser>,
    story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static,
) -> Ended {
    let host = loop {
        match Host::start() {
            Ok(host) => break host,
            Err(StartError::Busy) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let steps: Rc<RefCell<Vec<String>>> = Rc::default();
    let nt = host.inside(|| {
        let no_files = |path: &str| Err(format!("{path}: no such file"));
        let cards = cards.iter().map(|spec| devices::parse(spec, &no_files).unwrap()).collect();
        Nt::new(*host, &settings, Box::new(PciBus::new(cards).unwrap()), chooser)
    });
    nt.subscribe(Box::new(Steps(steps.clone())));
    let ended = host.run(&nt, || {
        nt.boot().unwrap();
        let done = Rc::new(RefCell::new(false));
        let finished = done.clone();
        let work = move |cx: &mut Cx<'_>| {
            story(cx)?;
            *finished.borrow_mut() = true;
            Ok(())
        };
        let _ = thread::spawn_application(&mut nt.cx(), "test", 0, Box::new(work)).unwrap();
        let over = done.clone();
        scheduler::run(&nt, &mut |_| *over.borrow());
        nt.teardown();
        let done = *done.borrow();
        outside(|| Ended { verdict: nt.verdict(), findings: nt.findings(), steps: Vec::new(), done })
    });
    host.inside(|| drop(nt));
    let panic = host.panic_message();
    host.finish();
    assert_eq!(panic, None);
    Ended { steps: steps.take(), ..ended }
}

/// Memory of the application's with these bytes.
pub(crate) fn buffer(cx: &mut Cx<'_>, bytes: &[u8]) -> Buffer {
    let address = user::allocate(cx, 0, bytes.len() as u64).unwrap();
    user::write(cx, address, bytes).unwrap();
    Buffer { address, length: u32::try_from(bytes.len()).unwrap() }
}

/// The bytes of a buffer.
pub(crate) fn contents(cx: &mut Cx<'_>, buffer: Buffer) -> Vec<u8> {
    user::read(cx, buffer.address, usize::try_from(buffer.length).unwrap()).unwrap()
}

/// Opens the driver's device.
pub(crate) fn open(cx: &mut Cx<'_>) -> Flow<kernel::ob::Handle> {
    Ok(file::open(cx, r"\\.\PciLine0", &OpenOptions::default())?.unwrap())
}

/// Writes `bytes` at `offset` and reads them back.
pub(crate) fn write_and_read(cx: &mut Cx<'_>, offset: i64, bytes: &[u8]) -> Flow<Vec<u8>> {
    let handle = open(cx)?;
    let data = buffer(cx, bytes);
    let answer = file::write(cx, handle, data, Some(offset))?;
    assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, bytes.len() as u64));
    let back = buffer(cx, &vec![0; bytes.len()]);
    let answer = file::read(cx, handle, back, Some(offset))?;
    assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, bytes.len() as u64));
    let _ = file::close(cx, handle)?;
    Ok(contents(cx, back))
}
