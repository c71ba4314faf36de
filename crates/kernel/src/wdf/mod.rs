//! `WDFLDR.SYS`: brings the clients of a driver framework, the framework's image and its class extensions together.
//!
//! The framework itself is an image that the user brings, and runs as any driver does. `library` is what frameworks and class extensions
//! register, `bind` how a client gets its framework's functions, `table` how its calls of them are seen, `callbacks` how the framework's calls of its callbacks are, `answers` how both go on without the kernel where no reader asks, `ddis` which there are, `bare_device` what is said of a device that a client makes without it, `log` what a framework has written down of a client, `power_policy` which devices' power policy is a framework's, `class` how it gets an extension's, `values` what is asked of the registry and
//! of the loader itself. No page of Microsoft's has the protocol: it is what clients and frameworks of KMDF 1.x do as they are compiled. Where
//! neither says it, a structure of another size, or a null pointer, is STATUS_INVALID_PARAMETER; a framework that cannot be found,
//! STATUS_OBJECT_NAME_NOT_FOUND; one that is registered already, STATUS_OBJECT_NAME_COLLISION.

pub(crate) mod answers;
pub(crate) mod bare_device;
pub mod bind;
pub(crate) mod callbacks;
pub(crate) mod class;
pub mod ddis;
pub mod library;
pub mod log;
pub mod power_policy;
pub(crate) mod table;
pub(crate) mod values;

use abi::{DRIVER_OBJECT, DriverPtr, FILE_OBJECT};
use engine::{Engine, Flow};

use crate::cx::{Cx, Kernel};
use crate::event::Kind;
use crate::io::driver;
use crate::ldr;
use crate::mm::pool;
use crate::rtl::crt;

const TAG: u32 = pool::tag(b"WdfL");

/// Where frameworks and class extensions say which services they are: `\<component>\Versions\<major>`, `Service`.
pub const VERSIONS: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Control\\Wdf\\Kmdf";
/// The component that every client of the framework asks for.
pub const COMPONENT: &str = "KmdfLibrary";
/// The framework's service.
pub const SERVICE: &str = "Wdf01000";

/// State of this prefix.
#[derive(Default)]
pub struct State {
    libraries: Vec<Library>,
    clients: Vec<bind::Client>,
    classes: Vec<class::Binding>,
    callbacks: callbacks::Callbacks,
    answers: answers::Answers,
    power_policy: power_policy::PowerPolicy,
}

/// A framework, or a class extension, that has registered.
#[derive(Clone)]
struct Library {
    /// The name of its service.
    service: String,
    /// Its `WDF_LIBRARY_INFO`, or `WDF_CLASS_LIBRARY_INFO`.
    info: u64,
    is_class: bool,
    /// Keeps its image while it is open.
    file: Option<DriverPtr<FILE_OBJECT>>,
}

impl State {
    fn library(&self, service: &str, is_class: bool) -> Option<&Library> {
        let mut all = self.libraries.iter();
        all.find(|library| library.is_class == is_class && library.service.eq_ignore_ascii_case(service))
    }
}

/// What readers want, which calls of frameworks' functions and of callbacks go on without the kernel follows from.
pub(crate) fn set_read(k: &mut Kernel, reads: impl Fn(Kind) -> bool) {
    answers::set_read(k, reads);
}

/// How often each function of a framework was called without the kernel: the number of its export, and how often.
pub(crate) fn answered_calls(engine: Engine) -> impl Iterator<Item = (u32, u64)> {
    answers::calls(engine)
}

/// The framework's function that a client called last with this return address there.
pub(crate) fn call_at(engine: Engine, place: u64, return_address: u64) -> Option<&'static str> {
    answers::ddi_of(engine.noted_call(place, return_address)?)
}

/// The framework that calls the kernel, if one does, and the client in whose call it is: that is to blame, as a rule. A function of the framework's that
/// has jumped to the kernel has left no frame; the client is in its call all the same.
pub(crate) fn calling_framework(cx: &mut Cx<'_>) -> Option<String> {
    let base = ldr::calling_image(cx).filter(|base| cx.with(|k| is_framework(k, *base)));
    let lines = ldr::stack::lines(cx);
    if base.is_none() && lines.first()?.ddi.is_none() {
        return None;
    }
    let name = base.map(|base| cx.with(|k| format!(" {}", ldr::image_name(k, base).unwrap_or_default())));
    let name = name.unwrap_or_default();
    Some(match lines.iter().find_map(|line| Some((line, line.ddi?))) {
        Some((client, ddi)) => format!("the framework{name}, in {ddi}, which {} called", client.symbol),
        None => format!("the framework{name}"),
    })
}

/// What the device tree says of a driver that is a client: of which framework, and the callbacks that it has given it.
///
/// # Errors
/// A verdict if the driver object is gone.
pub(crate) fn shown(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<Vec<String>> {
    let Some((major, minor)) = cx.with(|k| bind::version_of(k, driver)) else { return Ok(Vec::new()) };
    let base = cx.read(driver + DRIVER_OBJECT::DriverStart)?;
    let mut lines = vec![format!("{}: KMDF {major}.{minor}", driver::service(cx, driver))];
    lines.extend(callbacks::shown(cx, base.address).into_iter().map(|line| format!("  {line}")));
    Ok(lines)
}

/// Whether the image at `base` is a framework's that has registered.
pub(crate) fn is_framework(k: &Kernel, base: u64) -> bool {
    let is_there = |library: &Library| ldr::image_containing(k, library.info) == Some(base);
    k.wdf.libraries.iter().any(|library| !library.is_class && is_there(library))
}

/// The name of the service whose key this is.
fn service_of(path: &str) -> &str {
    path.rsplit('\\').next().unwrap_or(path)
}

/// The text at `address`, up to its zero.
fn text(cx: &mut Cx<'_>, address: DriverPtr<u16>) -> Flow<String> {
    Ok(String::from_utf16_lossy(&crt::read::<2>(cx, address.address, crt::ALL)?))
}
