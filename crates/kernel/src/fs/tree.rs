//! The files and directories of the volume, in memory.
//!
//! Names keep their case and are found in any. What a directory has is in the order of its names in capitals. The volume has a size: what
//! would make it larger fails with `DISK_FULL`. It knows nothing of file objects: who may open what is `opening`'s.

use std::collections::BTreeMap;

use abi::{FILE_ATTRIBUTE_ARCHIVE, FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_NORMAL, NtStatus};

use super::folder::{Folder, Item};
use crate::ke::time;
use crate::ob::names::fold;

/// The number of a file or directory: its file id.
pub(super) type NodeId = u64;

/// The root directory.
pub(super) const ROOT: NodeId = 5;
/// Those below it are numbered from here on.
const FIRST: NodeId = 0x24;
/// Bytes of a unit of allocation.
pub(super) const CLUSTER: u64 = 4096;
/// Bytes that the volume has for the contents of files, and for each of them.
pub(super) const CAPACITY: u64 = 128 << 20;

/// `FILE_BASIC_INFORMATION`'s times, in units of 100 ns since 1601.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    pub(super) creation: i64,
    pub(super) access: i64,
    pub(super) write: i64,
    pub(super) change: i64,
}

impl Times {
    /// Of what is made now.
    pub(super) const fn all(now: i64) -> Self {
        Self { creation: now, access: now, write: now, change: now }
    }
}

/// What a file or directory has inside.
enum Body {
    File(Vec<u8>),
    /// By their names in capitals.
    Directory(BTreeMap<String, NodeId>),
}

/// A file or directory.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) parent: NodeId,
    body: Body,
    /// Those that are stored: neither `DIRECTORY` nor `NORMAL`.
    pub(super) attributes: u32,
    pub(super) times: Times,
    /// It goes with its last handle.
    pub(super) delete_pending: bool,
    /// It has no name any more, and stays while it is open.
    pub(super) is_gone: bool,
}

impl Node {
    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    /// Where it ends; 0 for a directory.
    pub(super) fn size(&self) -> u64 {
        match &self.body {
            Body::File(bytes) => bytes.len() as u64,
            Body::Directory(_) => 0,
        }
    }

    /// What it takes of the volume.
    pub(super) fn allocation(&self) -> u64 {
        self.size().next_multiple_of(CLUSTER)
    }

    /// As drivers see them.
    pub(super) const fn shown_attributes(&self) -> u32 {
        match (self.is_directory(), self.attributes) {
            (true, stored) => stored | FILE_ATTRIBUTE_DIRECTORY,
            (false, 0) => FILE_ATTRIBUTE_NORMAL,
            (false, stored) => stored,
        }
    }

    pub(super) fn contents(&self) -> &[u8] {
        match &self.body {
            Body::File(bytes) => bytes,
            Body::Directory(_) => &[],
        }
    }
}

/// All of them.
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// Bytes of clusters.
    used: u64,
}

impl Tree {
    /// A volume with what the folder has.
    pub(super) fn of(folder: &Folder) -> Self {
        let now = i64::try_from(time::BOOT).unwrap_or(i64::MAX);
        let root = Node {
            name: String::new(),
            parent: ROOT,
            body: Body::Directory(BTreeMap::new()),
            attributes: 0,
            times: Times::all(now),
            delete_pending: false,
            is_gone: false,
        };
        let mut tree = Self { nodes: BTreeMap::from([(ROOT, root)]), next: FIRST, used: 0 };
        for (path, item) in &folder.items {
            let (parent, name) = path.rsplit_once('\\').unwrap_or(("", path));
            let names: Vec<&str> = parent.split('\\').filter(|name| !name.is_empty()).collect();
            // A folder that is larger than a volume was refused when it was read.
            let Ok(parent) = tree.walk(ROOT, &names) else { continue };
            let Ok(made) = tree.make(parent, name, *item == Item::Directory, 0, now) else { continue };
            if let Item::File(bytes) = item {
                tree.node_mut(made).attributes = FILE_ATTRIBUTE_ARCHIVE;
                let _ = tree.write(made, 0, bytes);
            }
        }
        tree
    }

    /// What is on the volume.
    pub(super) fn folder(&self) -> Folder {
        let mut folder = Folder::default();
        for (id, node) in self.nodes.iter().filter(|(id, node)| **id != ROOT && !node.is_gone) {
            let item = match &node.body {
                Body::File(bytes) => Item::File(bytes.clone()),
                Body::Directory(_) => Item::Directory,
            };
            folder.items.insert(self.path(*id)[1..].to_owned(), item);
        }
        folder
    }

    /// Whether there is a file or directory of this number, with a name.
    pub(super) fn has(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.is_gone)
    }

    /// One that is open, or was just found.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a file stays while it is open")
    }

    /// Bytes that are free.
    pub(super) const fn free(&self) -> u64 {
        CAPACITY - self.used
    }

    /// It, and the directories that it lies in, up to the root; one that has no name any more may lie in none.
    fn upwards(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(id), |at| {
            let parent = self.nodes.get(at)?.parent;
            (*at != ROOT && self.nodes.contains_key(&parent)).then_some(parent)
        })
    }

    /// The directory that it lies in; itself, if that is gone.
    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.upwards(id).nth(1).unwrap_or(id)
    }

    /// The whole name, `\` for the root.
    pub(super) fn path(&self, id: NodeId) -> String {
        let names: Vec<&str> =
            self.upwards(id).filter(|at| *at != ROOT).map(|at| self.node(at).name.as_str()).collect();
        let path: String = names.iter().rev().flat_map(|name| ["\\", name]).collect();
        if path.is_empty() { "\\".to_owned() } else { path }
    }

    /// What has this name in the directory; none, too, if it is no directory.
    pub(super) fn child(&self, directory: NodeId, name: &str) -> Option<NodeId> {
        match &self.node(directory).body {
            Body::Directory(children) => children.get(&fold(name)).copied(),
            Body::File(_) => None,
        }
    }

    /// What is in a directory, in the order of names in capitals.
    pub(super) fn children(&self, directory: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        let children = match &self.node(directory).body {
            Body::Directory(children) => Some(children),
            Body::File(_) => None,
        };
        children.into_iter().flatten().map(|(key, id)| (key.as_str(), *id))
    }

    /// The directory that the names lead to from `from` on.
    ///
    /// # Errors
    /// `OBJECT_PATH_NOT_FOUND`.
    pub(super) fn walk(&self, from: NodeId, names: &[&str]) -> Result<NodeId, NtStatus> {
        let mut at = from;
        for name in names {
            at = self.child(at, name).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        }
        if self.node(at).is_directory() { Ok(at) } else { Err(NtStatus::OBJECT_PATH_NOT_FOUND) }
    }

    /// A new file or directory; nothing has its name there.
    ///
    /// # Errors
    /// `DISK_FULL`.
    pub(super) fn make(
        &mut self,
        parent: NodeId,
        name: &str,
        is_directory: bool,
        attributes: u32,
        now: i64,
    ) -> Result<NodeId, NtStatus> {
        if self.free() < CLUSTER {
            return Err(NtStatus::DISK_FULL);
        }
        let id = self.next;
        self.next += 1;
        self.used += CLUSTER;
        let body = if is_directory { Body::Directory(BTreeMap::new()) } else { Body::File(Vec::new()) };
        let name = name.to_owned();
        let times = Times::all(now);
        let node = Node { name, parent, body, attributes, times, delete_pending: false, is_gone: false };
        self.nodes.insert(id, node);
        self.enter(id, now);
        Ok(id)
    }

    /// Puts its name into its directory.
    fn enter(&mut self, id: NodeId, now: i64) {
        let (parent, key) = (self.node(id).parent, fold(&self.node(id).name));
        let parent = self.node_mut(parent);
        (parent.times.write, parent.times.change) = (now, now);
        if let Body::Directory(children) = &mut parent.body {
            children.insert(key, id);
        }
    }

    /// Takes its name out of its directory.
    fn leave(&mut self, id: NodeId, now: i64) {
        let (parent, key) = (self.node(id).parent, fold(&self.node(id).name));
        let parent = self.node_mut(parent);
        (parent.times.write, parent.times.change) = (now, now);
        if let Body::Directory(children) = &mut parent.body {
            children.remove(&key);
        }
    }

    /// It has no name from now on; it is there until it is [forgotten](Tree::forget).
    pub(super) fn unlink(&mut self, id: NodeId, now: i64) {
        self.leave(id, now);
        self.node_mut(id).is_gone = true;
    }

    /// It was unlinked, and nothing has it open any more.
    pub(super) fn forget(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.remove(&id) {
            self.used -= node.allocation() + CLUSTER;
        }
    }

    /// Another name, and perhaps another directory.
    pub(super) fn rename(&mut self, id: NodeId, parent: NodeId, name: &str, now: i64) {
        self.leave(id, now);
        let node = self.node_mut(id);
        (node.parent, node.times.change) = (parent, now);
        name.clone_into(&mut node.name);
        self.enter(id, now);
    }

    /// Whether `inner` is `outer` or lies below it.
    pub(super) fn lies_in(&self, inner: NodeId, outer: NodeId) -> bool {
        self.upwards(inner).any(|at| at == outer)
    }

    /// The file ends at `size`; what is new is zeros.
    ///
    /// # Errors
    /// `DISK_FULL`.
    pub(super) fn resize(&mut self, id: NodeId, size: u64) -> Result<(), NtStatus> {
        let (had, free) = (self.node(id).allocation(), self.free());
        if size > CAPACITY || size.next_multiple_of(CLUSTER) > had + free {
            return Err(NtStatus::DISK_FULL);
        }
        let length = usize::try_from(size).map_err(|_| NtStatus::DISK_FULL)?;
        if let Body::File(bytes) = &mut self.node_mut(id).body {
            bytes.resize(length, 0);
            if bytes.capacity() / 4 > bytes.len() {
                bytes.shrink_to_fit();
            }
        }
        self.used = self.used - had + self.node(id).allocation();
        Ok(())
    }

    /// Bytes from `offset` on, as many of `length` as there are.
    pub(super) fn read(&self, id: NodeId, offset: u64, length: u32) -> &[u8] {
        let contents = self.node(id).contents();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        let to = from.saturating_add(length as usize).min(contents.len());
        &contents[from..to]
    }

    /// Stores bytes; between the file's end and `offset` it has zeros.
    ///
    /// # Errors
    /// `DISK_FULL`; nothing is written then.
    pub(super) fn write(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> Result<(), NtStatus> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(NtStatus::DISK_FULL)?;
        if end > self.node(id).size() && !bytes.is_empty() {
            self.resize(id, end)?;
        }
        if let (Body::File(contents), Ok(from)) = (&mut self.node_mut(id).body, usize::try_from(offset))
            && !bytes.is_empty()
        {
            contents[from..from + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let items = [
            ("Windows", Item::Directory),
            ("Windows\\fw.bin", Item::File(b"firmware".to_vec())),
            ("a.txt", Item::File(Vec::new())),
        ];
        Tree::of(&Folder { items: items.map(|(path, item)| (path.to_owned(), item)).into() })
    }

    #[test]
    fn a_name_is_found_in_any_case_and_keeps_its_own() {
        let tree = tree();
        let windows = tree.walk(ROOT, &["WINDOWS"]).unwrap();
        let file = tree.child(windows, "FW.Bin").unwrap();
        assert_eq!((tree.path(file).as_str(), tree.read(file, 4, 100)), ("\\Windows\\fw.bin", &b"ware"[..]));
        assert_eq!(tree.walk(ROOT, &["a.txt"]), Err(NtStatus::OBJECT_PATH_NOT_FOUND));
    }

    #[test]
    fn a_file_that_is_written_beyond_its_end_has_zeros_between() {
        let mut tree = tree();
        let file = tree.child(ROOT, "a.txt").unwrap();
        tree.write(file, 3, b"x").unwrap();
        assert_eq!(tree.read(file, 0, 10), [0, 0, 0, b'x']);
        assert_eq!(tree.read(file, 1 << 32, 10), []);
    }

    #[test]
    fn a_volume_that_is_full_says_so_and_has_room_again_when_a_file_goes() {
        let mut tree = tree();
        let (file, before) = (tree.child(ROOT, "a.txt").unwrap(), tree.free());
        assert_eq!(tree.write(file, 1 << 40, b"x"), Err(NtStatus::DISK_FULL));
        assert_eq!(tree.resize(file, before + 1), Err(NtStatus::DISK_FULL));
        tree.resize(file, before).unwrap();
        assert_eq!(tree.make(ROOT, "b", false, 0, 0), Err(NtStatus::DISK_FULL));
        tree.unlink(file, 0);
        assert_eq!((tree.free(), tree.child(ROOT, "a.txt")), (0, None));
        tree.forget(file);
        assert_eq!(tree.free(), before + CLUSTER);
    }

    #[test]
    fn what_is_on_the_volume_is_a_folder_again() {
        let mut tree = tree();
        let windows = tree.walk(ROOT, &["Windows"]).unwrap();
        let file = tree.child(windows, "fw.bin").unwrap();
        tree.rename(file, ROOT, "Z", 0);
        let folder = tree.folder();
        let paths: Vec<&str> = folder.items.keys().map(String::as_str).collect();
        assert_eq!(paths, ["Windows", "Z", "a.txt"]);
        assert_eq!(folder.items["Z"], Item::File(b"firmware".to_vec()));
    }
}
