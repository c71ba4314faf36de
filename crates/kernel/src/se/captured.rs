//! Copies of a caller's security descriptor: captured, and shared by those who log it.
//!
//! Pages: *SeCaptureSecurityDescriptor function*, *SeReleaseSecurityDescriptor function*, *ObLogSecurityDescriptor function*,
//! *ObReferenceSecurityDescriptor function*, *ObDereferenceSecurityDescriptor function*. Copies are self-relative.

use std::collections::BTreeMap;

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use super::descriptor::{self, At, Descriptor};
use crate::cx::Cx;
use crate::mm::{pool, pool_exports};
use crate::ob::handle::Mode;
use crate::verdict::Verdict;

const TAG: u32 = pool::tag(b"SeSd");

/// A descriptor in one piece, in pool of the caller's; null if there is no memory.
///
/// # Errors
/// As an allocation.
pub(crate) fn put(cx: &mut Cx<'_>, descriptor: &Descriptor, kind: pool::Kind) -> Flow<At> {
    let bytes = descriptor.bytes();
    let at: At = pool::allocate_for_caller(cx, kind, bytes.len() as u64, TAG)?;
    if !at.is_null() {
        cx.write_bytes(at.address, &bytes)?;
    }
    Ok(at)
}

/// The answer of a routine that gives the address of a new descriptor.
///
/// # Errors
/// A verdict on a bad pointer; as an allocation.
pub(crate) fn give(
    cx: &mut Cx<'_>,
    descriptor: &Descriptor,
    kind: pool::Kind,
    into: DriverPtr<At>,
) -> Flow<NtStatus> {
    let at = put(cx, descriptor, kind)?;
    if at.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write(into, at)?;
    Ok(NtStatus::SUCCESS)
}

/// `SeCaptureSecurityDescriptor`: the kernel's own is only copied if that is asked for.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn capture(
    cx: &mut Cx<'_>,
    source: At,
    mode: u8,
    pool_type: u32,
    kernels_too: bool,
    into: DriverPtr<At>,
) -> Flow<NtStatus> {
    if source.is_null() || (Mode::from_argument(mode) == Mode::Kernel && !kernels_too) {
        cx.write(into, source)?;
        return Ok(NtStatus::SUCCESS);
    }
    match descriptor::read(cx, source)? {
        Ok(descriptor) => give(cx, &descriptor, pool_exports::kind(pool_type), into),
        Err(status) => Ok(status),
    }
}

/// `SeReleaseSecurityDescriptor`: what [`capture`] has copied, asked for in the same way.
///
/// # Errors
/// As freeing it.
pub(crate) fn release(cx: &mut Cx<'_>, captured: At, mode: u8, kernels_too: bool) -> Flow<NtStatus> {
    if !captured.is_null() && (Mode::from_argument(mode) == Mode::User || kernels_too) {
        pool::free(cx, captured)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// A copy that several share.
struct Shared {
    bytes: Vec<u8>,
    references: u32,
}

/// All of them, by their addresses.
#[derive(Default)]
pub(crate) struct Log {
    shared: BTreeMap<u64, Shared>,
}

/// `ObLogSecurityDescriptor`: one that is equal is shared; `references` more of them.
///
/// # Errors
/// As [`capture`].
pub(crate) fn log(cx: &mut Cx<'_>, source: At, into: DriverPtr<At>, references: u32) -> Flow<NtStatus> {
    let descriptor = match descriptor::read(cx, source)? {
        Ok(descriptor) => descriptor,
        Err(status) => return Ok(status),
    };
    let bytes = descriptor.bytes();
    let known = cx.with(|k| {
        let mut all = k.se.log.shared.iter_mut();
        let (at, shared) = all.find(|(_, shared)| shared.bytes == bytes)?;
        shared.references = shared.references.saturating_add(references);
        Some(At::new(*at))
    });
    let at = match known {
        Some(at) => at,
        None => {
            let at: At = pool::allocate(cx, pool::Kind::Paged, bytes.len() as u64, TAG)?;
            if at.is_null() {
                return Ok(NtStatus::INSUFFICIENT_RESOURCES);
            }
            cx.write_bytes(at.address, &bytes)?;
            cx.with(|k| k.se.log.shared.insert(at.address, Shared { bytes, references }));
            at
        }
    };
    cx.write(into, at)?;
    Ok(NtStatus::SUCCESS)
}

/// `ObReferenceSecurityDescriptor`: so many references more.
///
/// # Errors
/// A verdict if it was not logged.
pub(crate) fn reference(cx: &mut Cx<'_>, at: At, count: u32) -> Flow<()> {
    let found = cx.with(|k| {
        let shared = k.se.log.shared.get_mut(&at.address)?;
        shared.references = shared.references.checked_add(count)?;
        Some(())
    });
    match found {
        Some(()) => Ok(()),
        None => Err(not_logged(cx, "ObReferenceSecurityDescriptor", at)),
    }
}

/// `ObDereferenceSecurityDescriptor`: so many less; with the last one it goes.
///
/// # Errors
/// As [`reference()`].
pub(crate) fn dereference(cx: &mut Cx<'_>, at: At, count: u32) -> Flow<()> {
    let left = cx.with(|k| {
        let shared = k.se.log.shared.get_mut(&at.address)?;
        shared.references = shared.references.checked_sub(count)?;
        Some(shared.references)
    });
    match left {
        None => Err(not_logged(cx, "ObDereferenceSecurityDescriptor", at)),
        Some(0) => {
            cx.with(|k| k.se.log.shared.remove(&at.address));
            pool::free(cx, at)
        }
        Some(_) => Ok(()),
    }
}

fn not_logged(cx: &mut Cx<'_>, ddi: &str, at: At) -> engine::Leave {
    let message = format!(
        "{ddi} was called for {:#x}, of which ObLogSecurityDescriptor has given no such references",
        at.address
    );
    cx.stop(Verdict::error("security-descriptor-reference", message))
}
