//! Whether a subject may do what it wants with an object.
//!
//! Pages: *SeAccessCheck function*, *How DACLs Control Access to an Object*, *Order of ACEs in a DACL*, *ACCESS_MASK*,
//! *SeSinglePrivilegeCheck function*, *SePrivilegeCheck function*. An entry decides about the rights that none before it has decided
//! about. Integrity labels, claims, and entries for parts of an object are not looked at.

use abi::{
    ACCESS_ALLOWED_ACE_TYPE, ACCESS_DENIED_ACE_TYPE, ACCESS_SYSTEM_SECURITY, DriverPtr, GENERIC_ALL,
    GENERIC_MAPPING, INHERIT_ONLY_ACE, LUID, LUID_AND_ATTRIBUTES, MAXIMUM_ALLOWED, NtStatus, PRIVILEGE_SET,
    PRIVILEGE_SET_ALL_NECESSARY, READ_CONTROL, SE_PRIVILEGE_USED_FOR_ACCESS, UNICODE_STRING, WRITE_DAC,
    WRITE_OWNER,
};
use engine::Flow;

use super::acl::{self, Acl};
use super::descriptor::{self, At, Descriptor};
use super::sid::Sid;
use super::subject::{self, Subject};
use super::token::{self, Token};
use crate::cx::Cx;
use crate::mm::pool;
use crate::ob::handle::Mode;

/// `SE_SECURITY_PRIVILEGE`.
pub(crate) const SECURITY: u32 = 8;
/// `SE_TAKE_OWNERSHIP_PRIVILEGE`.
pub(crate) const TAKE_OWNERSHIP: u32 = 9;
/// Bytes of a `PRIVILEGE_SET` before its first privilege.
const SET_HEAD: u64 = PRIVILEGE_SET::Privilege.offset();
const PRIVILEGE: u64 = size_of::<LUID_AND_ATTRIBUTES>() as u64;
/// More privileges than there are.
const MOST_PRIVILEGES: u32 = 0x40;
const TAG: u32 = pool::tag(b"SePr");

/// What a check has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Granted {
    pub(crate) access: u32,
    /// Those that were needed.
    pub(crate) privileges: Vec<u32>,
}

/// What is asked of a check.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) desired: u32,
    /// Granted before.
    pub(crate) previous: u32,
    pub(crate) mapping: &'a GENERIC_MAPPING,
}

/// Whether `token` may do that with what `descriptor` protects.
///
/// # Errors
/// `ACCESS_DENIED`, `PRIVILEGE_NOT_HELD`.
pub(crate) fn check(descriptor: &Descriptor, token: &Token, asked: Asked<'_>) -> Result<Granted, NtStatus> {
    let desired = acl::mapped(asked.desired, asked.mapping);
    let maximum = desired & MAXIMUM_ALLOWED != 0;
    let wanted = desired & !MAXIMUM_ALLOWED;
    let mut privileges = Vec::new();
    let mut granted = asked.previous;
    if wanted & ACCESS_SYSTEM_SECURITY & !granted != 0 {
        if !token.has(SECURITY) {
            return Err(NtStatus::PRIVILEGE_NOT_HELD);
        }
        privileges.push(SECURITY);
        granted |= ACCESS_SYSTEM_SECURITY;
    }
    let by_list = match &descriptor.dacl {
        // No list at all, or a null one: everything is granted.
        None | Some(None) => acl::mapped(GENERIC_ALL, asked.mapping) | wanted & !ACCESS_SYSTEM_SECURITY,
        Some(Some(list)) => {
            let owner = descriptor.owner.as_ref();
            let own = of_list(list, owner, |sid, refuses| token.is(sid, refuses), asked.mapping);
            match &token.restricting {
                Some(sids) => own & of_list(list, owner, |sid, _| sids.contains(sid), asked.mapping),
                None => own,
            }
        }
    };
    if wanted & WRITE_OWNER & !(granted | by_list) != 0 && token.has(TAKE_OWNERSHIP) {
        privileges.push(TAKE_OWNERSHIP);
        granted |= WRITE_OWNER;
    }
    let missing = wanted & !(granted | by_list);
    let access = granted | wanted | if maximum { by_list } else { 0 };
    if missing != 0 || access == 0 {
        Err(NtStatus::ACCESS_DENIED)
    } else {
        Ok(Granted { access, privileges })
    }
}

/// What a list, and owning what it protects, grants.
fn of_list(
    list: &Acl,
    owner: Option<&Sid>,
    is: impl Fn(&Sid, bool) -> bool,
    mapping: &GENERIC_MAPPING,
) -> u32 {
    // S-1-3-4, by which a list says what the owner may.
    let owner_rights = Sid::new(3, &[4]);
    let owns = owner.is_some_and(|owner| is(owner, false));
    let entries = || list.entries.iter().filter(|entry| entry.flags() & INHERIT_ONLY_ACE == 0);
    let is_said = entries().any(|entry| entry.sid().as_ref() == Some(&owner_rights));
    let mut allowed = if owns && !is_said { READ_CONTROL | WRITE_DAC } else { 0 };
    let mut denied = 0;
    for entry in entries() {
        let Some(sid) = entry.sid() else { continue };
        let refuses = entry.kind() == ACCESS_DENIED_ACE_TYPE;
        let is_his = is(&sid, refuses) || owns && sid == owner_rights;
        if !is_his {
            continue;
        }
        let mask = acl::mapped(entry.mask(), mapping);
        match entry.kind() {
            ACCESS_ALLOWED_ACE_TYPE => allowed |= mask & !denied,
            ACCESS_DENIED_ACE_TYPE => denied |= mask & !allowed,
            _ => {}
        }
    }
    allowed
}

/// `SeAccessCheck`. A caller in kernel mode is granted what it asks for.
///
/// # Errors
/// A verdict on a bad pointer, or if the context holds no token.
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn access_check(
    cx: &mut Cx<'_>,
    at: At,
    subject: Subject,
    _locked: bool,
    desired: u32,
    previous: u32,
    privileges: DriverPtr<DriverPtr<PRIVILEGE_SET>>,
    mapping: DriverPtr<GENERIC_MAPPING>,
    mode: u8,
    access: DriverPtr<u32>,
    status: DriverPtr<NtStatus>,
) -> Flow<bool> {
    let result = if Mode::from_argument(mode) == Mode::Kernel {
        of_kernel(cx, desired, previous, mapping)?
    } else if at.is_null() {
        Err(NtStatus::ACCESS_DENIED)
    } else {
        match descriptor::read(cx, at)? {
            Ok(descriptor) => {
                let token = subject::token(cx, "SeAccessCheck", subject)?;
                let mapping = cx.read(mapping)?;
                if subject::may_act(cx, subject)? {
                    check(&descriptor, &token, Asked { desired, previous, mapping: &mapping })
                } else {
                    Err(NtStatus::BAD_IMPERSONATION_LEVEL)
                }
            }
            Err(status) => Err(status),
        }
    };
    let (granted, used, answer) = match result {
        Ok(Granted { access, privileges }) => (access, privileges, NtStatus::SUCCESS),
        Err(status) => (0, Vec::new(), status),
    };
    if !privileges.is_null() {
        let set = if used.is_empty() { DriverPtr::NULL } else { privilege_set(cx, &used)? };
        cx.write(privileges, set)?;
    }
    cx.write(access, granted)?;
    cx.write(status, answer)?;
    Ok(answer == NtStatus::SUCCESS)
}

fn of_kernel(
    cx: &mut Cx<'_>,
    desired: u32,
    previous: u32,
    mapping: DriverPtr<GENERIC_MAPPING>,
) -> Flow<Result<Granted, NtStatus>> {
    let mut access = desired & !MAXIMUM_ALLOWED | previous;
    if desired & MAXIMUM_ALLOWED != 0 {
        access |= cx.read(mapping + GENERIC_MAPPING::GenericAll)?;
    }
    Ok(Ok(Granted { access, privileges: Vec::new() }))
}

/// A set of privileges that were used, in pool of the caller's; null if there is no memory.
fn privilege_set(cx: &mut Cx<'_>, privileges: &[u32]) -> Flow<DriverPtr<PRIVILEGE_SET>> {
    let count = u32::try_from(privileges.len()).unwrap_or(0);
    let bytes = SET_HEAD + PRIVILEGE * u64::from(count);
    let set: DriverPtr<PRIVILEGE_SET> = pool::allocate_for_caller(cx, pool::Kind::Paged, bytes, TAG)?;
    if !set.is_null() {
        cx.write(set + PRIVILEGE_SET::PrivilegeCount, count)?;
        cx.write(set + PRIVILEGE_SET::Control, 0)?;
        for (index, privilege) in (0..).zip(privileges) {
            write_privilege(cx, set, index, *privilege, SE_PRIVILEGE_USED_FOR_ACCESS)?;
        }
    }
    Ok(set)
}

/// The place of a set's privilege of this index.
fn member(set: DriverPtr<PRIVILEGE_SET>, index: u32) -> DriverPtr<LUID_AND_ATTRIBUTES> {
    (set + PRIVILEGE_SET::Privilege).index(index.into())
}

fn write_privilege(
    cx: &mut Cx<'_>,
    set: DriverPtr<PRIVILEGE_SET>,
    index: u32,
    privilege: u32,
    attributes: u32,
) -> Flow<()> {
    let at = member(set, index);
    cx.write(at + LUID_AND_ATTRIBUTES::Luid, token::luid(privilege.into()))?;
    cx.write(at + LUID_AND_ATTRIBUTES::Attributes, attributes)
}

/// The privileges of a set: the numbers of those that Windows has, as its LUIDs have them.
fn read_set(cx: &mut Cx<'_>, set: DriverPtr<PRIVILEGE_SET>) -> Flow<Vec<u32>> {
    let count = cx.read(set + PRIVILEGE_SET::PrivilegeCount)?.min(MOST_PRIVILEGES);
    (0..count)
        .map(|index| {
            let luid = cx.read(member(set, index) + LUID_AND_ATTRIBUTES::Luid)?;
            Ok(if luid.get(LUID::HighPart) == 0 { luid.get(LUID::LowPart) } else { 0 })
        })
        .collect()
}

/// `SeFreePrivileges`: what `SeAccessCheck` has made.
///
/// # Errors
/// As freeing it.
pub(crate) fn free_privileges(cx: &mut Cx<'_>, privileges: DriverPtr<PRIVILEGE_SET>) -> Flow<()> {
    pool::free(cx, privileges)
}

/// `SeAppendPrivileges`: to those of an open that is under way, which has room for three.
///
/// # Errors
/// A verdict on a bad pointer, or if there would be more.
pub(crate) fn append_privileges(
    cx: &mut Cx<'_>,
    state: DriverPtr<abi::ACCESS_STATE>,
    privileges: DriverPtr<PRIVILEGE_SET>,
) -> Flow<NtStatus> {
    const ROOM: usize = 3;
    let own: DriverPtr<PRIVILEGE_SET> = (state + abi::ACCESS_STATE::Privileges).cast();
    let (held, added) = (read_set(cx, own)?, read_set(cx, privileges)?);
    if held.len() + added.len() > ROOM {
        let what = "SeAppendPrivileges beyond the three privileges of INITIAL_PRIVILEGE_SET";
        return Err(cx.stop(crate::verdict::Verdict::not_implemented(what)));
    }
    let first = u32::try_from(held.len()).unwrap_or(0);
    for (index, privilege) in (0..).zip(&added) {
        let from = cx.read(member(privileges, index) + LUID_AND_ATTRIBUTES::Attributes)?;
        write_privilege(cx, own, first + index, *privilege, from)?;
    }
    let count = u32::try_from(held.len() + added.len()).unwrap_or(0);
    cx.write(own + PRIVILEGE_SET::PrivilegeCount, count)?;
    Ok(NtStatus::SUCCESS)
}

/// `SeOpenObjectAuditAlarm`: nothing is audited, so closing is not either.
///
/// # Errors
/// A verdict on a bad pointer.
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn open_audit_alarm(
    cx: &mut Cx<'_>,
    _object_type: DriverPtr<UNICODE_STRING>,
    _object: DriverPtr<()>,
    _name: DriverPtr<UNICODE_STRING>,
    _descriptor: At,
    _state: DriverPtr<abi::ACCESS_STATE>,
    _created: bool,
    _granted: bool,
    _mode: u8,
    on_close: DriverPtr<u8>,
) -> Flow<()> {
    cx.write(on_close, 0)
}

/// `SeSinglePrivilegeCheck`: whether the running thread has it enabled; the kernel has all.
///
/// # Errors
/// None.
pub(crate) fn single_privilege_check(cx: &mut Cx<'_>, privilege: u64, mode: u8) -> Flow<bool> {
    let current = token::current(cx);
    let held =
        u32::try_from(privilege).is_ok_and(|privilege| current.is_ok_and(|current| current.has(privilege)));
    Ok(Mode::from_argument(mode) == Mode::Kernel || held)
}

/// `SePrivilegeCheck`: all of a set, or one of them; those that are held are marked.
///
/// # Errors
/// A verdict on a bad pointer, or if the context holds no token.
pub(crate) fn privilege_check(
    cx: &mut Cx<'_>,
    set: DriverPtr<PRIVILEGE_SET>,
    subject: Subject,
    mode: u8,
) -> Flow<bool> {
    if Mode::from_argument(mode) == Mode::Kernel {
        return Ok(true);
    }
    let token = subject::token(cx, "SePrivilegeCheck", subject)?;
    if !subject::may_act(cx, subject)? {
        return Ok(false);
    }
    let privileges = read_set(cx, set)?;
    let mut held = 0;
    for (index, privilege) in (0..).zip(&privileges) {
        if token.has(*privilege) {
            held += 1;
            let at = member(set, index) + LUID_AND_ATTRIBUTES::Attributes;
            let attributes = cx.read(at)?;
            cx.write(at, attributes | SE_PRIVILEGE_USED_FOR_ACCESS)?;
        }
    }
    let all = cx.read(set + PRIVILEGE_SET::Control)? & PRIVILEGE_SET_ALL_NECESSARY != 0;
    Ok(if all { held == privileges.len() } else { held > 0 })
}
