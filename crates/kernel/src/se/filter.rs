//! New tokens made from others: restricted ones, and duplicates.
//!
//! Pages: *SeFilterToken function*, *ZwDuplicateToken function*, *Restricted Tokens*. A restricted token's groups may only refuse, it has lost privileges, and
//! access is granted only if its list of restricting SIDs would be granted it, too. SANDBOX_INERT changes nothing here: there are no software
//! restriction policies. A token has no descriptor: a handle to one is enough to duplicate it.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DriverPtr, LUID, LUID_AND_ATTRIBUTES, NtStatus, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, SE_GROUP_ENABLED,
    SE_GROUP_ENABLED_BY_DEFAULT, SE_GROUP_USE_FOR_DENY_ONLY, SE_PRIVILEGE_ENABLED,
    SECURITY_QUALITY_OF_SERVICE, SID_AND_ATTRIBUTES, SecurityDelegation, SecurityImpersonation, TOKEN_GROUPS,
    TOKEN_PRIVILEGES, TokenImpersonation, TokenPrimary,
};
use engine::Flow;

use super::sid::{self, Sid};
use super::token::{self, Token, TokenPtr};
use crate::cx::Cx;
use crate::ob::handle;
use crate::ob::{Handle, Kind};

/// `DISABLE_MAX_PRIVILEGE`, `SANDBOX_INERT`.
const DISABLE_MAX_PRIVILEGE: u32 = 1;
const SANDBOX_INERT: u32 = 2;
/// `SE_CHANGE_NOTIFY_PRIVILEGE`.
const CHANGE_NOTIFY: u32 = 23;
/// More entries than a list of a token's can have.
const MOST: u32 = 0x400;

/// The SIDs of a list with what stands beside them; none if it is no sound list.
fn groups(cx: &mut Cx<'_>, list: DriverPtr<TOKEN_GROUPS>) -> Flow<Option<Vec<(Sid, u32)>>> {
    if list.is_null() {
        return Ok(Some(Vec::new()));
    }
    let count = cx.read(list + TOKEN_GROUPS::GroupCount)?;
    if count > MOST {
        return Ok(None);
    }
    let mut all = Vec::new();
    for index in 0..count {
        let member = (list + TOKEN_GROUPS::Groups).index(index.into());
        let at = cx.read(member + SID_AND_ATTRIBUTES::Sid)?;
        let Some(sid) = sid::read(cx, at)? else { return Ok(None) };
        all.push((sid, cx.read(member + SID_AND_ATTRIBUTES::Attributes)?));
    }
    Ok(Some(all))
}

/// The privileges of a list, by the low parts of their LUIDs.
fn privileges(cx: &mut Cx<'_>, list: DriverPtr<TOKEN_PRIVILEGES>) -> Flow<Option<Vec<u32>>> {
    if list.is_null() {
        return Ok(Some(Vec::new()));
    }
    let count = cx.read(list + TOKEN_PRIVILEGES::PrivilegeCount)?;
    if count > MOST {
        return Ok(None);
    }
    let mut all = Vec::new();
    for index in 0..count {
        let member = (list + TOKEN_PRIVILEGES::Privileges).index(index.into());
        let luid = cx.read(member + LUID_AND_ATTRIBUTES::Luid)?;
        if luid.get(LUID::HighPart) == 0 {
            all.push(luid.get(LUID::LowPart));
        }
    }
    Ok(Some(all))
}

/// `SeFilterToken`.
///
/// # Errors
/// A verdict if it is no token, or on a bad pointer.
pub(crate) fn filter(
    cx: &mut Cx<'_>,
    existing: TokenPtr,
    flags: u32,
    disable: DriverPtr<TOKEN_GROUPS>,
    delete: DriverPtr<TOKEN_PRIVILEGES>,
    restrict: DriverPtr<TOKEN_GROUPS>,
    to: DriverPtr<TokenPtr>,
) -> Flow<NtStatus> {
    const DDI: &str = "SeFilterToken";
    let mut token = token::get(cx, DDI, existing)?;
    let lists = (groups(cx, disable)?, privileges(cx, delete)?, groups(cx, restrict)?);
    let (Some(disabled), Some(deleted), Some(restricting)) = lists else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    if flags & !(DISABLE_MAX_PRIVILEGE | SANDBOX_INERT) != 0 || restricting.iter().any(|(_, with)| *with != 0)
    {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    for (sid, _) in &disabled {
        token.user_only_refuses |= token.user == *sid;
        for (_, with) in token.groups.iter_mut().filter(|(group, _)| group == sid) {
            *with = *with & !(SE_GROUP_ENABLED | SE_GROUP_ENABLED_BY_DEFAULT) | SE_GROUP_USE_FOR_DENY_ONLY;
        }
    }
    if flags & DISABLE_MAX_PRIVILEGE != 0 {
        token.privileges.retain(|(privilege, _)| *privilege == CHANGE_NOTIFY);
    } else {
        token.privileges.retain(|(privilege, _)| !deleted.contains(privilege));
    }
    if !restricting.is_empty() {
        let mut sids: Vec<Sid> = restricting.into_iter().map(|(sid, _)| sid).collect();
        if let Some(before) = &token.restricting {
            sids.retain(|sid| before.contains(sid));
        }
        token.restricting = Some(sids);
    }
    let made = token::copy_for(cx, DDI, token)?;
    cx.write(to, TokenPtr::new(made))?;
    Ok(NtStatus::SUCCESS)
}

/// The impersonation level that is asked for, if one is.
fn asked_level(cx: &mut Cx<'_>, attributes: DriverPtr<OBJECT_ATTRIBUTES>) -> Flow<Option<u32>> {
    if attributes.is_null() {
        return Ok(None);
    }
    let quality = cx.read(attributes + OBJECT_ATTRIBUTES::SecurityQualityOfService)?;
    if quality.is_null() {
        return Ok(None);
    }
    let quality: DriverPtr<SECURITY_QUALITY_OF_SERVICE> = quality.cast();
    cx.read(quality + SECURITY_QUALITY_OF_SERVICE::ImpersonationLevel).map(Some)
}

/// The level of a duplicate; none of a primary token.
fn level(token: &Token, asked: Option<u32>, kind: u32) -> Result<Option<u32>, NtStatus> {
    if asked.is_some_and(|asked| asked > SecurityDelegation) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    match (kind, token.level) {
        (TokenPrimary, None) => Ok(None),
        (TokenPrimary, Some(own)) if asked.unwrap_or(own).min(own) >= SecurityImpersonation => Ok(None),
        (TokenImpersonation, Some(own)) if asked.unwrap_or(own) <= own => Ok(Some(asked.unwrap_or(own))),
        (TokenImpersonation, None) => Ok(Some(asked.unwrap_or(SecurityImpersonation))),
        (TokenPrimary | TokenImpersonation, Some(_)) => Err(NtStatus::BAD_IMPERSONATION_LEVEL),
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

/// `ZwDuplicateToken`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn zw_duplicate(
    cx: &mut Cx<'_>,
    existing: u64,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    effective_only: bool,
    kind: u32,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let entry = match handle::entry_of(cx, Handle(existing), Kind::Token) {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let mut token = token::get(cx, "ZwDuplicateToken", TokenPtr::new(entry.object))?;
    let asked = asked_level(cx, attributes)?;
    token.level = match level(&token, asked, kind) {
        Ok(level) => level,
        Err(status) => return Ok(status),
    };
    if effective_only {
        token.groups.retain(|(_, with)| with & (SE_GROUP_ENABLED | SE_GROUP_USE_FOR_DENY_ONLY) != 0);
        token.privileges.retain(|(_, with)| with & SE_PRIVILEGE_ENABLED != 0);
    }
    let flags = if attributes.is_null() { 0 } else { cx.read(attributes + OBJECT_ATTRIBUTES::Attributes)? };
    let made = token::make(cx, token)?;
    let access = if access == 0 { entry.access } else { access };
    handle::open_made(cx, TokenPtr::new(made), access, flags & OBJ_KERNEL_HANDLE != 0, to)
}
