//! Privileges of a token are enabled, disabled and removed.
//!
//! Page: *AdjustTokenPrivileges function*, which ends in this; the system's own routine has no page. A driver's own calls are trusted: what access its handle
//! has is not looked at. A privilege that the token has not is none of an error.

use abi::{
    DriverPtr, LUID, LUID_AND_ATTRIBUTES, NtStatus, SE_PRIVILEGE_ENABLED, SE_PRIVILEGE_REMOVED,
    TOKEN_PRIVILEGES,
};
use engine::Flow;

use super::token;
use crate::cx::Cx;
use crate::ob::handle;
use crate::ob::{Handle, Kind};

/// The privileges of a `TOKEN_PRIVILEGES` begin here, and are so long each.
const FIRST: u64 = TOKEN_PRIVILEGES::Privileges.offset();
const EACH: u64 = size_of::<LUID_AND_ATTRIBUTES>() as u64;
/// More than there are.
const MOST: u32 = 64;

/// `ZwAdjustPrivilegesToken`: those of `new`, or all are disabled. `previous` gets those that change as they were, for which there are `room` bytes, and
/// `length` what they take. `NOT_ALL_ASSIGNED`, which is a success, if the token has not all of them.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn privileges(
    cx: &mut Cx<'_>,
    handle: u64,
    disable_all: bool,
    new: DriverPtr<TOKEN_PRIVILEGES>,
    room: u32,
    previous: DriverPtr<TOKEN_PRIVILEGES>,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let object = match handle::entry_of(cx, Handle(handle), Kind::Token) {
        Ok(entry) => entry.object,
        Err(status) => return Ok(status),
    };
    let held = token::get(cx, "ZwAdjustPrivilegesToken", token::TokenPtr::new(object))?.privileges;
    let wanted: Vec<(u32, u32)> = if disable_all {
        held.iter().map(|(privilege, _)| (*privilege, 0)).collect()
    } else if new.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    } else {
        read(cx, new)?
    };
    let (mut after, mut changed) = (held.clone(), Vec::new());
    for (privilege, attributes) in &wanted {
        let Some(place) = after.iter().position(|(known, _)| known == privilege) else { continue };
        if attributes & SE_PRIVILEGE_REMOVED != 0 {
            after.remove(place); // for good: it is not among those that are as before
            continue;
        }
        let old = after[place];
        let enabled = attributes & SE_PRIVILEGE_ENABLED;
        after[place].1 = old.1 & !SE_PRIVILEGE_ENABLED | enabled;
        changed.extend((after[place] != old).then_some(old));
    }
    if !previous.is_null() {
        let bytes = u32::try_from(FIRST + EACH * changed.len() as u64).unwrap_or(u32::MAX);
        if !length.is_null() {
            cx.write(length, bytes)?;
        }
        if room < bytes {
            return Ok(NtStatus::BUFFER_TOO_SMALL);
        }
        write(cx, previous, &changed)?;
    }
    cx.with(|k| token::set_privileges(k, object, after));
    let has = |privilege: &u32| held.iter().any(|(known, _)| known == privilege);
    let all = wanted.iter().all(|(privilege, _)| has(privilege));
    Ok(if all { NtStatus::SUCCESS } else { NtStatus::NOT_ALL_ASSIGNED })
}

fn member(of: DriverPtr<TOKEN_PRIVILEGES>, index: u64) -> DriverPtr<LUID_AND_ATTRIBUTES> {
    DriverPtr::new(of.address + FIRST + EACH * index)
}

fn read(cx: &mut Cx<'_>, from: DriverPtr<TOKEN_PRIVILEGES>) -> Flow<Vec<(u32, u32)>> {
    let count = cx.read(from + TOKEN_PRIVILEGES::PrivilegeCount)?.min(MOST);
    (0..u64::from(count))
        .map(|index| {
            let luid = cx.read(member(from, index) + LUID_AND_ATTRIBUTES::Luid)?;
            let attributes = cx.read(member(from, index) + LUID_AND_ATTRIBUTES::Attributes)?;
            let high = luid.get(LUID::HighPart);
            // No privilege has a number above 32 bits.
            Ok((if high == 0 { luid.get(LUID::LowPart) } else { u32::MAX }, attributes))
        })
        .collect()
}

fn write(cx: &mut Cx<'_>, to: DriverPtr<TOKEN_PRIVILEGES>, all: &[(u32, u32)]) -> Flow<()> {
    cx.write(to + TOKEN_PRIVILEGES::PrivilegeCount, u32::try_from(all.len()).unwrap_or(u32::MAX))?;
    for (index, (privilege, attributes)) in (0..).zip(all) {
        cx.write(member(to, index) + LUID_AND_ATTRIBUTES::Luid, token::luid((*privilege).into()))?;
        cx.write(member(to, index) + LUID_AND_ATTRIBUTES::Attributes, *attributes)?;
    }
    Ok(())
}
