//! Paged and nonpaged pool.

use abi::DriverPtr;
use engine::Flow;

use crate::cx::Cx;

/// Whose pages: paged memory may be away at DISPATCH_LEVEL and above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `NonPagedPool`, `NonPagedPoolNx`.
    NonPaged,
    /// `NonPagedPoolExecute`.
    NonPagedExecute,
    /// `PagedPool`.
    Paged,
}

/// Allocates for the kernel itself or a driver: zeroed, 16-byte aligned; null if there is no memory.
pub fn allocate<T>(_cx: &mut Cx<'_>, _kind: Kind, _bytes: u64, _tag: u32) -> Flow<DriverPtr<T>> {
    todo!("mm helper")
}

/// Frees what `allocate` gave.
pub fn free<T>(_cx: &mut Cx<'_>, _block: DriverPtr<T>) -> Flow<()> {
    todo!("mm helper")
}

/// A tag from its four characters, as they appear in memory.
#[must_use]
pub const fn tag(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}
