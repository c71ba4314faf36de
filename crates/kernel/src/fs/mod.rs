//! The file system of a folder: what is below a folder of the host's is drive `C:` of the machine.
//!
//! The folder is read before the machine is made ([`Folder`]), and the machine works on that copy ([`tree`]): it is part of the kernel's
//! state, so it goes back with the machine, and the host's folder is never touched from here. `\Device\HarddiskVolume1` is a device of a
//! built-in driver ([`mount`]) that gets IRPs like any other ([`dispatch`]); `\??\C:` and `\SystemRoot` are links to it.
//!
//! Not here: named streams, extended attributes, security descriptors of files, oplocks, change notifications, links,
//! file ids, short names, the volume as one range of bytes. A request for one is a verdict that names it. There is no cache manager:
//! `FsContext`, `SectionObjectPointer` and `PrivateCacheMap` of the file objects stay null.

mod contents;
pub(crate) mod dispatch;
mod file_information;
pub mod folder;
mod listing;
pub(crate) mod locks;
mod mount;
mod opening;
mod path;
mod rename;
mod tree;
mod volume;
pub(crate) mod wildcard;

use std::collections::BTreeMap;

pub use folder::{Folder, Item};
pub use mount::{dos_name, mount};
pub(crate) use opening::is_mounted;

use crate::nt::Settings;
use tree::{NodeId, Tree};

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// What is on the volume; none if the machine has no folder.
    tree: Option<Tree>,
    /// Open files and directories, by file object.
    opens: BTreeMap<u64, opening::Open>,
    /// Ranges of bytes that are locked.
    locks: Vec<locks::Lock>,
    /// Requests that wait for one.
    waiting: Vec<locks::Waiting>,
    /// The volume's label in UTF-16, once one was set.
    label: Option<Vec<u8>>,
    /// The volume's device object; 0 before it is mounted.
    device: u64,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let new = || settings.platform.drive.then(|| Tree::of(&Folder::of_new_windows()));
        Self { tree: settings.folder.as_deref().map(Tree::of).or_else(new), ..Self::default() }
    }

    /// The volume that is mounted: nothing but its own dispatch routines works on it.
    fn tree(&mut self) -> &mut Tree {
        self.tree.as_mut().expect("a volume without a folder is not mounted")
    }

    /// Whether this is the volume's device.
    pub(crate) const fn is_volume(&self, device: u64) -> bool {
        device != 0 && self.device == device
    }

    /// How many opened files and directories are this one, and have a handle.
    fn handles(&self, node: NodeId) -> usize {
        self.opens.values().filter(|open| open.node == Some(node) && !open.is_cleaned_up).count()
    }

    /// What is on the volume now; none if there is none.
    #[must_use]
    pub fn folder(&self) -> Option<Folder> {
        self.tree.as_ref().map(Tree::folder)
    }
}
