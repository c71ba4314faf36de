//! Security descriptors: an owner, a group, who may, who is watched. Absolute ones hold pointers, self-relative ones offsets.
//!
//! Pages: *SECURITY_DESCRIPTOR structure*, *SECURITY_DESCRIPTOR_CONTROL*, *RtlCreateSecurityDescriptor function*,
//! *RtlSetDaclSecurityDescriptor function*, *RtlGetDaclSecurityDescriptor function* and their neighbours.

use abi::{
    ACL, DriverPtr, NtStatus, SE_DACL_DEFAULTED, SE_DACL_PRESENT, SE_GROUP_DEFAULTED, SE_OWNER_DEFAULTED,
    SE_SACL_DEFAULTED, SE_SACL_PRESENT, SE_SELF_RELATIVE, SECURITY_DESCRIPTOR, SECURITY_DESCRIPTOR_RELATIVE,
    SECURITY_DESCRIPTOR_REVISION, SID,
};
use engine::Flow;

use super::acl::{self, Acl};
use super::sid::{self, Sid};
use crate::cx::Cx;
use crate::rtl::memory;

/// Bytes of an absolute descriptor's structure.
pub(crate) const ABSOLUTE: u32 = 0x28;
/// Bytes of a self-relative one's.
pub(crate) const RELATIVE: u32 = 0x14;

const _: () = assert!(
    size_of::<SECURITY_DESCRIPTOR>() == ABSOLUTE as usize
        && size_of::<SECURITY_DESCRIPTOR_RELATIVE>() == RELATIVE as usize
);

/// Where a descriptor of either form lies.
pub(crate) type At = DriverPtr<SECURITY_DESCRIPTOR>;

/// A descriptor's control bits, and where its parts lie, whatever its form; null for what it does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// `SE_…`.
    pub(crate) control: u16,
    pub(crate) owner: DriverPtr<SID>,
    pub(crate) group: DriverPtr<SID>,
    /// Null also if there is one that is null.
    pub(crate) sacl: DriverPtr<ACL>,
    /// Null also if there is one that is null: everything is granted then.
    pub(crate) dacl: DriverPtr<ACL>,
}

impl Parts {
    pub(crate) const fn has(&self, control: u16) -> bool {
        self.control & control != 0
    }

    pub(crate) const fn is_relative(&self) -> bool {
        self.has(SE_SELF_RELATIVE)
    }

    /// Bytes of the structure itself.
    const fn head(&self) -> u32 {
        if self.is_relative() { RELATIVE } else { ABSOLUTE }
    }
}

/// The parts of the descriptor at `at`.
///
/// # Errors
/// A verdict on a bad pointer; (inner) `UNKNOWN_REVISION`.
pub(crate) fn parts(cx: &mut Cx<'_>, at: At) -> Flow<Result<Parts, NtStatus>> {
    type D = SECURITY_DESCRIPTOR;
    type R = SECURITY_DESCRIPTOR_RELATIVE;
    if cx.read(at + D::Revision)? != SECURITY_DESCRIPTOR_REVISION {
        return Ok(Err(NtStatus::UNKNOWN_REVISION));
    }
    let control = cx.read(at + D::Control)?;
    let [owner, group, sacl, dacl] = if control & SE_SELF_RELATIVE == 0 {
        [
            cx.read(at + D::Owner)?.address,
            cx.read(at + D::Group)?.address,
            cx.read(at + D::Sacl)?.address,
            cx.read(at + D::Dacl)?.address,
        ]
    } else {
        let relative: DriverPtr<R> = at.cast();
        let mut parts = [0; 4];
        for (part, field) in parts.iter_mut().zip([R::Owner, R::Group, R::Sacl, R::Dacl]) {
            let offset = cx.read(relative + field)?;
            *part = if offset == 0 { 0 } else { at.address.wrapping_add(offset.into()) };
        }
        parts
    };
    let present = |bit: u16, address: u64| if control & bit == 0 { 0 } else { address };
    Ok(Ok(Parts {
        control,
        owner: DriverPtr::new(owner),
        group: DriverPtr::new(group),
        sacl: DriverPtr::new(present(SE_SACL_PRESENT, sacl)),
        dacl: DriverPtr::new(present(SE_DACL_PRESENT, dacl)),
    }))
}

/// A descriptor as a value.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Descriptor {
    /// `SE_…`; whether there are lists says `dacl` and `sacl`.
    pub control: u16,
    /// Who owns the object.
    pub owner: Option<Sid>,
    /// The owner's primary group.
    pub group: Option<Sid>,
    /// Who may do what: no list, a null one (which grants everything), or one.
    pub dacl: Option<Option<Acl>>,
    /// What is watched.
    pub sacl: Option<Option<Acl>>,
}

/// The descriptor at `at`, of either form.
///
/// # Errors
/// A verdict on a bad pointer; (inner) it is not a valid one.
pub(crate) fn read(cx: &mut Cx<'_>, at: At) -> Flow<Result<Descriptor, NtStatus>> {
    let parts = match parts(cx, at)? {
        Ok(parts) => parts,
        Err(status) => return Ok(Err(status)),
    };
    let mut descriptor = Descriptor { control: parts.control, ..Descriptor::default() };
    for (at, to) in [(parts.owner, &mut descriptor.owner), (parts.group, &mut descriptor.group)] {
        if !at.is_null() {
            *to = sid::read(cx, at)?;
            if to.is_none() {
                return Ok(Err(NtStatus::INVALID_SID));
            }
        }
    }
    let lists = [
        (SE_SACL_PRESENT, parts.sacl, &mut descriptor.sacl),
        (SE_DACL_PRESENT, parts.dacl, &mut descriptor.dacl),
    ];
    for (bit, at, to) in lists {
        if parts.has(bit) {
            let list = if at.is_null() { None } else { acl::read(cx, at)? };
            if list.is_none() && !at.is_null() {
                return Ok(Err(NtStatus::INVALID_ACL));
            }
            *to = Some(list);
        }
    }
    Ok(Ok(descriptor))
}

/// `RtlCreateSecurityDescriptor`: an absolute one with no parts.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn create(cx: &mut Cx<'_>, at: At, revision: u32) -> Flow<NtStatus> {
    if revision != SECURITY_DESCRIPTOR_REVISION.into() {
        return Ok(NtStatus::UNKNOWN_REVISION);
    }
    memory::fill(cx, at.address, size_of::<SECURITY_DESCRIPTOR>() as u64, 0)?;
    cx.write(at + SECURITY_DESCRIPTOR::Revision, SECURITY_DESCRIPTOR_REVISION)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlValidSecurityDescriptor`: of either form.
///
/// # Errors
/// As [`create`].
pub(crate) fn valid(cx: &mut Cx<'_>, at: At) -> Flow<bool> {
    Ok(!at.is_null() && read(cx, at)?.is_ok())
}

/// `RtlLengthSecurityDescriptor`: the structure and its parts, each up to a multiple of 4.
///
/// # Errors
/// As [`create`].
pub(crate) fn length(cx: &mut Cx<'_>, at: At) -> Flow<u32> {
    let Ok(parts) = parts(cx, at)? else { return Ok(0) };
    let mut bytes = parts.head();
    for sid in [parts.owner, parts.group] {
        if !sid.is_null() {
            bytes += sid::length(cx, sid)?;
        }
    }
    for list in [parts.sacl, parts.dacl] {
        if !list.is_null() {
            bytes += u32::from(cx.read(list + ACL::AclSize)?).next_multiple_of(4);
        }
    }
    Ok(bytes)
}

/// Changes a part of an absolute descriptor: the control bits, and the part itself unless that is to stay.
fn set<T>(
    cx: &mut Cx<'_>,
    at: At,
    bits: impl Fn(u16) -> u16,
    part: Option<(DriverPtr<DriverPtr<T>>, DriverPtr<T>)>,
) -> Flow<NtStatus> {
    if cx.read(at + SECURITY_DESCRIPTOR::Revision)? != SECURITY_DESCRIPTOR_REVISION {
        return Ok(NtStatus::UNKNOWN_REVISION);
    }
    let control = cx.read(at + SECURITY_DESCRIPTOR::Control)?;
    if control & SE_SELF_RELATIVE != 0 {
        return Ok(NtStatus::INVALID_SECURITY_DESCR);
    }
    cx.write(at + SECURITY_DESCRIPTOR::Control, bits(control))?;
    if let Some((to, part)) = part {
        cx.write(to, part)?;
    }
    Ok(NtStatus::SUCCESS)
}

const fn with(control: u16, bit: u16, on: bool) -> u16 {
    if on { control | bit } else { control & !bit }
}

/// `RtlSetOwnerSecurityDescriptor`.
///
/// # Errors
/// As [`create`].
pub(crate) fn set_owner(cx: &mut Cx<'_>, at: At, owner: DriverPtr<()>, defaulted: bool) -> Flow<NtStatus> {
    let bits = |control| with(control, SE_OWNER_DEFAULTED, defaulted);
    set(cx, at, bits, Some((at + SECURITY_DESCRIPTOR::Owner, owner)))
}

/// `RtlSetGroupSecurityDescriptor`.
///
/// # Errors
/// As [`create`].
pub(crate) fn set_group(cx: &mut Cx<'_>, at: At, group: DriverPtr<()>, defaulted: bool) -> Flow<NtStatus> {
    let bits = |control| with(control, SE_GROUP_DEFAULTED, defaulted);
    set(cx, at, bits, Some((at + SECURITY_DESCRIPTOR::Group, group)))
}

/// `RtlSetDaclSecurityDescriptor`: without a list the other arguments mean nothing.
///
/// # Errors
/// As [`create`].
pub(crate) fn set_dacl(
    cx: &mut Cx<'_>,
    at: At,
    present: bool,
    dacl: DriverPtr<ACL>,
    defaulted: bool,
) -> Flow<NtStatus> {
    let part = present.then_some((at + SECURITY_DESCRIPTOR::Dacl, dacl));
    set(cx, at, |bits| list_bits(bits, SE_DACL_PRESENT, present, SE_DACL_DEFAULTED, defaulted), part)
}

/// `RtlSetSaclSecurityDescriptor`.
///
/// # Errors
/// As [`create`].
pub(crate) fn set_sacl(
    cx: &mut Cx<'_>,
    at: At,
    present: bool,
    sacl: DriverPtr<ACL>,
    defaulted: bool,
) -> Flow<NtStatus> {
    let part = present.then_some((at + SECURITY_DESCRIPTOR::Sacl, sacl));
    set(cx, at, |bits| list_bits(bits, SE_SACL_PRESENT, present, SE_SACL_DEFAULTED, defaulted), part)
}

const fn list_bits(control: u16, present_bit: u16, present: bool, default_bit: u16, defaulted: bool) -> u16 {
    let control = with(control, present_bit, present);
    if present { with(control, default_bit, defaulted) } else { control }
}

/// `RtlGetOwnerSecurityDescriptor`: null if it has none.
///
/// # Errors
/// As [`create`].
pub(crate) fn owner(
    cx: &mut Cx<'_>,
    at: At,
    owner: DriverPtr<u64>,
    defaulted: DriverPtr<u8>,
) -> Flow<NtStatus> {
    match parts(cx, at)? {
        Ok(parts) => {
            cx.write(owner, parts.owner.address)?;
            cx.write(defaulted, parts.has(SE_OWNER_DEFAULTED).into())?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `RtlGetGroupSecurityDescriptor`.
///
/// # Errors
/// As [`create`].
pub(crate) fn group(
    cx: &mut Cx<'_>,
    at: At,
    group: DriverPtr<u64>,
    defaulted: DriverPtr<u8>,
) -> Flow<NtStatus> {
    match parts(cx, at)? {
        Ok(parts) => {
            cx.write(group, parts.group.address)?;
            cx.write(defaulted, parts.has(SE_GROUP_DEFAULTED).into())?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `RtlGetDaclSecurityDescriptor`: if there is no list, only that is answered.
///
/// # Errors
/// As [`create`].
pub(crate) fn dacl(
    cx: &mut Cx<'_>,
    at: At,
    present: DriverPtr<u8>,
    dacl: DriverPtr<u64>,
    defaulted: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let parts = match parts(cx, at)? {
        Ok(parts) => parts,
        Err(status) => return Ok(status),
    };
    cx.write(present, parts.has(SE_DACL_PRESENT).into())?;
    if parts.has(SE_DACL_PRESENT) {
        cx.write(dacl, parts.dacl.address)?;
        cx.write(defaulted, parts.has(SE_DACL_DEFAULTED).into())?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `RtlGetSaclSecurityDescriptor`.
///
/// # Errors
/// As [`create`].
pub(crate) fn sacl(
    cx: &mut Cx<'_>,
    at: At,
    present: DriverPtr<u8>,
    sacl: DriverPtr<u64>,
    defaulted: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let parts = match parts(cx, at)? {
        Ok(parts) => parts,
        Err(status) => return Ok(status),
    };
    cx.write(present, parts.has(SE_SACL_PRESENT).into())?;
    if parts.has(SE_SACL_PRESENT) {
        cx.write(sacl, parts.sacl.address)?;
        cx.write(defaulted, parts.has(SE_SACL_DEFAULTED).into())?;
    }
    Ok(NtStatus::SUCCESS)
}
