//! What is in a directory.
//!
//! Pages: *ZwQueryDirectoryFile function*, *IRP_MJ_DIRECTORY_CONTROL*, *FILE_BOTH_DIR_INFORMATION structure* and its neighbours. Entries come
//! in the order of their names in capitals, `.` and `..` first where the directory is not the root. The pattern is that of the handle's
//! first call. There are no short names. Notifications of changes are not here.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DriverPtr, FileBothDirectoryInformation, FileDirectoryInformation, FileFullDirectoryInformation,
    FileIdBothDirectoryInformation, FileIdFullDirectoryInformation, FileNamesInformation, IO_STACK_LOCATION,
    IRP_MN_QUERY_DIRECTORY, NtStatus, SL_RESTART_SCAN, SL_RETURN_SINGLE_ENTRY, UNICODE_STRING,
};
use engine::Flow;

use super::contents;
use super::dispatch::Asked;
use super::file_information::other_class;
use super::tree::{Node, NodeId, ROOT, Tree};
use super::wildcard;
use crate::cx::Cx;
use crate::fields::Fields;
use crate::io::system_request::Answer;
use crate::ob::names::fold;
use crate::ob::string;
use crate::verdict::Verdict;

/// Classes that Windows has besides: object ids, quotas, reparse points, transactions, the newer forms with ids.
const OTHERS: &[u32] = &[29, 32, 33, 50, 60, 63, 78, 79, 80, 81];
/// Bytes of a short name's room, which is empty.
const SHORT_NAME: usize = 24;

/// How far a handle has listed its directory.
#[derive(Clone, Default)]
pub(super) struct Scan {
    /// In capitals; none is all.
    pattern: Option<String>,
    /// The last entry that was returned.
    last: Option<Place>,
}

/// Where an entry stands: the two that name directories first.
type Place = (u8, String);

/// An entry.
struct Entry {
    place: Place,
    name: String,
    node: NodeId,
}

/// All entries behind the last one that was returned, in order.
fn entries(tree: &Tree, directory: NodeId, scan: &Scan) -> Vec<Entry> {
    let mut all = Vec::new();
    if directory != ROOT {
        let parent = tree.parent(directory);
        all.push(Entry { place: (0, String::new()), name: ".".to_owned(), node: directory });
        all.push(Entry { place: (1, String::new()), name: "..".to_owned(), node: parent });
    }
    all.extend(tree.children(directory).map(|(key, node)| {
        let name = tree.node(node).name.clone();
        Entry { place: (2, key.to_owned()), name, node }
    }));
    all.retain(|entry| {
        let is_new = scan.last.as_ref().is_none_or(|last| entry.place > *last);
        is_new && scan.pattern.as_ref().is_none_or(|pattern| wildcard::matches(pattern, &fold(&entry.name)))
    });
    all
}

/// One entry as the class has it, and how many of its bytes come before the name; none if dirql has not the class.
fn encode(class: u32, node: &Node, id: NodeId, name: &[u8]) -> Option<(Vec<u8>, usize)> {
    let head = Fields::default().u32(0).u32(0);
    if class == FileNamesInformation {
        return Some((head.size(name.len()).bytes(name).done(), 12));
    }
    let times = node.times;
    let head = head
        .i64(times.creation)
        .i64(times.access)
        .i64(times.write)
        .i64(times.change)
        .u64(node.size())
        .u64(node.allocation())
        .u32(node.shown_attributes())
        .size(name.len());
    let (ea, short) = (0, 0);
    let fixed = match class {
        FileDirectoryInformation => head,
        FileFullDirectoryInformation => head.u32(ea),
        FileIdFullDirectoryInformation => head.u32(ea).pad_to(72).u64(id),
        FileBothDirectoryInformation => head.u32(ea).u16(short).pad_to(70 + SHORT_NAME),
        FileIdBothDirectoryInformation => head.u32(ea).u16(short).pad_to(96).u64(id),
        _ => return None,
    };
    let before = fixed.len();
    Some((fixed.bytes(name).done(), before))
}

/// `IRP_MJ_DIRECTORY_CONTROL`.
pub(super) fn list(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let minor = cx.read(asked.location + IO_STACK_LOCATION::MinorFunction)?;
    if minor != IRP_MN_QUERY_DIRECTORY {
        let what = "notification of changes in a directory (IRP_MN_NOTIFY_CHANGE_DIRECTORY)";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    let directory = match asked.node(cx, "listing")? {
        Ok(node) if cx.with(|k| k.fs.tree().node(node).is_directory()) => node,
        Ok(_) => return Ok(Answer::failed(NtStatus::INVALID_PARAMETER)),
        Err(status) => return Ok(Answer::failed(status)),
    };
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryDirectory_Length)?;
    let class =
        cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryDirectory_FileInformationClass)?;
    let flags = cx.read(asked.location + IO_STACK_LOCATION::Flags)?;
    let (scan, is_first) = scan(cx, asked, flags)?;
    let is_single = flags & SL_RETURN_SINGLE_ENTRY != 0;
    let Some(listed) = cx.with(|k| listed(k.fs.tree(), directory, &scan, class, is_single, length)) else {
        return other_class(cx, "ZwQueryDirectoryFile", class, OTHERS);
    };
    let Listed { bytes, last, status } = listed;
    if !bytes.is_empty()
        && let Err(status) = contents::put(cx, asked.irp, &bytes)?
    {
        return Ok(Answer::failed(status));
    }
    let last = last.or_else(|| scan.last.clone());
    cx.with(|k| {
        if let Some(open) = k.fs.opens.get_mut(&asked.file.address)
            && status != NtStatus::INFO_LENGTH_MISMATCH
        {
            open.scan = Some(Scan { last, ..scan });
        }
    });
    let status = if status == NtStatus::NO_MORE_FILES && is_first { NtStatus::NO_SUCH_FILE } else { status };
    Ok(Answer { status, information: bytes.len() as u64 })
}

/// How far the directory was listed, and whether this is the handle's first call.
fn scan(cx: &mut Cx<'_>, asked: &Asked, flags: u8) -> Flow<(Scan, bool)> {
    let known = cx.with(|k| k.fs.opens.get(&asked.file.address).and_then(|open| open.scan.clone()));
    if let Some(known) = known {
        let last = if flags & SL_RESTART_SCAN != 0 { None } else { known.last };
        return Ok((Scan { last, ..known }, false));
    }
    let name: DriverPtr<UNICODE_STRING> =
        cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryDirectory_FileName)?;
    let pattern = fold(&string::read(cx, name)?);
    let pattern = (!pattern.is_empty() && pattern != "*").then_some(pattern);
    Ok((Scan { pattern, last: None }, true))
}

/// What a call gets.
struct Listed {
    bytes: Vec<u8>,
    /// The last entry that is in it.
    last: Option<Place>,
    status: NtStatus,
}

/// As many entries as fit; of the first one the name may be cut off. None if dirql has not the class.
fn listed(
    tree: &Tree,
    directory: NodeId,
    scan: &Scan,
    class: u32,
    is_single: bool,
    length: u32,
) -> Option<Listed> {
    let length = length as usize;
    // Whether there is the class, whatever is in the directory, and room for an entry.
    let (_, least) = encode(class, tree.node(directory), directory, &[])?;
    let mut listed = Listed { bytes: Vec::new(), last: None, status: NtStatus::NO_MORE_FILES };
    if length < least {
        return Some(Listed { status: NtStatus::INFO_LENGTH_MISMATCH, ..listed });
    }
    let mut previous = None;
    for entry in entries(tree, directory, scan) {
        let name = string::encode(&entry.name);
        let (bytes, fixed) = encode(class, tree.node(entry.node), entry.node, &name[..name.len() - 2])?;
        let at = listed.bytes.len().next_multiple_of(8);
        let fits = bytes.len() <= length.saturating_sub(at);
        if !fits && previous.is_some() {
            break;
        }
        if let Some(previous) = previous {
            listed.bytes = Fields::default().bytes(&listed.bytes).with_u32_at(previous, at - previous).done();
        }
        listed.bytes.resize(at, 0);
        let end = if fits { bytes.len() } else { length.max(fixed) };
        listed.bytes.extend(&bytes[..end]);
        listed.status = if fits { NtStatus::SUCCESS } else { NtStatus::BUFFER_OVERFLOW };
        (listed.last, previous) = (Some(entry.place), Some(at));
        if is_single || !fits {
            break;
        }
    }
    Some(listed)
}
