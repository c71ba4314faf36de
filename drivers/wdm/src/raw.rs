//! Reading and writing the members of Microsoft's structures at their documented offsets.
//!
//! It checks nothing: each caller says why its pointer is good.

use abi::{DriverPtr, Field};

/// The address as a pointer.
#[allow(clippy::cast_possible_truncation, reason = "pointers of x64 have 64 bits")]
pub(crate) fn pointer<T>(pointer: DriverPtr<T>) -> *mut T {
    core::ptr::with_exposed_provenance_mut(pointer.address as usize)
}

/// A pointer as a structure stores it.
pub(crate) fn stored<T, U>(pointer: *mut T) -> DriverPtr<U> {
    DriverPtr::new(pointer.expose_provenance() as u64)
}

/// Reads a member.
///
/// # Safety
/// `base` points to a live `T` that is not written meanwhile.
pub(crate) unsafe fn get<T, F: Copy>(base: *mut T, field: Field<T, F>) -> F {
    // SAFETY: the field lies inside the live `T`, as `Field` asserts.
    unsafe { field.of(base).read_unaligned() }
}

/// Reads a member that is a pointer.
///
/// # Safety
/// As [`get`].
pub(crate) unsafe fn follow<T, F>(base: *mut T, field: Field<T, DriverPtr<F>>) -> *mut F {
    // SAFETY: the caller's promise.
    pointer(unsafe { get(base, field) })
}

/// Writes a member.
///
/// # Safety
/// `base` points to a live `T` that is the caller's to write.
pub(crate) unsafe fn set<T, F>(base: *mut T, field: Field<T, F>, value: F) {
    // SAFETY: the field lies inside the live `T`, as `Field` asserts.
    unsafe { field.of(base).write_unaligned(value) }
}
