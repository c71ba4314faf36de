//! Keys as drivers open, make and delete them, by handles.
//!
//! Pages: *ZwOpenKey function*, *ZwCreateKey function*, *ZwDeleteKey function*. A driver's own calls are trusted: the
//! access it asks for is remembered and not checked. Drivers that filter the registry are called (`callbacks`). Symbolic links are made by the
//! kernel only.

use abi::{
    DriverPtr, NtStatus, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, REG_CREATED_NEW_KEY, REG_OPENED_EXISTING_KEY,
    REG_OPTION_VOLATILE, UNICODE_STRING,
};
use engine::Flow;

use super::callbacks::{self, Class, Information};
use super::registry::KeyId;
use super::{absent, access};
use crate::cx::Cx;
use crate::exports::data;
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::ob::{self, Handle, Kind, Procedures};
use crate::rtl::string;
use crate::verdict::Verdict;

static PROCEDURES: Procedures = Procedures { close, delete };

fn close(cx: &mut Cx<'_>, body: u64, _process: u64, _of_process: u32, _of_all: u32) -> Flow<()> {
    callbacks::closing(cx, body)
}

fn delete(cx: &mut Cx<'_>, body: u64) -> Flow<()> {
    callbacks::object_goes(cx, body)?;
    cx.with(|k| k.cm.open.remove(&body));
    Procedures::free(cx, body)
}

/// An object that stands for `key`, with one reference.
fn make_object(cx: &mut Cx<'_>, key: KeyId) -> Flow<Result<u64, NtStatus>> {
    let body: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, 0x40, pool::tag(b"Key "))?;
    if body.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    if let Err(status) = ob::object::create(cx, body.address, Kind::Key, "", &PROCEDURES) {
        pool::free(cx, body)?;
        return Ok(Err(status));
    }
    cx.with(|k| k.cm.open.insert(body.address, key));
    Ok(Ok(body.address))
}

/// A handle to the object, which keeps it from here on.
fn hand_over(cx: &mut Cx<'_>, object: u64, access: u32, kernel: bool) -> Flow<Handle> {
    let handle = handle::open(cx, object, access, kernel)?;
    ob::object::dereference(cx, DriverPtr::<()>::new(object))?;
    Ok(handle)
}

/// A handle to `key`.
///
/// # Errors
/// Inside, `INSUFFICIENT_RESOURCES`.
pub(crate) fn open_handle(
    cx: &mut Cx<'_>,
    key: KeyId,
    access: u32,
    kernel: bool,
) -> Flow<Result<Handle, NtStatus>> {
    match make_object(cx, key)? {
        Ok(object) => hand_over(cx, object, access, kernel).map(Ok),
        Err(status) => Ok(Err(status)),
    }
}

/// The object that a handle stands for, if that is a key's.
pub(crate) fn object(cx: &mut Cx<'_>, handle: u64) -> Option<u64> {
    handle::entry(cx, Handle(handle), Mode::Kernel)
        .ok()
        .filter(|entry| entry.kind == Kind::Key)
        .map(|e| e.object)
}

/// The key that a handle stands for.
///
/// # Errors
/// `INVALID_HANDLE`, `OBJECT_TYPE_MISMATCH`.
pub(crate) fn by_handle(cx: &mut Cx<'_>, handle: u64) -> Result<KeyId, NtStatus> {
    let entry = handle::entry(cx, Handle(handle), Mode::Kernel)?;
    cx.with(|k| k.cm.open.get(&entry.object).copied()).ok_or(NtStatus::OBJECT_TYPE_MISMATCH)
}

/// What names a key to open or make.
struct Name {
    base: Option<KeyId>,
    path: Vec<u16>,
    kernel: bool,
}

fn name(cx: &mut Cx<'_>, attributes: DriverPtr<OBJECT_ATTRIBUTES>) -> Flow<Result<Name, NtStatus>> {
    let root = cx.read(attributes + OBJECT_ATTRIBUTES::RootDirectory)?;
    let text = cx.read(attributes + OBJECT_ATTRIBUTES::ObjectName)?;
    let path = if text.is_null() { Vec::new() } else { string::read(cx, text)? };
    let kernel = cx.read(attributes + OBJECT_ATTRIBUTES::Attributes)? & OBJ_KERNEL_HANDLE != 0;
    let base = match root {
        0 => None,
        root => match by_handle(cx, root) {
            Ok(base) => Some(base),
            Err(status) => return Ok(Err(status)),
        },
    };
    Ok(Ok(Name { base, path, kernel }))
}

/// What a driver wants to open, or to make.
struct Wanted {
    class: Class,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    options: u32,
    /// Addresses of the key's class and of what is to say whether it was made.
    of_key: [u64; 2],
    kernel: bool,
}

/// In `REG_CREATE_KEY_INFORMATION_V1`, the words of the access and of `CallContext`.
const ACCESS: u64 = 7;
const CALL_CONTEXT: u64 = 10;

impl Wanted {
    /// What drivers that filter get: `REG_CREATE_KEY_INFORMATION_V1`, whose `ResultObject` is at `result`.
    fn information(&self, cx: &mut Cx<'_>, result: DriverPtr<u64>) -> Flow<Information> {
        let root = cx.read(self.attributes + OBJECT_ATTRIBUTES::RootDirectory)?;
        let name = cx.read(self.attributes + OBJECT_ATTRIBUTES::ObjectName)?.address;
        let flags = cx.read(self.attributes + OBJECT_ATTRIBUTES::Attributes)?;
        let root = object(cx, root).unwrap_or(0);
        let [class, disposition] = self.of_key;
        let key_type = data::object_type("CmKeyObjectType");
        let [options, access] = [self.options, self.access].map(u64::from);
        let words = [name, root, key_type, options, class, 0, 0, access, disposition, result.address];
        let behind = [0, 0, 0, 1, name, u64::from(flags) << 32, 0];
        let words = words.into_iter().chain(behind).collect();
        Ok(Information { words, call_context: CALL_CONTEXT, object: root })
    }
}

/// Opens the key that `find` finds and stores its handle.
fn hand_out(
    cx: &mut Cx<'_>,
    wanted: &Wanted,
    find: impl FnOnce(&mut Cx<'_>) -> Flow<Result<KeyId, NtStatus>>,
) -> Flow<NtStatus> {
    if cx.with(|k| k.cm.callbacks.is_any()) {
        return hand_out_told(cx, wanted, find);
    }
    let made = match find(cx)? {
        Ok(key) => make_object(cx, key)?,
        Err(status) => Err(status),
    };
    match made {
        Ok(object) => {
            let handle = hand_over(cx, object, wanted.access, wanted.kernel)?;
            cx.write(wanted.handle, handle.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// As [`hand_out`], where drivers filter the registry: the handle is for what `ResultObject` holds in the end, set by the kernel or a driver.
#[cold]
fn hand_out_told(
    cx: &mut Cx<'_>,
    wanted: &Wanted,
    find: impl FnOnce(&mut Cx<'_>) -> Flow<Result<KeyId, NtStatus>>,
) -> Flow<NtStatus> {
    let result: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"CmCb"))?;
    if result.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let information = wanted.information(cx, result)?;
    let (begun, stopped) = callbacks::before(cx, wanted.class, information)?;
    let status = match stopped {
        Some(status) => status,
        None => {
            let made = match find(cx)? {
                Ok(key) => make_object(cx, key)?,
                Err(status) => Err(status),
            };
            if let Ok(object) = made {
                cx.write(result, object)?;
                begun.set_word(cx, ACCESS, u64::from(wanted.access) << 32 | u64::from(wanted.access))?;
            }
            key_status(made)
        }
    };
    let about = if status.is_success() { cx.read(result)? } else { 0 };
    let status = callbacks::after(cx, &begun, about, status)?;
    let (object, access) = (cx.read(result)?, begun.word(cx, ACCESS)? >> 32);
    if status.is_success() {
        if object == 0 {
            let what = "a RegistryCallback that opens a key itself and gives no object";
            return Err(cx.stop(Verdict::not_implemented(what)));
        }
        let access = u32::try_from(access).unwrap_or(0);
        let handle = hand_over(cx, object, access, wanted.kernel)?;
        cx.write(wanted.handle, handle.0)?;
    } else if object != 0 {
        ob::object::dereference(cx, DriverPtr::<()>::new(object))?;
    }
    callbacks::end(cx, begun)?;
    pool::free(cx, result)?;
    Ok(status)
}

fn key_status(made: Result<u64, NtStatus>) -> NtStatus {
    made.err().unwrap_or(NtStatus::SUCCESS)
}

/// `ZwOpenKey`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    open_ex(cx, handle, access, attributes, 0)
}

/// `ZwOpenKeyEx`.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_ex(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    options: u32,
) -> Flow<NtStatus> {
    let name = match name(cx, attributes)? {
        Ok(name) => name,
        Err(status) => return Ok(status),
    };
    let (class, kernel) = (callbacks::OPEN, name.kernel);
    let wanted = Wanted { class, handle, access, attributes, options, of_key: [0, 0], kernel };
    hand_out(cx, &wanted, |cx| Ok(absent::open(cx, name.base, &name.path)))
}

/// `ZwCreateKey`: opens, or makes, the last component.
///
/// # Errors
/// As [`open`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    _title: u32,
    class: DriverPtr<UNICODE_STRING>,
    options: u32,
    disposition: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let name = match name(cx, attributes)? {
        Ok(name) => name,
        Err(status) => return Ok(status),
    };
    let text = if class.is_null() { Vec::new() } else { string::read(cx, class)? };
    let of_key = [class.address, disposition.address];
    let (class, kernel) = (callbacks::CREATE, name.kernel);
    let wanted = Wanted { class, handle, access, attributes, options, of_key, kernel };
    hand_out(cx, &wanted, |cx| {
        let created = access::make(cx, name.base, &name.path, false);
        if let Ok((key, true)) = created {
            cx.with(|k| {
                k.cm.registry.set_class(key, text);
                if options & REG_OPTION_VOLATILE != 0 {
                    k.cm.registry.set_volatile(key);
                }
            });
        }
        if let Ok((_, made)) = created
            && !disposition.is_null()
        {
            cx.write(disposition, if made { REG_CREATED_NEW_KEY } else { REG_OPENED_EXISTING_KEY })?;
        }
        Ok(created.map(|(key, _)| key))
    })
}

/// `ZwDeleteKey`.
///
/// # Errors
/// None of its own.
pub(crate) fn delete_key(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    callbacks::around(cx, callbacks::DELETE_KEY, handle, &[], |cx| {
        let key = by_handle(cx, handle);
        Ok(status(key.and_then(|key| access::delete(cx, key))))
    })
}

/// `ZwFlushKey`: there is no disk to write to.
///
/// # Errors
/// None of its own.
pub(crate) fn flush(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    callbacks::around(cx, callbacks::FLUSH, handle, &[], |cx| Ok(status(by_handle(cx, handle).map(|_| ()))))
}

/// A result as a status.
pub(crate) fn status(result: Result<(), NtStatus>) -> NtStatus {
    result.err().unwrap_or(NtStatus::SUCCESS)
}
