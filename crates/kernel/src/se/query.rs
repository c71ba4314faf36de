//! What a token says, class by class, in pool of the caller's.
//!
//! Pages: *SeQueryInformationToken function*, *TOKEN_INFORMATION_CLASS enumeration*. The classes of the routine's page are here; another
//! one ends the run by its number.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DriverPtr, LUID_AND_ATTRIBUTES, MaxTokenInfoClass, NtStatus, TOKEN_GROUPS, TOKEN_PRIVILEGES,
    TOKEN_SOURCE, TOKEN_STATISTICS, TokenDefaultDacl, TokenGroups, TokenImpersonationLevel,
    TokenIntegrityLevel, TokenOwner, TokenPrimaryGroup, TokenPrivileges, TokenSessionId, TokenSource,
    TokenStatistics, TokenType, TokenUser,
};
use engine::Flow;
use zerocopy::IntoBytes;

use super::sid::Sid;
use super::token::{self, Token, TokenPtr, luid};
use crate::cx::Cx;
use crate::mm::pool;
use crate::verdict::Verdict;

const TAG: u32 = pool::tag(b"SeTi");
/// The last class that Windows 11 has.
const LAST: u32 = 48;

/// `SeQueryInformationToken`: the session's number and the level of integrity take the place of the buffer's address.
///
/// # Errors
/// A verdict if it is no token, on a bad pointer, or on a class that is not here.
pub(crate) fn information(cx: &mut Cx<'_>, at: TokenPtr, class: u32, into: DriverPtr<u64>) -> Flow<NtStatus> {
    let token = token::get(cx, "SeQueryInformationToken", at)?;
    match class {
        TokenSessionId => cx.write(into.cast::<u32>(), token.session)?,
        TokenIntegrityLevel => cx.write(into.cast::<u32>(), token.integrity)?,
        TokenImpersonationLevel if token.level.is_none() => return Ok(NtStatus::INVALID_INFO_CLASS),
        _ => {
            let Some(image) = image(&token, class, 0) else {
                return not_here(cx, "SeQueryInformationToken", class);
            };
            let bytes = image.len() as u64;
            let buffer: DriverPtr<()> = pool::allocate_for_caller(cx, pool::Kind::Paged, bytes, TAG)?;
            if buffer.is_null() {
                return Ok(NtStatus::INSUFFICIENT_RESOURCES);
            }
            cx.write_bytes(buffer.address, &self::image(&token, class, buffer.address).unwrap_or_default())?;
            cx.write(into, buffer.address)?;
        }
    }
    Ok(NtStatus::SUCCESS)
}

pub(super) fn not_here(cx: &mut Cx<'_>, ddi: &str, class: u32) -> Flow<NtStatus> {
    if !(1..=LAST).contains(&class) {
        return Ok(NtStatus::INVALID_INFO_CLASS);
    }
    let what = format!("{ddi} of class {class}");
    Err(cx.stop(Verdict::not_implemented(&what)))
}

/// What the buffer of this class holds that lies at `at`.
pub(super) fn image(token: &Token, class: u32, at: u64) -> Option<Vec<u8>> {
    Some(match class {
        TokenUser => with_sids(&[], &[(&token.user, Some(0))], at),
        TokenGroups => {
            let count = u32::try_from(token.groups.len()).unwrap_or(0);
            let mut head = count.to_le_bytes().to_vec();
            head.resize(8, 0); // `Groups`
            let groups: Vec<_> = token.groups.iter().map(|(sid, with)| (sid, Some(*with))).collect();
            with_sids(&head, &groups, at)
        }
        TokenPrivileges => privileges(token),
        TokenOwner => with_sids(&[], &[(&token.owner, None)], at),
        TokenPrimaryGroup => with_sids(&[], &[(&token.group, None)], at),
        TokenDefaultDacl => [&(at + 8).to_le_bytes()[..], &token.default_dacl().bytes()].concat(),
        TokenSource => {
            let mut source = TOKEN_SOURCE::zeroed();
            source.set(TOKEN_SOURCE::SourceName, *b"User32 \0");
            source.set(TOKEN_SOURCE::SourceIdentifier, luid(token.authentication + 1));
            source.as_bytes().to_vec()
        }
        TokenType => token.kind().to_le_bytes().to_vec(),
        TokenImpersonationLevel => token.level?.to_le_bytes().to_vec(),
        TokenStatistics => statistics(token).as_bytes().to_vec(),
        _ => return None,
    })
}

/// `head`, a pointer to each identifier (and its attributes, if it has some), and the identifiers themselves.
fn with_sids(head: &[u8], sids: &[(&Sid, Option<u32>)], at: u64) -> Vec<u8> {
    let pointers: usize = sids.iter().map(|(_, attributes)| if attributes.is_some() { 16 } else { 8 }).sum();
    let (mut image, mut tail) = (head.to_vec(), Vec::new());
    for (sid, attributes) in sids {
        image.extend((at + (head.len() + pointers + tail.len()) as u64).to_le_bytes());
        image.extend(attributes.map(|attributes| u64::from(attributes).to_le_bytes()).into_iter().flatten());
        tail.extend(sid.bytes());
    }
    image.extend(tail);
    image
}

fn privileges(token: &Token) -> Vec<u8> {
    let count = u32::try_from(token.privileges.len()).unwrap_or(0);
    let mut image = count.to_le_bytes().to_vec();
    for (privilege, attributes) in &token.privileges {
        let mut member = LUID_AND_ATTRIBUTES::zeroed();
        member.set(LUID_AND_ATTRIBUTES::Luid, luid((*privilege).into()));
        member.set(LUID_AND_ATTRIBUTES::Attributes, *attributes);
        image.extend(member.as_bytes());
    }
    image
}

fn statistics(token: &Token) -> TOKEN_STATISTICS {
    type S = TOKEN_STATISTICS;
    let mut statistics = S::zeroed();
    statistics.set(S::TokenId, luid(token.id));
    statistics.set(S::AuthenticationId, luid(token.authentication));
    statistics.set(S::ExpirationTime, i64::MAX);
    statistics.set(S::TokenType, token.kind());
    statistics.set(S::ImpersonationLevel, token.level.unwrap_or(0));
    statistics.set(S::GroupCount, u32::try_from(token.groups.len()).unwrap_or(0));
    statistics.set(S::PrivilegeCount, u32::try_from(token.privileges.len()).unwrap_or(0));
    statistics.set(S::ModifiedId, luid(token.id));
    statistics
}

const _: () = assert!(LAST >= MaxTokenInfoClass && TOKEN_PRIVILEGES::Privileges.offset() == 4);
const _: () = assert!(TOKEN_GROUPS::Groups.offset() == 8);
