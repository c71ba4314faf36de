//! What is known of a file, asked and set.
//!
//! Pages: *ZwQueryInformationFile function*, *ZwSetInformationFile function*, *FILE_BASIC_INFORMATION structure* and its neighbours,
//! *IRP_MJ_QUERY_INFORMATION*, *IRP_MJ_SET_INFORMATION*. A class that Windows has and dirql has not says its number.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DriverPtr, FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_READONLY, FILE_ATTRIBUTE_TEMPORARY, FILE_OBJECT,
    FileAllInformation, FileAllocationInformation, FileAttributeTagInformation, FileBasicInformation,
    FileDispositionInformation, FileEaInformation, FileEndOfFileInformation, FileInternalInformation,
    FileNameInformation, FileNetworkOpenInformation, FilePositionInformation, FileRenameInformation,
    FileStandardInformation, IO_STACK_LOCATION, IRP, NtStatus,
};
use engine::Flow;

use super::dispatch::{Asked, now};
use super::opening::SETTABLE;
use super::rename;
use super::tree::{CLUSTER, Node, NodeId, ROOT};
use crate::cx::Cx;
use crate::fields::Fields;
use crate::io::information::mode_of;
use crate::io::system_request::Answer;
use crate::ob::string;
use crate::verdict::Verdict;

/// Classes that Windows has besides: alternate name, streams, compression, object id, reparse point, priority hint, links, normalized
/// name, remote protocol and device, volume name, id, desired storage class, statistics, memory partition.
const ASKED: &[u32] = &[21, 22, 28, 29, 33, 43, 46, 48, 51, 54, 55, 58, 59, 67, 68, 70, 71, 75, 76];
/// Likewise: link, extended attributes, mode, pipes, mailslots, valid data length, short name, priority hint, and the newer forms of
/// disposition, rename and link.
const SET: &[u32] = &[11, 15, 16, 23, 27, 29, 30, 31, 39, 40, 41, 43, 61, 64, 65, 66, 71, 72, 74];

/// A class that is not here: what it comes to, where Windows has these.
pub(super) fn other_class(cx: &mut Cx<'_>, ddi: &str, class: u32, known: &[u32]) -> Flow<Answer> {
    if !known.contains(&class) {
        return Ok(Answer::failed(NtStatus::INVALID_INFO_CLASS));
    }
    Err(cx.stop(Verdict::not_implemented(&format!("{ddi} of a file with class {class}"))))
}

/// An answer of so many fixed bytes, of which at least these must fit; what varies behind them is cut off.
pub(super) fn into_buffer(
    cx: &mut Cx<'_>,
    asked: &Asked,
    bytes: &[u8],
    least: usize,
    length: u32,
) -> Flow<Answer> {
    if (length as usize) < least {
        return Ok(Answer::failed(NtStatus::INFO_LENGTH_MISMATCH));
    }
    let fits = bytes.len().min(length as usize);
    let buffer = cx.read(asked.irp + IRP::AssociatedIrp_SystemBuffer)?;
    cx.write_bytes(buffer.address, &bytes[..fits])?;
    let status = if fits < bytes.len() { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS };
    Ok(Answer { status, information: fits as u64 })
}

fn basic(node: &Node) -> Fields {
    let times = node.times;
    Fields::default()
        .i64(times.creation)
        .i64(times.access)
        .i64(times.write)
        .i64(times.change)
        .u32(node.shown_attributes())
        .pad_to(40)
}

fn standard(node: &Node) -> Fields {
    let links = u32::from(!node.delete_pending);
    Fields::default()
        .u64(node.allocation())
        .u64(node.size())
        .u32(links)
        .bytes(&[node.delete_pending.into(), node.is_directory().into()])
        .pad_to(24)
}

fn network_open(node: &Node) -> Fields {
    let times = node.times;
    Fields::default()
        .i64(times.creation)
        .i64(times.access)
        .i64(times.write)
        .i64(times.change)
        .u64(node.allocation())
        .u64(node.size())
        .u32(node.shown_attributes())
        .pad_to(56)
}

fn name(path: &str) -> Fields {
    let text = string::encode(path);
    let text = &text[..text.len() - 2];
    Fields::default().size(text.len()).bytes(text)
}

/// `IRP_MJ_QUERY_INFORMATION`.
pub(super) fn query(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryFile_Length)?;
    let class = cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryFile_FileInformationClass)?;
    let id = match asked.node(cx, "asking about")? {
        Ok(id) => id,
        Err(status) => return Ok(Answer::failed(status)),
    };
    let position = cx.read(asked.file + FILE_OBJECT::CurrentByteOffset)?;
    let flags = cx.read(asked.file + FILE_OBJECT::Flags)?;
    let answer = cx.with(|k| {
        let access = k.fs.opens[&asked.file.address].access;
        let tree = k.fs.tree();
        let (node, path) = (tree.node(id), tree.path(id));
        Some(match class {
            FileBasicInformation => (basic(node), 40),
            FileStandardInformation => (standard(node), 24),
            FileInternalInformation => (Fields::default().u64(id), 8),
            FileEaInformation => (Fields::default().u32(0), 4),
            FileNameInformation => (name(&path), 8),
            FilePositionInformation => (Fields::default().i64(position), 8),
            FileNetworkOpenInformation => (network_open(node), 56),
            FileAttributeTagInformation => (Fields::default().u32(node.shown_attributes()).u32(0), 8),
            FileAllInformation => {
                let all = basic(node).bytes(&standard(node).done()).u64(id).u32(0).u32(access).i64(position);
                // The volume's device wants no alignment.
                (all.u32(mode_of(flags)).u32(0).bytes(&name(&path).done()), 104)
            }
            _ => return None,
        })
    });
    match answer {
        Some((fields, least)) => into_buffer(cx, asked, &fields.done(), least, length),
        None => other_class(cx, "ZwQueryInformationFile", class, ASKED),
    }
}

/// `IRP_MJ_SET_INFORMATION`.
pub(super) fn set(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_SetFile_Length)?;
    let class = cx.read(asked.location + IO_STACK_LOCATION::Parameters_SetFile_FileInformationClass)?;
    let id = match asked.node(cx, "setting information of")? {
        Ok(id) => id,
        Err(status) => return Ok(Answer::failed(status)),
    };
    let buffer = cx.read(asked.irp + IRP::AssociatedIrp_SystemBuffer)?;
    let least = match class {
        FileBasicInformation => 40,
        FileDispositionInformation => 1,
        FileRenameInformation => rename::LEAST,
        FilePositionInformation | FileEndOfFileInformation | FileAllocationInformation => 8,
        _ => return other_class(cx, "ZwSetInformationFile", class, SET),
    };
    if length < least {
        return Ok(Answer::failed(NtStatus::INFO_LENGTH_MISMATCH));
    }
    let status = match class {
        FileBasicInformation => set_basic(cx, id, buffer)?,
        FileDispositionInformation => {
            let delete = cx.read(DriverPtr::<u8>::new(buffer.address))? != 0;
            dispose(cx, asked, id, delete)?
        }
        FileRenameInformation => rename::rename(cx, id, buffer.address, length)?,
        _ => {
            let value = cx.read(DriverPtr::<i64>::new(buffer.address))?;
            set_value(cx, asked, id, class, value)?
        }
    };
    Ok(Answer::failed(status))
}

fn set_basic(cx: &mut Cx<'_>, id: NodeId, buffer: DriverPtr<()>) -> Flow<NtStatus> {
    let mut given = [0; 4];
    for (index, time) in (0..).zip(&mut given) {
        *time = cx.read(DriverPtr::<i64>::new(buffer.address).index(index))?;
    }
    let attributes = cx.read(DriverPtr::<u32>::new(buffer.address).index(8))?;
    let time = now(cx);
    Ok(cx.with(|k| {
        let node = k.fs.tree().node_mut(id);
        let wrong = if node.is_directory() { FILE_ATTRIBUTE_TEMPORARY } else { FILE_ATTRIBUTE_DIRECTORY };
        // -1 and -2 say whether later requests are to change a time, which stays as it is.
        if attributes & wrong != 0 || given.iter().any(|time| *time < -2) {
            return NtStatus::INVALID_PARAMETER;
        }
        if attributes != 0 {
            node.attributes = attributes & SETTABLE;
        }
        let times = &mut node.times;
        times.change = time;
        let fields = [&mut times.creation, &mut times.access, &mut times.write, &mut times.change];
        for (field, time) in fields.into_iter().zip(given).filter(|(_, time)| *time > 0) {
            *field = time;
        }
        NtStatus::SUCCESS
    }))
}

/// Whether the file goes with its last handle.
fn dispose(cx: &mut Cx<'_>, asked: &Asked, id: NodeId, delete: bool) -> Flow<NtStatus> {
    let status = cx.with(|k| {
        let tree = k.fs.tree();
        let (is_full, node) = (tree.children(id).next().is_some(), tree.node(id));
        if delete && (id == ROOT || node.attributes & FILE_ATTRIBUTE_READONLY != 0) {
            return NtStatus::CANNOT_DELETE;
        }
        if delete && is_full {
            return NtStatus::DIRECTORY_NOT_EMPTY;
        }
        tree.node_mut(id).delete_pending = delete;
        NtStatus::SUCCESS
    });
    if status.is_success() {
        cx.write(asked.file + FILE_OBJECT::DeletePending, delete.into())?;
    }
    Ok(status)
}

/// The position, the end, or the room of a file.
fn set_value(cx: &mut Cx<'_>, asked: &Asked, id: NodeId, class: u32, value: i64) -> Flow<NtStatus> {
    let Ok(size) = u64::try_from(value) else { return Ok(NtStatus::INVALID_PARAMETER) };
    if class == FilePositionInformation {
        cx.write(asked.file + FILE_OBJECT::CurrentByteOffset, value)?;
        return Ok(NtStatus::SUCCESS);
    }
    let time = now(cx);
    Ok(cx.with(|k| {
        let tree = k.fs.tree();
        let node = tree.node(id);
        if node.is_directory() {
            return NtStatus::INVALID_PARAMETER;
        }
        // Less room than the file has bytes cuts it off; more is had when it is needed.
        let (had, free) = (node.size(), tree.free() + node.allocation());
        let is_room = class == FileAllocationInformation;
        if is_room && size > free {
            return NtStatus::DISK_FULL;
        }
        let size = if is_room { had.min(size.next_multiple_of(CLUSTER)) } else { size };
        match tree.resize(id, size) {
            Ok(()) => {
                let times = &mut tree.node_mut(id).times;
                (times.write, times.change) = (time, time);
                NtStatus::SUCCESS
            }
            Err(status) => status,
        }
    }))
}
