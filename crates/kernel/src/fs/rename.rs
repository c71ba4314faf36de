//! Another name for a file or directory.
//!
//! Page: *FILE_RENAME_INFORMATION structure*. The new name is one without `\` in the same directory, one relative to an open directory, or
//! a whole one, which must lead to this volume.

use abi::{DriverPtr, FILE_ATTRIBUTE_READONLY, NtStatus};
use engine::Flow;

use super::dispatch::now;
use super::path;
use super::tree::{NodeId, ROOT};
use crate::cx::Cx;
use crate::ob::handle;
use crate::ob::names::Target;
use crate::ob::{Handle, Kind};

/// Bytes before the name.
const FIXED: u32 = 20;
/// The least bytes of the structure: with a character.
pub(super) const LEAST: u32 = FIXED + 2;

/// `FileRenameInformation`, in the system's copy of the buffer.
pub(super) fn rename(cx: &mut Cx<'_>, id: NodeId, buffer: u64, length: u32) -> Flow<NtStatus> {
    let replace = cx.read(DriverPtr::<u8>::new(buffer))? != 0;
    let root = cx.read(DriverPtr::<u64>::new(buffer + 8))?;
    let bytes = cx.read(DriverPtr::<u32>::new(buffer + 16))?;
    if bytes == 0 || bytes > length - FIXED || !bytes.is_multiple_of(2) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let text = cx.read_bytes(buffer + u64::from(FIXED), bytes.into())?;
    let units: Vec<u16> = text.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let name = String::from_utf16_lossy(&units);
    let from = match directory(cx, root)? {
        Ok(from) => from,
        Err(status) => return Ok(status),
    };
    let time = now(cx);
    Ok(cx.with(|k| {
        let whole = name.starts_with('\\');
        let (from, inner) = match (from, whole) {
            (Some(_), true) => return NtStatus::OBJECT_NAME_INVALID,
            (Some(from), false) => (from, name),
            (None, false) if name.contains('\\') => return NtStatus::OBJECT_NAME_INVALID,
            (None, false) => (k.fs.tree().node(id).parent, name),
            (None, true) => match k.ob.names.resolve(&name) {
                Ok(found) if found.target == Target::Object(k.fs.device) => (ROOT, found.rest),
                Ok(_) => return NtStatus::NOT_SAME_DEVICE,
                Err(status) => return status,
            },
        };
        match k.fs.give_name(id, from, &inner, replace, time) {
            Ok(()) => NtStatus::SUCCESS,
            Err(status) => status,
        }
    }))
}

/// The directory behind `RootDirectory`; none if that is null.
fn directory(cx: &mut Cx<'_>, root: u64) -> Flow<Result<Option<NodeId>, NtStatus>> {
    if root == 0 {
        return Ok(Ok(None));
    }
    let entry = match handle::entry_of(cx, Handle(root), Kind::File) {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    let node = cx.with(|k| k.fs.opens.get(&entry.object).and_then(|open| open.node));
    Ok(node.map(Some).ok_or(NtStatus::NOT_SAME_DEVICE))
}

impl super::State {
    fn give_name(
        &mut self,
        id: NodeId,
        from: NodeId,
        name: &str,
        replace: bool,
        now: i64,
    ) -> Result<(), NtStatus> {
        let (names, _) = path::split(name)?;
        let Some((last, directories)) = names.split_last() else {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        };
        let parent = self.tree().walk(from, directories)?;
        if last.contains(':') {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        if self.tree().node(id).is_gone || self.tree().node(parent).delete_pending {
            return Err(NtStatus::DELETE_PENDING);
        }
        // No directory comes to lie in itself, and the root stays where it is.
        if id == ROOT || self.tree().node(id).is_directory() && self.is_in_use_below(id, parent) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        match self.tree().child(parent, last) {
            Some(other) if other != id => self.replace(other, replace, now)?,
            _ => {}
        }
        self.tree().rename(id, parent, last, now);
        Ok(())
    }

    /// Whether the directory cannot go to `parent`: something in it is open, or it would lie in itself.
    fn is_in_use_below(&mut self, id: NodeId, parent: NodeId) -> bool {
        let open: Vec<NodeId> = self.opens.values().filter_map(|open| open.node).collect();
        let tree = self.tree();
        tree.lies_in(parent, id) || open.iter().any(|other| *other != id && tree.lies_in(*other, id))
    }

    /// What has the name already goes, if that is wanted and it is no directory, nor open, nor read-only.
    fn replace(&mut self, other: NodeId, is_wanted: bool, now: i64) -> Result<(), NtStatus> {
        let node = self.tree().node(other);
        if !is_wanted {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        if node.is_directory() || node.attributes & FILE_ATTRIBUTE_READONLY != 0 || self.handles(other) > 0 {
            return Err(NtStatus::ACCESS_DENIED);
        }
        let is_open = self.opens.values().any(|open| open.node == Some(other));
        self.tree().unlink(other, now);
        if !is_open {
            self.tree().forget(other);
        }
        Ok(())
    }
}
