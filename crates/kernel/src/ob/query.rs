//! What an object is called and what it is: by its address, by its name, by a handle.
//!
//! Pages: *ObQueryNameString function*, *ZwQueryObject function*. `ObReferenceObjectByName` has no page; it answers as drivers rely on that
//! look for another driver's object. A type's numbers of objects and handles are not kept: those fields are 0.

use abi::{DEVICE_OBJECT, DriverPtr, FILE_OBJECT, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::handle::{self, Handle, Mode};
use super::names::Target;
use super::object::{self, Kind};
use super::{directory, object_type, string};
use crate::cx::Cx;
use crate::fields::{Fields, answer};
use crate::verdict::Verdict;

/// `PublicObjectBasicInformation`.
const BASIC: u32 = 0;
/// `ObjectNameInformation`.
const NAME: u32 = 1;
/// `PublicObjectTypeInformation`.
const TYPE: u32 = 2;
/// Bytes of a `UNICODE_STRING`.
const COUNTED: usize = size_of::<UNICODE_STRING>();

/// The whole name of the object at `body`; empty if it has none.
fn name_of(cx: &mut Cx<'_>, body: u64, kind: Kind) -> Flow<String> {
    Ok(match kind {
        Kind::File => {
            let file = DriverPtr::<FILE_OBJECT>::new(body);
            let device: DriverPtr<DEVICE_OBJECT> = cx.read(file + FILE_OBJECT::DeviceObject)?;
            path_of(cx, device.address) + &string::read(cx, file + FILE_OBJECT::FileName)?
        }
        Kind::Key => cx.with(|k| {
            let path = k.cm.open.get(&body).and_then(|key| k.cm.registry.path(*key).ok());
            String::from_utf16_lossy(&path.unwrap_or_default())
        }),
        Kind::Directory | Kind::SymbolicLink => directory::path(cx, body).unwrap_or_default(),
        _ => path_of(cx, body),
    })
}

fn path_of(cx: &mut Cx<'_>, body: u64) -> String {
    cx.with(|k| k.ob.objects.get(body).and_then(|object| object.path.clone())).unwrap_or_default()
}

/// A counted string at `at` whose text follows after `gap` bytes, zero-terminated; an empty one has no text.
fn counted(at: u64, gap: usize, text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Fields::default().pad_to(COUNTED + gap).done();
    }
    let bytes = string::encode(text);
    let maximum = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let head = Fields::default().u16(maximum - 2).u16(maximum).u32(0).u64(at + (COUNTED + gap) as u64);
    head.pad_to(COUNTED + gap).bytes(&bytes).done()
}

/// `ObQueryNameString`: `OBJECT_NAME_INFORMATION` with the text behind it.
///
/// # Errors
/// A verdict if there is no object, or a pointer is bad.
pub(crate) fn name_string(
    cx: &mut Cx<'_>,
    body: DriverPtr<()>,
    buffer: u64,
    length: u32,
    returned: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let Some(kind) = object::kind(cx, body.address) else {
        let message = format!("ObQueryNameString on {:#x}, which is no object", body.address);
        return Err(cx.stop(Verdict::error("object-reference", message)));
    };
    let name = name_of(cx, body.address, kind)?;
    answer(cx, &counted(buffer, 0, &name), buffer, length, returned)
}

/// `ObReferenceObjectByName`: a reference to the object of this name and type.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn reference_by_name(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    _attributes: u32,
    _access_state: u64,
    _desired_access: u32,
    object_type: DriverPtr<()>,
    _access_mode: u8,
    _parse_context: u64,
    object: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let name = string::read(cx, name)?;
    let found = match cx.with(|k| k.ob.names.resolve(&name)) {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    let Target::Object(body) = found.target else { return Ok(NtStatus::OBJECT_TYPE_MISMATCH) };
    let wanted = object_type::kind(object_type.address);
    if wanted.is_none() || wanted != object::kind(cx, body) {
        return Ok(NtStatus::OBJECT_TYPE_MISMATCH);
    }
    if !found.rest.is_empty() {
        return Ok(NtStatus::OBJECT_PATH_NOT_FOUND);
    }
    object::reference(cx, DriverPtr::<()>::new(body))?;
    cx.write(object, body)?;
    Ok(NtStatus::SUCCESS)
}

/// `ZwQueryObject`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a class that is not here.
pub(crate) fn zw_query(
    cx: &mut Cx<'_>,
    given: u64,
    class: u32,
    buffer: u64,
    length: u32,
    returned: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let entry = match handle::reference(cx, Handle(given), None, 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let bytes = match class {
        BASIC => cx.with(|k| {
            // Without the reference that this very call holds.
            let counts = k.ob.objects.get(entry.object).map(|object| (object.handles, object.references - 1));
            let (handles, references) = counts.unwrap_or_default();
            let head = Fields::default().u32(0).u32(entry.access).u32(handles);
            head.u32(u32::try_from(references).unwrap_or(0)).pad_to(0x38).done()
        }),
        NAME => {
            let name = name_of(cx, entry.object, entry.kind)?;
            counted(buffer, 0, &name)
        }
        TYPE => counted(buffer, 0x58, &format!("{:?}", entry.kind)),
        _ => {
            let what = format!("class {class} of ZwQueryObject");
            return Err(cx.stop(Verdict::not_implemented(&what)));
        }
    };
    let status = answer(cx, &bytes, buffer, length, returned)?;
    object::dereference(cx, DriverPtr::<()>::new(entry.object))?;
    Ok(status)
}
