//! Security descriptors in one piece: offsets in place of pointers, the parts behind the structure.
//!
//! Pages: *SECURITY_DESCRIPTOR structure*, *RtlAbsoluteToSelfRelativeSD function*, *RtlSelfRelativeToAbsoluteSD function*,
//! *RtlValidRelativeSecurityDescriptor function*. The pages leave the order of the parts open; here it is SACL, DACL, owner, group.

use abi::{
    ACL, DACL_SECURITY_INFORMATION, DriverPtr, GROUP_SECURITY_INFORMATION, NtStatus,
    OWNER_SECURITY_INFORMATION, SACL_SECURITY_INFORMATION, SE_DACL_PRESENT, SE_SACL_PRESENT,
    SE_SELF_RELATIVE, SECURITY_DESCRIPTOR, SECURITY_DESCRIPTOR_RELATIVE, SECURITY_DESCRIPTOR_REVISION, SID,
};
use engine::Flow;
use zerocopy::IntoBytes;

use super::acl::{self, Acl};
use super::descriptor::{self, ABSOLUTE, At, Descriptor, RELATIVE};
use super::sid::{self, Sid};
use crate::cx::Cx;
use crate::rtl::memory;

type Relative = SECURITY_DESCRIPTOR_RELATIVE;

impl Descriptor {
    /// As a self-relative descriptor lies in memory.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = Relative::zeroed();
        let mut body = Vec::new();
        let mut put = |part: Option<Vec<u8>>| match part {
            Some(part) => {
                let at = RELATIVE + u32::try_from(body.len()).unwrap_or(0);
                body.extend(part);
                body.resize(body.len().next_multiple_of(4), 0);
                at
            }
            None => 0,
        };
        let list = |list: &Option<Option<Acl>>| list.as_ref()?.as_ref().map(Acl::bytes);
        head.set(Relative::Sacl, put(list(&self.sacl)));
        head.set(Relative::Dacl, put(list(&self.dacl)));
        head.set(Relative::Owner, put(self.owner.as_ref().map(Sid::bytes)));
        head.set(Relative::Group, put(self.group.as_ref().map(Sid::bytes)));
        let bit = |on: bool, bit: u16| if on { bit } else { 0 };
        let lists = bit(self.dacl.is_some(), SE_DACL_PRESENT) | bit(self.sacl.is_some(), SE_SACL_PRESENT);
        let control = self.control & !(SE_DACL_PRESENT | SE_SACL_PRESENT) | SE_SELF_RELATIVE | lists;
        head.set(Relative::Revision, SECURITY_DESCRIPTOR_REVISION);
        head.set(Relative::Control, control);
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend(body);
        bytes
    }
}

/// `RtlCreateSecurityDescriptorRelative`: one with no parts.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn create(cx: &mut Cx<'_>, at: DriverPtr<Relative>, revision: u32) -> Flow<NtStatus> {
    if revision != SECURITY_DESCRIPTOR_REVISION.into() {
        return Ok(NtStatus::UNKNOWN_REVISION);
    }
    memory::store(cx, at.address, &Descriptor::default().bytes())?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlAbsoluteToSelfRelativeSD`: if there is no room, how much there must be.
///
/// # Errors
/// As [`create`].
pub(crate) fn from_absolute(cx: &mut Cx<'_>, absolute: At, to: u64, room: DriverPtr<u32>) -> Flow<NtStatus> {
    let descriptor = match descriptor::read(cx, absolute)? {
        Ok(descriptor) if descriptor.control & SE_SELF_RELATIVE == 0 => descriptor,
        Ok(_) => return Ok(NtStatus::BAD_DESCRIPTOR_FORMAT),
        Err(status) => return Ok(status),
    };
    let bytes = descriptor.bytes();
    if cx.read(room)? < needs(&bytes) {
        cx.write(room, needs(&bytes))?;
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    memory::store(cx, to, &bytes)?;
    Ok(NtStatus::SUCCESS)
}

/// How many bytes they are.
pub(crate) fn needs(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// `RtlSelfRelativeToAbsoluteSD`: each part into the buffer for it; if one is too small, how large each must be.
///
/// # Errors
/// As [`create`].
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn to_absolute(
    cx: &mut Cx<'_>,
    relative: At,
    absolute: At,
    absolute_size: DriverPtr<u32>,
    dacl: DriverPtr<ACL>,
    dacl_size: DriverPtr<u32>,
    sacl: DriverPtr<ACL>,
    sacl_size: DriverPtr<u32>,
    owner: DriverPtr<SID>,
    owner_size: DriverPtr<u32>,
    group: DriverPtr<SID>,
    group_size: DriverPtr<u32>,
) -> Flow<NtStatus> {
    type D = SECURITY_DESCRIPTOR;
    let from = match descriptor::read(cx, relative)? {
        Ok(from) if from.control & SE_SELF_RELATIVE != 0 => from,
        Ok(_) => return Ok(NtStatus::BAD_DESCRIPTOR_FORMAT),
        Err(status) => return Ok(status),
    };
    let list = |list: &Option<Option<Acl>>| list.as_ref().and_then(Option::as_ref).map(Acl::bytes);
    let parts = [
        (D::Dacl.offset(), dacl.address, dacl_size, list(&from.dacl)),
        (D::Sacl.offset(), sacl.address, sacl_size, list(&from.sacl)),
        (D::Owner.offset(), owner.address, owner_size, from.owner.as_ref().map(Sid::bytes)),
        (D::Group.offset(), group.address, group_size, from.group.as_ref().map(Sid::bytes)),
    ];
    let mut fits = cx.read(absolute_size)? >= ABSOLUTE;
    for (_, _, size, part) in &parts {
        fits &= cx.read(*size)? >= part.as_deref().map_or(0, needs);
    }
    if !fits {
        cx.write(absolute_size, ABSOLUTE)?;
        for (_, _, size, part) in &parts {
            cx.write(*size, part.as_deref().map_or(0, needs))?;
        }
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    let status = descriptor::create(cx, absolute, SECURITY_DESCRIPTOR_REVISION.into())?;
    cx.write(absolute + D::Control, from.control & !SE_SELF_RELATIVE)?;
    for (offset, to, _, part) in parts {
        if let Some(bytes) = part {
            memory::store(cx, to, &bytes)?;
            cx.write(absolute.cast::<u64>().byte_add(offset), to)?;
        }
    }
    Ok(status)
}

/// `RtlValidRelativeSecurityDescriptor`: every part inside the `length` bytes, and those there that `required` names.
///
/// # Errors
/// As [`create`].
pub(crate) fn valid(cx: &mut Cx<'_>, at: DriverPtr<Relative>, length: u32, required: u32) -> Flow<bool> {
    if at.is_null() || length < RELATIVE {
        return Ok(false);
    }
    let head = cx.read(at)?;
    let control = head.get(Relative::Control);
    if head.get(Relative::Revision) != SECURITY_DESCRIPTOR_REVISION || control & SE_SELF_RELATIVE == 0 {
        return Ok(false);
    }
    let sids = [
        (Relative::Owner, OWNER_SECURITY_INFORMATION, true),
        (Relative::Group, GROUP_SECURITY_INFORMATION, true),
        (Relative::Sacl, SACL_SECURITY_INFORMATION, false),
        (Relative::Dacl, DACL_SECURITY_INFORMATION, false),
    ];
    for (field, information, is_sid) in sids {
        let present = match information {
            SACL_SECURITY_INFORMATION => control & SE_SACL_PRESENT != 0,
            DACL_SECURITY_INFORMATION => control & SE_DACL_PRESENT != 0,
            _ => head.get(field) != 0,
        };
        if !present && required & information != 0 {
            return Ok(false);
        }
        if present && head.get(field) != 0 && !lies_inside(cx, at, length, head.get(field), is_sid)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a part at this offset is a valid one that ends inside the descriptor.
fn lies_inside(
    cx: &mut Cx<'_>,
    at: DriverPtr<Relative>,
    length: u32,
    offset: u32,
    is_sid: bool,
) -> Flow<bool> {
    if !offset.is_multiple_of(4) || offset < RELATIVE || length.saturating_sub(offset) < sid::HEAD {
        return Ok(false);
    }
    let part = at.address.wrapping_add(offset.into());
    let room = length - offset;
    if is_sid {
        let sid = DriverPtr::new(part);
        return Ok(sid::valid(cx, sid)? && sid::length(cx, sid)? <= room);
    }
    let acl: DriverPtr<ACL> = DriverPtr::new(part);
    Ok(u32::from(cx.read(acl + ACL::AclSize)?) <= room && acl::valid(cx, acl)?)
}
