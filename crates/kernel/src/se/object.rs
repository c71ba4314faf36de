//! The security descriptors of objects: who may open a device, and asking and saying so.
//!
//! Pages: *ObGetObjectSecurity function*, *SeSetSecurityDescriptorInfo function*, *SeQuerySecurityDescriptorInfo function*,
//! *ZwSetSecurityObject function*, *ZwQuerySecurityObject function*, *Controlling Device Access*. Only devices have one: until it is said,
//! administrators may do everything and everyone else read, write and execute.

use abi::{
    ACCESS_ALLOWED_ACE_TYPE, DACL_SECURITY_INFORMATION, DEVICE_OBJECT, DriverPtr, FILE_OBJECT, GENERIC_ALL,
    GENERIC_EXECUTE, GENERIC_MAPPING, GENERIC_READ, GENERIC_WRITE, GROUP_SECURITY_INFORMATION, NtStatus,
    OWNER_SECURITY_INFORMATION, SACL_SECURITY_INFORMATION, SE_SELF_RELATIVE, UNICODE_STRING,
};
use engine::Flow;

use super::acl::{Acl, Entry};
use super::captured;
use super::descriptor::{self, At, Descriptor};
use super::{relative, token};
use crate::cx::{Cx, Kernel};
use crate::exports::data;
use crate::mm::{pool, pool_exports};
use crate::ob::handle::{self, Handle, Mode};
use crate::ob::{self, Kind};
use crate::verdict::Verdict;

impl Descriptor {
    /// Which parts it has, as `…_SECURITY_INFORMATION`.
    pub(crate) fn information(&self) -> u32 {
        let parts = [
            (self.owner.is_some(), OWNER_SECURITY_INFORMATION),
            (self.group.is_some(), GROUP_SECURITY_INFORMATION),
            (self.dacl.is_some(), DACL_SECURITY_INFORMATION),
            (self.sacl.is_some(), SACL_SECURITY_INFORMATION),
        ];
        parts.into_iter().filter(|(has, _)| *has).fold(0, |all, (_, part)| all | part)
    }

    /// The parts that `…_SECURITY_INFORMATION` names.
    fn parts(&self, information: u32) -> Self {
        let mut parts = Self { control: SE_SELF_RELATIVE, ..Self::default() };
        parts.take(information, self);
        parts
    }

    /// Takes these parts from another one.
    fn take(&mut self, information: u32, from: &Self) {
        if information & OWNER_SECURITY_INFORMATION != 0 {
            self.owner.clone_from(&from.owner);
        }
        if information & GROUP_SECURITY_INFORMATION != 0 {
            self.group.clone_from(&from.group);
        }
        if information & DACL_SECURITY_INFORMATION != 0 {
            self.dacl.clone_from(&from.dacl);
        }
        if information & SACL_SECURITY_INFORMATION != 0 {
            self.sacl.clone_from(&from.sacl);
        }
    }

    fn mapped(mut self, mapping: &GENERIC_MAPPING) -> Self {
        self.dacl = self.dacl.map(|list| list.map(|list| list.mapped(mapping)));
        self.sacl = self.sacl.map(|list| list.map(|list| list.mapped(mapping)));
        self
    }
}

/// Of a device of which nothing else was said. Made once: it is looked at whenever a file is opened.
pub(crate) struct Usual(Descriptor);

impl Default for Usual {
    fn default() -> Self {
        Self(usual())
    }
}

fn usual() -> Descriptor {
    let most = GENERIC_READ | GENERIC_WRITE | GENERIC_EXECUTE;
    let allow = |mask, sid| Entry::new(ACCESS_ALLOWED_ACE_TYPE, 0, mask, &sid);
    let entries = vec![
        allow(most, token::everyone()),
        allow(GENERIC_ALL, token::local_system()),
        allow(GENERIC_ALL, token::administrators()),
    ];
    let descriptor = Descriptor {
        control: SE_SELF_RELATIVE,
        owner: Some(token::administrators()),
        group: Some(token::local_system()),
        dacl: Some(Some(Acl::new(entries))),
        sacl: None,
    };
    descriptor.mapped(&file_mapping())
}

/// What the generic rights mean for files and devices.
pub(crate) fn file_mapping() -> GENERIC_MAPPING {
    let mut mapping = GENERIC_MAPPING::zeroed();
    mapping.set(GENERIC_MAPPING::GenericRead, abi::FILE_GENERIC_READ);
    mapping.set(GENERIC_MAPPING::GenericWrite, abi::FILE_GENERIC_WRITE);
    mapping.set(GENERIC_MAPPING::GenericExecute, abi::FILE_GENERIC_EXECUTE);
    mapping.set(GENERIC_MAPPING::GenericAll, abi::FILE_ALL_ACCESS);
    mapping
}

/// `IoGetFileObjectGenericMapping`: where that lies.
///
/// # Errors
/// None.
pub(crate) fn file_mapping_address(_: &mut Cx<'_>) -> Flow<DriverPtr<GENERIC_MAPPING>> {
    Ok(DriverPtr::new(data::file_mapping()))
}

/// The descriptor of a device.
pub(crate) fn of_device(cx: &mut Cx<'_>, device: u64) -> Descriptor {
    cx.with(|k| device_descriptor(k, device).clone())
}

/// The same, for a look at it.
pub(crate) fn device_descriptor(k: &Kernel, device: u64) -> &Descriptor {
    k.se.devices.get(&device).unwrap_or(&k.se.usual.0)
}

/// Says parts of the descriptor of a device.
pub(crate) fn set_device(cx: &mut Cx<'_>, device: u64, information: u32, from: &Descriptor) {
    let mut descriptor = of_device(cx, device);
    descriptor.take(information, from);
    let descriptor = descriptor.mapped(&file_mapping());
    cx.with(|k| k.se.devices.insert(device, descriptor));
}

/// `ObGetObjectSecurity`: a copy for the caller; null for what has none.
///
/// # Errors
/// A verdict on a bad pointer, or if there is no such object.
pub(crate) fn get(
    cx: &mut Cx<'_>,
    object: DriverPtr<()>,
    into: DriverPtr<At>,
    allocated: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let device = match ob::object::kind(cx, object.address) {
        Some(Kind::Device) => Some(object.address),
        Some(Kind::File) => device_of_file(cx, object.address)?,
        Some(_) => None,
        None => return Err(ob::object::not_an_object(cx, object.address, "ObGetObjectSecurity", 0)),
    };
    let Some(device) = device else {
        cx.write(into, At::NULL)?;
        cx.write(allocated, 0)?;
        return Ok(NtStatus::SUCCESS);
    };
    let descriptor = of_device(cx, device);
    let status = captured::give(cx, &descriptor, pool::Kind::Paged, into)?;
    cx.write(allocated, status.is_success().into())?;
    Ok(status)
}

/// `ObReleaseObjectSecurity`: what [`get`] has given.
///
/// # Errors
/// As freeing it.
pub(crate) fn release(cx: &mut Cx<'_>, descriptor: At, allocated: bool) -> Flow<()> {
    if allocated && !descriptor.is_null() { pool::free(cx, descriptor) } else { Ok(()) }
}

/// The device that a file stands for itself: of one that is open by a name behind the device's, the file system's descriptor counts.
fn device_of_file(cx: &mut Cx<'_>, file: u64) -> Flow<Option<u64>> {
    let file = DriverPtr::<FILE_OBJECT>::new(file);
    let named = cx.read((file + FILE_OBJECT::FileName) + UNICODE_STRING::Length)? != 0;
    let device: DriverPtr<DEVICE_OBJECT> = cx.read(file + FILE_OBJECT::DeviceObject)?;
    Ok((!named).then_some(device.address))
}

/// The device that a handle stands for.
fn device_of_handle(cx: &mut Cx<'_>, ddi: &str, handle: u64) -> Flow<Result<u64, NtStatus>> {
    let entry = match handle::entry(cx, Handle(handle), Mode::Kernel) {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    let device = match entry.kind {
        Kind::Device => Some(entry.object),
        Kind::File => device_of_file(cx, entry.object)?,
        _ => None,
    };
    match device {
        Some(device) => Ok(Ok(device)),
        None => {
            let what = format!("{ddi} for an object of kind {:?} that stands for no device", entry.kind);
            Err(cx.stop(Verdict::not_implemented(&what)))
        }
    }
}

/// `ZwSetSecurityObject`.
///
/// # Errors
/// A verdict on a bad pointer, or for what stands for no device.
pub(crate) fn zw_set(cx: &mut Cx<'_>, handle: u64, information: u32, from: At) -> Flow<NtStatus> {
    let device = match device_of_handle(cx, "ZwSetSecurityObject", handle)? {
        Ok(device) => device,
        Err(status) => return Ok(status),
    };
    match descriptor::read(cx, from)? {
        Ok(from) => {
            set_device(cx, device, information, &from);
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `ZwQuerySecurityObject`: how many bytes it needs is answered in any case.
///
/// # Errors
/// As [`zw_set`].
pub(crate) fn zw_query(
    cx: &mut Cx<'_>,
    handle: u64,
    information: u32,
    to: u64,
    length: u32,
    needed: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let device = match device_of_handle(cx, "ZwQuerySecurityObject", handle)? {
        Ok(device) => device,
        Err(status) => return Ok(status),
    };
    let descriptor = of_device(cx, device);
    answer(cx, &descriptor, information, to, length, needed)
}

fn answer(
    cx: &mut Cx<'_>,
    descriptor: &Descriptor,
    information: u32,
    to: u64,
    room: u32,
    needed: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let bytes = descriptor.parts(information).bytes();
    let size = relative::needs(&bytes);
    cx.write(needed, size)?;
    if room < size {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(to, &bytes)?;
    Ok(NtStatus::SUCCESS)
}

/// `SeQuerySecurityDescriptorInfo`: of an object that has no descriptor, an empty one.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn query_info(
    cx: &mut Cx<'_>,
    information: DriverPtr<u32>,
    to: u64,
    length: DriverPtr<u32>,
    of: DriverPtr<At>,
) -> Flow<NtStatus> {
    let at = cx.read(of)?;
    let descriptor = if at.is_null() { Ok(Descriptor::default()) } else { descriptor::read(cx, at)? };
    match descriptor {
        Ok(descriptor) => {
            let (information, room) = (cx.read(information)?, cx.read(length)?);
            answer(cx, &descriptor, information, to, room, length)
        }
        Err(status) => Ok(status),
    }
}

/// `SeSetSecurityDescriptorInfo`: a new one takes the place of the object's, which stays for the caller to free.
///
/// # Errors
/// As [`query_info`].
pub(crate) fn set_info(
    cx: &mut Cx<'_>,
    _object: DriverPtr<()>,
    information: DriverPtr<u32>,
    from: At,
    of: DriverPtr<At>,
    pool_type: u32,
    mapping: DriverPtr<GENERIC_MAPPING>,
) -> Flow<NtStatus> {
    let at = cx.read(of)?;
    if at.is_null() {
        return Ok(NtStatus::NO_SECURITY_ON_OBJECT);
    }
    let mut own = match descriptor::read(cx, at)? {
        Ok(own) if own.control & SE_SELF_RELATIVE != 0 => own,
        Ok(_) => return Ok(NtStatus::BAD_DESCRIPTOR_FORMAT),
        Err(status) => return Ok(status),
    };
    let from = match descriptor::read(cx, from)? {
        Ok(from) => from,
        Err(status) => return Ok(status),
    };
    let (information, mapping) = (cx.read(information)?, cx.read(mapping)?);
    own.take(information, &from.mapped(&mapping));
    captured::give(cx, &own, pool_exports::kind(pool_type), of)
}

/// `SeSetSecurityDescriptorInfoEx`: of `AutoInheritFlags` none has an effect.
///
/// # Errors
/// As [`query_info`].
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn set_info_ex(
    cx: &mut Cx<'_>,
    object: DriverPtr<()>,
    information: DriverPtr<u32>,
    from: At,
    of: DriverPtr<At>,
    _inherit: u32,
    pool_type: u32,
    mapping: DriverPtr<GENERIC_MAPPING>,
) -> Flow<NtStatus> {
    set_info(cx, object, information, from, of, pool_type, mapping)
}

/// `SeValidSecurityDescriptor`: a self-relative one of so many bytes.
///
/// # Errors
/// As [`query_info`].
pub(crate) fn valid(cx: &mut Cx<'_>, length: u32, at: At) -> Flow<bool> {
    relative::valid(cx, at.cast(), length, 0)
}
