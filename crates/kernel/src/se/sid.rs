//! Security identifiers: who is granted or refused.
//!
//! Pages: *SID structure*, *RtlInitializeSid function*, *RtlValidSid function*, *RtlConvertSidToUnicodeString function* and their
//! neighbours. Names of accounts are not here: there is no database of them.

use std::fmt;

use abi::{
    DriverPtr, NtStatus, SID, SID_IDENTIFIER_AUTHORITY, SID_MAX_SUB_AUTHORITIES, SID_REVISION, UNICODE_STRING,
};
use engine::Flow;

use crate::cx::Cx;
use crate::rtl::{convert, memory};

/// Bytes before the first sub-authority.
pub(crate) const HEAD: u32 = 8;

/// A security identifier as a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sid {
    /// The top authority, a number of 48 bits.
    pub authority: u64,
    /// What follows it, at most 15 of them.
    pub parts: Vec<u32>,
}

impl Sid {
    /// One of `S-1-authority-…`.
    #[must_use]
    pub fn new(authority: u64, parts: &[u32]) -> Self {
        Self { authority, parts: parts.to_vec() }
    }

    /// As it lies in memory.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let count = u8::try_from(self.parts.len()).unwrap_or(0);
        let mut bytes = vec![SID_REVISION, count];
        bytes.extend(&self.authority.to_be_bytes()[2..]);
        bytes.extend(self.parts.iter().flat_map(|part| part.to_le_bytes()));
        bytes
    }

    /// The one that `bytes` begin with, if they do.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, parts) = bytes.split_at_checked(HEAD as usize)?;
        if !is_valid(head[0], head[1]) {
            return None;
        }
        let mut authority = [0; 8];
        authority[2..].copy_from_slice(&head[2..]);
        let parts = parts.get(..4 * usize::from(head[1]))?;
        let parts = parts.as_chunks::<4>().0.iter().map(|part| u32::from_le_bytes(*part)).collect();
        Some(Self { authority: u64::from_be_bytes(authority), parts })
    }
}

/// `S-1-5-32-544`; an authority of more than 32 bits in hexadecimal.
impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.authority > u64::from(u32::MAX) {
            write!(f, "S-1-0x{:X}", self.authority)?;
        } else {
            write!(f, "S-1-{}", self.authority)?;
        }
        self.parts.iter().try_for_each(|part| write!(f, "-{part}"))
    }
}

const fn is_valid(revision: u8, count: u8) -> bool {
    revision & 0xF == SID_REVISION && count <= SID_MAX_SUB_AUTHORITIES
}

/// Bytes of an identifier with so many sub-authorities.
const fn bytes_of(count: u8) -> u32 {
    HEAD + 4 * count as u32
}

/// The identifier at `at`; none if it is not structurally valid.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn read(cx: &mut Cx<'_>, at: DriverPtr<SID>) -> Flow<Option<Sid>> {
    let (revision, count) = (cx.read(at + SID::Revision)?, cx.read(at + SID::SubAuthorityCount)?);
    if !is_valid(revision, count) {
        return Ok(None);
    }
    Ok(Sid::from_bytes(&memory::load(cx, at.address, bytes_of(count).into())?))
}

/// `RtlLengthSid`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn length(cx: &mut Cx<'_>, sid: DriverPtr<SID>) -> Flow<u32> {
    Ok(bytes_of(cx.read(sid + SID::SubAuthorityCount)?))
}

/// `RtlLengthRequiredSid`.
///
/// # Errors
/// None.
pub(crate) fn length_required(_: &mut Cx<'_>, count: u32) -> Flow<u32> {
    Ok(count.wrapping_mul(4).wrapping_add(HEAD))
}

/// `RtlInitializeSid`: the sub-authorities are for the caller to set.
///
/// # Errors
/// As [`length`].
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    sid: DriverPtr<SID>,
    authority: DriverPtr<SID_IDENTIFIER_AUTHORITY>,
    count: u8,
) -> Flow<NtStatus> {
    if count > SID_MAX_SUB_AUTHORITIES {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let authority = cx.read(authority)?;
    cx.write(sid + SID::Revision, SID_REVISION)?;
    cx.write(sid + SID::SubAuthorityCount, count)?;
    cx.write(sid + SID::IdentifierAuthority, authority)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlSubAuthoritySid`: where a sub-authority lies; nothing is read.
///
/// # Errors
/// None.
pub(crate) fn sub_authority(_: &mut Cx<'_>, sid: DriverPtr<SID>, index: u32) -> Flow<DriverPtr<u32>> {
    Ok((sid + SID::SubAuthority).index(index.into()))
}

/// `RtlSubAuthorityCountSid`: where the count lies; nothing is read.
///
/// # Errors
/// None.
pub(crate) fn sub_authority_count(_: &mut Cx<'_>, sid: DriverPtr<SID>) -> Flow<DriverPtr<u8>> {
    Ok(sid + SID::SubAuthorityCount)
}

/// `RtlValidSid`: whether revision and count are known ones; a null pointer is no identifier.
///
/// # Errors
/// As [`length`].
pub(crate) fn valid(cx: &mut Cx<'_>, sid: DriverPtr<SID>) -> Flow<bool> {
    if sid.is_null() {
        return Ok(false);
    }
    Ok(is_valid(cx.read(sid + SID::Revision)?, cx.read(sid + SID::SubAuthorityCount)?))
}

/// `RtlEqualSid`: equal in every byte.
///
/// # Errors
/// As [`length`].
pub(crate) fn equal(cx: &mut Cx<'_>, one: DriverPtr<SID>, two: DriverPtr<SID>) -> Flow<bool> {
    let (first, second) = (cx.read(one.cast::<u16>())?, cx.read(two.cast::<u16>())?);
    if first != second {
        return Ok(false);
    }
    let bytes = length(cx, one)?.into();
    Ok(memory::order(cx, one.address, two.address, bytes)? == 0)
}

/// `RtlCopySid`.
///
/// # Errors
/// As [`length`].
pub(crate) fn copy(cx: &mut Cx<'_>, room: u32, to: DriverPtr<SID>, source: DriverPtr<SID>) -> Flow<NtStatus> {
    let bytes = length(cx, source)?;
    if bytes > room {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    memory::copy(cx, to.address, source.address, bytes.into())?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlConvertSidToUnicodeString`.
///
/// # Errors
/// As [`length`].
pub(crate) fn to_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    sid: DriverPtr<SID>,
    allocate: bool,
) -> Flow<NtStatus> {
    let Some(sid) = read(cx, sid)? else { return Ok(NtStatus::INVALID_SID) };
    let units = sid.to_string().encode_utf16().collect();
    convert::put::<2>(cx, to, units, true, allocate)
}
