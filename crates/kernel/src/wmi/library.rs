//! `WmiSystemControl` of `wmilib.sys`: a driver's dispatch routine hands it a request, and its routines are called for what it is about.
//!
//! Pages: *WmiSystemControl function*, *WMILIB_CONTEXT structure*, *Calling WmiSystemControl to Handle WMI IRPs*, *WMI_QUERY_REGINFO_CALLBACK callback function* and
//! those of the other DpWmiXxx routines, *WMI Library Support Routines*. Instances have static names. How such a request ends is `finish`'s.

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_SYSTEM_CONTROL,
    IRP_MN_CHANGE_SINGLE_INSTANCE, IRP_MN_CHANGE_SINGLE_ITEM, IRP_MN_DISABLE_COLLECTION,
    IRP_MN_DISABLE_EVENTS, IRP_MN_ENABLE_COLLECTION, IRP_MN_ENABLE_EVENTS, IRP_MN_EXECUTE_METHOD,
    IRP_MN_QUERY_ALL_DATA, IRP_MN_QUERY_SINGLE_INSTANCE, IRP_MN_REGINFO, IRP_MN_REGINFO_EX, IrpForward,
    IrpNotCompleted, IrpNotWmi, IrpProcessed, NtStatus, UNICODE_STRING, WMIGUIDREGINFO, WMILIB_CONTEXT,
    WMIREG_FLAG_INSTANCE_BASENAME, WMIREG_FLAG_INSTANCE_PDO, WMIREGGUIDW, WMIREGINFOW,
    WNODE_FLAG_STATIC_INSTANCE_NAMES, WNODE_HEADER, WNODE_METHOD_ITEM, WNODE_SINGLE_INSTANCE,
    WNODE_SINGLE_ITEM, WmiDataBlockControl, WmiEventControl,
};
use engine::Flow;

use super::Guid;
use super::finish;
use super::node::ALIGNMENT;
use crate::cx::Cx;
use crate::event::Role;
use crate::fields::Fields;
use crate::io::{irp, routine};
use crate::mm::pool;
use crate::{ob, pnp};

/// A request that is for the driver's device.
struct Asked {
    context: DriverPtr<WMILIB_CONTEXT>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    minor: u8,
    path: u64,
    buffer: u64,
    room: u32,
}

/// `WmiSystemControl`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what a routine does.
pub(crate) fn system_control(
    cx: &mut Cx<'_>,
    context: DriverPtr<WMILIB_CONTEXT>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    disposition: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let location = irp::current(cx, irp)?;
    let major = cx.read(location + IO_STACK_LOCATION::MajorFunction)?;
    let minor = cx.read(location + IO_STACK_LOCATION::MinorFunction)?;
    let is_wmi = minor <= IRP_MN_EXECUTE_METHOD || minor == IRP_MN_REGINFO_EX;
    if major != IRP_MJ_SYSTEM_CONTROL || !is_wmi {
        cx.write(disposition, IrpNotWmi)?;
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    if cx.read(location + IO_STACK_LOCATION::Parameters_WMI_ProviderId)? != device.address {
        cx.write(disposition, IrpForward)?;
        return Ok(NtStatus::SUCCESS);
    }
    let asked = Asked {
        context,
        device,
        irp,
        minor,
        path: cx.read(location + IO_STACK_LOCATION::Parameters_WMI_DataPath)?.address,
        buffer: cx.read(location + IO_STACK_LOCATION::Parameters_WMI_Buffer)?.address,
        room: cx.read(location + IO_STACK_LOCATION::Parameters_WMI_BufferSize)?,
    };
    if matches!(minor, IRP_MN_REGINFO | IRP_MN_REGINFO_EX) {
        let (status, information) = registration(cx, &asked)?;
        return refuse(cx, &asked, disposition, status, information);
    }
    let found = match place(cx, &asked)? {
        Ok(found) => found,
        Err(status) => return refuse(cx, &asked, disposition, status, 0),
    };
    cx.write(disposition, IrpProcessed)?;
    match call(cx, &asked, found)? {
        Ok(status) => Ok(status),
        Err(status) => refuse(cx, &asked, disposition, status, 0),
    }
}

/// The request ends with this, and its driver completes it.
fn refuse(
    cx: &mut Cx<'_>,
    asked: &Asked,
    disposition: DriverPtr<u32>,
    status: NtStatus,
    information: u64,
) -> Flow<NtStatus> {
    cx.write(disposition, IrpNotCompleted)?;
    let block = asked.irp + IRP::IoStatus;
    cx.write(block + IO_STATUS_BLOCK::Status, status)?;
    cx.write(block + IO_STATUS_BLOCK::Information, information)?;
    Ok(status)
}

/// Which block and which of its instances a request is about; of all instances, how many there are.
#[derive(Clone, Copy)]
struct Place {
    guid: u32,
    instance: u32,
    count: u32,
}

fn place(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Result<Place, NtStatus>> {
    let wanted: Guid = cx.read(DriverPtr::new(asked.path))?;
    let count = cx.read(asked.context + WMILIB_CONTEXT::GuidCount)?;
    let list = cx.read(asked.context + WMILIB_CONTEXT::GuidList)?;
    for index in 0..count {
        let own: DriverPtr<WMIGUIDREGINFO> = list.index(index.into());
        let guid = cx.read(own + WMIGUIDREGINFO::Guid)?;
        if cx.read::<Guid>(guid.cast())? != wanted {
            continue;
        }
        let instances = cx.read(own + WMIGUIDREGINFO::InstanceCount)?;
        let found = Place { guid: index, instance: 0, count: instances };
        let is_about_one = matches!(
            asked.minor,
            IRP_MN_QUERY_SINGLE_INSTANCE
                | IRP_MN_CHANGE_SINGLE_INSTANCE
                | IRP_MN_CHANGE_SINGLE_ITEM
                | IRP_MN_EXECUTE_METHOD
        );
        if !is_about_one {
            return Ok(Ok(found));
        }
        let header: DriverPtr<WNODE_HEADER> = DriverPtr::new(asked.buffer);
        let is_static = cx.read(header + WNODE_HEADER::Flags)? & WNODE_FLAG_STATIC_INSTANCE_NAMES != 0;
        let node: DriverPtr<WNODE_SINGLE_INSTANCE> = DriverPtr::new(asked.buffer);
        let instance = cx.read(node + WNODE_SINGLE_INSTANCE::InstanceIndex)?;
        let is_there = is_static && instance < instances;
        return Ok(if is_there {
            Ok(Place { instance, ..found })
        } else {
            Err(NtStatus::WMI_INSTANCE_NOT_FOUND)
        });
    }
    Ok(Err(NtStatus::WMI_GUID_NOT_FOUND))
}

/// Calls the driver's routine; (inner) what the request ends with, if it has none.
fn call(cx: &mut Cx<'_>, asked: &Asked, place: Place) -> Flow<Result<NtStatus, NtStatus>> {
    match asked.minor {
        IRP_MN_QUERY_ALL_DATA => query_all(cx, asked, place),
        IRP_MN_QUERY_SINGLE_INSTANCE => query_one(cx, asked, place),
        IRP_MN_CHANGE_SINGLE_INSTANCE => {
            let code = cx.read(asked.context + WMILIB_CONTEXT::SetWmiDataBlock)?;
            let node: DriverPtr<WNODE_SINGLE_INSTANCE> = DriverPtr::new(asked.buffer);
            let size = cx.read(node + WNODE_SINGLE_INSTANCE::SizeDataBlock)?;
            let from = cx.read(node + WNODE_SINGLE_INSTANCE::DataBlockOffset)?;
            let rest = [u64::from(place.instance), size.into(), asked.buffer + u64::from(from)];
            enter(cx, asked, place, Role::SetWmiDataBlock, code, &rest, NtStatus::WMI_READ_ONLY)
        }
        IRP_MN_CHANGE_SINGLE_ITEM => {
            let code = cx.read(asked.context + WMILIB_CONTEXT::SetWmiDataItem)?;
            let node: DriverPtr<WNODE_SINGLE_ITEM> = DriverPtr::new(asked.buffer);
            let item = cx.read(node + WNODE_SINGLE_ITEM::ItemId)?;
            let size = cx.read(node + WNODE_SINGLE_ITEM::SizeDataItem)?;
            let from = cx.read(node + WNODE_SINGLE_ITEM::DataBlockOffset)?;
            let data = asked.buffer + u64::from(from);
            let rest = [u64::from(place.instance), item.into(), size.into(), data];
            enter(cx, asked, place, Role::SetWmiDataItem, code, &rest, NtStatus::WMI_READ_ONLY)
        }
        IRP_MN_EXECUTE_METHOD => {
            let code = cx.read(asked.context + WMILIB_CONTEXT::ExecuteWmiMethod)?;
            let node: DriverPtr<WNODE_METHOD_ITEM> = DriverPtr::new(asked.buffer);
            let method = cx.read(node + WNODE_METHOD_ITEM::MethodId)?;
            let size = cx.read(node + WNODE_METHOD_ITEM::SizeDataBlock)?;
            let from = cx.read(node + WNODE_METHOD_ITEM::DataBlockOffset)?;
            let room = asked.room.saturating_sub(from);
            let data = asked.buffer + u64::from(from);
            let rest = [u64::from(place.instance), method.into(), size.into(), room.into(), data];
            enter(cx, asked, place, Role::ExecuteWmiMethod, code, &rest, NtStatus::INVALID_DEVICE_REQUEST)
        }
        minor => {
            let code = cx.read(asked.context + WMILIB_CONTEXT::WmiFunctionControl)?;
            let is_data = matches!(minor, IRP_MN_ENABLE_COLLECTION | IRP_MN_DISABLE_COLLECTION);
            let is_off = matches!(minor, IRP_MN_DISABLE_EVENTS | IRP_MN_DISABLE_COLLECTION);
            debug_assert!(is_data || is_off || minor == IRP_MN_ENABLE_EVENTS);
            let function = if is_data { WmiDataBlockControl } else { WmiEventControl };
            let rest = [u64::from(function), u64::from(!is_off)];
            enter(cx, asked, place, Role::WmiFunctionControl, code, &rest, NtStatus::SUCCESS)
        }
    }
}

/// Calls a routine with the device, the IRP, the block's number and `rest`; without a routine the request ends with `without`.
fn enter(
    cx: &mut Cx<'_>,
    asked: &Asked,
    place: Place,
    role: Role,
    code: DriverPtr<abi::Code>,
    rest: &[u64],
    without: NtStatus,
) -> Flow<Result<NtStatus, NtStatus>> {
    if code.is_null() {
        return Ok(Err(without));
    }
    let mut arguments = vec![asked.device.address, asked.irp.address, place.guid.into()];
    arguments.extend(rest);
    let status = routine::call(cx, role, code, asked.irp.address, &arguments)?;
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of rax is undefined")]
    Ok(Ok(NtStatus(status as u32)))
}

/// All instances: the driver's routine writes their lengths where its argument says, and [`finish`] makes offsets of them.
fn query_all(cx: &mut Cx<'_>, asked: &Asked, place: Place) -> Flow<Result<NtStatus, NtStatus>> {
    let code = cx.read(asked.context + WMILIB_CONTEXT::QueryWmiDataBlock)?;
    let from = finish::begin_all(cx, asked.buffer, asked.room, place.count)?;
    let (lengths, available, data) = match from {
        Some((lengths, from)) => (lengths, asked.room - from, asked.buffer + u64::from(from)),
        None => (0, 0, 0),
    };
    let rest = [0, place.count.into(), lengths, available.into(), data];
    enter(cx, asked, place, Role::QueryWmiDataBlock, code, &rest, NtStatus::INVALID_DEVICE_REQUEST)
}

fn query_one(cx: &mut Cx<'_>, asked: &Asked, place: Place) -> Flow<Result<NtStatus, NtStatus>> {
    let code = cx.read(asked.context + WMILIB_CONTEXT::QueryWmiDataBlock)?;
    let node: DriverPtr<WNODE_SINGLE_INSTANCE> = DriverPtr::new(asked.buffer);
    let from = cx.read(node + WNODE_SINGLE_INSTANCE::DataBlockOffset)?;
    let available = asked.room.saturating_sub(from);
    let (lengths, data) = if available == 0 {
        (0, 0)
    } else {
        ((node + WNODE_SINGLE_INSTANCE::SizeDataBlock).address, asked.buffer + u64::from(from))
    };
    let rest = [place.instance.into(), 1, lengths, available.into(), data];
    enter(cx, asked, place, Role::QueryWmiDataBlock, code, &rest, NtStatus::INVALID_DEVICE_REQUEST)
}

/// What a driver's `QueryWmiRegInfo` says, where it says it.
struct Words {
    block: DriverPtr<()>,
}

impl Words {
    const SIZE: usize = 0x40;

    const fn at<T>(&self, offset: u64) -> DriverPtr<T> {
        DriverPtr::new(self.block.address + offset)
    }

    const fn flags(&self) -> DriverPtr<u32> {
        self.at(0)
    }

    const fn name(&self) -> DriverPtr<UNICODE_STRING> {
        self.at(0x08)
    }

    const fn path(&self) -> DriverPtr<DriverPtr<UNICODE_STRING>> {
        self.at(0x18)
    }

    const fn resource(&self) -> DriverPtr<UNICODE_STRING> {
        self.at(0x20)
    }

    const fn pdo(&self) -> DriverPtr<u64> {
        self.at(0x30)
    }
}

/// Has the driver say what it registers, and builds its `WMIREGINFO`: status and bytes written.
fn registration(cx: &mut Cx<'_>, asked: &Asked) -> Flow<(NtStatus, u64)> {
    let block = pool::allocate(cx, pool::Kind::NonPaged, Words::SIZE as u64, pool::tag(b"WmiL"))?;
    let words = Words { block };
    if block.is_null() {
        return Ok((NtStatus::INSUFFICIENT_RESOURCES, 0));
    }
    cx.write_bytes(block.address, &[0; Words::SIZE])?;
    let code = cx.read(asked.context + WMILIB_CONTEXT::QueryWmiRegInfo)?;
    let out = [words.flags().address, words.name().address, words.path().address];
    let more = [words.resource().address, words.pdo().address];
    let arguments = [asked.device.address, out[0], out[1], out[2], more[0], more[1]];
    let status = routine::call(cx, Role::QueryWmiRegInfo, code, asked.irp.address, &arguments)?;
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of rax is undefined")]
    let status = NtStatus(status as u32);
    let built = if status.is_success() { Some(build(cx, asked, &words)?) } else { None };
    pool::free(cx, block)?;
    let Some((bytes, pdo)) = built else { return Ok((status, 0)) };
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if size > asked.room {
        if asked.room >= 4 {
            cx.write(DriverPtr::new(asked.buffer), size)?;
        }
        return Ok((NtStatus::BUFFER_TOO_SMALL, 4));
    }
    if asked.minor == IRP_MN_REGINFO_EX && pdo != 0 && cx.with(|k| pnp::is_physical(k, DriverPtr::new(pdo))) {
        // The system gives it back.
        ob::object::reference(cx, DriverPtr::<DEVICE_OBJECT>::new(pdo))?;
    }
    cx.write_bytes(asked.buffer, &bytes)?;
    Ok((NtStatus::SUCCESS, bytes.len() as u64))
}

/// The `WMIREGINFO`, and the physical device object in it.
fn build(cx: &mut Cx<'_>, asked: &Asked, words: &Words) -> Flow<(Vec<u8>, u64)> {
    let common = cx.read(words.flags())?;
    let base = ob::string::read(cx, words.name())?;
    let path = cx.read(words.path())?;
    let path = ob::string::read(cx, path)?;
    let resource = ob::string::read(cx, words.resource())?;
    let pdo = cx.read(words.pdo())?;
    if common & WMIREG_FLAG_INSTANCE_BASENAME != 0 {
        let buffer = cx.read(words.name() + UNICODE_STRING::Buffer)?;
        if !buffer.is_null() {
            pool::free(cx, buffer)?;
        }
    }
    let count = cx.read(asked.context + WMILIB_CONTEXT::GuidCount)?;
    let list = cx.read(asked.context + WMILIB_CONTEXT::GuidList)?;
    let head = size_of::<WMIREGINFOW>() + size_of::<WMIREGGUIDW>() * count as usize;
    let mut strings = Fields::default();
    let mut places = [0; 3];
    for (place, text) in places.iter_mut().zip([&path, &resource, &base]) {
        if !text.is_empty() {
            *place = head + strings.len();
            let units: Vec<u16> = text.encode_utf16().collect();
            strings = strings.u16(u16::try_from(2 * units.len()).unwrap_or(u16::MAX)).wide(&units);
        }
    }
    let strings = strings.done();
    let [path, resource, base] = places;
    let whole = (head + strings.len()).next_multiple_of(ALIGNMENT);
    let info = Fields::default().size(whole).u32(0).size(path).size(resource).u32(count);
    let mut info = info.pad_to(size_of::<WMIREGINFOW>());
    let (mut given, by_device) = (0, WMIREG_FLAG_INSTANCE_PDO);
    for index in 0..count {
        let own: DriverPtr<WMIGUIDREGINFO> = list.index(index.into());
        let guid = cx.read(own + WMIGUIDREGINFO::Guid)?;
        let guid: Guid = cx.read(guid.cast())?;
        let flags = common | cx.read(own + WMIGUIDREGINFO::Flags)?;
        let instances = cx.read(own + WMIGUIDREGINFO::InstanceCount)?;
        let names = match flags & (by_device | WMIREG_FLAG_INSTANCE_BASENAME) {
            0 => 0,
            kind if kind & by_device != 0 => {
                given = pdo;
                pdo
            }
            _ => base as u64,
        };
        info = info.bytes(&guid).u32(flags).u32(instances).u64(names);
    }
    Ok((info.bytes(&strings).pad_to(whole).done(), given))
}
