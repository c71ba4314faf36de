//! Binding of imports: to the kernel's exports, to other drivers' images, or to a named nothing.
//!
//! `ntoskrnl.exe` and `hal.dll` names resolve from either module. An import that no module has does not keep a driver from
//! loading: its address lies in pages that are never mapped, and calling or reading it is a verdict that names it.

use std::collections::BTreeMap;

use engine::Flow;
use image::{ExportTarget, Image, Selector};

use super::{code, is_kernel, pseudo, stem, symbols};
use crate::cx::{Cx, Kernel};
use crate::exports::{data, documented};
use crate::nt::WindowsVersion;
use crate::verdict::Verdict;

/// Imports that no module has, each with a thunk of its own.
#[derive(Default)]
pub struct Missing {
    names: Vec<String>,
    numbers: BTreeMap<String, u32>,
}

/// What a platform before Vista lacks: before, both were a library's, for drivers that were built for it.
const SINCE_VISTA: [&str; 2] = ["IoConnectInterruptEx", "IoDisconnectInterruptEx"];
/// How many forwarders are followed from one export.
const MAX_FORWARDS: u32 = 8;

/// The address of an import that no module has, its thunk defined at first; none if there are more than 60,000 of them.
pub(crate) fn missing(cx: &mut Cx<'_>, module: &str, entry: &str) -> Option<u64> {
    let name = format!("{module}!{entry}");
    let (number, new) = cx.with(|k| {
        let missing = &mut k.ldr.missing;
        if let Some(&number) = missing.numbers.get(&name) {
            return Some((number, false));
        }
        let index = u32::try_from(missing.names.len()).ok()?;
        let number = pseudo::FIRST_MISSING + index * pseudo::MISSING_STRIDE;
        if number + pseudo::MISSING_STRIDE > pseudo::FIRST_BETWEEN {
            return None;
        }
        missing.names.push(name.clone());
        missing.numbers.insert(name, number);
        Some((number, true))
    })?;
    if new {
        cx.engine().define_export(pseudo::thunk(number), number);
    }
    Some(pseudo::thunk(number))
}

/// The name of the missing import that `address` belongs to, as `module!name`: for the verdict on a read there.
pub fn name_at(cx: &mut Cx<'_>, address: u64) -> Option<String> {
    let number = pseudo::number_at(address)?;
    if let Some(number) = number.checked_sub(pseudo::FIRST_DOCUMENTED) {
        let row = documented::nth(usize::try_from(number / pseudo::MISSING_STRIDE).ok()?)?;
        return Some(format!("{}!{}", row.module, row.name));
    }
    let number = number.checked_sub(pseudo::FIRST_MISSING)?;
    let index = usize::try_from(number / pseudo::MISSING_STRIDE).ok()?;
    cx.with(|k| k.ldr.missing.names.get(index).cloned())
}

/// A driver called export `number`, which dirql does not have: the verdict names it and its caller.
#[cold]
pub(crate) fn call_missing(cx: &mut Cx<'_>, number: u32) -> Flow<u64> {
    let name = name_at(cx, pseudo::thunk(number)).unwrap_or_else(|| format!("export {number}"));
    let caller = cx.engine().caller().map(|caller| symbols::describe_return(cx, caller.rip));
    let caller = caller.map_or(String::new(), |caller| format!(", called from {caller}"));
    let entry = name.rsplit('!').next().unwrap_or(&name);
    if let Some((since, windows)) = cx.with(|k| too_new(k, entry)) {
        let message = format!(
            "{name}{caller}: came with {since}, and {windows} does not export it: it would not load this driver \
             (STATUS_DRIVER_ENTRYPOINT_NOT_FOUND)"
        );
        return Err(cx.stop(Verdict::error("export-too-new", message)));
    }
    Err(cx.stop(Verdict::not_implemented(&format!("{name}{caller}"))))
}

/// What a slot of an image is bound to.
pub(crate) enum Bound {
    /// The kernel's routine or variable.
    Kernel(u64),
    /// An entry of the image at this base.
    Image(u64, u64),
    /// No module has it.
    Missing,
}

/// Finds what an import means, following forwarders.
pub(crate) fn resolve(k: &Kernel, module: &str, selector: &Selector) -> Bound {
    let (mut module, mut selector) = (module.to_owned(), selector.clone());
    for _ in 0..MAX_FORWARDS {
        if is_kernel(&module) {
            if too_new(k, &selector.to_string()).is_some() {
                return Bound::Missing;
            }
            return kernel_entry(&selector).map_or(Bound::Missing, Bound::Kernel);
        }
        let Some((base, loaded)) = k.ldr.image_named(&module) else {
            return library_entry(&module, &selector).map_or(Bound::Missing, Bound::Kernel);
        };
        match loaded.image.export(&selector).map(|export| &export.target) {
            Some(ExportTarget::Rva(rva)) => return Bound::Image(base, base + u64::from(*rva)),
            Some(ExportTarget::Forward(forward)) => {
                (module, selector) = (forward.module.clone(), forward.selector.clone());
            }
            None => return Bound::Missing,
        }
    }
    Bound::Missing
}

/// Whether the machine's Windows does not export what came with this version yet.
pub(super) fn is_too_new(k: &Kernel, name: &str, since: WindowsVersion) -> bool {
    since > k.ldr.windows || k.hal.platform.before_vista && SINCE_VISTA.contains(&name)
}

/// Where the directory of the kernel's image says that what Windows exports is, and dirql does not have: the `index`-th of all that is
/// documented. The place says its name.
pub(super) fn documented_entry(index: u32) -> u64 {
    pseudo::thunk(pseudo::FIRST_DOCUMENTED + index * pseudo::MISSING_STRIDE)
}

/// If the machine's Windows does not export `name` yet: the version it came with, and the one it is.
pub(super) fn too_new(k: &Kernel, name: &str) -> Option<(String, String)> {
    if k.hal.platform.before_vista && SINCE_VISTA.contains(&name) {
        return Some(("Windows Vista".to_owned(), "a platform before that".to_owned()));
    }
    let since = documented::find(name).map(|known| known.since).filter(|since| *since > k.ldr.windows)?;
    Some((since.to_string(), k.ldr.windows.to_string()))
}

/// The address of the kernel's routine or variable of this name.
pub(crate) fn kernel_entry(selector: &Selector) -> Option<u64> {
    let Selector::Name(name) = selector else { return None };
    let routine =
        || pseudo::export_address(name).filter(|_| !is_library(name)).map(|routine| routine.address);
    code::export(name).or_else(routine).or_else(|| data::find(name).map(data::DataExport::address))
}

/// Whether a routine of this name is a library's that is here without an image: `wmilib.sys`.
pub(super) fn is_library(name: &str) -> bool {
    pseudo::export_row(name).is_some_and(|export| !is_kernel(export.module))
}

/// The address of a routine of such a library.
fn library_entry(module: &str, selector: &Selector) -> Option<u64> {
    let Selector::Name(name) = selector else { return None };
    let export = pseudo::export_row(name).filter(|export| !is_kernel(export.module))?;
    (stem(export.module) == stem(module)).then(|| pseudo::export_address(name)).flatten().map(|at| at.address)
}

/// How an import of an image would be bound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// dirql has it.
    Implemented,
    /// Another image given beside it has it.
    Linked,
    /// No module has it: the driver loads, and a call or read of it is a verdict.
    Missing,
}

/// One import of an image, as `dirql imports` tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportStatus {
    /// The module as the image names it.
    pub module: String,
    /// The entry, `#12` for an ordinal.
    pub name: String,
    /// A variable, not a routine; where nothing tells, a routine is assumed.
    pub data: bool,
    /// Where it may be called, as documented: `0`, `0..2`, `any`; none for variables and unknown routines.
    pub irql: Option<String>,
    /// How it would be bound.
    pub status: Status,
}

/// Every import of `image`, in the file's order, with `others` loaded beside it. Needs no machine.
#[must_use]
pub fn list(image: &Image, others: &[&Image]) -> Vec<ImportStatus> {
    image.imports().iter().map(|import| status_of(&import.module, &import.selector, others)).collect()
}

fn status_of(module: &str, selector: &Selector, others: &[&Image]) -> ImportStatus {
    let name = selector.to_string();
    let known = is_kernel(module).then(|| documented::find(&name)).flatten();
    let mut status = ImportStatus {
        module: module.to_owned(),
        data: known.is_some_and(|known| known.data),
        irql: known.filter(|known| !known.data).and_then(|known| known.irql).map(str::to_owned),
        status: Status::Missing,
        name,
    };
    if let Some(data) = linked(module, selector, others).filter(|_| !is_kernel(module)) {
        (status.status, status.data) = (Status::Linked, data);
        return status;
    }
    let own = if is_kernel(module) { kernel_entry(selector) } else { library_entry(module, selector) };
    if own.is_some() {
        status.status = Status::Implemented;
        status.data = data::find(&status.name).is_some();
        let range = pseudo::export_row(&status.name).map(|row| (row.irql_min, row.irql_max));
        status.irql = status.irql.or(range.map(|(low, high)| irql_text(low, high)));
    }
    status
}

fn irql_text(low: u8, high: u8) -> String {
    match (low, high) {
        (0, 15) => "any".to_owned(),
        _ if low == high => low.to_string(),
        _ => format!("{low}..{high}"),
    }
}

/// Whether one of `others` has the entry: then, whether it is a variable.
fn linked(module: &str, selector: &Selector, others: &[&Image]) -> Option<bool> {
    let other = others.iter().find(|other| stem(other.name()) == stem(module))?;
    match &other.export(selector)?.target {
        ExportTarget::Rva(rva) => Some(!other.protection_at(*rva).execute),
        ExportTarget::Forward(_) => Some(false),
    }
}
