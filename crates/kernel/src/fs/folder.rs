//! A folder as plain values: what a machine's volume begins with, and what it has at the end.

use std::collections::BTreeMap;

use super::path;
use super::tree::{CAPACITY, CLUSTER};
use crate::ob::names::fold;

/// Whether a file of the volume can have this name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    path::is_valid(name) && !name.contains(':')
}

/// A path as it is looked for: two that differ only in case are one.
#[must_use]
pub fn folded(path: &str) -> String {
    fold(path)
}

/// Bytes of the volume that a folder may take before the machine begins: half of it.
pub const ROOM: u64 = CAPACITY / 2;

/// Bytes of the volume that a file or directory of this size takes.
#[must_use]
pub const fn taken_by(size: u64) -> u64 {
    CLUSTER + size.next_multiple_of(CLUSTER)
}

/// What lies below a folder, by path: names with `\` between them, none at the beginning. A directory stands before what is in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Folder {
    /// The items by their paths.
    pub items: BTreeMap<String, Item>,
}

/// A file or a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A directory.
    Directory,
    /// A file, and what is in it.
    File(Vec<u8>),
}

/// The folders that drivers may count on in every Windows, in the order of their paths.
const NEW_WINDOWS: [&str; 12] = [
    r"Program Files",
    r"ProgramData",
    r"Users",
    r"Users\Public",
    r"Windows",
    r"Windows\INF",
    r"Windows\Logs",
    r"Windows\System32",
    r"Windows\System32\LogFiles",
    r"Windows\System32\config",
    r"Windows\System32\drivers",
    r"Windows\Temp",
];

impl Folder {
    /// The drive of a new Windows, without the files.
    #[must_use]
    pub fn of_new_windows() -> Self {
        let items = NEW_WINDOWS.iter().map(|path| ((*path).to_owned(), Item::Directory));
        Self { items: items.collect() }
    }
}
