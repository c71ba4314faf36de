//! The security descriptor of an object that is made: what its maker says, what the object above hands down, what the token has.
//!
//! Pages: *SeAssignSecurity function*, *SeAssignSecurityEx function*, *SeDeassignSecurity function*, *ACE inheritance rules*. Of
//! `AutoInheritFlags` none has an effect; entries for types of objects are not distinguished.

use abi::{
    CONTAINER_INHERIT_ACE, DriverPtr, GENERIC_MAPPING, GUID, INHERIT_ONLY_ACE, INHERITED_ACE,
    NO_PROPAGATE_INHERIT_ACE, NtStatus, OBJECT_INHERIT_ACE, SE_GROUP_OWNER, SE_SELF_RELATIVE,
    VALID_INHERIT_FLAGS,
};
use engine::Flow;

use super::acl::{Acl, Entry};
use super::captured;
use super::descriptor::{self, At, Descriptor};
use super::sid::Sid;
use super::subject::{self, Subject};
use super::token::Token;
use crate::cx::Cx;
use crate::mm::{pool, pool_exports};

/// `SE_RESTORE_PRIVILEGE`: any owner may be said.
const RESTORE: u32 = 18;

/// `SeAssignSecurity`.
///
/// # Errors
/// A verdict on a bad pointer, or if the context holds no token.
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn assign(
    cx: &mut Cx<'_>,
    parent: At,
    explicit: At,
    into: DriverPtr<At>,
    is_directory: bool,
    subject: Subject,
    mapping: DriverPtr<GENERIC_MAPPING>,
    pool_type: u32,
) -> Flow<NtStatus> {
    let token = subject::token(cx, "SeAssignSecurity", subject)?;
    let mut given = [None, None];
    for (at, to) in [parent, explicit].into_iter().zip(&mut given) {
        if !at.is_null() {
            match descriptor::read(cx, at)? {
                Ok(descriptor) => *to = Some(descriptor),
                Err(status) => return Ok(status),
            }
        }
    }
    let [parent, explicit] = given;
    let mapping = cx.read(mapping)?;
    let owner = explicit.as_ref().and_then(|explicit| explicit.owner.clone());
    if owner.as_ref().is_some_and(|owner| !may_own(&token, owner)) {
        return Ok(NtStatus::INVALID_OWNER);
    }
    let new = made(parent.as_ref(), explicit.as_ref(), is_directory, &token, &mapping);
    captured::give(cx, &new, pool_exports::kind(pool_type), into)
}

/// `SeAssignSecurityEx`.
///
/// # Errors
/// As [`assign`].
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn assign_ex(
    cx: &mut Cx<'_>,
    parent: At,
    explicit: At,
    into: DriverPtr<At>,
    _object_type: DriverPtr<GUID>,
    is_directory: bool,
    _inherit: u32,
    subject: Subject,
    mapping: DriverPtr<GENERIC_MAPPING>,
    pool_type: u32,
) -> Flow<NtStatus> {
    assign(cx, parent, explicit, into, is_directory, subject, mapping, pool_type)
}

/// `SeDeassignSecurity`: frees it and forgets where it was.
///
/// # Errors
/// A verdict on a bad pointer; as freeing.
pub(crate) fn deassign(cx: &mut Cx<'_>, at: DriverPtr<At>) -> Flow<NtStatus> {
    let descriptor = cx.read(at)?;
    if !descriptor.is_null() {
        pool::free(cx, descriptor)?;
        cx.write(at, At::NULL)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// Whether someone with this token may say that this one owns an object.
fn may_own(token: &Token, owner: &Sid) -> bool {
    let mut groups = token.groups.iter();
    token.user == *owner
        || groups.any(|(group, with)| group == owner && with & SE_GROUP_OWNER != 0)
        || token.has(RESTORE)
}

fn made(
    parent: Option<&Descriptor>,
    explicit: Option<&Descriptor>,
    is_directory: bool,
    token: &Token,
    mapping: &GENERIC_MAPPING,
) -> Descriptor {
    let said = explicit.cloned().unwrap_or_default();
    let handed = |list: Option<&Option<Option<Acl>>>| {
        let list = inherited(list?.as_ref()?.as_ref()?, is_directory);
        (!list.entries.is_empty()).then_some(Some(list))
    };
    let dacl = said.dacl.or_else(|| handed(parent.map(|parent| &parent.dacl)));
    let sacl = said.sacl.or_else(|| handed(parent.map(|parent| &parent.sacl)));
    let dacl = dacl.unwrap_or_else(|| Some(token.default_dacl()));
    Descriptor {
        control: SE_SELF_RELATIVE,
        owner: Some(said.owner.unwrap_or_else(|| token.owner.clone())),
        group: Some(said.group.unwrap_or_else(|| token.group.clone())),
        dacl: Some(dacl.map(|list| list.mapped(mapping))),
        sacl: sacl.map(|list| list.map(|list| list.mapped(mapping))),
    }
}

/// What a list of the object above hands down: to a directory what is for containers, and what is for objects to be handed on.
fn inherited(list: &Acl, is_directory: bool) -> Acl {
    let entries = list.entries.iter().filter_map(|entry| {
        let flags = entry.flags();
        let on = flags & NO_PROPAGATE_INHERIT_ACE == 0;
        let flags = match (is_directory, flags & CONTAINER_INHERIT_ACE != 0, flags & OBJECT_INHERIT_ACE != 0)
        {
            (false, _, true) => 0,
            (true, true, _) if on => flags & VALID_INHERIT_FLAGS & !INHERIT_ONLY_ACE,
            (true, true, _) => 0,
            (true, false, true) if on => flags & VALID_INHERIT_FLAGS | INHERIT_ONLY_ACE,
            _ => return None,
        };
        Some(entry.with_flags(flags | INHERITED_ACE))
    });
    Acl::new(entries.collect::<Vec<Entry>>())
}
