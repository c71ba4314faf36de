//! Opening and closing files and directories.
//!
//! Pages: *ZwCreateFile function* (its `CreateDisposition` and `CreateOptions`), *IRP_MJ_CREATE (File Systems)*, *IRP_MJ_CLEANUP*,
//! *IRP_MJ_CLOSE*, *IoCheckShareAccess function*. Access is not checked against descriptors, which files here do not have; a file that is
//! read-only is not opened for writing.

use abi::{
    DriverPtr, FILE_APPEND_DATA, FILE_ATTRIBUTE_ARCHIVE, FILE_ATTRIBUTE_HIDDEN, FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_SYSTEM, FILE_CREATE, FILE_CREATED, FILE_DELETE_ON_CLOSE, FILE_DIRECTORY_FILE,
    FILE_NON_DIRECTORY_FILE, FILE_OBJECT, FILE_OPEN, FILE_OPEN_BY_FILE_ID, FILE_OPEN_IF, FILE_OPENED,
    FILE_OVERWRITE, FILE_OVERWRITE_IF, FILE_OVERWRITTEN, FILE_SUPERSEDE, FILE_SUPERSEDED, FILE_WRITE_DATA,
    FO_DELETE_ON_CLOSE, FO_VOLUME_OPEN, IO_SECURITY_CONTEXT, IO_STACK_LOCATION, NtStatus,
    SL_OPEN_TARGET_DIRECTORY, UNICODE_STRING,
};
use engine::Flow;

use super::dispatch::{Asked, now};
use super::listing::Scan;
use super::locks;
use super::path;
use super::tree::{NodeId, ROOT, Tree};
use crate::cx::{Cx, Kernel};
use crate::io::file;
use crate::io::share_access::Wishes;
use crate::io::system_request::Answer;
use crate::ob::string;
use crate::verdict::Verdict;

/// The attributes that can be given to a file, of those that are stored.
pub(super) const SETTABLE: u32 = 0x3127;

/// A file or directory that is open, as the file system knows it.
pub(super) struct Open {
    /// Which one; none if it is the volume itself.
    pub(super) node: Option<NodeId>,
    /// The access that was asked for.
    pub(super) access: u32,
    wishes: Wishes,
    delete_on_close: bool,
    /// It has no handle any more.
    pub(super) is_cleaned_up: bool,
    /// How far its directory was listed.
    pub(super) scan: Option<Scan>,
}

/// Whether the machine has a volume.
pub(crate) fn is_mounted(k: &Kernel) -> bool {
    k.fs.device != 0
}

/// What is asked for.
struct Wanted {
    name: String,
    /// It is asked for by this number, not by a name.
    id: Option<u64>,
    /// The directory that the name counts from.
    from: NodeId,
    access: u32,
    options: u32,
    disposition: u32,
    attributes: u32,
    wishes: Wishes,
}

impl Wanted {
    const fn has(&self, option: u32) -> bool {
        self.options & option != 0
    }

    /// Those that are stored with a new file.
    const fn stored_attributes(&self) -> u32 {
        self.attributes & SETTABLE | FILE_ATTRIBUTE_ARCHIVE
    }

    /// Whether it replaces what was in the file.
    const fn empties(&self) -> bool {
        matches!(self.disposition, FILE_SUPERSEDE | FILE_OVERWRITE | FILE_OVERWRITE_IF)
    }
}

/// `IRP_MJ_CREATE`.
pub(super) fn open(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let wanted = match wanted(cx, asked)? {
        Ok(wanted) => wanted,
        Err(status) => return Ok(Answer::failed(status)),
    };
    if let Some(what) = missing(cx, asked, &wanted)? {
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    let related = cx.read(asked.file + FILE_OBJECT::RelatedFileObject)?;
    if wanted.id.is_none() && wanted.name.is_empty() && related.is_null() {
        return open_volume(cx, asked, &wanted);
    }
    let time = now(cx);
    let opened = cx.with(|k| {
        let (node, information) = k.fs.find_or_make(&wanted, time)?;
        k.fs.opens.insert(
            asked.file.address,
            Open {
                node: Some(node),
                access: wanted.access,
                wishes: wanted.wishes,
                delete_on_close: wanted.has(FILE_DELETE_ON_CLOSE),
                is_cleaned_up: false,
                scan: None,
            },
        );
        Ok((k.fs.tree().path(node), information))
    });
    let (path, information) = match opened {
        Ok(opened) => opened,
        Err(status) => return Ok(Answer::failed(status)),
    };
    wanted.wishes.write(cx, asked.file)?;
    if wanted.has(FILE_DELETE_ON_CLOSE) {
        let flags = cx.read(asked.file + FILE_OBJECT::Flags)?;
        cx.write(asked.file + FILE_OBJECT::Flags, flags | FO_DELETE_ON_CLOSE)?;
    }
    if !related.is_null() && wanted.id.is_none() {
        file::rename(cx, asked.file, &path)?;
    }
    Ok(Answer { status: NtStatus::SUCCESS, information })
}

fn wanted(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Result<Wanted, NtStatus>> {
    let Asked { location, file, .. } = *asked;
    let context: DriverPtr<IO_SECURITY_CONTEXT> =
        cx.read(location + IO_STACK_LOCATION::Parameters_Create_SecurityContext)?;
    let access = cx.read(context + IO_SECURITY_CONTEXT::DesiredAccess)?;
    let options = cx.read(location + IO_STACK_LOCATION::Parameters_Create_Options)?;
    let share = cx.read(location + IO_STACK_LOCATION::Parameters_Create_ShareAccess)?;
    if cx.read(location + IO_STACK_LOCATION::Parameters_Create_EaLength)? != 0 {
        return Ok(Err(NtStatus::EAS_NOT_SUPPORTED));
    }
    let related = cx.read(file + FILE_OBJECT::RelatedFileObject)?;
    let from = if related.is_null() {
        ROOT
    } else {
        match cx.with(|k| k.fs.opens.get(&related.address).map(|open| open.node)) {
            Some(node) => node.unwrap_or(ROOT),
            None => return Ok(Err(NtStatus::INVALID_PARAMETER)),
        }
    };
    let (name, id) = if options & FILE_OPEN_BY_FILE_ID == 0 {
        (string::read(cx, file + FILE_OBJECT::FileName)?, None)
    } else {
        match identifier(cx, file)? {
            Some(id) => (String::new(), Some(id)),
            None => return Ok(Err(NtStatus::INVALID_PARAMETER)),
        }
    };
    if !related.is_null() && name.starts_with('\\') {
        return Ok(Err(NtStatus::OBJECT_NAME_INVALID));
    }
    Ok(Ok(Wanted {
        name,
        id,
        from,
        access,
        options: options & 0x00FF_FFFF,
        disposition: options >> 24,
        attributes: cx.read(location + IO_STACK_LOCATION::Parameters_Create_FileAttributes)?.into(),
        wishes: Wishes::new(access, share.into()),
    }))
}

/// The number that stands in the place of a name, behind the volume's if it does not count from a file; none if it is no such number.
/// Object identifiers, of 16 bytes, are not given to files here.
fn identifier(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<Option<u64>> {
    const BACKSLASH: [u8; 2] = [b'\\', 0];
    let name = file + FILE_OBJECT::FileName;
    let length = cx.read(name + UNICODE_STRING::Length)?;
    let buffer = cx.read(name + UNICODE_STRING::Buffer)?;
    let bytes = cx.read_bytes(buffer.address, length.into())?;
    // Eight bytes may begin with one, too.
    let number = if bytes.len() == 8 { Some(&bytes[..]) } else { bytes.strip_prefix(&BACKSLASH) };
    Ok(number.and_then(|number| number.try_into().ok()).map(u64::from_le_bytes))
}

/// What dirql has not, if that is asked for.
fn missing(cx: &mut Cx<'_>, asked: &Asked, wanted: &Wanted) -> Flow<Option<&'static str>> {
    let flags = cx.read(asked.location + IO_STACK_LOCATION::Flags)?;
    Ok(if wanted.name.contains(':') {
        Some("a named stream of a file")
    } else if flags & SL_OPEN_TARGET_DIRECTORY != 0 {
        Some("IO_OPEN_TARGET_DIRECTORY")
    } else {
        None
    })
}

/// The volume as a whole: it can be asked about, and not read.
fn open_volume(cx: &mut Cx<'_>, asked: &Asked, wanted: &Wanted) -> Flow<Answer> {
    if wanted.has(FILE_DIRECTORY_FILE) {
        return Ok(Answer::failed(NtStatus::NOT_A_DIRECTORY));
    }
    if !matches!(wanted.disposition, FILE_OPEN | FILE_OPEN_IF) {
        return Ok(Answer::failed(NtStatus::ACCESS_DENIED));
    }
    let open = Open {
        node: None,
        access: wanted.access,
        wishes: wanted.wishes,
        delete_on_close: false,
        is_cleaned_up: false,
        scan: None,
    };
    cx.with(|k| k.fs.opens.insert(asked.file.address, open));
    let flags = cx.read(asked.file + FILE_OBJECT::Flags)?;
    cx.write(asked.file + FILE_OBJECT::Flags, flags | FO_VOLUME_OPEN)?;
    Ok(Answer { status: NtStatus::SUCCESS, information: FILE_OPENED })
}

impl super::State {
    /// The file or directory that is asked for, and what was done for it.
    fn find_or_make(&mut self, wanted: &Wanted, now: i64) -> Result<(NodeId, u64), NtStatus> {
        if let Some(id) = wanted.id {
            let is_there = matches!(wanted.disposition, FILE_OPEN | FILE_OPEN_IF) && self.tree().has(id);
            return if is_there {
                self.open_existing(id, wanted, now)
            } else {
                Err(NtStatus::INVALID_PARAMETER)
            };
        }
        let (names, is_closed) = path::split(&wanted.name)?;
        let Some((last, directories)) = names.split_last() else {
            return self.open_existing(wanted.from, wanted, now);
        };
        let parent = self.tree().walk(wanted.from, directories)?;
        match self.tree().child(parent, last) {
            Some(node) if is_closed && !self.tree().node(node).is_directory() => {
                Err(NtStatus::OBJECT_NAME_INVALID)
            }
            Some(node) => self.open_existing(node, wanted, now),
            None => Self::make(self.tree(), parent, last, is_closed, wanted, now),
        }
    }

    fn open_existing(&mut self, id: NodeId, wanted: &Wanted, now: i64) -> Result<(NodeId, u64), NtStatus> {
        let node = self.tree().node(id);
        let is_read_only = node.attributes & FILE_ATTRIBUTE_READONLY != 0;
        if node.delete_pending {
            return Err(NtStatus::DELETE_PENDING);
        }
        if wanted.disposition == FILE_CREATE {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        if node.is_directory() {
            if wanted.has(FILE_NON_DIRECTORY_FILE) {
                return Err(NtStatus::FILE_IS_A_DIRECTORY);
            }
            if wanted.empties() {
                return Err(NtStatus::OBJECT_NAME_COLLISION);
            }
        } else {
            let is_to_write = wanted.access & (FILE_WRITE_DATA | FILE_APPEND_DATA) != 0 || wanted.empties();
            if wanted.has(FILE_DIRECTORY_FILE) {
                return Err(NtStatus::NOT_A_DIRECTORY);
            }
            if is_read_only && is_to_write || wanted.empties() && hides(node.attributes, wanted.attributes) {
                return Err(NtStatus::ACCESS_DENIED);
            }
        }
        if wanted.has(FILE_DELETE_ON_CLOSE) && (is_read_only || id == ROOT) {
            return Err(NtStatus::CANNOT_DELETE);
        }
        let mut others = self.opens.values().filter(|open| open.node == Some(id) && !open.is_cleaned_up);
        if others.any(|open| wanted.wishes.conflict_with(&open.wishes)) {
            return Err(NtStatus::SHARING_VIOLATION);
        }
        if wanted.empties() {
            let tree = self.tree();
            tree.resize(id, 0)?;
            let node = tree.node_mut(id);
            node.attributes = wanted.stored_attributes();
            (node.times.write, node.times.change) = (now, now);
        }
        let information = match wanted.disposition {
            FILE_SUPERSEDE => FILE_SUPERSEDED,
            FILE_OVERWRITE | FILE_OVERWRITE_IF => FILE_OVERWRITTEN,
            _ => FILE_OPENED,
        };
        Ok((id, information))
    }

    fn make(
        tree: &mut Tree,
        parent: NodeId,
        name: &str,
        is_closed: bool,
        wanted: &Wanted,
        now: i64,
    ) -> Result<(NodeId, u64), NtStatus> {
        let is_directory = wanted.has(FILE_DIRECTORY_FILE);
        if matches!(wanted.disposition, FILE_OPEN | FILE_OVERWRITE) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        if is_closed && !is_directory {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        if tree.node(parent).delete_pending {
            return Err(NtStatus::DELETE_PENDING);
        }
        if wanted.has(FILE_DELETE_ON_CLOSE) && wanted.attributes & FILE_ATTRIBUTE_READONLY != 0 {
            return Err(NtStatus::CANNOT_DELETE);
        }
        let stored = wanted.stored_attributes();
        let attributes = if is_directory { stored & !FILE_ATTRIBUTE_ARCHIVE } else { stored };
        Ok((tree.make(parent, name, is_directory, attributes, now)?, FILE_CREATED))
    }
}

/// A hidden file or a system's is not overwritten by one that is neither.
const fn hides(had: u32, given: u32) -> bool {
    had & (FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_SYSTEM) & !given != 0
}

/// `IRP_MJ_CLEANUP`: the last handle is closed. The file goes, if it is to be deleted and has no other.
pub(super) fn clean_up(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let time = now(cx);
    locks::release(cx, asked.file.address)?;
    cx.with(|k| {
        let fs = &mut k.fs;
        let Some(open) = fs.opens.get_mut(&asked.file.address) else { return };
        open.is_cleaned_up = true;
        let (Some(id), delete) = (open.node, open.delete_on_close) else { return };
        let tree = fs.tree();
        if delete && tree.children(id).next().is_none() {
            tree.node_mut(id).delete_pending = true;
        }
        let node = tree.node(id);
        let is_to_go = node.delete_pending && !node.is_gone;
        if is_to_go && fs.handles(id) == 0 {
            fs.tree().unlink(id, time);
        }
    });
    Ok(Answer::failed(NtStatus::SUCCESS))
}

/// `IRP_MJ_CLOSE`: the last reference is gone.
pub(super) fn close(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    cx.with(|k| {
        let fs = &mut k.fs;
        let Some(node) = fs.opens.remove(&asked.file.address).and_then(|open| open.node) else { return };
        let is_open = fs.opens.values().any(|open| open.node == Some(node));
        if !is_open && fs.tree().node(node).is_gone {
            fs.tree().forget(node);
        }
    });
    Ok(Answer::failed(NtStatus::SUCCESS))
}
