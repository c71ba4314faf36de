//! Object types as drivers see them: what `IoFileObjectType` and its like point to are addresses that are compared.
//!
//! Page: *ObReferenceObjectByHandle function* (its `ObjectType`). The variables themselves are in `exports/data.rs`.

use super::object::Kind;
use crate::exports::data;

/// The exported pointers, and the kind each means.
const TYPES: &[(Kind, &str)] = &[
    (Kind::Key, "CmKeyObjectType"),
    (Kind::Event, "ExEventObjectType"),
    (Kind::Semaphore, "ExSemaphoreObjectType"),
    (Kind::Device, "IoDeviceObjectType"),
    (Kind::Driver, "IoDriverObjectType"),
    (Kind::File, "IoFileObjectType"),
    (Kind::Section, "MmSectionObjectType"),
    (Kind::Process, "PsProcessType"),
    (Kind::Thread, "PsThreadType"),
    (Kind::Token, "SeTokenObjectType"),
];

/// Which kind the type object at `address` stands for.
#[must_use]
pub(crate) fn kind(address: u64) -> Option<Kind> {
    TYPES.iter().find(|(_, name)| data::object_type(name) == address).map(|(kind, _)| *kind)
}
