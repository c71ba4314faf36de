//! Reading and writing files.
//!
//! Pages: *IRP_MJ_READ*, *IRP_MJ_WRITE*, *ZwReadFile function*, *ZwWriteFile function*, *Using the Current File Position*. A request's
//! buffer is the requester's own, as for most file systems, or an MDL if a driver sent it with one.

use std::ops::Range;

use abi::{
    DriverPtr, FILE_OBJECT, FO_NO_INTERMEDIATE_BUFFERING, FO_SYNCHRONOUS_IO, IO_STACK_LOCATION, IRP, MDL,
    MDL_MAPPED_TO_SYSTEM_VA, MDL_SOURCE_IS_NONPAGED_POOL, NtStatus,
};
use engine::Flow;

use super::dispatch::{Asked, now};
use super::locks::{self, Owner};
use super::tree::{CAPACITY, NodeId};
use super::volume::SECTOR;
use crate::cx::Cx;
use crate::io::system_request::Answer;
use crate::mm::mdl_map;

/// `ByteOffset` of a write that means the file's end.
const END_OF_FILE: i64 = -1;
/// So many bytes are taken from a driver at a time.
const PIECE: u64 = 1 << 20;

/// Where the request's bytes are to go, or to come from.
fn buffer(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<u64> {
    let mdl: DriverPtr<MDL> = cx.read(irp + IRP::MdlAddress)?;
    if mdl.is_null() {
        return Ok(cx.read(irp + IRP::UserBuffer)?.address);
    }
    let flags = cx.read(mdl + MDL::MdlFlags)?.cast_unsigned();
    if flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0 {
        return Ok(cx.read(mdl + MDL::MappedSystemVa)?.address);
    }
    mdl_map::map_locked_pages(cx, mdl, 0)
}

/// Bytes into the request's buffer. An application's buffer that is not there is its error; a driver's is a verdict.
pub(super) fn put(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, bytes: &[u8]) -> Flow<Result<(), NtStatus>> {
    let to = buffer(cx, irp)?;
    if cx.read(irp + IRP::RequestorMode)? == 0 {
        return cx.write_bytes(to, bytes).map(Ok);
    }
    Ok(cx.engine().write_bytes(to, bytes).map_err(|_| NtStatus::ACCESS_VIOLATION))
}

/// Bytes out of the request's buffer, likewise.
fn take(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, length: u32) -> Flow<Result<Vec<u8>, NtStatus>> {
    if u64::from(length) > CAPACITY {
        return Ok(Err(NtStatus::DISK_FULL));
    }
    let from = buffer(cx, irp)?;
    if cx.read(irp + IRP::RequestorMode)? != 0 {
        let mut bytes = vec![0; length as usize];
        let taken = cx.engine().read_bytes(from, &mut bytes);
        return Ok(taken.map(|()| bytes).map_err(|_| NtStatus::ACCESS_VIOLATION));
    }
    let mut bytes = Vec::new();
    while bytes.len() < length as usize {
        let at = bytes.len() as u64;
        bytes.extend(cx.read_bytes(from.wrapping_add(at), PIECE.min(u64::from(length) - at))?);
    }
    Ok(Ok(bytes))
}

/// A file without a buffer of the system's is read and written by whole sectors.
fn is_aligned(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, offset: i64, length: u32) -> Flow<bool> {
    let flags = cx.read(file + FILE_OBJECT::Flags)?;
    let sector = i64::from(SECTOR);
    Ok(flags & FO_NO_INTERMEDIATE_BUFFERING == 0
        || (offset == END_OF_FILE || offset % sector == 0) && length.is_multiple_of(SECTOR))
}

/// The position of a synchronous file that was written at its end; after any other request the I/O manager moves it on.
fn stand_at_end(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, end: u64) -> Flow<()> {
    if cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO == 0 {
        return Ok(());
    }
    cx.write(file + FILE_OBJECT::CurrentByteOffset, end.cast_signed())
}

/// The file that a request of this kind can be carried out on.
fn file_of(cx: &mut Cx<'_>, asked: &Asked, what: &str) -> Flow<Result<NodeId, NtStatus>> {
    let node = match asked.node(cx, what)? {
        Ok(node) => node,
        Err(status) => return Ok(Err(status)),
    };
    let is_directory = cx.with(|k| k.fs.tree().node(node).is_directory());
    Ok(if is_directory { Err(NtStatus::INVALID_DEVICE_REQUEST) } else { Ok(node) })
}

/// Whether another has locked something of the range that is read or written.
fn is_locked(
    cx: &mut Cx<'_>,
    asked: &Asked,
    (node, key): (NodeId, u32),
    range: Range<u64>,
    write: bool,
) -> bool {
    let owner = Owner { file: asked.file.address, key };
    cx.with(|k| locks::conflicts(k, node, owner, &range, write))
}

/// `IRP_MJ_READ`.
pub(super) fn read(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let node = match file_of(cx, asked, "reading")? {
        Ok(node) => node,
        Err(status) => return Ok(Answer::failed(status)),
    };
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_Read_Length)?;
    let offset = cx.read(asked.location + IO_STACK_LOCATION::Parameters_Read_ByteOffset)?;
    let Ok(from) = u64::try_from(offset) else {
        return Ok(Answer::failed(NtStatus::INVALID_PARAMETER));
    };
    if !is_aligned(cx, asked.file, offset, length)? {
        return Ok(Answer::failed(NtStatus::INVALID_PARAMETER));
    }
    if length == 0 {
        return Ok(Answer::failed(NtStatus::SUCCESS));
    }
    let key = cx.read(asked.location + IO_STACK_LOCATION::Parameters_Read_Key)?;
    if is_locked(cx, asked, (node, key), from..from.saturating_add(length.into()), false) {
        return Ok(Answer::failed(NtStatus::FILE_LOCK_CONFLICT));
    }
    let time = now(cx);
    let bytes = cx.with(|k| {
        let tree = k.fs.tree();
        tree.node_mut(node).times.access = time;
        tree.read(node, from, length).to_vec()
    });
    if bytes.is_empty() {
        return Ok(Answer::failed(NtStatus::END_OF_FILE));
    }
    if let Err(status) = put(cx, asked.irp, &bytes)? {
        return Ok(Answer::failed(status));
    }
    Ok(Answer { status: NtStatus::SUCCESS, information: bytes.len() as u64 })
}

/// `IRP_MJ_WRITE`.
pub(super) fn write(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let node = match file_of(cx, asked, "writing")? {
        Ok(node) => node,
        Err(status) => return Ok(Answer::failed(status)),
    };
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_Write_Length)?;
    let offset = cx.read(asked.location + IO_STACK_LOCATION::Parameters_Write_ByteOffset)?;
    if offset < END_OF_FILE || !is_aligned(cx, asked.file, offset, length)? {
        return Ok(Answer::failed(NtStatus::INVALID_PARAMETER));
    }
    let bytes = match take(cx, asked.irp, length)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(Answer::failed(status)),
    };
    let key = cx.read(asked.location + IO_STACK_LOCATION::Parameters_Write_Key)?;
    // Only the end is negative.
    let at = u64::try_from(offset).unwrap_or_else(|_| cx.with(|k| k.fs.tree().node(node).size()));
    if is_locked(cx, asked, (node, key), at..at.saturating_add(length.into()), true) {
        return Ok(Answer::failed(NtStatus::FILE_LOCK_CONFLICT));
    }
    if length > 0 && cx.choose("fault.disk", 2) == 1 {
        return Ok(Answer::failed(NtStatus::DISK_FULL));
    }
    let time = now(cx);
    let written = cx.with(|k| {
        let tree = k.fs.tree();
        tree.write(node, at, &bytes)?;
        let times = &mut tree.node_mut(node).times;
        (times.access, times.write, times.change) = (time, time, time);
        Ok(at + u64::from(length))
    });
    match written {
        Ok(end) => {
            if offset == END_OF_FILE {
                stand_at_end(cx, asked.file, end)?;
            }
            Ok(Answer { status: NtStatus::SUCCESS, information: length.into() })
        }
        Err(status) => Ok(Answer::failed(status)),
    }
}
