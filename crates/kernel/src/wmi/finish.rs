//! `WmiCompleteRequest` of `wmilib.sys`: a driver's routine has done what was asked; the block is made whole and the IRP completed.
//!
//! Pages: *WmiCompleteRequest function*, *WNODE_ALL_DATA structure*, *WNODE_TOO_SMALL structure*, *WMI_QUERY_DATABLOCK_CALLBACK callback function* ("each instance aligned on an
//! 8-byte boundary"). It may be called in the routine or later, at DISPATCH_LEVEL at most.

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MN_EXECUTE_METHOD,
    IRP_MN_QUERY_ALL_DATA, IRP_MN_QUERY_SINGLE_INSTANCE, NtStatus, WNODE_ALL_DATA,
    WNODE_FLAG_FIXED_INSTANCE_SIZE, WNODE_FLAG_STATIC_INSTANCE_NAMES, WNODE_FLAG_TOO_SMALL, WNODE_HEADER,
    WNODE_METHOD_ITEM, WNODE_SINGLE_INSTANCE, WNODE_TOO_SMALL,
};
use engine::Flow;

use super::consumer::time;
use super::judge::bad_node;
use super::node::ALIGNMENT;
use crate::cx::Cx;
use crate::io::{complete, irp};

/// Bytes of an `OFFSETINSTANCEDATAANDLENGTH`.
const PAIR: u64 = 8;
/// Bytes of a `WNODE_TOO_SMALL`; `InstanceCount` ends there, too.
#[allow(clippy::cast_possible_truncation, reason = "a small structure")]
const TOO_SMALL: u32 = size_of::<WNODE_TOO_SMALL>() as u32;

type AllData = DriverPtr<WNODE_ALL_DATA>;

/// Prepares a `WNODE_ALL_DATA` for so many instances: where the driver writes their lengths, and at which offset their data. None if there is no room.
///
/// # Errors
/// None: the buffer is the system's.
pub(super) fn begin_all(cx: &mut Cx<'_>, buffer: u64, room: u32, count: u32) -> Flow<Option<(u64, u32)>> {
    let node: AllData = DriverPtr::new(buffer);
    if room >= TOO_SMALL {
        cx.write(node + WNODE_ALL_DATA::InstanceCount, count)?;
    }
    let from = data_from(count);
    let Some(from) = u32::try_from(from).ok().filter(|from| *from < room) else { return Ok(None) };
    Ok(Some(((node + WNODE_ALL_DATA::OffsetInstanceDataAndLength).address, from)))
}

/// Where the data of so many instances begin.
const fn data_from(count: u32) -> u64 {
    let table = WNODE_ALL_DATA::OffsetInstanceDataAndLength.offset() + PAIR * count as u64;
    table.next_multiple_of(ALIGNMENT as u64)
}

/// `WmiCompleteRequest`.
///
/// # Errors
/// A verdict if the IRP is none, or more was written than there was room for.
pub(crate) fn complete(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    status: NtStatus,
    used: u32,
    boost: u8,
) -> Flow<NtStatus> {
    if !cx.with(|k| k.io.irps.live.contains(irp.address)) {
        complete::complete(cx, irp, boost)?; // which says what there is to say
        return Ok(status);
    }
    let location = irp::current(cx, irp)?;
    let minor = cx.read(location + IO_STACK_LOCATION::MinorFunction)?;
    let buffer = cx.read(location + IO_STACK_LOCATION::Parameters_WMI_Buffer)?.address;
    let room = cx.read(location + IO_STACK_LOCATION::Parameters_WMI_BufferSize)?;
    let request = Finished { device, minor, buffer, room, used };
    let (status, information) = match status {
        NtStatus::BUFFER_TOO_SMALL => too_small(cx, &request)?,
        status if status.is_success() => (status, request.fill(cx)?),
        status => (status, 0),
    };
    let block = irp + IRP::IoStatus;
    cx.write(block + IO_STATUS_BLOCK::Status, status)?;
    cx.write(block + IO_STATUS_BLOCK::Information, information)?;
    complete::complete(cx, irp, boost)?;
    Ok(status)
}

struct Finished {
    device: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    buffer: u64,
    room: u32,
    used: u32,
}

impl Finished {
    /// At which offset the driver's data begin.
    fn data_from(&self, cx: &mut Cx<'_>) -> Flow<Option<u64>> {
        let single: DriverPtr<WNODE_SINGLE_INSTANCE> = DriverPtr::new(self.buffer);
        let method: DriverPtr<WNODE_METHOD_ITEM> = DriverPtr::new(self.buffer);
        let node: AllData = DriverPtr::new(self.buffer);
        Ok(match self.minor {
            IRP_MN_QUERY_ALL_DATA => Some(data_from(cx.read(node + WNODE_ALL_DATA::InstanceCount)?)),
            IRP_MN_QUERY_SINGLE_INSTANCE => {
                Some(cx.read(single + WNODE_SINGLE_INSTANCE::DataBlockOffset)?.into())
            }
            IRP_MN_EXECUTE_METHOD => Some(cx.read(method + WNODE_METHOD_ITEM::DataBlockOffset)?.into()),
            _ => None,
        })
    }

    /// Makes the block whole: the bytes of it.
    fn fill(&self, cx: &mut Cx<'_>) -> Flow<u64> {
        let Some(from) = self.data_from(cx)? else { return Ok(0) };
        let whole = from + u64::from(self.used);
        if whole > self.room.into() {
            let available = u64::from(self.room).saturating_sub(from);
            let what = format!(
                "{:#x} bytes of data (BufferUsed of WmiCompleteRequest), where its routine had room for {available:#x}",
                self.used
            );
            return Err(bad_node(cx, self.device.address, self.minor, &what));
        }
        match self.minor {
            IRP_MN_QUERY_ALL_DATA => self.fill_all(cx, from, whole)?,
            IRP_MN_QUERY_SINGLE_INSTANCE => {
                let node: DriverPtr<WNODE_SINGLE_INSTANCE> = DriverPtr::new(self.buffer);
                cx.write(node + WNODE_SINGLE_INSTANCE::SizeDataBlock, self.used)?;
            }
            _ => {
                let node: DriverPtr<WNODE_METHOD_ITEM> = DriverPtr::new(self.buffer);
                cx.write(node + WNODE_METHOD_ITEM::SizeDataBlock, self.used)?;
            }
        }
        self.stamp(cx, whole)?;
        Ok(whole)
    }

    /// The lengths that the driver has written become offsets and lengths.
    fn fill_all(&self, cx: &mut Cx<'_>, from: u64, whole: u64) -> Flow<()> {
        let node: AllData = DriverPtr::new(self.buffer);
        let count = cx.read(node + WNODE_ALL_DATA::InstanceCount)?;
        let table: DriverPtr<u32> =
            DriverPtr::new((node + WNODE_ALL_DATA::OffsetInstanceDataAndLength).address);
        let mut lengths = Vec::new();
        for index in 0..count {
            lengths.push(cx.read(table.index(index.into()))?);
        }
        let mut at = from;
        for (index, length) in (0..).zip(lengths) {
            if at + u64::from(length) > whole {
                let what = format!(
                    "{:#x} bytes of data (BufferUsed of WmiCompleteRequest), and {length:#x} of them of instance {index} (InstanceLengthArray), which \
                     begin behind {:#x}",
                    self.used,
                    at - from
                );
                return Err(bad_node(cx, self.device.address, self.minor, &what));
            }
            cx.write(table.index(2 * index), u32::try_from(at).unwrap_or(u32::MAX))?;
            cx.write(table.index(2 * index + 1), length)?;
            at = (at + u64::from(length)).next_multiple_of(ALIGNMENT as u64);
        }
        cx.write(node + WNODE_ALL_DATA::DataBlockOffset, u32::try_from(from).unwrap_or(u32::MAX))?;
        cx.write(node + WNODE_ALL_DATA::OffsetInstanceNameOffsets, 0)?;
        let header: DriverPtr<WNODE_HEADER> = DriverPtr::new(self.buffer);
        let flags = cx.read(header + WNODE_HEADER::Flags)? & !WNODE_FLAG_FIXED_INSTANCE_SIZE;
        cx.write(header + WNODE_HEADER::Flags, flags | WNODE_FLAG_STATIC_INSTANCE_NAMES)
    }

    fn stamp(&self, cx: &mut Cx<'_>, whole: u64) -> Flow<()> {
        let header: DriverPtr<WNODE_HEADER> = DriverPtr::new(self.buffer);
        let now = time(cx);
        cx.write(header + WNODE_HEADER::BufferSize, u32::try_from(whole).unwrap_or(u32::MAX))?;
        cx.write(header + WNODE_HEADER::TimeStamp, now.cast_signed())
    }
}

/// The buffer has no room for the data: it says how large it should have been, if it has room for that.
fn too_small(cx: &mut Cx<'_>, request: &Finished) -> Flow<(NtStatus, u64)> {
    let Some(from) = request.data_from(cx)? else { return Ok((NtStatus::BUFFER_TOO_SMALL, 0)) };
    if request.room < TOO_SMALL {
        return Ok((NtStatus::BUFFER_TOO_SMALL, 0));
    }
    let needed = from + u64::from(request.used);
    let node: DriverPtr<WNODE_TOO_SMALL> = DriverPtr::new(request.buffer);
    let header: DriverPtr<WNODE_HEADER> = DriverPtr::new(request.buffer);
    cx.write(header + WNODE_HEADER::BufferSize, TOO_SMALL)?;
    cx.write(header + WNODE_HEADER::Flags, WNODE_FLAG_TOO_SMALL)?;
    cx.write(node + WNODE_TOO_SMALL::SizeNeeded, u32::try_from(needed).unwrap_or(u32::MAX))?;
    Ok((NtStatus::SUCCESS, TOO_SMALL.into()))
}
